"""What UHPPOTE fields mean: event reasons, card numbers, permissions, time profiles. Pure values.

Source: uhppoted's protocol notes and event reason table; the frames themselves are the library's business.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from device_drivers.devices import DeviceUser, DoorMode, TimeProfile
from device_drivers.events import DoorEvent, DoorEventKind, Origin, PunchState, VerifyMode

NO_EVENT = 0x00
OVERWRITTEN = 0xFF

MODE_CODES = {DoorMode.UNLOCKED: 1, DoorMode.LOCKED: 2, DoorMode.CONTROLLED: 3}
TASK_CODES = {DoorMode.CONTROLLED: 0, DoorMode.UNLOCKED: 1, DoorMode.LOCKED: 2}
PROFILES = range(2, 255)
ALWAYS = 1  # permission on a door: 0 none, 1 always, 2..254 a time profile
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2099, 12, 31)  # controllers have no "for ever"
MAX_PIN = 999_999
DELETED_CARD = 0xFFFFFFFF
SPLIT = 100_000  # Wiegand-26 is shown as facility * 100000 + number
PC_CONTROL_DENIED = 5  # host control: the card was read, the host has to decide

_K = DoorEventKind
REASONS: dict[int, tuple[DoorEventKind, str]] = {
    1: (_K.GRANTED, "swipe"),
    2: (_K.GRANTED, "swipe open"),
    3: (_K.GRANTED, "swipe close"),
    5: (_K.DENIED, "swipe denied: host control"),
    6: (_K.DENIED, "no privilege"),
    7: (_K.DENIED, "wrong PIN"),
    8: (_K.DENIED, "anti-passback"),
    9: (_K.DENIED, "more cards needed"),
    10: (_K.DENIED, "first card needed"),
    11: (_K.DENIED, "door is locked"),
    12: (_K.DENIED, "interlock"),
    13: (_K.DENIED, "limited times"),
    14: (_K.DENIED, "limited persons indoors"),
    15: (_K.DENIED, "outside time profile or expired"),
    18: (_K.DENIED, "denied"),
    20: (_K.BUTTON, "push button"),
    23: (_K.OPENED, "door opened"),
    24: (_K.CLOSED, "door closed"),
    25: (_K.GRANTED, "supervisor passcode"),
    28: (_K.POWER_RESTORED, "controller power on"),
    29: (_K.OTHER, "controller reset"),
    31: (_K.DENIED, "push button: door is locked"),
    32: (_K.DENIED, "push button: not online"),
    33: (_K.DENIED, "push button: interlock"),
    34: (_K.DURESS, "threat"),
    37: (_K.HELD, "open too long"),
    38: (_K.FORCED, "forced open"),
    39: (_K.FIRE, "fire"),
    40: (_K.LOCKED, "forced closed"),
    41: (_K.SECURITY, "theft prevention"),
    42: (_K.OTHER, "24x7 zone"),
    43: (_K.OTHER, "emergency call"),
    44: (_K.REMOTE_OPEN, "remote open"),
    45: (_K.REMOTE_OPEN, "remote open by USB reader"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the controller's event log, as it said it."""

    index: int
    kind: int
    granted: bool
    door: int
    direction: int
    card: int
    timestamp: datetime | None
    reason: int

    @classmethod
    def of(cls, reply: Any) -> Entry:
        """From the library's GetEventResponse."""
        return cls(
            reply.index, reply.event_type, reply.access_granted, reply.door, reply.direction, reply.card,
            reply.timestamp, reply.reason,
        )  # fmt: skip

    @property
    def digest(self) -> int:
        """Tells this record from another one that got the same index after the log was cleared."""
        return zlib.crc32(repr((self.kind, self.door, self.card, self.timestamp, self.reason)).encode())


def age(entry: Entry, status: Any) -> timedelta:
    """How old an event was when the controller gave its status, by its own clock; none if it does not say."""
    if entry.timestamp is None or status.system_date is None or status.system_time is None:
        return timedelta()
    return abs(datetime.combine(status.system_date, status.system_time) - entry.timestamp)


