"""KEKs in a TPM 2.0, against swtpm."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from templates_store.errors import KeyUnavailable
from templates_store.keys import tpm
from templates_store.keys.tpm import Tpm
from templates_store.template import Purpose, SubjectId
from tests.templates_store.site import Site, enrol, switch_on

ONE, TWO = "0011223344556677", "8899aabbccddeeff"
MISSING = tpm.available() or ("" if shutil.which("swtpm") else "swtpm not installed (apt install swtpm)")
needs_swtpm = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture(scope="module")
def tcti(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if MISSING:
        pytest.skip(MISSING)
    folder = tmp_path_factory.mktemp("swtpm")
    socket = folder / "s"
    command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}", "--flags", "startup-clear"]
    command += ["--server", f"type=unixio,path={socket}", "--ctrl", f"type=unixio,path={folder / 's.ctrl'}"]
    process = subprocess.Popen([*command, "--daemon", "--pid", f"file={folder / 'pid'}"])
    process.wait(30)  # --daemon returns once the sockets listen
    try:
        yield f"swtpm:path={socket}"
    finally:
        os.kill(int((folder / "pid").read_text()), 15)


def run(tcti: str, *command: str) -> None:
    subprocess.run(command, env={**os.environ, "TPM2TOOLS_TCTI": tcti}, check=True, capture_output=True)


@needs_swtpm
def test_keeps_keys_until_they_are_destroyed(tcti: str) -> None:
    vault = Tpm(tcti=tcti)
    assert (vault.name, vault.warning, dict(vault.keys())) == ("tpm2", "", {})
    vault.create(ONE, bytes(32))
    vault.create(TWO, bytes(range(32)))
    assert dict(Tpm(tcti=tcti).keys()) == {ONE: bytes(32), TWO: bytes(range(32))}
    vault.destroy(ONE)
    vault.destroy(ONE)
    assert dict(vault.keys()) == {TWO: bytes(range(32))}
    vault.destroy(TWO)
    assert dict(vault.keys()) == {}


@needs_swtpm
def test_a_store_under_a_tpm_rotates_and_reopens(tcti: str, site: Site) -> None:
    vault = Tpm(tcti=tcti)
    with site.open(keys=vault) as store:
        switch_on(store)
        given = enrol(store, "anna")
        new = store.rotate()
    assert list(vault.keys()) == [new]
    with site.open(keys=Tpm(tcti=tcti)) as store:
        assert store.templates_of(SubjectId("anna"), purpose=Purpose.ATTENDANCE) == given
    vault.destroy(new)


@needs_swtpm
def test_a_slot_that_was_defined_and_never_written_is_swept(tcti: str, tmp_path: Path) -> None:
    policy = str(tmp_path / "policy")
    run(tcti, "tpm2_flushcontext", "--loaded-session")
    run(tcti, "tpm2_createpolicy", "--policy-pcr", "-l", tpm.PCR, "-L", policy)
    define = ["tpm2_nvdefine", f"{tpm.FIRST_INDEX:#x}", "-C", "o", "-s", str(tpm.SLOT_LEN), "-L", policy]
    run(tcti, *define, "-a", "ownerwrite|policyread|no_da")
    vault = Tpm(tcti=tcti)
    vault.destroy(ONE)
    vault.create(ONE, bytes(32))
    assert dict(vault.keys()) == {ONE: bytes(32)}
    vault.destroy(ONE)


@needs_swtpm
def test_another_boot_state_keeps_the_store_sealed_and_says_why(tcti: str, site: Site) -> None:
    vault = Tpm(tcti=tcti, pcr="sha256:16")  # the debug PCR stands in for PCR 7: it can be reset
    with site.open(keys=vault) as store:
        assert not store.sealed
    run(tcti, "tpm2_flushcontext", "--loaded-session")
    run(tcti, "tpm2_pcrextend", "16:sha256=" + "ab" * 32)
    with site.open(keys=Tpm(tcti=tcti, pcr="sha256:16")) as store:
        assert store.sealed
        assert "boot state" in store.seal_reason
    run(tcti, "tpm2_pcrreset", "16")
    with site.open(keys=Tpm(tcti=tcti, pcr="sha256:16")) as store:
        assert not store.sealed
    for kek_id in list(vault.keys()):
        vault.destroy(kek_id)


@needs_swtpm
def test_secrets_reach_the_tools_through_stdin_alone(
    tcti: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = bytes(range(64, 96))
    real, seen = subprocess.run, []

    def spy(command: list[str], **options: object) -> object:
        seen.append(" ".join(command).encode() + repr(options["env"]).encode())
        return real(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", spy)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    vault = Tpm(tcti=tcti)
    vault.create(ONE, secret)
    vault.destroy(ONE)
    assert seen
    assert not any(secret in each or secret.hex().encode() in each for each in seen)


def test_no_tpm_or_no_tools_tell_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not tpm.available():
        with pytest.raises(KeyUnavailable, match="TPM enabled"):
            Tpm(tcti=f"swtpm:path={tmp_path / 'nothing'}").keys()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KeyUnavailable, match="apt install tpm2-tools"):
        Tpm().keys()
