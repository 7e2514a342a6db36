"""Everything a hostile network does to the push port at once; runs in a process of its own, at low priority."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys

from tests.soak.soak_adms import Terminal

STRANGERS = 10_000
SLOW_HEADS = 300
GIGABYTE = 1 << 30


async def gigabyte(port: int, serial: str, source: str, *, chunked: bool) -> str:
    """A body of 1 GB; how far it came and what was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    how = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {GIGABYTE}"
    target = f"/iclock/cdata?SN={serial}&table=ATTLOG"
    writer.write(f"POST {target} HTTP/1.1\r\nHost: g\r\n{how}\r\n\r\n".encode())
    block = b"1\t2026-06-19 08:00:00\t0\t1\n" * 2500
    piece = f"{len(block):x}\r\n".encode() + block + b"\r\n" if chunked else block
    sent = 0
    try:
        while sent < GIGABYTE:
            writer.write(piece)
            sent += len(block)
            async with asyncio.timeout(20):
                await writer.drain()
        answer = await reader.read(64)
    except (OSError, TimeoutError):
        answer = b""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                answer = await reader.read(64)
    writer.close()
    return f"{sent / 1e6:.0f} MB written, answer {answer[9:12].decode() or 'connection closed'}"


async def slow_heads(port: int, seconds: float) -> int:
    """Connections that send their head a byte at a time; how many were open at once at most."""
    streams: list[asyncio.StreamWriter] = []
    most = 0
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        streams = [writer for writer in streams if not writer.is_closing()]
        while len(streams) < SLOW_HEADS:
            source = f"127.2.0.{len(streams) % 4 + 1}"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
            except OSError:
                break
            streams.append(writer)
        for writer in streams:
            with contextlib.suppress(OSError):
                writer.write(b"G")
        most = max(most, sum(not writer.is_closing() for writer in streams))
        await asyncio.sleep(0.5)
    for writer in streams:
        writer.close()
    return most


async def strangers(port: int) -> int:
    """Ten thousand serial numbers nobody knows, from twenty addresses."""
    done = 0

    async def some(source: str, numbers: range) -> None:
        nonlocal done
        for number in numbers:
            one = Terminal(f"STRANGER{number}", source, port)
            with contextlib.suppress(OSError):
                await one.request("GET", f"cdata?SN={one.serial}&options=all&pushver=2.4.1")
            one.close()
            done += 1

    share = STRANGERS // 20
    await asyncio.gather(*(some(f"127.3.0.{n + 1}", range(n * share, (n + 1) * share)) for n in range(20)))
    return done


async def main(port: int, seconds: float, serials: list[str]) -> None:
    asked, slow, *bodies = await asyncio.gather(
        strangers(port),
        slow_heads(port, seconds),
        gigabyte(port, serials[0], "127.4.0.1", chunked=True),
        gigabyte(port, serials[1], "127.4.0.2", chunked=False),
        gigabyte(port, "STRANGER", "127.4.0.3", chunked=True),
    )
    print(json.dumps([asked, slow, bodies]))


if __name__ == "__main__":
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.nice(10)  # an attacker has a machine of its own
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
