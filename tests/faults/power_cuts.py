"""The power goes at every write point of a working spine; what was confirmed must be there afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from edge_agent.database import Database, StorageError
from edge_agent.delivery.outbox import Outbox, UnknownSink
from tests.edge_agent.delivery.test_outbox import event
from tests.faults.disks import Platter, fates
from tests.faults.sqlite_shim import Connection

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
ROUNDS = 6


@dataclass
class Confirmed:
    """What callers were told had happened."""

    events: set[str]
    delivered: set[int]
    opened: bool = False


async def work(path: Path, vfs: str, confirmed: Confirmed) -> None:
    """Appends, acks, a quarantine, pruning and a checkpoint, until done or dead."""
    database = Database.open(path, connect=functools.partial(Connection, vfs=vfs), ballast_bytes=1, readers=1)  # type: ignore[arg-type]
    try:
        outbox = Outbox(database)
        await outbox.register("hq")
        confirmed.opened = True
        for n in range(ROUNDS):
            batch = [event(f"{n}-{k}", data={"filler": "x" * 700}) for k in range(4)]
            await asyncio.gather(*(outbox.append([one]) for one in batch))
            confirmed.events.update(one.id for one in batch)
            owed = await outbox.pending("hq", 3)
            await outbox.ack("hq", [stored.sequence for stored in owed])
            confirmed.delivered.update(stored.sequence for stored in owed)
        await outbox.quarantine("hq", ROUNDS * 4, reason="refused")
        await database.checkpoint()
    finally:
        with contextlib.suppress(StorageError, sqlite3.Error):
            database.close()


def judge(path: Path, confirmed: Confirmed) -> str:
    """Empty if everything confirmed is there and the file is sound."""
    if not path.exists():
        return "the file is gone" if confirmed.opened else ""
    database = Database.open(path, ballast_bytes=1, readers=1)
    try:

        async def look() -> str:
            def read(connection: sqlite3.Connection) -> tuple[str, list[tuple[int, str]]]:
                rows = connection.execute("SELECT sequence, id FROM events ORDER BY sequence").fetchall()
                return connection.execute("PRAGMA integrity_check").fetchone()[0], rows

            sound, rows = await database.read(read)
            if sound != "ok":
                return f"damaged: {sound}"
            if [sequence for sequence, _ in rows] != list(range(1, len(rows) + 1)):
                return "the sequence has a gap"
            if missing := confirmed.events - {event_id for _, event_id in rows}:
                return f"confirmed and lost: {sorted(missing)}"
            if not confirmed.opened:
                return ""
            outbox = Outbox(database)
            try:
                books = await outbox.ledger("hq")
            except UnknownSink:
                return "confirmed and lost: the sink"
            if not books.balanced or books.delivered < len(confirmed.delivered):
                return f"the books: {books}"
            again = {stored.sequence for stored in await outbox.pending("hq", 1000)} & confirmed.delivered
            return f"delivered and due again: {sorted(again)}" if again else ""

        return asyncio.run(look())
    finally:
        database.close()


def cut(point: int | None, *, seed: int) -> tuple[int, str]:
    """Cut at a write point (never, if None). How many points there were, and what was wrong."""
    with tempfile.TemporaryDirectory() as name:
        folder, after = Path(name) / "before", Path(name) / "after"
        folder.mkdir()
        after.mkdir()
        vfs = f"platter-{point}-{seed}"
        platter = Platter(vfs, cut_at=point)
        confirmed = Confirmed(set(), set())
        try:
            with contextlib.suppress(StorageError, sqlite3.Error):
                asyncio.run(work(folder / "agent.db", vfs, confirmed))
            platter.after_the_cut(after, fates(Random(seed)))
            fault: Any = judge(after / "agent.db", confirmed)
        finally:
            platter.close()
        return platter.points, fault


def every_point(*, step: int = 1, seeds: int = 1) -> tuple[int, list[str]]:
    """Cuts made, and the faults found."""
    points, fault = cut(None, seed=0)
    faults, cuts = [fault] if fault else [], 0
    for point in range(1, points + 1, step):
        for seed in range(seeds):
            cuts += 1
            _, fault = cut(point, seed=seed)
            if fault:
                faults.append(f"cut at write {point}, seed {seed}: {fault}")
    return cuts, faults
