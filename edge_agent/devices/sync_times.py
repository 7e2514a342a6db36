"""Time profiles, tasks and keypads of a controller that decides by itself: what to write, and under which numbers.

A card names a profile for each door, so a number must never come to mean other hours while a card still names it. The
numbers we use are remembered with the schedules they stand for: the same schedules are rewritten in place, others take
numbers that nothing refers to. What somebody else put there stays, and so does what somebody else's cards refer to.
Profiles are written from the end of a chain to its head, because each names the one it continues in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import time

from device_drivers.devices import DeviceUser, DoorTask, TimeProfile
from edge_agent.doors.controller_modes import DEVICE_MODES
from edge_agent.policy.controller_times import Changes, Spans, Spell
from edge_agent.policy.rules import Door
from edge_agent.policy.schedules import DAY_MINUTES

NUMBERS = range(2, 255)
SPANS_EACH = 3
LAST_MINUTE = time(23, 59)  # controllers have no 24:00

Schedules = frozenset[str]  # a person may pass while any of them runs


@dataclass(frozen=True, slots=True)
class Settings:
    """What a controller is told and cannot tell back: written once for each connection, and after a change."""

    tasks: tuple[DoorTask, ...] = ()
    keypads: frozenset[int] = frozenset()  # readers that ask for the PIN


@dataclass(frozen=True, slots=True)
class Numbering:
    """Time profiles for every wanted set of schedules, as far as there are numbers."""

    heads: Mapping[Schedules, int] = field(default_factory=dict)
    chains: Mapping[Schedules, tuple[int, ...]] = field(default_factory=dict)  # from head to end
    write: tuple[TimeProfile, ...] = ()  # in this order
    lacking: Mapping[Schedules, int] = field(default_factory=dict)  # numbers that were missing


def assign(
    wanted: Mapping[Schedules, Sequence[Spell[Spans]]],
    *,
    found: Iterable[TimeProfile],
    ours: Mapping[Schedules, Sequence[int]],
    configured: Collection[int],
    users: Iterable[DeviceUser],
) -> Numbering:
    """`ours`: numbers of former comparisons, heads first; `configured`: those the enterprise named by hand."""
    there = {profile.number: profile for profile in found}
    owned = {n for numbers in ours.values() for n in numbers}
    referred = _with_links(there, {n for user in users for n in _named_by(user)} | set(configured))
    kept = {n for schedules in wanted for n in ours.get(schedules, ())}
    free = [n for n in NUMBERS if n not in referred and n not in kept and (n not in there or n in owned)]
    heads: dict[Schedules, int] = {}
    chains: dict[Schedules, tuple[int, ...]] = {}
    lacking: dict[Schedules, int] = {}
    write: list[TimeProfile] = []
    for schedules in sorted(wanted, key=sorted):
        links = _links(wanted[schedules])
        mine = [n for n in ours.get(schedules, ()) if n not in configured]
        more = len(links) - len(mine)
        if more > len(free):
            lacking[schedules] = more - len(free)
            continue
        mine += [free.pop(0) for _ in range(more)]
        heads[schedules], chains[schedules] = mine[0], tuple(mine)
        following = 0
        for n, (spell, spans) in reversed(list(zip(mine, links, strict=False))):
            profile = TimeProfile(n, spell.weekdays, spans, spell.first_day, spell.last_day, following)
            if there.get(n) != profile:
                write.append(profile)
            following = n
    return Numbering(heads, chains, tuple(write), lacking)


def tasks_of(door: Door, spells: Iterable[Spell[Changes]]) -> list[DoorTask]:
    return [
        DoorTask(door.relay, _time(minute), DEVICE_MODES[mode], spell.weekdays, spell.first_day, spell.last_day)
        for spell in spells
        for minute, mode in spell.what
    ]


def _links(spells: Sequence[Spell[Spans]]) -> list[tuple[Spell[Spans], tuple[tuple[time, time], ...]]]:
    """As many profiles as the spans need; one that never opens where there are none."""
    links = []
    for spell in spells or [Spell(None, None, frozenset(), ())]:
        spans = [(_time(start), _time(end)) for start, end in spell.what]
        spans = [span for span in spans if span[0] < span[1]]
        links += [(spell, tuple(spans[n : n + SPANS_EACH])) for n in range(0, max(len(spans), 1), SPANS_EACH)]
    return links


def _time(minute: int) -> time:
    return LAST_MINUTE if minute == DAY_MINUTES else time(*divmod(minute, 60))


def _named_by(user: DeviceUser) -> set[int]:
    return {n for door in user.doors if (n := user.profile_at(door)) is not None}


def _with_links(there: Mapping[int, TimeProfile], numbers: set[int]) -> set[int]:
    reached, ahead = set(numbers), list(numbers)
    while ahead:
        profile = there.get(ahead.pop())
        if profile is not None and profile.linked and profile.linked not in reached:
            reached.add(profile.linked)
            ahead.append(profile.linked)
    return reached
