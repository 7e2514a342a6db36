"""The day in figures and its chart, and one person's day as a line with pins."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from edge_agent.api.context import Gateway
from edge_agent.console.page import Text
from edge_agent.console.views import zone_of
from edge_agent.database import utc_text
from edge_agent.delivery.event import Stored
from edge_agent.policy.rules import EVERY_TIME, AccessRules
from edge_agent.policy.schedules import DAY_MINUTES, Interval

SLOTS = 96  # quarter hours of a day
CHART_HEIGHT = 112


def day_slots(connection: sqlite3.Connection, start: datetime, prefix: str) -> list[int]:
    """How many events of a type began in each quarter hour of the day that starts at `start`."""
    end = start + timedelta(days=1)
    slots = [0] * SLOTS
    for text, count in connection.execute(
        "SELECT substr(occurred_at, 1, 16), count(*) FROM events WHERE occurred_at >= ? AND occurred_at < ?"
        " AND substr(type, 1, length(?3)) = ?3 GROUP BY 1",
        (utc_text(start), utc_text(end), prefix),
    ):
        minute = (datetime.fromisoformat(text + ":00+00:00") - start).total_seconds() / 60
        slots[min(SLOTS - 1, max(0, int(minute // 15)))] += count
    return slots


async def today(gateway: Gateway, t: Text) -> dict[str, Any]:
    """The day's figures and its chart, in the coordinates of a 960 x 150 drawing."""
    zone, now = zone_of(gateway), gateway.governance.now()
    local = now.astimezone(zone)
    start = local.replace(hour=0, minute=0, second=0, microsecond=0)

    def read(connection: sqlite3.Connection) -> tuple[list[int], list[int], list[int], list[int], int, str | None]:
        punches = day_slots(connection, start, "attendance.")
        entries = day_slots(connection, start, "access.granted")
        denied = day_slots(connection, start, "access.denied")
        before = day_slots(connection, start - timedelta(days=7), "attendance.")
        unknown, first = connection.execute(
            "SELECT coalesce(sum(subject IS NULL), 0), min(occurred_at) FROM events"
            " WHERE type = 'attendance.punch' AND occurred_at >= ?",
            (utc_text(start),),
        ).fetchone()
        return punches, entries, denied, before, unknown, first

    punches, entries, denied, before, unknown, first = await gateway.governance.database.read(read)
    peak = max(*punches, *before, 1)
    scale = (CHART_HEIGHT - 8) / peak
    bars = [
        (n * 10 + 1, round(120 - count * scale, 1), round(count * scale, 1)) for n, count in enumerate(punches) if count
    ]
    usual = ""
    if any(before):
        usual = "M" + " L".join(f"{n * 10} {120 - count * scale:.1f} h10" for n, count in enumerate(before))
    minutes = (local - start).total_seconds() / 60
    busiest = max(range(SLOTS), key=punches.__getitem__)
    at = f"{busiest // 4:02}:{busiest % 4 * 15:02}"
    return {
        "kpi": [
            (t("打卡", "Punches"), "punches", sum(punches)),
            (t("通行", "Entries"), "entries", sum(entries)),
            (t("拒绝", "Denied"), "denied", sum(denied)),
            (t("未识别", "Unknown"), "unknown", unknown),
        ],
        "first": datetime.fromisoformat(first).astimezone(zone).strftime("%H:%M") if first else "",
        "chart": {
            "bars": bars,
            "denied": [n * 10 + 1 for n, count in enumerate(denied) if count],
            "usual": usual,
            "now": round(minutes / 1.5, 1),
            "label": t(
                f"今日打卡柱状图，峰值 {at}，{punches[busiest]} 次",
                f"Bar chart of today; the peak is {punches[busiest]} at {at}",
            ),
        },
    }


def span(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The day on the wall clock: [start, end)."""
    start = datetime(day.year, day.month, day.day, tzinfo=zone)
    following = day + timedelta(days=1)
    return start, datetime(following.year, following.month, following.day, tzinfo=zone)


def open_hours(rules: AccessRules, groups: Iterable[str], day: date) -> list[Interval]:
    """When the groups admit somebody to any door on this day, joined where they meet."""
    wanted = set(groups)
    names = {grants.schedule for group in rules.groups if group.name in wanted for grants in group.grants}
    if EVERY_TIME in names:
        return [Interval(0, DAY_MINUTES)]
    found: list[Interval] = []
    for schedule in (rules.schedules[name] for name in names if name in rules.schedules):
        for when, shift in ((day, 0), (day - timedelta(days=1), -DAY_MINUTES)):
            kind = rules.calendar.kind(when)
            weekly = schedule.weekly.get(rules.calendar.weekday(when), ())
            for interval in weekly if kind is None else schedule.holidays.get(kind, ()):
                start, end = max(0, interval.start + shift), min(DAY_MINUTES, interval.end + shift)
                if start < end:
                    found.append(Interval(start, end))
    joined: list[Interval] = []
    for interval in sorted(found, key=lambda each: each.start):
        if joined and interval.start <= joined[-1].end:
            joined[-1] = Interval(joined[-1].start, max(joined[-1].end, interval.end))
        else:
            joined.append(interval)
    return joined


def track(events: list[Stored], hours: list[Interval], zone: ZoneInfo, t: Text) -> dict[str, Any]:
    """Pins and hours in per cent of the day; `events` in the order of time."""
    pins: list[dict[str, Any]] = []
    bands: list[tuple[float, float]] = []
    inside: float | None = None
    for item in events:
        local = item.event.occurred_at.astimezone(zone)
        at = round((local.hour * 60 + local.minute) / DAY_MINUTES * 100, 2)
        denied = item.event.type == "access.denied"
        pins.append({"x": at, "denied": denied, "at": local.strftime("%H:%M")})
        state = item.event.data.get("state")
        if state == "in" and inside is None:
            inside = at
        elif state == "out" and inside is not None:
            bands.append((inside, round(at - inside, 2)))
            inside = None
    if inside is not None:
        bands.append((inside, round(pins[-1]["x"] - inside, 2)))
    said = ", ".join(str(hour) for hour in hours) or t("无", "none")
    return {
        "pins": pins,
        "bands": bands,
        "hours": [
            (round(each.start / DAY_MINUTES * 100, 2), round((each.end - each.start) / DAY_MINUTES * 100, 2))
            for each in hours
        ],
        "label": t(
            f"当日时间线：{len(pins)} 个事件；可通行时段 {said}",
            f"Timeline: {len(pins)} events; hours of access {said}",
        ),
    }
