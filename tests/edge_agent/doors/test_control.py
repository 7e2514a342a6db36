from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from device_drivers import devices
from device_drivers.devices import CommandResult, CommandState
from device_drivers.errors import DeviceRefused
from device_drivers.events import DeviceEvent, DoorEvent, DoorEventKind, Origin
from edge_agent.attendance import Attendance, Source
from edge_agent.delivery.event import Event
from edge_agent.doors import controller_modes
from edge_agent.doors.alarms import Alarm, AlarmKind, acknowledge, alarms, raise_alarm
from edge_agent.doors.control import MISSING_TICKS, NotOpened
from edge_agent.doors.presence import Order, Presence
from edge_agent.policy.access import GRANT_LIFETIME, Granted, Person, Request, decide
from edge_agent.policy.rules import Direction, DoorMode, Factor
from templates_store.template import SubjectId
from tests.flows.site import LINK_GONE, RULES, START, Panel, Site, Terminal, site

ASK = Request("front", Direction.IN, Person(SubjectId("ann"), frozenset({"staff"})), frozenset({Factor.CARD}))


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as running:
        yield running


def granted(s: Site) -> Granted:
    found = decide(ASK, s.rules, s.presence, s.clock.now())
    assert isinstance(found, Granted)
    return found


def said(kind: DoorEventKind, *, door: int | None = 1, number: int | None = None, **more: Any) -> DoorEvent:
    return DoorEvent("P1", kind, door=door, record_no=number, device_time=START.replace(tzinfo=None), **more)


async def tell(s: Site, *events: DeviceEvent) -> None:
    attendance = Attendance(s.database, s.roster, clock=s.clock.now)
    attendance.configure([Source("panel")])
    await s.doors.recorder("panel", attendance.recorder("panel"))(list(events), cursor=None)


async def standing(s: Site) -> list[tuple[str, str]]:
    found = await s.database.read(alarms)
    return [(alarm.kind.value, alarm.place) for alarm in found if alarm.cleared_at is None]


async def settle(s: Site) -> None:
    while under_way := [*s.doors._tasks, *s.doors.modes._telling.values()]:
        await asyncio.gather(*under_way)


async def test_a_grant_opens_once(s: Site) -> None:
    grant = granted(s)
    await s.doors.open(grant)
    with pytest.raises(NotOpened, match="has been used"):
        await s.doors.open(grant)
    assert s.panel.opened == [(1, 5.0)]


async def test_a_stale_or_foreign_grant_opens_nothing(s: Site) -> None:
    grant = granted(s)
    s.clock.move(seconds=GRANT_LIFETIME.total_seconds() + 1)
    for thing in (grant, object(), None):
        with pytest.raises(NotOpened) as refused:
            await s.doors.open(thing)  # type: ignore[arg-type]
        assert refused.value.code == "not_genuine"
    assert s.panel.opened == []


@pytest.mark.parametrize(("failure", "code"), [(LINK_GONE, "device_offline"), (DeviceRefused("no"), "device_refused")])
async def test_a_device_that_fails_is_named_and_not_asked_again(s: Site, failure: Exception, code: str) -> None:
    s.panel.fails = failure
    with pytest.raises(NotOpened) as refused:
        await s.doors.open(granted(s))
    assert refused.value.code == code
    s.panel.fails = None
    assert s.panel.opened == []


async def test_a_door_without_a_connection_stays_shut(s: Site) -> None:
    del s.devices["panel"]
    with pytest.raises(NotOpened) as refused:
        await s.doors.open(granted(s))
    assert refused.value.code == "device_offline"


