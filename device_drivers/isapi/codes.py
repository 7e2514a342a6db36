"""Event numbers of access terminals and what they mean.

Source: "ISAPI Person-Based Access Control", appendix of access control event types. Major 5 is what happens at a
door, 1 alarms, 2 exceptions, 3 operations.
"""

from __future__ import annotations

from device_drivers.events import DoorEventKind, PunchState, VerifyMode

ALARM, EXCEPTION, OPERATION, EVENT = 1, 2, 3, 5

# Major 5: passed, and by what.
PASSED = {
    0x01: VerifyMode.CARD,
    0x02: VerifyMode.COMBINED,
    0x26: VerifyMode.FINGER,
    0x28: VerifyMode.COMBINED,
    0x2B: VerifyMode.COMBINED,
    0x2E: VerifyMode.COMBINED,
    0x4B: VerifyMode.FACE,
}
_DENIED = (*range(0x03, 0x11), 0x27, 0x29, 0x2A, 0x2C, 0x2D, 0x2F, 0x30, 0x31, 0x4C)

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
    (EVENT, 0x20): DoorEventKind.UNLOCKED,
    (ALARM, 0x404): DoorEventKind.TAMPER,
    (ALARM, 0x405): DoorEventKind.TAMPER_CLEARED,
    (ALARM, 0x406): DoorEventKind.TAMPER,
    (ALARM, 0x407): DoorEventKind.TAMPER_CLEARED,
    (ALARM, 0x40A): DoorEventKind.DURESS,
    (EXCEPTION, 0x27): DoorEventKind.LINK_LOST,
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
