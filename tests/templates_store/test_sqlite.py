"""Old databases open, new ones are refused, and a migration is all or nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from templates_store.errors import SchemaTooNew, StoreFull
from templates_store.keys.keyring import Keyring
from templates_store.sqlite import SCHEMA, Database, from_us, statements, to_us
from templates_store.store import TemplateStore
from templates_store.template import Purpose, SubjectId
from tests.templates_store.site import START, Clock, Site, consent, enrol, gallery, switch_on, template

DATABASES = Path(__file__).with_name("databases")
OLD = sorted(path.stem for path in DATABASES.glob("*.sql"))


def old_store(site: Site, name: str) -> Keyring:
    """The files of an old version, laid out as they were; its provider."""
    site.path.parent.mkdir(parents=True)
    connection = sqlite3.connect(site.path)
    connection.executescript((DATABASES / f"{name}.sql").read_text("utf-8"))
    connection.close()
    kept = json.loads((DATABASES / f"{name}.keys.json").read_text("utf-8"))
    for path, data in (
        (site.folder / "ring", bytes.fromhex(kept["ring"])),
        (site.anchor, json.dumps(kept["anchor"]).encode()),
    ):
        path.parent.mkdir(exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(data)
    return Keyring(site.folder / "ring", name="credential", root=lambda: bytes(range(32)))


@pytest.mark.parametrize("name", OLD)
def test_an_old_database_opens_with_everything_in_it(site: Site, name: str) -> None:
    with site.open(keys=old_store(site, name)) as store:
        assert not store.sealed
        assert store.database.applied != ()
        assert store.templates_of(SubjectId("anna"), purpose=Purpose.ATTENDANCE) == [
            template("anna"),
            template("anna", 1),
        ]
        assert len(store.placements(SubjectId("anna"))) == 1
        assert store.pack(minimum=1) == 4
        assert len(gallery(store)) == 4
        assert store.check_integrity().ok


def test_there_is_an_old_database_for_every_schema_but_the_newest() -> None:
    scripts = sorted(path.name[:4] for path in SCHEMA.glob("*.sql"))
    assert scripts[:-1] == OLD


def test_a_migration_that_fails_leaves_the_old_database(site: Site) -> None:
    keys = old_store(site, OLD[0])
    schema = site.folder / "schema"
    shutil.copytree(SCHEMA, schema)
    (schema / "0009_broken.sql").write_text("CREATE TABLE fresh (a);\nINSERT INTO nowhere VALUES (1);\n")
    before = sqlite3.connect(site.path)
    tables = before.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        Database(site.path, now=site.clock, schema=schema)
    assert before.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall() == tables
    before.close()
    with site.open(keys=keys) as store:
        assert len(gallery(store)) == 4


def test_a_database_of_a_newer_version_is_refused_untouched(site: Site) -> None:
    schema = site.folder / "schema"
    shutil.copytree(SCHEMA, schema)
    (schema / "0009_future.sql").write_text("CREATE TABLE future (a);\n")
    Database(site.path, now=site.clock, schema=schema).close()
    with pytest.raises(SchemaTooNew, match="0009_future"):
        TemplateStore.open(site.path, tenant="acme", keys=None, anchor=site.anchor, now=site.clock)


def test_triggers_stay_whole_when_a_script_is_cut_into_statements() -> None:
    script = "CREATE TABLE a (b);\n-- a; comment\nCREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; SELECT 2; END;\n"
    assert [each.strip().split()[0] for each in statements(script)] == ["CREATE", "--"]


def test_a_write_that_raises_leaves_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "t.db", now=Clock())

    def cut_off() -> None:
        with database.write() as sql:
            sql.execute("INSERT INTO subject VALUES ('a', zeroblob(32))")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        cut_off()
    with database.read() as sql:
        assert sql.execute("SELECT count(*) FROM subject").fetchone() == (0,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            sql.execute("DELETE FROM subject")
    database.close()


def test_the_file_is_private_and_writes_are_durable_and_erasing(tmp_path: Path) -> None:
    database = Database(tmp_path / "t.db", now=Clock())
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    plain = sqlite3.connect(tmp_path / "t.db")
    assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    plain.close()
    database.writer.set_authorizer(None)
    read = {
        name: database.writer.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("synchronous", "secure_delete", "foreign_keys")
    }
    assert read == {"synchronous": 2, "secure_delete": 1, "foreign_keys": 1}
    database.close()


def test_moments_survive_to_the_microsecond() -> None:
    moment = START.replace(microsecond=123457)
    assert from_us(to_us(moment)) == moment


def test_a_full_disk_is_a_clear_error_and_nothing_is_written(site: Site) -> None:
    with site.open() as store:
        switch_on(store)
        given = enrol(store, "anna")
        store.database.writer.set_authorizer(None)
        (pages,) = store.database.writer.execute("PRAGMA page_count").fetchone()
        store.database.writer.execute(f"PRAGMA max_page_count={pages}")
        many = [(consent(f"s{i}"), [template(f"s{i}")]) for i in range(400)]
        with pytest.raises(StoreFull, match="no room"):
            store.enrol_many(many)
        store.database.writer.execute("PRAGMA max_page_count=1000000")
        assert store.templates_of(SubjectId("anna"), purpose=Purpose.ATTENDANCE) == given
        assert store.check_integrity().ok
        enrol(store, "ben")
