"""What the numbers in push messages mean; a number without a name stays a number.

Source: Security PUSH Communication Protocol 4.8, appendix 1 (returns) and section 10 (rtstate, BIODATA types);
Attendance PUSH Communication Protocol 2.4 (status, operation log). What panels share is in `zk_access`.
"""

from __future__ import annotations

from device_drivers.events import DoorEventKind, PunchState, VerifyMode
from device_drivers.zk_access import COMBINED_VERIFY

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


def attlog_verify(code: int) -> VerifyMode:
    if code in COMBINED_VERIFY:
        return VerifyMode.COMBINED
    return ATTLOG_VERIFY.get(code, VerifyMode.OTHER)


def return_text(code: int) -> str:
    return RETURNS.get(code, f"device returned {code}")
