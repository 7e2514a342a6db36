# ruff: noqa: DTZ001 - a controller has no zone
"""The adapter against a simulated controller: log, cursor, doors, cards, profiles, faults."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import date, datetime, time, timedelta

import pytest

from device_drivers.devices import (
    CommandState,
    DeviceConfig,
    DeviceUser,
    DoorController,
    DoorMode,
    DoorTask,
    Feature,
    TimeProfile,
)
from device_drivers.errors import DeviceRefused, LinkTimeout, ProtocolError, WrongDevice
from device_drivers.events import CardRead, DoorEvent, DoorEventKind, Origin, PunchState, VerifyMode
from device_drivers.simulated.uhppote import SimulatedUhppote
from device_drivers.uhppote.driver import UhppoteController, decode_cursor
from device_drivers.uhppote.exchange import discover
from tests.device_drivers.recorded import Recorded

NOW = datetime(2026, 11, 23, 12, 30, 5)  # a Monday
ANNA = DeviceUser("10058400", card=str(100 << 16 | 58400), doors=(1, 2))


@contextlib.asynccontextmanager
async def site(
    *, protocol: str = "udp", cursor: bytes | None = None, device: SimulatedUhppote | None = None, **options: object
) -> AsyncIterator[tuple[SimulatedUhppote, UhppoteController]]:
    device = device or SimulatedUhppote(clock=lambda: NOW)
    address = await device.start()
    settings = {"protocol": protocol, "poll_s": 0.02, "timeout_s": 0.3, **options}
    config = DeviceConfig("panel", "uhppote", address, serial="405419896", options=settings)
    try:
        yield device, UhppoteController(config, cursor=cursor)
    finally:
        await device.stop()


@contextlib.asynccontextmanager
async def running(driver: UhppoteController, record: Recorded) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(driver.run(record))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def until(device: SimulatedUhppote, condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        await device.until(condition)


def kinds(record: Recorded) -> list[DoorEventKind]:
    return [event.kind for event in record.events if isinstance(event, DoorEvent)]


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
async def test_identity_capabilities_and_clock_are_read(protocol: str) -> None:
    async with site(protocol=protocol) as (device, driver):
        assert isinstance(driver, DoorController)
        identity = await driver.probe()
        assert (identity.vendor, identity.model, identity.serial) == ("UHPPOTE", "UT0311-L04", "405419896")
        assert (await driver.capabilities()).doors == 4
        assert Feature.OPEN_DOOR in (await driver.capabilities()).features
        assert await driver.get_time() == NOW
        device.drift_clock(timedelta(minutes=7))
        await driver.set_time(NOW)
        assert device.now() == NOW


async def test_leaves_that_moved_while_nobody_listened_are_seen_on_connecting() -> None:
    async with site(contacts=[1, 2]) as (device, driver):
        device.doors[2].open = device.doors[3].open = True
        record = Recorded()
        async with running(driver, record):
            await record.until(lambda _: bool(driver.leaves))
        assert driver.leaves == {1: False, 2: True}  # an input without a wire may read as open
        assert record.events == []


async def test_discovery_finds_controllers_and_leaves_out_garbage() -> None:
    device = SimulatedUhppote(303986753, clock=lambda: NOW)
    address = await device.start()
    try:
        found = await discover(broadcast=address, bind="127.0.0.1", wait_s=0.2)
        assert [(address.rpartition(":")[2], i.model, i.serial) for address, i in found] == [
            ("60000", "UT0311-L04", "303986753")
        ]
        device.corrupt_next()
        assert await discover(broadcast=address, bind="127.0.0.1", wait_s=0.2) == []
    finally:
        await device.stop()


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
async def test_what_happens_at_doors_is_recorded_in_order_then_acknowledged(protocol: str) -> None:
    async with site(protocol=protocol) as (device, driver):
        assert [r.ok for r in await driver.upsert_users([ANNA])] == [True]
        record = Recorded()
        async with running(driver, record):
            device.swipe(10058400, 1)
            device.swipe(4711, 2, direction=2)
            await record.until(lambda events: len(events) == 2)
            device.button(3)
            device.door_contact(3, is_open=True)
            device.door_contact(3, is_open=False)
            device.door_contact(4, is_open=True)
            device.held(4)
            await record.until(lambda events: len(events) == 7)
            await until(device, lambda: device.event_index == 7)
        granted, denied = record.events[0], record.events[1]
        assert isinstance(granted, DoorEvent)
        assert isinstance(denied, DoorEvent)
        assert (granted.kind, granted.card, granted.user_id) == (DoorEventKind.GRANTED, ANNA.card, "10058400")
        assert (granted.door, granted.reader, granted.device_time, granted.record_no) == (1, 1, NOW, 1)
        assert (granted.direction, granted.verify_mode) == (PunchState.IN, VerifyMode.CARD)
        assert len(granted.raw) == 64
        assert (denied.kind, denied.reason, denied.reader) == (DoorEventKind.DENIED, "no privilege", 6)
        assert kinds(record)[2:] == [
            DoorEventKind.BUTTON, DoorEventKind.OPENED, DoorEventKind.CLOSED, DoorEventKind.FORCED, DoorEventKind.HELD,
        ]  # fmt: skip


async def test_nothing_is_acknowledged_that_was_not_recorded() -> None:
    async with site() as (device, driver):
        record = Recorded()
        record.fail_with = RuntimeError("store is full")
        device.swipe(1, 1)
        with pytest.raises(RuntimeError, match="store is full"):
            await driver.run(record)
        assert device.event_index == 0
        record.fail_with = None
        async with running(UhppoteController(driver.config, cursor=None), record):
            await record.until(lambda events: len(events) == 1)


async def test_a_new_connection_goes_on_from_the_cursor_with_one_event_of_overlap() -> None:
    async with site() as (device, driver):
        record = Recorded()
        for card in range(1, 4):
            device.swipe(card, 1)
        async with running(driver, record):
            await record.until(lambda events: len(events) == 3)
        device.swipe(4, 1)
        again = Recorded()
        async with running(UhppoteController(driver.config, cursor=record.cursor), again):
            await again.until(lambda events: len(events) == 2)
        assert [event.record_no for event in again.events if isinstance(event, DoorEvent)] == [3, 4]


async def test_a_cleared_and_refilled_log_is_read_from_its_start() -> None:
    async with site() as (device, driver):
        record = Recorded()
        for card in range(1, 4):
            device.swipe(card, 1)
        async with running(driver, record):
            await record.until(lambda events: len(events) == 3)
        device.clear_log()
        for card in range(11, 15):
            device.swipe(card, 2)
        again = Recorded()
        async with running(UhppoteController(driver.config, cursor=record.cursor), again):
            await again.until(lambda events: len(events) == 4)
        assert [event.user_id for event in again.events if isinstance(event, DoorEvent)] == ["11", "12", "13", "14"]


async def test_a_log_cleared_while_connected_is_noticed() -> None:
    async with site() as (device, driver):
        record = Recorded()
        for card in range(1, 6):
            device.swipe(card, 1)
        async with running(driver, record):
            await record.until(lambda events: len(events) == 5)
            device.clear_log()
            device.swipe(77, 1)
            await record.until(lambda events: len(events) == 6)
        assert record.events[-1].user_id == "77"  # type: ignore[union-attr]


async def test_overwritten_events_are_reported_as_a_gap() -> None:
    async with site(device=SimulatedUhppote(clock=lambda: NOW, capacity=5)) as (device, driver):
        record = Recorded()
        device.swipe(1, 1)
        async with running(driver, record):
            await record.until(lambda events: len(events) == 1)
        for card in range(2, 12):
            device.swipe(card, 1)
        again = Recorded()
        async with running(UhppoteController(driver.config, cursor=record.cursor), again):
            await again.until(lambda events: len(events) == 6)
        gap = again.events[0]
        assert isinstance(gap, DoorEvent)
        assert (gap.kind, gap.reason) == (DoorEventKind.OTHER, "events 2 to 6 are no longer on the controller")
        assert gap.raw == b"2-6"  # another gap is another event
        assert [e.record_no for e in again.events[1:] if isinstance(e, DoorEvent)] == [7, 8, 9, 10, 11]


@pytest.mark.parametrize("v6_62", [False, True])
async def test_an_announced_event_is_read_at_once(v6_62: bool) -> None:
    listen = f"127.0.0.1:{free_port()}"
    device = SimulatedUhppote(clock=lambda: NOW, v6_62=v6_62)
    async with site(device=device, listen=listen, poll_s=60) as (_, driver):
        record = Recorded()
        async with running(driver, record):
            await until(device, lambda: device.requests[-1:] == [0x20])
            device.swipe(5, 1)
            await record.until(lambda events: len(events) == 1)


async def test_an_event_the_firmware_never_stores_is_taken_from_its_status() -> None:
    listen = f"127.0.0.1:{free_port()}"
    device = SimulatedUhppote(clock=lambda: NOW, v6_62=True)
    async with site(device=device, listen=listen, poll_s=60) as (_, driver):
        record = Recorded()
        async with running(driver, record):
            await until(device, lambda: device.requests[-1:] == [0x20])
            device.announce_unstored(3922570474, 2)
            await record.until(lambda events: len(events) == 1)
        event = record.events[0]
        assert isinstance(event, DoorEvent)
        assert (event.card, event.record_no) == ("3922570474", 1)


async def test_a_forged_announcement_records_nothing() -> None:
    port = free_port()
    async with site(listen=f"127.0.0.1:{port}", poll_s=60) as (device, driver):
        device.swipe(5, 1)
        record = Recorded()
        async with running(driver, record):
            await record.until(lambda events: len(events) == 1)
            genuine = bytes.fromhex("1720000078372a1846000000020103019f987c00202402221023402c").ljust(64, b"\0")
            asked = len(device.requests)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
                for packet in (genuine, b"\x17" * 64, b"", b"\x00" * 1400):
                    attacker.sendto(packet, ("127.0.0.1", port))
            await until(device, lambda: len(device.requests) > asked)
        assert len(record.events) == 1


async def test_with_host_control_each_swipe_asks_us() -> None:
    async with site(host_decides=True) as (device, driver):
        record = Recorded()
        async with running(driver, record):
            await until(device, lambda: device.host_control)
            device.swipe(10058400, 2)
            await record.until(lambda events: len(events) == 1)
        assert record.events == [CardRead("405419896", 2, ANNA.card, card_format="wiegand-26")]
        assert device.opened == []


async def test_a_swipe_made_while_nobody_listened_opens_nothing_later() -> None:
    async with site(host_decides=True) as (device, driver):
        first = Recorded()
        async with running(driver, first):
            await until(device, lambda: device.host_control)
            device.swipe(10058400, 2)
            await first.until(lambda events: len(events) == 1)
        device.swipe(10058400, 2)  # the controller waits for us, and we are gone
        record = Recorded()
        again = UhppoteController(driver.config, cursor=first.cursor)
        async with running(again, record):
            await record.until(lambda events: len(events) == 2)
        for told in record.events:  # the last one we had, read again, and the one we missed
            assert isinstance(told, DoorEvent)
            assert (told.kind, told.origin, told.card) == (DoorEventKind.DENIED, Origin.BACKLOG, ANNA.card)


async def test_a_swipe_that_reaches_us_too_late_opens_nothing() -> None:
    async with site(host_decides=True) as (device, driver):
        record = Recorded()
        async with running(driver, record):
            await until(device, lambda: device.host_control)
            device.swipe(10058400, 2)
            device.drift_clock(timedelta(seconds=11))  # before we look at the log again
            await record.until(lambda events: len(events) == 1)
        assert isinstance(record.events[0], DoorEvent)
        assert record.events[0].kind is DoorEventKind.DENIED


async def test_fire_is_reported_once_while_it_lasts() -> None:
    async with site() as (device, driver):
        record = Recorded()
        device.fire = True
        async with running(driver, record):
            await record.until(lambda events: len(events) == 1)
            device.requests.clear()
            await until(device, lambda: device.requests.count(0x20) >= 3)
        assert kinds(record) == [DoorEventKind.FIRE]


async def test_the_next_fire_is_another_event() -> None:
    async with site() as (device, driver):
        record = Recorded()
        async with running(driver, record):
            for count in (1, 2):
                device.fire = True
                await record.until(lambda events, count=count: len(events) == count)  # type: ignore[misc]
                device.fire = False
                device.drift_clock(timedelta(days=1))
                device.requests.clear()
                await until(device, lambda: device.requests.count(0x20) >= 2)
        assert kinds(record) == [DoorEventKind.FIRE, DoorEventKind.FIRE]
        assert len({event.raw for event in record.events if isinstance(event, DoorEvent)}) == 2


async def test_a_door_opens_for_the_seconds_asked_and_keeps_its_mode() -> None:
    async with site() as (device, driver):
        assert (await driver.open_door(2, seconds=9)).state is CommandState.DONE
        assert (device.opened, device.doors[2].seconds, device.doors[2].mode) == ([2], 9, 3)
        await driver.open_door(2, seconds=9)
        assert device.requests.count(0x80) == 1  # the delay is written only when it changes
        with pytest.raises(DeviceRefused, match="no door 5"):
            await driver.open_door(5, seconds=1)


async def test_an_opening_in_the_same_moment_does_not_undo_a_mode() -> None:
    async with site() as (device, driver):
        await asyncio.gather(driver.set_door_mode(1, DoorMode.LOCKED), driver.open_door(1, seconds=9))
        assert (device.doors[1].mode, device.doors[1].seconds) == (2, 9)


async def test_door_modes_are_set_and_a_locked_door_refuses() -> None:
    async with site() as (device, driver):
        await driver.set_door_mode(1, DoorMode.LOCKED)
        assert device.doors[1].mode == 2
        assert (await driver.open_door(1, seconds=5)).state is CommandState.FAILED
        await driver.set_door_mode(1, DoorMode.UNLOCKED)
        assert device.doors[1].mode == 1
        assert device.opened == []


async def test_delays_are_set_for_good_and_keypads_ask_for_the_pin() -> None:
    async with site() as (device, driver):
        await driver.set_door_delay(3, seconds=400)
        assert (device.doors[3].seconds, device.opened) == (255, [])
        await driver.upsert_users([replace(ANNA, pin="7531")])
        assert device.swipe(10058400, 1).granted
        await driver.activate_keypads({1, 4})
        assert device.keypads == {1, 4}
        assert [device.swipe(10058400, 1, pin=pin).reason for pin in (0, 1234, 7531)] == [7, 7, 1]


async def test_an_open_without_an_answer_is_unknown_and_sent_once() -> None:
    async with site() as (device, driver):
        await driver.open_door(1, seconds=5)
        device.requests.clear()
        device.drop_next()
        result = await driver.open_door(1, seconds=5)
        assert result.state is CommandState.UNKNOWN
        assert device.requests == [0x40]


async def test_lost_packets_are_asked_again_and_silence_is_a_timeout() -> None:
    async with site(timeout_s=0.05) as (device, driver):
        device.drop_next(2)
        assert await driver.get_time() == NOW
        device.go_offline()
        with pytest.raises(LinkTimeout):
            await driver.run(Recorded())
        with pytest.raises(LinkTimeout):
            await driver.open_door(1, seconds=5)
        assert device.opened == []


async def test_another_controller_at_the_address_is_refused() -> None:
    async with site() as (_, driver):
        stranger = UhppoteController(replace(driver.config, serial="303986753"), cursor=None)
        with pytest.raises(LinkTimeout):
            await stranger.probe()


async def test_a_reply_of_another_controller_is_refused() -> None:
    async with site() as (device, driver):
        await driver.probe()
        honest = device.answer
        device.answer = lambda request: (honest(request) or b"").replace(b"\x78\x37\x2a\x18", b"\x01\x02\x03\x04")  # type: ignore[method-assign]
        with pytest.raises(WrongDevice):
            await driver.get_time()


async def test_a_corrupted_reply_is_a_protocol_error() -> None:
    async with site() as (device, driver):
        device.corrupt_next()
        with pytest.raises(ProtocolError):
            await driver.get_time()


async def test_the_serial_number_is_learned_where_none_is_pinned() -> None:
    async with site() as (_, driver):
        learner = UhppoteController(replace(driver.config, serial=""), cursor=None)
        assert (await learner.probe()).serial == "405419896"
        assert await learner.get_time() == NOW


async def test_cards_are_written_read_back_and_deleted() -> None:
    async with site() as (device, driver):
        user = replace(
            ANNA, pin="7531", valid_from=datetime(2026, 1, 1), valid_until=datetime(2026, 12, 31), schedule=29
        )
        assert [r.ok for r in await driver.upsert_users([user])] == [True]
        assert await driver.users() == [user]
        assert device.cards[10058400].doors == (29, 29, 0, 0)
        results = await driver.delete_users(["10058400", "99", "' OR 1=1"])
        assert [(r.ok, r.reason) for r in results] == [
            (True, ""), (True, "was not there"), (False, "not a card number of this controller"),
        ]  # fmt: skip
        assert await driver.users() == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"card": "0"}, "does not fit"),
        ({"card": str(1 << 24)}, "does not fit"),
        ({"card": "x"}, "not a decimal number"),
        ({"card": "9" * 40}, "not a decimal number"),
        ({"doors": (5,)}, "no door 5"),
        ({"schedule": 1}, "2 to 254"),
        ({"pin": "'; DROP"}, "1 to 6 digits"),
        ({"pin": "0123"}, "leading 0"),
        ({"valid_from": datetime(2026, 2, 1), "valid_until": datetime(2026, 1, 1)}, "ends before it starts"),
    ],
)
async def test_a_bad_card_is_refused_with_words_and_stops_no_other(fault: dict[str, object], words: str) -> None:
    async with site() as (device, driver):
        bad = replace(ANNA, user_id="bad", **fault)  # type: ignore[arg-type]
        first, second = await driver.upsert_users([bad, ANNA])
        assert not first.ok
        assert words in first.reason
        assert second.ok
        assert list(device.cards) == [10058400]


async def test_a_disabled_card_opens_nothing() -> None:
    async with site() as (device, driver):
        await driver.upsert_users([replace(ANNA, enabled=False)])
        assert device.swipe(10058400, 1).granted is False


async def test_time_profiles_are_stored_and_decide() -> None:
    async with site() as (device, driver):
        profile = TimeProfile(
            29, frozenset({0, 1}), ((time(8, 30), time(11, 45)),), date(2026, 1, 1), date(2026, 12, 31)
        )
        await driver.set_time_profile(profile)
        assert await driver.time_profile(29) == profile
        endless = replace(profile, number=31, first_day=None, last_day=None, linked=29)
        await driver.set_time_profile(endless)
        assert await driver.time_profiles() == [profile, endless]
        await driver.upsert_users([replace(ANNA, schedule=29)])
        assert device.swipe(10058400, 1).reason == 15
        await driver.set_time(datetime(2026, 11, 23, 9, 0))
        assert device.swipe(10058400, 1).granted
        with pytest.raises(DeviceRefused):
            await driver.set_time_profile(replace(profile, number=40, linked=99))
        await driver.clear_time_profiles()
        assert device.profiles == {}


async def test_a_card_may_open_each_door_at_other_times() -> None:
    async with site() as (device, driver):
        user = replace(ANNA, pin="7531", doors=(1, 2, 3), door_schedules=((2, 29), (3, 30)))
        assert [r.ok for r in await driver.upsert_users([user])] == [True]
        assert device.cards[10058400].doors == (1, 29, 30, 0)
        assert [(u.schedule, u.door_schedules) for u in await driver.users()] == [(None, ((2, 29), (3, 30)))]


async def test_a_task_list_replaces_the_former_one_and_works_without_the_driver() -> None:
    monday, midnight = frozenset({0}), time()
    async with site() as (device, driver):
        old = DoorTask(2, midnight, DoorMode.UNLOCKED, frozenset(range(7)))
        await driver.set_tasks([old])
        await driver.set_tasks(
            [DoorTask(1, time(8), DoorMode.UNLOCKED, monday), DoorTask(1, time(18), DoorMode.LOCKED, monday)]
        )
        assert len(device.tasks) == 2
        for hour, mode in ((0, 3), (8, 1), (18, 2)):
            await driver.set_time(datetime(2026, 11, 23, hour, 0, 20))
            device.tick()
            assert (device.doors[1].mode, device.doors[2].mode) == (mode, 3)
        with pytest.raises(DeviceRefused, match="no door 5"):
            await driver.set_tasks([replace(old, door=5)])
        assert len(device.tasks) == 2


@pytest.mark.parametrize(
    "fault",
    [
        {"number": 1}, {"number": 255}, {"linked": 29}, {"last_day": date(2025, 1, 1)}, {"weekdays": frozenset({7})},
        {"spans": ((time(9), time(8)),)}, {"spans": ((time(8), time(9)),) * 4},
    ],
)  # fmt: skip
def test_impossible_time_profiles_are_refused(fault: dict[str, object]) -> None:
    good = TimeProfile(29, frozenset({0}), ((time(8), time(9)),), date(2026, 1, 1), date(2026, 12, 31))
    with pytest.raises(ValueError):
        replace(good, **fault)  # type: ignore[arg-type]


@pytest.mark.parametrize("cursor", [None, b"", b"x", b"1:2", b"1:-2:3", b"\xff" * 10, b"9" * 100])
def test_a_cursor_of_another_make_means_from_the_start(cursor: bytes | None) -> None:
    assert decode_cursor(cursor) is None
