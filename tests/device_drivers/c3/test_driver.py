# ruff: noqa: DTZ001 - a device's clock is naive
"""The driver against the simulated panel, and the simulated panel against somebody else's client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import c3
import pytest
from c3 import consts
from c3.controldevice import ControlDeviceOutput

from device_drivers.c3.driver import C3Panel, C3Panels
from device_drivers.catalog import make
from device_drivers.devices import CommandState, DeviceConfig, DeviceUser, DoorController, DoorMode, Feature, Warns
from device_drivers.errors import AuthenticationFailed, LinkError, ProtocolError, Unsupported, WrongDevice
from device_drivers.events import DeviceEvent, DoorEvent, DoorEventKind, Origin
from device_drivers.simulated.c3 import SimulatedC3

FORMS = pytest.mark.parametrize(
    "traits",
    [{}, {"sessions": False}, {"password": "banana1"}, {"sessions": False, "password": "banana1", "text_log": True}],
    ids=["session", "plain", "password", "plain, password, text log"],
)


@dataclass
class Recorder:
    events: list[DoorEvent] = field(default_factory=list)
    cursor: bytes | None = None
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def __call__(self, events: Sequence[DeviceEvent], *, cursor: bytes | None = None) -> None:
        async with self.changed:
            self.events += [event for event in events if isinstance(event, DoorEvent)]
            self.cursor = cursor or self.cursor
            self.changed.notify_all()

    async def until(self, card: str) -> DoorEvent:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: card in {event.card for event in self.events})
        return next(event for event in self.events if event.card == card)


def config(panel: SimulatedC3) -> DeviceConfig:
    options = {"poll_s": 0.01, "answer_timeout_s": 10.0}
    return DeviceConfig("gate", "c3", address=panel.address, password=panel.password, options=options)


@contextlib.asynccontextmanager
async def driver(panel: SimulatedC3, *, cursor: bytes | None = None) -> AsyncIterator[C3Panel]:
    made = C3Panel(config(panel), cursor=cursor)
    try:
        yield made
    finally:
        await made.close()


@contextlib.asynccontextmanager
async def receiving(made: C3Panel, record: Recorder) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(made.run(record))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@FORMS
async def test_leaves_that_moved_while_nobody_listened_are_seen_on_connecting(traits: dict[str, object]) -> None:
    panel, record = SimulatedC3(**traits, door_open=True), Recorder()  # type: ignore[arg-type]
    async with panel.running(), driver(panel) as made, receiving(made, record):
        async with asyncio.timeout(10), record.changed:
            await record.changed.wait_for(lambda: bool(made.leaves))
        assert (made.leaves, record.events) == ({1: True}, [])


@FORMS
async def test_a_card_at_a_reader_arrives(traits: dict[str, object]) -> None:
    panel, record = SimulatedC3(**traits), Recorder()  # type: ignore[arg-type]
    async with panel.running(), driver(panel) as made, receiving(made, record):
        panel.swipe(1234567, pin=8)
        event = await record.until("1234567")
        panel.swipe(99, event=27)
        refused = await record.until("99")
    assert (event.kind, event.user_id, event.door) == (DoorEventKind.GRANTED, "8", 1)
    assert event.device_time is not None
    assert abs(event.device_time - panel.local_time()) < timedelta(seconds=5)
    assert refused.kind is DoorEventKind.DENIED


@pytest.mark.parametrize("text_log", [False, True])
async def test_what_happened_meanwhile_is_read_from_the_panels_table(text_log: bool) -> None:
    panel, record = SimulatedC3(text_log=text_log), Recorder()
    async with panel.running():
        for card in range(1, 61):
            panel.swipe(card)
            panel.drift_clock(timedelta(seconds=1))
        panel._log.clear()
        async with driver(panel) as made, receiving(made, record):
            await record.until("60")
        assert all(event.origin is Origin.BACKLOG for event in record.events)
        count = len(record.events)
        await panel.go_offline()
        await panel.go_online()
        panel.swipe(1000)
        panel._log.clear()
        async with driver(panel, cursor=record.cursor) as made, receiving(made, record):
            await record.until("1000")
        assert 1 <= len(record.events) - count <= 25


async def test_a_cleared_table_is_read_from_its_start() -> None:
    panel, record = SimulatedC3(), Recorder()
    async with panel.running():
        panel.swipe(5)
        async with driver(panel, cursor=b'{"row": "gone"}') as made, receiving(made, record):
            await record.until("5")
        async with driver(panel, cursor=b"\xff") as made, receiving(made, record):
            await record.until("5")


async def test_what_was_fetched_and_could_not_be_recorded_is_told_by_the_next_connection() -> None:
    panel, record, panels = SimulatedC3(), Recorder(), C3Panels()

    async def full(events: Sequence[DeviceEvent], *, cursor: bytes | None = None) -> None:
        raise OSError("disk full")

    async with panel.running():
        for card in (1, 2, 3):
            panel.swipe(card)
        panel.rows["transaction"] *= 3000  # no longer fits in one answer: the log is all there is
        for _ in range(2):
            made = panels.panel(config(panel))
            with pytest.raises(OSError, match="disk full"):
                await asyncio.wait_for(made.run(full), 10)
            await made.close()
        panel.swipe(4)
        made = panels.panel(config(panel))
        async with receiving(made, record):
            await record.until("4")
        await made.close()
        made = panels.panel(config(panel))
        async with receiving(made, record):
            panel.swipe(5)
            await record.until("5")
        await made.close()
    assert [event.card for event in record.events if event.card] == ["1", "2", "3", "4", "5"]


async def test_a_table_too_long_for_one_answer_is_warned_of_and_recorded_as_a_gap() -> None:
    panel, record = SimulatedC3(), Recorder()
    async with panel.running():
        panel.swipe(1)
        panel._log.clear()
        async with driver(panel) as made, receiving(made, record):
            await record.until("1")
            assert isinstance(made, Warns)
            assert made.warning == ""
        panel.rows["transaction"] *= 6000

        def gaps() -> list[DoorEvent]:
            return [event for event in record.events if event.kind is DoorEventKind.OTHER]

        for count in (1, 2):
            async with driver(panel, cursor=record.cursor) as made, receiving(made, record):
                async with asyncio.timeout(10), record.changed:
                    await record.changed.wait_for(lambda: len(gaps()) == count)  # noqa: B023
                assert "backlog unreadable" in made.warning
    first, second = gaps()
    assert "backlog unreadable" in first.reason
    assert first.raw != second.raw  # two gaps, not one told twice


async def test_people_and_their_doors() -> None:
    panel = SimulatedC3()
    async with panel.running(), driver(panel) as made:
        assert isinstance(made, DoorController)
        people = [DeviceUser(str(n), name=f"P{n}", card=str(5000 + n), doors=(1, 2)) for n in range(1, 121)]
        assert all(result.ok for result in await made.upsert_users(people))
        assert all(result.ok for result in await made.upsert_users(people[:3]))  # in place, not twice
        listed = {user.user_id: user for user in await made.users()}
        assert len(listed) == 120
        assert (listed["7"].card, listed["7"].doors, listed["7"].name) == ("5007", (1, 2), "P7")
        assert all(result.ok for result in await made.delete_users(["7"]))
        assert "7" not in {user.user_id for user in await made.users()}
        assert all(row["Pin"] != 7 for row in panel.rows["userauthorize"])


async def test_one_who_does_not_fit_does_not_stop_the_others() -> None:
    panel = SimulatedC3()
    async with panel.running(), driver(panel) as made:
        await made.upsert_users([DeviceUser("1")])
        panel.fill_memory()
        results = await made.upsert_users([DeviceUser("1", card="9"), DeviceUser("2"), DeviceUser("x1")])
        assert [result.ok for result in results] == [True, False, False]
        assert "no space" in results[1].reason
        assert "number" in results[2].reason


async def test_an_ok_that_changed_nothing_is_no_success() -> None:
    panel = SimulatedC3()
    async with panel.running(), driver(panel) as made:
        assert (await made.upsert_users([DeviceUser("1")]))[0].ok
        panel.deaf = True
        [kept] = await made.upsert_users([DeviceUser("2")])
        [deleted] = await made.delete_users(["1"])
    assert (kept.ok, kept.reason) == (False, "the panel did not keep it")
    assert (deleted.ok, deleted.reason) == (False, "the panel still has it")


async def test_more_people_than_one_message_holds_are_written_but_not_listed() -> None:
    panel = SimulatedC3(max_users=10_000)
    panel.rows["user"] = [{"UID": n, "Pin": n, "CardNo": n, "Name": f"Person {n}"} for n in range(1, 4001)]
    async with panel.running(), driver(panel) as made:
        with pytest.raises(Unsupported):
            await made.users()
        assert (await made.upsert_users([DeviceUser("9000")]))[0].ok
        assert "not_read_back" not in made.counters  # one column of them still fits


async def test_doors_clock_and_restart() -> None:
    panel = SimulatedC3()
    async with panel.running(), driver(panel) as made:
        assert (await made.open_door(2, seconds=5)).state is CommandState.DONE
        assert (await made.open_door(9, seconds=5)).state is CommandState.FAILED
        assert (await made.set_door_mode(1, DoorMode.UNLOCKED)).state is CommandState.DONE
        shut = await made.set_door_mode(1, DoorMode.LOCKED)
        assert (shut.state, "cannot bar" in shut.reason) == (CommandState.ACCEPTED, True)
        assert panel.opened == [(2, 5), (1, 255), (1, 0)]
        await made.set_time(datetime(2026, 6, 19, 8))
        assert abs(await made.get_time() - datetime(2026, 6, 19, 8)) < timedelta(seconds=3)
        assert (await made.reboot()).state is CommandState.DONE
        assert panel.restarts == 1


async def test_alarms_are_told_when_they_come_and_go() -> None:
    panel, record = SimulatedC3(), Recorder()
    async with panel.running(), driver(panel) as made, receiving(made, record):
        panel.raise_alarm(2, 2)
        async with asyncio.timeout(5), record.changed:
            await record.changed.wait_for(lambda: any(e.kind is DoorEventKind.HELD for e in record.events))
        panel.raise_alarm(2, 0)
        async with asyncio.timeout(5), record.changed:
            await record.changed.wait_for(lambda: any(e.kind is DoorEventKind.HELD_CLEARED for e in record.events))
    assert [event.door for event in record.events] == [2, 2]


async def test_says_what_it_can_do() -> None:
    panel = SimulatedC3()
    async with panel.running(), driver(panel) as made:
        can = await made.capabilities()
        assert {Feature.USERS, Feature.CARDS, Feature.OPEN_DOOR, Feature.PUNCHES} <= can.features
        assert (can.doors, can.max_users, can.max_records) == (2, 30_000, 100_000)


async def test_a_corrupt_answer_ends_the_connection() -> None:
    panel, record = SimulatedC3(), Recorder()
    async with panel.running(), driver(panel) as made, receiving(made, record) as task:
        panel.swipe(1)
        await record.until("1")
        panel.corrupt_next()
        with pytest.raises(ProtocolError):
            await asyncio.wait_for(task, 10)
        with pytest.raises(LinkError):
            await made.users()  # a driver lives for one connection


async def test_trap_21_a_second_client_gets_nothing_and_breaks_nothing() -> None:
    panel, record = SimulatedC3(), Recorder()
    async with panel.running(), driver(panel) as made, receiving(made, record):
        panel.swipe(1)
        await record.until("1")
        async with driver(panel) as second:
            with pytest.raises(LinkError):
                await second.probe()
        panel.swipe(2)
        await record.until("2")
        assert panel.clients == 1


async def test_trap_21_a_panel_with_another_schema_is_asked_in_its_own() -> None:
    panel = SimulatedC3(lacks=("userauthorize", "transaction", "templatev10"))
    async with panel.running(), driver(panel) as made:
        assert (await made.upsert_users([DeviceUser("1")]))[0].ok
        assert [user.user_id for user in await made.users()] == ["1"]
        assert (await made.delete_users(["1"]))[0].ok
        assert Feature.PUNCHES not in (await made.capabilities()).features
        with pytest.raises(Unsupported):
            await made.rows("transaction")


async def test_a_goodbye_frees_the_panels_only_place() -> None:
    panel = SimulatedC3()
    async with panel.running():
        for _ in range(3):
            async with driver(panel) as made:
                assert (await made.probe()).serial == panel.serial
        assert panel.clients == 3


@pytest.mark.parametrize("sessions", [True, False])
async def test_a_wrong_password_waits_for_a_person(sessions: bool) -> None:
    panel = SimulatedC3(password="right", sessions=sessions)
    async with panel.running():
        made = C3Panel(replace(config(panel), password="wrong"))
        with pytest.raises(AuthenticationFailed):
            await made.run(Recorder())
        await made.close()


async def test_another_panel_at_the_address_is_not_ours() -> None:
    panel = SimulatedC3()
    async with panel.running():
        made = C3Panel(replace(config(panel), serial="OTHER"))
        with pytest.raises(WrongDevice):
            await made.run(Recorder())
        await made.close()


async def test_nobody_at_the_address_is_a_lost_link() -> None:
    made = make(DeviceConfig("gate", "c3", address="127.0.0.1:1"))
    with pytest.raises(LinkError):
        await made.probe()


def _talk(host: str, port: int, password: str) -> dict[str, object]:
    """An outside client, as its own readme uses it."""
    client = c3.C3(host, port)
    assert client.connect(password)
    try:
        settings = client.door_settings(1)
        client.control_device(ControlDeviceOutput(1, consts.ControlOutputAddress.DOOR_OUTPUT, 3))
        logs = [*client.get_rt_log(), *client.get_rt_log(), *client.get_rt_log()]
        client.set_device_datetime(datetime(2026, 6, 19, 8))
        return {
            "serial": client.serial_number, "locks": client.nr_of_locks, "drive": settings.lock_drive_time,
            "users": client.get_device_data("user"), "events": [log for log in logs if log.is_event()],
            "states": [log for log in logs if log.is_door_alarm()],
        }  # fmt: skip
    finally:
        client.disconnect()


@FORMS
async def test_somebody_elses_client_can_talk_to_the_simulated_panel(traits: dict[str, object]) -> None:
    panel = SimulatedC3(**traits)  # type: ignore[arg-type]
    async with panel.running():
        async with driver(panel) as made:
            await made.upsert_users([DeviceUser("7", name="Ann", card="1234567")])
        panel.swipe(1234567, pin=7)
        host, port = panel.address.split(":")
        seen = await asyncio.to_thread(_talk, host, int(port), panel.password)
    assert (seen["serial"], seen["locks"], seen["drive"]) == (panel.serial, 2, 5)
    assert seen["users"] == [
        {"UID": 1, "CardNo": 1234567, "Pin": 7, "Password": "", "Group": 1, "StartTime": 0, "EndTime": 0, "Name": "Ann",
         "SuperAuthorize": 0}
    ]  # fmt: skip
    assert len(seen["events"]) >= 1  # type: ignore[arg-type]
    assert panel.opened == [(1, 3)]
    assert panel.local_time() - datetime(2026, 6, 19, 8) < timedelta(seconds=60)
