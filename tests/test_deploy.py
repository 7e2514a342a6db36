"""What ships beside the code must be true."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_agent import __version__
from edge_agent.config import load
from edge_agent.devices.fleet import Fleet
from edge_agent.devices.supervise import DeviceHealth
from edge_agent.policy.roles import Role
from tests.edge_agent.api.whole import whole_gateway

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
ADDED_BY_PROMETHEUS = {"instance", "job"}


def test_the_example_configuration_is_valid() -> None:
    config = load(DEPLOY / "agent.example.toml")
    assert [device.name for device in config.site.devices] == ["lobby", "workshop"]


def test_the_example_switches_no_biometric_on() -> None:
    assert load(DEPLOY / "agent.example.toml").site.modalities == {}


def test_lock_files_name_no_index_and_pin_every_package() -> None:
    for path in ROOT.glob("requirements*.txt"):
        text = path.read_text("utf-8")
        assert "://" not in text
        assert text.count("==") <= text.count("--hash=sha256:")


# Metrics: what asks for them and what exists


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DEPLOY / "grafana-dashboard.json").read_text("utf-8"))["panels"]
    return found


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((DEPLOY / "prometheus-alerts.yml").read_text("utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def asked(expression: str, *texts: str) -> dict[str, set[str]]:
    """Metric -> labels: those it is selected by, and those that a text beside it shows."""
    shown = {label for text in texts for label in re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", text)}
    return {
        metric: shown | set(re.findall(r"(\w+)\s*=~?", matchers))
        for metric, matchers in re.findall(r"(edge_agent_\w+)(\{[^}]*\})?", expression)
    }


async def test_dashboard_and_alerts_ask_only_for_metrics_and_labels_that_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    health = {"panel": DeviceHealth("panel", clock_offset=timedelta(seconds=2))}
    monkeypatch.setattr(Fleet, "health", property(lambda self: health))
    async with whole_gateway(tmp_path) as whole:
        await whole.agent.outbox.register("hr")
        async with whole.client(Role.INTEGRATION) as scraper:
            text = (await scraper.get("/metrics")).text
    exposed: dict[str, set[str]] = {}
    for metric, labels in re.findall(r"^(edge_agent_\w+)(\{.*\})? ", text, re.MULTILINE):
        exposed.setdefault(metric, set()).update(re.findall(r'(\w+)="', labels))
    wanted = [asked(t["expr"], t["legendFormat"]) for panel in panels() for t in panel["targets"]]
    wanted += [asked(rule["expr"], *rule["annotations"].values()) for rule in rules()]
    assert len(wanted) > 25
    for each in wanted:
        for metric, labels in each.items():
            assert metric in exposed, metric
            assert labels - ADDED_BY_PROMETHEUS <= exposed[metric], (metric, labels)


def test_every_alert_says_what_is_wrong_and_panels_do_not_overlap() -> None:
    for rule in rules():
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"warning", "critical"}
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


# The service and the package


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_unit_is_confined() -> None:
    unit = str(DEPLOY / "edge-agent.service")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", unit],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


OFFLINE = ("some-1.0-py3-none-any.whl", "other-2.0.tar.gz")  # what an index has of a package may be its source alone


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb here")
    out = tmp_path_factory.mktemp("deb")
    (out / "wheels").mkdir()
    for name in OFFLINE:
        (out / "wheels" / name).write_bytes(b"")
    subprocess.run([DEPLOY / "build_deb.sh", out], check=True, capture_output=True, timeout=120)
    subprocess.run([DEPLOY / "build_deb.sh", out / "offline", out / "wheels"], check=True, capture_output=True)
    return out


def fields(package: Path) -> dict[str, str]:
    shown = subprocess.run(["dpkg-deb", "-f", package], capture_output=True, text=True, check=True).stdout
    return dict(line.split(": ", 1) for line in shown.splitlines() if ": " in line and not line.startswith(" "))


def test_the_package_says_what_it_is(package: Path) -> None:
    [made] = package.glob("*.deb")
    found = fields(made)
    assert (found["Package"], found["Version"], found["Architecture"]) == ("edge-agent", __version__, "all")
    assert "python3 (>= 3.11)" in found["Depends"]


def test_a_package_with_wheels_is_for_one_architecture_and_carries_them(package: Path) -> None:
    [made] = (package / "offline").glob("*.deb")
    assert fields(made)["Architecture"] != "all"
    listed = subprocess.run(["dpkg-deb", "-c", made], capture_output=True, text=True, check=True).stdout
    assert all(f"./opt/edge-agent/wheels/{name}" in listed for name in OFFLINE)


def test_the_package_holds_the_product_and_nothing_else(package: Path, tmp_path: Path) -> None:
    [made] = package.glob("*.deb")
    listed = subprocess.run(["dpkg-deb", "-c", made], capture_output=True, text=True, check=True).stdout.splitlines()
    assert all(line.split()[1] == "root/root" for line in listed)
    names = {line.split()[5].removeprefix(".") for line in listed}
    assert {
        f"/opt/edge-agent/{name}" for name in ("requirements.txt", "requirements-build.txt", "deploy/install.sh")
    } <= names
    assert "/lib/systemd/system/edge-agent.service" in names
    assert not [name for name in names if "__pycache__" in name or "/tests" in name or name.endswith(".db")]
    assert not [line for line in listed if line[8] == "w"]  # nothing that everybody may write
    subprocess.run(["dpkg-deb", "-x", made, tmp_path], check=True)
    home = tmp_path / "opt" / "edge-agent"
    checked = subprocess.run(
        [sys.executable, "-m", "edge_agent", "check", "--no-probe", "-c", home / "deploy" / "agent.example.toml"],
        cwd=home, env=os.environ | {"PYTHONPATH": str(home)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
    for folder, kind in (("edge_agent", "*"), ("templates_store", "*"), ("device_drivers", "*")):
        ours = {p.relative_to(ROOT) for p in (ROOT / folder).rglob(kind) if p.is_file() and p.suffix != ".pyc"}
        assert {p for p in ours if not (home / p).exists()} == set()


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_the_maintainer_scripts_are_shell_that_stops_on_faults(script: str) -> None:
    path = DEPLOY / "debian" / script
    assert "set -eu" in path.read_text("utf-8")
    assert subprocess.run(["sh", "-n", path], check=False).returncode == 0
    assert os.access(path, os.X_OK)


def test_the_runbook_knows_every_exit_code_metric_and_command() -> None:
    text = (DEPLOY / "RUNBOOK.md").read_text("utf-8")
    for words in (
        "edge-agent restore", "edge-agent decommission", "edge-agent keys unseal", "edge-agent incidents open",
        "edge-agent quarantine list", "Exit status", "prometheus-alerts.yml", "grafana-dashboard.json", "build_deb.sh",
        "two_people", "sign_in", "ballast",
    ):  # fmt: skip
        assert words in text, words
