"""An event, and its place in agent.db. Flows append inside their own transaction; sinks read through the outbox."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from edge_agent.database import utc_now, utc_text

JSON = Any  # None, bool, int, float, str, list and dict of these; json.dumps is the judge

ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
MAX_DATA = 64 * 1024
MAX_ID = 200


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `id` says the same for the same happening, however often it is told."""

    id: str
    type: str  # "attendance.punch", "door.opened", "subject.enrolled", ...
    occurred_at: datetime  # aware
    device: str  # the configured name; "" if none is concerned
    subject: str | None
    data: Mapping[str, JSON] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stored:
    """An event with its place in this gateway's order."""

    sequence: int
    recorded_at: datetime
    event: Event


def digest(event_id: str) -> bytes:
    return hashlib.blake2b(event_id.encode(), digest_size=16).digest()


def append(connection: sqlite3.Connection, events: Iterable[Event], *, now: datetime | None = None) -> int:
    """Add those not seen before, inside the caller's transaction. Returns how many were new.

    Raises ValueError for an event too large or without a zone.
    """
    recorded_at, new = utc_text(now or utc_now()), 0
    for event in events:
        data = ENCODE(event.data)
        data = data.encode("utf-8", "replace").decode()  # a device's text may hold what UTF-8 cannot say
        if len(data) > MAX_DATA or not 0 < len(event.id) <= MAX_ID:
            raise ValueError(f"event of type {event.type}: {len(data)} characters, id of {len(event.id)}")
        # An ignored INSERT would use up a sequence number; the question before it does not.
        new += connection.execute(
            "INSERT INTO events (id, type, occurred_at, recorded_at, device, subject, data)"
            " SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE NOT EXISTS (SELECT 1 FROM events WHERE id = ?1)"
            " AND NOT EXISTS (SELECT 1 FROM pruned_ids WHERE digest = ?8)",
            (
                event.id,
                event.type,
                utc_text(event.occurred_at),
                recorded_at,
                event.device,
                event.subject,
                data,
                digest(event.id),
            ),
        ).rowcount
    return new


def last_sequence(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return int(row[0]) if row else 0


COLUMNS = "sequence, recorded_at, id, type, occurred_at, device, subject, data"


def stored(row: Sequence[Any]) -> Stored:
    sequence, recorded_at, event_id, kind, occurred_at, device, subject, data = row[:8]
    event = Event(event_id, kind, datetime.fromisoformat(occurred_at), device, subject, json.loads(data))
    return Stored(sequence, datetime.fromisoformat(recorded_at), event)
