"""A new KEK for everything, the old one gone, nobody kept waiting."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from templates_store import rotation
from templates_store.errors import KeyUnavailable
from templates_store.keys.keyring import Keyring, key_file
from templates_store.store import TemplateStore
from templates_store.template import Purpose, SubjectId
from tests.templates_store.site import Site, enrol, gallery, switch_on


def test_rotating_replaces_the_kek_and_touches_no_template(site: Site, store: TemplateStore) -> None:
    for i in range(7):
        enrol(store, f"s{i}")
    store.pack(minimum=5, members=5)
    before = gallery(store)
    sql = store.database.writer
    sealed = sql.execute("SELECT template_id, sealed FROM template ORDER BY 1").fetchall()
    (old,) = site.keys().keys()
    new = store.rotate()
    assert list(site.keys().keys()) == [new]
    assert new != old
    assert sql.execute("SELECT template_id, sealed FROM template ORDER BY 1").fetchall() == sealed
    assert {row[0] for row in sql.execute("SELECT kek_id FROM dek UNION SELECT kek_id FROM chunk")} == {new}
    assert gallery(store) == before
    assert store.check_integrity().ok


def test_receipts_verify_under_one_key_over_rotations_and_restarts(site: Site) -> None:
    with site.open() as store:
        receipt = store.erase(SubjectId("x"), reason="x", actor="y")
        key = store.public_key
        store.rotate()
    with site.open() as store:
        assert store.public_key == key
        assert receipt.verify(store.public_key)


def test_an_old_copy_of_the_file_opens_nothing_after_a_rotation(site: Site, store: TemplateStore) -> None:
    enrol(store, "anna")
    store.database.checkpoint()
    copy = Site(site.folder / "thief")
    for here, there in ((site.path, copy.path), (site.anchor, copy.anchor)):
        there.parent.mkdir(parents=True)
        shutil.copy(here, there)
    with copy.open(keys=site.keys()) as stolen:
        assert not stolen.sealed  # until then, whoever has file, anchor and keys has it all
        assert len(stolen.templates_of(SubjectId("anna"), purpose=Purpose.ATTENDANCE)) == 1
    store.erase(SubjectId("anna"), reason="x", actor="y")
    store.rotate()
    with copy.open(keys=site.keys()) as stolen:
        assert stolen.sealed
        assert "does not hold key" in stolen.seal_reason


def test_a_large_store_is_rewrapped_in_batches(store: TemplateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "BATCH", 3)
    for i in range(8):
        enrol(store, f"s{i}")
    version = store.statistics().version
    store.rotate()
    assert store.statistics().version > version + 4
    assert len(gallery(store)) == 8


def test_people_enrol_and_are_erased_while_keys_rotate(store: TemplateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "BATCH", 4)
    for i in range(20):
        enrol(store, f"s{i}")
    failed: list[BaseException] = []

    def rotate() -> None:
        try:
            for _ in range(3):
                store.rotate()
        except BaseException as exc:
            failed.append(exc)
            raise

    rotating = threading.Thread(target=rotate)
    rotating.start()
    for i in range(8):
        enrol(store, f"new{i}")
        store.erase(SubjectId(f"s{i}"), reason="x", actor="y")
    rotating.join()
    store.rotate()
    assert failed == []
    assert {each.split("/")[0] for each in gallery(store)} == {f"s{i}" for i in range(8, 20)} | {
        f"new{i}" for i in range(8)
    }
    assert all(each.outcome == "gone" for receipt in store.receipts() for each in receipt.locations)
    assert store.check_integrity().ok


def test_moves_into_another_provider_and_out_of_the_old_one(site: Site, tmp_path: Path) -> None:
    other = Keyring(tmp_path / "ring", name="credential", root=lambda: bytes(32))
    with site.open() as store:
        receipt = store.erase(SubjectId("x"), reason="x", actor="y")
        new = store.rewrap(other)
        assert list(other.keys()) == [new]
        assert list(site.keys().keys()) == []
        assert store.receipt(receipt.receipt_id).closed
        assert store.statistics().provider == "credential"
    with site.open() as store:
        assert store.sealed
    with site.open(keys=other) as store:
        assert not store.sealed


class Refusing(Keyring):
    """A vault that refuses to do one thing, once."""

    def __init__(self, base: Path, *, refuses: str) -> None:
        good = key_file(base)
        super().__init__(good._path, name=good.name, root=good._root)
        self.refuses = refuses

    def create(self, kek_id: str, key: bytes) -> None:
        if self.refuses == "create":
            raise KeyUnavailable("no room")
        super().create(kek_id, key)

    def destroy(self, kek_id: str) -> None:
        if self.refuses == "destroy":
            raise KeyUnavailable("not now")
        super().destroy(kek_id)


@pytest.mark.parametrize("refuses", ["create", "destroy"])
def test_a_vault_that_refuses_leaves_a_store_that_works_and_catches_up(site: Site, refuses: str) -> None:
    vault = Refusing(site.folder / "keys" / "kek", refuses="")
    with site.open(keys=vault) as store:
        receipt = store.erase(SubjectId("x"), reason="x", actor="y")
        vault.refuses = refuses
        with pytest.raises(KeyUnavailable):
            store.rotate()
        assert not store.receipt(receipt.receipt_id).closed
        assert store.check_integrity().ok
    with site.open(keys=vault) as store:
        assert not store.sealed
        assert bool(store.unfinished) == (refuses == "destroy")
    vault.refuses = ""
    with site.open(keys=vault) as store:
        assert store.unfinished == ""
        store.rotate()
        assert store.receipt(receipt.receipt_id).closed
        assert len(vault.keys()) == 1


class Waiting(Keyring):
    """A vault in which making a key takes until somebody else is done, if that somebody may begin."""

    def __init__(self, base: Path) -> None:
        good = key_file(base)
        super().__init__(good._path, name=good.name, root=good._root)
        self.meanwhile: list[threading.Thread] = []

    def create(self, kek_id: str, key: bytes) -> None:
        super().create(kek_id, key)
        if self.meanwhile:
            other = self.meanwhile.pop()
            other.start()
            other.join(0.2)


def test_two_rotations_at_once_leave_a_store_that_opens(site: Site) -> None:
    vault = Waiting(site.folder / "keys" / "kek")
    with site.open(keys=vault) as store:
        switch_on(store)
        enrol(store, "anna")
        other = threading.Thread(target=store.rotate)
        vault.meanwhile = [other]
        store.rotate()
        other.join()
    with site.open() as store:
        assert not store.sealed
        assert len(gallery(store)) == 1
        assert len(site.keys().keys()) == 1


def test_a_rotation_is_owed_from_an_erasure_until_the_old_key_is_gone(site: Site) -> None:
    vault = Refusing(site.folder / "keys" / "kek", refuses="")
    with site.open(keys=vault) as store:
        assert not store.rotation_owed()
        store.erase(SubjectId("x"), reason="x", actor="y")
        for refuses in ("create", "destroy", "destroy"):
            vault.refuses = refuses
            with pytest.raises(KeyUnavailable):
                store.rotate()
            assert store.rotation_owed()
        vault.refuses = ""
        store.rotate()
        assert not store.rotation_owed()
        assert len(vault.keys()) == 1


def test_a_key_left_in_a_provider_that_is_not_attached_owes_no_rotation(site: Site, tmp_path: Path) -> None:
    vault = Refusing(site.folder / "keys" / "kek", refuses="destroy")
    other = Keyring(tmp_path / "ring", name="credential", root=lambda: bytes(32))
    with site.open(keys=vault) as store:
        store.erase(SubjectId("x"), reason="x", actor="y")
        with pytest.raises(KeyUnavailable):
            store.rewrap(other)
        assert not store.rotation_owed()
