from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge_agent.policy.schedules import ALWAYS, Calendar, Interval, Schedule

SHANGHAI, BERLIN = ZoneInfo("Asia/Shanghai"), ZoneInfo("Europe/Berlin")
PLAIN = Calendar()


def schedule(**weekly: list[str]) -> Schedule:
    return Schedule.model_validate({"weekly": {key.replace("_", "-"): value for key, value in weekly.items()}})


def inside(what: Schedule, utc: str, zone: ZoneInfo = BERLIN, calendar: Calendar = PLAIN) -> bool:
    return what.contains(datetime.fromisoformat(utc).replace(tzinfo=UTC), zone=zone, calendar=calendar)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("18:00-08:00", "ends before it starts"),
        ("08:00-08:00", "ends before it starts"),
        ("08:00-10:00+1", "longer than 24 hours"),
        ("24:00-24:00", "outside the day"),
        ("08:60-09:00", "outside the day"),
        ("08:00-24:01", "outside the day"),
        ("8-18", "write HH:MM-HH:MM"),
        ("08:00–18:00", "write HH:MM-HH:MM"),
        ("٠٨:00-18:00", "write HH:MM-HH:MM"),
    ],
)
def test_an_impossible_interval_is_refused_with_its_value_and_what_is_allowed(text: str, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        schedule(mon=[text])
    fault = refused.value.errors()[0]
    assert said in fault["msg"]
    assert text in fault["msg"]
    assert fault["loc"][:2] == ("weekly", "mon")


@pytest.mark.parametrize("text", ["00:00-24:00", "08:00-18:00", "22:00-06:00+1", "00:00-00:01", "12:30-12:30+1"])
def test_an_interval_is_written_as_it_was_read(text: str) -> None:
    assert str(Interval.parse(text)) == text


@pytest.mark.parametrize(
    ("weekly", "said"),
    [
        ({"someday": ["08:00-09:00"]}, "no day"),
        ({"mon-fri": ["08:00-09:00"], "tue": ["08:00-09:00"]}, "tue is given twice"),
        ({"mon": ["08:00-10:00", "09:59-11:00"]}, "overlap"),
    ],
)
def test_a_contradictory_week_is_refused_in_words(weekly: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Schedule.model_validate({"weekly": weekly})


def test_a_range_of_days_may_run_over_the_weekend() -> None:
    assert set(schedule(sat_mon=["00:00-24:00"]).weekly) == {"sat", "sun", "mon"}


@pytest.mark.parametrize(
    ("utc", "expected"),
    [
        ("2026-11-23T07:59:59", False),  # a Monday, Berlin is UTC+1
        ("2026-11-23T08:00:00", True),
        ("2026-11-23T16:59:59", True),
        ("2026-11-23T17:00:00", False),
        ("2026-11-28T12:00:00", False),  # Saturday
    ],
)
def test_an_interval_starts_with_its_first_and_ends_before_its_last_second(utc: str, expected: bool) -> None:
    assert inside(schedule(mon_fri=["09:00-18:00"]), utc) is expected


@pytest.mark.parametrize(
    ("utc", "expected"),
    [
        ("2026-11-27T20:59", False),  # Friday 21:59
        ("2026-11-27T21:00", True),
        ("2026-11-28T04:59", True),  # Saturday 05:59
        ("2026-11-28T05:00", False),
        ("2026-11-28T22:00", False),  # Saturday night has none
    ],
)
def test_an_interval_over_midnight_belongs_to_the_day_it_starts_on(utc: str, expected: bool) -> None:
    assert inside(schedule(fri=["22:00-06:00+1"]), utc) is expected


@pytest.mark.parametrize(
    ("utc", "expected"),
    [
        ("2026-03-29T00:29", False),  # 01:29 CET
        ("2026-03-29T00:30", True),
        ("2026-03-29T01:00", True),  # 03:00 CEST: 02:00 to 03:00 does not exist
        ("2026-03-29T01:29", True),
        ("2026-03-29T01:30", False),
    ],
)
def test_the_skipped_hour_of_spring_shortens_an_interval(utc: str, expected: bool) -> None:
    assert inside(schedule(sun=["01:30-03:30"]), utc) is expected


def test_an_interval_inside_the_skipped_hour_never_comes() -> None:
    gap = schedule(sun=["02:10-02:50"])
    assert not any(inside(gap, f"2026-03-29T{hour:02}:{minute:02}") for hour in range(24) for minute in (0, 20, 40))
    assert inside(gap, "2026-03-22T01:20")  # the Sunday before


@pytest.mark.parametrize(
    ("utc", "expected"),
    [
        ("2026-10-24T23:59", False),  # 01:59 CEST
        ("2026-10-25T00:00", True),  # 02:00 CEST
        ("2026-10-25T00:59", True),
        ("2026-10-25T01:00", True),  # 02:00 CET, for the second time
        ("2026-10-25T01:59", True),
        ("2026-10-25T02:00", False),
    ],
)
def test_the_repeated_hour_of_autumn_counts_twice(utc: str, expected: bool) -> None:
    assert inside(schedule(sun=["02:00-03:00"]), utc) is expected


def test_the_end_of_an_interval_is_an_instant_after_the_change_of_clocks() -> None:
    found = schedule(sun=["00:00-24:00"]).interval_at(
        datetime(2026, 10, 25, 12, tzinfo=UTC), zone=BERLIN, calendar=PLAIN
    )
    assert found == (datetime(2026, 10, 24, 22, tzinfo=UTC), datetime(2026, 10, 25, 23, tzinfo=UTC))


def test_leap_day_is_a_day_of_its_own_weekday_and_may_be_a_yearly_holiday() -> None:
    weekdays = schedule(tue=["09:00-18:00"])  # 2028-02-29 is a Tuesday
    leap = Calendar(yearly={"02-29": "founders"})
    assert inside(weekdays, "2028-02-29T10:00")
    assert not inside(weekdays, "2028-02-29T10:00", calendar=leap)
    assert inside(weekdays, "2027-03-02T10:00", calendar=leap)


def test_a_holiday_follows_its_own_intervals_and_has_none_by_default() -> None:
    calendar = Calendar(holidays={date(2026, 10, 1): "public", date(2026, 12, 24): "half-day"})
    hours = Schedule.model_validate({"weekly": {"daily": ["09:00-18:00"]}, "holidays": {"half-day": ["09:00-12:00"]}})
    assert not inside(hours, "2026-10-01T02:00", SHANGHAI, calendar)
    assert inside(hours, "2026-12-24T03:59", SHANGHAI, calendar)
    assert not inside(hours, "2026-12-24T04:00", SHANGHAI, calendar)


def test_a_weekend_day_worked_in_exchange_follows_the_weekday_it_stands_for() -> None:
    calendar = Calendar(working_days={date(2026, 10, 10): "wed"})  # a Saturday
    assert inside(schedule(wed=["09:00-18:00"]), "2026-10-10T02:00", SHANGHAI, calendar)
    assert not inside(schedule(sat=["09:00-18:00"]), "2026-10-10T02:00", SHANGHAI, calendar)


def test_a_night_that_starts_on_a_working_day_runs_on_into_the_holiday() -> None:
    calendar = Calendar(holidays={date(2026, 10, 1): "public"})
    assert inside(schedule(wed=["22:00-06:00+1"]), "2026-09-30T21:00", SHANGHAI, calendar)  # 05:00 on the holiday


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"yearly": {"02-30": "x"}}, "no day of a year"),
        ({"yearly": {"2-3": "x"}}, "no day of a year"),
        ({"working_days": {"2026-10-10": "lundi"}}, "must be one of mon"),
        ({"working_days": {"2026-10-10": "mon"}, "holidays": {"2026-10-10": "x"}}, "one or the other"),
    ],
)
def test_a_calendar_that_contradicts_itself_is_refused_in_words(document: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Calendar.model_validate(document)


def test_always_contains_every_minute_of_a_day_of_25_hours() -> None:
    assert all(inside(ALWAYS, f"2026-10-25T{hour:02}:{minute:02}") for hour in range(24) for minute in range(60))


def test_a_schedule_survives_json() -> None:
    original = Schedule.model_validate({"weekly": {"mon-wed": ["22:00-06:00+1"]}, "holidays": {"public": []}})
    assert Schedule.model_validate_json(original.model_dump_json()) == original


@given(st.text(max_size=20) | st.from_regex(r"\d\d:\d\d-\d\d:\d\d(\+1)?", fullmatch=True))
def test_any_text_is_an_interval_of_at_most_a_day_or_refused(text: str) -> None:
    try:
        interval = Interval.parse(text)
    except ValueError:
        return
    assert 0 < interval.end - interval.start <= 24 * 60
    assert str(interval) == text


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-11-23", "2028-02-29"])
@pytest.mark.parametrize(
    "text", ["01:30-03:30", "02:15-02:45", "02:30-04:00", "00:00-02:30", "22:00-02:30+1", "02:30-02:30+1"]
)
def test_inside_an_interval_now_lies_between_its_start_and_end(day: str, text: str) -> None:
    hours = schedule(daily=[text])
    midnight = datetime.fromisoformat(day).replace(tzinfo=BERLIN).astimezone(UTC)
    for minute in range(-60, 26 * 60, 5):
        now = midnight + timedelta(minutes=minute)
        running = hours.interval_at(now, zone=BERLIN, calendar=PLAIN)
        assert (running is not None) is hours.contains(now, zone=BERLIN, calendar=PLAIN)
        if running is not None:
            assert running[0] <= now < running[1]
