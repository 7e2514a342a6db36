"""What should be on a device against what is there: a plan that nothing has been sent of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from device_drivers.devices import Capabilities, DeviceUser, Feature, ItemResult
from edge_agent.devices.sync_times import Numbering, Settings
from templates_store.template import SubjectId


@dataclass(frozen=True, slots=True)
class Change:
    """One person who is on the device already, with the names of the fields that differ."""

    user: DeviceUser
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What would change. Nothing was sent."""

    add: tuple[DeviceUser, ...] = ()
    change: tuple[Change, ...] = ()
    remove: tuple[str, ...] = ()  # the device's own numbers
    refused: tuple[ItemResult, ...] = ()
    foreign: tuple[str, ...] = ()  # on the device, not ours: left alone
    unchanged: int = 0
    cards_unknown: tuple[str, ...] = ()  # people whose card number is not known here
    people: Mapping[str, SubjectId] = field(default_factory=dict, repr=False)  # wanted there, by the device's number
    times: Numbering = field(default_factory=Numbering)
    settings: Settings | None = None  # None: the device was told already, or keeps none
    clock: timedelta | None = None  # by how much the clock it decides by is wrong; None: right enough, or it has none

    @property
    def empty(self) -> bool:
        return not (
            self.add or self.change or self.remove or self.times.write or self.settings or self.clock is not None
        )

    @property
    def steps(self) -> int:
        people = len(self.add) + len(self.change) + len(self.remove)
        return people + len(self.times.write) + (self.settings is not None) + (self.clock is not None)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Desired people of one device; `refused` could not be expressed there."""

    users: tuple[DeviceUser, ...]
    refused: tuple[ItemResult, ...] = field(default=())
    cards_unknown: tuple[str, ...] = ()
    people: Mapping[str, SubjectId] = field(default_factory=dict, repr=False)
    cards: Mapping[str, frozenset[bytes]] = field(default_factory=dict, repr=False)  # digests, by the device's number
    times: Numbering = field(default_factory=Numbering)


def compare(
    wanted: Wanted,
    found: Sequence[DeviceUser],
    able: Capabilities,
    *,
    ours: Callable[[str], bool],
    by_card: bool,
) -> Plan:
    """The difference. `ours(key)`: did we put it there; `by_card`: the device knows people by card number."""

    def key_of(user: DeviceUser) -> str:
        return plain(user.card) if by_card else user.user_id

    there = {key_of(user): user for user in found}
    here = {key_of(user): user for user in wanted.users}
    remove = tuple(user.user_id for key, user in there.items() if key not in here and ours(key))
    foreign = tuple(user.user_id for key, user in there.items() if key not in here and not ours(key))
    change, unchanged = [], 0
    for key, user in here.items():
        if key in there:
            differing = differences(user, there[key], able, by_card=by_card)
            if differing:
                # What is set at the device alone stays: a PIN, an administrator's rights at the menu.
                old = there[key]
                pin = user.pin if Feature.KEYPAD in able.features else user.pin or old.pin
                kept = replace(user, user_id=old.user_id, pin=pin, privilege=old.privilege)
                change.append(Change(kept, differing))
            else:
                unchanged += 1
    new = [user for key, user in here.items() if key not in there]
    room = len(new)
    if able.max_users is not None:
        room = max(0, able.max_users - (len(there) - len(remove)))
    full = tuple(
        ItemResult(user.user_id, ok=False, reason=f"the device is full: it holds {able.max_users} people")
        for user in new[room:]
    )
    return Plan(
        tuple(new[:room]),
        tuple(change),
        remove,
        wanted.refused + full,
        foreign,
        unchanged,
        wanted.cards_unknown,
        wanted.people,
        wanted.times,
    )


def differences(wanted: DeviceUser, found: DeviceUser, able: Capabilities, *, by_card: bool) -> tuple[str, ...]:
    """Fields that the device can hold and holds otherwise. What it does not tell back is not compared."""
    differing = []
    if found.name and not wanted.name.startswith(found.name.rstrip("?\ufffd")):  # devices cut long names
        differing.append("name")
    if Feature.CARDS in able.features and not by_card and plain(wanted.card) != plain(found.card):
        differing.append("card")
    # A controller with keypads tells its PINs, and one that is missing there lets a card in alone.
    told = Feature.KEYPAD in able.features or bool(found.pin and wanted.pin)
    if Feature.PINS in able.features and told and wanted.pin != found.pin:
        differing.append("pin")
    if wanted.enabled != found.enabled:
        differing.append("enabled")
    if able.doors and sorted(wanted.doors) != sorted(found.doors):
        differing.append("doors")
    if able.doors and Feature.SCHEDULES in able.features and _profiles(wanted) != _profiles(found):
        differing.append("schedule")
    if able.doors and (_day(wanted.valid_from), _day(wanted.valid_until)) != (
        _day(found.valid_from),
        _day(found.valid_until),
    ):
        differing.append("validity")
    return tuple(differing)


def plain(card: str) -> str:
    """One number is written in many ways."""
    return card.strip().upper().lstrip("0")


def _day(moment: datetime | None) -> str:
    """Devices keep days; a time of day would differ for ever."""
    return f"{moment:%Y-%m-%d}" if moment else ""


def _profiles(user: DeviceUser) -> tuple[object, ...]:
    return user.schedule, user.door_schedules
