"""What a sink was owed and has got: rows and ranges of agent.db, read and changed inside one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.delivery import ranges
from edge_agent.delivery.event import COLUMNS, digest, last_sequence

LANES_FROM = 1000  # a sink this far behind gets new events first


class UnknownSink(KeyError):
    """No sink of that name was ever registered."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """One sink's books."""

    sink: str
    mandatory: bool
    revoked: bool
    received: int
    delivered: int
    pending: int
    quarantined: int
    discarded: int

    @property
    def balanced(self) -> bool:
        return self.received == self.delivered + self.pending + self.quarantined + self.discarded


@dataclass(frozen=True, slots=True)
class Books:
    """A sink's row and ranges, read in one transaction."""

    start: int
    mandatory: bool
    revoked: bool
    delivered: int
    discarded: int
    settled: list[ranges.Range]
    last: int

    def gaps(self) -> list[ranges.Range]:
        return ranges.gaps(self.settled, after=self.start, last=self.last)


def books_of(connection: sqlite3.Connection, sink: str) -> Books:
    row = connection.execute(
        "SELECT start, mandatory, revoked_at, delivered, discarded FROM sinks WHERE name = ?", (sink,)
    ).fetchone()
    if row is None:
        raise UnknownSink(sink)
    settled = connection.execute("SELECT first, last FROM settled WHERE sink = ? ORDER BY first", (sink,)).fetchall()
    return Books(row[0], bool(row[1]), row[2] is not None, row[3], row[4], settled, last_sequence(connection))


def settle(connection: sqlite3.Connection, sink: str, books: Books, more: list[ranges.Range]) -> None:
    before, after = set(books.settled), set(ranges.union(books.settled, more))
    connection.executemany(
        "DELETE FROM settled WHERE sink = ? AND first = ?", [(sink, first) for first, _ in before - after]
    )
    connection.executemany("INSERT INTO settled VALUES (?, ?, ?)", [(sink, *pair) for pair in after - before])


def horizon_of(gaps: list[ranges.Range], known: int | None, *, last: int) -> int | None:
    """After which sequence events go first; None while the sink keeps up."""
    if ranges.total(gaps) <= LANES_FROM:
        return None
    if known is None and len(gaps) > 1:
        known = gaps[-1][0] - 1  # the lanes of before a restart
    if known is None or ranges.total(ranges.clip(gaps, after=known)) > LANES_FROM:
        return last
    return known


def fetch(connection: sqlite3.Connection, gaps: Iterable[ranges.Range], limit: int) -> list[Sequence[Any]]:
    rows: list[Sequence[Any]] = []
    for first, last in gaps:
        if len(rows) >= limit:
            break
        rows += connection.execute(
            f"SELECT {COLUMNS} FROM events WHERE sequence BETWEEN ? AND ? ORDER BY sequence LIMIT ?",  # noqa: S608
            (first, last, limit - len(rows)),
        ).fetchall()
    return rows


def ledger_of(connection: sqlite3.Connection, sink: str) -> Ledger:
    books = books_of(connection, sink)
    held, released = connection.execute(
        "SELECT count(*) FILTER (WHERE released = 0), count(*) FILTER (WHERE released = 1) FROM quarantine"
        " WHERE sink = ?",
        (sink,),
    ).fetchone()
    return Ledger(
        sink,
        books.mandatory,
        books.revoked,
        received=books.last - books.start,
        delivered=books.delivered,
        pending=ranges.total(books.gaps()) + released,
        quarantined=held,
        discarded=books.discarded,
    )


def mandatory_sinks(connection: sqlite3.Connection) -> list[str]:
    """Those in force: whoever was revoked waits for nothing and confirms nothing."""
    rows = connection.execute("SELECT name FROM sinks WHERE mandatory = 1 AND revoked_at IS NULL").fetchall()
    return [name for (name,) in rows]


def prune_line(connection: sqlite3.Connection, *, delivered: bool) -> int:
    """Up to where no mandatory sink waits for anything.

    With `delivered`, somebody must have it, too: without a mandatory sink nothing counts as delivered.
    """
    sinks = mandatory_sinks(connection)
    if delivered and not sinks:
        return 0
    line = last_sequence(connection)
    for name in sinks:
        if gaps := books_of(connection, name).gaps():
            line = min(line, gaps[0][0] - 1)
    return line


