"""500 push terminals, batches of 100, 2,000 punches a second on real sockets; then the same beside an attack.

The gateway (push server, attendance flow, database with a sync for each commit) is one process, the terminals are this
one, the attackers a third at low priority. Each terminal has an address of its own below 127.0.0.0/8, as on a real
network.

Gateway and terminals share the machine, and neither needs a whole processor; where something else runs on it too, both
wait for their turn and the waits are in every latency. So the kernel's own count of that waiting is told beside each
figure, and latencies are judged only where it was small. What is lost, stored twice or grows is judged always.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
BATCH = 100
P99_LIMIT_S = 0.150
GROWTH_LIMIT_MB = 60
QUIET = 0.10  # of the time: a process that waited longer for a processor shows the machine, not itself


class Gateway:
    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process, self.port = process, port
        self.weight = psutil.Process(process.pid)

    @property
    def resident_mb(self) -> float:
        return float(self.weight.memory_info().rss) / 1e6

    @property
    def cpu_s(self) -> float:
        times = self.weight.cpu_times()
        return float(times.user + times.system)

    @property
    def waited_s(self) -> float:
        return waited_for_a_processor(self.process.pid)

    async def ask(self) -> dict[str, int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"?\n")
        state: dict[str, int] = json.loads(await self.process.stdout.readline())
        return state


def waited_for_a_processor(pid: int) -> float:
    """Seconds all threads of a process were ready and not running (the run delay of schedstat)."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((task / "schedstat").read_text().split()[1])
    return total / 1e9


@contextlib.asynccontextmanager
async def gateway(folder: Path, serials: list[str]) -> AsyncIterator[Gateway]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.soak.adms_gateway", str(folder), json.dumps(serials), cwd=ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield Gateway(process, int(await process.stdout.readline()))
    finally:
        process.terminate()
        await process.wait()


class Terminal:
    """One connection, kept open; asked again on a new one if it breaks."""

    def __init__(self, serial: str, source: str, port: int) -> None:
        self.serial, self.source, self.port = serial, source, port
        self.stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.busy = asyncio.Lock()
        self.number = itertools.count()

    async def request(self, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
        async with self.busy:
            if self.stream is None:
                self.stream = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(self.source, 0))
            reader, writer = self.stream
            head = f"{method} /iclock/{target} HTTP/1.1\r\nHost: g\r\nContent-Length: {len(body)}\r\n\r\n"
            try:
                writer.write(head.encode() + body)
                answer = await reader.readuntil(b"\r\n\r\n")
                length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                return int(answer[9:12]), await reader.readexactly(length)
            except (OSError, asyncio.IncompleteReadError):
                self.close()
                return 0, b""

    def batch(self, begin: datetime) -> bytes:
        lines = []
        for _ in range(BATCH):
            n = next(self.number)
            moment = begin + timedelta(seconds=n // 10)
            lines.append(
                f"{n % 50 + 1}\t{moment:%Y-%m-%d %H:%M:%S}\t{n % 2}\t{15 if n % 3 else 1}\t0\t0\t0\t0\t0\t0\t\n"
            )
        return "".join(lines).encode()

    def close(self) -> None:
        if self.stream:
            self.stream[1].close()
        self.stream = None


class Load:
    def __init__(self, serials: list[str], port: int) -> None:
        self.terminals = [Terminal(serial, f"127.1.{n // 200}.{n % 200 + 1}", port) for n, serial in enumerate(serials)]
        self.begin = datetime(2026, 6, 19, tzinfo=UTC)
        self.waits: list[float] = []
        self.polls: list[float] = []
        self.sent = self.refused = 0

    def forget(self) -> None:
        """Begin to measure anew."""
        self.waits, self.polls, self.sent = [], [], 0

    async def push(self, terminal: Terminal) -> None:
        loop = asyncio.get_running_loop()
        body = terminal.batch(self.begin)
        started = loop.time()
        status, answer = await terminal.request("POST", f"cdata?SN={terminal.serial}&table=ATTLOG&Stamp=9999", body)
        self.waits.append(loop.time() - started)
        if status == 200 and answer == b"OK: 100":
            self.sent += BATCH
        else:
            self.refused += 1

    async def poll(self, terminal: Terminal) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await terminal.request("GET", f"getrequest?SN={terminal.serial}")
        self.polls.append(loop.time() - started)

    async def run(self, seconds: float, *, rate: float, poll_s: float) -> None:
        """Open loop: a slow gateway does not slow the terminals down."""
        loop = asyncio.get_running_loop()
        pushing, asking = itertools.cycle(self.terminals), itertools.cycle(self.terminals)
        begin, pushed, asked = loop.time(), 0, 0
        async with asyncio.TaskGroup() as tasks:
            while (passed := loop.time() - begin) < seconds:
                while pushed < passed * rate / BATCH:
                    tasks.create_task(self.push(next(pushing)))
                    pushed += 1
                while asked < passed * len(self.terminals) / poll_s:
                    tasks.create_task(self.poll(next(asking)))
                    asked += 1
                await asyncio.sleep(0.005)

    def close(self) -> None:
        for terminal in self.terminals:
            terminal.close()


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values) or [float("nan")]
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Stretch:
    """What the two processes used and waited for over one stretch of load."""

    def __init__(self, tested: Gateway) -> None:
        self.tested = tested
        self.cpu, self.waited, self.own_waited = tested.cpu_s, tested.waited_s, waited_for_a_processor(os.getpid())

    def over(self, seconds: float, punches: int) -> tuple[str, bool]:
        """The line to print, and whether the machine was quiet enough to judge latencies."""
        used = self.tested.cpu_s - self.cpu
        waited = (self.tested.waited_s - self.waited) / seconds
        own = (waited_for_a_processor(os.getpid()) - self.own_waited) / seconds
        return (
            f"gateway: {used / seconds:.0%} of one core, {used / max(1, punches) * 1e6:.0f} us a punch;"
            f" waiting for a processor: gateway {waited:.0%}, terminals {own:.0%} of the time"
        ), max(waited, own) <= QUIET