@pytest.mark.parametrize(
    ("kind", "alarm", "place", "silent"),
    [
        (DoorEventKind.FORCED, "forced", "front", False),
        (DoorEventKind.HELD, "held", "front", False),
        (DoorEventKind.DURESS, "duress", "front", True),
        (DoorEventKind.TAMPER, "tamper", "panel", False),
        (DoorEventKind.FIRE, "fire", "panel", False),
        (DoorEventKind.SECURITY, "security", "panel", False),
        (DoorEventKind.POWER_LOST, "power", "panel", False),
        (DoorEventKind.LINK_LOST, "link", "panel", False),
    ],
)
async def test_each_fault_is_one_alarm_and_one_event(
    s: Site, kind: DoorEventKind, alarm: str, place: str, silent: bool
) -> None:
    first = said(kind, number=1)
    await tell(s, first)
    await tell(s, first)  # told again after a lost acknowledgement
    await settle(s)
    [found] = await s.database.read(alarms)
    assert (found.kind.value, found.place, found.silent) == (alarm, place, silent)
    [event] = await s.events(f"door.{kind}")
    assert found.event == event.event.id


async def test_an_alarm_that_stands_is_not_raised_again_and_one_that_passed_is(s: Site) -> None:
    await tell(s, said(DoorEventKind.HELD, number=1), said(DoorEventKind.HELD, number=2))
    assert len(await s.database.read(alarms)) == 1
    await tell(s, said(DoorEventKind.CLOSED, number=3))
    assert await standing(s) == []
    await tell(s, said(DoorEventKind.HELD, number=4))
    assert await standing(s) == [("held", "front")]


async def test_old_words_told_again_neither_raise_nor_clear(s: Site) -> None:
    old = [said(DoorEventKind.HELD, number=1), said(DoorEventKind.CLOSED, number=2)]
    await tell(s, *old)
    await tell(s, said(DoorEventKind.HELD, number=3))
    await tell(s, *old)
    assert await standing(s) == [("held", "front")]
    assert len(await s.database.read(alarms)) == 2


async def test_a_door_that_opens_without_a_grant_is_forced(s: Site) -> None:
    await tell(s, said(DoorEventKind.OPENED, number=1))
    await settle(s)
    assert await standing(s) == [("forced", "front")]
    await tell(s, said(DoorEventKind.CLOSED, number=2))
    await settle(s)
    assert await standing(s) == []


@pytest.mark.parametrize(
    "before",
    [DoorEventKind.GRANTED, DoorEventKind.BUTTON, DoorEventKind.REMOTE_OPEN],
)
async def test_a_door_that_its_controller_let_go_is_not_forced(s: Site, before: DoorEventKind) -> None:
    await tell(s, said(before, number=1))
    await tell(s, said(DoorEventKind.OPENED, number=2))
    await settle(s)
    assert await standing(s) == []


async def test_leaving_by_button_never_asks_the_agent(s: Site) -> None:
    await s.doors.order("front", Order(DoorMode.LOCKDOWN, None, "li"), actor="li")
    await tell(s, said(DoorEventKind.BUTTON, number=1), said(DoorEventKind.OPENED, number=2))
    await settle(s)
    assert await standing(s) == []
    assert await s.events("access.") == []


async def test_a_door_opened_on_a_grant_is_not_forced_and_held_when_it_stays_open(s: Site) -> None:
    s.set_rules({**RULES, "doors": [{**RULES["doors"][0], "held_s": 1}]})
    await s.doors.open(granted(s))
    await tell(s, said(DoorEventKind.OPENED, number=1))
    assert await standing(s) == []
    loop = asyncio.get_running_loop()
    handle = s.doors._timers["front"]
    assert handle.when() - loop.time() <= 1.0
    s.doors._held("front", s.clock.now())  # the timer, without waiting for it
    await settle(s)
    assert await standing(s) == [("held", "front")]
    assert len(await s.events("door.held")) == 1


class ContactPanel(Panel):
    """Says how its leaves stand when it is connected."""

    def __init__(self, leaves: dict[int, bool]) -> None:
        super().__init__()
        self.leaves = leaves


