"""KEKs in a ring file under a key file, a systemd credential or a passphrase."""

from __future__ import annotations

from pathlib import Path

import pytest

from templates_store.errors import KeyUnavailable
from templates_store.keys.files import read_private, replace_private
from templates_store.keys.keyring import Keyring, credential, key_file
from templates_store.keys.passphrase import passphrase

ONE, TWO = "0011223344556677", "8899aabbccddeeff"
MEMORY_KIB = 64  # the cost is not what is tested here


def rings(folder: Path) -> dict[str, Keyring]:
    (folder / "credentials").mkdir(exist_ok=True)
    (folder / "credentials" / "kek").write_bytes(bytes(range(32)))
    return {
        "key-file": key_file(folder / "kek"),
        "credential": credential("kek", ring=folder / "credential.ring", directory=folder / "credentials"),
        "passphrase": passphrase("correct horse battery", ring=folder / "phrase.ring", memory_kib=MEMORY_KIB),
    }


@pytest.mark.parametrize("kind", ["key-file", "credential", "passphrase"])
def test_keeps_keys_until_they_are_destroyed(tmp_path: Path, kind: str) -> None:
    ring = rings(tmp_path)[kind]
    assert ring.name == kind
    assert dict(ring.keys()) == {}
    ring.create(ONE, bytes(32))
    ring.create(TWO, bytes(range(32)))
    again = rings(tmp_path)[kind]
    assert dict(again.keys()) == {ONE: bytes(32), TWO: bytes(range(32))}
    with pytest.raises(ValueError, match="exists"):
        again.create(ONE, bytes(32))
    again.destroy(ONE)
    again.destroy(ONE)
    assert list(ring.keys()) == [TWO]


def test_no_file_of_a_ring_shows_a_key_or_is_open_to_others(tmp_path: Path) -> None:
    secret = bytes(range(100, 132))
    for ring in rings(tmp_path).values():
        ring.create(ONE, secret)
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert len(files) == 5
    for path in files:
        assert path.stat().st_mode & 0o077 == 0
        assert secret not in path.read_bytes()
        assert secret.hex().encode() not in path.read_bytes()


def test_only_the_key_file_warns(tmp_path: Path) -> None:
    warnings = {kind: ring.warning for kind, ring in rings(tmp_path).items()}
    assert "unprotected" in warnings.pop("key-file")
    assert set(warnings.values()) == {""}


@pytest.mark.parametrize(("kek_id", "key"), [("xyz", bytes(32)), (ONE, bytes(31)), (ONE.upper() + "0", bytes(32))])
def test_a_malformed_key_is_our_own_mistake(tmp_path: Path, kek_id: str, key: bytes) -> None:
    with pytest.raises(ValueError, match="16 hex digits"):
        key_file(tmp_path / "kek").create(kek_id, key)


def test_a_key_file_open_to_others_is_refused(tmp_path: Path) -> None:
    key_file(tmp_path / "kek").create(ONE, bytes(32))
    (tmp_path / "kek").chmod(0o640)
    with pytest.raises(KeyUnavailable, match="chmod 600"):
        key_file(tmp_path / "kek").keys()


@pytest.mark.parametrize("content", [b"", bytes(31), bytes(33), bytes(10_000)])
def test_a_key_file_of_another_size_is_refused(tmp_path: Path, content: bytes) -> None:
    key_file(tmp_path / "kek").create(ONE, bytes(32))
    (tmp_path / "kek").write_bytes(content)
    with pytest.raises(KeyUnavailable):
        key_file(tmp_path / "kek").keys()


def test_another_root_does_not_open_the_ring(tmp_path: Path) -> None:
    key_file(tmp_path / "kek").create(ONE, bytes(32))
    (tmp_path / "kek").write_bytes(bytes(32))
    with pytest.raises(KeyUnavailable, match="does not open"):
        key_file(tmp_path / "kek").keys()
    rings(tmp_path)["passphrase"].create(ONE, bytes(32))
    with pytest.raises(KeyUnavailable, match="does not open"):
        passphrase("incorrect horse", ring=tmp_path / "phrase.ring", memory_kib=MEMORY_KIB).keys()


def test_a_passphrase_has_a_length_and_keeps_its_salt(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailable, match="at least"):
        passphrase("short", ring=tmp_path / "ring")
    passphrase("correct horse battery", ring=tmp_path / "ring", memory_kib=MEMORY_KIB).create(ONE, bytes(32))
    (tmp_path / "ring.salt").unlink()
    with pytest.raises(KeyUnavailable, match="salt is missing"):
        passphrase("correct horse battery", ring=tmp_path / "ring", memory_kib=MEMORY_KIB)


def test_a_missing_credential_tells_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(KeyUnavailable, match="LoadCredentialEncrypted"):
        credential("kek", ring=tmp_path / "ring").keys()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(KeyUnavailable, match="systemd-creds encrypt"):
        credential("kek", ring=tmp_path / "ring").keys()


def test_replacing_a_secret_overwrites_what_the_old_file_held(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    replace_private(path, b"first secret")
    with path.open("rb") as old:
        replace_private(path, b"second")
        assert old.read() != b"first secret"
    assert read_private(path, limit=100) == b"second"
    assert [each.name for each in tmp_path.iterdir()] == ["secret"]


def test_what_cannot_be_read_is_a_key_unavailable(tmp_path: Path) -> None:
    with pytest.raises(KeyUnavailable):
        read_private(tmp_path / "missing", limit=10)
    with pytest.raises(KeyUnavailable):
        read_private(tmp_path, limit=10)
