"""Doubles of the agent for driver tests: a `record` that keeps what it got, and a driver running against a terminal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from device_drivers.devices import DeviceConfig
from device_drivers.events import DeviceEvent, Origin, Punch
from device_drivers.simulated.zkteco import SimulatedZkTerminal
from device_drivers.zkteco.driver import ZktecoTerminal


class Recorder:
    """Keeps punches and the last cursor; `gate` holds every call back until it is set."""

    def __init__(self) -> None:
        self.punches: list[Punch] = []
        self.cursor: bytes | None = None
        self.calls: list[tuple[list[Punch], bytes | None]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._changed = asyncio.Condition()

    async def __call__(self, events: Sequence[DeviceEvent], *, cursor: bytes | None = None) -> None:
        punches = [event for event in events if isinstance(event, Punch)]
        self.calls.append((punches, cursor))
        async with self._changed:
            self._changed.notify_all()
        await self.gate.wait()
        self.punches += punches
        self.cursor = cursor if cursor is not None else self.cursor
        async with self._changed:
            self._changed.notify_all()

    async def until(self, reached: Callable[[Recorder], bool]) -> None:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: reached(self))

    async def count(self, punches: int) -> None:
        await self.until(lambda recorder: len(recorder.punches) >= punches)

    def of(self, origin: Origin) -> list[Punch]:
        return [punch for punch in self.punches if punch.origin is origin]


def driver_of(terminal: SimulatedZkTerminal, *, cursor: bytes | None = None, **settings: Any) -> ZktecoTerminal:
    """`settings` are fields of DeviceConfig where it has them, options otherwise."""
    fields = {key: settings.pop(key) for key in ("password", "serial", "timezone", "encoding") if key in settings}
    config = DeviceConfig(name="gate", kind="zkteco", address=terminal.address, options=settings, **fields)
    return ZktecoTerminal(config, cursor=cursor)


@contextlib.asynccontextmanager
async def running(driver: ZktecoTerminal, recorder: Recorder) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(driver.run(recorder))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await driver.close()
