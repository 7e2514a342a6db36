"""What a capture point tells upstream: granted, denied, punched. The same classes of event whatever the factor was.

No event carries a score, a sample or a card number. A lapsed consent, a switched-off modality and a sealed store are
told with one word, `another_factor`: nobody upstream learns from a denial that somebody withdrew.
"""

from __future__ import annotations

import secrets
import sqlite3
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from device_drivers.events import Origin, PunchState, VerifyMode
from edge_agent.attendance import Source
from edge_agent.database import utc_text
from edge_agent.delivery.event import Event
from edge_agent.doors.presence import LastPunch
from edge_agent.matching.outcomes import PadState
from edge_agent.policy.access import Denied, Granted, Reason
from edge_agent.policy.rules import Direction, Factor, Point, PunchDirection
from templates_store.template import SubjectId

ANOTHER_FACTOR = "another_factor"
_MODES = {
    Factor.CARD: VerifyMode.CARD,
    Factor.PIN: VerifyMode.PIN,
    Factor.FACE: VerifyMode.FACE,
    Factor.FINGER: VerifyMode.FINGER,
}


@dataclass(frozen=True, slots=True)
class Passage:
    """One finished session, for whoever watches live."""

    point: str
    door: str | None
    at: datetime
    granted: bool
    subject_id: SubjectId | None
    reason: str  # empty if granted
    factors: frozenset[Factor]
    pad: PadState


def verify_mode(factors: frozenset[Factor]) -> VerifyMode:
    if len(factors) == 1:
        return _MODES[next(iter(factors))]
    return VerifyMode.COMBINED if factors else VerifyMode.OTHER


def told_reason(reason: Reason | str) -> str:
    return ANOTHER_FACTOR if reason in (Reason.CONSENT_LAPSED, Reason.FACTOR_DISABLED) else str(reason)


def _place(source: Source, now: datetime) -> dict[str, Any]:
    data: dict[str, Any] = {
        "serial": source.serial or source.name,
        "origin": Origin.LIVE.value,
        "device_time": None,
        "record_no": None,
        "timezone": source.timezone,
        "received_at": utc_text(now),
    }
    if source.site:
        data["site"] = source.site
    if source.location is not None:
        latitude, longitude = source.location
        data["location"] = {"latitude": latitude, "longitude": longitude, "source": "device configuration"}
    return data


def _factors(factors: frozenset[Factor], pad: PadState) -> dict[str, Any]:
    return {"verify_mode": verify_mode(factors).value, "factors": sorted(factors), "pad": pad.value}


def granted_event(granted: Granted, point: Point | None, source: Source, now: datetime) -> Event:
    data = _place(source, now) | _factors(granted.factors, granted.pad)
    data |= {
        "point": point.name if point else None,
        "door": granted.door,
        "direction": granted.direction.value,
        "basis": granted.basis.value,
        "warnings": [warning.value for warning in granted.warnings],
        "known": granted.subject_id is not None,
    }
    if granted.companion:
        data["companion"] = granted.companion
    if granted.actor:
        data["actor"] = granted.actor
    return Event(f"access:{granted.nonce}", "access.granted", granted.at, source.name, granted.subject_id, data)


def denied_event(
    denied: Denied | str, point: Point, source: Source, now: datetime, *, pad: PadState, factors: frozenset[Factor]
) -> Event:
    reason = told_reason(denied.reason if isinstance(denied, Denied) else denied)
    subject = denied.subject_id if isinstance(denied, Denied) else None
    if reason == ANOTHER_FACTOR:
        subject = None
    data = _place(source, now) | _factors(factors, pad)
    data |= {
        "point": point.name,
        "door": point.door,
        "direction": point.direction.value,
        "reason": reason,
        "known": subject is not None,
    }
    return Event(f"access:{secrets.token_hex(8)}", "access.denied", now, source.name, subject, data)


def not_opened_event(granted: Granted, code: str, source: Source, now: datetime) -> Event:
    data = _place(source, now) | {"door": granted.door, "reason": code}
    return Event(f"access:{granted.nonce}:not-opened", "access.not_opened", now, source.name, granted.subject_id, data)


def duress_event(identity: str, door: str | None, source: Source, subject: SubjectId | None, now: datetime) -> Event:
    return Event(f"duress:{identity}", "door.duress", now, source.name, subject, _place(source, now) | {"door": door})


def attempts_event(
    place: str, failures: int, point: Point, source: Source, subject: SubjectId | None, now: datetime
) -> Event:
    """A full row of failures with one factor, at one point or of one person."""
    data = _place(source, now) | {"point": point.name, "door": point.door, "factors": [place.rpartition("/")[2]]}
    data |= {"count": failures, "known": subject is not None}
    return Event(f"attempts:{secrets.token_hex(8)}", "access.attempts", now, source.name, subject, data)


def punch_event(
    subject_id: SubjectId,
    state: PunchState,
    point: Point,
    source: Source,
    now: datetime,
    *,
    factors: frozenset[Factor],
    pad: PadState,
) -> Event:
    """The shape of a terminal's punch, with the capture point beside it."""
    data = _place(source, now) | _factors(factors, pad)
    data |= {
        "user_id": "",
        "state": state.value,
        "state_code": 0,
        "verify_code": 0,
        "point": point.name,
        "known": True,
        "occurrence": 1,
    }
    return Event(f"punch:{secrets.token_hex(8)}", "attendance.punch", now, source.name, subject_id, data)


def with_user_id(connection: sqlite3.Connection, event: Event) -> Event:
    """The number that the site's terminals know the person by, for recipients that go by numbers."""
    row = connection.execute(
        "SELECT user_id FROM device_users WHERE subject = ? AND device IN (?, '') ORDER BY device DESC LIMIT 1",
        (event.subject, event.device),
    ).fetchone()
    return replace(event, data={**event.data, "user_id": row[0]}) if row else event


def punch_state(
    rule: PunchDirection, *, key: PunchState | None, last: LastPunch | None, now: datetime, zone: ZoneInfo
) -> PunchState:
    """Direction by key, by reader, or the opposite of the last punch of this day on the site's clock."""
    if rule is PunchDirection.IN:
        return PunchState.IN
    if rule is PunchDirection.OUT:
        return PunchState.OUT
    if key is not None:
        return key
    today = now.astimezone(zone).date()
    if last is None or last.at.astimezone(zone).date() != today:
        return PunchState.IN
    return PunchState.OUT if last.state == PunchState.IN else PunchState.IN


def door_state(direction: Direction) -> PunchState:
    return PunchState.IN if direction is Direction.IN else PunchState.OUT
