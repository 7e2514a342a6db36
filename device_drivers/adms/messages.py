"""Push bodies -> punches, door events, users, templates, photos and confirmations.

Source: Attendance PUSH 2.4 (ATTLOG, OPERLOG, BIODATA, ATTPHOTO, BIOPHOTO), Security PUSH 4.8 (rtlog, rtstate,
tabledata, devicecmd). A line nobody can read becomes an event of kind OTHER with the head of what it said: it is
shown, not lost, and it does not stop its neighbours.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from device_drivers.adms.codes import (
    BIODATA_MODALITY,
    OPERATION_ALARM,
    OPERATION_ALARMS,
    OPERATIONS,
    PUNCH_STATES,
    attlog_verify,
)
from device_drivers.adms.rows import MAX_ROWS, Row, decode_text, lines, number, parse_row, parse_time
from device_drivers.devices import DeviceTemplate, DeviceUser
from device_drivers.events import DeviceEvent, DoorEvent, DoorEventKind, Origin, Punch, PunchState
from device_drivers.zk_access import ACCESS_EVENTS, decode_seconds, verify_text

MAX_TEMPLATE = 512 * 1024
MAX_PHOTO = 2 * 1024 * 1024
MAX_CONFIRMATIONS = 1000
SAID_VALUES = 4  # user, time, state, verification; of an operation: code, user, time, object
SEPARATOR = re.compile(rb"([\t,;])")
LONG_WORD = re.compile(rb"[^\t\r\n ,;=]{65,}")

OriginOf = Callable[[datetime | None], Origin]


def always_live(_: datetime | None) -> Origin:
    return Origin.LIVE


def unreadable(serial: str, table: str, raw: bytes, *, said: str = "") -> DoorEvent:
    """What a line becomes when it breaks its own format: kept, named, and harmless.

    Firmware has tables we do not know, also of templates and pictures: nothing long enough to be one is kept.
    """
    return DoorEvent(serial, DoorEventKind.OTHER, reason=f"unreadable {table} line", raw=_shortened(raw), said=said)


def _said(line: bytes, encoding: str) -> str:
    """The head of a line of values, for a person to read. Behind it terminals put masks and temperatures."""
    return decode_text(b"".join(SEPARATOR.split(_shortened(line))[: 2 * SAID_VALUES - 1]), encoding)


def _shortened(raw: bytes) -> bytes:
    head = raw[:4096]
    if sum(byte < 0x20 and byte not in b"\t\r\n" for byte in head[:256]) > 4:
        return b"[%d bytes that are no text]" % len(raw)
    return LONG_WORD.sub(lambda found: b"[%d bytes]" % len(found[0]), head)


def attlog(body: bytes, *, serial: str, encoding: str = "", origin: OriginOf = always_live) -> list[DeviceEvent]:
    """`PIN, time, status, verification, work code, ...`: later values differ by firmware and stay in `raw`."""
    events: list[DeviceEvent] = []
    for line in lines(body):
        values = decode_text(line, encoding).split("\t", 15)
        pin = values[0].strip()
        if not pin or len(pin) > 64 or len(values) < 2:
            events.append(unreadable(serial, "ATTLOG", line, said=_said(line, encoding)))
            continue
        time = parse_time(values[1].strip())
        state = number(values[2]) if len(values) > 2 else 0
        verify = number(values[3]) if len(values) > 3 else 0
        work_code = values[4].strip() if len(values) > 4 else ""
        events.append(
            Punch(
                serial,
                pin,
                time,
                verify_mode=attlog_verify(verify),
                state=PUNCH_STATES.get(state, PunchState.OTHER),
                verify_code=verify,
                state_code=state,
                work_code="" if work_code == "0" else work_code[:64],
                origin=origin(time),
                raw=line[:4096],
                said="" if time else values[1].strip()[:64],
            )
        )
    return events


def rtlog(
    body: bytes, *, serial: str, encoding: str = "", origin: OriginOf = always_live, punches: bool = True
) -> list[DeviceEvent]:
    """`time=..\\tpin=..\\tevent=..` and the stored form `transaction time_second=..`.

    With `punches`, somebody who was let in is a Punch; everything else is a DoorEvent. Lines without keys are
    described by one outside implementation alone and never seen on a device: they stay unread.
    """
    events: list[DeviceEvent] = []
    for line in lines(body):
        row = parse_row(line, encoding)
        if "event" not in row.fields and "eventtype" not in row.fields:
            events.append(unreadable(serial, "rtlog", line))
            continue
        events.append(_access_event(row, serial, origin, punches))
    return events


def _access_event(row: Row, serial: str, origin: OriginOf, punches: bool) -> DeviceEvent:
    code = row.int("event", "eventtype", default=-1)
    time = decode_seconds(row.int("time_second", default=-1)) if "time_second" in row.fields else None
    time = time or parse_time(row.get("time"))
    said = "" if time else (row.get("time") or row.get("time_second"))[:64]
    pin = row.get("pin")
    pin = "" if pin == "0" else pin[:64]
    card = row.get("cardno")
    card = "" if card == "0" else card[:64]
    kind = ACCESS_EVENTS.get(code, DoorEventKind.OTHER)
    mode, verify_code = verify_text(row.get("verifytype", "verified"))
    direction = {0: PunchState.IN, 1: PunchState.OUT}.get(
        row.int("inoutstatus", "inoutstate", default=2), PunchState.OTHER
    )
    index = row.int("index", default=-1)
    record_no = index if index >= 0 else None
    if punches and kind is DoorEventKind.GRANTED and pin:
        return Punch(
            serial, pin, time, verify_mode=mode, state=direction, verify_code=verify_code, state_code=code,
            record_no=record_no, card=card, origin=origin(time), raw=row.raw[:4096], said=said,
        )  # fmt: skip
    door = row.int("eventaddr", "doorid", default=0)
    return DoorEvent(
        serial, kind, door=door or None, user_id=pin, card=card, device_time=time, record_no=record_no,
        reason_code=code, direction=direction, verify_mode=mode, origin=origin(time), raw=row.raw[:4096], said=said,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PanelState:
    """One rtstate line: what is, not what happened. Bytes are one a door (alarms) or two bits a door (sensors)."""

    device_time: datetime | None
    sensors: bytes
    relays: bytes
    alarms: bytes
    raw: bytes = field(repr=False)

    def sensor(self, door: int) -> int:
        """0 no sensor, 1 closed, 2 open."""
        byte, shift = divmod(door - 1, 4)
        return self.sensors[byte] >> shift * 2 & 3 if byte < len(self.sensors) else 0


def rtstate(body: bytes, encoding: str = "") -> list[PanelState]:
    states = []
    for line in lines(body, most=MAX_ROWS):
        row = parse_row(line, encoding)
        if "alarm" not in row.fields and "sensor" not in row.fields:
            continue
        sensors, relays, alarms = (_hex(row.get(key)) for key in ("sensor", "relay", "alarm"))
        states.append(PanelState(parse_time(row.get("time")), sensors, relays, alarms, line[:4096]))
    return states


def _hex(text: str) -> bytes:
    """Hex digits, one dropped at the end if they are odd: the specification's own sample prints 15 of 16."""
    try:
        return bytes.fromhex(text[: len(text) & ~1][:64])
    except ValueError:
        return b""


