"""agent.db: one writer thread, a few readers, and a commit that is durable when it returns.

Group commit: works that wait while the disk syncs share the next transaction, each inside its own
SAVEPOINT, so one that fails takes nobody with it. What `write` returned is on the disk
(WAL, synchronous=FULL).

Full disks: below the high-water mark only `essential` writes (acknowledgements, pruning, erasure) are taken;
everything else raises DiskFull, and no device gets an acknowledgement. When SQLite itself runs out of room
the ballast (`ballast.py`) is given up, and made again once there is room for it. Nobody has to act.

StorageError
├ DiskFull        nothing was written        -> try again later; do not acknowledge
├ CommitFailed    the disk broke its promise -> the agent stops; what was not confirmed comes again
└ SchemaTooNew    a newer version wrote this file
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from edge_agent.ballast import BALLAST_BYTES, HIGH_WATER_BYTES, Ballast, free_bytes

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

SCHEMA = Path(__file__).with_name("schema")
MAX_GROUP = 512  # works that share one commit; more would make the first of them wait
READERS = 3
BUSY_TIMEOUT_S = 10.0
# A commit needs the WAL to grow by what it writes; a checkpoint, the database by the same. So the WAL is
# moved into the file before it grows to an eighth of the room kept back.
CHECKPOINT_PAGES = 1000
PAGE = 4096
JOURNAL_LIMIT = 64 * 1024 * 1024


class StorageError(Exception):
    """Root of what the disk can do to us."""


class DiskFull(StorageError):
    """No room: nothing of this write was kept."""


class CommitFailed(StorageError):
    """A transaction could not be made durable; nothing of it may be confirmed to anybody."""


class SchemaTooNew(StorageError):
    """The file holds migrations that this version does not know."""

    def __init__(self, path: Path, unknown: Sequence[str]) -> None:
        super().__init__(f"{path.name} was written by a newer version: it holds {', '.join(unknown)}")
        self.unknown = tuple(unknown)


def utc_now() -> datetime:
    return datetime.now(UTC)


def utc_text(moment: datetime) -> str:
    """The one form in which times rest in agent.db; it sorts as time does."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def connect(path: Path) -> sqlite3.Connection:
    # Transactions are begun and ended here alone, never by the module on its own.
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S)


def statements(script: str) -> Iterator[str]:
    """The single statements of a script; triggers and comments with semicolons stay whole.

    `executescript` would commit first, and a migration has to be all or nothing.
    """
    rest = ""
    *pieces, tail = script.split(";")
    for piece in pieces:
        rest += piece + ";"
        if sqlite3.complete_statement(rest):
            yield rest
            rest = ""
    rest += tail
    if any(line.strip() and not line.strip().startswith("--") for line in rest.splitlines()):
        raise ValueError(f"the script ends inside a statement: {rest.strip()[:60]!r}")


def missing(connection: sqlite3.Connection, path: Path, scripts: Iterable[str]) -> list[str]:
    """Which scripts the file lacks, by recorded name. Raises SchemaTooNew if it holds others."""
    applied = {name for (name,) in connection.execute("SELECT name FROM migrations")}
    if unknown := sorted(applied - set(scripts)):
        raise SchemaTooNew(path, unknown)
    return [name for name in scripts if name not in applied]


def migrate(connection: sqlite3.Connection, path: Path, *, schema: Path, now: datetime) -> list[str]:
    """Bring a file up to date, all or nothing. Returns the names newly applied. Raises SchemaTooNew."""
    scripts = {script.name: script for script in sorted(schema.glob("[0-9][0-9][0-9][0-9]_*.sql"))}
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied_at TEXT NOT NULL) STRICT"
        )
        fresh = missing(connection, path, scripts)
        for name in fresh:
            for statement in statements(scripts[name].read_text("utf-8")):
                connection.execute(statement)
            connection.execute("INSERT INTO migrations VALUES (?, ?)", (name, now.isoformat(timespec="seconds")))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return fresh


def is_full(exc: sqlite3.Error, *, short: bool) -> bool:
    """Whether an error means "no room"; on some file systems that arrives as an I/O error."""
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    return code == sqlite3.SQLITE_FULL or (short and code in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})


@dataclass(slots=True)
class _Job:
    work: Work[Any]
    essential: bool
    alone: bool  # outside any transaction
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class _Watch:
    read: Work[Any]
    notify: Callable[[Any], None]
    last: Any


