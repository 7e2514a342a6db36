"""The import rules, read from the source with `ast`: they hold or this file fails."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("device_drivers", "templates_store", "edge_agent")
STDLIB = frozenset(sys.stdlib_module_names)

THIRD_PARTY = {
    "device_drivers": {
        "serial", "serial_asyncio_fast", "httpx", "starlette", "osdp", "uhppoted", "cv2", "numpy", "cryptography",
        "uvicorn",
    },
    "templates_store": {"numpy", "cryptography", "argon2", "numkong", "pkcs11"},
}  # fmt: skip
SISTERS = {"zkteco", "adms", "uhppote", "osdp", "fingerprint_uart", "isapi", "c3"}
IO_MODULES = {
    "asyncio",
    "socket",
    "ssl",
    "sqlite3",
    "serial",
    "serial_asyncio_fast",
    "httpx",
    "subprocess",
    "time",
}


def sources(package: str) -> Iterator[Path]:
    yield from sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every dotted name a file imports, `from a import b` as `a.b`, also inside functions and TYPE_CHECKING."""
    package = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]).rstrip(".")
            for alias in node.names:
                yield f"{base}.{alias.name}"


def test_reads_relative_and_nested_imports(tmp_path: Path) -> None:
    found = set(imports(ROOT / "device_drivers" / "catalog.py"))
    assert "device_drivers.devices.DeviceConfig" in found


@pytest.mark.parametrize("package", ["device_drivers", "templates_store"])
def test_lower_packages_import_only_what_the_table_allows(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources(package)
        for name in imports(path)
        if (top := name.split(".")[0]) != package and top not in STDLIB and top not in THIRD_PARTY[package]
    ]
    assert wrong == []


def test_only_the_demo_starts_simulated_devices() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources("edge_agent")
        for name in imports(path)
        if name.startswith("device_drivers.simulated") and "demo" not in path.parts
    ]
    assert wrong == []


def test_codecs_and_rules_do_no_io() -> None:
    pure = [
        path
        for path in sources("device_drivers")
        if path.name in {"frame.py", "messages.py", "session.py"} and "simulated" not in path.parts
    ]
    pure += list(sources("edge_agent/policy"))
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in pure
        for name in imports(path)
        if name.split(".")[0] in IO_MODULES
    ]
    assert wrong == []


def test_a_protocol_never_imports_a_sister() -> None:
    wrong = []
    for path in sources("device_drivers"):
        parts = path.relative_to(ROOT / "device_drivers").parts
        if parts[0] not in SISTERS:
            continue
        for name in imports(path):
            pieces = name.split(".")
            if pieces[0] == "device_drivers" and len(pieces) > 1 and pieces[1] in SISTERS - {parts[0]}:
                wrong.append(f"{path.relative_to(ROOT)}: {name}")
    assert wrong == []


def test_policy_and_matching_know_no_api_outbox_or_driver() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for room in ("edge_agent/policy", "edge_agent/matching")
        for path in sources(room)
        for name in imports(path)
        if name.startswith(("edge_agent.api", "edge_agent.delivery", "edge_agent.console", "device_drivers"))
    ]
    assert wrong == []


def test_nobody_imports_the_composition_root_but_main_and_demo() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources("edge_agent")
        for name in imports(path)
        if name.startswith("edge_agent.agent.") and path.name != "__main__.py" and "demo" not in path.parts
    ]
    assert wrong == []


def test_consents_are_made_by_the_consent_policy_alone() -> None:
    wrong = []
    for package in PACKAGES:
        for path in sources(package):
            if path == ROOT / "edge_agent" / "policy" / "consent.py":
                continue
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call):
                    called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                    if called == "Consent":
                        wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert wrong == []


def test_every_test_folder_mirrors_the_code() -> None:
    names = {"utils", "helpers", "common", "manager", "service"}
    wrong = [str(path.relative_to(ROOT)) for package in PACKAGES for path in sources(package) if path.stem in names]
    assert wrong == []
