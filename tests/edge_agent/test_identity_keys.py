from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag

from edge_agent.identity_keys import BadKeyFile, IdentityKeys


def test_a_key_file_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    first = IdentityKeys.load(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert IdentityKeys.load(path).derive("cards") == first.derive("cards")


def test_each_use_has_its_own_key(tmp_path: Path) -> None:
    keys = IdentityKeys.load(tmp_path / "identity.key")
    assert keys.derive("cards") != keys.derive("audit")


def test_a_key_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    IdentityKeys.load(path)
    path.chmod(0o644)
    with pytest.raises(BadKeyFile, match="chmod 600"):
        IdentityKeys.load(path)


def test_a_cut_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    IdentityKeys.load(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadKeyFile, match="31 bytes"):
        IdentityKeys.load(path)


def test_a_sealed_secret_opens_again_and_not_when_changed(tmp_path: Path) -> None:
    keys = IdentityKeys.load(tmp_path / "identity.key")
    sealed = keys.seal("JBSWY3DPEHPK3PXP")
    assert keys.open(sealed) == "JBSWY3DPEHPK3PXP"
    with pytest.raises(InvalidTag):
        keys.open(sealed[:-1] + bytes([sealed[-1] ^ 1]))
