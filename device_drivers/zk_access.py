"""What ZKTeco's access panels say alike whether they are asked (C3) or call us (ADMS security push).

Source: Security PUSH Communication Protocol 4.8, appendices 2 (events), 3 (verification), 5 and 6 (packed seconds).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from device_drivers.events import DoorEventKind, VerifyMode

_GRANTED = {0, 1, 2, 3, 4, 5, 14, 15, 16, 17, 18, 19, 203, 207, 208, 215, 216, 218, 222, 232}
_DENIED = {*range(20, 28), *range(29, 37), *range(38, 54), 61, 62, 63, 64, 67, 68, 69, 73, 74, 75, 104}
ACCESS_EVENTS: dict[int, DoorEventKind] = {
    **dict.fromkeys(_GRANTED, DoorEventKind.GRANTED),
    **dict.fromkeys(_DENIED, DoorEventKind.DENIED),
    8: DoorEventKind.REMOTE_OPEN,
    9: DoorEventKind.LOCKED,
    28: DoorEventKind.HELD,
    100: DoorEventKind.TAMPER,
    101: DoorEventKind.DURESS,
    102: DoorEventKind.FORCED,
    103: DoorEventKind.DURESS,
    105: DoorEventKind.LINK_LOST,
    106: DoorEventKind.POWER_LOST,
    107: DoorEventKind.POWER_LOST,
    109: DoorEventKind.TAMPER,
    200: DoorEventKind.OPENED,
    201: DoorEventKind.CLOSED,
    202: DoorEventKind.BUTTON,
    204: DoorEventKind.LOCKED,
    205: DoorEventKind.UNLOCKED,
    206: DoorEventKind.POWER_RESTORED,
    210: DoorEventKind.FIRE,
    214: DoorEventKind.LINK_RESTORED,
    233: DoorEventKind.LOCKED,
    234: DoorEventKind.UNLOCKED,
    236: DoorEventKind.TAMPER_CLEARED,
    243: DoorEventKind.FIRE,
    244: DoorEventKind.FIRE,
}

# Appendix 3: what the door demanded. The "A or B" rows do not tell which was used, so they stay OTHER.
ACCESS_VERIFY = {
    1: VerifyMode.FINGER,
    3: VerifyMode.PIN,
    4: VerifyMode.CARD,
    15: VerifyMode.FACE,
    25: VerifyMode.PALM,
}
COMBINED_VERIFY = frozenset({*range(8, 15), *range(16, 21), 22, 23, 24, *range(26, 30)})

# Bits of the newer 16-character verifytype, bit 0 rightmost.
VERIFY_BITS = {
    1: VerifyMode.FACE,
    2: VerifyMode.PALM,
    3: VerifyMode.PALM,
    4: VerifyMode.FINGER,
    6: VerifyMode.VOICE,
    7: VerifyMode.IRIS,
    9: VerifyMode.PIN,
    11: VerifyMode.CARD,
    12: VerifyMode.QR,
}
VERIFY_BITS_LEN = 13  # shorter strings are decimal codes of appendix 3


def leaves(sensors: Iterable[int]) -> dict[int, bool]:
    """Door -> whether its leaf stands open, of those with a sensor: 0 none, 1 closed, 2 open."""
    return {door: state == 2 for door, state in enumerate(sensors, start=1) if state in (1, 2)}


def verify_mode(code: int) -> VerifyMode:
    if code in COMBINED_VERIFY:
        return VerifyMode.COMBINED
    return ACCESS_VERIFY.get(code, VerifyMode.OTHER)


def verify_text(text: str) -> tuple[VerifyMode, int]:
    """`verifytype` or `verified` -> (mode, number): a decimal code, or the newer string of bits."""
    if len(text) >= VERIFY_BITS_LEN and set(text) <= {"0", "1"}:
        bits = int(text[:64], 2)
        used = [bit for bit in range(len(text)) if bits >> bit & 1]
        if len(used) == 1:
            return VERIFY_BITS.get(used[0], VerifyMode.OTHER), bits
        return (VerifyMode.COMBINED if used else VerifyMode.OTHER), bits
    code = int(text) if text.isascii() and text.isdecimal() and len(text) < VERIFY_BITS_LEN else 0
    return verify_mode(code), code


def decode_seconds(value: int) -> datetime | None:
    """Packed seconds with months of 31 days; None if it is no date."""
    if not 0 <= value < 1 << 32:
        return None
    days, seconds = divmod(value, 86_400)
    months, day = divmod(days, 31)
    years, month = divmod(months, 12)
    try:
        return datetime(2000 + years, month + 1, day + 1) + timedelta(seconds=seconds)  # noqa: DTZ001 device-local
    except ValueError:
        return None


def encode_seconds(value: datetime) -> int:
    days = ((value.year - 2000) * 12 + value.month - 1) * 31 + value.day - 1
    return days * 86_400 + (value.hour * 60 + value.minute) * 60 + value.second