class Database:
    """Opened once by the agent; every flow and the API share it."""

    def __init__(
        self,
        path: Path,
        *,
        connect: Callable[[Path], sqlite3.Connection],
        ballast: Ballast,
        applied: list[str],
        writer: sqlite3.Connection,
        readers: int,
    ) -> None:
        self.path = path
        self.ballast = ballast
        self.applied = tuple(applied)  # migrations that this opening ran
        self._connect = connect
        self._writer = writer
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._watches: list[_Watch] = []
        self._closed = False
        self.commits = 0
        self.works = 0
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="agent-db-read")
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._opened: list[sqlite3.Connection] = []
        self._thread = threading.Thread(target=self._write_forever, name="agent-db-write", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        clock: Callable[[], datetime] = utc_now,
        schema: Path = SCHEMA,
        connect: Callable[[Path], sqlite3.Connection] = connect,
        free: Callable[[Path], int] = free_bytes,
        ballast_bytes: int = BALLAST_BYTES,
        high_water_bytes: int = HIGH_WATER_BYTES,
        readers: int = READERS,
    ) -> Database:
        """Open or make the file and bring its schema up to date. Blocks; call it before the loop runs.

        Raises SchemaTooNew, DiskFull, sqlite3.DatabaseError for a file that is none.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        ballast = Ballast(path.with_name(path.name + ".ballast"), ballast_bytes, high_water=high_water_bytes, free=free)
        for attempt in (1, 2):
            writer = connect(path)
            try:
                configure(writer)
                if ballast_bytes >= 64 * PAGE:
                    pages = min(CHECKPOINT_PAGES, ballast_bytes // 8 // PAGE)
                    writer.execute(f"PRAGMA wal_autocheckpoint={pages}").fetchall()
                applied = migrate(writer, path, schema=schema, now=clock())
                break
            except sqlite3.Error as exc:
                writer.close()
                if not is_full(exc, short=ballast.free() < high_water_bytes):
                    raise
                if attempt == 2 or not ballast.held:
                    raise DiskFull(f"no room to open {path.name}") from exc
                ballast.drop()
            except BaseException:
                writer.close()
                raise
        path.chmod(0o600)
        ballast.make()
        return cls(path, connect=connect, ballast=ballast, applied=applied, writer=writer, readers=readers)

    async def write(self, work: Work[T], *, essential: bool = False) -> T:
        """Run `work` in a transaction on the writer thread; returns once it is durable.

        What `work` raises comes back here and undoes `work` alone. A cancelled write may still happen.
        `essential` writes use the room kept back: only for what frees room, or must never wait for it.
        Raises DiskFull, CommitFailed.
        """
        return await self._put(work, essential=essential)

    async def read(self, work: Work[T]) -> T:
        """Run `work` on a reader: one consistent view of what is durable, in nobody's way."""
        if self._closed:
            raise StorageError(f"{self.path.name} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def watch(self, read: Work[T], notify: Callable[[T], None]) -> T:
        """What `read` returns now; after each commit that changes it, `notify` runs on the event loop."""
        connection = self._reader()
        try:
            now = read(connection)
        finally:
            connection.close()
        self._watches.append(_Watch(read, notify, now))
        return now

    async def checkpoint(self) -> None:
        """Move the WAL into the file and cut it to nothing: erased pages leave no copy there."""

        def truncate(connection: sqlite3.Connection) -> None:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

        await self._put(truncate, essential=True, alone=True)

    def close(self) -> None:
        """Finish what is queued, then close every connection. Blocks shortly."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        self._thread.join()
        self._readers.shutdown()
        for reader in self._opened:
            reader.close()
        self._writer.close()

    async def _put(self, work: Work[T], *, essential: bool, alone: bool = False) -> T:
        if self._closed:
            raise StorageError(f"{self.path.name} is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(work, essential, alone, loop, future))
        return await future

    # From here on: the writer thread.

    def _write_forever(self) -> None:
        held: list[_Job | None] = []
        while (job := held.pop() if held else self._jobs.get()) is not None:
            if job.alone:
                self._run(job, savepoint=False)
                self._report([job])
                continue
            group = self._transaction(job, held)
            self._report(group)

    def _transaction(self, first: _Job, held: list[_Job | None]) -> list[_Job]:
        """Run `first` and whatever waits behind it, commit once. What may not join goes to `held`."""
        short = self.ballast.check(self._reusable)
        group: list[_Job] = []
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            job: _Job | None = first
            while job is not None and not job.alone:
                group.append(job)
                if short and not job.essential:
                    job.error = DiskFull(f"{self.ballast.free()} bytes free, {self.ballast.high_water} wanted")
                else:
                    self._run(job, savepoint=True)
                    if not self._writer.in_transaction:
                        raise CommitFailed("the transaction ended inside a work") from job.error
                if len(group) >= MAX_GROUP:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None or job.alone:
                    held.append(job)
            self._writer.execute("COMMIT")
        except (sqlite3.Error, StorageError) as exc:
            self._undo(group or [first], exc)
            return group or [first]
        self.commits += 1
        self.works += len(group)
        return group

    def _run(self, job: _Job, *, savepoint: bool) -> None:
        job.result = job.error = None
        try:
            if savepoint:
                self._writer.execute("SAVEPOINT work")
            try:
                job.result = job.work(self._writer)
            except BaseException:
                if savepoint and self._writer.in_transaction:
                    self._writer.execute("ROLLBACK TO work")
                    self._writer.execute("RELEASE work")
                raise
            if savepoint:
                self._writer.execute("RELEASE work")
        except sqlite3.Error as exc:
            if not is_full(exc, short=self.ballast.free() < self.ballast.high_water):
                job.error = exc
                return
            spare = job.essential and self.ballast.held and (self._writer.in_transaction or not savepoint)
            self.ballast.drop()
            if spare:
                self._run(job, savepoint=savepoint)
                return
            job.error = DiskFull(str(exc))
            job.error.__cause__ = exc
        except BaseException as exc:  # noqa: BLE001 - whatever it is belongs to the one who asked
            job.error = exc

    def _undo(self, group: list[_Job], exc: Exception) -> None:
        """Nothing of this group is durable: everybody hears it, and essential works get the ballast's room."""
        if self._writer.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
        full = isinstance(exc.__cause__, DiskFull) or (
            isinstance(exc, sqlite3.Error) and is_full(exc, short=self.ballast.free() < self.ballast.high_water)
        )
        error: StorageError
        if full:
            self.ballast.drop()
            error = DiskFull(f"the disk is full: {exc}")
        else:
            error = CommitFailed(f"nothing was committed: {exc}")
        error.__cause__ = exc
        for job in group:
            job.error = error
        again = [job for job in group if job.essential] if full else []
        for job in again:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                self._run(job, savepoint=True)
                self._writer.execute("COMMIT")
            except sqlite3.Error as second:
                job.error = DiskFull(f"the disk is full: {second}")
                if self._writer.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        self._writer.execute("ROLLBACK")

    def _reusable(self) -> int:
        (pages,) = self._writer.execute("PRAGMA freelist_count").fetchone()
        (size,) = self._writer.execute("PRAGMA page_size").fetchone()
        return int(pages) * int(size)

    def _report(self, group: list[_Job]) -> None:
        news = []
        for watch in self._watches:
            with contextlib.suppress(sqlite3.Error):  # the next commit tells
                value = watch.read(self._writer)
                if value != watch.last:
                    watch.last = value
                    news.append((watch.notify, value))
        by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
        for job in group:
            by_loop.setdefault(job.loop, []).append(job)
        for loop, jobs in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop is gone, and so is whoever waited
                loop.call_soon_threadsafe(self._hand_over, jobs, news)

    @staticmethod
    def _hand_over(jobs: list[_Job], news: list[tuple[Callable[[Any], None], Any]]) -> None:
        for notify, value in news:
            notify(value)
        for job in jobs:
            if job.future.done():
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)

    # And the reader threads.

    def _read(self, work: Work[T]) -> T:
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = self._reader()
            self._opened.append(connection)
        try:
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        finally:
            self._idle.put(connection)

    def _reader(self) -> sqlite3.Connection:
        connection = self._connect(self.path)
        connection.execute("PRAGMA query_only=ON")
        connection.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
        return connection


def configure(connection: sqlite3.Connection) -> None:
    """Durable on commit, erased on delete."""
    connection.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise StorageError(f"this file system cannot keep a write-ahead log (journal mode {mode})")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=ON")
    connection.execute(f"PRAGMA journal_size_limit={JOURNAL_LIMIT}")
