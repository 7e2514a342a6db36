"""A disk that fills up again and again under a working spine: nothing confirmed is lost, nobody has to help."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from device_drivers.events import Origin, Punch
from edge_agent.attendance import Attendance, Source
from edge_agent.database import Database, DiskFull
from edge_agent.delivery.outbox import Outbox
from edge_agent.people.roster import Roster

KB = 1024
BALLAST = 512 * KB
HIGH_WATER = 256 * KB
START = datetime(2026, 11, 23, 8, 0)  # noqa: DTZ001 - a terminal's clock


@dataclass
class Outcome:
    times_full: int = 0
    confirmed: int = 0
    refused: int = 0
    lost: int = 0
    repeated: int = 0
    ballast_back: int = 0
    damage: str = "ok"

    def __str__(self) -> str:
        return (
            f"full {self.times_full} times: {self.confirmed} punches confirmed, {self.refused} calls refused, "
            f"ballast made again {self.ballast_back} times, lost {self.lost}, repeated {self.repeated}, "
            f"file {self.damage}"
        )


async def fill_and_recover(
    path: Path,
    *,
    times: int,
    connect: Callable[[Path], sqlite3.Connection] | None = None,
    free: Callable[[Path], int] | None = None,
) -> Outcome:
    """Punches until the disk is full, upstream takes them, pruning makes room; `times` over."""
    options = {name: value for name, value in (("connect", connect), ("free", free)) if value is not None}
    database = Database.open(path, ballast_bytes=BALLAST, high_water_bytes=HIGH_WATER, readers=1, **options)  # type: ignore[arg-type]
    outbox, outcome = Outbox(database), Outcome()
    attendance = Attendance(database, Roster(b"k" * 32))
    attendance.configure([Source("gate")])
    await outbox.register("hq")
    upstream: set[str] = set()
    confirmed = 0
    record = attendance.recorder("gate")
    try:
        while outcome.times_full < times:
            try:
                piece = [_punch(n) for n in range(confirmed, confirmed + 100)]
                await record(piece, cursor=b"%d" % (confirmed + 100))
                confirmed += 100
                continue
            except DiskFull:
                outcome.refused += 1
                outcome.times_full += 1
            # Acknowledgements and pruning work on the room kept back.
            while owed := await outbox.pending("hq", 200):
                outcome.repeated += sum(one.event.data["user_id"] in upstream for one in owed)
                upstream.update(one.event.data["user_id"] for one in owed)
                await outbox.ack("hq", [one.sequence for one in owed])
            await outbox.relieve()
            outcome.ballast_back += database.ballast.held
        while owed := await outbox.pending("hq", 200):
            upstream.update(one.event.data["user_id"] for one in owed)
            await outbox.ack("hq", [one.sequence for one in owed])
        outcome.confirmed = confirmed
        outcome.lost = len({str(n) for n in range(confirmed)} - upstream)
        outcome.damage = await database.read(lambda c: str(c.execute("PRAGMA integrity_check").fetchone()[0]))
        if not (await outbox.ledger("hq")).balanced:
            outcome.damage = "books do not balance"
    finally:
        await asyncio.to_thread(database.close)
    return outcome


def _punch(n: int) -> Punch:
    return Punch("S1", str(n), START + timedelta(seconds=n), record_no=n, origin=Origin.BACKLOG, work_code="w" * 100)