def operation(row_line: bytes, *, serial: str, encoding: str = "", origin: OriginOf = always_live) -> DoorEvent:
    """`OPLOG code, user, time, object, ...`; the time is found by its form: columns before it may be absent."""
    values = decode_text(row_line, encoding)[len("OPLOG") :].lstrip(" \t").split("\t", 15)
    at = next((i for i, value in enumerate(values) if parse_time(value.strip())), None)
    if at is None:
        return unreadable(serial, "OPLOG", row_line, said=_said(row_line, encoding))
    time = parse_time(values[at].strip())
    code = number(values[0], -1) if at > 0 else -1
    target = number(values[at + 1]) if at + 1 < len(values) else 0
    kind = OPERATION_ALARMS.get(target) if code == OPERATION_ALARM else OPERATIONS.get(code)
    administrator = values[1].strip()[:64] if at > 1 else ""
    return DoorEvent(
        serial, kind or DoorEventKind.OTHER, user_id="" if administrator == "0" else administrator, device_time=time,
        reason_code=code, reason=f"operation {code}", origin=origin(time), raw=row_line[:4096],
    )  # fmt: skip


def user(row: Row, *, packed_dates: bool = False) -> DeviceUser | None:
    """`USER PIN=..\\tName=..`, `user uid=..\\tpin=..`; None without a number. Doors come in a table of their own."""
    pin = row.get("pin")
    if not pin or len(pin) > 64:
        return None
    card = row.get("card", "cardno")
    if card.startswith("[") and card.endswith("]"):  # four bytes, least significant first
        digits = _hex(card[1:-1])
        card = str(int.from_bytes(digits, "little")) if digits else ""
    return DeviceUser(
        pin,
        name=row.get("name")[:128],
        card="" if card.strip("0") == "" else card[:64],
        pin=row.get("passwd", "password")[:32],
        privilege=row.int("pri", "privilege"),
        enabled=row.int("disable") == 0,
        valid_from=_date(row.get("starttime", "startdatetime"), packed=packed_dates),
        valid_until=_date(row.get("endtime", "enddatetime"), packed=packed_dates),
    )