def settle_missing(connection: sqlite3.Connection, sink: str) -> None:
    """What this sink is owed but was pruned before it came, around events that others held, counts as discarded."""
    books = books_of(connection, sink)
    gaps = books.gaps()
    if not gaps or books.revoked:
        return
    missing = [
        part for first, last in _holes(connection, books.last) for part in ranges.clip(gaps, after=first - 1, upto=last)
    ]
    settle(connection, sink, books, missing)
    connection.execute("UPDATE sinks SET discarded = discarded + ? WHERE name = ?", (ranges.total(missing), sink))


def _holes(connection: sqlite3.Connection, last: int) -> list[ranges.Range]:
    """Sequences of 1 .. `last` that are not stored any more."""
    count, first, end = connection.execute("SELECT count(*), min(sequence), max(sequence) FROM events").fetchone()
    if not count:
        return [(1, last)]
    inside = []
    if count < end - first + 1:  # a million rows are counted by an index, and walked only when one is missing
        inside = connection.execute(
            "SELECT before + 1, sequence - 1 FROM"
            " (SELECT sequence, lag(sequence) OVER (ORDER BY sequence) AS before FROM events)"
            " WHERE sequence > before + 1"
        ).fetchall()
    return [hole for hole in [(1, first - 1), *inside, (end + 1, last)] if hole[0] <= hole[1]]


def waited_for(connection: sqlite3.Connection, *, device: str, serial: str) -> dict[str, int]:
    """By mandatory sink: how many events of this device it has not acknowledged, quarantined ones included.

    The device is known by its configured name or, had it another one before, by its serial number.
    A sink that has everything is there with 0; without mandatory sinks nobody could have acknowledged.
    """
    # No index serves the serial number: a person's order may read what is pending once.
    ours = "(device = ?1 OR (?2 <> '' AND json_extract(data, '$.serial') = ?2))"
    waiting = {}
    for name in mandatory_sinks(connection):
        (count,) = connection.execute(
            f"SELECT count(*) FROM quarantine JOIN events USING (sequence) WHERE sink = ?3 AND {ours}",  # noqa: S608
            (device, serial, name),
        ).fetchone()
        for first, last in books_of(connection, name).gaps():
            (pending,) = connection.execute(
                f"SELECT count(*) FROM events WHERE sequence BETWEEN ?3 AND ?4 AND {ours}",  # noqa: S608
                (device, serial, first, last),
            ).fetchone()
            count += pending
        waiting[name] = count
    return waiting


def prunable(connection: sqlite3.Connection, *, before: str, delivered: bool, limit: int) -> list[int]:
    rows = connection.execute(
        "SELECT sequence FROM events WHERE sequence <= ? AND recorded_at < ?"
        " AND sequence NOT IN (SELECT sequence FROM quarantine) ORDER BY sequence LIMIT ?",
        (prune_line(connection, delivered=delivered), before, limit),
    )
    return [n for (n,) in rows]


def remove(connection: sqlite3.Connection, *, chosen: list[int], delivered: bool) -> int:
    line = prune_line(connection, delivered=delivered)  # a sink may have been added since the choice
    held = {n for (n,) in connection.execute("SELECT sequence FROM quarantine")}
    doomed = [n for n in chosen if n <= line and n not in held]
    for (name,) in connection.execute("SELECT name FROM sinks WHERE mandatory = 0 AND revoked_at IS NULL").fetchall():
        books = books_of(connection, name)
        late = [n for n in doomed if n > books.start and not ranges.covers(books.settled, n)]
        settle(connection, name, books, list(ranges.runs(late)))
        connection.execute("UPDATE sinks SET discarded = discarded + ? WHERE name = ?", (len(late), name))
    for n in doomed:
        for (event_id,) in connection.execute("DELETE FROM events WHERE sequence = ? RETURNING id", (n,)).fetchall():
            connection.execute("INSERT OR IGNORE INTO pruned_ids VALUES (?)", (digest(event_id),))
    return len(doomed)
