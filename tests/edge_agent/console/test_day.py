"""A person's day: the hours they are admitted, and the pins of what happened."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from edge_agent.console.day import open_hours, span, track
from edge_agent.delivery.event import Event, Stored
from edge_agent.policy.rules import AccessRules

ZONE = ZoneInfo("Asia/Shanghai")
RULES = AccessRules.model_validate(
    {
        "calendar": {"holidays": {"2026-12-31": "half-day", "2027-01-01": "public"}},
        "schedules": {
            "work": {"weekly": {"mon-fri": ["08:00-12:00", "13:00-18:00"]}, "holidays": {"half-day": ["08:00-12:00"]}},
            "night": {"weekly": {"mon-fri": ["22:00-06:00+1"]}},
        },
        "doors": [{"name": "gate", "device": "panel"}],
        "groups": [
            {"name": "day", "grants": [{"doors": ["gate"], "schedule": "work"}]},
            {"name": "night", "grants": [{"doors": ["gate"], "schedule": "night"}]},
            {"name": "ever", "grants": [{"doors": ["gate"]}]},
        ],
    }
)


@pytest.mark.parametrize(
    ("groups", "day", "hours"),
    [
        (["day"], "2026-11-24", ["08:00-12:00", "13:00-18:00"]),
        (["night"], "2026-11-24", ["00:00-06:00", "22:00-24:00"]),  # Monday's night runs on into Tuesday
        (["night"], "2026-11-28", ["00:00-06:00"]),  # Saturday: only Friday's night
        (["day", "night"], "2026-11-24", ["00:00-06:00", "08:00-12:00", "13:00-18:00", "22:00-24:00"]),
        (["day"], "2026-12-31", ["08:00-12:00"]),
        (["day"], "2027-01-01", []),
        (["ever", "day"], "2027-01-01", ["00:00-24:00"]),
        ([], "2026-11-24", []),
    ],
)
def test_hours_of_access_are_joined_over_groups_nights_and_holidays(
    groups: list[str], day: str, hours: list[str]
) -> None:
    assert [str(found) for found in open_hours(RULES, groups, date.fromisoformat(day))] == hours


def stored(hour: int, minute: int, kind: str = "attendance.punch", **data: Any) -> Stored:
    at = datetime(2026, 11, 24, hour, minute, tzinfo=ZONE).astimezone(UTC)
    return Stored(
        sequence=1,
        event=Event(id="e", type=kind, occurred_at=at, device="lobby", subject="p1", data=data),
        recorded_at=at,
    )


def test_pins_stand_where_the_clock_says_and_a_denial_is_marked() -> None:
    events = [stored(6, 0, state="in"), stored(9, 0, "access.denied"), stored(12, 0, state="out")]
    shown = track(events, open_hours(RULES, ["day"], date(2026, 11, 24)), ZONE, lambda zh, en: en)
    assert [(pin["x"], pin["denied"]) for pin in shown["pins"]] == [(25.0, False), (37.5, True), (50.0, False)]
    assert shown["bands"] == [(25.0, 25.0)]
    assert shown["hours"][0] == (33.33, 16.67)
    assert "3 events" in shown["label"]


def test_a_day_with_an_hour_less_is_shorter() -> None:
    start, end = span(date(2026, 3, 29), ZoneInfo("Europe/Berlin"))
    assert (end.astimezone(UTC) - start.astimezone(UTC)).total_seconds() == 23 * 3600
