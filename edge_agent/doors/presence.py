"""Where people were last, what state doors are in: the memory behind the access rules.

Decisions read it without waiting, so it is held in memory and written through in the transaction that records the
event. A grant takes effect here before it is durable (`reserve`), so that two doors asked in the same moment cannot
both let one card in; if the record fails, the reservation is undone and the door stays shut.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from edge_agent.database import utc_text
from edge_agent.policy.access import FirstOfTwo, Granted
from edge_agent.policy.anti_passback import OUTSIDE, Whereabouts
from edge_agent.policy.attempts import Attempts
from edge_agent.policy.rules import Direction, DoorMode, Rules
from templates_store.template import SubjectId

Undo = Callable[[], None]
Write = Callable[[sqlite3.Connection], None]


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


@dataclass(frozen=True, slots=True)
class Order:
    """A person's order about a door's mode; `until` None stands until it is lifted."""

    mode: DoorMode
    until: datetime | None
    actor: str


@dataclass(frozen=True, slots=True)
class LastPunch:
    state: str
    at: datetime


class Presence:
    """Implements `policy.access.Presence`. For the event loop alone; what `*_row` returns runs in transactions."""

    def __init__(self) -> None:
        self._where: dict[SubjectId, Whereabouts] = {}
        self._punches: dict[SubjectId, LastPunch] = {}
        self._orders: dict[str, Order] = {}
        self._office: dict[str, datetime] = {}
        self._openers: dict[str, datetime] = {}
        self._first: dict[str, FirstOfTwo] = {}
        self._open: set[str] = set()
        self._released: dict[str, datetime] = {}
        self._attempts: dict[str, Attempts] = {}

    @classmethod
    def load(cls, connection: sqlite3.Connection) -> Presence:
        """What was known before the restart. Doors' contacts are not: their controllers say them anew."""
        presence = cls()
        for subject, zone, door, since, state, at in connection.execute(
            "SELECT subject, zone, door, since, punched, punch_at FROM presence"
        ):
            if zone is not None and since:
                presence._where[subject] = Whereabouts(zone, datetime.fromisoformat(since), door)
            if state and at:
                presence._punches[subject] = LastPunch(state, datetime.fromisoformat(at))
        for door, mode, until, actor, office, opener in connection.execute(
            "SELECT door, ordered, ordered_until, ordered_by, office_until, last_opener FROM door_states"
        ):
            if mode:
                presence._orders[door] = Order(DoorMode(mode), _time(until), actor)
            if office:
                presence._office[door] = datetime.fromisoformat(office)
            if opener:
                presence._openers[door] = datetime.fromisoformat(opener)
        for place, row, total, last in connection.execute("SELECT place, in_a_row, in_all, last FROM attempts"):
            presence._attempts[place] = Attempts(row, total, datetime.fromisoformat(last))
        return presence

    # What the rules ask

    def mode_ordered(self, door: str, now: datetime) -> DoorMode | None:
        order = self._orders.get(door)
        return None if order is None or (order.until is not None and now >= order.until) else order.mode

    def order(self, door: str, now: datetime) -> Order | None:
        return self._orders.get(door) if self.mode_ordered(door, now) else None

    def office_unlocked(self, door: str, now: datetime) -> bool:
        until = self._office.get(door)
        return until is not None and now < until

    def whereabouts(self, subject_id: SubjectId) -> Whereabouts | None:
        return self._where.get(subject_id)

    def occupancy(self, zone: str, *, after: datetime) -> int:
        """Who was let into the zone later than `after`: those who left unseen must not fill it for ever."""
        return sum(where.zone == zone and where.since > after for where in self._where.values())

    def open_or_released(self, door: str, now: datetime) -> bool:
        until = self._released.get(door)
        return door in self._open or (until is not None and now < until)

    def last_opener(self, door: str) -> datetime | None:
        return self._openers.get(door)

    def first_of_two(self, door: str) -> FirstOfTwo | None:
        return self._first.get(door)

    def is_open(self, door: str) -> bool:
        return door in self._open

    def last_punch(self, subject_id: SubjectId) -> LastPunch | None:
        return self._punches.get(subject_id)

    def attempts(self, place: str) -> Attempts:
        return self._attempts.get(place, Attempts())

    # What happens

    def reserve(self, granted: Granted, rules: Rules, *, opener: bool) -> Undo:
        """Let a grant take effect; returns what takes it back, but for what has happened since."""
        door = rules.doors[granted.door]
        subject, before = granted.subject_id, self._snapshot(granted)
        origin, target = door.zones(granted.direction)
        for person in (subject, granted.companion):
            if person is not None and origin != target:
                self._where[person] = Whereabouts(target, granted.at, door.name)
        self._released[door.name] = granted.at + timedelta(seconds=door.open_s)
        self._first.pop(door.name, None)
        if opener:
            self._openers[door.name] = granted.at
        if granted.unlock_until is not None:
            self._office[door.name] = granted.unlock_until
        made = self._snapshot(granted)

        def undo() -> None:
            for (memory, key, old), (_, _, new) in zip(before, made, strict=True):
                _put_back(memory, key, old, instead_of=new)

        return undo

    def _snapshot(self, granted: Granted) -> list[tuple[dict[Any, Any], str, object]]:
        """What a grant may change: in which memory, about whom or which door, as it is now."""
        people = [person for person in (granted.subject_id, granted.companion) if person is not None]
        found: list[tuple[dict[Any, Any], str]] = [(self._where, person) for person in people]
        found += [(memory, granted.door) for memory in (self._released, self._first, self._openers, self._office)]
        return [(memory, key, memory.get(key)) for memory, key in found]

    def grant_rows(self, granted: Granted) -> Write:
        """What `reserve` or its undoing changed, to be written in the transaction of the event."""
        people = [person for person in (granted.subject_id, granted.companion) if person is not None]
        found = [(person, self._where.get(person)) for person in people]
        rows = [
            (person, where.zone, where.door, utc_text(where.since)) if where else (person, None, "", None)
            for person, where in found
        ]
        door = self._door_row(granted.door)

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO presence (subject, zone, door, since) SELECT ?1, ?2, ?3, ?4"
                " WHERE EXISTS (SELECT 1 FROM people WHERE subject = ?1)"
                " ON CONFLICT (subject) DO UPDATE SET zone = ?2, door = ?3, since = ?4",
                rows,
            )
            _write_door(connection, door)

        return write

    def wait_for_second(self, door: str, subject_id: SubjectId, now: datetime, direction: Direction) -> None:
        self._first[door] = FirstOfTwo(subject_id, now, direction)

    def punched(self, subject_id: SubjectId, state: str, at: datetime) -> Undo:
        before, made = self._punches.get(subject_id), LastPunch(state, at)
        self._punches[subject_id] = made
        return lambda: _put_back(self._punches, subject_id, before, instead_of=made)

    def punch_rows(self, subject_id: SubjectId) -> Write:
        last = self._punches[subject_id]
        row = (subject_id, last.state, utc_text(last.at))

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO presence (subject, punched, punch_at) SELECT ?1, ?2, ?3"
                " WHERE EXISTS (SELECT 1 FROM people WHERE subject = ?1)"
                " ON CONFLICT (subject) DO UPDATE SET punched = ?2, punch_at = ?3",
                row,
            )

        return write

    def places_with_failures(self) -> dict[str, Attempts]:
        """`point:NAME/factor` and `person:SUBJECT/factor` -> what failed there since the last success."""
        return dict(self._attempts)

    def set_attempts(self, place: str, attempts: Attempts) -> None:
        if attempts == Attempts():
            self._attempts.pop(place, None)
        else:
            self._attempts[place] = attempts

    def attempts_row(self, place: str) -> Write:
        found = self._attempts.get(place)
        row = (
            None if found is None or found.last is None else (place, found.in_a_row, found.in_all, utc_text(found.last))
        )
        person = place.removeprefix("person:").rpartition("/")[0] if place.startswith("person:") else None

        def write(connection: sqlite3.Connection) -> None:
            if row is None:
                connection.execute("DELETE FROM attempts WHERE place = ?", (place,))
            else:
                connection.execute(
                    "INSERT OR REPLACE INTO attempts SELECT ?1, ?2, ?3, ?4"
                    " WHERE ?5 IS NULL OR EXISTS (SELECT 1 FROM people WHERE subject = ?5)",
                    (*row, person),
                )

        return write

    def opened(self, door: str) -> None:
        self._open.add(door)

    def closed(self, door: str) -> None:
        self._open.discard(door)
        self._released.pop(door, None)

    def released(self, door: str, until: datetime) -> Undo:
        """The door was let go: by us, its controller, a button, a key. Returns what takes it back."""
        before = self._released.get(door)
        made = self._released[door] = max(until, before or until)
        return lambda: _put_back(self._released, door, before, instead_of=made)

    def give_order(self, door: str, order: Order | None) -> None:
        if order is None:
            self._orders.pop(door, None)
            self._office.pop(door, None)
        else:
            self._orders[door] = order

    def order_row(self, door: str) -> Write:
        row = self._door_row(door)
        return lambda connection: _write_door(connection, row)

    def forget(self, subject_id: SubjectId) -> None:
        """A person is erased."""
        self._where.pop(subject_id, None)
        self._punches.pop(subject_id, None)
        for place in [place for place in self._attempts if place.startswith(f"person:{subject_id}/")]:
            del self._attempts[place]
        for door in [door for door, first in self._first.items() if first.subject_id == subject_id]:
            del self._first[door]

    def muster(self) -> dict[str, list[SubjectId]]:
        """Who was last let into which zone: the list for an assembly point. Outside is left out."""
        found: dict[str, list[SubjectId]] = {}
        for subject, where in self._where.items():
            if where.zone != OUTSIDE:
                found.setdefault(where.zone, []).append(subject)
        return found

    def _door_row(self, door: str) -> tuple[str | None, ...]:
        order = self._orders.get(door)
        office, opener = self._office.get(door), self._openers.get(door)
        return (
            door,
            order.mode if order else None,
            utc_text(order.until) if order and order.until else None,
            order.actor if order else "",
            utc_text(office) if office else None,
            utc_text(opener) if opener else None,
        )


def _write_door(connection: sqlite3.Connection, row: tuple[str | None, ...]) -> None:
    connection.execute("INSERT OR REPLACE INTO door_states VALUES (?, ?, ?, ?, ?, ?)", row)


def _put_back(memory: dict[Any, Any], key: object, old: object, *, instead_of: object) -> None:
    if memory.get(key) != instead_of:
        return
    if old is None:
        memory.pop(key, None)
    else:
        memory[key] = old
