"""What the numbers in push messages mean; a number without a name stays a number.

Source: Security PUSH Communication Protocol 4.8, appendices 1 (returns), 2 (events), 3 (verification), and
Attendance PUSH Communication Protocol 2.4 (status, operation log).
"""

from __future__ import annotations

from device_drivers.events import DoorEventKind, PunchState, VerifyMode

# Status of an ATTLOG line.
PUNCH_STATES = {
    0: PunchState.IN,
    1: PunchState.OUT,
    2: PunchState.BREAK_OUT,
    3: PunchState.BREAK_IN,
    4: PunchState.OVERTIME_IN,
    5: PunchState.OVERTIME_OUT,
}

# Verification of an ATTLOG line: what was used. 2 and 4 are both cards, by generation of the firmware.
ATTLOG_VERIFY = {
    0: VerifyMode.PIN,
    1: VerifyMode.FINGER,
    2: VerifyMode.CARD,
    3: VerifyMode.PIN,
    4: VerifyMode.CARD,
    15: VerifyMode.FACE,
    25: VerifyMode.PALM,
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

# rtstate `alarm`: one byte a door, bit -> (raised, cleared).
ALARM_BITS = (
    (DoorEventKind.FORCED, DoorEventKind.OTHER),
    (DoorEventKind.TAMPER, DoorEventKind.TAMPER_CLEARED),
    (DoorEventKind.DURESS, DoorEventKind.OTHER),
    (DoorEventKind.DURESS, DoorEventKind.OTHER),
    (DoorEventKind.HELD, DoorEventKind.HELD_CLEARED),
    (DoorEventKind.POWER_LOST, DoorEventKind.POWER_RESTORED),
    (DoorEventKind.POWER_LOST, DoorEventKind.POWER_RESTORED),
    (DoorEventKind.TAMPER, DoorEventKind.TAMPER_CLEARED),
)

# OPLOG: operation 3 is an alarm, its object says which.
OPERATION_ALARM = 3
OPERATIONS = {0: DoorEventKind.POWER_RESTORED, 1: DoorEventKind.POWER_LOST}
OPERATION_ALARMS = {
    50: DoorEventKind.CLOSED,
    51: DoorEventKind.OPENED,
    53: DoorEventKind.BUTTON,
    54: DoorEventKind.FORCED,
    55: DoorEventKind.TAMPER,
    58: DoorEventKind.DENIED,
}

# BIODATA `Type` -> our modality word, the feature's own word otherwise.
BIODATA_MODALITY = {
    0: "generic",
    1: "fingerprint",
    2: "face",
    3: "voice",
    4: "iris",
    5: "retina",
    6: "palm",
    7: "finger_vein",
    8: "palm",
    9: "face",
    10: "palm",
}

ACCEPTED = -5000  # a master controller took the command for one of its sub-controllers
RETURNS = {
    -1: "not supported, or no data",
    -2: "no answer from the device's own service, or a file operation failed",
    -3: "not enough memory",
    -8: "not authorised",
    -10: "data could not be read",
    -11: "bad parameter",
    -12: "execution failed",
    -13: "no such command",
    -14: "wrong communication password",
    -18: "no space left",
    -20: "length differs from the stated one",
    -26: "empty fingerprint template",
    -27: "no such user for this template",
    -28: "door is in its always-open period",
    -30: "template algorithm version differs",
    -629: "no such table",
    -631: "bad base64 length",
    -708: "firmware lacks the command",
    -1002: "command syntax not accepted",
    -1004: "table or function not on this model",
}
UNSUPPORTED_RETURNS = frozenset({-13, -629, -708, -1002, -1004})


def access_verify(text: str) -> tuple[VerifyMode, int]:
    """`verifytype` or `verified` -> (mode, number): a decimal code, or the newer string of bits."""
    if len(text) >= VERIFY_BITS_LEN and set(text) <= {"0", "1"}:
        bits = int(text, 2)
        used = [bit for bit in range(len(text)) if bits >> bit & 1]
        if len(used) == 1:
            return VERIFY_BITS.get(used[0], VerifyMode.OTHER), bits
        return (VerifyMode.COMBINED if used else VerifyMode.OTHER), bits
    code = int(text) if text.isdecimal() and len(text) < VERIFY_BITS_LEN else 0
    if code in COMBINED_VERIFY:
        return VerifyMode.COMBINED, code
    return ACCESS_VERIFY.get(code, VerifyMode.OTHER), code


def attlog_verify(code: int) -> VerifyMode:
    if code in COMBINED_VERIFY:
        return VerifyMode.COMBINED
    return ATTLOG_VERIFY.get(code, VerifyMode.OTHER)


def return_text(code: int) -> str:
    return RETURNS.get(code, f"device returned {code}")
