# ruff: noqa: DTZ001 - a device's clock is naive
"""The driver against the simulated terminal, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import httpx
import pytest

from device_drivers.catalog import make
from device_drivers.devices import (
    CommandState,
    DeviceConfig,
    DeviceTemplate,
    DeviceUser,
    DoorMode,
    Feature,
    Terminal,
    Warns,
)
from device_drivers.errors import (
    AuthenticationFailed,
    DeviceRefused,
    LinkError,
    LinkTimeout,
    ProtocolError,
    Unsupported,
    WrongDevice,
)
from device_drivers.events import DeviceEvent, Origin, Punch
from device_drivers.isapi.client import IsapiClient
from device_drivers.isapi.driver import IsapiTerminal, connected
from device_drivers.isapi.messages import PushTarget
from device_drivers.isapi.receiver import IsapiReceiver
from device_drivers.isapi.session import LogPosition
from device_drivers.listener import listen
from device_drivers.simulated.isapi import SimulatedIsapi

ACCESS = "/ISAPI/AccessControl"


@dataclass
class Recorder:
    events: list[DeviceEvent] = field(default_factory=list)
    cursor: bytes | None = None
    fails: Exception | None = None
    fails_after: int | None = None  # calls
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def __call__(self, events: Sequence[DeviceEvent], *, cursor: bytes | None = None) -> None:
        if self.fails_after is not None:
            self.fails_after -= 1
            self.fails = OSError("disk full") if self.fails_after < 0 else None
        if self.fails:
            raise self.fails
        async with self.changed:
            self.events += events
            self.cursor = cursor or self.cursor
            self.changed.notify_all()

    def numbers(self) -> list[int | None]:
        return [event.record_no for event in self.events if isinstance(event, Punch)]

    async def until(self, number: int) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: number in self.numbers())


def config(device: SimulatedIsapi, **options: object) -> DeviceConfig:
    return DeviceConfig(
        "lobby", "isapi", address=device.address, username=device.username, password=device.password, options=options
    )


@contextlib.asynccontextmanager
async def receiving(terminal: IsapiTerminal, record: Recorder) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(terminal.run(record))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("by_serial", [True, False], ids=["by serial number", "by position"])
async def test_backlog_then_live_then_what_was_missed(by_serial: bool) -> None:
    device, record = SimulatedIsapi(by_serial=by_serial), Recorder()
    async with device.running():
        for number in range(1, 101):
            device.swipe(str(number), live=False)
        async with connected(config(device)) as terminal, receiving(terminal, record):
            await record.until(100)
            assert record.numbers() == list(range(1, 101))
            device.swipe("7")
            await record.until(101)
            device.swipe("8", live=False)  # the stream lost this one
            device.swipe("9")
            await record.until(103)
        assert set(record.numbers()) == set(range(1, 104))
        first = len(record.events)
        device.swipe("10", live=False)
        async with connected(config(device), cursor=record.cursor) as terminal, receiving(terminal, record):
            await record.until(104)
        assert 1 <= len(record.events) - first <= 25  # an overlap, not everything


async def test_live_and_backlog_are_told_apart_and_say_the_same() -> None:
    device, record = SimulatedIsapi(), Recorder()
    async with device.running(), connected(config(device)) as terminal, receiving(terminal, record):
        device.swipe("6", live=False)
        await record.until(1)
        device.swipe("7")
        await record.until(2)
        live = next(event for event in record.events if isinstance(event, Punch) and event.origin is Origin.LIVE)
        stored = await terminal._log._pages(0, {}).__anext__()
        assert isinstance(stored[-1], Punch)
        assert replace(stored[-1], origin=live.origin, raw=live.raw) == live


async def test_a_log_that_began_anew_is_read_from_its_start() -> None:
    device, record = SimulatedIsapi(), Recorder()
    async with device.running():
        for _ in range(50):
            device.swipe("1", live=False)
        async with connected(config(device)) as terminal, receiving(terminal, record):
            await record.until(50)
        device.clear_log()
        for _ in range(3):
            device.swipe("2", live=False)
        record.events.clear()
        async with connected(config(device), cursor=record.cursor) as terminal, receiving(terminal, record):
            await record.until(3)
            assert terminal.counters["log_resets"] == 1
    assert record.numbers() == [1, 2, 3]


@pytest.mark.parametrize("by_serial", [True, False], ids=["by serial number", "by position"])
async def test_another_log_that_is_already_longer_is_read_from_its_start(by_serial: bool) -> None:
    device, record = SimulatedIsapi(by_serial=by_serial), Recorder()
    async with device.running():
        for _ in range(60):
            device.swipe("1", live=False)
        async with connected(config(device)) as terminal, receiving(terminal, record):
            await record.until(60)
        device.clear_log()
        device.drift_clock(timedelta(days=1))
        for _ in range(80):
            device.swipe("2", live=False)
        record.events.clear()
        async with connected(config(device), cursor=record.cursor) as terminal, receiving(terminal, record):
            await record.until(80)
            await until(lambda: set(record.numbers()) == set(range(1, 81)))
            assert terminal.counters["log_resets"] == 1


async def test_a_replaced_terminal_is_read_from_its_start() -> None:
    device, record = SimulatedIsapi(), Recorder()
    async with device.running():
        device.swipe("1", live=False)
        earlier = LogPosition(1, "", "DS-ANOTHER").cursor()
        async with connected(config(device), cursor=earlier) as terminal, receiving(terminal, record):
            await record.until(1)
            assert terminal.counters["log_resets"] == 1


async def test_a_cursor_of_an_earlier_version_is_read_on_from() -> None:
    device, record = SimulatedIsapi(), Recorder()
    async with device.running():
        for _ in range(100):
            device.swipe("1", live=False)
        async with connected(config(device), cursor=b'{"last": 90}') as terminal, receiving(terminal, record):
            await record.until(100)
        assert record.numbers() == list(range(70, 101))
        assert LogPosition.from_cursor(record.cursor).serial == device.serial


@pytest.mark.parametrize("by_serial", [True, False], ids=["by serial number", "by position"])
async def test_records_in_the_order_of_a_clock_that_was_reset_are_all_read(by_serial: bool) -> None:
    device, record = SimulatedIsapi(by_serial=by_serial, by_time=True), Recorder()
    polled = {"events": "poll", "poll_s": 0.02}
    async with device.running():
        for _ in range(100):
            device.swipe("1", live=False)
        device.drift_clock(timedelta(days=-9000))
        for _ in range(30):
            device.swipe("2", live=False)
        record.fails_after = 1  # the highest numbers are on the first page
        async with connected(config(device, **polled)) as terminal:
            with pytest.raises(OSError, match="disk full"):
                await asyncio.wait_for(terminal.run(record), 10)
        assert max(number or 0 for number in record.numbers()) == 130
        record.fails, record.fails_after = None, None
        async with connected(config(device, **polled), cursor=record.cursor) as terminal, receiving(terminal, record):
            await until(lambda: set(record.numbers()) == set(range(1, 131)))
            for _ in range(30):  # while the clock is still wrong
                device.swipe("3", live=False)
            await until(lambda: set(record.numbers()) == set(range(1, 161)))


async def test_a_log_longer_than_a_range_and_with_a_hole_is_read_whole() -> None:
    device, record = SimulatedIsapi(), Recorder()
    async with device.running():
        for _ in range(700):
            device.swipe("1", live=False)
        device._next_serial = 5000
        device.swipe("1", live=False)
        async with connected(config(device)) as terminal, receiving(terminal, record):
            await record.until(5000)
    assert set(record.numbers()) == {*range(1, 701), 5000}


async def test_a_terminal_that_finds_no_range_of_numbers_is_read_by_position() -> None:
    device, record = SimulatedIsapi(ranges_empty=True), Recorder()
    async with device.running():
        for _ in range(40):
            device.swipe("1", live=False)
        async with connected(config(device)) as terminal, receiving(terminal, record):
            await record.until(40)
            device.swipe("1")
            await record.until(41)
        device.swipe("1", live=False)
        async with connected(config(device), cursor=record.cursor) as terminal, receiving(terminal, record):
            await record.until(42)
    assert set(record.numbers()) == set(range(1, 43))


async def test_a_search_that_never_ends_is_an_error_or_ends_where_it_said() -> None:
    device, record = SimulatedIsapi(page_stuck=True), Recorder()
    async with device.running():
        for _ in range(30):
            device.swipe("1", live=False)
        async with connected(config(device)) as terminal, receiving(terminal, record):
            await until(lambda: LogPosition.from_cursor(record.cursor).last == 30)
        device.swipe("1", live=False)
        async with connected(config(device)) as terminal:
            with pytest.raises(ProtocolError, match="same 30 records again, 30 of 31"):
                await asyncio.wait_for(terminal.run(Recorder()), 10)


@pytest.mark.parametrize(
    "traits", [{"numbered_alerts": False}, {"alerts_ahead": timedelta(seconds=1)}], ids=["no number", "another second"]
)
async def test_what_alert_and_log_tell_differently_is_one_punch(traits: dict[str, Any]) -> None:
    device, record = SimulatedIsapi(**traits), Recorder()
    async with device.running(), connected(config(device)) as terminal, receiving(terminal, record):
        await asyncio.wait_for(device.streaming.wait(), 5)
        for number in (1, 2, 3):
            device.swipe("7")
            await record.until(number)
        assert {event.origin for event in record.events if isinstance(event, Punch)} >= {Origin.LIVE}
        assert "not_in_the_log" not in terminal.counters
    assert {(e.record_no, e.device_time) for e in record.events if isinstance(e, Punch)} == {
        (entry["serialNo"], datetime.fromisoformat(entry["time"]).replace(tzinfo=None)) for entry in device.events
    }


async def test_what_the_log_does_not_hold_is_taken_from_the_alert() -> None:
    device, record, pauses = SimulatedIsapi(), Recorder(), []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async with device.running():
        client = IsapiClient(f"http://{device.address}", username="admin", password=device.password, sleep=pause)
        async with receiving(terminal := IsapiTerminal(config(device), client=client), record):
            await asyncio.wait_for(device.streaming.wait(), 5)
            device.swipe("7")
            kept, device.events = device.events, []
            await record.until(1)
            assert len(pauses) == 2  # it was looked for
            device.events = kept
        await terminal.close()


async def test_a_log_without_numbers_is_warned_of_and_alerts_are_the_record() -> None:
    device, record = SimulatedIsapi(numbered_log=False), Recorder()
    async with device.running():
        device.swipe("1", live=False)
        async with connected(config(device)) as terminal, receiving(terminal, record):
            await until(lambda: terminal.warning)
            assert isinstance(terminal, Warns)
            device.swipe("7")
            await record.until(2)
        async with connected(config(device, events="poll")) as terminal:
            with pytest.raises(Unsupported, match="serial numbers"):
                await asyncio.wait_for(terminal.run(record), 10)


async def test_a_stream_without_events_is_kept_alive_by_heartbeats() -> None:
    device = SimulatedIsapi(heartbeat_s=0.02)
    async with (
        device.running(),
        connected(config(device, silence_s=0.5)) as terminal,
        receiving(terminal, Recorder()) as task,
        asyncio.timeout(10),
    ):
        while terminal.counters["other_notifications"] < 50:  # a second, twice the silence that ends a link
            await asyncio.wait({task}, timeout=0.02)
            assert not task.done()


async def test_trap_23_a_stream_that_hangs_is_a_lost_link() -> None:
    device = SimulatedIsapi(heartbeat_s=None)
    async with device.running(), connected(config(device, silence_s=0.2)) as terminal:
        with pytest.raises(LinkTimeout):
            await asyncio.wait_for(terminal.run(Recorder()), 10)


async def test_trap_23_a_stream_that_ends_is_a_lost_link_and_costs_no_event() -> None:
    device, record = SimulatedIsapi(), Recorder()
    async with device.running():
        async with connected(config(device)) as terminal, receiving(terminal, record) as task:
            device.swipe("1")
            await record.until(1)
            device.end_streams()
            with pytest.raises(LinkError):
                await asyncio.wait_for(task, 10)
        device.swipe("2")
        async with connected(config(device), cursor=record.cursor) as terminal, receiving(terminal, record):
            await record.until(2)


async def test_trap_23_no_free_connection_is_asked_again_after_pauses() -> None:
    device, pauses = SimulatedIsapi(max_connections=0), []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if device._server and len(pauses) == 2:
            device._server.max_connections = 5

    async with device.running():
        client = IsapiClient(f"http://{device.address}", username="admin", password=device.password, sleep=pause)
        terminal = IsapiTerminal(config(device), client=client)
        assert (await terminal.probe()).serial == device.serial
        assert pauses == sorted(pauses)
        assert len(pauses) == 2
        assert device._server is not None
        device._server.max_connections = 0
        before = len(pauses)
        opened = await terminal.open_door(1, seconds=5)
        assert opened.state is CommandState.FAILED
        assert len(pauses) == before  # a door is asked for once
        await terminal.close()


def receiver_of() -> IsapiReceiver:
    return IsapiReceiver(derive=lambda use: sha256(use.encode()).digest())


@contextlib.asynccontextmanager
async def pushing(
    device: SimulatedIsapi, record: Recorder, receiver: IsapiReceiver, **options: object
) -> AsyncIterator[IsapiTerminal]:
    """The receiver on a socket, the terminal armed to push there."""
    async with listen(receiver, host="127.0.0.1", port=0) as server:
        receiver.listening(server.sockets[0].getsockname()[1], tls=False)
        terminal = receiver.terminal(config(device, events="push", check_s=0.02, **options))
        try:
            async with receiving(terminal, record):
                await until(lambda: any(device.hosts.values()))
                yield terminal
        finally:
            await terminal.close()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("digest", [True, False], ids=["with a digest", "without"])
async def test_a_terminal_pushes_what_happens_and_is_answered_after_the_commit(digest: bool) -> None:
    device, record, receiver = SimulatedIsapi(digest_push=digest), Recorder(), receiver_of()
    async with device.running(), pushing(device, record, receiver, sweep_s=60) as terminal:
        device.swipe("7")
        await record.until(1)
        device.swipe_with_picture("8", b"\xff\xd8 a face")
        await record.until(2)
        await until(lambda: terminal.counters["photos_dropped"])
        last = record.events[-1]
        assert isinstance(last, Punch)
        assert last.origin is Origin.LIVE
        assert ("MD5digest" in device.hosts["1"]) is digest
        assert (receiver.counters["answered_401"] > 0) is digest
        assert "alertStream" not in " ".join(device.requests)


async def test_trap_23_a_restarted_terminal_is_armed_again_and_loses_nothing() -> None:
    device, record = SimulatedIsapi(), Recorder()
    async with device.running(), pushing(device, record, receiver_of(), sweep_s=0.05) as terminal:
        device.swipe("1")
        await record.until(1)
        await terminal.reboot()
        device.swipe("2", live=False)  # nobody was told
        await record.until(2)
        await until(lambda: terminal.counters["not_pushed"])  # which is said
        await until(lambda: any(device.hosts.values()))
        assert terminal.counters["armed"] == 2
        device.swipe("3")
        await record.until(3)


async def test_a_push_that_could_not_be_kept_is_not_acknowledged_and_ends_the_driver() -> None:
    device, record, receiver = SimulatedIsapi(), Recorder(), receiver_of()
    async with device.running(), listen(receiver, host="127.0.0.1", port=0) as server:
        receiver.listening(server.sockets[0].getsockname()[1], tls=False)
        terminal = receiver.terminal(config(device, events="push", sweep_s=60))
        async with receiving(terminal, record) as task:
            await until(lambda: f"POST {ACCESS}/AcsEvent" in device.requests)  # armed, and the log read
            record.fails = OSError("disk full")
            device.swipe("1")
            with pytest.raises(OSError, match="disk full"):
                await asyncio.wait_for(task, 10)
        await until(lambda: receiver.counters["answered_500"])
        await terminal.close()
        record.fails = None
        terminal = receiver.terminal(config(device, events="push", sweep_s=60))
        async with receiving(terminal, record):
            await record.until(1)  # it pushed again, or the log told
        await terminal.close()


async def test_another_listener_of_the_terminal_is_left_alone() -> None:
    device, record = SimulatedIsapi(), Recorder()
    theirs = PushTarget("192.0.2.99", 8080, "/theirs").encode("1").decode().partition("?>")[2]
    device.hosts["1"] = theirs
    async with device.running(), pushing(device, record, receiver_of()):
        await until(lambda: device.hosts["2"])
        assert device.hosts["1"] == theirs
    device.hosts = {"1": theirs}
    async with device.running():
        terminal = receiver_of().terminal(config(device, events="push"))
        assert terminal.inbox is None  # no port: listened to instead
        async with receiving(terminal, record):
            await asyncio.wait_for(device.streaming.wait(), 5)
        receiver = receiver_of()
        receiver.listening(1, tls=False)
        crowded = receiver.terminal(config(device, events="push"))
        with pytest.raises(DeviceRefused, match="host_id"):
            await crowded.run(record)
        await crowded.close()
        await terminal.close()


async def test_a_model_that_cannot_push_is_listened_to() -> None:
    device, record, receiver = SimulatedIsapi(lacks=("/ISAPI/Event/notification/httpHosts",)), Recorder(), receiver_of()
    receiver.listening(1, tls=False)
    async with device.running():
        terminal = receiver.terminal(config(device, events="push"))
        async with receiving(terminal, record):
            await asyncio.wait_for(device.streaming.wait(), 5)
            device.swipe("1")
            await record.until(1)
        await terminal.close()


async def test_a_terminal_that_shall_be_polled_opens_no_stream() -> None:
    device, record = SimulatedIsapi(), Recorder()
    async with device.running(), connected(config(device, events="poll", poll_s=0.02)) as terminal:
        async with receiving(terminal, record):
            for number in (1, 2):
                device.swipe("1")
                await record.until(number)
        assert "alertStream" not in " ".join(device.requests)
    with pytest.raises(ValueError, match=r"options\.events"):
        IsapiTerminal(config(device, events="shout"))


async def test_trap_23_a_model_without_a_log_still_tells_what_is_live() -> None:
    device, record = SimulatedIsapi(lacks=(f"{ACCESS}/AcsEvent",)), Recorder()
    async with device.running(), connected(config(device)) as terminal, receiving(terminal, record):
        await asyncio.wait_for(device.streaming.wait(), 5)
        device.swipe("1")
        await record.until(1)
        assert Feature.PUNCHES not in (await terminal.capabilities()).features


async def test_a_model_without_a_stream_is_polled() -> None:
    device, record = SimulatedIsapi(lacks=("/ISAPI/Event/notification/alertStream",)), Recorder()
    async with device.running(), connected(config(device, poll_s=0.02)) as terminal, receiving(terminal, record):
        device.swipe("1")
        await record.until(1)
        device.swipe("2")
        await record.until(2)


async def test_one_corrupt_part_and_a_picture_do_not_end_the_stream() -> None:
    device, record = SimulatedIsapi(), Recorder()
    async with device.running(), connected(config(device)) as terminal, receiving(terminal, record):
        device.swipe("1", live=False)
        await record.until(1)
        device.heartbeat()
        device.push_photo(b"\xff\xd8picture")
        device.corrupt_next()
        device.swipe("2")
        device.swipe("3")
        await record.until(3)
        assert (terminal.counters["unreadable"], terminal.counters["photos_dropped"]) == (1, 1)
    assert set(record.numbers()) == {1, 2, 3}


async def test_a_failing_store_ends_the_driver_and_moves_no_cursor() -> None:
    device, record = SimulatedIsapi(), Recorder(fails=OSError("disk full"))
    async with device.running(), connected(config(device)) as terminal:
        device.swipe("1", live=False)
        with pytest.raises(OSError, match="disk full"):
            await asyncio.wait_for(terminal.run(record), 10)
        assert terminal._log.position.last is None


async def test_a_pulled_cable_is_a_lost_link() -> None:
    device, record = SimulatedIsapi(), Recorder()
    async with device.running(), connected(config(device)) as terminal, receiving(terminal, record) as task:
        device.swipe("1", live=False)
        await record.until(1)
        await device.go_offline()
        with pytest.raises(LinkError):
            await asyncio.wait_for(task, 10)
        await device.go_online()


async def test_people_cards_fingers_and_faces() -> None:
    device = SimulatedIsapi()
    async with device.running(), connected(config(device)) as terminal:
        assert isinstance(terminal, Terminal)
        people = [DeviceUser(str(n), name=f"王{n}", card=str(1000 + n)) for n in range(1, 41)]
        assert all(result.ok for result in await terminal.upsert_users(people))
        assert all(result.ok for result in await terminal.upsert_users(people))  # a second time changes nothing
        listed = {user.user_id: user for user in await terminal.users()}
        assert (len(listed), listed["7"].name, listed["7"].card) == (40, "王7", "1007")
        finger = DeviceTemplate("7", "fingerprint", 2, "hik-finger", b"minutiae")
        face = DeviceTemplate("7", "face", 0, "jpeg", b"\xff\xd8face\xff\xd9")
        foreign = DeviceTemplate("7", "fingerprint", 3, "zk-finger-10", b"x")
        stranger = DeviceTemplate("999", "fingerprint", 2, "hik-finger", b"x")
        results = {r.key: r for r in await terminal.put_templates([finger, face, foreign, stranger])}
        assert [results[key].ok for key in ("7/fingerprint/2", "7/face/0", "7/fingerprint/3", "999/fingerprint/2")] == [
            True, True, False, False,
        ]  # fmt: skip
        assert b"\xff\xd8face\xff\xd9" in device.faces["7"]
        assert await terminal.templates("7") == [finger]
        assert all(result.ok for result in await terminal.delete_templates("7"))
        assert await terminal.templates("7") == []
        assert device.faces == {}
        assert all(result.ok for result in await terminal.delete_users(["7"]))
        assert "7" not in device.users
        assert "1007" not in device.cards


async def test_a_full_memory_and_a_bad_number_are_reasons_of_their_own() -> None:
    device = SimulatedIsapi()
    async with device.running(), connected(config(device)) as terminal:
        await terminal.upsert_users([DeviceUser("1")])
        device.fill_memory()
        results = await terminal.upsert_users([DeviceUser("1", name="x"), DeviceUser("2"), DeviceUser("a b")])
        assert [result.ok for result in results] == [True, False, False]
        assert "noMemory" in results[1].reason


async def test_what_a_model_lacks_is_measured() -> None:
    device = SimulatedIsapi(lacks=(f"{ACCESS}/FingerPrint", f"{ACCESS}/CardInfo", f"{ACCESS}/UserInfo"))
    async with device.running(), connected(config(device)) as terminal:
        features = (await terminal.capabilities()).features
        assert features.isdisjoint({Feature.FINGER_TEMPLATES, Feature.CARDS, Feature.USERS})
        assert Feature.FACE_TEMPLATES in features
        assert (await terminal.capabilities()).doors == 2
        assert await terminal.templates("7") == []
        with pytest.raises(Unsupported):
            await terminal.users()


async def test_doors_clock_and_restart() -> None:
    device = SimulatedIsapi()
    async with device.running(), connected(config(device)) as terminal:
        assert (await terminal.open_door(1, seconds=5)).state is CommandState.DONE
        await terminal.set_door_mode(1, DoorMode.UNLOCKED)
        assert device.opened == [(1, "open"), (1, "alwaysOpen")]
        device.drift_clock(timedelta(days=3))
        assert abs(await terminal.get_time() - device.local_time()) < timedelta(seconds=3)
        await terminal.set_time(datetime(2026, 6, 19, 8))
        assert abs(await terminal.get_time() - datetime(2026, 6, 19, 8)) < timedelta(seconds=3)


async def test_a_wrong_password_waits_for_a_person() -> None:
    device = SimulatedIsapi()
    async with device.running(), connected(replace(config(device), password="wrong")) as terminal:
        with pytest.raises(AuthenticationFailed):
            await terminal.run(Recorder())
        assert device.requests == []


async def test_another_terminal_at_the_address_is_not_ours() -> None:
    device = SimulatedIsapi()
    async with device.running(), connected(replace(config(device), serial="OTHER")) as terminal:
        with pytest.raises(WrongDevice):
            await terminal.run(Recorder())


async def test_nobody_at_the_address_is_a_lost_link() -> None:
    terminal = make(DeviceConfig("lobby", "isapi", address="127.0.0.1:1", password="x"))
    with pytest.raises(LinkError):
        await terminal.probe()
    await terminal.close()


async def test_only_the_terminal_itself_is_heard() -> None:
    device, record, receiver = SimulatedIsapi(digest_push=False), Recorder(), receiver_of()
    body = {
        "eventType": "AccessControllerEvent", "eventState": "active", "dateTime": "2026-06-19T08:00:00+08:00",
        "AccessControllerEvent": {"majorEventType": 5, "subEventType": 75, "employeeNoString": "7", "serialNo": 1},
    }  # fmt: skip
    async with device.running():
        async with pushing(device, record, receiver, sweep_s=60) as terminal:
            assert terminal.inbox is not None
            path = terminal.inbox.path
            assert terminal.inbox.secret not in repr(terminal.inbox)
            transport = httpx.ASGITransport(receiver, client=("127.0.0.1", 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://agent") as http:
                assert (await http.post(path, json=body)).status_code == 200
                assert record.numbers() == [1]
                assert (await http.get(path)).status_code == 405
                assert (await http.post("/isapi/guess", json=body)).status_code == 404
                assert (await http.post(path, content=b"x" * (5 << 20))).status_code == 413
                form = {"content-type": "multipart/form-data; boundary=b"}
                cut = b"--b\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
                assert (await http.post(path, content=cut, headers=form)).status_code == 400
            other = httpx.ASGITransport(receiver, client=("192.0.2.66", 1))
            async with httpx.AsyncClient(transport=other, base_url="http://agent") as http:
                assert (await http.post(path, json=body)).status_code == 404
            assert receiver.knows("127.0.0.1")
            assert not receiver.knows("192.0.2.66")
        async with httpx.AsyncClient(transport=transport, base_url="http://agent") as http:
            assert (await http.post(path, json=body)).status_code == 404  # nobody receives any more


async def test_pushed_bodies_count_together_until_they_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    device, record, receiver = SimulatedIsapi(digest_push=False), Recorder(), receiver_of()
    entered, gate = asyncio.Event(), asyncio.Event()

    async def slowly(content_type: str, body: bytes) -> None:
        entered.set()
        await gate.wait()

    async with device.running(), pushing(device, record, receiver) as terminal:
        assert terminal.inbox is not None
        monkeypatch.setattr(terminal, "pushed", slowly)
        monkeypatch.setattr("device_drivers.isapi.receiver.MAX_BODIES_TOGETHER", 3)
        transport = httpx.ASGITransport(receiver, client=("127.0.0.1", 4000))
        async with httpx.AsyncClient(transport=transport, base_url="http://agent") as http:
            first = asyncio.create_task(http.post(terminal.inbox.path, content=b"{}"))
            await asyncio.wait_for(entered.wait(), 5)
            assert (await http.post(terminal.inbox.path, content=b"{}")).status_code == 503
            gate.set()
            assert (await first).status_code == 200
            assert (await http.post(terminal.inbox.path, content=b"{}")).status_code == 200
    assert receiver._bytes_in_flight == 0


async def test_a_body_that_never_ends_is_given_up() -> None:
    device, record = SimulatedIsapi(digest_push=False), Recorder()
    receiver = IsapiReceiver(derive=lambda use: sha256(use.encode()).digest(), body_timeout_s=0.1)
    async with device.running(), pushing(device, record, receiver) as terminal:
        assert terminal.inbox is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", terminal.inbox.port)
        writer.write(f"POST {terminal.inbox.path} HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\n\r\n{{".encode())
        assert (await asyncio.wait_for(reader.readline(), 5)).split()[1] == b"408"
        writer.close()


async def test_older_and_newer_models_are_asked_in_their_own_words() -> None:
    lacks = (f"{ACCESS}/UserInfo/SetUp", f"{ACCESS}/UserInfoDetail", "/ISAPI/Intelligent/FDLib/FDSetUp")
    for device in (SimulatedIsapi(), SimulatedIsapi(lacks=lacks)):
        async with device.running(), connected(config(device)) as terminal:
            for name in ("Ann", "Anna"):
                assert (await terminal.upsert_users([DeviceUser("7", name=name)]))[0].ok
            assert device.users["7"]["name"] == "Anna"
            assert (await terminal.put_templates([DeviceTemplate("7", "face", 0, "jpeg", b"\xff\xd8")]))[0].ok
            assert b'name="img"' in device.faces["7"]
            assert (await terminal.delete_users(["7"]))[0].ok
            assert device.users == {}  # also where deleting goes on after the answer
            assert device.faces == {}


def test_an_authority_that_cannot_be_read_is_named() -> None:
    options = {"tls": True, "ca_file": "/nowhere/ca.pem"}
    with pytest.raises(LinkError, match=r"ca_file /nowhere/ca\.pem: No such file"):
        make(DeviceConfig("lobby", "isapi", address="192.0.2.7", options=options))