def judged(load: Load, *, quiet: bool) -> bool:
    """Whether the answers were in time; where the machine was busy with other things, that is said instead."""
    in_time = percentile(load.waits, 0.99) < P99_LIMIT_S
    if not in_time and not quiet:
        print(f"p99 over {P99_LIMIT_S * 1e3:.0f} ms NOT JUDGED: the machine was busy with something else; run it alone")
        return True
    return in_time


def lines(name: str, load: Load, seconds: float) -> Iterator[str]:
    yield (
        f"{name:<14} {load.sent / seconds:>8.0f} punches/s  p50 {percentile(load.waits, 0.5) * 1e3:6.1f} ms"
        f"  p99 {percentile(load.waits, 0.99) * 1e3:6.1f} ms  worst {max(load.waits) * 1e3:6.1f} ms"
        f"  getrequest p99 {percentile(load.polls, 0.99) * 1e3:6.1f} ms  refused {load.refused}"
    )


async def soak(folder: Path, options: argparse.Namespace) -> bool:
    serials = [f"PUSH{n:05d}" for n in range(options.terminals)]
    seconds = options.minutes * 60 / 2
    good = True
    async with gateway(folder, serials) as tested:
        load = Load(serials, tested.port)
        await load.run(min(5.0, seconds / 4), rate=options.rate, poll_s=options.poll)  # opens every connection
        load.forget()
        resident, stretch = tested.resident_mb, Stretch(tested)
        await load.run(seconds, rate=options.rate, poll_s=options.poll)
        for line in lines("steady", load, seconds):
            print(line)
        used, quiet = stretch.over(seconds, load.sent)
        print(f"{used}; {resident:.0f} -> {tested.resident_mb:.0f} MB")
        good &= judged(load, quiet=quiet) and load.refused == 0
        load.forget()
        before = tested.resident_mb
        highest, stretch = before, Stretch(tested)
        attack = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.soak.adms_attack", str(tested.port), str(seconds * 0.8), *serials[:2],
            cwd=ROOT, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        running = asyncio.create_task(load.run(seconds, rate=options.rate, poll_s=options.poll))
        while not running.done():
            highest = max(highest, tested.resident_mb)
            await asyncio.sleep(0.1)
        await running
        asked, slow, bodies = json.loads((await attack.communicate())[0])
        for line in lines("under attack", load, seconds):
            print(line)
        used, quiet = stretch.over(seconds, load.sent)
        print(used)
        state = await tested.ask()
        print(f"{asked} strangers: {state['pending']} wait for a person, {state['turned_away']} turned away")
        print(f"slow heads: {slow} open at most; 1 GB bodies: {'; '.join(bodies)}")
        print(f"memory: {before:.0f} MB, at most {highest:.0f} MB; refusals {state['counters']}")
        good &= judged(load, quiet=quiet) and load.refused == 0
        good &= highest - before < GROWTH_LIMIT_MB and state["pending"] <= 256
        load.close()
    made = sum(next(terminal.number) for terminal in load.terminals)
    with contextlib.closing(sqlite3.connect(folder / "agent.db")) as connection:
        stored = connection.execute("SELECT count(*) FROM events").fetchone()[0]
    print(f"punches made {made}, stored {stored}")
    return good and stored == made


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="make soak ARGS=adms")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--terminals", type=int, default=500)
    parser.add_argument("--rate", type=float, default=2000.0, help="punches a second")
    parser.add_argument("--poll", type=float, default=5.0, help="seconds between two getrequests of a terminal")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        if not asyncio.run(soak(Path(folder), options)):
            raise SystemExit("a limit was missed")


if __name__ == "__main__":
    main(sys.argv[1:])
