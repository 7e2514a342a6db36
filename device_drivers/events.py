"""What devices say, in one vocabulary for every vendor. Frozen values, no behaviour beyond naming.

A device's clock reading stays `device_time`: naive, exactly as it was said. Raw codes are kept beside
their names, so an unknown code becomes OTHER and nothing is lost. What could not be read into fields goes along as
`said`, in the device's words, for a person to read: the driver leaves out whatever may be a card number, a template
or anything of health. `raw` tells unreadable happenings apart and is never kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class VerifyMode(StrEnum):
    """How the person was verified, as the device says."""

    FACE = "face"
    FINGER = "finger"
    CARD = "card"
    PIN = "pin"
    PALM = "palm"
    VOICE = "voice"
    IRIS = "iris"
    QR = "qr"
    COMBINED = "combined"  # more than one factor; `verify_code` keeps which
    OTHER = "other"


class PunchState(StrEnum):
    """Direction or function key of a punch."""

    IN = "in"
    OUT = "out"
    BREAK_OUT = "break_out"
    BREAK_IN = "break_in"
    OVERTIME_IN = "overtime_in"
    OVERTIME_OUT = "overtime_out"
    OTHER = "other"


class Origin(StrEnum):
    """How an event reached us; no part of its identity."""

    LIVE = "live"
    BACKLOG = "backlog"


@dataclass(frozen=True, slots=True)
class Punch:
    """One attendance transaction as the device recorded it.

    `record_no` is the device's own number for it where it has one (never reused by that device).
    `occurrence` is assigned by the flow that stores it, not by drivers.
    """

    device_serial: str
    user_id: str
    device_time: datetime | None  # naive; None if the device's clock bytes were no date
    verify_mode: VerifyMode = VerifyMode.OTHER
    state: PunchState = PunchState.OTHER
    verify_code: int = 0
    state_code: int = 0
    record_no: int | None = None
    work_code: str = ""
    card: str = field(default="", repr=False)
    origin: Origin = Origin.LIVE
    raw: bytes = field(default=b"", repr=False)
    said: str = field(default="", repr=False)  # see the module


class DoorEventKind(StrEnum):
    GRANTED = "granted"  # the controller itself let somebody in
    DENIED = "denied"  # the controller itself refused
    OPENED = "opened"
    CLOSED = "closed"
    FORCED = "forced"
    HELD = "held"
    HELD_CLEARED = "held_cleared"
    BUTTON = "button"  # request to exit
    UNLOCKED = "unlocked"
    LOCKED = "locked"
    REMOTE_OPEN = "remote_open"
    TAMPER = "tamper"
    TAMPER_CLEARED = "tamper_cleared"
    DURESS = "duress"
    POWER_LOST = "power_lost"
    POWER_RESTORED = "power_restored"
    FIRE = "fire"
    LINK_LOST = "link_lost"
    LINK_RESTORED = "link_restored"
    SECURITY = "security"  # default key, plaintext, replay: somebody is at the wire
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class DoorEvent:
    """Something that happened at a door, a reader or a panel."""

    device_serial: str
    kind: DoorEventKind
    door: int | None = None  # device's own door number, from 1
    reader: int | None = None
    user_id: str = ""
    card: str = field(default="", repr=False)
    device_time: datetime | None = None
    record_no: int | None = None
    reason_code: int = 0
    reason: str = ""  # the vendor's words for reason_code
    direction: PunchState = PunchState.OTHER
    verify_mode: VerifyMode = VerifyMode.OTHER
    origin: Origin = Origin.LIVE
    raw: bytes = field(default=b"", repr=False)
    said: str = field(default="", repr=False)  # see the module


@dataclass(frozen=True, slots=True)
class CardRead:
    """A card shown at a reader that asks us to decide. `number` is decoded, `bits` as on the wire."""

    device_serial: str
    reader: int
    number: str = field(repr=False)
    bits: str = field(default="", repr=False)
    card_format: str = ""  # "wiegand-26", "wiegand-34", ..., "raw"
    facility: int | None = None


@dataclass(frozen=True, slots=True)
class KeysPressed:
    """Keypad digits at a reader that asks us to decide; a whole entry, ended by `#` or a pause."""

    device_serial: str
    reader: int
    digits: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FingerPresented:
    """A finger lies on a gateway-side sensor (no image yet: it is taken only when a session asks)."""

    device_serial: str
    reader: int


DeviceEvent = Punch | DoorEvent | CardRead | KeysPressed | FingerPresented
