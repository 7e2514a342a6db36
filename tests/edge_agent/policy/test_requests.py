from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from edge_agent.policy.requests import (
    CHINA,
    RightsRequest,
    Standing,
    Verb,
    add_working_days,
    due_date,
    is_working_day,
    standing,
    working_days_left,
)
from edge_agent.policy.schedules import Calendar
from templates_store.template import SubjectId

SHANGHAI = ZoneInfo("Asia/Shanghai")


def verified(utc: str) -> RightsRequest:
    at = datetime.fromisoformat(utc).replace(tzinfo=UTC)
    return RightsRequest("r1", SubjectId("s1"), Verb.ACCESS, received_at=at, verified_at=at)


@pytest.mark.parametrize(
    ("start", "due"),
    [
        ("2026-11-02", "2026-11-23"),  # a Monday, three plain weeks
        ("2026-11-06", "2026-11-27"),  # a Friday
        ("2026-11-07", "2026-11-27"),  # a Saturday counts from the Monday after
        ("2026-09-21", "2026-10-19"),  # over Mid-Autumn and the National Day; Saturday 10 October is worked
        ("2026-02-10", "2026-03-09"),  # over the Spring Festival; Saturdays 14 and 28 February are worked
        ("2025-01-24", "2025-02-20"),  # Sunday 26 January and Saturday 8 February are worked
        ("2028-02-14", "2028-03-06"),  # over a leap day
    ],
)
def test_fifteen_working_days_after_the_identity_was_verified(start: str, due: str) -> None:
    assert add_working_days(date.fromisoformat(start), 15, CHINA) == date.fromisoformat(due)


def test_the_day_of_verification_is_the_day_on_the_site_clock() -> None:
    late = verified("2026-11-01T16:30")  # already Monday in Shanghai
    assert due_date(late, CHINA, zone=SHANGHAI) == date(2026, 11, 23)
    assert due_date(verified("2026-11-01T15:30"), CHINA, zone=SHANGHAI) == date(2026, 11, 20)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-02T03:00", Standing.OPEN),
        ("2026-11-17T03:00", Standing.OPEN),
        ("2026-11-18T03:00", Standing.DUE_SOON),  # 19, 20, 23 are left
        ("2026-11-23T15:59", Standing.DUE_SOON),  # the last minute in Shanghai
        ("2026-11-23T16:00", Standing.OVERDUE),
    ],
)
def test_warns_before_and_is_overdue_after_the_due_day(now: str, expected: Standing) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert standing(verified("2026-11-02T02:00"), CHINA, zone=SHANGHAI, now=at) is expected


def test_the_clock_starts_with_verification_and_stops_with_the_answer() -> None:
    request = verified("2026-11-02T02:00")
    much_later = datetime(2027, 6, 1, tzinfo=UTC)
    waiting, answered = replace(request, verified_at=None), replace(request, answered_at=request.verified_at)
    assert standing(waiting, CHINA, zone=SHANGHAI, now=much_later) is Standing.UNVERIFIED
    assert due_date(waiting, CHINA, zone=SHANGHAI) is None
    assert standing(answered, CHINA, zone=SHANGHAI, now=much_later) is Standing.ANSWERED


def test_days_left_count_working_days_in_both_directions() -> None:
    assert working_days_left(date(2026, 11, 20), date(2026, 11, 23), CHINA) == 1
    assert working_days_left(date(2026, 11, 23), date(2026, 11, 23), CHINA) == 0
    assert working_days_left(date(2026, 11, 30), date(2026, 11, 23), CHINA) == -5


def test_another_calendar_gives_another_date() -> None:
    plain = Calendar()
    assert add_working_days(date(2026, 9, 21), 15, plain) == date(2026, 10, 12)
    assert is_working_day(date(2026, 10, 1), plain)
    assert not is_working_day(date(2026, 10, 1), CHINA)
    assert is_working_day(date(2026, 10, 10), CHINA)
