"""Attendance: stored records of 8, 16, 40, 49 and other sizes, live events of 10 to 52 bytes.

Sources: adrobinoga/zk-protocol, sections/data-record.md and sections/realtime.md; layouts of other
firmware from what users of pyzk reported (#99, #126, #139, #166, #174, #187, #222).

The size of a record is nowhere on the wire. It is the table's size divided by the number of records,
and the number of records is sometimes wrong, so a candidate is believed only if what it decodes looks
like attendance: dates that exist, states and verify codes in use, user ids made of printable text.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from device_drivers.errors import ProtocolError
from device_drivers.events import Origin, Punch, PunchState, VerifyMode
from device_drivers.zkteco.codes import ATTLOG_SIZES, LIVE_SIZES
from device_drivers.zkteco.device_clock import Six, date_of, read_six, unpack_six

MAX_STRIDE = 256
SAMPLE_RECORDS = 64
BELIEVABLE = 0.5  # share of records that look like attendance: a power loss spoils some dates, never most of them
YEARS = range(2005, 2060)

_R8 = struct.Struct("<HBIB")
_R8_ZEM500 = struct.Struct("<HBBI")
_R16 = struct.Struct("<IIBBHI")
_R40 = struct.Struct("<H24sBIB")
_LIVE_UID = struct.Struct("<HBB6s")
_LIVE_NUMBER = struct.Struct("<IBB6s")
_LIVE_TEXT = struct.Struct("<24sBB6s")

VERIFY_MODES = {
    0: VerifyMode.PIN,
    1: VerifyMode.FINGER,
    2: VerifyMode.CARD,
    3: VerifyMode.PIN,
    4: VerifyMode.CARD,
    **dict.fromkeys(range(5, 15), VerifyMode.COMBINED),
    15: VerifyMode.FACE,
    **dict.fromkeys(range(16, 21), VerifyMode.COMBINED),
    25: VerifyMode.PALM,
}
STATES = {
    0: PunchState.IN,
    1: PunchState.OUT,
    2: PunchState.BREAK_OUT,
    3: PunchState.BREAK_IN,
    4: PunchState.OVERTIME_IN,
    5: PunchState.OVERTIME_OUT,
}
_KNOWN_STATES = frozenset(STATES) | {255}  # 255: no function key was pressed


@dataclass(frozen=True, slots=True)
class Attendance:
    """One attendance record or live event, in the terminal's own terms."""

    uid: int | None  # the terminal's internal number; 8-byte records hold nothing else
    user_id: str  # empty where only the uid is known
    said: Six  # the terminal's clock, whether it is a date or not
    verify_code: int
    state_code: int
    work_code: str = ""
    raw: bytes = field(default=b"", repr=False)

    @property
    def device_time(self) -> datetime | None:
        return date_of(self.said)

    @property
    def plausible(self) -> bool:
        """Whether this looks like attendance rather than bytes cut at the wrong place."""
        return (
            self.device_time is not None
            and self.device_time.year in YEARS
            and self.state_code in _KNOWN_STATES
            and (self.uid is not None or bool(self.user_id))
            and self.user_id.isprintable()
            and " " not in self.user_id
        )

    def punch(self, serial: str, user_id: str, origin: Origin) -> Punch:
        """A date that does not exist goes along as `raw`: live event and stored record say it in other bytes."""
        device_time = self.device_time
        year, month, day, hour, minute, second = self.said
        said = "" if device_time else f"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"
        return Punch(
            device_serial=serial,
            user_id=user_id,
            device_time=device_time,
            verify_mode=VERIFY_MODES.get(self.verify_code, VerifyMode.OTHER),
            state=STATES.get(self.state_code, PunchState.OTHER),
            verify_code=self.verify_code,
            state_code=self.state_code,
            work_code=self.work_code,
            origin=origin,
            raw=said.encode() or self.raw,
            said=said,
        )