def door_event(entry: Entry, *, serial: str, card_format: str, live: bool = True, raw: bytes = b"") -> DoorEvent:
    kind, words = REASONS.get(entry.reason, (_K.OTHER, f"reason {entry.reason}"))
    if kind is _K.GRANTED and not entry.granted:
        kind = _K.DENIED
    swiped = entry.kind == 1 or kind is _K.DURESS
    card = card_value(entry.card, card_format) if swiped and entry.card else ""
    return DoorEvent(
        device_serial=serial,
        kind=kind,
        door=entry.door or None,
        reader=reader_number(entry.door, entry.direction) if swiped and entry.door else None,
        user_id=str(entry.card) if card else "",
        card=card,
        device_time=entry.timestamp,
        record_no=entry.index,
        reason_code=entry.reason,
        reason=words,
        direction={1: PunchState.IN, 2: PunchState.OUT}.get(entry.direction, PunchState.OTHER),
        verify_mode=VerifyMode.CARD if card else VerifyMode.OTHER,
        origin=Origin.LIVE if live else Origin.BACKLOG,
        raw=raw,
    )


def reader_number(door: int, direction: int) -> int:
    """Readers 1..4 are the entry readers of doors 1..4; 5..8 those on the way out."""
    return door + 4 if direction == 2 else door


def card_value(shown: int, card_format: str) -> str:
    """The card's whole value from the number the controller shows.

    A controller set to Wiegand-26 shows facility and number side by side in decimal; one set to Wiegand-34
    shows all 32 bits as they are.
    """
    facility, number = divmod(shown, SPLIT)
    if card_format == "wiegand-26" and facility <= 0xFF and number <= 0xFFFF:
        return str(facility << 16 | number)
    return str(shown)


def shown_number(value: str, card_format: str) -> int:
    """The number a controller must hold for the card of this value. Raises ValueError with the reason."""
    if not (value.isascii() and value.isdecimal()) or len(value) > 10:
        raise ValueError("card number is not a decimal number of at most 10 digits")
    whole = int(value)
    limit = 0xFFFFFF if card_format == "wiegand-26" else 0xFFFFFFFE
    if not 0 < whole <= limit:
        raise ValueError(f"card number does not fit {card_format}")
    return (whole >> 16) * SPLIT + (whole & 0xFFFF) if card_format == "wiegand-26" else whole


def permissions(user: DeviceUser, doors: int) -> dict[int, int]:
    """Permission per door. Raises ValueError for doors or profiles the controller has not."""
    if wrong := [door for door in user.doors if not 1 <= door <= doors]:
        raise ValueError(f"no door {wrong[0]} on this controller")
    profiles = {door: user.profile_at(door) for door in user.doors}
    if any(profile is not None and profile not in PROFILES for profile in profiles.values()):
        raise ValueError("time profiles are numbered 2 to 254")
    return {door: (profiles[door] or ALWAYS) if user.enabled and door in profiles else 0 for door in range(1, 5)}


def pin_number(pin: str) -> int:
    """0 stands for no PIN. Raises ValueError."""
    if not pin:
        return 0
    if not (pin.isascii() and pin.isdecimal()) or len(pin) > 6 or pin.startswith("0"):
        raise ValueError("a PIN has 1 to 6 digits and no leading 0 on this controller")
    return int(pin)


def device_user(reply: Any, card_format: str) -> DeviceUser:
    """From the library's GetCardByIndexResponse or GetCardResponse."""
    granted = {n: getattr(reply, f"door_{n}") for n in range(1, 5)}
    profiles = {n: permission if permission > ALWAYS else None for n, permission in granted.items() if permission}
    return DeviceUser(
        user_id=str(reply.card_number),
        card=card_value(reply.card_number, card_format),
        pin=str(reply.pin) if reply.pin else "",
        enabled=bool(profiles),
        valid_from=_midnight(reply.start_date),
        valid_until=_midnight(reply.end_date),
    ).at_doors(profiles)


def _midnight(day: date | None) -> datetime | None:
    bound = limited(day)
    return datetime.combine(bound, time()) if bound else None


def limited(day: date | None) -> date | None:
    """None for the days that stand for no limit."""
    return None if day in {FIRST_DAY, LAST_DAY} else day


def time_profile(reply: Any) -> TimeProfile | None:
    """From the library's GetTimeProfileResponse; None where there is none. Raises ValueError."""
    if reply.profile_id == 0 or reply.start_date is None or reply.end_date is None:
        return None
    names = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    spans = [(getattr(reply, f"segment_{n}_start"), getattr(reply, f"segment_{n}_end")) for n in (1, 2, 3)]
    return TimeProfile(
        reply.profile_id,
        frozenset(day for day, name in enumerate(names) if getattr(reply, name)),
        tuple((start, end) for start, end in spans if start is not None and end is not None and end > start),
        limited(reply.start_date),
        limited(reply.end_date),
        reply.linked_profile_id,
    )
