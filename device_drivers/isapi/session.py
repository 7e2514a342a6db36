"""Where reading of the event log stands. Serial numbers count up by one; the cursor overlaps and notices a reset.

A terminal's clock may jump, so time takes no part in it: where a model cannot search by serial number, the distance to
the newest number tells how far from the end of the log to begin.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

OVERLAP = 20


@dataclass(frozen=True, slots=True)
class LogPosition:
    """`last`: highest serial number made durable; None before the first."""

    last: int | None = None

    @classmethod
    def from_cursor(cls, cursor: bytes | None) -> LogPosition:
        """An unreadable cursor means: everything again."""
        try:
            saved = json.loads(cursor) if cursor else {}
        except ValueError:
            return cls()
        last = saved.get("last") if isinstance(saved, dict) else None
        return cls(last if isinstance(last, int) and not isinstance(last, bool) and last >= 0 else None)

    def cursor(self) -> bytes:
        return json.dumps({"last": self.last}).encode()

    def after(self, record_no: int | None) -> LogPosition:
        if record_no is None or (self.last is not None and record_no <= self.last):
            return self
        return LogPosition(record_no)

    def is_gap(self, record_no: int) -> bool:
        """A live event that does not follow: something was missed, or the log began anew."""
        return self.last is None or record_no > self.last + 1 or record_no < self.last - OVERLAP

    def was_reset(self, newest: int) -> bool:
        """The newest number is below ours: the log was cleared or its counter began again."""
        return self.last is not None and newest < self.last

    def search(self, *, newest: int, total: int, by_serial: bool) -> tuple[int, dict[str, Any]]:
        """First result to ask for, and the conditions of the search, with an overlap."""
        if self.last is None:
            return 0, {}
        if by_serial:
            return 0, {"beginSerialNo": max(0, self.last - OVERLAP), "endSerialNo": newest}
        return max(0, total - (newest - self.last) - OVERLAP), {}
