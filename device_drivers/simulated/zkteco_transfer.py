"""The one buffer through which a simulated ZKTeco terminal hands out tables and takes in templates."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from device_drivers.simulated.zkteco_memory import Memory
from device_drivers.simulated.zkteco_wire import MAX_REQUEST
from device_drivers.zkteco.codes import Command, Table

SMALL_TABLE = 1024  # terminals send a table up to about this size in one piece


@dataclass(slots=True)
class Quirks:
    """How firmware in the field departs from the documents."""

    buffered_reads: bool = True  # False: DATA_WRRQ is refused (pyzk #172)
    told_records: int | None = None  # what GET_FREE_SIZES says instead of the truth (pyzk #76, #170, #215)
    told_users: int | None = None
    one_dword_sizes: bool = False  # GET_FREE_SIZES answers a single zero
    live_events: bool = True  # False: REG_EVENT is refused
    refuses_empty_tables: bool = False
    template_table: bool = True  # False: templates are given one by one only
    frame_gap_s: float = 0.0  # pause between frames of one answer; some clients need one frame a read


class TransferBuffer:
    """A prepared table, or an upload in progress."""

    def __init__(self, memory: Memory, quirks: Quirks) -> None:
        self._memory = memory
        self._quirks = quirks
        self._prepared = b""
        self._log_bytes = 0  # in place of a copy: the log only grows until it is cleared
        self._incoming = bytearray()

    def free(self) -> None:
        self._prepared, self._log_bytes = b"", 0
        self._incoming.clear()

    def table(self, command: int, table: int) -> bytes | None:
        """A whole table after its size, None if this firmware refuses it."""
        if command == Command.ATTLOG_RRQ:
            body = bytes(self._memory.log)
        elif command == Command.USERTEMP_RRQ and table == Table.USER:
            body = self._memory.user_table()
        elif command == Command.DB_RRQ and table == Table.FINGERTMP and self._quirks.template_table:
            body = self._memory.template_table()
        else:
            return None
        if not body and self._quirks.refuses_empty_tables:
            return None
        return len(body).to_bytes(4, "little") + body

    def prepare(self, request: bytes) -> bytes | int | None:
        """The table itself if it is small, the size of what can now be read in chunks, or None: refused."""
        if not self._quirks.buffered_reads or len(request) != 11:
            return None
        self.free()
        _, command, table, _ = struct.unpack("<BHII", request)
        if command == Command.ATTLOG_RRQ and len(self._memory.log) > SMALL_TABLE:
            self._log_bytes = len(self._memory.log)
            return 4 + self._log_bytes
        prepared = self.table(command, table)
        if prepared is None or len(prepared) <= SMALL_TABLE:
            return prepared
        self._prepared = prepared
        return len(prepared)

    def chunk(self, start: int, size: int) -> bytes:
        if not self._log_bytes:
            return self._prepared[start : start + size]
        end = min(start + size, 4 + self._log_bytes)
        prefix = self._log_bytes.to_bytes(4, "little")
        return prefix[start:end] + bytes(self._memory.log[max(0, start - 4) : max(0, end - 4)])

    def expect(self) -> bool:
        self._incoming.clear()
        return True

    def take(self, data: bytes) -> bool:
        self._incoming += data
        return len(self._incoming) <= MAX_REQUEST

    def write_template(self, request: bytes) -> bool:
        uid, finger, flag, size = struct.unpack("<HBBH", request[:6])
        if uid not in self._memory.users or size != len(self._incoming):
            return False
        self._memory.templates[uid, finger] = (flag, bytes(self._incoming))
        return True

    def write_user_and_templates(self) -> bool:
        """Three lengths, a user entry after a 2, a table of fingers, and their templates each after its length."""
        user_len, table_len, _ = struct.unpack_from("<III", self._incoming)
        fingers_at = 12 + user_len
        bodies = bytes(self._incoming[fingers_at + table_len :])
        if not self._memory.put_user(bytes(self._incoming[13:fingers_at])):
            return False
        for _, uid, finger, start in struct.iter_unpack("<BHBI", self._incoming[fingers_at : fingers_at + table_len]):
            size = int.from_bytes(bodies[start : start + 2], "little")
            self._memory.templates[uid, finger - 0x10] = (1, bodies[start + 2 : start + 2 + size])
        return True
