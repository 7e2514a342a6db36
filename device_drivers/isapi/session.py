"""Where reading of the event log stands: the terminal, the highest number made durable, and what that record says.

Serial numbers count up by one until the log is cleared, the terminal reset or replaced; then they begin again and may
soon be past ours. So the record behind the number is looked at each time: one that says something else, or is gone,
means that this is another log, and everything is read. A terminal's clock may jump, so time takes no part in where
to read on, and results may come in the order of a wrong clock.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from device_drivers.events import DoorEvent, Punch

OVERLAP = 20


def code(event: Punch | DoorEvent) -> int:
    """The maker's number of what happened, whether or not it is known whose punch it is."""
    return event.verify_code if isinstance(event, Punch) else event.reason_code & 0xFFFF


def mark(event: Punch | DoorEvent) -> str:
    """What tells a record from another one of the same number: its time and its kind. People may be blanked later."""
    return f"{event.device_time} {code(event)}"


@dataclass(frozen=True, slots=True)
class LogPosition:
    """`last`: highest serial number made durable; None before the first. Cursors of earlier versions hold no more."""

    last: int | None = None
    mark: str = ""
    serial: str = ""  # of the terminal

    @classmethod
    def from_cursor(cls, cursor: bytes | None) -> LogPosition:
        """An unreadable cursor means: everything again."""
        try:
            saved = json.loads(cursor) if cursor else {}
        except ValueError:
            return cls()
        last = saved.get("last") if isinstance(saved, dict) else None
        if not isinstance(last, int) or isinstance(last, bool) or last < 0:
            return cls()
        return cls(last, str(saved.get("mark", "")), str(saved.get("serial", "")))

    def cursor(self) -> bytes:
        return json.dumps({"last": self.last, "mark": self.mark, "serial": self.serial}).encode()

    def after(self, found: Mapping[int, str], *, serial: str) -> LogPosition:
        """Everything up to the highest of these numbers is durable."""
        top = max(found, default=-1)
        return LogPosition(top, found[top], serial) if top > (-1 if self.last is None else self.last) else self

    def is_of(self, serial: str) -> bool:
        return self.serial in {"", serial}

    def is_in(self, found: Mapping[int, str]) -> bool:
        """Whether our last record is among these and says what it said."""
        return self.last is not None and self.last in found and self.mark in {"", found[self.last]}
