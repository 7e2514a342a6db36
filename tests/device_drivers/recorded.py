"""A `record` that keeps what a driver passed in and lets a test wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from device_drivers.events import DeviceEvent


class Recorded:
    """Durable as far as a driver can tell; `fail_with` makes the store refuse."""

    def __init__(self) -> None:
        self.events: list[DeviceEvent] = []
        self.cursor: bytes | None = None
        self.fail_with: Exception | None = None
        self._changed = asyncio.Condition()

    async def __call__(self, events: Sequence[DeviceEvent], *, cursor: bytes | None = None) -> None:
        if self.fail_with is not None:
            raise self.fail_with
        async with self._changed:
            self.events.extend(events)
            if cursor is not None:
                self.cursor = cursor
            self._changed.notify_all()

    async def until(self, enough: Callable[[list[DeviceEvent]], bool], *, timeout_s: float = 10.0) -> None:
        """Wait until `enough(events)`; fails with what is there after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: enough(self.events))
        except TimeoutError:
            raise AssertionError(f"after {timeout_s} s there is only {self.events}") from None
