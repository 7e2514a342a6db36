"""The site's access rules as one document: schedules, zones, doors, groups, capture points.

The document is a part of the enterprise's configuration and validated as a whole; every refusal names the
field, the value and what is allowed. `Rules` is the same, bound to the site's time zone and indexed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Self
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from edge_agent.policy.anti_passback import OUTSIDE, PassbackRule
from edge_agent.policy.schedules import ALWAYS, Calendar, Name, Schedule, _Model
from templates_store.template import Modality

EVERY_TIME = "always"


class DoorMode(StrEnum):
    CONTROLLED = "controlled"
    LOCKED = "locked"
    UNLOCKED = "unlocked"
    OFFICE = "office"  # an entitled person's entry keeps it unlocked until the schedule ends
    LOCKDOWN = "lockdown"
    EVACUATION = "evacuation"


class Factor(StrEnum):
    CARD = "card"
    PIN = "pin"
    FACE = "face"
    FINGER = "finger"


BIOMETRIC = {Factor.FACE: Modality.FACE, Factor.FINGER: Modality.FINGERPRINT}
Combination = Annotated[frozenset[Factor], Field(min_length=1, max_length=4)]
Verify = Annotated[tuple[Combination, ...], Field(min_length=1, max_length=15)]
CARD_ONLY: tuple[frozenset[Factor], ...] = (frozenset({Factor.CARD}),)


class Direction(StrEnum):
    """Which way through the door, as its zones are drawn."""

    IN = "in"
    OUT = "out"


class ModeTime(_Model):
    schedule: Name
    mode: DoorMode

    @field_validator("mode")
    @classmethod
    def _scheduled_mode(cls, mode: DoorMode) -> DoorMode:
        if mode in (DoorMode.LOCKDOWN, DoorMode.EVACUATION):
            raise ValueError(
                "lockdown and evacuation are ordered by a person, never scheduled;"
                " allowed are controlled, locked, unlocked, office"
            )
        return mode


class VerifyTime(_Model):
    schedule: Name
    verify: Verify


class Zone(_Model):
    """An area behind doors."""

    name: Name
    anti_passback: PassbackRule = PassbackRule.OFF
    timed_minutes: int = Field(15, ge=1, le=1440)
    memory_hours: int = Field(16, ge=1, le=168, description="older whereabouts are forgotten")
    capacity: int | None = Field(None, ge=1, le=100_000)

    @property
    def timed(self) -> timedelta:
        return timedelta(minutes=self.timed_minutes)

    @property
    def memory(self) -> timedelta:
        return timedelta(hours=self.memory_hours)


class Door(_Model):
    """One opening: the contact that opens it, what may open it, and what lies on either side."""

    name: Name
    device: Name = Field(description="the device whose relay opens it")
    relay: int = Field(1, ge=1, le=64)
    open_s: float = Field(5.0, ge=0.5, le=300)
    held_s: float = Field(30.0, ge=1, le=3600, description="open longer than this is an alarm")
    mode: DoorMode = DoorMode.CONTROLLED
    mode_times: Annotated[tuple[ModeTime, ...], Field(max_length=16)] = ()
    verify: Verify = CARD_ONLY
    verify_times: Annotated[tuple[VerifyTime, ...], Field(max_length=16)] = ()
    challenge: bool = Field(False, description="a face counts only after an active challenge")
    zone_from: str = Field(OUTSIDE, max_length=64)
    zone_to: str = Field(OUTSIDE, max_length=64)
    interlock: Annotated[tuple[Name, ...], Field(max_length=16)] = ()
    first_card: str | None = Field(None, max_length=64, description="schedule in which nobody enters before an opener")
    two_person: bool = False
    two_person_s: float = Field(15.0, ge=2, le=120)
    attendance: bool = Field(False, description="an entry is also a punch")

    @field_validator("mode")
    @classmethod
    def _resting_mode(cls, mode: DoorMode) -> DoorMode:
        if mode in (DoorMode.LOCKDOWN, DoorMode.EVACUATION):
            raise ValueError(
                "lockdown and evacuation are ordered by a person; allowed are controlled, locked, unlocked, office"
            )
        return mode

    @model_validator(mode="after")
    def _not_its_own_interlock(self) -> Self:
        if self.name in self.interlock:
            raise ValueError(f"interlock: {self.name!r} names itself; allowed are other doors")
        return self

    def zones(self, direction: Direction) -> tuple[str, str]:
        """(origin, target)."""
        return (self.zone_from, self.zone_to) if direction is Direction.IN else (self.zone_to, self.zone_from)


class Grants(_Model):
    doors: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1000)]
    schedule: Name = EVERY_TIME


class Group(_Model):
    """Who belongs together: which doors, when."""

    name: Name
    grants: Annotated[tuple[Grants, ...], Field(max_length=1000)] = ()


class PunchDirection(StrEnum):
    """Where a punch's direction comes from."""

    KEY = "key"  # the person presses in or out
    IN = "in"
    OUT = "out"
    ALTERNATE = "alternate"  # the opposite of the person's last punch of this day


