"""The devices in force: one supervised driver each, following the configuration.

A serial number left open in the configuration is learned at the first connection and pinned from then on;
an address that moved is looked for on the network and remembered. Both are state, not configuration:
the enterprise's document stays as it was written.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime

from device_drivers import catalog, discovery
from device_drivers.devices import DeviceConfig, Driver, Record, Warns
from device_drivers.events import DeviceEvent
from edge_agent.attendance import Attendance, Other
from edge_agent.crew import Crew
from edge_agent.database import Database, utc_now
from edge_agent.devices.supervise import DeviceHealth, LinkState, Supervisor

MakeDriver = Callable[[DeviceConfig, bytes | None], Driver]
Asking = Callable[[str, Sequence[DeviceEvent]], Awaitable[None]]
LinkChanged = Callable[[DeviceHealth], None]


class Fleet:
    """`make_driver` is the catalog's unless devices call us (ADMS) and share a server."""

    def __init__(
        self,
        database: Database,
        attendance: Attendance,
        *,
        make_driver: MakeDriver | None = None,
        asking: Asking | None = None,
        watched: Callable[[str, Record], Record] | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._attendance = attendance
        self._make_driver = make_driver or (lambda config, cursor: catalog.make(config, cursor=cursor))
        self._asking = asking
        self._watched = watched or (lambda _name, record: record)
        self._clock = clock
        self._supervisors: dict[str, Supervisor] = {}
        self._crew: Crew[DeviceConfig] = Crew(self._supervise)

    @property
    def health(self) -> dict[str, DeviceHealth]:
        """By configured name, in the configuration's order."""
        return {name: supervisor.health for name, supervisor in self._supervisors.items()}

    def driver(self, name: str) -> Driver | None:
        """The driver of the connection that stands now."""
        supervisor = self._supervisors.get(name)
        return supervisor.driver if supervisor else None

    def driver_of_serial(self, serial: str) -> Driver | None:
        """The driver of the device with this serial number, while it is connected."""
        for supervisor in self._supervisors.values():
            if supervisor.health.serial == serial:
                return supervisor.driver
        return None

    def warnings(self) -> dict[str, str]:
        """What the drivers of connections that stand warn of, by device."""
        drivers: dict[str, object] = {name: supervisor.driver for name, supervisor in self._supervisors.items()}
        return {name: d.warning for name, d in drivers.items() if isinstance(d, Warns) and d.warning}

    def online(self) -> int:
        return sum(health.state is LinkState.ONLINE for health in self.health.values())

    def nudge(self, name: str) -> None:
        """Try this device now instead of after the pause."""
        if name in self._supervisors:
            self._supervisors[name].nudge()

    async def run(self) -> None:
        """Supervise until cancelled. Storage faults come out."""
        await self._crew.run()

    async def follow(self, devices: Iterable[DeviceConfig]) -> None:
        """Make these the devices."""
        wanted = {device.name: device for device in devices}
        await self._database.write(lambda c: _forget_pins(c, set(wanted)), essential=True)
        await self._crew.follow(wanted)
        self._supervisors = {name: self._supervisors[name] for name in wanted if name in self._supervisors}

    async def _supervise(self, name: str, config: DeviceConfig) -> None:
        pin = await self._database.read(
            lambda c: c.execute(
                "SELECT serial, configured, address FROM device_pins WHERE device = ?", (name,)
            ).fetchone()
        )
        pinned = config
        if pin is not None:
            serial, configured, found_at = pin
            address = found_at if configured == config.address else config.address  # a person moved it since
            pinned = dataclasses.replace(config, serial=config.serial or serial, address=address)

        async def load_cursor() -> bytes | None:
            return await self._attendance.cursor(name, serial=pinned.serial)

        async def learned(found: DeviceConfig) -> None:
            await self._database.write(lambda c: _pin(c, found, config.address, self._clock()))

        supervisor = Supervisor(
            pinned,
            self._make_driver,
            record_for=lambda: self._watched(name, self._attendance.recorder(name, others=self._others(name))),
            load_cursor=load_cursor,
            find_again=discovery.candidates,
            learned=learned,
            clock_read=lambda said, at: self._attendance.measured(name, said, at=at).offset,
            clock=self._clock,
        )
        self._supervisors[name] = supervisor
        await supervisor.run()

    def _others(self, name: str) -> Other | None:
        if self._asking is None:
            return None
        asking = self._asking

        async def others(events: Sequence[DeviceEvent]) -> None:
            await asking(name, events)

        return others


def pins(connection: sqlite3.Connection) -> dict[str, tuple[str, str]]:
    """(serial, address) by device, as learned."""
    rows = connection.execute("SELECT device, serial, address FROM device_pins")
    return {device: (serial, address) for device, serial, address in rows}


def _pin(connection: sqlite3.Connection, found: DeviceConfig, configured: str, now: datetime) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO device_pins VALUES (?, ?, ?, ?, ?)",
        (found.name, found.serial, configured, found.address, now.isoformat()),
    )


def _forget_pins(connection: sqlite3.Connection, configured: set[str]) -> None:
    for (name,) in connection.execute("SELECT device FROM device_pins").fetchall():
        if name not in configured:
            connection.execute("DELETE FROM device_pins WHERE device = ?", (name,))
