"""A C3 or inBio panel on a real socket: sessions or none, binary or text log, its own tables, one client at a time."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from device_drivers.c3 import frame
from device_drivers.c3.session import LARGE_ANSWER
from device_drivers.zk_access import decode_seconds, encode_seconds

Row = dict[str, int | str]
SCHEMA = {
    "user": (1, "UID=i CardNo=i Pin=i Password=s Group=i StartTime=i EndTime=i Name=s SuperAuthorize=i"),
    "userauthorize": (2, "Pin=i AuthorizeTimezoneId=i AuthorizeDoorId=i"),
    "timezone": (4, "TimezoneId=i SunTime1=i"),
    "transaction": (5, "Cardno=i Pin=i Verified=i DoorID=i EventType=i InOutState=i Time_second=i"),
    "templatev10": (10, "Size=i UID=i Pin=i FingerID=i Valid=i Template=s Resverd=i EndTag=i"),
}
OLD_SESSION = 0xFEFE


@dataclass(slots=True)
class SimulatedC3:
    serial: str = "DGD9190019050335134"
    password: str = field(default="", repr=False)
    sessions: bool = True
    text_log: bool = False
    doors: int = 2
    max_users: int = 1000
    lacks: tuple[str, ...] = ()  # tables this panel does not have
    deaf: bool = False  # says OK to every row and keeps none, as panels do with a key they do not understand
    rows: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in SCHEMA})
    opened: list[tuple[int, int]] = field(default_factory=list)
    restarts: int = 0
    offset: timedelta = timedelta()
    alarms: bytearray = field(default_factory=lambda: bytearray(4))
    door_open: bool = False  # the leaf of door 1
    address: str = ""
    clients: int = 0
    _log: list[Row] = field(default_factory=list)
    _corrupt: bool = False
    _server: asyncio.Server | None = None
    _port: int = 0
    _writer: asyncio.StreamWriter | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[SimulatedC3]:
        await self.go_online()
        try:
            yield self
        finally:
            await self.go_offline()

    # -- what a person, a cable or time does to it -------------------------------------------------------------------

    def swipe(self, card: int, *, pin: int = 0, event: int = 0, door: int = 1) -> None:
        """A card at a reader; 0 let in, 27 unknown card."""
        self._happens({"Cardno": card, "Pin": pin, "Verified": 4, "DoorID": door, "EventType": event, "InOutState": 0})

    def _happens(self, row: Row) -> None:
        full: Row = {**row, "Time_second": encode_seconds(self.local_time())}
        self._log.append(full)
        self.rows["transaction"].append(full)

    async def go_offline(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._log.clear()  # what nobody fetched is only in the table

    async def go_online(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"

    def corrupt_next(self) -> None:
        """One bit of the next answer flips on its way."""
        self._corrupt = True

    def drift_clock(self, by: timedelta) -> None:
        self.offset += by

    def fill_memory(self) -> None:
        self.max_users = len(self.rows["user"])

    def raise_alarm(self, door: int, bits: int) -> None:
        self.alarms[door - 1] = bits

    def local_time(self) -> datetime:
        return (datetime.now(UTC) + self.offset).replace(tzinfo=None, microsecond=0)

    # -- what it answers -----------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._writer is not None:  # a panel has one place; whoever comes second gets nothing
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 always inside one
        self._tasks.add(task)
        self._writer = writer
        self.clients += 1
        session: int | None = None
        try:
            # A cancelled handler is how `go_offline` breaks connections: the stream server wants it to end quietly.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    head = await reader.readexactly(5)
                    size = head[3] | head[4] << 8
                    tail = await reader.readexactly(size + 3)
                    session = self._reply(writer, head[2], tail[:size], session)
                    await writer.drain()
                    if head[2] == frame.DISCONNECT:
                        break
        finally:
            self._writer = None
            self._tasks.discard(task)
            writer.close()

    def _reply(self, writer: asyncio.StreamWriter, command: int, data: bytes, session: int | None) -> int | None:
        if command == frame.CONNECT_SESSION:
            if not self.sessions:
                self._send(writer, frame.REPLY_ERROR, bytes([256 - 13]))
            elif data[4:] != self.password.encode():
                self._send(writer, frame.REPLY_ERROR, struct.pack("<HH", 0xA750, OLD_SESSION) + bytes([256 - 14]))
            else:
                self._send(writer, frame.REPLY_OK, struct.pack("<HH", 0xCDD6, 0))
                return 0xCDD6
            return None
        if command == frame.CONNECT_PLAIN:
            good = not self.sessions and data == self.password.encode()
            self._send(writer, frame.REPLY_OK if good else frame.REPLY_ERROR, b"" if good else bytes([256 - 14]))
            return None
        head, asked = (data[:4], data[4:]) if session is not None else (b"", data)
        code, answer = self._answer(command, asked)
        if command == frame.GET_DATA and len(answer) > frame.MAX_DATA:
            self._send(writer, LARGE_ANSWER, bytes.fromhex("005d8900005d89000075209643f4130000"))  # as captured
        elif code:
            self._send(writer, frame.REPLY_ERROR, head + bytes([256 + code]))
        else:
            self._send(writer, frame.REPLY_OK, head + answer)
        return session

    def _send(self, writer: asyncio.StreamWriter, command: int, data: bytes) -> None:
        wire = bytearray(frame.Frame(command, data).encode())
        if self._corrupt and command == frame.REPLY_OK and data:
            self._corrupt = False
            wire[5] ^= 0x10
        writer.write(wire)

    def _answer(self, command: int, data: bytes) -> tuple[int, bytes]:
        match command:
            case frame.GET_PARAMETERS:
                return 0, self._parameters(data.decode("ascii").split(","))
            case frame.SET_TIME if data.startswith(b"DateTime="):
                moment = decode_seconds(int(data[9:]))
                if moment is None:
                    return -11, b""
                self.offset += moment - self.local_time()
            case frame.CONTROL:
                return self._control(data)
            case frame.TABLES:
                return 0, self._schema()
            case frame.GET_DATA:
                return 0, self._rows(data)
            case frame.SET_DATA | frame.DELETE_DATA:
                return self._write(command, data), b""
            case frame.LOG_BINARY:
                return 0, bytes(360) if self.text_log else self._binary_log()
            case frame.LOG_TEXT if self.text_log:
                return 0, self._text()
            case frame.DISCONNECT:
                pass
            case _:
                return -13, b""
        return 0, b""

    def _parameters(self, names: list[str]) -> bytes:
        known = {
            "~SerialNumber": self.serial, "FirmVer": "AC Ver 4.3.4 Apr 27 2017", "~DeviceName": "C3-200",
            "DeviceName": "C3-200", "LockCount": self.doors, "ReaderCount": self.doors * 2, "AuxInCount": 2,
            "AuxOutCount": 2, "~MaxUserCount": 300, "~MaxAttLogCount": 10, "~ZKFPVersion": 10,
            "DateTime": encode_seconds(self.local_time()),
        }  # fmt: skip
        for door in range(1, self.doors + 1):
            known |= {f"Door{door}SensorType": 2, f"Door{door}Drivertime": 5, f"Door{door}Detectortime": 15}
        return ",".join(f"{name}={known[name]}" for name in names if name in known).encode()

    def _control(self, data: bytes) -> tuple[int, bytes]:
        operation, first, second, third, _ = data
        if operation == 1 and second == 1:
            if not 1 <= first <= self.doors:
                return -11, b""
            self.opened.append((first, third))
            if third:
                self._happens(
                    {"Cardno": 0, "Pin": 0, "Verified": 200, "DoorID": first, "EventType": 8, "InOutState": 2}
                )
        elif operation == 3:
            self.restarts += 1
        return 0, b""

    @staticmethod
    def _columns(name: str) -> list[tuple[str, str]]:
        return [(column.split("=")[0], column.split("=")[1]) for column in SCHEMA[name][1].split()]

    def _schema(self) -> bytes:
        lines = []
        for name, (index, _) in SCHEMA.items():
            if name in self.lacks:
                continue
            columns = ",".join(f"{c}={kind}{i}" for i, (c, kind) in enumerate(self._columns(name), start=1))
            lines.append(f"{name}={index},{columns}\n")
        return "".join(lines).encode()

    def _rows(self, data: bytes) -> bytes:
        name = next(name for name, (index, _) in SCHEMA.items() if index == data[0])
        wanted = data[2 : 2 + data[1]]
        columns = self._columns(name)
        out = bytearray(data[: 2 + data[1]])
        for row in self.rows[name]:
            for index in wanted:
                column, kind = columns[index - 1]
                value = row.get(column, "" if kind == "s" else 0)
                raw = str(value).encode() if kind == "s" else _number(int(value))
                out += bytes([len(raw)]) + raw
        return bytes(out)

    def _write(self, command: int, data: bytes) -> int:
        name = next((name for name, (index, _) in SCHEMA.items() if index == data[0]), "")
        if not name:
            return -100
        columns = self._columns(name)
        wanted = data[2 : 2 + data[1]]
        offset = 2 + data[1]
        while offset < len(data):
            row: Row = {}
            for index in wanted:
                size = data[offset]
                raw = data[offset + 1 : offset + 1 + size]
                column, kind = columns[index - 1]
                row[column] = raw.decode() if kind == "s" else int.from_bytes(raw, "little")
                offset += 1 + size
            if code := self._apply(command, name, row):
                return code
        return 0

    def _apply(self, command: int, name: str, row: Row) -> int:
        table = self.rows[name]
        if self.deaf:
            return 0
        if command == frame.DELETE_DATA:
            self.rows[name] = [kept for kept in table if any(kept.get(key) != value for key, value in row.items())]
            return 0
        same = next((kept for kept in table if kept["Pin"] == row["Pin"]), None)
        if same is None and name == "user" and len(table) >= self.max_users:
            return -18
        if same is None:
            table.append({"UID": len(table) + 1, **row} if name == "user" else row)
        else:
            same |= row
        return 0

    def _binary_log(self) -> bytes:
        """Waiting events, else the doors' state: alarm bits and sensors, one byte a door."""
        if not self._log:
            sensors = bytes([1 + self.door_open, 0, 0, 0])
            return bytes(self.alarms) + sensors + struct.pack("<BBBBI", 0, 1, 255, 0, encode_seconds(self.local_time()))
        events, self._log = self._log[:30], self._log[30:]
        return b"".join(
            struct.pack("<IIBBBBI", *(int(row[c]) for c, _ in self._columns("transaction"))) for row in events
        )

    def _text(self) -> bytes:
        if not self._log:
            state = f"sensor=0{1 + self.door_open}\trelay=00\talarm={self.alarms.hex()}"
            return f"time={self.local_time():%Y-%m-%d %H:%M:%S}\t{state}".encode()
        events, self._log = self._log[:5], self._log[5:]
        first = len(self.rows["transaction"]) - len(events) - len(self._log)
        lines = []
        for index, row in enumerate(events, start=first + 1):
            moment = decode_seconds(int(row["Time_second"]))
            lines.append(
                f"time={moment:%Y-%m-%d %H:%M:%S}\tpin={row['Pin']}\tcardno={row['Cardno']}\teventaddr={row['DoorID']}"
                f"\tevent={row['EventType']}\tinoutstatus={row['InOutState']}\tverifytype={row['Verified']}\tindex={index}"
            )
        return "\r\n".join(lines).encode()


def _number(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "little")
