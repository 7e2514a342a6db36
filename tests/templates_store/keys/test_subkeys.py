"""Another database's keys: derived, stable over rotations, under a KEK of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from templates_store.errors import KeyUnavailable
from templates_store.keys.keyring import Keyring, key_file
from templates_store.keys.subkeys import DatabaseKeys
from tests.templates_store.site import Site


def opened(folder: Path, provider: Keyring | None = None, name: str = "agent") -> DatabaseKeys:
    return DatabaseKeys.open(
        folder / "agent.keys", tenant="acme", name=name, provider=provider or key_file(folder / "kek")
    )


def test_derives_the_same_keys_after_restart_and_rotation(tmp_path: Path) -> None:
    keys = opened(tmp_path)
    cards = keys.subkey("cards")
    assert len(cards) == 32
    assert keys.subkey("audit") != cards
    (old,) = key_file(tmp_path / "kek").keys()
    keys.rotate()
    assert keys.subkey("cards") == cards
    assert opened(tmp_path).subkey("cards") == cards
    assert list(key_file(tmp_path / "kek").keys()) != [old]
    assert len(key_file(tmp_path / "kek").keys()) == 1


def test_shares_no_kek_with_the_templates(site: Site) -> None:
    provider = key_file(site.folder / "keys" / "kek")
    keys = opened(site.folder, provider)
    with site.open(keys=provider) as store:
        templates = {kek_id for (kek_id,) in store.database.writer.execute("SELECT kek_id FROM kek")}
        assert len(provider.keys()) == 2
        assert store.rotate() not in templates
        assert len(provider.keys()) == 2
        cards = keys.subkey("cards")
        keys.rotate()
    assert opened(site.folder, provider).subkey("cards") == cards
    with site.open(keys=provider) as store:
        assert not store.sealed


def test_the_file_opens_under_its_name_and_provider_only(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(KeyUnavailable, match="does not open"):
        opened(tmp_path, name="templates")
    with pytest.raises(KeyUnavailable, match="does not hold key"):
        opened(tmp_path, key_file(tmp_path / "other"))
    for bad in (b"{}", b"no json", b'{"wrapped": "zz", "other": ""}', b"[" * 3000):
        (tmp_path / "agent.keys").write_bytes(bad)
        with pytest.raises(KeyUnavailable, match="damaged"):
            opened(tmp_path)


class Dying(Keyring):
    """A vault that is cut off at its n-th call."""

    def __init__(self, base: Path, *, after: int) -> None:
        good = key_file(base)
        super().__init__(good._path, name=good.name, root=good._root)
        self.left = after

    def _live(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyUnavailable("power cut")

    def create(self, kek_id: str, key: bytes) -> None:
        self._live()
        super().create(kek_id, key)
        self._live()

    def destroy(self, kek_id: str) -> None:
        self._live()
        super().destroy(kek_id)
        self._live()


@pytest.mark.parametrize("after", range(4))
def test_a_rotation_cut_off_anywhere_is_finished_at_the_next_opening(tmp_path: Path, after: int) -> None:
    cards = opened(tmp_path).subkey("cards")
    keys = opened(tmp_path, Dying(tmp_path / "kek", after=after))
    with pytest.raises(KeyUnavailable, match="power cut"):
        keys.rotate()
    assert opened(tmp_path).subkey("cards") == cards
    assert len(key_file(tmp_path / "kek").keys()) == 1
