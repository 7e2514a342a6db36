"""templates.db: one writer, many readers, and a connection that cannot undo its own rules.

The schema's triggers refuse a template without consent. So that SQL through this connection cannot switch them
off, an authorizer denies dropping, altering, attaching, and every PRAGMA but the harmless ones. `now_us()`, which
the triggers ask, exists on these connections only.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from templates_store.errors import SchemaTooNew

SCHEMA = Path(__file__).with_name("schema")
BUSY_TIMEOUT_S = 10.0
CHECKPOINT_TIMEOUT_MS = 500  # readers hold a snapshot for milliseconds; one that holds it longer is waited out later
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DENIED = frozenset(
    {
        sqlite3.SQLITE_DROP_TRIGGER,
        sqlite3.SQLITE_DROP_TABLE,
        sqlite3.SQLITE_DROP_VIEW,
        sqlite3.SQLITE_DROP_INDEX,
        sqlite3.SQLITE_ALTER_TABLE,
        sqlite3.SQLITE_ATTACH,
        sqlite3.SQLITE_DETACH,
        sqlite3.SQLITE_CREATE_TRIGGER,
        sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
    }
)
_PRAGMAS = frozenset(
    {
        "wal_checkpoint",
        "integrity_check",
        "quick_check",
        "foreign_key_check",
        "busy_timeout",
        "page_count",
        "query_only",
    }
)

Connect = Callable[[Path], sqlite3.Connection]
Clock = Callable[[], datetime]


def to_us(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def from_us(value: int) -> datetime:
    return _EPOCH + value * _MICROSECOND


def connect(path: Path) -> sqlite3.Connection:
    # Transactions are begun and ended here alone, never by the module on its own.
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S)


def _authorize(
    action: int, first: str | None, second: str | None, database: str | None, source: str | None
) -> int:  # the signature is sqlite3's
    del second, database, source
    if action in _DENIED:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_PRAGMA and first not in _PRAGMAS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def statements(script: str) -> Iterator[str]:
    """The single statements of a script; triggers stay whole. `executescript` would commit first."""
    rest = ""
    for piece in script.split(";")[:-1]:  # what follows the last one is no statement
        rest += piece + ";"
        if sqlite3.complete_statement(rest):
            yield rest
            rest = ""


def migrate(connection: sqlite3.Connection, path: Path, *, schema: Path, now: datetime) -> list[str]:
    """Bring a file up to date, all or nothing. Returns the names newly applied. Raises SchemaTooNew."""
    scripts = {script.name: script for script in sorted(schema.glob("[0-9][0-9][0-9][0-9]_*.sql"))}
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied_us INTEGER NOT NULL) STRICT"
        )
        applied = {name for (name,) in connection.execute("SELECT name FROM migrations")}
        if unknown := sorted(applied - set(scripts)):
            raise SchemaTooNew(f"{path.name} was written by a newer version: it holds {', '.join(unknown)}")  # noqa: TRY301
        fresh = [name for name in scripts if name not in applied]
        for name in fresh:
            for statement in statements(scripts[name].read_text("utf-8")):
                connection.execute(statement)
            connection.execute("INSERT INTO migrations VALUES (?, ?)", (name, to_us(now)))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return fresh


class Database:
    """The file, its writer connection behind a lock, and readers that never wait for it."""

    def __init__(self, path: Path, *, now: Clock, connect: Connect = connect, schema: Path = SCHEMA) -> None:
        self.path = path
        self._now = now
        self._connect = connect
        self._lock = threading.RLock()
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self.writer = self._open()
        try:
            self.writer.execute("PRAGMA journal_mode=WAL").fetchone()
            self.writer.execute("PRAGMA synchronous=FULL")
            self.writer.execute("PRAGMA foreign_keys=ON")
            self.writer.execute("PRAGMA secure_delete=ON")
            self.writer.execute("PRAGMA recursive_triggers=ON")
            self.applied = tuple(migrate(self.writer, path, schema=schema, now=now()))
        except BaseException:
            self.writer.close()
            raise
        self.writer.set_authorizer(_authorize)

    def _open(self) -> sqlite3.Connection:
        connection = self._connect(self.path)
        connection.create_function("now_us", 0, lambda: to_us(self._now()))
        return connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: durable after the block, nothing of it if the block raises."""
        with self._lock:
            self.writer.execute("BEGIN IMMEDIATE")
            try:
                yield self.writer
                self.writer.execute("COMMIT")
            except BaseException:
                if self.writer.in_transaction:
                    self.writer.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of what is durable."""
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = self._open()
            connection.execute("PRAGMA query_only=ON")
            connection.set_authorizer(_authorize)
        try:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except BaseException:
            connection.close()
            raise
        self._idle.put(connection)

    def checkpoint(self) -> bool:
        """Move the WAL into the file and cut it to nothing; False if a reader still needs it."""
        with self._lock:
            self.writer.execute(f"PRAGMA busy_timeout={CHECKPOINT_TIMEOUT_MS}")
            try:
                (busy, _, _) = self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                self.writer.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
        return not busy

    def backup(self, target: Path, *, progress: Callable[[int, int], None], pages: int = 2048) -> None:
        """A consistent copy while others read and write."""
        with self.read() as source, contextlib.closing(self._connect(target)) as destination:
            source.backup(
                destination, pages=pages, progress=lambda _, left, total: progress(total - left, total), sleep=0.01
            )

    def close(self) -> None:
        with self._lock:
            while True:
                try:
                    self._idle.get_nowait().close()
                except queue.Empty:
                    break
            self.writer.close()
