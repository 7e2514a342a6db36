"""Durable or not at all, in company, on a full disk, and over versions."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.database import SCHEMA, CommitFailed, Database, DiskFull, SchemaTooNew, StorageError, statements

MB = 1024 * 1024


class Disk:
    """What the disk says is free."""

    def __init__(self, free: int = 1024 * MB) -> None:
        self.bytes = free

    def __call__(self, _path: Path) -> int:
        return self.bytes


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
async def database(tmp_path: Path, disk: Disk) -> AsyncIterator[Database]:
    database = Database.open(tmp_path / "agent.db", free=disk, ballast_bytes=MB, high_water_bytes=MB)
    await database.write(lambda c: c.execute("CREATE TABLE notes (n INTEGER PRIMARY KEY, t TEXT UNIQUE) STRICT"))
    yield database
    database.close()


def insert(n: int, text: str | None = None) -> object:
    return lambda c: c.execute("INSERT INTO notes VALUES (?, ?)", (n, text)).rowcount


async def rows(database: Database) -> list[int]:
    return await database.read(lambda c: [n for (n,) in c.execute("SELECT n FROM notes ORDER BY n")])


async def test_what_was_written_is_there_after_opening_again(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    first = Database.open(path, ballast_bytes=MB)
    await first.write(
        lambda c: c.execute("INSERT INTO cursors VALUES ('gate', 'S1', x'01', '2026-11-23T00:00:00+00:00')")
    )
    first.close()
    second = Database.open(path, ballast_bytes=MB)
    assert await second.read(lambda c: c.execute("SELECT device FROM cursors").fetchall()) == [("gate",)]
    assert second.applied == ()
    second.close()


async def test_the_file_is_durable_erasing_and_private(database: Database) -> None:
    def pragmas(connection: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await database.write(pragmas) == ["wal", 2, 1, 1]
    assert database.path.stat().st_mode & 0o077 == 0


async def test_every_table_is_strict(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "agent.db", ballast_bytes=MB)
    loose = await database.read(
        lambda c: c.execute(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND NOT strict"
            " AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
    )
    database.close()
    assert loose == []


async def test_waiting_writers_share_a_commit(database: Database) -> None:
    before = database.commits
    await asyncio.gather(*(database.write(insert(n)) for n in range(200)))
    assert await rows(database) == list(range(200))
    assert database.commits - before < 100


async def test_one_failing_work_takes_nobody_with_it(database: Database) -> None:
    def half_done(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO notes VALUES (900, NULL)")
        raise KeyError("mine")

    results = await asyncio.gather(
        database.write(insert(1)),
        database.write(half_done),
        database.write(insert(1)),
        database.write(insert(2)),
        return_exceptions=True,
    )
    assert [type(r) for r in results] == [int, KeyError, sqlite3.IntegrityError, int]
    assert await rows(database) == [1, 2]


async def test_a_work_that_ends_the_shared_transaction_fails_everybody_in_it(database: Database) -> None:
    with pytest.raises(CommitFailed):
        await database.write(lambda c: c.execute("ROLLBACK"))
    assert await database.write(insert(3)) == 1


async def test_readers_see_what_is_durable_while_a_write_is_under_way(database: Database) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO notes VALUES (1, NULL)")
        loop.call_soon_threadsafe(started.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(timeout=10)

    writing = asyncio.create_task(database.write(slow))
    await started.wait()
    assert await rows(database) == []
    go_on.set()
    await writing
    assert await rows(database) == [1]


async def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await database.read(insert(1))


async def test_watchers_hear_of_a_change_before_the_writer_does(database: Database) -> None:
    heard: list[int] = []
    count = database.watch(lambda c: int(c.execute("SELECT count(*) FROM notes").fetchone()[0]), heard.append)
    assert count == 0
    await database.write(insert(1))
    assert heard == [1]
    await database.write(lambda c: c.execute("UPDATE notes SET t = 'x'"))
    assert heard == [1]


async def test_a_closed_database_refuses(database: Database) -> None:
    database.close()
    with pytest.raises(StorageError):
        await database.write(insert(1))
    with pytest.raises(StorageError):
        await rows(database)


async def test_below_the_high_water_mark_only_essential_writes_are_taken(database: Database, disk: Disk) -> None:
    disk.bytes = MB // 2
    with pytest.raises(DiskFull):
        await database.write(insert(1))
    assert await database.write(insert(2), essential=True) == 1
    disk.bytes = 1024 * MB
    assert await database.write(insert(3)) == 1
    assert await rows(database) == [2, 3]


async def test_in_one_group_the_essential_write_goes_through(database: Database, disk: Disk) -> None:
    disk.bytes = 0
    results = await asyncio.gather(
        database.write(insert(1)), database.write(insert(2), essential=True), return_exceptions=True
    )
    assert isinstance(results[0], DiskFull)
    assert results[1] == 1


async def test_a_full_disk_gives_up_the_ballast_and_takes_it_again(database: Database, disk: Disk) -> None:
    assert database.ballast.held
    await database.write(lambda c: c.execute(f"PRAGMA max_page_count={c.execute('PRAGMA page_count').fetchone()[0]}"))
    with pytest.raises(DiskFull):
        await database.write(insert(1, "x" * 500_000))
    assert not database.ballast.held
    disk.bytes = MB + MB // 2  # room for the ballast alone
    await database.write(lambda c: c.execute("PRAGMA max_page_count=1000000"), essential=True)
    with pytest.raises(DiskFull):
        await database.write(insert(1))
    disk.bytes = 1024 * MB
    assert await database.write(insert(1)) == 1
    assert database.ballast.held


async def test_free_pages_inside_the_file_count_as_room(database: Database, disk: Disk) -> None:
    await database.write(insert(1, "x" * (2 * MB)))
    await database.write(lambda c: c.execute("DELETE FROM notes"))
    disk.bytes = 0
    assert await database.write(insert(2)) == 1


async def test_deleted_content_is_gone_from_all_files_after_a_checkpoint(database: Database) -> None:
    canary = "canary-5f1c9d"
    await database.write(insert(1, canary))
    await database.write(lambda c: c.execute("DELETE FROM notes"))
    await database.checkpoint()
    for file in database.path.parent.glob("agent.db*"):
        if not file.name.endswith(".ballast"):
            assert canary.encode() not in file.read_bytes()


# Migrations


def schema(folder: Path, **scripts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in scripts.items():
        (folder / f"{name.removeprefix('n')}.sql").write_text(text)
    return folder


def test_migrations_may_arrive_out_of_order(tmp_path: Path) -> None:
    folder = schema(tmp_path / "schema", n0001_a="CREATE TABLE a (x) ;", n0003_c="CREATE TABLE c (x);")
    Database.open(tmp_path / "x.db", schema=folder, ballast_bytes=1).close()
    schema(folder, n0002_b="CREATE TABLE b (x);")
    database = Database.open(tmp_path / "x.db", schema=folder, ballast_bytes=1)
    assert database.applied == ("0002_b.sql",)
    database.close()


def test_a_failing_migration_leaves_the_file_untouched(tmp_path: Path) -> None:
    folder = schema(tmp_path / "schema", n0001_a="CREATE TABLE a (x);")
    Database.open(tmp_path / "x.db", schema=folder, ballast_bytes=1).close()
    schema(folder, n0002_b="CREATE TABLE b (x);", n0003_c="CREATE TABLE c (x); CREATE TABLE a (x);")
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        Database.open(tmp_path / "x.db", schema=folder, ballast_bytes=1)
    with sqlite3.connect(tmp_path / "x.db") as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    connection.close()
    assert tables == {"a", "migrations"}


def test_a_file_of_a_newer_version_is_recognised(tmp_path: Path) -> None:
    folder = schema(tmp_path / "schema", n0001_a="CREATE TABLE a (x);", n0009_z="CREATE TABLE z (x);")
    Database.open(tmp_path / "x.db", schema=folder, ballast_bytes=1).close()
    (folder / "0009_z.sql").unlink()
    with pytest.raises(SchemaTooNew, match="0009_z"):
        Database.open(tmp_path / "x.db", schema=folder, ballast_bytes=1)


def test_old_databases_open_with_their_rows(tmp_path: Path) -> None:
    fixtures = sorted(Path(__file__).with_name("databases").glob("*.sql"))
    assert fixtures
    for fixture in fixtures:
        path = tmp_path / f"{fixture.stem}.db"
        old = sqlite3.connect(path)
        old.executescript(fixture.read_text("utf-8"))
        events = old.execute("SELECT count(*) FROM events").fetchone()
        old.close()
        Database.open(path, ballast_bytes=1).close()
        new = sqlite3.connect(path)
        assert new.execute("SELECT count(*) FROM events").fetchone() == events != (0,)
        names = {name for (name,) in new.execute("SELECT name FROM migrations")}
        new.close()
        assert names == {script.name for script in SCHEMA.glob("0*.sql")}


async def test_failures_that_stayed_of_people_who_left_go_with_the_upgrade(tmp_path: Path) -> None:
    before = schema(
        tmp_path / "schema", **{f"n{s.stem}": s.read_text("utf-8") for s in SCHEMA.glob("*.sql") if s.name < "0011"}
    )
    database = Database.open(tmp_path / "agent.db", schema=before, ballast_bytes=1)
    places = ("person:ann/pin", "person:bob/pin", "point:gate/pin")

    def left_behind(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO people VALUES ('ann', 'Ann', '', NULL, NULL, '', '')")
        connection.executemany("INSERT INTO attempts VALUES (?, 5, 50, '')", [(place,) for place in places])
        connection.executemany(
            "INSERT INTO alarms (kind, place, raised_at, event) VALUES ('attempts', ?1, '', ?1)",
            [(place,) for place in places],
        )

    await database.write(left_behind)
    database.close()
    database = Database.open(tmp_path / "agent.db", ballast_bytes=1)
    attempts, alarms = await database.read(
        lambda c: (
            {place for (place,) in c.execute("SELECT place FROM attempts")},
            set(c.execute("SELECT place, cleared_at IS NULL FROM alarms")),
        )
    )
    database.close()
    assert attempts == {"person:ann/pin", "point:gate/pin"}
    assert alarms == {("person:ann/pin", 1), ("person:/pin", 0), ("point:gate/pin", 1)}


def test_statements_keep_triggers_comments_and_strings_whole() -> None:
    script = """
    -- a comment; with a semicolon
    CREATE TABLE a (x TEXT DEFAULT ';');
    CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM a; INSERT INTO a VALUES (1); END;
    -- the end
    """
    found = list(statements(script))
    assert len(found) == 2
    assert found[1].strip().endswith("END;")
    with pytest.raises(ValueError, match="ends inside"):
        list(statements("CREATE TABLE a (x); CREATE TABLE"))
