"""A push server with a recorder behind it, for the tests of this folder."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import httpx

from device_drivers.adms.driver import AdmsTerminal
from device_drivers.adms.server import AdmsServer
from device_drivers.devices import DeviceConfig
from device_drivers.events import DeviceEvent
from device_drivers.listener import listen


@dataclass
class Recorder:
    """Durable when it returns; `fails` makes the store break, `gate` makes it slow."""

    events: list[DeviceEvent] = field(default_factory=list)
    cursor: bytes | None = None
    fails: Exception | None = None
    gate: asyncio.Event | None = None
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def __call__(self, events: Sequence[DeviceEvent], *, cursor: bytes | None = None) -> None:
        self.entered.set()
        if self.gate:
            await self.gate.wait()
        if self.fails:
            raise self.fails
        async with self.changed:
            self.events += events
            self.cursor = cursor if cursor is not None else self.cursor
            self.changed.notify_all()

    async def have(self, count: int, *, timeout_s: float = 10.0) -> list[DeviceEvent]:
        async with asyncio.timeout(timeout_s), self.changed:
            await self.changed.wait_for(lambda: len(self.events) >= count)
        return self.events


def config(serial: str = "A1", **options: object) -> DeviceConfig:
    return DeviceConfig(
        "gate", "adms", serial=serial, timezone="Asia/Shanghai",
        options={"command_timeout_s": 30.0, "quiet_s": 0.1, **options},
    )  # fmt: skip


@contextlib.asynccontextmanager
async def running(terminal: AdmsTerminal, record: Recorder) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(terminal.run(record))
    await asyncio.sleep(0)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def client(server: AdmsServer, *, source: str = "192.0.2.1") -> httpx.AsyncClient:
    """Straight into the application, no socket."""
    transport = httpx.ASGITransport(server, client=(source, 4000))
    return httpx.AsyncClient(transport=transport, base_url="http://adms")


@contextlib.asynccontextmanager
async def on_a_socket(server: AdmsServer, **limits: float) -> AsyncIterator[str]:
    async with listen(server, host="127.0.0.1", port=0, shut_out=server.shut_out, **limits) as listening:  # type: ignore[arg-type]
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