async def test_a_connection_finds_a_leaf_open_that_opened_while_nobody_listened(s: Site) -> None:
    s.devices["panel"] = ContactPanel({1: True})
    await tell(s)
    assert s.presence.is_open("front")
    assert s.presence.open_or_released("front", s.clock.now())
    await settle(s)
    assert (await standing(s), await s.events("door.")) == ([], [])  # nobody saw it happen
    s.doors._held("front", s.doors._opened_at["front"])  # the timer, without waiting for it
    await settle(s)
    assert await standing(s) == [("held", "front")]
    await tell(s, said(DoorEventKind.CLOSED, number=1))
    await tell(s)
    assert not s.presence.is_open("front")  # what one connection found is believed once
    await tell(s, said(DoorEventKind.OPENED, number=2))
    s.devices["panel"] = ContactPanel({1: False})
    await tell(s)
    assert not s.presence.is_open("front")
    assert "front" not in s.doors._timers


async def test_events_read_from_a_log_say_nothing_about_now(s: Site) -> None:
    await tell(s, said(DoorEventKind.OPENED, number=1, origin=Origin.BACKLOG))
    await settle(s)
    assert not s.presence.is_open("front")
    assert await standing(s) == []


async def test_a_lost_link_is_told_once_each_way_and_releases_nothing(s: Site) -> None:
    panel = s.devices.pop("panel")
    for _ in range(MISSING_TICKS + 3):
        await s.doors.tick()
    assert await standing(s) == [("link", "panel")]
    assert len(await s.events("device.link_lost")) == 1
    s.devices["panel"] = panel
    await s.doors.tick()
    await s.doors.tick()
    assert await standing(s) == []
    assert len(await s.events("device.link_restored")) == 1
    assert panel.opened == []
    assert {mode for _, mode in panel.modes} == {devices.DoorMode.CONTROLLED}


async def test_a_link_lost_while_the_disk_is_full_is_told_when_there_is_room(
    s: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    del s.devices["panel"]
    ticks = 0

    async def turn(seconds: float) -> None:
        nonlocal ticks
        ticks += 1
        if ticks == MISSING_TICKS + 2:
            assert await s.events("device.") == []
            monkeypatch.undo()
        elif ticks == MISSING_TICKS + 3:
            running.cancel()
        await asyncio.sleep(0)

    monkeypatch.setattr(s.database.ballast, "high_water", 1 << 50)
    running = asyncio.create_task(s.doors.run(wait=turn))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await standing(s) == [("link", "panel")]
    assert len(await s.events("device.link_lost")) == 1


async def test_a_short_interruption_is_no_alarm(s: Site) -> None:
    panel = s.devices.pop("panel")
    for _ in range(MISSING_TICKS - 1):
        await s.doors.tick()
    s.devices["panel"] = panel
    await s.doors.tick()
    assert await s.events("device.") == []


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        (DoorMode.LOCKDOWN, devices.DoorMode.LOCKED),
        (DoorMode.LOCKED, devices.DoorMode.LOCKED),
        (DoorMode.UNLOCKED, devices.DoorMode.UNLOCKED),
        (DoorMode.EVACUATION, devices.DoorMode.UNLOCKED),
        (DoorMode.OFFICE, devices.DoorMode.CONTROLLED),
    ],
)
async def test_an_order_is_durable_and_told_to_the_controller(s: Site, mode: DoorMode, told: devices.DoorMode) -> None:
    until = s.clock.now() + timedelta(hours=1)
    await s.doors.order("front", Order(mode, until, "li"), actor="li")
    assert s.panel.modes == [(1, told)]
    again = await s.database.read(Presence.load)
    assert again.order("front", s.clock.now()) == Order(mode, until, "li")
    assert again.order("front", until) is None
    [event] = await s.events("door.mode_ordered")
    assert event.event.data["actor"] == "li"


async def test_an_order_that_ends_or_a_schedule_that_changes_is_told_with_the_next_tick(s: Site) -> None:
    s.set_rules({**RULES, "doors": [{**RULES["doors"][0], "mode_times": [{"schedule": "hours", "mode": "unlocked"}]}]})
    await s.doors.tick()
    await s.doors.tick()
    s.clock.move(hours=8)  # 18:00
    await s.doors.tick()
    assert [mode for _, mode in s.panel.modes] == [devices.DoorMode.UNLOCKED, devices.DoorMode.CONTROLLED]


