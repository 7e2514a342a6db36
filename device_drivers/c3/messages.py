"""Parameters, tables, the real-time log and commands of a panel. Every panel names its own tables and fields.

Source: the zkaccess-c3 readme and recorded answers; PullSDK documentation for parameters and control.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from device_drivers.devices import DeviceUser
from device_drivers.errors import ProtocolError
from device_drivers.events import DoorEvent, DoorEventKind, Origin, PunchState
from device_drivers.zk_access import ACCESS_EVENTS, decode_seconds, verify_mode, verify_text

LOG_RECORD_LEN = 16
STATUS = 255  # event type of a record that is the state of doors, no event
MAX_PARAMETERS = 30
MAX_TABLES = 64
MAX_FIELDS = 128
MAX_FIELD_SIZE = 255
DISCOVERY = b"CallSecurityDevice"
DISCOVERY_PORT = 65535
DIRECTIONS = {0: PunchState.IN, 1: PunchState.OUT, 3: PunchState.OUT}  # 0 and 3 in binary logs, 0 and 1 in text
MAX_SECONDS_OPEN = 254

Value = int | str


def text_pairs(data: bytes) -> dict[str, str]:
    """`name=value,name=value`, or tabs between."""
    pairs: dict[str, str] = {}
    text = data.decode("latin-1").strip("\0\r\n ")
    for pair in text.replace("\t", ",").split(",", 256):
        name, equals, value = pair.partition("=")
        if equals and 0 < len(name.strip()) <= 64:
            pairs[name.strip()] = value.strip("\0\r\n ")[:256]
    return pairs


# -- tables ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    index: int
    is_text: bool


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    index: int
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name.lower() == name.lower()), None)

    def request(self, columns: Sequence[Column]) -> bytes:
        """GET_DATA for all rows."""
        return bytes([self.index, len(columns), *(column.index for column in columns), 0, 0])

    def encode(self, rows: Sequence[Mapping[str, Value]]) -> bytes:
        """SET_DATA or DELETE_DATA of these rows, by the columns they name and the table has.

        All rows name the same columns. Raises ValueError for a value that does not fit its column.
        """
        known = {column.name.lower(): column for column in self.columns}
        names = [name for name in rows[0] if name.lower() in known] if rows else []
        if not names:
            raise ValueError(f"table {self.name} has none of these columns")
        columns = [known[name.lower()] for name in names]
        head = bytes([self.index, len(columns), *(column.index for column in columns)])
        return head + b"".join(
            _encode(row[name], column) for row in rows for name, column in zip(names, columns, strict=True)
        )

    def decode(self, data: bytes) -> list[dict[str, Value]]:
        """Rows of a GET_DATA answer. Raises ProtocolError."""
        if len(data) < 2 or data[0] != self.index or len(data) < 2 + data[1]:
            raise ProtocolError("an answer for another table")
        by_index = {column.index: column for column in self.columns}
        columns = [by_index.get(index) for index in data[2 : 2 + data[1]]]
        if not columns:
            return []
        rows: list[dict[str, Value]] = []
        offset = 2 + data[1]
        while offset < len(data):
            row: dict[str, Value] = {}
            for column in columns:
                size = data[offset] if offset < len(data) else 256
                offset += 1
                if offset + size > len(data):
                    raise ProtocolError("a row longer than its message")
                if column is not None:
                    raw = data[offset : offset + size]
                    row[column.name] = (
                        raw.decode("utf-8", "replace") if column.is_text else int.from_bytes(raw, "little")
                    )
                offset += size
            rows.append(row)
        return rows


def _encode(value: Value, column: Column) -> bytes:
    """One size byte, then text, or the fewest bytes of a little-endian number (zero has one)."""
    if column.is_text:
        raw = str(value).encode("utf-8")
    else:
        if isinstance(value, str) and not (value.isascii() and value.isdecimal()):
            raise ValueError(f"{column.name} must be a number on this panel")
        number = int(value)
        if not 0 <= number < 1 << 64:
            raise ValueError(f"{column.name} is out of range")
        raw = number.to_bytes(max(1, (number.bit_length() + 7) // 8), "little")
    if len(raw) > MAX_FIELD_SIZE:
        raise ValueError(f"{column.name} is longer than {MAX_FIELD_SIZE} bytes")
    return bytes([len(raw)]) + raw


def tables(data: bytes) -> dict[str, Table]:
    """`user=1,UID=i1,CardNo=i2,...` a line; types are i and L (numbers) and s (text). Unknown ones are left out."""
    found: dict[str, Table] = {}
    for line in data.decode("latin-1").strip("\0").split("\n")[:MAX_TABLES]:
        (name, _, index), *fields = (pair.strip().partition("=") for pair in line.split(",", MAX_FIELDS))
        if not index.isdecimal() or not 0 < int(index) < 256:
            continue
        columns = tuple(
            Column(field_name[:64], int(kind[1:]), kind[0] == "s")
            for field_name, _, kind in fields
            if kind[:1] in {"i", "L", "s"} and kind[1:].isascii() and kind[1:].isdecimal() and 0 < int(kind[1:]) < 256
        )
        found[name.lower()[:64]] = Table(name[:64], int(index), columns)
    return found


# -- the log -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DoorState:
    """What a panel says of its doors between events; one byte a door."""

    device_time: datetime | None
    alarms: bytes
    sensors: bytes  # as `zk_access.leaves` reads them
    raw: bytes = field(repr=False)


def is_binary_log(data: bytes) -> bool:
    """Firmware without the binary log answers it with something else (AC 5.4.3: 360 zero bytes)."""
    return len(data) % LOG_RECORD_LEN == 0


def binary_log(data: bytes, *, serial: str) -> tuple[list[DoorEvent], list[DoorState]]:
    """Raises ProtocolError if the length is none of whole records."""
    if not is_binary_log(data):
        raise ProtocolError(f"{len(data)} bytes of log")
    events, states = [], []
    for offset in range(0, len(data), LOG_RECORD_LEN):
        raw = data[offset : offset + LOG_RECORD_LEN]
        card, pin, verified, door, kind, direction, seconds = struct.unpack("<IIBBBBI", raw)
        if kind == STATUS:
            states.append(DoorState(decode_seconds(seconds), raw[:4], raw[4:8], raw))
        else:
            values = {
                "Cardno": card, "Pin": pin, "Verified": verified, "DoorID": door, "EventType": kind,
                "InOutState": direction, "Time_second": seconds,
            }  # fmt: skip
            events.append(stored_event(values, serial=serial, origin=Origin.LIVE, raw=raw))
    return events, states


def stored_event(
    row: Mapping[str, Value], *, serial: str, origin: Origin, raw: bytes = b"", numbered: bool = False
) -> DoorEvent:
    """A row of `transaction`, or a binary log record, which say the same. `numbered`: use the panel's own index,
    which binary records lack: a record must say the same in both, or it would count twice."""
    values = {name.lower(): value for name, value in row.items()}

    def number(name: str) -> int:
        value = values.get(name, 0)
        return value if isinstance(value, int) else int(value) if value.isascii() and value.isdecimal() else 0

    code, direction = number("eventtype"), number("inoutstate")
    pin, card = str(values.get("pin", ""))[:64], str(values.get("cardno", ""))[:64]
    index = values.get("index")
    return DoorEvent(
        serial, ACCESS_EVENTS.get(code, DoorEventKind.OTHER), door=number("doorid") or None,
        user_id="" if pin == "0" else pin, card="" if card == "0" else card,
        device_time=decode_seconds(number("time_second")),
        record_no=index if numbered and isinstance(index, int) else None, reason_code=code,
        direction=DIRECTIONS.get(direction, PunchState.OTHER), verify_mode=verify_mode(number("verified")),
        origin=origin, raw=raw,
    )  # fmt: skip


def text_log(data: bytes, *, serial: str) -> tuple[list[DoorEvent], list[DoorState]]:
    """`time=..\\tpin=..\\tevent=..` a line; a line with sensors instead of an event is the doors' state."""
    events: list[DoorEvent] = []
    states: list[DoorState] = []
    for line in data.replace(b"\r", b"\n").split(b"\n")[:4096]:
        if not line.strip(b"\0 "):
            continue
        pairs = text_pairs(line)
        time = _text_time(pairs.get("time", ""))
        if "event" in pairs:
            events.append(_text_event(pairs, time, serial=serial, raw=line[:1024]))
        elif "sensor" in pairs or "alarm" in pairs:
            sensors = int.from_bytes(_hex(pairs.get("sensor", "")), "little")
            doors = bytes(sensors >> door * 2 & 3 for door in range(8))
            states.append(DoorState(time, _hex(pairs.get("alarm", "")), doors, line[:1024]))
        else:
            events.append(DoorEvent(serial, DoorEventKind.OTHER, reason="unreadable log line", raw=line[:1024]))
    return events, states


