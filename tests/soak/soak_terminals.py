"""200 terminals, 500 punches a second, over real sockets: how long a device waits for its "yes", and what stays.

Terminals and measurement run in this process, the gateway and its upstream in one of their own each.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sqlite3
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

import psutil

from device_drivers.simulated.zkteco import SimulatedZkTerminal
from tests.edge_agent.delivery.brokers import free_port

ROOT = Path(__file__).resolve().parents[2]
WARM_UP = 0.2  # share of the time before memory counts
P99_LIMIT_S = 0.100
GROWTH_LIMIT = 0.05
PEOPLE = 50


class Load:
    def __init__(self, terminals: int, rate: float) -> None:
        self.terminals = [SimulatedZkTerminal(serial=f"SOAK{n:04d}") for n in range(terminals)]
        self.rate = rate
        self.waits: list[float] = []
        self.made: Counter[tuple[str, str]] = Counter()

    async def start(self) -> None:
        for terminal in self.terminals:
            for person in range(PEOPLE):
                terminal.add_user(str(person + 1))
            terminal.on_acknowledged = self.waits.append
            await terminal.start()

    async def connected(self, limit_s: float) -> None:
        """Until every terminal has a client that asked for live events."""
        async with asyncio.timeout(limit_s):
            while not all(terminal._listeners for terminal in self.terminals):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        self.waits.clear()

    async def punch(self, seconds: float) -> None:
        """Open loop: a slow gateway does not slow the people down."""
        loop, random = asyncio.get_running_loop(), Random(1)
        begin, count = loop.time(), 0
        turns: Counter[str] = Counter()  # everybody at a terminal in turn: nobody twice within a second
        while (passed := loop.time() - begin) < seconds:
            while count < passed * self.rate:
                terminal = self.terminals[random.randrange(len(self.terminals))]
                person = str(turns[terminal.serial] % PEOPLE + 1)
                turns[terminal.serial] += 1
                if terminal.swipe(person, state=count % 2):
                    self.made[terminal.serial, person] += 1
                count += 1
            await asyncio.sleep(0.005)


async def tell(load: Load, process: psutil.Process) -> None:
    """A line a minute, so that one sees what comes with time."""
    minute, before, cpu = 0, 0, sum(process.cpu_times()[:2])
    while True:
        await asyncio.sleep(60)
        minute += 1
        p50, p99, worst = shares(load.waits[before:])
        spent = sum(process.cpu_times()[:2])
        print(
            f"  minute {minute}: p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms, worst {worst * 1e3:.0f} ms;"
            f" gateway {process.memory_info().rss / 2**20:.0f} MB, {(spent - cpu) / 60:.0%} of one core",
            flush=True,
        )
        before, cpu = len(load.waits), spent


def shares(waits: list[float]) -> tuple[float, ...]:
    """Median, 99th hundredth and worst, in seconds."""
    ordered = sorted(waits) or [0.0]
    return tuple(ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.50, 0.99, 1.0))


async def collected(path: Path, expected: int, limit_s: float) -> Counter[tuple[str, str]]:
    with contextlib.suppress(TimeoutError), contextlib.closing(sqlite3.connect(path, timeout=10)) as connection:
        async with asyncio.timeout(limit_s):
            while connection.execute("SELECT count(*) FROM collected").fetchone()[0] < expected:  # noqa: ASYNC110
                await asyncio.sleep(0.5)
    found: Counter[tuple[str, str]] = Counter()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for (text,) in connection.execute("SELECT event FROM collected"):
            data = json.loads(text)["data"]
            found[data["serial"], data["user_id"]] += 1
    return found


async def soak(folder: Path, *, minutes: float, terminals: int, rate: float) -> bool:
    load, port, path = Load(terminals, rate), free_port(), folder / "collected.db"
    await load.start()
    python = sys.executable
    upstream = await asyncio.create_subprocess_exec(
        python, "-m", "tests.faults.upstream", str(path), str(port), cwd=ROOT
    )
    gateway = await asyncio.create_subprocess_exec(
        python, "-m", "tests.soak.gateway", str(folder), str(port), cwd=ROOT, stdin=asyncio.subprocess.PIPE
    )
    try:
        assert gateway.stdin is not None
        gateway.stdin.write(json.dumps([[t.serial, t.address] for t in load.terminals]).encode())
        gateway.stdin.close()
        await load.connected(120)
        memory, process = [], psutil.Process(gateway.pid)

        async def weigh() -> None:
            while True:
                memory.append(process.memory_info().rss)
                await asyncio.sleep(minutes * 60 / 100)

        weighing = asyncio.create_task(weigh())
        telling = asyncio.create_task(tell(load, process))
        await load.punch(minutes * 60)
        weighing.cancel()
        telling.cancel()
        cpu = sum(process.cpu_times()[:2])
        found = await collected(path, load.made.total(), 120)
    finally:
        for child in (gateway, upstream):
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
        for terminal in load.terminals:
            await terminal.stop()
    return report(load, found, memory, cpu, minutes)


def report(load: Load, found: Counter[tuple[str, str]], memory: list[int], cpu: float, minutes: float) -> bool:
    lost, double = (load.made - found).total(), (found - load.made).total()
    # The middle of each end: one sample says little about a collector of garbage.
    warm = memory[int(len(memory) * WARM_UP) :]
    tenth = max(1, len(warm) // 10)
    first, last = sorted(warm[:tenth])[tenth // 2], sorted(warm[-tenth:])[tenth // 2]
    growth = last / first - 1
    p50, p99, worst = shares(load.waits)
    made = load.made.total()
    print(f"terminals {len(load.terminals)}, punches {made} ({made / minutes / 60:.0f}/s) in {minutes:g} min")
    print(f"device acknowledgement: p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms, worst {worst * 1e3:.0f} ms")
    print(f"gateway memory: {first / 2**20:.1f} MB -> {last / 2**20:.1f} MB, growth {growth:+.1%}")
    print(f"gateway CPU: {cpu / minutes / 60:.0%} of one core; acknowledged live: {len(load.waits)}")
    print(f"upstream: lost {lost}, duplicate {double}")
    return p99 < P99_LIMIT_S and growth < GROWTH_LIMIT and not lost and not double


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="soak terminals", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--terminals", type=int, default=200)
    parser.add_argument("--rate", type=float, default=500.0, help="punches a second, all together")
    given, _ = parser.parse_known_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        good = asyncio.run(soak(Path(folder), minutes=given.minutes, terminals=given.terminals, rate=given.rate))
    if not good:
        raise SystemExit("a figure was missed")
