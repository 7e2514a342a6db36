"""Doors: how each stands and why, opening one, orders over the schedule, alarms."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field, RootModel

from edge_agent.api.access import Caller, require
from edge_agent.api.context import Context, ExpectedVersion, Gateway, Running, etag, tag_of, unchanged
from edge_agent.api.idempotency import Once
from edge_agent.api.problems import Body, Problem, responses
from edge_agent.api.two_people import HELD, Act
from edge_agent.audit import Entry
from edge_agent.doors.alarms import acknowledge, alarms
from edge_agent.doors.control import NotOpened
from edge_agent.doors.presence import Order
from edge_agent.policy.access import Denied, mode_of
from edge_agent.policy.roles import Scope
from edge_agent.policy.rules import Door, DoorMode
from edge_agent.policy.two_people import ActKind

router = APIRouter(prefix="/api/v1", tags=["doors"])
Reader = Annotated[Caller, Depends(require(Scope.DOORS_READ))]
Opener = Annotated[Caller, Depends(require(Scope.DOORS_OPEN))]
Writer = Annotated[Caller, Depends(require(Scope.DOORS_WRITE))]


class DoorView(BaseModel):
    name: str
    device: str
    relay: int
    online: bool
    mode: DoorMode
    ordered_by: str
    ordered_until: datetime | None
    open: bool
    zone_to: str
    not_told: str = Field("", description="why the controller is not in this mode; it is told again and again")


class DoorList(RootModel[list[DoorView]]):
    """Every door."""


class Opened(BaseModel):
    state: str = Field(examples=["done"])
    reason: str = ""
    seconds: float = 0


class NewOrder(Body):
    mode: Literal["controlled", "locked", "unlocked", "lockdown", "evacuation", "schedule"]
    minutes: float | None = Field(None, gt=0, le=24 * 60, description="then back to the schedule")


class AlarmView(BaseModel):
    number: int
    kind: str
    place: str
    raised_at: datetime
    cleared_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str


def door_views(running: Gateway) -> list[DoorView]:
    rules, now, presence = running.rules(), running.governance.now(), running.doors.presence
    views = []
    for door in rules.doors.values():
        order = presence.order(door.name, now)
        views.append(
            DoorView(
                name=door.name,
                device=door.device,
                relay=door.relay,
                online=running.fleet.driver(door.device) is not None,
                mode=mode_of(door, rules, presence, now),
                ordered_by=order.actor if order else "",
                ordered_until=order.until if order else None,
                open=presence.is_open(door.name),
                not_told=running.doors.modes.untold.get(door.name, ""),
                zone_to=door.zone_to,
            )
        )
    return views


def alarm_views(connection: sqlite3.Connection, *, duress: bool) -> list[AlarmView]:
    """Standing alarms; a duress shows only to those who may act on it."""
    return [
        AlarmView(
            number=alarm.number or 0,
            kind=alarm.kind.value,
            place=alarm.place,
            raised_at=alarm.raised_at,
            cleared_at=alarm.cleared_at,
            acknowledged_at=alarm.acknowledged_at,
            acknowledged_by=alarm.acknowledged_by,
        )
        for alarm in alarms(connection)
        if duress or not alarm.silent
    ]


@router.get("/doors")
async def list_doors(caller: Reader, running: Running) -> list[DoorView]:
    return door_views(running)


class Everywhere(BaseModel):
    """Every door."""

    lockdown: bool


async def _everywhere(running: Gateway, asked: Everywhere, actor: str) -> DoorList:
    now, presence = running.governance.now(), running.doors.presence
    orders: dict[str, Order | None] = {}
    for name in running.rules().doors:
        if asked.lockdown:
            orders[name] = Order(DoorMode.LOCKDOWN, None, actor)
        elif (order := presence.order(name, now)) is not None and order.mode is DoorMode.LOCKDOWN:
            orders[name] = None
    await running.doors.order_all(orders, actor=actor)
    action = "doors.lockdown" if asked.lockdown else "doors.lockdown.lift"
    await running.governance.note(Entry(actor=actor, action=action))
    return DoorList(door_views(running))


class OneDoor(BaseModel):
    door: str


async def _open(running: Gateway, asked: OneDoor, actor: str) -> Opened:
    door = _door(running, asked.door)
    try:
        decision = await running.conclusion.open_remotely(asked.door, actor=actor)
    except NotOpened as exc:
        return Opened(state="failed", reason=str(exc))
    if isinstance(decision, Denied):
        return Opened(state="denied", reason=decision.reason.value)
    return Opened(state="done", seconds=door.open_s)


class Ordered(NewOrder):
    door: str


async def _order(running: Gateway, asked: Ordered, actor: str) -> DoorView:
    _door(running, asked.door)
    order = None
    if asked.mode != "schedule":
        until = running.governance.now() + timedelta(minutes=asked.minutes) if asked.minutes else None
        order = Order(DoorMode(asked.mode), until, actor)
    await running.doors.order(asked.door, order, actor=actor)
    await running.governance.note(
        Entry(actor=actor, action="door.mode", object=asked.door, details={"mode": asked.mode})
    )
    return next(view for view in door_views(running) if view.name == asked.door)


EVERYWHERE = Act("doors.lockdown", Scope.DOORS_WRITE, Everywhere, DoorList, _everywhere)
OPEN = Act("door.open", Scope.DOORS_OPEN, OneDoor, Opened, _open)
ORDER = Act("door.mode", Scope.DOORS_WRITE, Ordered, DoorView, _order)


@router.post("/doors/lockdown", responses=HELD | responses(422))
async def lock_down(caller: Writer, running: Running) -> DoorList:
    """Every door, now. Leaving stays possible: exit buttons and push bars do not pass through here."""
    return await EVERYWHERE.ask(running, Everywhere(lockdown=True), caller, ActKind.LOCKDOWN)


@router.post("/doors/lockdown/lift", responses=HELD)
async def lift_lockdown(caller: Writer, running: Running) -> DoorList:
    """Doors under lockdown go back to their schedules; other orders stay."""
    return await EVERYWHERE.ask(running, Everywhere(lockdown=False), caller, ActKind.LOCKDOWN)


@router.post("/doors/{name}/open", responses=HELD | responses(404, 409, 422))
async def open_door(name: str, caller: Opener, running: Running, once: Once) -> Opened:
    """Open once. Never repeated by itself: send the same Idempotency-Key when the answer was lost."""
    _door(running, name)
    return await OPEN.ask(running, OneDoor(door=name), caller, ActKind.DOOR_OPEN, once)


def _order_of(running: Gateway, name: str) -> tuple[str, str, str]:
    """What a change of the mode is based on: the order in force, not whether the leaf stands open."""
    order = running.doors.presence.order(name, running.governance.now())
    return (order.mode, order.actor, str(order.until)) if order else ("", "", "")


def door_etag(running: Gateway, name: str) -> str:
    return etag(tag_of(_order_of(running, name)))


@router.get("/doors/{name}", responses=responses(404))
async def read_door(name: str, caller: Reader, running: Running, response: Response) -> DoorView:
    """One door; the ETag is that of the order in force."""
    _door(running, name)
    response.headers["ETag"] = door_etag(running, name)
    return next(view for view in door_views(running) if view.name == name)


@router.put("/doors/{name}/mode", responses=HELD | responses(404, 412, 422, 428))
async def order_mode(
    name: str, body: NewOrder, caller: Writer, context: Context, running: Running, expected: ExpectedVersion
) -> DoorView:
    """Put a door into a mode over its schedule, or give it back."""
    _door(running, name)
    unchanged("this door's mode", _order_of(running, name), expected)
    standing = running.doors.presence.order(name, context.now())
    kind = None
    if body.mode == "lockdown" or (standing is not None and standing.mode is DoorMode.LOCKDOWN):
        kind = ActKind.LOCKDOWN
    elif body.mode in {"unlocked", "evacuation"}:
        kind = ActKind.DOOR_OPEN
    return await ORDER.ask(running, Ordered(door=name, **body.model_dump()), caller, kind)


@router.get("/alarms")
async def list_alarms(caller: Reader, context: Context) -> list[AlarmView]:
    duress = caller.may(Scope.DOORS_OPEN)
    return await context.database.read(lambda c: alarm_views(c, duress=duress))


@router.post("/alarms/{number}/acknowledge", status_code=204, responses=responses(404, 422))
async def acknowledge_alarm(number: int, caller: Opener, context: Context) -> None:
    """Somebody has seen it."""
    if not 0 < number < 2**62:
        raise Problem(404, f"no alarm {number} waits", code="unknown")

    def work(connection: sqlite3.Connection) -> None:
        if not acknowledge(connection, number, actor=caller.name, now=context.now()):
            raise Problem(404, f"no alarm {number} waits", code="unknown")

    await context.act(caller.name, Entry(actor=caller.name, action="alarm.acknowledge", object=str(number)), work)


def _door(running: Gateway, name: str) -> Door:
    try:
        return running.rules().doors[name]
    except KeyError:
        raise Problem(404, f"there is no door {name[:64]!r}", code="unknown") from None
