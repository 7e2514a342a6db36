"""What agent.db keeps about one person: told to them on their request, and taken out of events when they leave.

A table that begins to hold something of a person belongs into TABLES, or into PLACES if it names them as the place
where something failed; a test compares both with the schema.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Any

from edge_agent.database import utc_text
from templates_store.template import SubjectId

TABLES = (
    ("people", "subject, name, department, valid_from, valid_until, created_at, updated_at"),
    ("device_users", "device, user_id"),
    ("cards", "hint, added_at"),
    ("pins", "set_at"),
    ("sealed_pins", "subject"),  # that one is kept for a controller; what it is stays sealed
    ("access_people", "enabled, opener, passes_lockdown, anti_passback_exempt, duress_finger"),
    ("access_members", "group_name"),
    ("presence", "zone, door, since, punched, punch_at"),
    ("events", "id, type, occurred_at, recorded_at, device, data"),
    ("rights_requests", "id, verb, received_at, verified_at, answered_at, outcome"),
    ("audit", "at, actor, action, object, outcome, personal"),
)

PLACES = (("attempts", "place, in_a_row, in_all, last"), ("alarms", "kind, place, raised_at, cleared_at"))
_THEIRS = "substr(place, 1, length(?1)) = ?1"


def place_of(subject: str) -> str:
    """What every place begins with that is a person: `person:SUBJECT/factor`."""
    return f"person:{subject}/"


def about(connection: sqlite3.Connection, subject: SubjectId) -> dict[str, Any]:
    """Every row about `subject`, by table, and nothing about others."""
    found: dict[str, Any] = {}
    for table, columns in TABLES:
        names = columns.split(", ")
        rows = connection.execute(f"SELECT {columns} FROM {table} WHERE subject = ?", (subject,))  # noqa: S608
        found[table] = [dict(zip(names, row, strict=True)) for row in rows]
    for table, columns in PLACES:
        names = columns.split(", ")
        rows = connection.execute(f"SELECT {columns} FROM {table} WHERE {_THEIRS}", (place_of(subject),))  # noqa: S608
        found[table] = [dict(zip(names, row, strict=True)) for row in rows]
    return found


def leave_places(connection: sqlite3.Connection, subject: str, *, now: datetime) -> None:
    """What failed with their PIN, face or finger is forgotten; an alarm about it stays, cleared and without a name."""
    connection.execute(f"DELETE FROM attempts WHERE {_THEIRS}", (place_of(subject),))  # noqa: S608
    connection.execute(
        "UPDATE alarms SET place = 'person:/' || substr(place, length(?1) + 1), cleared_at = coalesce(cleared_at, ?2)"  # noqa: S608
        f" WHERE {_THEIRS}",
        (place_of(subject), utc_text(now)),
    )


def anonymise(connection: sqlite3.Connection, subject: str) -> int:
    """Irreversible: no pseudonym, number or companion stays; how many, when and where stays right."""
    changed = connection.execute(
        "UPDATE events SET subject = NULL, data = json_set(json_remove(data, '$.user_id', '$.companion', '$.known'),"
        " '$.anonymous', json('true')) WHERE subject = ?",
        (subject,),
    ).rowcount
    connection.execute(
        "UPDATE events SET data = json_remove(data, '$.companion') WHERE json_extract(data, '$.companion') = ?",
        (subject,),
    )
    return changed
