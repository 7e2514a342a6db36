"""The outbox: every event once, in the gateway's order, until everybody who must hear of it has.

One table of events with a sequence without gaps; per sink, the ranges of sequences it needs no more.
Ranges instead of one position, because after an outage a sink drains two lanes side by side: what
happened since goes first, up to half of each batch, and the backlog fills the rest. A million events
behind, a punch made now is still upstream in seconds. Receivers order by `sequence`, not by arrival.

The books balance per sink, at any moment: received = delivered + pending + quarantined + discarded.

An event is pruned when its retention is over and no mandatory sink waits for it; then a digest of its id
stays, so that a terminal's old log, read again years later, is still recognised. Where no mandatory sink is
in force (none yet, only optional ones, the last one revoked), retention is the enterprise's limit on keeping
personal data and holds by age alone; a short disk then frees nothing, because nobody has confirmed anything:
it ends in DiskFull, and devices keep their records.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from edge_agent.database import Database, utc_now, utc_text
from edge_agent.delivery import ranges
from edge_agent.delivery.books import (
    Ledger,
    UnknownSink,
    books_of,
    fetch,
    horizon_of,
    ledger_of,
    prunable,
    remove,
    settle,
    settle_missing,
)
from edge_agent.delivery.event import COLUMNS, ENCODE, JSON, Event, Stored, append, last_sequence, stored

__all__ = ["JSON", "Event", "Ledger", "Outbox", "Quarantined", "Revoked", "Stored", "UnknownSink", "append"]

MAX_REPLY = 2000
PRUNE_STEP = 500  # rows a transaction: pruning must not keep punches waiting
RELIEF_STEP = 100  # each row may dirty two pages of an index, and all of them go into the WAL first


@dataclass(frozen=True, slots=True)
class Quarantined:
    sink: str
    stored: Stored
    reason: str
    reply: str
    at: datetime


Reread = Callable[[sqlite3.Connection, Event], Event | None]


class Revoked(Exception):
    """The enterprise stopped this recipient: nothing may go there."""

    def __init__(self, sink: str) -> None:
        super().__init__(f"{sink} was revoked")
        self.sink = sink


class Outbox:
    """What sinks, flows and the API ask of the events table."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock
        self._bell = asyncio.Event()
        self._acked = asyncio.Event()
        self._horizons: dict[str, int] = {}  # per sink far behind: later events go first
        self.last_sequence = database.watch(last_sequence, self._advanced)

    def _advanced(self, last: int) -> None:
        self.last_sequence = last
        self._ring()

    def _ring(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()

    # Writing and waiting

    async def append(self, events: Iterable[Event]) -> int:
        """Durable when this returns. How many were new. Raises DiskFull, CommitFailed, ValueError."""
        batch = list(events)
        now = self._clock()
        return await self._database.write(lambda c: append(c, batch, now=now))

    async def changed(self, after: int) -> int:
        """Wait for an event beyond sequence `after`; the newest sequence."""
        while self.last_sequence <= after:
            await self._bell.wait()
        return self.last_sequence

    # Sinks

    async def register(self, sink: str, *, mandatory: bool = True, from_now: bool = False) -> None:
        """Make a sink known; one that is known keeps its place, and stays revoked if it was.

        A new sink is owed everything stored, or with `from_now` only what comes. What was pruned between stored
        events counts as discarded.
        """
        at = utc_text(self._clock())

        def work(connection: sqlite3.Connection) -> None:
            last = last_sequence(connection)
            (first,) = connection.execute("SELECT min(sequence) FROM events").fetchone()
            start = last if from_now or first is None else first - 1
            connection.execute(
                "INSERT INTO sinks (name, mandatory, start, registered_at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET mandatory = excluded.mandatory",
                (sink, int(mandatory), start, at),
            )
            settle_missing(connection, sink)

        await self._database.write(work, essential=True)
        self._ring()

    async def reinstate(self, sink: str) -> None:
        """A revoked sink begins anew: it is owed what comes from now on."""
        at = utc_text(self._clock())

        def work(connection: sqlite3.Connection) -> None:
            books = books_of(connection, sink)
            if books.revoked:
                connection.execute("DELETE FROM settled WHERE sink = ?", (sink,))
                connection.execute(
                    "UPDATE sinks SET start = ?, delivered = 0, discarded = 0, registered_at = ?, revoked_at = NULL"
                    " WHERE name = ?",
                    (books.last, at, sink),
                )

        await self._database.write(work, essential=True)
        self._horizons.pop(sink, None)
        self._ring()

    async def revoke(self, sink: str) -> None:
        """Durably stop a recipient; it holds nothing back from pruning any more."""
        at = utc_text(self._clock())

        def work(connection: sqlite3.Connection) -> None:
            books_of(connection, sink)
            dropped = connection.execute("DELETE FROM quarantine WHERE sink = ?", (sink,)).rowcount
            connection.execute(
                "UPDATE sinks SET revoked_at = coalesce(revoked_at, ?), discarded = discarded + ? WHERE name = ?",
                (at, dropped, sink),
            )

        await self._database.write(work, essential=True)
        self._ring()

    async def pending(self, sink: str, limit: int) -> list[Stored]:
        """Up to `limit` events this sink is owed, released ones first. Raises Revoked, UnknownSink."""
        horizon = self._horizons.get(sink)

        def work(connection: sqlite3.Connection) -> tuple[list[Stored], int | None]:
            books = books_of(connection, sink)
            if books.revoked:
                raise Revoked(sink)
            found = connection.execute(
                f"SELECT {COLUMNS} FROM quarantine JOIN events USING (sequence)"  # noqa: S608
                " WHERE sink = ? AND released = 1 ORDER BY sequence LIMIT ?",
                (sink, limit),
            ).fetchall()
            gaps = books.gaps()
            line = horizon_of(gaps, horizon, last=books.last)
            if line is None:
                found += fetch(connection, gaps, limit - len(found))
            else:
                live, old = ranges.clip(gaps, after=line), ranges.clip(gaps, upto=line)
                found += fetch(connection, live, min((limit + 1) // 2, limit - len(found)))
                found += fetch(connection, old, limit - len(found))
            return [stored(row) for row in found], line

        owed, line = await self._database.read(work)
        if line is None:
            self._horizons.pop(sink, None)
        else:
            self._horizons[sink] = line
        return owed

    async def due(self, sink: str, limit: int) -> list[Stored]:
        """As `pending`, but waits until there is something."""
        while True:
            bell = self._bell
            if owed := await self.pending(sink, limit):
                return owed
            await bell.wait()

    async def ack(self, sink: str, sequences: Iterable[int]) -> int:
        """The sink holds these durably. How many were still open; repeating an ack changes nothing."""
        wanted = set(sequences)

        def work(connection: sqlite3.Connection) -> int:
            books = books_of(connection, sink)
            fresh = [n for n in wanted if n <= books.last and n > books.start and not ranges.covers(books.settled, n)]
            settle(connection, sink, books, list(ranges.runs(fresh)))
            released = sum(
                connection.execute(
                    "DELETE FROM quarantine WHERE sink = ? AND sequence = ? AND released = 1", (sink, n)
                ).rowcount
                for n in wanted.difference(fresh)
            )
            connection.execute(
                "UPDATE sinks SET delivered = delivered + ? WHERE name = ?", (len(fresh) + released, sink)
            )
            return len(fresh) + released

        count = await self._database.write(work, essential=True)
        self._acked.set()
        self._acked = asyncio.Event()
        return count

    async def drained(self, sink: str) -> None:
        """Wait until nothing is pending for this sink: all delivered, or set aside."""
        while True:
            bell, acked = self._bell, self._acked
            if not (await self.ledger(sink)).pending:
                return
            rings = [asyncio.ensure_future(bell.wait()), asyncio.ensure_future(acked.wait())]
            try:
                await asyncio.wait(rings, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for ring in rings:
                    ring.cancel()

    # Quarantine

    async def quarantine(self, sink: str, sequence: int, *, reason: str, reply: str = "") -> None:
        """Upstream will not have this one: set it aside with its reason, the rest moves on."""
        at = utc_text(self._clock())

        def work(connection: sqlite3.Connection) -> None:
            books = books_of(connection, sink)
            if not ranges.covers(books.settled, sequence):
                settle(connection, sink, books, [(sequence, sequence)])
            elif not connection.execute(
                "SELECT 1 FROM quarantine WHERE sink = ? AND sequence = ?", (sink, sequence)
            ).fetchone():
                return  # delivered or discarded meanwhile
            connection.execute(
                "INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?, 0)",
                (sink, sequence, reason, reply[:MAX_REPLY], at),
            )

        await self._database.write(work, essential=True)
        self._ring()

    async def quarantined(self, sink: str | None = None, *, limit: int = 100, after: int = 0) -> list[Quarantined]:
        def work(connection: sqlite3.Connection) -> list[Quarantined]:
            rows = connection.execute(
                f"SELECT {COLUMNS}, sink, reason, reply, at FROM quarantine JOIN events USING (sequence)"  # noqa: S608
                " WHERE released = 0 AND sequence > ? AND (?2 IS NULL OR sink = ?2) ORDER BY sequence, sink LIMIT ?",
                (after, sink, limit),
            )
            return [Quarantined(row[8], stored(row), row[9], row[10], datetime.fromisoformat(row[11])) for row in rows]

        return await self._database.read(work)

    async def refusals(self, *, limit: int = 20) -> list[tuple[str, str, int]]:
        """(sink, reason, how many) of what is in quarantine, the most frequent first."""
        sql = (
            "SELECT sink, reason, count(*) FROM quarantine WHERE released = 0"
            " GROUP BY sink, reason ORDER BY count(*) DESC LIMIT ?"
        )
        return await self._database.read(lambda c: c.execute(sql, (limit,)).fetchall())

    async def release(self, sink: str, sequences: Iterable[int] | None = None, *, reread: Reread | None = None) -> int:
        """A person wants these (or all) sent again. How many.

        `reread` gives an event as it reads by what is known now, or None; its id and its place stay.
        """
        return await self._judge(
            sink,
            sequences,
            "UPDATE quarantine SET released = 1 WHERE sink = ? AND released = 0",
            discard=False,
            reread=reread,
        )

    async def discard(self, sink: str, sequences: Iterable[int] | None = None) -> int:
        """A person gives these (or all) up: this sink will never get them. How many."""
        return await self._judge(
            sink, sequences, "DELETE FROM quarantine WHERE sink = ? AND released = 0", discard=True
        )

    async def _judge(
        self,
        sink: str,
        sequences: Iterable[int] | None,
        sql: str,
        *,
        discard: bool,
        reread: Reread | None = None,
    ) -> int:
        chosen = None if sequences is None else sorted(set(sequences))

        def work(connection: sqlite3.Connection) -> int:
            books_of(connection, sink)
            if reread is not None:
                _reread(connection, sink, chosen, reread)
            if chosen is None:
                count = connection.execute(sql, (sink,)).rowcount
            else:
                count = sum(connection.execute(sql + " AND sequence = ?", (sink, n)).rowcount for n in chosen)
            if discard:
                connection.execute("UPDATE sinks SET discarded = discarded + ? WHERE name = ?", (count, sink))
            return count

        count = await self._database.write(work, essential=True)
        self._ring()
        return count

    # Books and lists

    async def ledger(self, sink: str) -> Ledger:
        return await self._database.read(lambda c: ledger_of(c, sink))

    async def stats(self) -> list[Ledger]:
        """Every sink's books, revoked ones too, read at one moment."""

        def work(connection: sqlite3.Connection) -> list[Ledger]:
            names = connection.execute("SELECT name FROM sinks ORDER BY name").fetchall()
            return [ledger_of(connection, name) for (name,) in names]

        return await self._database.read(work)

    async def depth(self) -> int:
        """Events that some mandatory sink still waits for: the longest of their queues."""
        return max((books.pending for books in await self.stats() if books.mandatory and not books.revoked), default=0)

    async def events(
        self,
        *,
        after: int = 0,
        before: int | None = None,
        limit: int = 100,
        newest_first: bool = False,
        type_prefix: str | None = None,
        device: str | None = None,
        subject: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Stored]:
        """A page of what is stored, in the gateway's order; the last sequence shown is the next cursor.

        `since` and `until` bound `occurred_at`.
        """
        terms: list[tuple[str, Any]] = [("sequence > ?", after)]
        if before is not None:
            terms.append(("sequence < ?", before))
        if type_prefix:
            terms.append(("substr(type, 1, length(?)) = ?", type_prefix))
        if device is not None:
            terms.append(("device = ?", device))
        if subject is not None:
            terms.append(("subject = ?", subject))
        if since is not None:
            terms.append(("occurred_at >= ?", utc_text(since)))
        if until is not None:
            terms.append(("occurred_at < ?", utc_text(until)))
        where = " AND ".join(term for term, _ in terms)
        values = [value for term, value in terms for _ in range(term.count("?"))]
        order = "DESC" if newest_first else "ASC"
        sql = f"SELECT {COLUMNS} FROM events WHERE {where} ORDER BY sequence {order} LIMIT ?"  # noqa: S608
        return await self._database.read(lambda c: [stored(row) for row in c.execute(sql, (*values, limit))])

    # Retention

    async def prune(self, before: datetime) -> int:
        """Remove events recorded before `before` that no mandatory sink waits for. How many.

        What an optional sink had not taken by then counts as discarded there. Quarantined events stay.
        """
        return await self._prune(before, delivered=False, limit=1_000_000, step=PRUNE_STEP)

    async def relieve(self, *, limit: int = 20_000) -> int:
        """When the disk runs short: remove the oldest events although their time is not over. How many.

        Only what every mandatory sink has: without one, nothing.
        """
        return await self._prune(datetime.max.replace(tzinfo=UTC), delivered=True, limit=limit, step=RELIEF_STEP)

    async def _prune(self, before: datetime, *, delivered: bool, limit: int, step: int) -> int:
        removed = 0
        while removed < limit:
            wanted = min(step, limit - removed)
            choose = partial(prunable, before=utc_text(before), delivered=delivered, limit=wanted)
            old = await self._database.read(choose)
            if not old:
                break
            count = await self._database.write(partial(remove, chosen=old, delivered=delivered), essential=True)
            removed += count
            if count < len(old):
                break
        return removed


def _reread(connection: sqlite3.Connection, sink: str, chosen: list[int] | None, reread: Reread) -> None:
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM quarantine JOIN events USING (sequence) WHERE sink = ? AND released = 0",  # noqa: S608
        (sink,),
    ).fetchall()
    for item in map(stored, rows):
        if chosen is not None and item.sequence not in chosen:
            continue
        event = reread(connection, item.event)
        if event is not None:
            connection.execute(
                "UPDATE events SET subject = ?, data = ? WHERE sequence = ? AND id = ?",
                (event.subject, ENCODE(event.data), item.sequence, event.id),
            )
