"""How often somebody may fail before a factor waits, and before it is switched off in favour of another.

Figures from NIST SP 800-63B-4 (draft), 5.2.3: at most 5 failures in a row, 10 where presentation attacks are
detected, then a delay of at least 30 s; at 50 (100) in all the factor is disabled until a person resets it.

Only an attempt that meets `Stand.FREE` is made and counted. So the delay runs from the moment the row was filled, and
whoever goes on trying neither ends it nor keeps it up.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Limits:
    in_a_row: int = 5
    in_a_row_with_pad: int = 10
    delay: timedelta = timedelta(seconds=30)
    in_all: int = 50
    in_all_with_pad: int = 100

    def __post_init__(self) -> None:
        if not (0 < self.in_a_row <= self.in_a_row_with_pad <= 10 and self.in_a_row <= 5):
            raise ValueError("in_a_row: allowed are 1 to 5, with presentation attack detection up to 10")
        if not (0 < self.in_all <= 50 and self.in_all <= self.in_all_with_pad <= 100):
            raise ValueError("in_all: allowed are 1 to 50, with presentation attack detection up to 100")
        if self.delay < timedelta(seconds=30):
            raise ValueError(f"delay: {self.delay.total_seconds():g} s is too short; allowed is 30 s or more")


LIMITS = Limits()


class Stand(StrEnum):
    """What the next attempt meets."""

    FREE = "free"
    WAIT = "wait"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Attempts:
    """Failures of one factor at one place, or of one person with one factor."""

    in_a_row: int = 0
    in_all: int = 0
    last: datetime | None = None

    def failed(self, now: datetime) -> Attempts:
        return Attempts(self.in_a_row + 1, self.in_all + 1, now)

    def succeeded(self) -> Attempts:
        """A success ends the row and clears the count: the person behind it has been shown to be right."""
        return Attempts()

    def stand(self, now: datetime, *, limits: Limits = LIMITS, pad: bool = False, running: int = 0) -> Stand:
        """Each full row of failures earns one delay; a clock set back does not shorten it.

        `running` attempts are being compared at this moment: as many may fail before this one is.
        """
        most = limits.in_all_with_pad if pad else limits.in_all
        if self.in_all >= most:
            return Stand.DISABLED
        row = limits.in_a_row_with_pad if pad else limits.in_a_row
        if running and (self.in_a_row % row + running >= row or self.in_all + running >= most):
            return Stand.WAIT
        if self.in_a_row and self.in_a_row % row == 0 and self.last is not None and now < self.last + limits.delay:
            return Stand.WAIT
        return Stand.FREE

    def free_at(self, *, limits: Limits = LIMITS) -> datetime | None:
        return None if self.last is None else self.last + limits.delay
