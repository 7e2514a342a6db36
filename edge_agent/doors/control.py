"""Doors: the one place that tells a relay to open, and what goes wrong at them.

Each fault is one alarm and one event: forced, held, tamper, duress, fire, security, power, link loss, too many failed
attempts. While an alarm stands, the same fault raises no second one; when it passes, the alarm is closed and may be
raised anew. Duress is silent: it shows to those allowed to see it, never at the door; each one is an event of its own.

What a device says raises its alarms first and is recorded, cursor and all, after that: a crash in between repeats the
words, and an alarm knows the event it was raised for. Words that were recorded before change nothing. A lost link
releases nothing and locks nothing: the door stays in the state its controller keeps.

An order about modes is in force here at once, for all its doors in one transaction; `controller_modes.py` tells of it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol, cast

from device_drivers.devices import CommandResult, CommandState, Record, SeesLeaves
from device_drivers.errors import DeviceError, LinkError
from device_drivers.events import DeviceEvent, DoorEvent, DoorEventKind, Origin
from edge_agent.attendance import event_id, key_of
from edge_agent.database import Database, DiskFull, utc_text
from edge_agent.delivery.event import Event, append
from edge_agent.doors.alarms import (
    CLEARS,
    OF_THE_DOOR,
    RAISES,
    Alarm,
    AlarmKind,
    clear_alarms,
    note_alarm,
    raise_alarm,
)
from edge_agent.doors.controller_modes import ControllerModes
from edge_agent.doors.presence import Order, Presence
from edge_agent.policy.access import GRANT_LIFETIME, Granted, genuine, mode_of
from edge_agent.policy.rules import Door, DoorMode, Rules

log = logging.getLogger(__name__)

TICK_S = 10.0
MISSING_TICKS = 3  # a reconnect within half a minute is no alarm
OPENING_GRACE = timedelta(seconds=5)  # from a release to the leaf moving: a heavy door, a slow contact report

LETS_GO = frozenset(
    {DoorEventKind.GRANTED, DoorEventKind.BUTTON, DoorEventKind.REMOTE_OPEN, DoorEventKind.UNLOCKED, DoorEventKind.FIRE}
)
OPEN_MODES = frozenset({DoorMode.UNLOCKED, DoorMode.EVACUATION})
BACK = frozenset({DoorEventKind.LINK_RESTORED, DoorEventKind.POWER_RESTORED})  # it may have forgotten its mode


class Opener(Protocol):
    """A driver with relays: a door controller, a terminal, or a bus of readers with outputs."""

    async def open_door(self, door: int, *, seconds: float) -> CommandResult: ...


class NotOpened(Exception):
    """A grant that opened nothing; `code` says why, for events and for people."""

    def __init__(self, door: str, code: str, message: str) -> None:
        super().__init__(f"{door}: {message}")
        self.door = door
        self.code = code


class Doors:
    """Opens on a `Granted`; keeps modes, contacts and alarms."""

    def __init__(
        self,
        database: Database,
        presence: Presence,
        *,
        rules: Callable[[], Rules],
        driver: Callable[[str], object | None],
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self.presence = presence
        self._rules = rules
        self._driver = driver  # the running driver of a device, by its configured name
        self._now = now
        self._opened_at: dict[str, datetime] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._used: dict[str, datetime] = {}  # nonces of grants, until they would be too old anyway
        self._tasks: set[asyncio.Task[None]] = set()
        self._noticed: set[str] = set()  # doors with an alarm of our own
        self.modes = ControllerModes(presence, rules=rules, driver=driver, now=now)
        self._missing: dict[str, int] = {}  # ticks without a connection
        self._leaves_of: dict[str, tuple[object, frozenset[int]]] = {}  # whose word was believed, for which doors

    # Commands

    async def open(self, granted: Granted) -> CommandResult:
        """Move the relay, once for each grant. Raises NotOpened; never tries again by itself."""
        now = self._now()
        if not genuine(granted, now):
            raise NotOpened(
                str(getattr(granted, "door", "")), "not_genuine", "this grant is stale or was not made here"
            )
        self._used = {nonce: at for nonce, at in self._used.items() if now <= at + GRANT_LIFETIME}
        if granted.nonce in self._used:
            raise NotOpened(granted.door, "used", "this grant has been used")
        self._used[granted.nonce] = granted.at
        door = self._rules().doors.get(granted.door)
        if door is None:
            raise NotOpened(granted.door, "no_such_door", "the door is no longer configured")
        driver = self._driver(door.device)
        if driver is None or not hasattr(driver, "open_door"):
            raise NotOpened(door.name, "device_offline", f"{door.device} is not connected")
        taken_back = self.presence.released(door.name, now + timedelta(seconds=door.open_s))
        try:
            return await self._let_go(cast("Opener", driver), door)
        except NotOpened:
            taken_back()
            raise

    async def _let_go(self, driver: Opener, door: Door) -> CommandResult:
        try:
            result = await driver.open_door(door.relay, seconds=door.open_s)
        except LinkError as exc:
            raise NotOpened(door.name, "device_offline", str(exc)) from exc
        except (DeviceError, ValueError) as exc:
            raise NotOpened(door.name, "device_refused", str(exc)) from exc
        if result.state is CommandState.FAILED:
            raise NotOpened(door.name, "device_refused", result.reason or "the device said no")
        return result

    async def order(self, door_name: str, order: Order | None, *, actor: str) -> None:
        """A person puts a door into a mode, or (None) gives it back to its schedule. Durable before the device is told.

        Raises KeyError for a door that is not configured.
        """
        await self.order_all({door_name: order}, actor=actor)

    async def order_all(self, orders: Mapping[str, Order | None], *, actor: str) -> None:
        """All of them in one step, as `order`."""
        now, doors = self._now(), self._rules().doors
        if unknown := orders.keys() - doors.keys():
            raise KeyError(min(unknown))
        before = {name: self.presence.order(name, now) for name in orders}
        for name, order in orders.items():
            self.presence.give_order(name, order)
        rows = [self.presence.order_row(name) for name in orders]
        events = [
            Event(
                id=f"door-mode:{name}:{utc_text(now)}",
                type="door.mode_ordered",
                occurred_at=now,
                device=doors[name].device,
                subject=None,
                data={
                    "door": name,
                    "mode": order.mode if order else "by_schedule",
                    "until": utc_text(order.until) if order and order.until else None,
                    "actor": actor,
                },
            )
            for name, order in orders.items()
        ]

        def work(connection: sqlite3.Connection) -> None:
            for row in rows:
                row(connection)
            append(connection, events, now=now)

        try:
            await self._database.write(work)
        except BaseException:
            for name, order in before.items():
                self.presence.give_order(name, order)
            raise
        await self.modes.tell(orders)

    async def tick(self) -> None:
        """Tell controllers whose scheduled mode has changed, or who came back; notice devices that are gone."""
        rules, now = self._rules(), self._now()
        for door in rules.doors.values():
            if door.name in self._opened_at and door.name not in self._timers:
                self._time_leaf(door, self._opened_at[door.name], now)
        await self.modes.tell(self.modes.owed())
        readers = {name for p in rules.points.values() for name in (p.reader, p.fingerprint, p.camera) if name}
        for device in readers | {door.device for door in rules.doors.values()}:
            missing = self._missing.get(device, 0)  # counts on once it is told: a full disk delays an alarm, no more
            if self._driver(device) is not None:
                if missing >= MISSING_TICKS:
                    await self.link(device, up=True)
                self._missing.pop(device, None)
                continue
            if missing + 1 == MISSING_TICKS:
                await self.link(device, up=False)
            self._missing[device] = missing + 1

    async def run(self, *, wait: Callable[[float], Awaitable[None]]) -> None:
        """`tick` until cancelled. `wait` is asyncio.sleep, or a test's."""
        while True:
            try:
                await self.tick()
            except DiskFull as exc:
                log.warning("link_not_recorded reason=%s", exc)
            await wait(TICK_S)

    # What devices say

    def recorder(self, device: str, record: Record) -> Record:
        """`record` of one connection with the alarms in front of it, and what it means for doors behind it."""

        async def watched(events: Sequence[DeviceEvent], *, cursor: bytes | None = None) -> None:
            self._found(device)
            said = [event for event in events if isinstance(event, DoorEvent)]
            if any(event.kind in RAISES or event.kind in CLEARS for event in said):
                now = self._now()
                await self._database.write(lambda c: self._alarms_of(c, device, said, now))
            await record(events, cursor=cursor)
            self.saw(device, said)

        return watched

    def _alarms_of(
        self, connection: sqlite3.Connection, device: str, events: Sequence[DoorEvent], now: datetime
    ) -> None:
        for said in events:
            identity = event_id(key_of(said), 1)
            if connection.execute("SELECT 1 FROM events WHERE id = ?", (identity,)).fetchone():
                continue
            door = self._door_of(device, said)
            for place in {device, door.name if door else device}:
                clear_alarms(connection, CLEARS.get(said.kind, frozenset()), place, now)
            kind = RAISES.get(said.kind)
            if kind is not None:
                place = door.name if door and kind in OF_THE_DOOR else device
                note_alarm(connection, Alarm(kind, place, now, identity, silent=kind is AlarmKind.DURESS))

    def saw(self, device: str, events: Sequence[DoorEvent]) -> None:
        """Believe what was recorded. Old events say nothing about now."""
        now = self._now()
        if any(said.kind in BACK and said.origin is Origin.LIVE for said in events):
            self.modes.forget(device)
        live = [(door, said) for said in events if said.origin is Origin.LIVE and (door := self._door_of(device, said))]
        told = {door.name for door, said in live if said.kind is DoorEventKind.FORCED}
        for door, said in live:
            if said.kind in LETS_GO:
                self.presence.released(door.name, now + timedelta(seconds=door.open_s))
            elif said.kind in (DoorEventKind.OPENED, DoorEventKind.FORCED):
                self._leaf_opened(door, now, told=door.name in told)
            elif said.kind is DoorEventKind.CLOSED:
                self._leaf_closed(door)

    async def _passed(self, door_name: str) -> None:
        """A closed leaf ends what the gateway itself noticed."""
        now = self._now()
        if door_name in self._noticed:
            self._noticed.discard(door_name)
            await self._database.write(lambda c: clear_alarms(c, CLEARS[DoorEventKind.CLOSED], door_name, now))

    async def link(self, device: str, *, up: bool) -> None:
        """Supervision's word: the link to a device was lost, or is back. Told once each way."""
        now = self._now()
        kind = DoorEventKind.LINK_RESTORED if up else DoorEventKind.LINK_LOST
        event = Event(
            id=f"link:{device}:{utc_text(now)}:{kind}",
            type=f"device.{kind}",
            occurred_at=now,
            device=device,
            subject=None,
            data={"noticed_by": "gateway"},
        )

        def work(connection: sqlite3.Connection) -> None:
            if not up:
                raise_alarm(connection, Alarm(AlarmKind.LINK, device, now, event.id), event, now=now)
            elif clear_alarms(connection, {AlarmKind.LINK}, device, now):
                append(connection, [event], now=now)

        await self._database.write(work)

    async def close(self) -> None:
        await self.modes.close()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Contacts

    def _door_of(self, device: str, said: DoorEvent) -> Door | None:
        mine = [door for door in self._rules().doors.values() if door.device == device]
        if said.door is None:
            return mine[0] if len(mine) == 1 else None
        return next((door for door in mine if door.relay == said.door), None)

    def _leaf_opened(self, door: Door, now: datetime, *, told: bool) -> None:
        expected = self.presence.open_or_released(door.name, now - OPENING_GRACE)
        mode = mode_of(door, self._rules(), self.presence, now)
        self.presence.opened(door.name)
        self._opened_at[door.name] = now
        if not told and not expected and mode not in OPEN_MODES:
            self._later(self._own_alarm(AlarmKind.FORCED, door, now))
        if old := self._timers.pop(door.name, None):
            old.cancel()
        self._time_leaf(door, now, now)

    def _leaf_closed(self, door: Door) -> None:
        self.presence.closed(door.name)
        self._opened_at.pop(door.name, None)
        if timer := self._timers.pop(door.name, None):
            timer.cancel()
        self._later(self._passed(door.name))

    def _found(self, device: str) -> None:
        """How a new connection finds the leaves, which may have moved while nobody listened: no event, hence no alarm
        but for an opening that lasts."""
        driver = self._driver(device)
        if not isinstance(driver, SeesLeaves):
            return
        before, known = self._leaves_of.get(device, (None, frozenset()))
        known = known if before is driver else frozenset()
        leaves = dict(driver.leaves)
        self._leaves_of[device] = driver, known | leaves.keys()
        for door in self._rules().doors.values():
            if door.device != device or door.relay in known or door.relay not in leaves:
                continue
            if not leaves[door.relay]:
                self._leaf_closed(door)
            elif not self.presence.is_open(door.name):
                now = self._now()
                self.presence.opened(door.name)
                self._opened_at[door.name] = now
                self._time_leaf(door, now, now)

    def _time_leaf(self, door: Door, opened_at: datetime, now: datetime) -> None:
        """An open leaf is counted from when its door has to be shut; `tick` sees when that begins."""
        if mode_of(door, self._rules(), self.presence, now) not in OPEN_MODES:
            later = asyncio.get_running_loop().call_later(door.held_s, self._held, door.name, opened_at)
            self._timers[door.name] = later  # stays until the leaf is shut: once for each opening

    def _held(self, door_name: str, opened_at: datetime) -> None:
        door = self._rules().doors.get(door_name)
        if door is None or self._opened_at.get(door_name) != opened_at:
            return
        if mode_of(door, self._rules(), self.presence, self._now()) in OPEN_MODES:
            self._timers.pop(door_name, None)
        else:
            self._later(self._own_alarm(AlarmKind.HELD, door, opened_at))

    async def _own_alarm(self, kind: AlarmKind, door: Door, opened_at: datetime) -> None:
        """Forced and held, for controllers that only report the contact."""
        now = self._now()
        self._noticed.add(door.name)
        event = Event(
            id=f"door-{kind}:{door.name}:{utc_text(opened_at)}",
            type=f"door.{kind}",
            occurred_at=now,
            device=door.device,
            subject=None,
            data={"door": door.name, "device_door": door.relay, "origin": Origin.LIVE, "noticed_by": "gateway"},
        )
        await self._database.write(lambda c: raise_alarm(c, Alarm(kind, door.name, now, event.id), event, now=now))

    def _later(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("door_alarm_not_recorded", exc_info=error)
