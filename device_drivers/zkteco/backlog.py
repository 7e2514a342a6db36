"""The terminal's attendance log, read from where the last reading stopped.

A terminal numbers no records and its clock jumps after a power loss, so neither a number nor a time
can say where to go on. The cursor is the record count and a keyed hash of the last record: if the
record at that place still hashes the same, what follows is new; if not, or if the count fell, the log
was cleared or overwritten and is read from its beginning. A reading overlaps the one before it, and both
its start and its batches are cut only where the time changes, so that equal punches of one second are
told together, each time.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import struct
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from device_drivers.zkteco.codes import Command, Table
from device_drivers.zkteco.messages import read_u32
from device_drivers.zkteco.records import Attendance, RecordLayout, measure_layout
from device_drivers.zkteco.tables import PREFIX, PreparedTable, TableReader

OVERLAP = 32
BATCH = 500
MAX_BATCH = 8 * BATCH  # a batch grows while all its records say the same moment: a clock that stands still
SAMPLE_BYTES = 8192
HASH_LEN = 16
_CURSOR = struct.Struct(f"<BBHI{HASH_LEN}s")
_VERSION = 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a reading stopped: `count` records of `layout`, the last of which hashes to `digest`."""

    layout: RecordLayout
    count: int
    digest: bytes

    def encode(self) -> bytes:
        return _CURSOR.pack(_VERSION, self.layout.packed_status, self.layout.stride, self.count, self.digest)

    @classmethod
    def decode(cls, data: bytes | None) -> Cursor | None:
        """None for no cursor, or one of another version: then the log is read whole."""
        if data is None or len(data) != _CURSOR.size or data[0] != _VERSION:
            return None
        _, packed, stride, count, digest = _CURSOR.unpack(data)
        return cls(RecordLayout(stride, packed_status=bool(packed)), count, digest) if stride and count else None


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in the order of the log, and the cursor that stands once they are durable."""

    records: list[Attendance]
    cursor: bytes


class AttendanceLog:
    """One terminal's log on one connection."""

    def __init__(self, tables: TableReader, *, serial: str, cursor: bytes | None) -> None:
        self.count_is_true = True  # whether GET_FREE_SIZES agreed with the table at the last reading
        self._tables = tables
        self._key = serial.encode("utf-8")[:64]
        self._cursor = Cursor.decode(cursor)

    @property
    def position(self) -> bytes:
        """The cursor of the last reading; empty for an empty log."""
        return self._cursor.encode() if self._cursor else b""

    @property
    def read_count(self) -> int:
        """Records read so far, the place the next reading goes on from."""
        return self._cursor.count if self._cursor else 0

    async def stored_count(self) -> int:
        """Records in the log now, by the table's size: for terminals whose own count lies."""
        async with self._tables.open(Command.ATTLOG_RRQ, Table.ATTLOG) as table:
            body = await _body_size(table)
            if not body:
                return 0
            layout = self._cursor.layout if self._cursor else await self._measure(table, body, 0)
            return body // layout.stride

    async def ends_at(self, cursor: bytes) -> tuple[bool, int]:
        """Whether the log ends with the very record that `cursor` stands for, and how many records it holds."""
        wanted = Cursor.decode(cursor)
        async with self._tables.open(Command.ATTLOG_RRQ, Table.ATTLOG) as table:
            body = await _body_size(table)
            if not body:
                return wanted is None, 0
            if wanted is None:
                return False, body // (await self._measure(table, body, 0)).stride
            stride = wanted.layout.stride
            count = body // stride
            if count != wanted.count or body % stride:
                return False, count
            last = await table.read(PREFIX + (count - 1) * stride, stride)
            return hmac.compare_digest(self._digest(last), wanted.digest), count

    async def read(self, *, told_count: int) -> AsyncGenerator[Batch, None]:
        """Batches from the cursor on; `told_count` is what the terminal says it stores. Raises DeviceError.

        The cursor moves when the next batch is asked for, that is, once this one has been recorded.
        """
        async with self._tables.open(Command.ATTLOG_RRQ, Table.ATTLOG, may_be_empty=told_count == 0) as table:
            body = await _body_size(table)
            if not body:
                self.count_is_true = told_count == 0
                if self._cursor is not None:
                    logger.warning("attendance log is empty where records were read before", extra=self._facts())
                self._cursor = None
                yield Batch([], b"")
                return
            start = await self._resume(table, body)
            if start is None or self._cursor is None:
                self._cursor, start = None, 0
                layout = await self._measure(table, body, told_count)
            else:
                layout = self._cursor.layout
            total = body // layout.stride
            self.count_is_true = told_count == total
            async for records, end in self._cut(table, layout, start, total):
                moved = Cursor(layout, end, self._digest(records[-1].raw))
                yield Batch(records, moved.encode())
                self._cursor = moved

    async def _cut(
        self, table: PreparedTable, layout: RecordLayout, start: int, total: int
    ) -> AsyncGenerator[tuple[list[Attendance], int], None]:
        """Records from index `start` on, cut where the time changes, each piece with the index after it."""
        waiting: list[Attendance] = []
        step = max(1, min(BATCH, self._tables.chunk_bytes // layout.stride))
        while start < total:
            size = min(total - start, step)
            waiting += layout.split(await table.read(PREFIX + start * layout.stride, size * layout.stride))
            start += size
            cut = len(waiting) if start == total or len(waiting) >= MAX_BATCH else _last_change(waiting)
            if cut:
                yield waiting[:cut], start - len(waiting) + cut
                waiting = waiting[cut:]
        if waiting:
            yield waiting, total

    async def _resume(self, table: PreparedTable, body: int) -> int | None:
        """Index of the first record to read, or None if the log is not the one the cursor was made on."""
        cursor = self._cursor
        if cursor is None:
            return None
        layout = cursor.layout
        if cursor.count * layout.stride > body or body % layout.stride:
            logger.warning("attendance log shrank or changed its layout; it is read whole", extra=self._facts())
            return None
        overlap = OVERLAP
        while True:
            start = max(0, cursor.count - overlap)
            size = (cursor.count - start) * layout.stride
            before = layout.split(await table.read(PREFIX + start * layout.stride, size))
            if not hmac.compare_digest(self._digest(before[-1].raw), cursor.digest):
                logger.warning("attendance log was cleared or overwritten; it is read whole", extra=self._facts())
                return None
            if start == 0 or overlap >= MAX_BATCH:
                return start
            if change := _first_change(before):
                return start + change
            overlap *= 4

    async def _measure(self, table: PreparedTable, body: int, told_count: int) -> RecordLayout:
        sample = await table.read(PREFIX, min(body, SAMPLE_BYTES))
        return measure_layout(sample, table_bytes=body, count=told_count)

    def _digest(self, record: bytes) -> bytes:
        return hashlib.blake2b(record, digest_size=HASH_LEN, key=self._key).digest()

    def _facts(self) -> dict[str, object]:
        return {"device_serial": self._key.decode("utf-8", "replace"), "read_count": self.read_count}


def _first_change(records: Sequence[Attendance]) -> int:
    """Index of the first record whose time differs from its predecessor's; 0 if none does."""
    return next((i for i in range(1, len(records)) if records[i].device_time != records[i - 1].device_time), 0)


def _last_change(records: Sequence[Attendance]) -> int:
    """Index of the last such record; 0 if none does."""
    return next((i for i in range(len(records) - 1, 0, -1) if records[i].device_time != records[i - 1].device_time), 0)


async def _body_size(table: PreparedTable) -> int:
    """Bytes of records. The table's own word counts where the table is that long: some firmware pads it."""
    if table.size <= PREFIX:
        return 0
    said = read_u32(await table.read(0, PREFIX))
    return said if 0 < said <= table.body_size else table.body_size
