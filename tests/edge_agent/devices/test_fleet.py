from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

from device_drivers.devices import Capabilities, DeviceConfig, Identity, Record
from device_drivers.errors import LinkError
from device_drivers.events import CardRead, DeviceEvent, Punch
from edge_agent.attendance import Attendance, Source
from edge_agent.database import Database
from edge_agent.devices.fleet import Fleet, pins
from edge_agent.people.roster import Roster

GATE = DeviceConfig("gate", "uhppote", "10.0.0.5:60000")


@dataclass
class Site:
    """Serial numbers by address; what the fleet made."""

    at: dict[str, str]
    made: list[DeviceConfig] = field(default_factory=list)
    up: asyncio.Queue[Driver] = field(default_factory=asyncio.Queue)

    def make(self, config: DeviceConfig, cursor: bytes | None) -> Driver:
        self.made.append(config)
        return Driver(config, self)


class Driver:
    def __init__(self, config: DeviceConfig, site: Site) -> None:
        self.config, self.site = config, site
        self.record: Record | None = None
        self.closed = False

    async def probe(self) -> Identity:
        if self.config.address not in self.site.at:
            raise LinkError("no route")
        return Identity("test", "double", self.site.at[self.config.address], "1")

    async def capabilities(self) -> Capabilities:
        return Capabilities(frozenset())

    async def run(self, record: Record) -> None:
        self.record = record
        self.site.up.put_nowait(self)
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database.open(tmp_path / "agent.db", ballast_bytes=1)
    yield made
    made.close()


@contextlib.asynccontextmanager
async def running(
    database: Database, site: Site, *devices: DeviceConfig, asking: list[DeviceEvent] | None = None
) -> AsyncIterator[Fleet]:
    attendance = Attendance(database, Roster(b"k" * 32))
    attendance.configure([Source(device.name) for device in devices])

    async def asked(device: str, events: Sequence[DeviceEvent]) -> None:
        if asking is not None:
            asking.extend(events)

    fleet = Fleet(database, attendance, make_driver=site.make, asking=None if asking is None else asked)
    await fleet.follow(devices)
    task = asyncio.create_task(fleet.run())
    try:
        async with asyncio.timeout(10):
            yield fleet
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_serial_number_is_learned_once_and_pinned_across_restarts(database: Database) -> None:
    site = Site({"10.0.0.5:60000": "S1"})
    async with running(database, site, GATE) as fleet:
        driver = await site.up.get()
        assert fleet.driver("gate") is driver
        assert fleet.driver_of_serial("S1") is driver
        assert fleet.driver_of_serial("S2") is None
        assert fleet.online() == 1
    assert await database.read(pins) == {"gate": ("S1", "10.0.0.5:60000")}
    async with running(database, site, GATE):
        await site.up.get()
    assert [config.serial for config in site.made] == ["", "S1"]


async def test_another_device_at_that_address_waits_for_a_person(database: Database) -> None:
    site = Site({"10.0.0.5:60000": "S1"})
    async with running(database, site, GATE):
        await site.up.get()
    site.at["10.0.0.5:60000"] = "S2"
    async with running(database, site, GATE) as fleet:
        while fleet.health.get("gate") is None or not fleet.health["gate"].error:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert fleet.health["gate"].state == "needs_person"
        assert fleet.driver("gate") is None


async def test_a_found_address_lasts_until_a_person_configures_another(database: Database) -> None:
    site = Site({"10.0.0.5:60000": "S1", "10.0.0.9:60000": "S1", "10.0.0.7:60000": "S1"})
    async with running(database, site, GATE):
        await site.up.get()
    await database.write(lambda c: c.execute("UPDATE device_pins SET address = '10.0.0.9:60000'"))
    async with running(database, site, GATE):
        assert (await site.up.get()).config.address == "10.0.0.9:60000"
    moved = DeviceConfig("gate", "uhppote", "10.0.0.7:60000")
    async with running(database, site, moved):
        assert (await site.up.get()).config.address == "10.0.0.7:60000"


async def test_a_device_that_leaves_is_closed_and_what_it_taught_forgotten(database: Database) -> None:
    site = Site({"10.0.0.5:60000": "S1", "10.0.0.6:60000": "S2"})
    hall = DeviceConfig("hall", "uhppote", "10.0.0.6:60000")
    async with running(database, site, GATE, hall) as fleet:
        drivers = {driver.config.name: driver for driver in [await site.up.get(), await site.up.get()]}
        await fleet.follow([hall])
        assert drivers["gate"].closed
        assert not drivers["hall"].closed
        assert set(fleet.health) == {"hall"}
        assert fleet.driver("hall") is drivers["hall"]
        assert set(await database.read(pins)) == {"hall"}


async def test_punches_are_stored_and_people_who_ask_go_to_the_door(database: Database) -> None:
    site, asking = Site({"10.0.0.5:60000": "S1"}), list[DeviceEvent]()
    async with running(database, site, GATE, asking=asking):
        driver = await site.up.get()
        assert driver.record is not None
        read = CardRead("S1", reader=1, number="4711")
        await driver.record([Punch("S1", "7", datetime(2026, 11, 23, 8)), read])  # noqa: DTZ001 # a device has no zone
    assert asking == [read]
    assert await database.read(lambda c: c.execute("SELECT count(*) FROM events").fetchone()) == (1,)
