"""How long each class of data rests here, and what is due to go.

A record is kept while its age is below the period and is due at the very moment it reaches it. Images have no
period: they are never stored. Templates without a published period may not be captured at all (`policy.consent`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

LONGEST_TEMPLATE_DAYS = 1095  # three years since the last interaction


class Kept(StrEnum):
    TEMPLATE = "template"  # since the last interaction
    EVENT = "event"
    AUDIT = "audit"
    RECEIPT = "receipt"
    REQUEST = "request"  # rights requests, since they were answered


@dataclass(frozen=True, slots=True)
class Periods:
    """Days by class; `template` None means that no schedule is published."""

    event: int = 30
    audit: int = 1095
    receipt: int = 1095
    request: int = 1095
    template: int | None = None

    def __post_init__(self) -> None:
        for kept in Kept:
            days = self.days(kept)
            if days is not None and not 1 <= days <= 3650:
                raise ValueError(f"{kept}: {days} days; allowed are 1 to 3650")
        if self.template is not None and self.template > LONGEST_TEMPLATE_DAYS:
            raise ValueError(f"template: {self.template} days; allowed are 1 to {LONGEST_TEMPLATE_DAYS}")

    def days(self, kept: Kept) -> int | None:
        found: int | None = getattr(self, kept.value)
        return found


def cutoff(kept: Kept, periods: Periods, *, now: datetime) -> datetime | None:
    """Everything dated at or before this is due; None if the class has no period."""
    days = periods.days(kept)
    return None if days is None else now - timedelta(days=days)


def is_due(kept: Kept, periods: Periods, *, since: datetime, now: datetime) -> bool:
    """Templates without a period are due at once: the schedule under which they were taken is gone."""
    limit = cutoff(kept, periods, now=now)
    return True if limit is None else since <= limit
