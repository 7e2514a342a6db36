"""A device comes and goes; supervision keeps at it, says so once, and knows when only a person can help."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from device_drivers.devices import Capabilities, DeviceConfig, Identity, Record
from device_drivers.errors import AuthenticationFailed, LinkError, ProtocolError, Unsupported, WrongDevice
from device_drivers.events import DeviceEvent, Punch
from edge_agent.database import CommitFailed, DiskFull
from edge_agent.delivery.deliver import Pauses
from edge_agent.devices.supervise import LinkState, Supervisor

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
CONFIG = DeviceConfig("gate", "zkteco", address="10.0.0.5:4370", serial="S1")


@dataclass
class Network:
    """Who answers where; what each connection does, in order, then stays."""

    at: dict[str, str] = field(default_factory=lambda: {"10.0.0.5:4370": "S1"})
    script: list[Callable[[Record], Awaitable[None]] | BaseException] = field(default_factory=list)
    made: list[tuple[str, bytes | None]] = field(default_factory=list)
    closed: int = 0
    running: asyncio.Event = field(default_factory=asyncio.Event)
    device_time: datetime | Exception = datetime(2026, 11, 23, 8, 1)  # noqa: DTZ001

    def make(self, config: DeviceConfig, cursor: bytes | None) -> Device:
        self.made.append((config.address, cursor))
        return Device(config, self)


class Device:
    def __init__(self, config: DeviceConfig, network: Network) -> None:
        self.config, self.network = config, network

    async def probe(self) -> Identity:
        serial = self.network.at.get(self.config.address)
        if serial is None:
            raise LinkError("no route")
        if self.config.serial and serial != self.config.serial:
            raise WrongDevice(self.config.address, expected=self.config.serial, found=serial)
        return Identity("ZKTeco", "K40", serial, "6.60")

    async def capabilities(self) -> Capabilities:
        return Capabilities(frozenset())

    async def get_time(self) -> datetime:
        if isinstance(self.network.device_time, Exception):
            raise self.network.device_time
        return self.network.device_time

    async def run(self, record: Record) -> None:
        step = self.network.script.pop(0) if self.network.script else None
        if isinstance(step, BaseException):
            raise step
        if step is not None:
            await step(record)
            return
        self.network.running.set()
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.network.closed += 1


def supervisor(network: Network, *, record: Any = None, **changes: Any) -> Supervisor:
    async def nothing(events: Sequence[DeviceEvent], *, cursor: bytes | None = None) -> None: ...

    async def cursor() -> bytes | None:
        return b"%d" % len(network.made)

    fields: dict[str, Any] = {
        "config": CONFIG,
        "make_driver": network.make,
        "record_for": lambda: record or nothing,
        "load_cursor": cursor,
        "clock": lambda: NOW,
        "pauses": Pauses(first_s=0.001, longest_s=0.002),
        "person_pause_s": 0.001,
    }
    return Supervisor(**(fields | changes))


@contextlib.asynccontextmanager
async def running(supervisor: Supervisor, network: Network) -> AsyncIterator[Supervisor]:
    """Until one connection stays up."""
    task = asyncio.create_task(supervisor.run())
    try:
        async with asyncio.timeout(5):
            up = asyncio.create_task(network.running.wait())
            await asyncio.wait({task, up}, return_when=asyncio.FIRST_COMPLETED)
            up.cancel()
            if task.done():
                await task
        yield supervisor
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_each_connection_is_a_fresh_driver_from_the_stored_cursor() -> None:
    network = Network(script=[LinkError("gone"), ProtocolError("nonsense")])
    async with running(supervisor(network), network) as it:
        assert network.made == [(CONFIG.address, b"0"), (CONFIG.address, b"1"), (CONFIG.address, b"2")]
        assert it.driver is not None
        assert network.closed == 2
    assert network.closed == 3


async def test_a_loss_is_told_once_and_the_return_once(caplog: pytest.LogCaptureFixture) -> None:
    network = Network(at={})
    it = supervisor(network)

    async def come_back(*_: object) -> bytes | None:
        if len(network.made) == 6:
            network.at = {CONFIG.address: "S1"}
        return None

    it.load_cursor = come_back
    with caplog.at_level(logging.INFO, logger="edge_agent.devices.supervise"):
        async with running(it, network):
            assert it.health.state is LinkState.ONLINE
    told = [record.message.split()[0] for record in caplog.records]
    assert told == ["device_lost", "device_back"]


async def test_health_says_who_is_there_and_what_went_wrong() -> None:
    network = Network(script=[LinkError("cable pulled")])
    seen: list[tuple[LinkState, str]] = []
    it = supervisor(network, changed=lambda health: seen.append((health.state, health.error)))
    async with running(it, network):
        health = it.health
        assert (health.model, health.firmware, health.serial, health.connections) == ("K40", "6.60", "S1", 2)
        assert (health.error, health.failures, health.since) == ("", 0, NOW)
    assert seen == [(LinkState.ONLINE, ""), (LinkState.OFFLINE, "cable pulled"), (LinkState.ONLINE, "")]


async def test_events_are_counted_once_they_are_durable() -> None:
    async def step(record: Record) -> None:
        await record([Punch("S1", "7", None)], cursor=b"x")
        raise LinkError("gone")

    network = Network(script=[step])
    async with running(supervisor(network), network) as it:
        assert (it.health.events, it.health.last_event) == (1, NOW)


@pytest.mark.parametrize("error", [AuthenticationFailed("wrong key"), WrongDevice("a", expected="S1", found="S2")])
async def test_a_wrong_password_or_device_waits_for_a_person(error: Exception) -> None:
    network = Network(script=[error])
    stuck = asyncio.Event()
    it = supervisor(
        network,
        person_pause_s=3600.0,
        changed=lambda health: stuck.set() if health.state is LinkState.NEEDS_PERSON else None,
    )
    task = asyncio.create_task(it.run())
    async with asyncio.timeout(5):
        await stuck.wait()
        it.nudge()
        await network.running.wait()
    assert it.health.state is LinkState.ONLINE
    task.cancel()


async def test_a_full_disk_is_waited_out() -> None:
    network = Network(script=[DiskFull("no room")])
    async with running(supervisor(network), network) as it:
        assert it.health.state is LinkState.ONLINE
        assert len(network.made) == 2


@pytest.mark.parametrize("error", [CommitFailed("broken promise"), sqlite3.DatabaseError("malformed")])
async def test_lost_storage_stops_the_agent(error: Exception) -> None:
    network = Network(script=[error])
    with pytest.raises(type(error)):
        async with asyncio.timeout(5):
            await supervisor(network).run()
    assert network.closed == 1


async def test_a_fault_in_a_driver_stops_only_that_connection(caplog: pytest.LogCaptureFixture) -> None:
    network = Network(script=[ZeroDivisionError("a bug")])
    async with running(supervisor(network), network) as it:
        assert it.health.connections == 2
    assert any(record.exc_info for record in caplog.records)


# Serial numbers and addresses


async def test_an_unknown_serial_is_learned_and_pinned() -> None:
    network = Network()
    pinned: list[DeviceConfig] = []

    async def learned(config: DeviceConfig) -> None:
        pinned.append(config)

    config = DeviceConfig("gate", "zkteco", address="10.0.0.5:4370")
    async with running(supervisor(network, config=config, learned=learned), network) as it:
        assert it.config.serial == "S1"
    assert [config.serial for config in pinned] == ["S1"]


async def candidates(config: DeviceConfig) -> AsyncGenerator[str, None]:
    for address in (config.address, "10.0.0.6:4370", "10.0.0.9:4370"):
        yield address


async def test_a_device_that_moved_is_found_by_its_serial() -> None:
    network = Network(at={"10.0.0.6:4370": "S2", "10.0.0.9:4370": "S1"})
    moved: list[str] = []

    async def learned(config: DeviceConfig) -> None:
        moved.append(config.address)

    async with running(supervisor(network, find_again=candidates, learned=learned), network) as it:
        assert it.health.address == "10.0.0.9:4370"
    assert moved == ["10.0.0.9:4370"]


async def test_another_device_at_the_old_address_starts_the_search_at_once() -> None:
    network = Network(at={"10.0.0.5:4370": "S2", "10.0.0.9:4370": "S1"})
    async with running(supervisor(network, find_again=candidates, person_pause_s=3600.0), network) as it:
        assert it.config.address == "10.0.0.9:4370"


async def test_a_foreign_device_is_never_taken_for_ours() -> None:
    network = Network(at={"10.0.0.5:4370": "S2", "10.0.0.6:4370": "S3"})
    stuck = asyncio.Event()
    it = supervisor(network, find_again=candidates, person_pause_s=3600.0, changed=lambda _: stuck.set())
    task = asyncio.create_task(it.run())
    async with asyncio.timeout(5):
        await stuck.wait()
    assert it.config.address == CONFIG.address
    assert it.health.connections == 0
    task.cancel()


async def test_a_neighbour_that_makes_our_driver_fail_stops_neither_the_search_nor_the_agent() -> None:
    network = Network(at={"10.0.0.6:4370": "S2", "10.0.0.9:4370": "S1"})

    class Fragile(Device):
        async def probe(self) -> Identity:
            if self.config.address == "10.0.0.6:4370":
                raise ValueError("garbage")
            return await super().probe()

        async def close(self) -> None:
            if self.config.address == "10.0.0.6:4370":
                raise RuntimeError("closed twice")

    it = supervisor(network, make_driver=lambda config, _: Fragile(config, network), find_again=candidates)
    async with running(it, network):
        assert it.health.address == "10.0.0.9:4370"


async def test_a_search_that_fails_stops_nothing() -> None:
    network = Network(at={})

    async def broken(_: DeviceConfig) -> AsyncGenerator[str, None]:
        network.at = {CONFIG.address: "S1"}
        raise OSError("no such network")
        yield ""

    async with running(supervisor(network, find_again=broken), network) as it:
        assert it.health.state is LinkState.ONLINE


async def test_an_address_that_a_full_disk_does_not_keep_is_used_all_the_same() -> None:
    network = Network(at={"10.0.0.9:4370": "S1"})

    async def full(_: DeviceConfig) -> None:
        raise DiskFull("0 bytes free")

    async with running(supervisor(network, find_again=candidates, learned=full), network) as it:
        assert it.health.address == "10.0.0.9:4370"


async def test_a_serial_that_a_full_disk_does_not_keep_is_learned_again() -> None:
    network, pinned = Network(), list[str]()

    async def learned(config: DeviceConfig) -> None:
        pinned.append(config.serial)
        if len(pinned) == 1:
            raise DiskFull("0 bytes free")

    it = supervisor(network, config=DeviceConfig("gate", "zkteco", address=CONFIG.address), learned=learned)
    async with running(it, network):
        assert it.config.serial == "S1"
    assert pinned == ["S1", "S1"]


# Clocks


async def test_the_devices_clock_is_measured() -> None:
    network = Network()
    read: list[datetime] = []

    def clock_read(device_time: datetime, at: datetime) -> timedelta:
        read.append(device_time)
        return timedelta(minutes=1)

    measured = asyncio.Event()
    it = supervisor(
        network, clock_read=clock_read, changed=lambda health: measured.set() if health.clock_offset else None
    )
    async with running(it, network):
        async with asyncio.timeout(5):
            await measured.wait()
        assert it.health.clock_measured_at == NOW
    assert read == [network.device_time]


@pytest.mark.parametrize("answer", [Unsupported("no clock"), LinkError("slow")])
async def test_a_clock_that_cannot_be_read_disturbs_nothing(answer: Exception) -> None:
    network = Network(device_time=answer)
    async with running(supervisor(network, clock_read=lambda *_: timedelta(0), clock_every_s=0.0), network) as it:
        assert it.health.state is LinkState.ONLINE
        assert it.health.clock_offset is None


async def test_a_clock_that_no_zone_can_shift_disturbs_nothing() -> None:
    network, twice = Network(device_time=datetime.min), asyncio.Event()  # noqa: DTZ901 - a terminal's clock
    said: list[datetime] = []

    def clock_read(device_time: datetime, at: datetime) -> timedelta:
        said.append(device_time)
        if len(said) == 2:
            twice.set()
        return device_time.replace(tzinfo=ZoneInfo("Asia/Shanghai")).astimezone(UTC) - at

    async with running(supervisor(network, clock_read=clock_read, clock_every_s=0.0), network) as it:
        async with asyncio.timeout(5):
            await twice.wait()
        assert (it.health.state, it.health.connections, it.health.clock_offset) == (LinkState.ONLINE, 1, None)


def test_pauses_grow_with_jitter_up_to_a_ceiling() -> None:
    low, high = Pauses(first_s=1, longest_s=8, rand=lambda: 0.0), Pauses(first_s=1, longest_s=8, rand=lambda: 1.0)
    assert [low.next() for _ in range(5)] == [0.5, 1, 2, 4, 4]
    assert [high.next() for _ in range(5)] == [1, 2, 4, 8, 8]
    assert high.next(at_least_s=30) == 30
    high.reset()
    assert high.next() == 1
    assert high.next(longest=True) == 8


async def test_a_link_that_breaks_while_the_agent_stops_does_not_keep_it_running() -> None:
    network = Network()

    async def breaks_on_the_way_out(record: Record) -> None:
        network.running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise LinkError("reset by peer") from None

    network.script = [breaks_on_the_way_out]
    task = asyncio.create_task(supervisor(network).run())
    async with asyncio.timeout(5):
        await network.running.wait()
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    assert len(network.made) == 1
