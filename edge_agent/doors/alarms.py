"""Alarms on record: raised once for each event, standing until they pass or somebody has seen them.

While an alarm stands, the same fault raises no second one; when it passes, the alarm is closed and may be raised anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from device_drivers.events import DoorEventKind
from edge_agent.database import utc_text
from edge_agent.delivery.event import Event, append


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
OF_THE_DOOR = frozenset({AlarmKind.FORCED, AlarmKind.HELD, AlarmKind.DURESS})


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