async def test_an_order_for_an_unknown_door_is_refused(s: Site) -> None:
    with pytest.raises(KeyError):
        await s.doors.order("roof", None, actor="li")


async def test_acknowledging_ends_a_duress_alarm_and_leaves_a_tamper_standing(s: Site) -> None:
    await tell(s, said(DoorEventKind.DURESS, number=1), said(DoorEventKind.TAMPER, number=2))
    found = {alarm.kind: alarm.number for alarm in await s.database.read(alarms)}
    for number in found.values():
        assert number is not None
        assert await s.database.write(lambda c, n=number: acknowledge(c, n, actor="li", now=START))
        assert not await s.database.write(lambda c, n=number: acknowledge(c, n, actor="wu", now=START))
    assert await standing(s) == [(AlarmKind.TAMPER.value, "panel")]


async def test_a_relay_that_says_no_is_a_refusal(s: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no(door: int, *, seconds: float) -> CommandResult:
        return CommandResult(CommandState.FAILED, "jammed")

    monkeypatch.setattr(s.panel, "open_door", no)
    with pytest.raises(NotOpened, match="jammed"):
        await s.doors.open(granted(s))


TWO_DOORS = {**RULES, "doors": [*RULES["doors"], {"name": "yard", "device": "far", "relay": 2, "verify": [["card"]]}]}


class SilentPanel(Panel):
    """Hears, and does not answer until it is let go."""

    def __init__(self) -> None:
        super().__init__("far")
        self.answers = asyncio.Event()

    async def set_door_mode(self, door: int, mode: devices.DoorMode) -> CommandResult:
        await self.answers.wait()
        return await super().set_door_mode(door, mode)


async def test_a_silent_controller_keeps_no_other_door_from_its_order(s: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller_modes, "TELL_S", 0.01)
    far = SilentPanel()
    s.devices["far"] = far
    s.set_rules(TWO_DOORS)
    lockdown = Order(DoorMode.LOCKDOWN, None, "li")
    await s.doors.order_all({"yard": lockdown, "front": lockdown}, actor="li")
    assert s.panel.modes == [(1, devices.DoorMode.LOCKED)]
    again = await s.database.read(Presence.load)
    assert again.order("yard", s.clock.now()) == lockdown, "in force here before its controller answers"
    await s.doors.order("yard", None, actor="li")
    far.answers.set()
    await settle(s)
    assert far.modes == [(2, devices.DoorMode.LOCKED), (2, devices.DoorMode.CONTROLLED)]


async def test_a_relay_that_is_not_there_is_one_doors_trouble_alone(s: Site) -> None:
    far = Panel("far")
    far.fails = DeviceRefused("no door 2 on this controller")
    s.devices["far"] = far
    s.set_rules(TWO_DOORS)
    await s.doors.tick()
    assert s.panel.modes == [(1, devices.DoorMode.CONTROLLED)]
    assert s.doors.modes.untold == {"yard": "no door 2 on this controller"}
    far.fails = None
    await s.doors.tick()
    assert s.doors.modes.untold == {}


async def test_a_terminal_without_modes_is_said_not_to_do_what_was_ordered(s: Site) -> None:
    s.devices["panel"] = Terminal("panel")
    await s.doors.tick()
    assert s.doors.modes.untold == {}  # as it is by itself
    await s.doors.order("front", Order(DoorMode.LOCKDOWN, None, "li"), actor="li")
    assert "goes on opening to the people in its own memory" in s.doors.modes.untold["front"]
    await s.doors.order("front", Order(DoorMode.EVACUATION, None, "li"), actor="li")
    assert "not held open" in s.doors.modes.untold["front"]
    await s.doors.order("front", None, actor="li")
    assert s.doors.modes.untold == {}


@pytest.mark.parametrize("state", [CommandState.UNKNOWN, CommandState.FAILED])
async def test_a_mode_that_was_not_confirmed_is_told_again(
    s: Site, state: CommandState, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unsure(door: int, mode: devices.DoorMode) -> CommandResult:
        return CommandResult(state)

    with monkeypatch.context() as patch:
        patch.setattr(s.panel, "set_door_mode", unsure)
        await s.doors.tick()
    assert s.doors.modes.untold == {"front": state}
    await s.doors.tick()
    assert s.panel.modes == [(1, devices.DoorMode.CONTROLLED)]
    await s.doors.tick()
    assert len(s.panel.modes) == 1


async def test_a_mode_whose_confirmation_was_lost_is_taken_back_when_its_order_ends(
    s: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await s.doors.tick()
    does = s.panel.set_door_mode

    async def unheard(door: int, mode: devices.DoorMode) -> CommandResult:
        await does(door, mode)
        raise LINK_GONE

    with monkeypatch.context() as patch:
        patch.setattr(s.panel, "set_door_mode", unheard)
        order = Order(DoorMode.UNLOCKED, s.clock.now() + timedelta(seconds=5), "li")
        await s.doors.order("front", order, actor="li")
    s.clock.move(seconds=6)
    await s.doors.tick()
    assert [mode for _, mode in s.panel.modes[-2:]] == [devices.DoorMode.UNLOCKED, devices.DoorMode.CONTROLLED]


@pytest.mark.parametrize("kind", [DoorEventKind.LINK_RESTORED, DoorEventKind.POWER_RESTORED])
async def test_what_came_back_is_told_its_mode_again(s: Site, kind: DoorEventKind) -> None:
    await s.doors.tick()
    await tell(s, said(kind, number=1))
    await s.doors.tick()
    assert s.panel.modes == [(1, devices.DoorMode.CONTROLLED)] * 2


async def test_a_door_that_moves_to_another_relay_takes_its_mode_along(s: Site) -> None:
    await s.doors.order("front", Order(DoorMode.LOCKDOWN, None, "li"), actor="li")
    s.set_rules({**RULES, "doors": [{**RULES["doors"][0], "relay": 3}]})
    await s.doors.tick()
    assert s.panel.modes == [
        (1, devices.DoorMode.LOCKED),
        (1, devices.DoorMode.CONTROLLED),
        (3, devices.DoorMode.LOCKED),
    ]


async def test_every_duress_is_told_while_the_first_one_stands(s: Site) -> None:
    def work(connection: sqlite3.Connection, name: str) -> bool:
        event = Event(name, "door.duress", START, "panel", None, {})
        return raise_alarm(connection, Alarm(AlarmKind.DURESS, "front", START, name, silent=True), event, now=START)

    assert await s.database.write(lambda c: [work(c, "first"), work(c, "second")]) == [True, True]
    assert [stored.event.id for stored in await s.events("door.duress")] == ["first", "second"]
    assert await standing(s) == [("duress", "front")]


async def test_a_leaf_that_opened_and_shut_in_one_breath_leaves_no_alarm_standing(s: Site) -> None:
    for number in (1, 3):
        await tell(s, said(DoorEventKind.OPENED, number=number), said(DoorEventKind.CLOSED, number=number + 1))
        await settle(s)
        assert await standing(s) == []
        s.clock.move(hours=1)
    assert len(await s.events("door.forced")) == 2


async def test_a_door_still_open_when_its_unlocked_hours_end_is_held(s: Site) -> None:
    s.set_rules({**RULES, "doors": [{**RULES["doors"][0], "mode_times": [{"schedule": "hours", "mode": "unlocked"}]}]})
    await tell(s, said(DoorEventKind.OPENED, number=1))
    await s.doors.tick()
    assert s.doors._timers == {}
    s.clock.move(hours=8)  # 18:00
    await s.doors.tick()
    first = s.doors._timers["front"]
    s.doors._held("front", s.doors._opened_at["front"])  # the timer, without waiting for it
    await settle(s)
    await s.doors.tick()
    assert s.doors._timers["front"] is first, "one timer for one opening"
    assert await standing(s) == [("held", "front")]