class Point(_Model):
    """A place where a person asks: readers and sensors together, with a door or as a clock without one."""

    name: Name
    door: str | None = Field(None, max_length=64)
    direction: Direction = Direction.IN
    reader: str | None = Field(None, max_length=64, description="device that reads cards and keys")
    reader_no: int = Field(1, ge=0, le=255)
    fingerprint: str | None = Field(None, max_length=64)
    camera: str | None = Field(None, max_length=64)
    close_face: bool = Field(True, description="a face close to the camera starts a session while presence is shown")
    punch: PunchDirection = PunchDirection.ALTERNATE
    verify: Verify = tuple(frozenset({factor}) for factor in (Factor.CARD, Factor.FACE, Factor.FINGER))
    session_s: float = Field(15.0, ge=2, le=120)

    @model_validator(mode="after")
    def _has_something(self) -> Self:
        if not (self.reader or self.fingerprint or self.camera):
            raise ValueError("a capture point needs a reader, a fingerprint sensor or a camera")
        return self


class AccessRules(_Model):
    calendar: Calendar = Calendar()
    schedules: dict[Name, Schedule] = Field(default_factory=dict)
    zones: Annotated[tuple[Zone, ...], Field(max_length=500)] = ()
    doors: Annotated[tuple[Door, ...], Field(max_length=500)] = ()
    groups: Annotated[tuple[Group, ...], Field(max_length=2000)] = ()
    points: Annotated[tuple[Point, ...], Field(max_length=1000)] = ()

    @model_validator(mode="after")
    def _names_lead_somewhere(self) -> Self:
        for what, names in (
            ("zones", [zone.name for zone in self.zones]),
            ("doors", [door.name for door in self.doors]),
            ("groups", [group.name for group in self.groups]),
            ("points", [point.name for point in self.points]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what}: the name {twice[0]!r} is used twice; names must be unique")
        if EVERY_TIME in self.schedules:
            raise ValueError(f"schedules.{EVERY_TIME}: this name stands for every hour of every day; choose another")
        schedules = {EVERY_TIME, *self.schedules}
        doors = {door.name for door in self.doors}
        zones = {OUTSIDE} | {zone.name for zone in self.zones}
        for door in self.doors:
            place = f"doors[{door.name}]"
            for schedule in (*(t.schedule for t in door.mode_times), *(t.schedule for t in door.verify_times)):
                _known(f"{place}.schedule", schedule, schedules)
            if door.first_card is not None:
                _known(f"{place}.first_card", door.first_card, schedules)
            for zone in (door.zone_from, door.zone_to):
                _known(f"{place}.zone", zone, zones)
            for other in door.interlock:
                _known(f"{place}.interlock", other, doors)
        for group in self.groups:
            for grants in group.grants:
                _known(f"groups[{group.name}].schedule", grants.schedule, schedules)
                for name in grants.doors:
                    _known(f"groups[{group.name}].doors", name, doors)
        for point in self.points:
            if point.door is not None:
                _known(f"points[{point.name}].door", point.door, doors)
        return self


def _known(place: str, name: str, allowed: set[str]) -> None:
    if name not in allowed:
        listed = ", ".join(sorted(allowed - {""})[:8]) or "none yet"
        raise ValueError(f"{place}: there is no {name!r}; allowed: {listed}")


class Rules:
    """`AccessRules` with the site's clock, indexed by name. Never changes: a new configuration makes a new one."""

    def __init__(self, document: AccessRules, *, zone: ZoneInfo) -> None:
        self.document = document
        self.zone = zone
        self.calendar = document.calendar
        self.schedules = {**document.schedules, EVERY_TIME: ALWAYS}
        self.zones = {item.name: item for item in document.zones}
        self.doors = {item.name: item for item in document.doors}
        self.points = {item.name: item for item in document.points}
        self._grants: dict[tuple[str, str], tuple[str, ...]] = {}
        for group in document.groups:
            for grants in group.grants:
                for door in grants.doors:
                    key = (group.name, door)
                    self._grants[key] = (*self._grants.get(key, ()), grants.schedule)
        # An interlock binds both doors, whichever of them names the other.
        self.interlocks: dict[str, frozenset[str]] = {
            door.name: frozenset(
                {*door.interlock, *(other.name for other in document.doors if door.name in other.interlock)}
            )
            for door in document.doors
        }

    def during(self, schedule: str, now: datetime) -> bool:
        return self.schedules[schedule].contains(now, zone=self.zone, calendar=self.calendar)

    def interval(self, schedule: str, now: datetime) -> tuple[datetime, datetime] | None:
        return self.schedules[schedule].interval_at(now, zone=self.zone, calendar=self.calendar)

    def privileges(self, groups: frozenset[str], door: str) -> list[str]:
        """Schedules under which any of `groups` may use `door`."""
        return [name for group in groups for name in self._grants.get((group, door), ())]

    def scheduled_mode(self, door: Door, now: datetime) -> DoorMode:
        """The mode without anybody's order: the first time that runs, else the door's own."""
        for time in door.mode_times:
            if self.during(time.schedule, now):
                return time.mode
        return door.mode

    def office_until(self, door: Door, now: datetime) -> datetime | None:
        """End of the office hours that run now."""
        for time in door.mode_times:
            if time.mode is DoorMode.OFFICE and (running := self.interval(time.schedule, now)):
                return running[1]
        return None

    def verify(self, door: Door, now: datetime) -> tuple[frozenset[Factor], ...]:
        """The combinations of factors that open `door` now."""
        for time in door.verify_times:
            if self.during(time.schedule, now):
                return time.verify
        return door.verify
