"""Backups are consistent, encrypted and verified; what was erased does not come back with them."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from templates_store import backup
from templates_store.anchor import FileAnchor
from templates_store.backup import RestoreReport, restore
from templates_store.errors import KeyUnavailable, RolledBack, SealBroken, Sealed
from templates_store.keys.keyring import key_file
from templates_store.store import TemplateStore
from templates_store.template import Purpose, SubjectId
from tests.canary import hits
from tests.templates_store.site import Site, enrol, gallery, switch_on

ANNA = SubjectId("anna")


def bring_back(site: Site, archive: Path, *, into: Path | None = None) -> RestoreReport:
    return restore(
        archive,
        into or site.path.parent,
        tenant=site.tenant,
        keys=site.keys(),
        anchor=FileAnchor(site.anchor),
        now=site.clock,
    )


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "backups").mkdir()
    return tmp_path / "backups" / "night.backup"


def test_brings_back_everything(site: Site, store: TemplateStore, archive: Path) -> None:
    for i in range(20):
        enrol(store, f"s{i}", 2)
    store.pack(minimum=10, members=10)
    before = gallery(store)
    report = store.backup(archive)
    assert report.size == archive.stat().st_size
    enrol(store, "later")
    store.close()
    shutil.rmtree(site.path.parent)
    assert bring_back(site, archive).members == ("templates.db",)
    with site.open() as restored:
        assert gallery(restored) == before
        assert restored.check_integrity().ok
        enrol(restored, "after")
    assert [path.name for path in archive.parent.iterdir()] == ["night.backup"]
    assert archive.stat().st_mode & 0o077 == 0


def test_takes_other_databases_along(site: Site, store: TemplateStore, archive: Path, tmp_path: Path) -> None:
    agent = sqlite3.connect(tmp_path / "agent.db")
    agent.execute("PRAGMA journal_mode=WAL")
    agent.execute("CREATE TABLE person (name)")
    agent.execute("INSERT INTO person VALUES ('Anna Canary Oftringen')")
    agent.commit()
    store.backup(archive, others={"agent.db": tmp_path / "agent.db"})
    agent.close()
    assert hits(b"Anna Canary Oftringen", archive.parent) == []
    store.close()
    assert bring_back(site, archive, into=tmp_path / "new").members == ("templates.db", "agent.db")
    back = sqlite3.connect(tmp_path / "new" / "agent.db")
    assert back.execute("SELECT name FROM person").fetchall() == [("Anna Canary Oftringen",)]
    back.close()


def test_a_backup_made_while_people_enrol_is_one_moment(site: Site, store: TemplateStore, archive: Path) -> None:
    def enrol_on() -> None:
        for i in range(12):
            enrol(store, f"s{i}", 2)

    writing = threading.Thread(target=enrol_on)
    writing.start()
    store.backup(archive)
    writing.join()
    store.close()
    bring_back(site, archive)
    with site.open() as restored:
        assert restored.check_integrity().ok
        assert all(
            len(restored.templates_of(SubjectId(f"s{i}"), purpose=Purpose.ATTENDANCE)) in {0, 2} for i in range(12)
        )


def test_a_backup_made_before_an_erasure_does_not_open_after_the_rotation(
    site: Site, store: TemplateStore, archive: Path
) -> None:
    enrol(store, "anna")
    store.backup(archive)
    store.erase(ANNA, reason="left", actor="hr")
    store.rotate()
    fresh = archive.with_name("fresh.backup")
    store.backup(fresh)
    store.close()
    kept = site.path.read_bytes()
    with pytest.raises(KeyUnavailable, match="destroyed on purpose"):
        bring_back(site, archive)
    assert site.path.read_bytes() == kept
    bring_back(site, fresh)
    with site.open() as restored:
        assert gallery(restored) == {}
        assert restored.receipts(ANNA)


def test_between_erasure_and_rotation_a_restore_erases_again(site: Site, store: TemplateStore, archive: Path) -> None:
    enrol(store, "anna")
    enrol(store, "ben")
    store.backup(archive)
    store.withdraw(ANNA, reason="withdrawn", actor="anna")
    store.close()
    assert bring_back(site, archive).erased_again == 1
    with site.open() as restored:
        assert {each.split("/")[0] for each in gallery(restored)} == {"ben"}


def test_a_restored_store_is_the_newest_and_the_replaced_file_is_not(
    site: Site, store: TemplateStore, archive: Path
) -> None:
    enrol(store, "anna")
    store.backup(archive)
    for i in range(5):
        enrol(store, f"s{i}")
    store.close()
    old = site.path.read_bytes()
    bring_back(site, archive)
    site.open().close()
    site.path.write_bytes(old)
    with pytest.raises(RolledBack):
        site.open()


def test_a_new_machine_with_the_keys_and_no_anchor_can_restore(
    site: Site, store: TemplateStore, archive: Path, tmp_path: Path
) -> None:
    enrol(store, "anna")
    store.backup(archive)
    other = Site(tmp_path / "other")
    shutil.copytree(site.folder / "keys", other.folder / "keys")
    bring_back(other, archive)
    with other.open() as restored:
        assert len(gallery(restored)) == 1


def test_no_damaged_archive_is_restored_and_nothing_is_left_behind(
    site: Site, store: TemplateStore, archive: Path, tmp_path: Path
) -> None:
    enrol(store, "anna")
    store.backup(archive)
    good = archive.read_bytes()
    target = tmp_path / "target"
    for i in [*range(0, 600, 7), *range(600, len(good), len(good) // 40), len(good) - 1]:
        archive.write_bytes(good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :])
        with pytest.raises((SealBroken, KeyUnavailable)):
            bring_back(site, archive, into=target)
    for wrong in (b"", good[:5], good[:100], good[:-1], good + b"\0", good[: len(good) // 2]):
        archive.write_bytes(wrong)
        with pytest.raises((SealBroken, KeyUnavailable)):
            bring_back(site, archive, into=target)
    assert list(target.iterdir()) == []


def test_another_tenant_or_other_keys_do_not_restore(
    site: Site, store: TemplateStore, archive: Path, tmp_path: Path
) -> None:
    store.backup(archive)
    with pytest.raises(SealBroken):
        bring_back(Site(site.folder, tenant="rival"), archive, into=tmp_path / "a")
    with pytest.raises(KeyUnavailable):
        restore(
            archive,
            tmp_path / "b",
            tenant="acme",
            keys=key_file(tmp_path / "other"),
            anchor=FileAnchor(tmp_path / "b.anchor"),
            now=site.clock,
        )


def test_a_backup_that_does_not_read_back_is_not_kept(
    store: TemplateStore, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.backup(archive)
    before = archive.read_bytes()
    monkeypatch.setattr(backup, "_seal_member", lambda *_, **__: None)  # a disk that loses what it was given
    with pytest.raises(SealBroken):
        store.backup(archive)
    assert archive.read_bytes() == before
    assert [path.name for path in archive.parent.iterdir()] == ["night.backup"]


def test_tells_how_far_it_is(site: Site, store: TemplateStore, archive: Path) -> None:
    switch_on(store)
    told: list[tuple[str, int, int]] = []
    store.backup(archive, progress=lambda *step: told.append(step))
    assert {what for what, _, _ in told} == {"copy templates.db", "seal templates.db", "verify templates.db"}
    assert all(0 <= done <= total for _, done, total in told)
    assert told[-1][1] == told[-1][2]


def test_a_sealed_store_makes_no_backup(site: Site, archive: Path) -> None:
    site.open().close()
    with site.open_sealed() as store, pytest.raises(Sealed):
        store.backup(archive)
    with site.open() as store, pytest.raises(ValueError, match="plain, distinct"):
        store.backup(archive, others={"../x": site.path})
