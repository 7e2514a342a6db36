"""The outbox: group commit beside single commits, and a long backlog draining while people punch.

The upstream of the drain is the embedded collector behind a real socket in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from device_drivers.events import Punch
from edge_agent.attendance import Attendance, Source
from edge_agent.database import Database
from edge_agent.delivery.deliver import Delivery
from edge_agent.delivery.outbox import Event, Outbox, append
from edge_agent.delivery.payload import Recipient
from edge_agent.delivery.sink import Message
from edge_agent.delivery.webhook import WebhookConfig, WebhookSink
from edge_agent.people.roster import Roster
from tests.edge_agent.delivery.brokers import free_port
from tests.faults.gateway import FIELDS, SECRET

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
DRAIN_LIMIT = 1000.0
LAG_LIMIT_S = 5.0


def event(n: int) -> Event:
    data = {"serial": "S1", "user_id": str(n % 500), "verify_mode": "finger", "device_time": "2026-11-23T08:00:00"}
    return Event(f"{n:032x}", "attendance.punch", NOW, "gate", None, data)


async def commits(folder: Path, count: int) -> None:
    """Side by side, in turns, so that a noisy machine disturbs all alike."""
    database = Database.open(folder / "commits.db", ballast_bytes=1)
    outbox = Outbox(database)
    numbers = iter(range(10**9))

    async def batches(size: int) -> float:
        begin = time.perf_counter()
        for _ in range(count // size):
            await outbox.append([event(next(numbers)) for _ in range(size)])
        return count / (time.perf_counter() - begin)

    async def producers(size: int) -> float:
        begin = time.perf_counter()

        async def produce() -> None:
            for _ in range(max(1, count // size)):
                await outbox.append([event(next(numbers))])

        await asyncio.gather(*(produce() for _ in range(size)))
        return max(1, count // size) * size / (time.perf_counter() - begin)

    rounds: dict[str, list[float]] = {}
    for _ in range(3):
        for name, work in (
            ("one producer, one event a commit", batches(1)),
            ("100 producers, commits shared", producers(100)),
            ("500 producers, commits shared", producers(500)),
            ("one producer, 100 events a commit", batches(100)),
        ):
            rounds.setdefault(name, []).append(await work)
    database.close()
    base = sorted(rounds["one producer, one event a commit"])[1]
    print(f"{'durable events/s (median of 3)':<36}{'events/s':>10}{'ratio':>8}")
    for name, speeds in rounds.items():
        speed = sorted(speeds)[1]
        print(f"{name:<36}{speed:>10.0f}{speed / base:>8.1f}")


class Stopwatch(WebhookSink):
    """Notes when each event's batch was acknowledged."""

    def __init__(self, config: WebhookConfig) -> None:
        super().__init__(config)
        self.lags: list[float] = []
        self.delivered = 0
        self.since = datetime.now(UTC)  # what was punched earlier waited for the upstream to start

    async def send(self, batch: list[Message]) -> None:  # type: ignore[override]
        await super().send(batch)
        now = datetime.now(UTC)
        self.delivered += len(batch)
        for message in batch:
            recorded = datetime.fromisoformat(message["recordedtime"])
            if message["type"].endswith("punch.live") and recorded >= self.since:
                self.lags.append((now - recorded).total_seconds())


def fill(path: Path, events: int) -> None:
    database = Database.open(path, ballast_bytes=1)

    async def work() -> None:
        for begin in range(0, events, 10_000):
            batch = [event(n) for n in range(begin, min(events, begin + 10_000))]
            await database.write(lambda c, b=batch: append(c, b, now=NOW - timedelta(days=7)))  # type: ignore[misc]

    asyncio.run(work())
    database.close()


async def drain(folder: Path, *, events: int, rate: float, limit_s: float) -> bool:
    """`rate` punches a second arrive through the attendance flow while the backlog goes out."""
    port = free_port()
    upstream = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.upstream", str(folder / "collected.db"), str(port), cwd=ROOT
    )
    database = Database.open(folder / "drain.db", ballast_bytes=1)
    outbox = Outbox(database)
    attendance = Attendance(database, Roster(b"k" * 32))
    attendance.configure([Source("gate")])
    sink = Stopwatch(WebhookConfig(f"http://127.0.0.1:{port}/events", secret=SECRET))
    delivery = Delivery(outbox, sink, Recipient("hq", FIELDS), gateway="gw", tenant="acme", batch=500)
    record = attendance.recorder("gate")
    punched = 0

    async def punch() -> None:
        nonlocal punched
        begin = time.monotonic()
        while True:
            due = int((time.monotonic() - begin) * rate)
            for n in range(punched, due):
                await outbox.append([Event(f"live-{n}", "punch.live", datetime.now(UTC), "gate", None, event(n).data)])
            punched = max(punched, due)
            await record([Punch("S1", "1", None, raw=b"%d" % due)])
            await asyncio.sleep(0.02)

    tasks = [asyncio.create_task(delivery.run()), asyncio.create_task(punch())]
    try:
        async with asyncio.timeout(60):
            while not sink.delivered:  # the upstream is another process
                await asyncio.wait(tasks, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    if task.done():
                        task.result()
        begin, at_begin, sink.since = time.monotonic(), sink.delivered, datetime.now(UTC)
        while time.monotonic() - begin < limit_s and (await outbox.ledger("hq")).pending > 2000:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        seconds = time.monotonic() - begin
        speed = (sink.delivered - at_begin) / seconds
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(ProcessLookupError):
            upstream.kill()
        await upstream.wait()
    books = await outbox.ledger("hq")
    database.close()
    lags = sorted(sink.lags) or [float("inf")]
    print(f"\nbacklog of {events}: {speed:.0f} events/s over {seconds:.0f} s, {books.pending} left")
    print(f"meanwhile {len(lags)} live punches upstream after p50 {lags[len(lags) // 2]:.2f} s, worst {lags[-1]:.2f} s")
    print(f"books: {'balanced' if books.balanced else 'NOT BALANCED'}, delivered {books.delivered}")
    return speed >= DRAIN_LIMIT and lags[-1] < LAG_LIMIT_S and books.balanced


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="bench outbox", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="length of the backlog")
    parser.add_argument("--rate", type=float, default=50.0, help="live punches a second during the drain")
    parser.add_argument("--seconds", type=float, default=60.0, help="measure the drain for at most so long")
    parser.add_argument("--commits", type=int, default=2000)
    given, _ = parser.parse_known_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(commits(folder, given.commits))
        fill(folder / "drain.db", given.events)
        good = asyncio.run(drain(folder, events=given.events, rate=given.rate, limit_s=given.seconds))
    if not good:
        raise SystemExit("a figure was missed")
