"""Keeps one device connected: a fresh driver for every connection, pauses in between, one word about each change.

A lost device is logged once at warning, its return once at info. A wrong password or a foreign serial
number waits for a person: tried again slowly, or at once after `nudge`. A device that cannot be reached
may have got another address; `find_again` is asked for candidates, and an address counts only once the
device there has said the right serial number. Disk trouble is not the device's: a full disk is waited
out without acknowledging, everything else stops the agent. Whatever a device, or a neighbour that was asked
in the search, says or does ends its own connection at most; a driver that does not close is left to itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol, runtime_checkable

from device_drivers.devices import DeviceConfig, Driver, Record
from device_drivers.errors import (
    AuthenticationFailed,
    DeviceError,
    DeviceRefused,
    LinkError,
    Unsupported,
    WrongDevice,
)
from device_drivers.events import DeviceEvent
from edge_agent.database import DiskFull, StorageError, utc_now
from edge_agent.delivery.deliver import Pauses

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
PERSON_PAUSE_S = 300.0
STEADY_S = 30.0  # a connection that held this long ends the growth of pauses
CLOCK_EVERY_S = 600.0
PROBE_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 5.0
FIND_EVERY = 3  # failures between searches for a new address

log = logging.getLogger(__name__)

MakeDriver = Callable[[DeviceConfig, bytes | None], Driver]
FindAgain = Callable[[DeviceConfig], AsyncGenerator[str, None]]  # candidate addresses for a known serial number


class LinkState(StrEnum):
    STARTING = "starting"
    ONLINE = "online"
    OFFLINE = "offline"  # retried by itself
    NEEDS_PERSON = "needs_person"
    STORAGE_FULL = "storage_full"


@dataclass(slots=True)
class DeviceHealth:
    """How it stands with one device, for the console and the status API."""

    name: str
    state: LinkState = LinkState.STARTING
    since: datetime | None = None
    address: str = ""
    serial: str = ""
    model: str = ""
    firmware: str = ""
    error: str = ""  # the last one; a DeviceError holds no secret
    fault: str = ""  # its class, for who says it in other words
    failures: int = 0  # in a row
    connections: int = 0
    events: int = 0  # told by the device, repeats included
    last_event: datetime | None = None
    clock_offset: timedelta | None = None
    clock_measured_at: datetime | None = None


@runtime_checkable
class HasClock(Protocol):
    async def get_time(self) -> datetime: ...


@dataclass(slots=True)
class Supervisor:
    """One device. `run` ends only by cancellation, or when storage is lost."""

    config: DeviceConfig
    make_driver: MakeDriver
    record_for: Callable[[], Record]  # a fresh one for every connection
    load_cursor: Callable[[], Awaitable[bytes | None]]
    find_again: FindAgain | None = None
    learned: Callable[[DeviceConfig], Awaitable[None]] | None = None  # a serial pinned, an address found
    clock_read: Callable[[datetime, datetime], timedelta] | None = None  # (device_time, at) -> offset
    changed: Callable[[DeviceHealth], None] | None = None  # told after each change of state or clock
    clock: Callable[[], datetime] = utc_now
    pauses: Pauses = field(default_factory=lambda: Pauses(first_s=FIRST_PAUSE_S, longest_s=LONGEST_PAUSE_S))
    person_pause_s: float = PERSON_PAUSE_S
    clock_every_s: float = CLOCK_EVERY_S
    health: DeviceHealth = field(init=False)
    driver: Driver | None = field(init=False, default=None)  # of the connection that stands
    _wake: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.health = DeviceHealth(self.config.name, address=self.config.address, serial=self.config.serial)

    def nudge(self) -> None:
        """Try now: somebody corrected something."""
        self._wake.set()

    async def run(self) -> None:
        while True:
            started = asyncio.get_running_loop().time()
            elsewhere = False  # another address may have it
            try:
                await self._connection()
                self._lost(LinkState.OFFLINE, "the driver ended without a reason")
                pause = self.pauses.next()
            except (AuthenticationFailed, WrongDevice) as exc:
                elsewhere = isinstance(exc, WrongDevice) and self._time_to_search()
                self._lost(LinkState.NEEDS_PERSON, str(exc), exc)
                pause = self.person_pause_s
            except DiskFull as exc:
                self._lost(LinkState.STORAGE_FULL, str(exc), exc)
                pause = self.pauses.next()
            except DeviceError as exc:
                if asyncio.get_running_loop().time() - started >= STEADY_S:
                    self.pauses.reset()
                self._lost(LinkState.OFFLINE, str(exc) or type(exc).__name__, exc)
                elsewhere = isinstance(exc, LinkError) and self._time_to_search()
                pause = self.pauses.next()
            except (StorageError, sqlite3.Error):
                raise
            except Exception as exc:  # one device's driver never stops the others
                log.exception("driver_fault device=%s", self.config.name)
                self._lost(LinkState.OFFLINE, f"fault in the driver: {type(exc).__name__}")
                pause = self.pauses.next()
            _not_cancelled()
            if elsewhere and await self._moved():
                continue
            _not_cancelled()
            await self._rest(pause)

    async def _connection(self) -> None:
        """One driver, from the stored cursor until it breaks. Raises DeviceError, StorageError."""
        driver = self.make_driver(self.config, await self.load_cursor())
        try:
            identity = await driver.probe()
            if self.config.serial and identity.serial and identity.serial != self.config.serial:
                raise WrongDevice(self.config.address, expected=self.config.serial, found=identity.serial)
            self.health.model, self.health.firmware = identity.model, identity.firmware
            if identity.serial and not self.config.serial:
                found = dataclasses.replace(self.config, serial=identity.serial)
                if self.learned:
                    await self.learned(found)
                self.config = found
            self.driver = driver
            self._found()
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read_clock(driver)) if isinstance(driver, HasClock) else None
                try:
                    await driver.run(self._counting(self.record_for()))
                finally:
                    if reading is not None:
                        reading.cancel()
        except BaseExceptionGroup as group:
            first = _first(group)
            raise first from first.__cause__
        finally:
            self.driver = None
            await self._close(driver)

    def _counting(self, record: Record) -> Record:
        async def counted(events: Sequence[DeviceEvent], *, cursor: bytes | None = None) -> None:
            await record(events, cursor=cursor)
            if events:
                self.health.events += len(events)
                self.health.last_event = self.clock()

        return counted

    async def _read_clock(self, driver: HasClock) -> None:
        """Its faults are not the connection's: `run` notices a broken link by itself."""
        while True:
            try:
                device_time, at = await driver.get_time(), self.clock()
            except (Unsupported, DeviceRefused):
                return
            except DeviceError as exc:
                log.debug("device_clock device=%s reason=%s", self.config.name, exc)
            else:
                self._clock_said(device_time, at)
            await asyncio.sleep(self.clock_every_s)

    def _clock_said(self, device_time: datetime, at: datetime) -> None:
        if self.clock_read is None:
            return
        try:
            offset = self.clock_read(device_time, at)
        except (OverflowError, ValueError) as exc:  # year 1 or 9999, which no zone can shift
            log.warning("device_clock_impossible device=%s says=%s reason=%s", self.config.name, device_time, exc)
            return
        self.health.clock_offset, self.health.clock_measured_at = offset, at
        if self.changed:
            self.changed(self.health)

    def _time_to_search(self) -> bool:
        return bool(self.find_again and self.config.serial) and self.health.failures % FIND_EVERY == 0

    async def _moved(self) -> bool:
        """Whether the device was found at another address, and is that device. Raises StorageError, but no DiskFull."""
        try:
            there = await self._found_elsewhere()
        except Exception:  # no fault of a search stops the other devices
            log.exception("device_search_fault device=%s", self.config.name)
            return False
        if there is None:
            return False
        log.warning("device_moved device=%s from=%s to=%s", self.config.name, self.config.address, there.address)
        self.config, self.health.address = there, there.address
        if self.learned:
            try:
                await self.learned(there)
            except DiskFull as exc:  # known until the next start, and then found again
                log.warning("device_address_not_kept device=%s reason=%s", self.config.name, exc)
        return True

    async def _found_elsewhere(self) -> DeviceConfig | None:
        if self.find_again is None:
            return None
        async with contextlib.aclosing(self.find_again(self.config)) as candidates:
            async for address in candidates:
                if address != self.config.address:
                    there = dataclasses.replace(self.config, address=address)
                    if await self._serial_at(there) == self.config.serial:
                        return there
        return None

    async def _serial_at(self, there: DeviceConfig) -> str | None:
        """What a candidate says; None if it is no such device. A neighbour may say or do anything."""
        driver = self.make_driver(there, None)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                return (await driver.probe()).serial
        except (DeviceError, TimeoutError):
            return None
        except Exception:
            log.exception("device_search_fault device=%s candidate=%s", self.config.name, there.address)
            return None
        finally:
            await self._close(driver)

    async def _close(self, driver: Driver) -> None:
        """Its faults matter to nobody any more, and nobody waits for it."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await driver.close()
        except (DeviceError, OSError) as exc:
            log.debug("driver_close device=%s reason=%s", self.config.name, exc)
        except (StorageError, sqlite3.Error):
            raise
        except Exception:
            log.exception("driver_close_fault device=%s", self.config.name)

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    def _found(self) -> None:
        health, name = self.health, self.config.name
        if health.failures:
            log.info("device_back device=%s after_failures=%d", name, health.failures)
        else:
            log.info("device_online device=%s serial=%s", name, self.config.serial)
        health.serial, health.address = self.config.serial, self.config.address
        health.connections += 1
        health.failures, health.error, health.fault = 0, "", ""
        self._enter(LinkState.ONLINE)

    def _lost(self, state: LinkState, error: str, exc: Exception | None = None) -> None:
        health = self.health
        health.failures += 1
        health.error, health.fault = error, _kind(exc)
        if health.failures == 1 or state is not health.state:
            log.warning("device_lost device=%s state=%s reason=%s", self.config.name, state, error)
        else:
            log.debug("device_retry device=%s failures=%d reason=%s", self.config.name, health.failures, error)
        self._enter(state)

    def _enter(self, state: LinkState) -> None:
        if self.health.state is not state:
            self.health.state, self.health.since = state, self.clock()
        if self.changed:
            self.changed(self.health)


def _kind(exc: Exception | None) -> str:
    """The nearest class that the tree of device errors names, or its own."""
    classes = type(exc).__mro__ if exc else ()
    named = (each.__name__ for each in classes if each.__module__ == DeviceError.__module__)
    return next(named, classes[0].__name__ if classes else "")


def _not_cancelled() -> None:
    """A link that breaks while its task is being cancelled hides the cancellation: before Python 3.13 a TaskGroup
    whose body failed tells of the failure alone. Raises CancelledError if that happened."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The connection's own error; a clock reader never raises one."""
    for exc in group.exceptions:
        return _first(exc) if isinstance(exc, BaseExceptionGroup) else exc
    raise ValueError("an empty group")
