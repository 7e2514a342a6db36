"""Weekly schedules and holidays on the site's wall clock.

An interval is what the clock on the wall shows: `08:00-18:00`, `18:00-24:00`, `22:00-06:00+1` (ends on the next
day). So a repeated hour in autumn counts twice, and an interval inside the skipped hour of spring never comes.
An interval belongs to the day on which it starts: one that begins on a working day runs on into a holiday.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema

DAY_MINUTES = 24 * 60
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
FORM = "HH:MM-HH:MM, or HH:MM-HH:MM+1 if it ends on the next day"
_INTERVAL = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)(\+1)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Interval:
    """[start, end) in minutes after midnight of the day it starts on; `end` beyond 1440 is the next day."""

    start: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Raises ValueError in words that name the value and what is allowed."""
        found = _INTERVAL.fullmatch(text)
        if found is None:
            raise ValueError(f"{text[:40]!r} is no interval; write {FORM}")
        hour, minute, end_hour, end_minute = (int(part) for part in found.groups()[:4])
        start, end = hour * 60 + minute, end_hour * 60 + end_minute
        if minute > 59 or end_minute > 59 or start >= DAY_MINUTES or end > DAY_MINUTES:
            raise ValueError(f"{text!r} has a time outside the day; starts go from 00:00 to 23:59, ends to 24:00")
        if found.group(5):
            end += DAY_MINUTES
            if end - start > DAY_MINUTES:
                raise ValueError(f"{text!r} is longer than 24 hours; an interval lasts at most a day")
        elif end <= start:
            raise ValueError(f"{text!r} ends before it starts; allowed is a later end, or {text}+1 to end the next day")
        return cls(start, end)

    def __str__(self) -> str:
        end = self.end if self.end <= DAY_MINUTES else self.end - DAY_MINUTES
        following = "+1" if self.end > DAY_MINUTES else ""
        return f"{self.start // 60:02}:{self.start % 60:02}-{end // 60:02}:{end % 60:02}{following}"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        def known(value: Any) -> Any:
            return str(value) if isinstance(value, cls) else value

        text = core_schema.no_info_after_validator_function(cls.parse, core_schema.str_schema(max_length=40))
        return core_schema.no_info_before_validator_function(
            known, text, serialization=core_schema.to_string_ser_schema()
        )


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


Name = Annotated[str, Field(min_length=1, max_length=64)]
Intervals = Annotated[tuple[Interval, ...], Field(max_length=16)]


class Calendar(_Model):
    """Which days are not what their weekday says. Kinds are the site's own words ("public", "half-day")."""

    holidays: dict[date, Name] = Field(default_factory=dict)
    yearly: dict[str, Name] = Field(default_factory=dict, description="MM-DD -> kind; 02-29 comes in leap years only")
    working_days: dict[date, str] = Field(
        default_factory=dict, description="days worked in place of another: date -> the weekday they follow"
    )

    @model_validator(mode="after")
    def _days_exist(self) -> Calendar:
        for day in self.yearly:
            if not _is_day_of_year(day):
                raise ValueError(f"yearly: {day[:20]!r} is no day of a year; write MM-DD")
        for when, weekday in self.working_days.items():
            if weekday not in WEEKDAYS:
                raise ValueError(f"working_days[{when}]: {weekday!r} must be one of {', '.join(WEEKDAYS)}")
            if when in self.holidays:
                raise ValueError(f"{when} stands under holidays and under working_days; a day is one or the other")
        return self

    def kind(self, day: date) -> str | None:
        """The holiday's kind, None on an ordinary day."""
        if day in self.working_days:
            return None
        return self.holidays.get(day) or self.yearly.get(f"{day:%m-%d}")

    def weekday(self, day: date) -> str:
        return self.working_days.get(day) or WEEKDAYS[day.weekday()]


