"""Which acts take two people: one asks, another decides, within a time limit.

The enterprise names them. Taking one off the list again is itself an act of two people, or the list would
protect nothing. Withdrawing consent is never on it: a withdrawal has to work at once. Nor may the configuration do
alone what the list holds for two: let doors stand open, take doors away from a lockdown, shorten how long templates
are kept (`loosened`).

Two accounts are two people only if no one person could be both. Whoever made an account, or last reset its password
or second factor, once held its credentials and could have signed in as it and chosen "its own" password: so these
hands stay with the account until other hands reset it. Where one administrator made all accounts, one of them has to
be made or reset by somebody else: another administrator who is not in the same hands, the identity provider, or the
gateway's own command line (`edge-agent accounts reset`), which only those can use who could write the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_serializer

from edge_agent.policy.rules import AccessRules, Door, DoorMode


class ActKind(StrEnum):
    DOOR_OPEN = "door_open"  # and every order that lets people through
    LOCKDOWN = "lockdown"  # ordering and lifting
    ERASURE = "erasure"
    EXPORT = "export"
    DISCLOSURE = "disclosure"  # to an authority, on a legal reference
    KEY_ROTATION = "key_rotation"
    DECOMMISSION = "decommission"


class TwoPeople(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    acts: Annotated[frozenset[ActKind], Field(max_length=len(ActKind))] = frozenset({ActKind.DISCLOSURE})
    minutes: int = Field(60, ge=1, le=7 * 24 * 60, description="an act that nobody decided by then falls away")

    @field_serializer("acts")
    def _in_order(self, acts: frozenset[ActKind]) -> list[ActKind]:
        return sorted(acts)  # the same rules read the same, whatever order a set has today

    @property
    def lifetime(self) -> timedelta:
        return timedelta(minutes=self.minutes)

    def weakened_by(self, other: TwoPeople) -> frozenset[ActKind]:
        """What one person could do alone under `other` and cannot now."""
        return self.acts - other.acts


class Loosened(BaseModel):
    """What a configuration would do that takes two people as an act."""

    doors: dict[str, str] = Field({}, description="doors that would stand open at other times, and how")
    gone: list[str] = Field([], description="doors that would be taken away or wired otherwise")
    templates_days: int | None = Field(None, description="older templates would be erased; 0: all, no period is left")

    def kinds(self) -> frozenset[ActKind]:
        found = {ActKind.DOOR_OPEN, ActKind.LOCKDOWN} if self.doors else set()
        found |= {ActKind.LOCKDOWN} if self.gone else set()
        return frozenset(found | ({ActKind.ERASURE} if self.templates_days is not None else set()))


def loosened(
    before: AccessRules, after: AccessRules, *, same_clock: bool, templates_days: tuple[int | None, int | None]
) -> Loosened:
    """`templates_days` before and after; `same_clock` says that the site's time zone stays.

    Any other way of standing open counts, also a shorter one: which is shorter depends on the calendar's years.
    """
    doors = {door.name: door for door in before.doors}
    there = {(door.name, door.device, door.relay) for door in after.doors}
    days, fewer = (each or 0 for each in templates_days)  # without a period they are due at once
    return Loosened(
        doors={
            door.name: _words(door, after)
            for door in after.doors
            if (way := _open_way(door, after))
            and not (same_clock and door.name in doors and way == _open_way(doors[door.name], before))
        },
        gone=[door.name for door in before.doors if (door.name, door.device, door.relay) not in there],
        templates_days=fewer if fewer < days else None,
    )


_OPEN = frozenset({DoorMode.UNLOCKED, DoorMode.OFFICE})


def _open_way(door: Door, rules: AccessRules) -> tuple[object, ...]:
    """All that decides when the door stands open; empty if it never does."""
    if not _OPEN & {door.mode, *(time.mode for time in door.mode_times)}:
        return ()
    times = [(time.mode, time.schedule, rules.schedules.get(time.schedule)) for time in door.mode_times]
    return door.mode, times, rules.calendar if times else None


def _words(door: Door, rules: AccessRules) -> str:
    said = [door.mode.value] if door.mode in _OPEN else []
    for time in door.mode_times:
        if time.mode in _OPEN:
            schedule = rules.schedules.get(time.schedule)
            hours = sorted({str(each) for day in schedule.weekly.values() for each in day}) if schedule else []
            said.append(" ".join([time.mode.value, time.schedule, *hours]))
    return "; ".join(said)


class WhyNot(StrEnum):
    """Why somebody may not decide."""

    MACHINE = "machine"  # a token is nobody
    OWN_ACT = "own_act"
    PASSWORD = "password"  # noqa: S105 - somebody else knows the asker's or the decider's
    PROVIDER = "provider"  # one of the two chose who vouches for the other
    HANDS = "hands"  # one of the two made or reset the other's account, or somebody did so with both


@dataclass(frozen=True, slots=True)
class Party:
    """The asker, or the decider."""

    name: str
    own_password: bool = True  # nobody else chose the one that is in force
    hands: frozenset[str] = frozenset()  # who could have signed in as them, themselves included
    vouchers: frozenset[str] = frozenset()  # who set up the identity provider that vouches for them


def undecidable(asker: Party, decider: Party, *, decider_is_person: bool) -> WhyNot | None:
    """None if this person may decide."""
    if not decider_is_person:
        return WhyNot.MACHINE
    if asker.name == decider.name:
        return WhyNot.OWN_ACT
    if not (asker.own_password and decider.own_password):
        return WhyNot.PASSWORD
    if asker.vouchers & decider.hands or decider.vouchers & asker.hands:
        return WhyNot.PROVIDER
    if asker.hands & decider.hands:
        return WhyNot.HANDS
    return None
