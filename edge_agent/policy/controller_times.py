"""What a controller that decides by itself can keep of the rules: days and hours, modes, and which doors not at all.

Controllers know no holidays. They know spans of the wall clock on weekdays between two dates, and several of those
together mean any of them. So the calendar is cut at each day that is not what its weekday says: what lies between is
the plain week, and such a day stands alone. Days of long ago are left out. A calendar with days that come every year
is carried a year ahead and moved on with each comparison: a gateway that stays away longer lets fewer people in.

Nothing is widened: a span that ends at midnight loses its last minute where a device has no 24:00, and a door whose
rules a controller cannot check by itself is not given away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Generic, TypeVar

from edge_agent.policy.anti_passback import PassbackRule
from edge_agent.policy.rules import Door, DoorMode, Factor, Rules, Verify
from edge_agent.policy.schedules import DAY_MINUTES, Calendar, Schedule

AHEAD = timedelta(days=400)
PLAIN = Calendar()
A_MONDAY = date(2024, 1, 1)  # any: with the plain calendar only the weekday counts
CARD, CARD_AND_PIN = frozenset({Factor.CARD}), frozenset({Factor.CARD, Factor.PIN})

Spans = tuple[tuple[int, int], ...]  # [start, end) in minutes of the day
Changes = tuple[tuple[int, DoorMode], ...]  # (minute of the day, mode from then on)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spell(Generic[T]):
    """The same thing on these weekdays (0 Monday) from the first to the last day; None: without end."""

    first_day: date | None
    last_day: date | None
    weekdays: frozenset[int]
    what: T


def allowed_spells(schedules: Sequence[Schedule], calendar: Calendar, *, today: date) -> list[Spell[Spans]]:
    """When any of `schedules` runs."""

    def of(day: date, days: Calendar) -> Spans:
        return _joined(span for schedule in schedules for span in schedule.spans_on(day, days))

    return [spell for spell in _spells(of, calendar, today=today) if spell.what]


def mode_spells(door: Door, rules: Rules, *, today: date) -> list[Spell[Changes]]:
    """When `door` changes its mode by schedule; with each midnight, so that no day rests on the one before."""
    if not door.mode_times:
        return []

    def of(day: date, days: Calendar) -> Changes:
        running = [(time.mode, tuple(rules.schedules[time.schedule].spans_on(day, days))) for time in door.mode_times]
        moments = sorted({0, *(moment for _, spans in running for span in spans for moment in span)} - {DAY_MINUTES})
        changes: list[tuple[int, DoorMode]] = []
        for moment in moments:
            modes = (mode for mode, spans in running if any(start <= moment < end for start, end in spans))
            mode = next(modes, door.mode)
            if not changes or changes[-1][1] is not mode:
                changes.append((moment, mode))
        return tuple(changes)

    return list(_spells(of, rules.calendar, today=today))


def asks_pin(door: Door) -> bool:
    """Whether a card alone does not do there: at some time, and so, for a controller, at all times."""
    return any(CARD not in verify for verify in _verifies(door))


def not_alone(door: Door, rules: Rules, *, keypad: bool) -> str:
    """Why a controller cannot decide at this door by itself; "" where it can. `keypad`: it can ask for a PIN."""
    enough = (CARD, CARD_AND_PIN) if keypad else (CARD,)
    if any(not any(combination in verify for combination in enough) for verify in _verifies(door)):
        return "it asks for more than a card" + (" and a PIN" if keypad else "")
    zones = [zone for name in (door.zone_from, door.zone_to) if (zone := rules.zones.get(name))]
    for needed, words in (
        (door.two_person, "it lets in two persons together"),
        (door.first_card is not None, "nobody enters before an opener"),
        (bool(rules.interlocks[door.name]), "it is interlocked with another door"),
        (any(zone.capacity is not None for zone in zones), "its zone has a limit of persons"),
        (
            any(zone.anti_passback not in (PassbackRule.OFF, PassbackRule.SOFT) for zone in zones),
            "its zone has anti-passback",
        ),
    ):
        if needed:
            return words
    return ""


def _verifies(door: Door) -> Iterator[Verify]:
    yield door.verify
    yield from (time.verify for time in door.verify_times)


def _joined(spans: Iterator[tuple[int, int]]) -> Spans:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)


def _spells(of: Callable[[date, Calendar], T], calendar: Calendar, *, today: date) -> Iterator[Spell[T]]:
    week = [of(A_MONDAY + timedelta(days=n), PLAIN) for n in range(7)]
    first = today.replace(day=1)  # the same all month, so that a controller is not written to every day
    last = (first + AHEAD).replace(day=1) - timedelta(days=1)
    singular = sorted(
        day for day in _days_to_look_at(calendar, first, last) if of(day, calendar) != week[day.weekday()]
    )
    start: date | None = None
    for day in singular:
        yield from _plain_week(week, start, day - timedelta(days=1))
        yield Spell(day, day, frozenset({day.weekday()}), of(day, calendar))
        start = day + timedelta(days=1)
    yield from _plain_week(week, start, last if calendar.yearly else None)


def _days_to_look_at(calendar: Calendar, first: date, last: date) -> set[date]:
    """Days that the calendar names, and those after them: what begins on a day may run on into the next."""
    listed = {*calendar.holidays, *calendar.working_days}
    day = first - timedelta(days=1)
    while calendar.yearly and day <= last:
        if f"{day:%m-%d}" in calendar.yearly:
            listed.add(day)
        day += timedelta(days=1)
    both = listed | {day + timedelta(days=1) for day in listed}
    return {day for day in both if day >= first and (day <= last or not calendar.yearly)}


def _plain_week(week: Sequence[T], first: date | None, last: date | None) -> Iterator[Spell[T]]:
    if first is not None and last is not None:
        if last < first:
            return
        present = {(first + timedelta(days=n)).weekday() for n in range(min(7, (last - first).days + 1))}
    else:
        present = set(range(7))
    for what in dict.fromkeys(week[n] for n in sorted(present)):
        yield Spell(first, last, frozenset(n for n in present if week[n] == what), what)
