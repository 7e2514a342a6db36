"""Requests a person may make about their own data, and until when they must be answered.

The answer is due on the fifteenth working day after the day on which the person's identity was verified. Working days
follow the site's calendar; `CHINA` knows the announced days off and the weekend days worked in exchange (State Council
notices for 2025 and 2026) and the fixed holidays of other years: later years are added in the configuration. A holiday
that is missing there makes the date earlier, never later.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from edge_agent.policy.schedules import Calendar
from templates_store.template import SubjectId

ANSWER_DAYS = 15
WARN_DAYS = 3


class Verb(StrEnum):
    ACCESS = "access"
    CORRECT = "correct"
    DELETE = "delete"
    WITHDRAW = "withdraw"
    LEAVE = "leave"
    CANCEL = "cancel"


class Standing(StrEnum):
    UNVERIFIED = "unverified"  # the clock has not started
    OPEN = "open"
    DUE_SOON = "due_soon"
    OVERDUE = "overdue"
    ANSWERED = "answered"


@dataclass(frozen=True, slots=True)
class RightsRequest:
    request_id: str
    subject_id: SubjectId
    verb: Verb
    received_at: datetime
    verified_at: datetime | None = None
    answered_at: datetime | None = None


def is_working_day(day: date, calendar: Calendar) -> bool:
    if day in calendar.working_days:
        return True
    return day.weekday() < 5 and calendar.kind(day) is None


def add_working_days(day: date, count: int, calendar: Calendar) -> date:
    """The `count`-th working day after `day`."""
    if not 0 <= count <= 366:
        raise ValueError(f"count {count}: allowed are 0 to 366 working days")
    while count:
        day += timedelta(days=1)
        count -= is_working_day(day, calendar)
    return day


def working_days_left(today: date, due: date, calendar: Calendar) -> int:
    """Working days after `today` up to and with `due`; negative once it has passed."""
    step, first, last = (1, today, due) if due >= today else (-1, due, today)
    days = (first + timedelta(days=n) for n in range(1, (last - first).days + 1))
    return step * sum(is_working_day(day, calendar) for day in days)


def due_date(request: RightsRequest, calendar: Calendar, *, zone: ZoneInfo) -> date | None:
    if request.verified_at is None:
        return None
    return add_working_days(request.verified_at.astimezone(zone).date(), ANSWER_DAYS, calendar)


def standing(request: RightsRequest, calendar: Calendar, *, zone: ZoneInfo, now: datetime) -> Standing:
    """Overdue from the first moment of the day after the due date, on the site's clock."""
    if request.answered_at is not None:
        return Standing.ANSWERED
    due = due_date(request, calendar, zone=zone)
    if due is None:
        return Standing.UNVERIFIED
    today = now.astimezone(zone).date()
    if today > due:
        return Standing.OVERDUE
    return Standing.DUE_SOON if working_days_left(today, due, calendar) <= WARN_DAYS else Standing.OPEN


def _span(first: str, last: str) -> list[date]:
    start, end = date.fromisoformat(first), date.fromisoformat(last)
    return [start + timedelta(days=n) for n in range((end - start).days + 1)]


_DAYS_OFF = (
    ("2025-01-01", "2025-01-01"),
    ("2025-01-28", "2025-02-04"),
    ("2025-04-04", "2025-04-06"),
    ("2025-05-01", "2025-05-05"),
    ("2025-05-31", "2025-06-02"),
    ("2025-10-01", "2025-10-08"),
    ("2026-01-01", "2026-01-03"),
    ("2026-02-15", "2026-02-23"),
    ("2026-04-04", "2026-04-06"),
    ("2026-05-01", "2026-05-05"),
    ("2026-06-19", "2026-06-21"),
    ("2026-09-25", "2026-09-27"),
    ("2026-10-01", "2026-10-07"),
)
_WORKED = (
    "2025-01-26", "2025-02-08", "2025-04-27", "2025-09-28", "2025-10-11",
    "2026-01-04", "2026-02-14", "2026-02-28", "2026-05-09", "2026-09-20", "2026-10-10",
)  # fmt: skip
CHINA = Calendar(
    holidays={day: "public" for first, last in _DAYS_OFF for day in _span(first, last)},
    yearly=dict.fromkeys(("01-01", "05-01", "05-02", "10-01", "10-02", "10-03"), "public"),
    working_days={date.fromisoformat(day): "mon" for day in _WORKED},
)
