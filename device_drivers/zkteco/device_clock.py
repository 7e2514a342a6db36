"""The terminal's two ways of writing a time. Naive, in whatever zone its clock is set to.

Source: adrobinoga/zk-protocol, sections/terminal.md "Get Time" and sections/realtime.md. After a power
loss terminals write dates that do not exist; those decode to None, never to a guess, and are told apart by
the six numbers themselves, which are the same in both ways.
"""

from __future__ import annotations

import struct
from datetime import datetime

PACKED_MAX = 0xFFFFFFFF  # 2133-08-18


Six = tuple[int, int, int, int, int, int]  # year, month, day, hour, minute, second


def unpack_six(value: int) -> Six:
    """Seconds in a calendar whose months all have 31 days, counted from 2000."""
    minutes, second = divmod(value, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    months, day = divmod(days, 31)
    years, month = divmod(months, 12)
    return 2000 + years, month + 1, day + 1, hour, minute, second


def unpack_time(value: int) -> datetime | None:
    return date_of(unpack_six(value))


def pack_time(when: datetime) -> int:
    """Raises ValueError outside 2000..2133."""
    days = ((when.year - 2000) * 12 + when.month - 1) * 31 + when.day - 1
    value = ((days * 24 + when.hour) * 60 + when.minute) * 60 + when.second
    if not 0 <= value <= PACKED_MAX:
        raise ValueError(f"a ZKTeco clock cannot hold the year {when.year}")
    return value


def read_six(data: bytes) -> Six:
    """Year since 2000, month, day, hour, minute, second: one byte each, in live events."""
    year, month, day, hour, minute, second = struct.unpack("6B", data)
    return 2000 + year, month, day, hour, minute, second


def date_of(six: Six) -> datetime | None:
    try:
        return datetime(*six)  # noqa: DTZ001 - naive, as it was said
    except ValueError:
        return None