class Schedule(_Model):
    """Intervals by weekday, and by kind of holiday; a holiday that is not named here has none."""

    weekly: dict[str, Intervals] = Field(default_factory=dict)
    holidays: dict[Name, Intervals] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _spread_days(cls, document: Any) -> Any:
        """`mon-fri` and `daily` are short for their days."""
        if not isinstance(document, Mapping) or not isinstance(document.get("weekly"), Mapping):
            return document
        weekly: dict[str, Any] = {}
        for key, intervals in document["weekly"].items():
            days = tuple(_days(str(key)))
            if not days:
                raise ValueError(
                    f"weekly: {str(key)[:20]!r} is no day;"
                    f" allowed are {', '.join(WEEKDAYS)}, a range such as mon-fri, and daily"
                )
            for day in days:
                if day in weekly:
                    raise ValueError(f"weekly: {day} is given twice; name each day once")
                weekly[day] = intervals
        return {**document, "weekly": weekly}

    @model_validator(mode="after")
    def _no_overlap(self) -> Schedule:
        for days, what in ((self.weekly, "weekly"), (self.holidays, "holidays")):
            for day, intervals in days.items():
                ordered = sorted(intervals, key=lambda interval: interval.start)
                for first, second in pairwise(ordered):
                    if second.start < first.end:
                        raise ValueError(f"{what}.{day}: {first} and {second} overlap; allowed are separate intervals")
        return self

    def _of(self, day: date, calendar: Calendar) -> Intervals:
        kind = calendar.kind(day)
        return self.weekly.get(calendar.weekday(day), ()) if kind is None else self.holidays.get(kind, ())

    def spans_on(self, day: date, calendar: Calendar) -> Iterator[tuple[int, int]]:
        """[start, end) in minutes of this day's wall clock, with what runs on from the day before."""
        for begun, shift in ((day, 0), (day - timedelta(days=1), DAY_MINUTES)):
            for interval in self._of(begun, calendar):
                start, end = max(interval.start - shift, 0), min(interval.end - shift, DAY_MINUTES)
                if start < end:
                    yield start, end

    def _running(self, local: datetime, calendar: Calendar) -> Iterator[tuple[date, Interval]]:
        minute = local.hour * 60 + local.minute
        for day, shift in ((local.date(), 0), (local.date() - timedelta(days=1), DAY_MINUTES)):
            for interval in self._of(day, calendar):
                if interval.start <= minute + shift < interval.end:
                    yield day, interval

    def contains(self, now: datetime, *, zone: ZoneInfo, calendar: Calendar) -> bool:
        """Whether the wall clock is inside an interval. `now` is aware."""
        return any(True for _ in self._running(now.astimezone(zone), calendar))

    def interval_at(self, now: datetime, *, zone: ZoneInfo, calendar: Calendar) -> tuple[datetime, datetime] | None:
        """Start and end, in UTC, of the interval around `now`; the longest-lasting if two touch it."""
        running = [
            (_instant(day, interval.start, zone, fold=0), _instant(day, interval.end, zone, fold=1))
            for day, interval in self._running(now.astimezone(zone), calendar)
        ]
        return max(running, key=lambda pair: pair[1], default=None)


def _instant(day: date, minute: int, zone: ZoneInfo, *, fold: int) -> datetime:
    days, rest = divmod(minute, DAY_MINUTES)
    """`fold` 0: the earlier reading of a repeated hour, and never later than the first minute inside."""
    naive = datetime.combine(day + timedelta(days=days), time(rest // 60, rest % 60))  # a wall clock
    moment = naive.replace(tzinfo=zone, fold=fold).astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) != naive:  # a reading of the skipped hour: take the other side
        return naive.replace(tzinfo=zone, fold=1 - fold).astimezone(UTC)
    return moment


def _is_day_of_year(text: str) -> bool:
    if not re.fullmatch(r"\d\d-\d\d", text, re.ASCII):
        return False
    try:
        date.fromisoformat(f"2000-{text}")  # a leap year: 02-29 is a day
    except ValueError:
        return False
    return True


def _days(key: str) -> Iterator[str]:
    if key == "daily":
        yield from WEEKDAYS
        return
    first, dash, last = key.partition("-")
    if first not in WEEKDAYS or (dash and last not in WEEKDAYS):
        return
    start = WEEKDAYS.index(first)
    end = WEEKDAYS.index(last) if dash else start
    yield from (
        (WEEKDAYS[n] for n in range(start, end + 1))
        if end >= start
        else (WEEKDAYS[n % 7] for n in range(start, end + 8))
    )


ALWAYS = Schedule.model_validate({"weekly": {"daily": ["00:00-24:00"]}})