def _text_event(pairs: Mapping[str, str], time: datetime | None, *, serial: str, raw: bytes) -> DoorEvent:
    mode, _ = verify_text(pairs.get("verifytype", ""))
    code = _number(pairs.get("event", ""))
    pin, card = pairs.get("pin", "")[:64], pairs.get("cardno", "")[:64]
    index = pairs.get("index", "")
    return DoorEvent(
        serial, ACCESS_EVENTS.get(code, DoorEventKind.OTHER), door=_number(pairs.get("eventaddr", "")) or None,
        user_id="" if pin == "0" else pin, card="" if card == "0" else card, device_time=time,
        record_no=_number(index) if index else None, reason_code=code,
        direction=DIRECTIONS.get(_number(pairs.get("inoutstatus", "2")), PunchState.OTHER), verify_mode=mode, raw=raw,
    )  # fmt: skip


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0


def _text_time(text: str) -> datetime | None:
    try:
        value = datetime.fromisoformat(text) if len(text) == 19 else None
    except ValueError:
        return None
    return value if value is not None and value.tzinfo is None else None


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text[: len(text) & ~1][:32])
    except ValueError:
        return b""


# -- commands ----------------------------------------------------------------------------------------------------------


def _control(operation: int, first: int = 0, second: int = 0, third: int = 0) -> bytes:
    return bytes([operation, first, second, third, 0])


