"""apsw's SQLite behind the few calls of `sqlite3` that the spine uses, so that its own code runs on a VFS of ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw


def translated(exc: apsw.Error) -> sqlite3.Error:
    kind = sqlite3.IntegrityError if isinstance(exc, apsw.ConstraintError) else sqlite3.OperationalError
    error = kind(str(exc))
    code = getattr(exc, "extendedresult", 0) or getattr(exc, "result", 0)
    if not code:  # raised by a VFS of ours, and passed through as it was
        code = sqlite3.SQLITE_FULL if isinstance(exc, apsw.FullError) else sqlite3.SQLITE_IOERR
    error.sqlite_errorcode = code
    return error


class Cursor:
    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows = iter(rows)
        self.rowcount = rowcount

    def fetchone(self) -> Any:
        return next(self._rows, None)

    def fetchall(self) -> list[Any]:
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows


class Connection:
    def __init__(self, path: Path, vfs: str) -> None:
        try:
            self._connection = apsw.Connection(str(path), vfs=vfs)
        except apsw.Error as exc:
            raise translated(exc) from exc

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Cursor:
        try:
            before = self._connection.total_changes()
            rows = list(self._connection.execute(sql, values))
            changed = self._connection.total_changes() - before
        except apsw.Error as exc:
            raise translated(exc) from exc
        return Cursor(rows, changed)

    def executemany(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        try:
            self._connection.executemany(sql, values)
        except apsw.Error as exc:
            raise translated(exc) from exc

    @property
    def in_transaction(self) -> bool:
        return bool(self._connection.in_transaction)

    def close(self) -> None:
        try:
            self._connection.close(True)
        except apsw.Error as exc:
            raise translated(exc) from exc
