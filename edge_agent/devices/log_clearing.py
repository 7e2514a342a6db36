"""Clearing a terminal's log: on the enterprise's order alone, and only what upstream already holds.

A terminal clears all or nothing, so the order is: read the log to its end -> every mandatory recipient has
acknowledged every event of this device, also those told under a name it had before -> the terminal deletes, if
its log still ends with the record that was read. A punch made meanwhile changes that end and stops the
clearing; the person orders again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from device_drivers.devices import CommandResult, CommandState, Driver, KeepsLog
from edge_agent.audit import AuditLog, Entry
from edge_agent.database import Database
from edge_agent.delivery.books import waited_for

READ_TIMEOUT_S = 120.0  # a full log of 100,000 records over a slow radio link


class NotCleared(Exception):
    """The log stays as it is; the message says why and what to do."""


class LogClearing:
    """The flow, for any device that keeps a log of its own."""

    def __init__(
        self,
        *,
        database: Database,
        audit: AuditLog,
        driver: Callable[[str], Driver | None],
        serial_of: Callable[[str], str],
        now: Callable[[], datetime],
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self._database = database
        self._audit = audit
        self._driver = driver
        self._serial_of = serial_of
        self._now = now
        self._read_timeout_s = read_timeout_s

    async def clear(self, device: str, *, actor: str) -> CommandResult:
        """Carry out one order. Raises NotCleared before anything is sent, DeviceError if the device is lost."""
        driver = self._driver(device)
        if driver is None:
            raise NotCleared(f"{device} is not connected now")
        if not isinstance(driver, KeepsLog):
            raise NotCleared(f"{device}: this kind of device has no log to clear")
        try:
            async with asyncio.timeout(self._read_timeout_s):
                position = await driver.read_log()
        except TimeoutError:
            raise NotCleared(f"{device}: the log could not be read within {self._read_timeout_s:g} s") from None
        serial = self._serial_of(device)
        waiting = await self._database.read(lambda c: waited_for(c, device=device, serial=serial))
        if not waiting:
            raise NotCleared("no mandatory upstream is configured: nobody has confirmed these punches")
        if behind := {sink: count for sink, count in waiting.items() if count}:
            words = ", ".join(f"{sink} lacks {count}" for sink, count in sorted(behind.items()))
            raise NotCleared(f"{device}: not every punch is upstream yet ({words}); wait, or settle the quarantine")
        await self._note(device, actor, outcome="ordered")
        result = await driver.clear_log(confirmed_through=position)
        done = result.state is CommandState.DONE
        await self._note(device, actor, outcome="ok" if done else f"{result.state}: {result.reason}"[:200])
        return result

    async def _note(self, device: str, actor: str, *, outcome: str) -> None:
        entry = Entry(actor=actor, action="device.log.clear", object=device, outcome=outcome)
        await self._database.write(lambda c: self._audit.append(c, entry, now=self._now()))
