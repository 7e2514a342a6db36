"""Punches through kill -9 of both ends and a bad line between them; then everything is counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.edge_agent.delivery.brokers import free_port
from tests.faults.proxy import FaultProxy
from tests.faults.site import Site, make

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Outcome:
    punches: int
    told: int
    agent_kills: int
    collector_kills: int
    faults: dict[str, int]
    lost: int
    duplicate: int
    balanced: bool
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.punches} punches, told {self.told} times, {self.agent_kills} agent kills, "
            f"{self.collector_kills} collector kills, requests {self.faults}: lost {self.lost}, "
            f"duplicate {self.duplicate}, books {'balance' if self.balanced else 'DO NOT balance'}, "
            f"{self.seconds:.1f} s"
        )


class Killable:
    """A process of ours, started again after each kill."""

    def __init__(self, *command: str) -> None:
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self.kills = 0

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(sys.executable, *self._command, cwd=ROOT)

    async def kill(self, *, again: bool = True) -> None:
        assert self._process is not None
        if self._process.returncode is not None:
            raise RuntimeError(f"{self._command[1]} ended by itself with {self._process.returncode}")
        self._process.kill()
        await self._process.wait()
        if again:
            self.kills += 1
            await self.start()


async def run(
    folder: Path, *, punches: int, kills: int, collector_kills: int, seed: int, limit_s: float = 600.0
) -> Outcome:
    random = Random(seed)
    started = time.monotonic()
    names = [f"T{n}" for n in range(4)]
    site = Site({name: make(name, punches // 4, random, numbered=n % 2 == 0) for n, name in enumerate(names)}, random)
    port = free_port()
    proxy = FaultProxy(port, random)
    collected = folder / "collected.db"
    async with site.serve() as site_port, proxy.serve() as proxy_port:
        agent = Killable(
            "-m", "tests.faults.gateway", str(folder), "--site", str(site_port), "--upstream", str(proxy_port), *names
        )
        collector = Killable("-m", "tests.faults.upstream", str(collected), str(port))
        await collector.start()
        await agent.start()
        try:
            async with asyncio.timeout(limit_s):
                await _kill_at_random(site, agent, collector, kills, collector_kills, punches, random)
                while site.acknowledged < punches or _count(collected) < punches:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.05)
        finally:
            for process in (agent, collector):
                with contextlib.suppress(RuntimeError):
                    await process.kill(again=False)
    lost, duplicate = _compare(site, collected)
    balanced = _balanced(folder / "agent.db", punches)
    return Outcome(
        punches,
        site.told,
        agent.kills,
        collector.kills,
        proxy.counts,
        lost,
        duplicate,
        balanced,
        time.monotonic() - started,
    )


async def _kill_at_random(
    site: Site, agent: Killable, collector: Killable, kills: int, collector_kills: int, punches: int, random: Random
) -> None:
    """Spread over the run by what was acknowledged, each a few milliseconds after that, in mid-work."""
    victims = [agent] * kills + [collector] * collector_kills
    random.shuffle(victims)
    for number, victim in enumerate(victims, 1):
        while site.acknowledged < punches * 0.95 * number / (len(victims) + 1):
            site.progress.clear()
            await site.progress.wait()
        await asyncio.sleep(random.uniform(0.0, 0.03))
        await victim.kill()


def _count(path: Path) -> int:
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path, timeout=5)) as connection:
        return int(connection.execute("SELECT count(*) FROM collected").fetchone()[0])
    return 0


def _compare(site: Site, path: Path) -> tuple[int, int]:
    """What was made against what arrived, as two counted sets."""
    made = Counter((terminal.serial, *punch) for terminal in site.terminals.values() for punch in terminal.punches)
    arrived: Counter[tuple[str, str, str, int | None]] = Counter()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for (text,) in connection.execute("SELECT event FROM collected"):
            data = json.loads(text)["data"]
            arrived[data["serial"], data["user_id"], data["device_time"], data["record_no"]] += 1
    return (made - arrived).total(), (arrived - made).total()


def _balanced(path: Path, punches: int) -> bool:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (damage,) = connection.execute("PRAGMA integrity_check").fetchone()
        count, first, last = connection.execute("SELECT count(*), min(sequence), max(sequence) FROM events").fetchone()
        (delivered,) = connection.execute("SELECT delivered FROM sinks").fetchone()
        settled = connection.execute("SELECT sum(last - first + 1) FROM settled").fetchone()[0] or 0
    return bool(damage == "ok" and (count, first, last) == (punches, 1, punches) and delivered == settled <= punches)