def open_door(door: int, seconds: float) -> bytes:
    return _control(1, door, 1, max(1, min(MAX_SECONDS_OPEN, round(seconds))))


def hold_open(door: int) -> bytes:
    return _control(1, door, 1, 255)


def close_door(door: int) -> bytes:
    return _control(1, door, 1, 0)


def end_normal_open(door: int) -> bytes:
    return _control(4, door, 0)


CANCEL_ALARM = _control(2)
RESTART = _control(3)


# -- people ------------------------------------------------------------------------------------------------------------


def user_row(user: DeviceUser) -> dict[str, Value]:
    """Columns a panel lacks are left out when the row is encoded."""

    def day(moment: datetime | None) -> int:
        return int(f"{moment:%Y%m%d}") if moment else 0

    return {
        "CardNo": user.card or 0,
        "Pin": user.user_id,
        "Password": user.pin,
        "Group": 1,
        "StartTime": day(user.valid_from),
        "EndTime": day(user.valid_until),
        "Name": user.name,
        "SuperAuthorize": int(user.privilege >= 14),
    }


def access_row(user: DeviceUser) -> dict[str, Value]:
    doors = sum(1 << door - 1 for door in set(user.doors) if 1 <= door <= 16)
    return {"Pin": user.user_id, "AuthorizeTimezoneId": user.schedule or 1, "AuthorizeDoorId": doors}


def user(row: Mapping[str, Value], access: Mapping[str, tuple[int, int]]) -> DeviceUser | None:
    """`access`: number -> (doors as bits, time zone)."""
    user_id = str(row.get("Pin", ""))[:64]
    if user_id in {"", "0"}:
        return None
    doors, schedule = access.get(user_id, (0, 0))
    card = str(row.get("CardNo", ""))[:64]
    return DeviceUser(
        user_id,
        name=str(row.get("Name", ""))[:128],
        card="" if card == "0" else card,
        pin=str(row.get("Password", ""))[:32],
        privilege=14 if row.get("SuperAuthorize") == 1 else 0,
        valid_from=_day(row.get("StartTime")),
        valid_until=_day(row.get("EndTime")),
        doors=tuple(door for door in range(1, 17) if doors >> door - 1 & 1),
        schedule=schedule if schedule > 1 else None,  # 1 is the panel's own "always"
    )


def _day(value: Value | None) -> datetime | None:
    try:
        return datetime.strptime(str(value), "%Y%m%d")  # noqa: DTZ007 device-local
    except ValueError:
        return None