@dataclass(frozen=True, slots=True, order=True)
class RecordLayout:
    """How one terminal stores attendance: bytes a record, and which of two 8-byte forms."""

    stride: int
    packed_status: bool = False  # 8 bytes on ZEM500: state in the high half of the verify byte (pyzk #99)

    def decode(self, record: bytes) -> Attendance:
        """One record of `stride` bytes. Raises ProtocolError for a stride no layout is known for."""
        if self.stride == 8:
            return _decode_8(record, packed=self.packed_status)
        if self.stride == 16:
            number, packed, verify, state, _, work_code = _R16.unpack(record)
            work = str(work_code) if work_code else ""
            return Attendance(None, str(number), unpack_six(packed), verify, state, work, record)
        if self.stride >= 40:
            uid, text, verify, packed, state = _R40.unpack_from(record)
            return Attendance(uid, _text(text), unpack_six(packed), verify, state, "", record)
        raise ProtocolError(f"no attendance record is {self.stride} bytes long")

    def split(self, data: bytes) -> list[Attendance]:
        """Whole records only; a rest shorter than one record is the caller's."""
        whole = len(data) - len(data) % self.stride
        return [self.decode(data[i : i + self.stride]) for i in range(0, whole, self.stride)]


def _decode_8(record: bytes, *, packed: bool) -> Attendance:
    if packed:
        uid, status, _, when = _R8_ZEM500.unpack(record)
        return Attendance(uid, "", unpack_six(when), status & 0x0F, status >> 4, "", record)
    uid, verify, when, state = _R8.unpack(record)
    return Attendance(uid, "", unpack_six(when), verify, state, "", record)


def measure_layout(sample: bytes, *, table_bytes: int, count: int) -> RecordLayout:
    """The layout of a table of `table_bytes`, said to hold `count` records, that begins with `sample`.

    The stride is total / count; but a count that is wrong, or was read before the last punch, may divide the
    table as well, into strides that hold several records. So every size seen in the field is tried beside it,
    what looks most like attendance wins, and where two look alike a size that is known does.
    Raises ProtocolError if nothing fits.
    """
    if not table_bytes or not sample:
        raise ProtocolError("an empty attendance table has no layout")
    told = table_bytes // count if count > 0 and table_bytes % count == 0 else 0
    sizes = {size for size in ATTLOG_SIZES if table_bytes % size == 0}
    if told in (8, 16) or 40 <= told <= MAX_STRIDE:
        sizes.add(told)
    layouts = [RecordLayout(size) for size in sizes] + [RecordLayout(8, packed_status=True)] * (8 in sizes)
    if layouts:
        score, _, _, best = max(
            (_share_plausible(layout, sample), layout.stride in ATTLOG_SIZES, layout.stride == told, layout)
            for layout in layouts
        )
        if score >= BELIEVABLE:
            return best
    if told in (8, 16) or told >= 40:
        return RecordLayout(told)  # every date spoilt, but the sizes agree
    raise ProtocolError(f"attendance table of {table_bytes} bytes, said to hold {count} records, fits no layout")


def _share_plausible(layout: RecordLayout, sample: bytes) -> float:
    records = layout.split(sample[: layout.stride * SAMPLE_RECORDS])
    return sum(record.plausible for record in records) / len(records) if records else 0.0


def decode_live(payload: bytes) -> list[Attendance]:
    """The attendance in one live packet; several events of one size may share it. Empty if unreadable.

    A size that fits twice (72 is one odd event of 72 bytes, two of 36, six of 12) is settled by what decodes
    to attendance.
    """
    candidates = [
        [_decode_live(payload[i : i + size]) for i in range(0, len(payload), size)]
        for size in sorted(LIVE_SIZES, reverse=True)
        if payload and len(payload) % size == 0
    ]
    if not candidates and len(payload) >= _LIVE_TEXT.size:
        candidates = [[_decode_live(payload)]]  # a longer event of unknown firmware begins like the others
    if not candidates:
        return []
    return max(candidates, key=_share)


def _share(events: Sequence[Attendance]) -> float:
    return sum(event.plausible for event in events) / len(events)


def _decode_live(event: bytes) -> Attendance:
    if len(event) >= _LIVE_TEXT.size:
        text, verify, state, when = _LIVE_TEXT.unpack_from(event)
        return Attendance(None, _text(text), read_six(when), verify, state, "", event)
    if len(event) >= 12 and len(event) != 14:
        number, verify, state, when = _LIVE_NUMBER.unpack_from(event)
        return Attendance(None, str(number), read_six(when), verify, state, "", event)
    uid, verify, state, when = _LIVE_UID.unpack_from(event)
    return Attendance(uid, "", read_six(when), verify, state, "", event)


def _text(field_bytes: bytes) -> str:
    return field_bytes.split(b"\0", 1)[0].decode("utf-8", "replace")
