"""An old file or an old row that somebody put back is noticed."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from templates_store.errors import RolledBack
from templates_store.sqlite import Database, to_us
from templates_store.store import TemplateStore
from templates_store.template import Modality, Purpose, SubjectId
from tests.templates_store.site import Site, enrol, switch_on

ANNA = SubjectId("anna")


def with_anna(site: Site) -> None:
    with site.open() as store:
        switch_on(store)
        enrol(store, "anna")
        enrol(store, "ben")


def keep(site: Site) -> Path:
    kept = site.folder / "kept.db"
    shutil.copy(site.path, kept)
    return kept


def test_an_old_file_put_back_is_refused_with_and_without_keys(site: Site) -> None:
    with_anna(site)
    kept = keep(site)
    with site.open() as store:
        store.withdraw(ANNA, reason="x", actor="y")
    shutil.copy(kept, site.path)
    with pytest.raises(RolledBack, match="its anchor at"):
        site.open()
    with pytest.raises(RolledBack, match="its anchor at"):
        site.open_sealed()


def test_a_fork_with_the_same_number_of_commits_is_refused(site: Site) -> None:
    with_anna(site)
    kept, anchor = keep(site), site.anchor.read_bytes()
    with site.open() as store:
        enrol(store, "carl")
    latest = site.anchor.read_bytes()
    shutil.copy(kept, site.path)
    site.anchor.write_bytes(anchor)
    with site.open() as store:
        enrol(store, "dora")
    site.anchor.write_bytes(latest)
    with pytest.raises(RolledBack):
        site.open()


def test_a_file_that_is_ahead_of_its_anchor_was_cut_off_by_a_crash_and_opens(site: Site) -> None:
    with_anna(site)
    anchor = site.anchor.read_bytes()
    with site.open() as store:
        enrol(store, "carl")
    site.anchor.write_bytes(anchor)
    with site.open() as store:
        assert len(store.templates_of(SubjectId("carl"), purpose=Purpose.ATTENDANCE)) == 1
    assert json.loads(site.anchor.read_bytes())["version"] > json.loads(anchor)["version"]


def test_a_missing_damaged_forged_or_strange_anchor_is_refused(site: Site) -> None:
    with_anna(site)
    good = site.anchor.read_bytes()
    said = json.loads(good)
    other = Site(site.folder / "other")
    with_anna(other)
    for bad in (
        None,
        b"",
        b"{}",
        good[:-20],
        json.dumps({**said, "version": 1}).encode(),
        json.dumps({**said, "signature": "00" * 64}).encode(),
        json.dumps({**said, "version": "x"}).encode(),
        b"[" * 3000,
        bytes(5000),
        other.anchor.read_bytes(),
    ):
        site.anchor.unlink() if bad is None else site.anchor.write_bytes(bad)
        with pytest.raises(RolledBack):
            site.open()
        site.anchor.touch(mode=0o600)
    site.anchor.write_bytes(good)
    site.open().close()


def tamper(site: Site, *statements: str) -> None:
    """As somebody who writes to the file with other means, triggers and all out of the way."""
    stranger = sqlite3.connect(site.path)
    stranger.create_function("now_us", 0, lambda: to_us(site.clock.now))
    triggers = stranger.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        stranger.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        stranger.execute(statement)
    for _, sql in triggers:
        stranger.execute(sql)
    stranger.commit()
    stranger.close()


WHOLE = [
    "UPDATE switch SET enabled = 1",
    "UPDATE head SET version = version + 5",
    "UPDATE head SET total = zeroblob(32)",
    "DELETE FROM subject WHERE subject_id = 'ben'",
    "UPDATE subject SET digest = zeroblob(32) WHERE subject_id = 'ben'",
    "INSERT INTO subject VALUES ('carl', randomblob(32))",
]
ROWS = [
    "UPDATE consent SET expires_us = expires_us + 1 WHERE subject_id = 'anna'",
    "UPDATE consent SET purpose = 'access' WHERE subject_id = 'anna'",
    "DELETE FROM consent WHERE subject_id = 'anna' AND state = 'withdrawn'",
    "UPDATE consent SET state = 'valid', ended_us = NULL WHERE state = 'withdrawn'",
    "UPDATE placement SET state = 'gone'",
    "DELETE FROM placement",
    "UPDATE receipt SET closed_us = NULL, revision = 9",
    "UPDATE template SET position = 3 WHERE subject_id = 'anna'",
    "UPDATE template SET template_id = 'other' WHERE subject_id = 'anna'",
    "UPDATE template SET sealed = zeroblob(length(sealed)) WHERE subject_id = 'anna'",
    "UPDATE template SET sealed = (SELECT sealed FROM template WHERE subject_id = 'ben') WHERE subject_id = 'anna'",
    "UPDATE dek SET wrapped = (SELECT wrapped FROM dek WHERE subject_id = 'ben') WHERE subject_id = 'anna'",
    "UPDATE chunk SET sealed = zeroblob(length(sealed))",
    "DELETE FROM template WHERE subject_id = 'ben'",
]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows in every table; anna's access consent is withdrawn."""
    site = Site(tmp_path_factory.mktemp("original"))
    with_anna(site)
    with site.open() as store:
        enrol(store, "anna", purpose=Purpose.ACCESS)
        store.pack(minimum=2)
        store.add_placement(ANNA, Modality.FACE, Purpose.ACCESS, device_serial="ZK1")
        store.withdraw(ANNA, purpose=Purpose.ACCESS, reason="x", actor="y")
        store.pack(minimum=2)
        assert store.check_integrity().ok
    return site.folder


