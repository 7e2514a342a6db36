"""Anti-passback: nobody enters twice without leaving, nobody passes a card back over the fence.

A person whose whereabouts are unknown, or older than the zone's memory, is let in: a restart or a power cut must not
lock a building. Going outside is never denied, whatever the rule: leaving does not depend on us.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

OUTSIDE = ""


class PassbackRule(StrEnum):
    OFF = "off"
    SOFT = "soft"  # let in, and said
    HARD = "hard"
    TIMED = "timed"  # hard for some minutes after the entry


class Passback(StrEnum):
    CLEAR = "clear"
    WARNING = "warning"
    VIOLATION = "violation"


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """The zone a person was last let into, when, and through which door."""

    zone: str
    since: datetime
    door: str = ""


def judge(
    rule: PassbackRule,
    *,
    origin: str,
    target: str,
    last: Whereabouts | None,
    now: datetime,
    timed: timedelta,
    memory: timedelta,
) -> Passback:
    """Whether stepping from zone `origin` to `target` contradicts where the person was last."""
    if rule is PassbackRule.OFF or origin == target or last is None or last.since + memory <= now:
        return Passback.CLEAR
    twice = last.zone == target
    if rule is PassbackRule.TIMED:
        twice = twice and now < last.since + timed
    elsewhere = rule in (PassbackRule.SOFT, PassbackRule.HARD) and last.zone not in (origin, target)
    if not twice and not elsewhere:
        return Passback.CLEAR
    if rule is PassbackRule.SOFT or target == OUTSIDE:
        return Passback.WARNING
    return Passback.VIOLATION
