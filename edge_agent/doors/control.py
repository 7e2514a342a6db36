"""Doors: the one place that tells a relay to open, and what goes wrong at them.

Each fault is one alarm and one event: forced, held, tamper, duress, fire, security, power, link loss, too many failed
attempts. While an alarm stands, the same fault raises no second one; when it passes, the alarm is closed and may be
raised anew. Duress is silent: it shows to those allowed to see it, never at the door; each one is an event of its own.

What a device says raises its alarms first and is recorded, cursor and all, after that: a crash in between repeats the
words, and an alarm knows the event it was raised for. Words that were recorded before change nothing. A lost link
releases nothing and locks nothing: the door stays in the state its controller keeps.

Modes. An order is in force here at once, for all its doors in one transaction; controllers are told side by side, none
of them waits for another. What a controller did not confirm is told again with the next tick.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol, cast

from device_drivers import devices
from device_drivers.devices import CommandResult, CommandState, Record
from device_drivers.errors import DeviceError, LinkError
from device_drivers.events import DeviceEvent, DoorEvent, DoorEventKind, Origin
from edge_agent.attendance import event_id, key_of
from edge_agent.database import Database, utc_text
from edge_agent.delivery.event import Event, append
from edge_agent.doors.presence import Order, Presence
from edge_agent.policy.access import GRANT_LIFETIME, Granted, genuine, mode_of
from edge_agent.policy.rules import Door, DoorMode, Rules

log = logging.getLogger(__name__)

TICK_S = 10.0
MISSING_TICKS = 3  # a reconnect within half a minute is no alarm
TELL_S = 5.0  # an order's answer waits so long for controllers; the telling goes on
OPENING_GRACE = timedelta(seconds=5)  # from a release to the leaf moving: a heavy door, a slow contact report


class AlarmKind(StrEnum):
    FORCED = "forced"
    HELD = "held"
    TAMPER = "tamper"
    DURESS = "duress"
    FIRE = "fire"
    SECURITY = "security"
    POWER = "power"
    LINK = "link"
    ATTEMPTS = "attempts"  # a full row of failures at one place


RAISES = {
    DoorEventKind.FORCED: AlarmKind.FORCED,
    DoorEventKind.HELD: AlarmKind.HELD,
    DoorEventKind.TAMPER: AlarmKind.TAMPER,
    DoorEventKind.DURESS: AlarmKind.DURESS,
    DoorEventKind.FIRE: AlarmKind.FIRE,
    DoorEventKind.SECURITY: AlarmKind.SECURITY,
    DoorEventKind.POWER_LOST: AlarmKind.POWER,
    DoorEventKind.LINK_LOST: AlarmKind.LINK,
}
CLEARS: dict[DoorEventKind, frozenset[AlarmKind]] = {
    DoorEventKind.CLOSED: frozenset({AlarmKind.FORCED, AlarmKind.HELD}),
    DoorEventKind.HELD_CLEARED: frozenset({AlarmKind.HELD}),
    DoorEventKind.TAMPER_CLEARED: frozenset({AlarmKind.TAMPER}),
    DoorEventKind.POWER_RESTORED: frozenset({AlarmKind.POWER}),
    DoorEventKind.LINK_RESTORED: frozenset({AlarmKind.LINK}),
}
LETS_GO = frozenset(
    {DoorEventKind.GRANTED, DoorEventKind.BUTTON, DoorEventKind.REMOTE_OPEN, DoorEventKind.UNLOCKED, DoorEventKind.FIRE}
)
OF_THE_DOOR = frozenset({AlarmKind.FORCED, AlarmKind.HELD, AlarmKind.DURESS})
OPEN_MODES = frozenset({DoorMode.UNLOCKED, DoorMode.EVACUATION})
CONFIRMED = frozenset({CommandState.ACCEPTED, CommandState.DONE})
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


@dataclass(frozen=True, slots=True)
class Alarm:
    kind: AlarmKind
    place: str  # door or device
    raised_at: datetime
    event: str
    silent: bool = False
    number: int | None = None
    cleared_at: datetime | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str = ""


def note_alarm(connection: sqlite3.Connection, alarm: Alarm) -> bool:
    """Raise it, unless it stands already or was raised for this event before."""
    return bool(
        connection.execute(
            "INSERT INTO alarms (kind, place, raised_at, event, silent) SELECT ?, ?, ?, ?4, ?"
            " WHERE NOT EXISTS (SELECT 1 FROM alarms WHERE event = ?4) ON CONFLICT DO NOTHING",
            (alarm.kind, alarm.place, utc_text(alarm.raised_at), alarm.event, int(alarm.silent)),
        ).rowcount
    )


def raise_alarm(connection: sqlite3.Connection, alarm: Alarm, event: Event, *, now: datetime) -> bool:
    """An alarm and the event that tells of it. False if it stands already; a duress is told even then."""
    if not note_alarm(connection, alarm) and alarm.kind is not AlarmKind.DURESS:
        return False
    append(connection, [event], now=now)
    return True


def clear_alarms(connection: sqlite3.Connection, kinds: Iterable[AlarmKind], place: str, at: datetime) -> int:
    return sum(
        connection.execute(
            "UPDATE alarms SET cleared_at = ? WHERE kind = ? AND place = ? AND cleared_at IS NULL",
            (utc_text(at), kind, place),
        ).rowcount
        for kind in kinds
    )


def alarms(connection: sqlite3.Connection, *, standing: bool = True, limit: int = 200) -> list[Alarm]:
    """Newest first. `standing` leaves out those both cleared and acknowledged."""
    where = "WHERE cleared_at IS NULL OR acknowledged_at IS NULL" if standing else ""
    rows = connection.execute(
        "SELECT kind, place, raised_at, event, silent, id, cleared_at, acknowledged_at, acknowledged_by"  # noqa: S608
        f" FROM alarms {where} ORDER BY id DESC LIMIT ?",
        (limit,),
    )
    return [
        Alarm(
            AlarmKind(kind),
            place,
            datetime.fromisoformat(raised),
            event,
            bool(silent),
            number,
            datetime.fromisoformat(cleared) if cleared else None,
            datetime.fromisoformat(seen) if seen else None,
            by or "",
        )
        for kind, place, raised, event, silent, number, cleared, seen, by in rows
    ]


def acknowledge(connection: sqlite3.Connection, number: int, *, actor: str, now: datetime) -> bool:
    """Somebody has seen it. A duress alarm ends with this: nothing else ends it."""
    seen = connection.execute(
        "UPDATE alarms SET acknowledged_at = ?1, acknowledged_by = ?2,"
        " cleared_at = CASE kind WHEN 'duress' THEN coalesce(cleared_at, ?1)"
        " WHEN 'security' THEN coalesce(cleared_at, ?1) WHEN 'fire' THEN coalesce(cleared_at, ?1) ELSE cleared_at END"
        " WHERE id = ?3 AND acknowledged_at IS NULL",
        (utc_text(now), actor, number),
    )
    return bool(seen.rowcount)


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
        # By door: to which connection, which relay, which mode.
        self._told: dict[str, tuple[object, int, devices.DoorMode]] = {}
        self._telling: dict[str, asyncio.Task[None]] = {}
        self.untold: dict[str, str] = {}  # doors whose controller does not do as it should, and why
        self._missing: dict[str, int] = {}  # ticks without a connection

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
        self.presence.released(door.name, now + timedelta(seconds=door.open_s))
        try:
            result = await cast("Opener", driver).open_door(door.relay, seconds=door.open_s)
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
        await self._tell(orders)

    async def tell_mode(self, door_name: str) -> CommandResult | None:
        """Bring a controller with modes of its own to what is in force; None if it has none, is away or refuses."""
        rules = self._rules()
        door = rules.doors[door_name]
        driver = self._driver(door.device)
        if not isinstance(driver, devices.DoorController):
            return None
        mode = device_mode(door, rules, self.presence, self._now())
        left = self._told.get(door_name)
        try:
            if left is not None and left[0] is driver and left[1] != door.relay and not self._used_relay(door, left[1]):
                await driver.set_door_mode(left[1], devices.DoorMode.CONTROLLED)
            result = await driver.set_door_mode(door.relay, mode)
        except (DeviceError, ValueError) as exc:
            self._not_told(door_name, str(exc))
            return None
        if result.state in CONFIRMED:
            self._told[door_name] = (driver, door.relay, mode)
        else:
            self._told.pop(door_name, None)
        if result.state not in CONFIRMED or result.reason:
            self._not_told(door_name, result.reason or result.state)
        else:
            self.untold.pop(door_name, None)
        return result

    def _used_relay(self, door: Door, relay: int) -> bool:
        return any(each.device == door.device and each.relay == relay for each in self._rules().doors.values())

    def _not_told(self, door_name: str, why: str) -> None:
        if self.untold.get(door_name) != why:
            self.untold[door_name] = why
            log.warning("door_mode_not_told door=%s reason=%s", door_name, why)

    async def _tell(self, names: Iterable[str]) -> None:
        """Tell the controllers of these doors side by side; return when all are told, at the latest after TELL_S."""
        tasks = []
        for name in names:
            if name not in self._telling:
                self._telling[name] = self._later(self._tell_until_right(name))
            tasks.append(self._telling[name])
        if tasks:
            await asyncio.wait(tasks, timeout=TELL_S)

    async def _tell_until_right(self, door_name: str) -> None:
        """Once more if another mode was ordered while the controller was told."""
        mode: devices.DoorMode | None = None
        try:
            while (door := self._rules().doors.get(door_name)) is not None:
                wanted = device_mode(door, self._rules(), self.presence, self._now())
                if wanted is mode:
                    return
                mode = wanted
                await self.tell_mode(door_name)
        finally:
            del self._telling[door_name]

    async def tick(self) -> None:
        """Tell controllers whose scheduled mode has changed, or who came back; notice devices that are gone."""
        rules, now = self._rules(), self._now()
        untold = []
        for door in rules.doors.values():
            driver = self._driver(door.device)
            wanted = (driver, door.relay, device_mode(door, rules, self.presence, now))
            if isinstance(driver, devices.DoorController) and self._told.get(door.name) != wanted:
                untold.append(door.name)
            if door.name in self._opened_at and door.name not in self._timers:
                self._time_leaf(door, self._opened_at[door.name], now)
        await self._tell(untold)
        readers = {name for p in rules.points.values() for name in (p.reader, p.fingerprint, p.camera) if name}
        for device in readers | {door.device for door in rules.doors.values()}:
            if self._driver(device) is not None:
                if self._missing.pop(device, 0) >= MISSING_TICKS:
                    await self.link(device, up=True)
                continue
            self._missing[device] = self._missing.get(device, 0) + 1
            if self._missing[device] == MISSING_TICKS:
                await self.link(device, up=False)

    async def run(self, *, wait: Callable[[float], Awaitable[None]]) -> None:
        """`tick` until cancelled. `wait` is asyncio.sleep, or a test's."""
        while True:
            await self.tick()
            await wait(TICK_S)

    # What devices say

    def recorder(self, device: str, record: Record) -> Record:
        """`record` of one connection with the alarms in front of it, and what it means for doors behind it."""

        async def watched(events: Sequence[DeviceEvent], *, cursor: bytes | None = None) -> None:
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
            for mine in self._rules().doors.values():
                if mine.device == device:
                    self._told.pop(mine.name, None)
        live = [(door, said) for said in events if said.origin is Origin.LIVE and (door := self._door_of(device, said))]
        told = {door.name for door, said in live if said.kind is DoorEventKind.FORCED}
        for door, said in live:
            if said.kind in LETS_GO:
                self.presence.released(door.name, now + timedelta(seconds=door.open_s))
            elif said.kind in (DoorEventKind.OPENED, DoorEventKind.FORCED):
                self._leaf_opened(door, now, told=door.name in told)
            elif said.kind is DoorEventKind.CLOSED:
                self.presence.closed(door.name)
                self._opened_at.pop(door.name, None)
                if timer := self._timers.pop(door.name, None):
                    timer.cancel()
                self._later(self._passed(door.name))

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


def device_mode(door: Door, rules: Rules, presence: Presence, now: datetime) -> devices.DoorMode:
    """What a controller that knows three modes should do."""
    return DEVICE_MODES[mode_of(door, rules, presence, now)]


DEVICE_MODES: Mapping[DoorMode, devices.DoorMode] = {
    DoorMode.CONTROLLED: devices.DoorMode.CONTROLLED,
    DoorMode.OFFICE: devices.DoorMode.CONTROLLED,
    DoorMode.LOCKED: devices.DoorMode.LOCKED,
    DoorMode.LOCKDOWN: devices.DoorMode.LOCKED,
    DoorMode.UNLOCKED: devices.DoorMode.UNLOCKED,
    DoorMode.EVACUATION: devices.DoorMode.UNLOCKED,
}
