"""Schedules, holidays and modes as spells that know weekdays and dates alone: the same moments, day by day."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from edge_agent.policy.controller_times import Spell, allowed_spells, asks_pin, mode_spells, not_alone
from edge_agent.policy.rules import AccessRules, DoorMode, Rules
from edge_agent.policy.schedules import Calendar, Schedule

ZONE = ZoneInfo("UTC")
TODAY = date(2026, 9, 14)
CALENDAR = {
    "holidays": {"2026-10-01": "public", "2026-10-02": "public", "2026-10-05": "half", "2024-10-01": "public"},
    "working_days": {"2026-10-10": "thu"},
}
WEEKS: dict[str, dict[str, Any]] = {
    "office": {"weekly": {"mon-fri": ["08:00-12:00", "13:00-18:00"]}},
    "half days": {"weekly": {"mon-fri": ["08:00-18:00"]}, "holidays": {"half": ["09:00-12:00"]}},
    "nights": {"weekly": {"mon-thu": ["22:00-06:00+1"], "sat": ["10:00-24:00"], "sun": ["00:00-02:00"]}},
    "holidays only": {"holidays": {"public": ["10:00-11:00"]}},
    "five spans": {"weekly": {"daily": [f"{n:02}:00-{n:02}:30" for n in range(8, 13)]}},
    "never": {},
}


def runs(spells: list[Spell[Any]], moment: datetime) -> list[Any]:
    """What a device with nothing but dates and weekdays finds at this moment."""
    day = moment.date()
    return [
        spell.what
        for spell in spells
        if (spell.first_day is None or spell.first_day <= day)
        and (spell.last_day is None or day <= spell.last_day)
        and day.weekday() in spell.weekdays
    ]


def opens(spells: list[Spell[Any]], moment: datetime) -> bool:
    minute = moment.hour * 60 + moment.minute
    return any(start <= minute < end for spans in runs(spells, moment) for start, end in spans)


@pytest.mark.parametrize("yearly", [{}, {"12-25": "public", "02-29": "half"}], ids=["dated", "yearly"])
@pytest.mark.parametrize("name", [*WEEKS, "office+nights"])
def test_a_controller_opens_in_the_same_minutes_as_the_schedules(name: str, yearly: dict[str, str]) -> None:
    calendar = Calendar.model_validate({**CALENDAR, "yearly": yearly})
    schedules = [Schedule.model_validate(WEEKS[part]) for part in name.split("+")]
    spells = allowed_spells(schedules, calendar, today=TODAY)
    for first, last in ((date(2026, 9, 28), date(2026, 10, 12)), (date(2026, 12, 23), date(2026, 12, 28))):
        for half_hours in range((last - first).days * 48):
            moment = datetime.combine(first, time(), UTC) + timedelta(minutes=30 * half_hours)
            wanted = any(schedule.contains(moment, zone=ZONE, calendar=calendar) for schedule in schedules)
            assert opens(spells, moment) == wanted, moment


def test_days_that_come_every_year_are_carried_a_year_ahead_and_nothing_opens_after_that() -> None:
    office = Schedule.model_validate(WEEKS["office"])
    endless = allowed_spells([office], Calendar.model_validate(CALENDAR), today=TODAY)
    assert max(spell.last_day or date.max for spell in endless) == date.max
    ahead = allowed_spells([office], Calendar.model_validate({"yearly": {"05-01": "public"}}), today=TODAY)
    last = max(spell.last_day or date.max for spell in ahead)
    assert last == date(2027, 9, 30)
    assert not opens(ahead, datetime.combine(last + timedelta(days=1), time(9), UTC))


def test_all_days_of_a_month_make_the_same_spells() -> None:
    calendar = Calendar.model_validate({**CALENDAR, "yearly": {"05-01": "public"}})
    office = Schedule.model_validate(WEEKS["office"])
    first = allowed_spells([office], calendar, today=date(2026, 9, 1))
    assert allowed_spells([office], calendar, today=date(2026, 9, 30)) == first
    assert allowed_spells([office], calendar, today=date(2026, 10, 1)) != first


def test_holidays_of_long_ago_cost_nothing() -> None:
    old = Calendar.model_validate({"holidays": {f"2020-01-{day:02}": "public" for day in range(1, 29)}})
    assert len(allowed_spells([Schedule.model_validate(WEEKS["office"])], old, today=TODAY)) == 1


def rules_of(door: dict[str, Any], **more: Any) -> Rules:
    doors = [{"name": "front", "device": "panel", **door}, {"name": "back", "device": "panel", "relay": 2}]
    document = {"calendar": CALENDAR, "schedules": WEEKS, "doors": doors, **more}
    return Rules(AccessRules.model_validate(document), zone=ZONE)


def test_a_controller_changes_modes_when_the_schedule_does() -> None:
    rules = rules_of(
        {
            "mode": "locked",
            "mode_times": [
                {"schedule": "nights", "mode": "controlled"},
                {"schedule": "office", "mode": "unlocked"},
                {"schedule": "five spans", "mode": "office"},
            ],
        }
    )
    door = rules.doors["front"]
    spells = mode_spells(door, rules, today=TODAY)
    mode, moment = DoorMode.LOCKED, datetime(2026, 9, 28, tzinfo=UTC)
    while moment < datetime(2026, 10, 19, tzinfo=UTC):
        for changes in runs(spells, moment):
            mode = dict(changes).get(moment.hour * 60 + moment.minute, mode)
        assert mode is rules.scheduled_mode(door, moment), moment
        moment += timedelta(minutes=30)


def test_a_door_without_times_has_no_changes() -> None:
    rules = rules_of({"mode": "unlocked"})
    assert mode_spells(rules.doors["front"], rules, today=TODAY) == []


ZONES = [{"name": "hall", "anti_passback": "hard"}, {"name": "lab", "capacity": 2}, {"name": "yard"}]


@pytest.mark.parametrize(
    ("door", "pin", "fault"),
    [
        ({}, False, ""),
        ({"verify": [["face"], ["card"]]}, False, ""),
        ({"verify": [["card", "pin"]]}, True, ""),
        ({"verify": [["card", "pin"], ["card"]]}, False, ""),
        ({"verify_times": [{"schedule": "nights", "verify": [["card", "pin"]]}]}, True, ""),
        ({"verify": [["card", "face"]]}, True, "more than a card and a PIN"),
        ({"verify_times": [{"schedule": "nights", "verify": [["face"]]}]}, True, "more than a card and a PIN"),
        ({"two_person": True}, False, "two persons"),
        ({"first_card": "office"}, False, "opener"),
        ({"interlock": ["back"]}, False, "interlocked"),
        ({"zone_to": "hall"}, False, "anti-passback"),
        ({"zone_from": "lab"}, False, "limit of persons"),
        ({"zone_to": "yard"}, False, ""),
    ],
)
def test_a_door_is_left_to_a_controller_only_if_it_can_keep_all_its_rules(
    door: dict[str, Any], pin: bool, fault: str
) -> None:
    rules = rules_of(door, zones=ZONES)
    front = rules.doors["front"]
    assert asks_pin(front) is pin
    said = not_alone(front, rules, keypad=True)
    assert (fault in said) if fault else said == ""
    assert bool(not_alone(front, rules, keypad=False)) is (pin or bool(fault))


def test_an_interlock_binds_the_other_door_too() -> None:
    rules = rules_of({"interlock": ["back"]})
    assert "interlocked" in not_alone(rules.doors["back"], rules, keypad=True)
