"""Event numbers of access terminals and what they mean.

Source: "ISAPI Developer Guide (Access Control on Person)", appendix A.1. The combinations with a face, 0x36 to 0x44,
are not in it: the maker's SDK header (MINOR_FACE_AND_...) numbers them, public copies of it agree. Major 5 is what
happens at a door, 1 alarms, 2 exceptions, 3 operations.
"""

from __future__ import annotations

from device_drivers.events import DoorEventKind, PunchState, VerifyMode

ALARM, EXCEPTION, OPERATION, EVENT = 1, 2, 3, 5

# Major 5: passed, and by what.
PASSED = {
    0x01: VerifyMode.CARD,
    0x02: VerifyMode.COMBINED,  # card and password
    0x10: VerifyMode.COMBINED,  # the last of several who must come together
    0x22: VerifyMode.PIN,  # the super password in place of the last one
    0x26: VerifyMode.FINGER,
    0x28: VerifyMode.COMBINED,  # card and finger
    0x2B: VerifyMode.COMBINED,  # card, finger and password
    0x2E: VerifyMode.COMBINED,  # finger and password
    0x36: VerifyMode.COMBINED,  # face and finger
    0x39: VerifyMode.COMBINED,  # face and password
    0x3C: VerifyMode.COMBINED,  # face and card
    0x3F: VerifyMode.COMBINED,  # face, password and finger
    0x42: VerifyMode.COMBINED,  # face, card and finger
    0x45: VerifyMode.FINGER,  # for the employee number typed
    0x48: VerifyMode.COMBINED,  # finger and password for the employee number typed
    0x4B: VerifyMode.FACE,
    0x4D: VerifyMode.FACE,  # for the employee number typed
    0x65: VerifyMode.PIN,  # employee number and password
    0x99: VerifyMode.COMBINED,
    0x9F: VerifyMode.OTHER,  # a telephone, by Bluetooth
    0xB3: VerifyMode.PIN,  # a code sent for once
    0xB5: VerifyMode.PIN,
}
# Refused, mismatched or timed out.
_DENIED = (
    *range(0x03, 0x10), 0x23, 0x24, 0x27, 0x29, 0x2A, 0x2C, 0x2D, 0x2F, 0x30, 0x31, 0x37, 0x38, 0x3A, 0x3B, 0x3D, 0x3E,
    0x40, 0x41, 0x43, 0x44, 0x46, 0x47, 0x49, 0x4A, 0x4C, 0x4E, 0x4F, 0x50, 0x5E, 0x66, 0x67, 0x68, 0x71,
    *range(0x75, 0x79), 0x97, 0x98, 0x9A, 0x9B, 0xA0, 0xA2, 0xA3, 0xA4, *range(0xA8, 0xAD), 0xB4,
)  # fmt: skip

KINDS: dict[tuple[int, int], DoorEventKind] = {
    **{(EVENT, minor): DoorEventKind.GRANTED for minor in PASSED},
    **{(EVENT, minor): DoorEventKind.DENIED for minor in _DENIED},
    (EVENT, 0x13): DoorEventKind.UNLOCKED,
    (EVENT, 0x14): DoorEventKind.LOCKED,
    (EVENT, 0x15): DoorEventKind.UNLOCKED,
    (EVENT, 0x16): DoorEventKind.LOCKED,
    (EVENT, 0x17): DoorEventKind.BUTTON,
    (EVENT, 0x19): DoorEventKind.OPENED,
    (EVENT, 0x1A): DoorEventKind.CLOSED,
    (EVENT, 0x1B): DoorEventKind.FORCED,
    (EVENT, 0x1C): DoorEventKind.HELD,
    (EVENT, 0x1F): DoorEventKind.LOCKED,
    (EVENT, 0x34): DoorEventKind.FIRE,
    (ALARM, 0x404): DoorEventKind.TAMPER,
    (ALARM, 0x405): DoorEventKind.TAMPER_CLEARED,
    (ALARM, 0x406): DoorEventKind.TAMPER,
    (ALARM, 0x407): DoorEventKind.TAMPER_CLEARED,
    (ALARM, 0x40A): DoorEventKind.DURESS,
    (ALARM, 0x40F): DoorEventKind.TAMPER,
    (ALARM, 0x410): DoorEventKind.TAMPER_CLEARED,
    (EXCEPTION, 0x27): DoorEventKind.LINK_LOST,
    (EXCEPTION, 0x400): DoorEventKind.POWER_RESTORED,
    (EXCEPTION, 0x401): DoorEventKind.POWER_LOST,
    (EXCEPTION, 0x405): DoorEventKind.POWER_LOST,
    (EXCEPTION, 0x406): DoorEventKind.POWER_RESTORED,
    (OPERATION, 0x400): DoorEventKind.REMOTE_OPEN,
    (OPERATION, 0x401): DoorEventKind.LOCKED,
    (OPERATION, 0x402): DoorEventKind.UNLOCKED,
    (OPERATION, 0x403): DoorEventKind.LOCKED,
}

STATES = {
    "checkIn": PunchState.IN,
    "checkOut": PunchState.OUT,
    "breakOut": PunchState.BREAK_OUT,
    "breakIn": PunchState.BREAK_IN,
    "overtimeIn": PunchState.OVERTIME_IN,
    "overTimeIn": PunchState.OVERTIME_IN,
    "overtimeOut": PunchState.OVERTIME_OUT,
    "overTimeOut": PunchState.OVERTIME_OUT,
}

# `subStatusCode` of a refusal that says the model lacks the function, in the spellings seen.
NOT_SUPPORTED = frozenset({"notsupport", "notsupported", "methodnotallowed", "invalidoperation", "invalidurl"})