@pytest.fixture
def rich(original: Path, tmp_path: Path) -> Site:
    shutil.copytree(original, tmp_path / "copy")
    return Site(tmp_path / "copy")


@pytest.mark.parametrize("statement", WHOLE)
def test_a_changed_whole_is_refused_at_unsealing(rich: Site, statement: str) -> None:
    if "UPDATE switch" in statement:
        statement = "UPDATE switch SET enabled = 1 - enabled WHERE modality = 'iris'"
    tamper(rich, statement)
    with pytest.raises(RolledBack):
        rich.open()


@pytest.mark.parametrize("statement", ROWS)
def test_a_changed_row_is_found_by_the_integrity_check(rich: Site, statement: str) -> None:
    tamper(rich, statement)
    with rich.open() as store:
        report = store.check_integrity()
    assert not report.ok
    assert report.faults


def test_a_withdrawn_consent_put_back_does_not_open_its_subject(site: Site) -> None:
    with_anna(site)
    kept = keep(site)
    with site.open() as store:
        store.withdraw(ANNA, reason="x", actor="y")
    tamper(
        site,
        f"ATTACH '{kept}' AS old",
        "UPDATE consent SET state = 'valid', ended_us = NULL WHERE subject_id = 'anna'",
        "INSERT INTO dek SELECT * FROM old.dek WHERE subject_id = 'anna'",
        "INSERT INTO template SELECT * FROM old.template WHERE subject_id = 'anna'",
    )
    with site.open() as store, pytest.raises(RolledBack, match="anna"):
        store.templates_of(ANNA, purpose=Purpose.ATTENDANCE)


def test_a_whole_subject_of_an_old_file_put_back_is_refused(site: Site) -> None:
    with_anna(site)
    kept = keep(site)
    with site.open() as store:
        store.withdraw(ANNA, reason="x", actor="y")
    tamper(
        site,
        f"ATTACH '{kept}' AS old",
        *(f"DELETE FROM {table} WHERE subject_id = 'anna'" for table in ("receipt", "consent", "subject")),  # noqa: S608
        *(
            f"INSERT INTO {table} SELECT * FROM old.{table} WHERE subject_id = 'anna'"  # noqa: S608
            for table in ("subject", "consent", "dek", "template")
        ),
    )
    with pytest.raises(RolledBack, match="put back"):
        site.open()


def test_a_file_that_is_no_database_is_said_to_be_none(site: Site) -> None:
    site.path.parent.mkdir(parents=True)
    site.path.write_bytes(b"hello" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        Database(site.path, now=site.clock)
    with pytest.raises(sqlite3.DatabaseError):
        TemplateStore.open(site.path, tenant="acme", keys=None, anchor=site.anchor, now=site.clock)
