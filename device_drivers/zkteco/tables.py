"""Reading a terminal's tables, strictly one chunk after another.

Source: adrobinoga/zk-protocol, sections/ex_data.md. DATA_WRRQ makes the terminal prepare a table in a
buffer; small tables come back at once, others in pieces by offset (DATA_RDY), until FREE_DATA. Since
any offset may be asked for, a long log need not be read from its beginning. The buffer is one for the
whole terminal, so one table is read at a time. Firmware without the buffer ("RWB not supported",
pyzk #172) sends the whole table as the answer to the table's own command.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from device_drivers.errors import DeviceError, DeviceRefused, ProtocolError
from device_drivers.zkteco.codes import Command, Table
from device_drivers.zkteco.connection import Connection
from device_drivers.zkteco.messages import MAX_TABLE, bulk_request, bulk_size, chunk_request

PREFIX = 4  # a table begins with its own size


class PreparedTable:
    """A table that can be read by offset while `TableReader.open` holds it."""

    def __init__(self, connection: Connection, *, size: int, held: bytes | None = None) -> None:
        self.size = size
        self._connection = connection
        self._held = held

    @property
    def body_size(self) -> int:
        return max(0, self.size - PREFIX)

    async def read(self, start: int, size: int) -> bytes:
        """`size` bytes from offset `start`, in as many requests as it takes. Raises DeviceError."""
        if start + size > self.size:
            raise ValueError("beyond the end of the table")
        if self._held is not None:
            return self._held[start : start + size]
        parts = []
        while size:
            part = await self._chunk(start, min(size, self._connection.chunk_bytes))
            parts.append(part)
            start += len(part)
            size -= len(part)
        return b"".join(parts)

    async def body(self) -> bytes:
        """Everything after the size prefix."""
        return (await self.read(0, self.size))[PREFIX:]

    async def _chunk(self, start: int, size: int) -> bytes:
        answer = await self._connection.ask(
            Command.DATA_RDY,
            chunk_request(start, size),
            timeout_s=self._connection.timing.chunk_s,
            max_answer=size,
            repeatable=True,
        )
        if answer.command != Command.DATA:
            raise DeviceRefused(f"a chunk at {start} was answered with {answer.command}", code=answer.command)
        if len(answer.payload) != size:
            raise ProtocolError(f"a chunk of {size} bytes was asked for and {len(answer.payload)} came")
        return answer.payload


class TableReader:
    """Opens tables on one connection; learns once whether the terminal has the buffer."""

    def __init__(self, connection: Connection) -> None:
        self.buffered = True
        self._connection = connection
        self._lock = asyncio.Lock()

    @property
    def chunk_bytes(self) -> int:
        return self._connection.chunk_bytes

    def exclusive(self) -> asyncio.Lock:
        """Held while something else uses the terminal's buffer."""
        return self._lock

    @contextlib.asynccontextmanager
    async def open(self, command: Command, table: Table, *, may_be_empty: bool = False) -> AsyncIterator[PreparedTable]:
        """Raises DeviceError. The terminal's buffer is freed on leaving, also after a fault.

        Some firmware refuses to read a table with nothing in it; `may_be_empty` takes a refusal for that.
        """
        async with self._lock:
            try:
                prepared = await self._prepare(command, table)
            except DeviceRefused:
                if not may_be_empty:
                    raise
                prepared = PreparedTable(self._connection, size=0, held=b"")
            try:
                yield prepared
            finally:
                if self.buffered and self._connection.failure is None:
                    with contextlib.suppress(DeviceError):
                        await self._connection.ask(Command.FREE_DATA, repeatable=True)

    async def _prepare(self, command: Command, table: Table) -> PreparedTable:
        timeout_s = self._connection.timing.chunk_s
        if self.buffered:
            answer = await self._connection.ask(
                Command.DATA_WRRQ, bulk_request(command, table), timeout_s=timeout_s, repeatable=True
            )
            if answer.command == Command.DATA:
                return PreparedTable(self._connection, size=len(answer.payload), held=answer.payload)
            if answer.command == Command.ACK_OK:
                return PreparedTable(self._connection, size=bulk_size(answer.payload))
        payload = bytes((table,)) if table else b""
        answer = await self._connection.ask(
            command, payload, timeout_s=timeout_s, max_answer=MAX_TABLE, repeatable=True
        )
        if answer.command == Command.ACK_OK and not answer.payload:
            return PreparedTable(self._connection, size=0, held=b"")  # nothing stored
        if answer.command != Command.DATA:
            raise DeviceRefused(f"{command.name} was answered with {answer.command}", code=answer.command)
        self.buffered = False
        return PreparedTable(self._connection, size=len(answer.payload), held=answer.payload)
