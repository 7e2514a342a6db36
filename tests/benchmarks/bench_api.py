"""The API under load: 200 requests a second over TLS, first alone, then while a hundred terminals punch.

Open loop: a request is due at its time whether or not the one before it was answered, and its wait counts from then.
The gateway is a process of its own; the reading mix is what dashboards and integrations ask, and one request in ten
writes (with its audit row). On a machine that does other things too, the waits tell of those; the processor time of a
request tells of us.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import ssl
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from tests.soak.soak_adms import Terminal, percentile

ROOT = Path(__file__).resolve().parents[2]
TERMINALS, CONNECTIONS, CALLERS = 100, 16, 8
RATE, P99_LIMIT_S = 200.0, 0.050
MIX = (
    ("GET", "/api/v1/status", b""), ("GET", "/api/v1/events?limit=20", b""), ("GET", "/api/v1/devices/t7", b""),
    ("GET", "/healthz", b""), ("GET", "/api/v1/people/p17", b""), ("GET", "/api/v1/upstreams", b""),
    ("GET", "/api/v1/doors", b""), ("GET", "/api/v1/events?limit=20&device=t3", b""),
    ("GET", "/api/v1/session/me", b""),
    ("PATCH", PERSON := "/api/v1/people/p23", b'{"department": "Assembly"}'),
)  # fmt: skip


class Line:
    """One kept-alive connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tls = ssl.create_default_context()
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE  # the gateway's own authority
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._busy = asyncio.Lock()
        self.tag = ""  # of the newest answer that had one

    async def ask(self, method: str, target: str, body: bytes, token: str, *, tag: str = "") -> int:
        async with self._busy:
            if self._stream is None:
                self._stream = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._tls)
            reader, writer = self._stream
            head = (
                f"{method} {target} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {token}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                + (f"If-Match: {tag}\r\n\r\n" if tag else "\r\n")
            )
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            if b"etag: " in answer.lower():
                self.tag = answer.lower().split(b"etag: ")[1].split(b"\r\n")[0].decode()
            return int(answer[9:12])

    def close(self) -> None:
        if self._stream:
            self._stream[1].close()


class Asking:
    def __init__(self, port: int, tokens: list[str]) -> None:
        self.lines = [Line(port) for _ in range(CONNECTIONS)]
        self.tokens = tokens
        self.waits: list[float] = []
        self.wrong = 0
        self.tag = ""  # of the person as this changes them: the same change again makes the same version

    async def warm(self) -> None:
        await asyncio.gather(*(line.ask("GET", "/healthz", b"", self.tokens[0]) for line in self.lines))
        line, change = self.lines[0], next(body for method, _, body in MIX if method == "PATCH")
        await line.ask("GET", PERSON, b"", self.tokens[0])
        assert await line.ask("PATCH", PERSON, change, self.tokens[0], tag=line.tag) == 200
        self.tag = line.tag

    async def _one(self, n: int, due: float) -> None:
        method, target, body = MIX[n % len(MIX)]
        tag, token = self.tag if method == "PATCH" else "", self.tokens[n // 10 % CALLERS]
        status = await self.lines[n % CONNECTIONS].ask(method, target, body, token, tag=tag)
        self.waits.append(asyncio.get_running_loop().time() - due)
        self.wrong += status != 200

    async def run(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        async with asyncio.TaskGroup() as tasks:
            for n in range(int(seconds * RATE)):
                due = begin + n / RATE
                await asyncio.sleep(max(0.0, due - loop.time()))
                tasks.create_task(self._one(n, due))


async def punching(terminals: list[Terminal], counts: list[int]) -> None:
    """Each terminal once a second, evenly spread; for ever."""
    loop, begin = asyncio.get_running_loop(), datetime.now(UTC)
    start = loop.time()

    async def one(terminal: Terminal, number: int) -> None:
        moment = begin + timedelta(seconds=number)
        record = f"{number % 1000}\t{moment:%Y-%m-%d %H:%M:%S}\t0\t15\t0\t0\t0\t0\t0\t0\t\n".encode()
        status, answer = await terminal.request("POST", f"cdata?SN={terminal.serial}&table=ATTLOG&Stamp=9999", record)
        counts[status == 200 and answer.startswith(b"OK")] += 1

    async with asyncio.TaskGroup() as tasks:
        for n in itertools.count():
            await asyncio.sleep(max(0.0, start + n / len(terminals) - loop.time()))
            tasks.create_task(one(terminals[n % len(terminals)], n // len(terminals)))


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def greet(terminals: list[Terminal]) -> None:
    """As a terminal does when it is switched on; the first call wakes the driver and may be answered 503."""
    for _ in range(3):
        await asyncio.gather(*(t.request("GET", f"cdata?SN={t.serial}&options=all") for t in terminals))


def row(name: str, asking: Asking, spent_s: float, seconds: float) -> str:
    waits = asking.waits
    p50, p95, p99 = (percentile(waits, share) * 1e3 for share in (0.5, 0.95, 0.99))
    tail = f"{max(waits) * 1e3:>8.1f} {asking.wrong:>6} {spent_s / seconds:>6.0%} {spent_s / len(waits) * 1e3:>7.2f}"
    return f"{name:<34} {RATE:>6.0f}/s {p50:>8.1f} {p95:>8.1f} {p99:>8.1f} {tail}"


async def bench(folder: Path, seconds: float) -> None:
    serials = [f"BENCH{n:07}" for n in range(TERMINALS)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.api_gateway", str(folder), json.dumps(serials), str(CALLERS), cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        where = json.loads(await process.stdout.readline())
        terminals = [Terminal(serial, f"127.1.0.{n + 1}", where["adms"]) for n, serial in enumerate(serials)]
        heads = ("p50 ms", "p95 ms", "p99 ms", "worst")
        print(f"{'':<34} {'rate':>8} {' '.join(f'{h:>8}' for h in heads)} {'wrong':>6} {'core':>6} {'cpu ms':>7}")
        alone = Asking(where["api"], where["tokens"])
        await alone.warm()
        gateway = psutil.Process(process.pid)
        spent, began = cpu_s(gateway), time.monotonic()
        await alone.run(seconds)
        print(row("API alone", alone, cpu_s(gateway) - spent, time.monotonic() - began))
        await greet(terminals)
        counts = [0, 0]
        load = asyncio.create_task(punching(terminals, counts))
        beside = Asking(where["api"], where["tokens"])
        await beside.warm()
        spent, began = cpu_s(gateway), time.monotonic()
        await beside.run(seconds)
        used, took = cpu_s(gateway) - spent, time.monotonic() - began
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
        print(row(f"API while {TERMINALS} terminals punch", beside, used, took))
        p99 = percentile(beside.waits, 0.99)
        print(f"punches taken {counts[1]} ({counts[1] / seconds:.0f}/s), refused {counts[0]}")
        print(
            f"p99 {p99 * 1e3:.1f} ms, wanted under {P99_LIMIT_S * 1e3:.0f} ms: {'yes' if p99 < P99_LIMIT_S else 'NO'}"
        )
        for line in (*alone.lines, *beside.lines, *terminals):
            line.close()
    finally:
        process.terminate()
        await process.wait()


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0)
    options, _ = parser.parse_known_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(bench(Path(folder), options.seconds))