def _date(text: str, *, packed: bool) -> datetime | None:
    """`YYYYMMDD`, or packed seconds where the device has DateFmtFunOn=1; 0 is no limit."""
    value = number(text)
    if value <= 0:
        return None
    if packed:
        return decode_seconds(value)
    try:
        return datetime.strptime(f"{value:08d}", "%Y%m%d")  # noqa: DTZ007 device-local
    except ValueError:
        return None


def template(row: Row, *, table: str, finger_version: str = "", face_version: str = "") -> DeviceTemplate | None:
    """BIODATA, FP, templatev10 and FACE rows; None without a number or readable bytes."""
    pin = row.get("pin")
    payload = _base64(row.get("tmp", "tmpdata", "template"), MAX_TEMPLATE)
    if not pin or len(pin) > 64 or not payload:
        return None
    if table == "biodata":
        kind = row.int("type")
        version = f"{row.int('majorver', 'major_ver')}.{row.int('minorver', 'minor_ver')}"
        algorithm = f"biodata-{kind}-{version}-{row.int('format')}"
        modality = BIODATA_MODALITY.get(kind, "generic")
        number_of_part = row.int("no") * 16 + row.int("index") if kind not in {1, 7} else row.int("no")
        return DeviceTemplate(pin, modality, number_of_part, algorithm, payload, duress=row.int("duress") == 1)
    index = row.int("fid", "fingerid", "no")
    if table == "face":
        return DeviceTemplate(pin, "face", index, f"zk-face-{face_version or '7'}", payload)
    duress = index >= 16 or row.int("valid", default=1) == 3
    return DeviceTemplate(pin, "fingerprint", index % 16, f"zk-finger-{finger_version or '10'}", payload, duress=duress)


def _base64(text: str, limit: int) -> bytes:
    if not text or len(text) > limit * 4 // 3 + 4:
        return b""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


@dataclass(frozen=True, slots=True)
class PushedPhoto:
    """A picture a device sent unasked. It lives in memory until the capture hook returns."""

    serial: str
    kind: str  # "attphoto", "biophoto", "userpic"
    name: str  # user id, or the vendor's file name for a snapshot
    jpeg: bytes = field(repr=False)


def photos(body: bytes, *, serial: str, table: str, encoding: str = "") -> list[PushedPhoto]:
    """Base64 lines, or a text header ended by NUL with the picture behind it."""
    head, nul, rest = body.partition(b"\0")
    if nul and rest and len(head) < 4096:
        fields = {
            key.strip().lower(): value.strip()
            for key, _, value in (
                part.partition("=") for part in decode_text(head, encoding).replace("\n", "\t").split("\t", 32)
            )
        }
        return [PushedPhoto(serial, table, fields.get("pin", "")[:128], rest[:MAX_PHOTO])]
    found = []
    for line in lines(body, most=MAX_ROWS):
        row = parse_row(line, encoding)
        jpeg = _base64(row.get("content", "photo", "biophoto"), MAX_PHOTO)
        if jpeg:
            found.append(PushedPhoto(serial, table, (row.get("pin") or row.get("filename"))[:128], jpeg))
    return found


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What became of one command. `content` has the lines behind it (INFO's options, a shell's output)."""

    command_id: int
    code: int
    command: str
    content: dict[str, str] = field(default_factory=dict, repr=False)


def confirmations(body: bytes, encoding: str = "") -> list[Confirmation]:
    """One a line, several in a body, or one value a line: a line that starts with `ID=` begins the next."""
    found: list[Confirmation] = []
    pairs: dict[str, str] = {}

    def finish() -> None:
        command_id = number(pairs.get("id", ""), -1)
        if command_id >= 0 and "return" in pairs and len(found) < MAX_CONFIRMATIONS:
            content = {key: value for key, value in pairs.items() if key not in {"id", "return", "cmd", "sn"}}
            found.append(Confirmation(command_id, number(pairs["return"], -1), pairs.get("cmd", ""), content))

    for line in lines(body, most=MAX_ROWS):
        text = decode_text(line, encoding)
        if text[:3].upper() == "ID=":
            finish()
            pairs = {}
            parts = text.split("&", 32)
        else:
            parts = [text]
        for part in parts:
            key, equals, value = part.partition("=")
            name = key.strip()
            name = name.lower() if name.lower() in {"id", "return", "cmd", "sn"} else name
            if equals and len(pairs) < 1024:
                pairs.setdefault(name[:64], value.strip()[:4096])
    finish()
    return found
