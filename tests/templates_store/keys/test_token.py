"""KEKs behind PKCS#11, against SoftHSM."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from templates_store.errors import KeyUnavailable
from templates_store.keys.token import PREFIX, Token
from templates_store.template import Purpose, SubjectId
from tests.templates_store.site import Site, enrol, switch_on

pkcs11 = pytest.importorskip("pkcs11")

ONE, TWO = "0011223344556677", "8899aabbccddeeff"
MODULE = next(
    (
        found
        for found in map(Path, ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so"))
        if found.exists()
    ),
    None,
)
PIN = "4711"


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SoftHSM with one fresh token; its configuration is read when the library is first loaded."""
    if MODULE is None or shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM is not installed (apt install softhsm2)")
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        command = ["softhsm2-util", "--init-token", "--free", "--label", "edge", "--pin", PIN, "--so-pin", "0815"]
        subprocess.run(command, check=True, capture_output=True)
        pkcs11.lib(str(MODULE))
    return MODULE


def test_keeps_keys_until_they_are_destroyed(module: Path) -> None:
    vault = Token(module, label="edge", pin=PIN)
    assert (vault.name, vault.warning, dict(vault.keys())) == ("pkcs11", "", {})
    vault.create(ONE, bytes(32))
    vault.create(TWO, bytes(range(32)))
    assert dict(Token(module, label="edge", pin=PIN).keys()) == {ONE: bytes(32), TWO: bytes(range(32))}
    vault.destroy(ONE)
    vault.destroy(ONE)
    assert dict(vault.keys()) == {TWO: bytes(range(32))}
    vault.destroy(TWO)


def test_the_wrapping_key_never_leaves_the_token(module: Path) -> None:
    vault = Token(module, label="edge", pin=PIN)
    vault.create(ONE, bytes(32))
    with pkcs11.lib(str(module)).get_token(token_label="edge").open(user_pin=PIN) as session:
        (key,) = session.get_objects(
            {pkcs11.Attribute.LABEL: PREFIX + ONE, pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY}
        )
        assert key[pkcs11.Attribute.SENSITIVE]
        assert not key[pkcs11.Attribute.EXTRACTABLE]
        with pytest.raises(pkcs11.PKCS11Error):
            key[pkcs11.Attribute.VALUE]
        (blob,) = session.get_objects(
            {pkcs11.Attribute.LABEL: PREFIX + ONE, pkcs11.Attribute.CLASS: pkcs11.ObjectClass.DATA}
        )
        assert bytes(32) not in bytes(blob[pkcs11.Attribute.VALUE])
    vault.destroy(ONE)


def test_a_store_under_a_token_rotates_and_reopens(module: Path, site: Site) -> None:
    vault = Token(module, label="edge", pin=PIN)
    with site.open(keys=vault) as store:
        switch_on(store)
        given = enrol(store, "anna")
        new = store.rotate()
    assert list(vault.keys()) == [new]
    with site.open(keys=Token(module, label="edge", pin=PIN)) as store:
        assert store.templates_of(SubjectId("anna"), purpose=Purpose.ATTENDANCE) == given
    vault.destroy(new)


def test_a_wrong_pin_label_or_module_tells_what_to_check(module: Path, site: Site) -> None:
    for vault in (
        Token(module, label="edge", pin="0000"),
        Token(module, label="other", pin=PIN),
        Token(site.folder / "nothing.so", label="edge", pin=PIN),
    ):
        with pytest.raises(KeyUnavailable, match="label and the PIN"):
            vault.keys()
    with site.open(keys=Token(module, label="edge", pin="0000")) as store:
        assert store.sealed
        assert "PIN" in store.seal_reason
        assert "0000" not in store.seal_reason
