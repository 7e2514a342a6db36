"""A simulated ZKTeco terminal over real sockets, TCP and UDP on one port number.

    SimulatedZkTerminal(
        *, serial="SIM0000001", host="127.0.0.1", port=0, comm_key=0, timezone="UTC",
        memory=Memory(record_size=40, user_size=72, ...), quirks=Quirks(...), clock=None, options={},
    )
    await terminal.start(); terminal.address -> "127.0.0.1:PORT"; await terminal.stop()
    (or `async with SimulatedZkTerminal(...) as terminal`)

    terminal.add_user("1001", name="...", card=0, pin="", privilege=0) -> internal number
    terminal.add_template("1001", finger, payload, flag=1)
    terminal.swipe("1001", verify=1, state=0, at=None) -> bool     False: the log is full, or it is switched off
    terminal.go_offline() / await terminal.come_back()             the cable: punches go on, nobody hears of them
    await terminal.reboot()                                        connections and sessions are gone, memory stays
    terminal.corrupt_next(n)   terminal.truncate_next_chunk()   terminal.hang_next_chunk()
    terminal.drift_clock(timedelta)   terminal.fill_memory()
    terminal.on_acknowledged = callback(seconds)                   time from a live event to its acknowledgement
    terminal.on_request = callback(command)                        each request, before it is answered

It keeps one session at a time, as terminals do: a second TCP client is turned away. It shares numbers
with the driver, never parsers.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Self
from zoneinfo import ZoneInfo

from device_drivers.simulated.zkteco_memory import Memory, factory_options
from device_drivers.simulated.zkteco_peers import Peer, TcpPeer, UdpDoor, UdpPeer
from device_drivers.simulated.zkteco_transfer import Quirks, TransferBuffer
from device_drivers.simulated.zkteco_wire import HEAD, is_sound, masked_key, pack_clock, packet, unpack_clock
from device_drivers.zkteco.codes import CHUNK_TCP, DATAGRAM_DATA, Command, EventFlag

__all__ = ["Memory", "Quirks", "SimulatedZkTerminal"]

MAX_UNACKNOWLEDGED = 10_000


class SimulatedZkTerminal:
    """See the module. Everything runs on the event loop that called `start`; nothing is a task."""

    def __init__(
        self,
        *,
        serial: str = "SIM0000001",
        host: str = "127.0.0.1",
        port: int = 0,
        comm_key: int = 0,
        timezone: str = "UTC",
        memory: Memory | None = None,
        quirks: Quirks | None = None,
        clock: Callable[[], datetime] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        zone = ZoneInfo(timezone)
        self.serial = serial
        self.host = host
        self.port = port
        self.comm_key = comm_key
        self.memory = memory or Memory()
        self.quirks = quirks or Quirks()
        self.firmware = "Ver 6.60 Apr 26 2016"
        self.options = {**factory_options(serial, host, self.memory), **(options or {})}
        self.enabled = True
        self.doors_opened: list[float] = []  # seconds of each order
        self.requests: list[int] = []  # command of each request, the newest thousand
        self.frames_waiting = 0  # of answers that are being sent with pauses
        self.refused_clients = 0
        self.unsound_requests = 0
        self.online = False
        self.powered = True
        self.on_acknowledged: Callable[[float], None] | None = None
        self.on_request: Callable[[int], None] | None = None
        self.tcp_peers: set[TcpPeer] = set()
        self._clock = clock or (lambda: datetime.now(zone).replace(tzinfo=None))
        self._drift = timedelta()
        self._server: asyncio.Server | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._next_session = 0x1A2B
        self._listeners: dict[Peer, int] = {}
        self._unacknowledged: deque[float] = deque(maxlen=MAX_UNACKNOWLEDGED)
        self._buffer = TransferBuffer(self.memory, self.quirks)
        self._corrupt = 0
        self._truncate_chunk = False
        self._hang_chunk = False
        self._busy_until = 0.0
        self._handlers: dict[int, Callable[[Peer, int, bytes], None]] = {
            Command.CONNECT: self._connect,
            Command.AUTH: self._authorise,
            Command.EXIT: self._exit,
            Command.OPTIONS_RRQ: self._option,
            Command.OPTIONS_WRQ: self._set_option,
            Command.GET_VERSION: lambda p, n, _: self._ok(p, n, self.firmware.encode() + b"\0"),
            Command.GET_FREE_SIZES: lambda p, n, _: self._ok(p, n, self._sizes()),
            Command.GET_TIME: lambda p, n, _: self._ok(p, n, pack_clock(self.device_time).to_bytes(4, "little")),
            Command.SET_TIME: self._set_time,
            Command.REG_EVENT: self._register,
            Command.ENABLEDEVICE: lambda p, n, _: self._enable(p, n, on=True),
            Command.DISABLEDEVICE: lambda p, n, _: self._enable(p, n, on=False),
            Command.UNLOCK: self._unlock,
            Command.RESTART: self._restart,
            Command.DATA_WRRQ: self._prepare,
            Command.DATA_RDY: self._chunk,
            Command.FREE_DATA: self._free,
            Command.ATTLOG_RRQ: lambda p, n, _: self._table(p, n, Command.ATTLOG_RRQ, 0),
            Command.USERTEMP_RRQ: self._users_or_template,
            Command.DB_RRQ: lambda p, n, data: self._table(p, n, Command.DB_RRQ, data[0] if data else 0),
            Command.GET_USERTEMP: self._template,
            Command.USER_WRQ: lambda p, n, data: self._answer(p, n, ok=self.memory.put_user(data)),
            Command.DELETE_USER: lambda p, n, data: self._answer(p, n, ok=self.memory.delete_user(_u16(data))),
            Command.DEL_FPTMP: self._delete_template,
            Command.DELETE_USERTEMP: self._delete_template,
            Command.PREPARE_DATA: lambda p, n, _: self._answer(p, n, ok=self._buffer.expect()),
            Command.DATA: lambda p, n, data: self._answer(p, n, ok=self._buffer.take(data)),
            Command.CHECKSUM_BUFFER: lambda p, n, _: self._ok(p, n, bytes(4)),
            Command.TMP_WRITE: lambda p, n, data: self._answer(p, n, ok=self._buffer.write_template(data)),
            Command.SAVE_USERTEMPS: lambda p, n, _: self._answer(p, n, ok=self._buffer.write_user_and_templates()),
            Command.CLEAR_ATTLOG: self._clear_log,
            Command.REFRESHDATA: lambda p, n, _: self._ok(p, n),
            Command.STARTVERIFY: lambda p, n, _: self._ok(p, n),
            Command.CANCELCAPTURE: lambda p, n, _: self._ok(p, n),
        }

    # Controls.

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def device_time(self) -> datetime:
        return self._clock() + self._drift

    @property
    def unacknowledged(self) -> int:
        """Live events sent and not yet confirmed."""
        return len(self._unacknowledged)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; with port 0 the first free number that TCP and UDP can share."""
        loop = asyncio.get_running_loop()
        for attempt in range(20):
            server = await loop.create_server(lambda: TcpPeer(self), self.host, self.port)
            port = server.sockets[0].getsockname()[1]
            try:
                self._udp, _ = await loop.create_datagram_endpoint(
                    lambda: UdpDoor(self), (self.host, port), family=socket.AF_INET
                )
            except OSError:
                server.close()
                if self.port or attempt == 19:
                    raise
                continue
            self._server, self.port, self.online = server, port, True
            return

    async def stop(self) -> None:
        server = self._server
        self.go_offline()
        if server is not None:
            await server.wait_closed()

    def go_offline(self) -> None:
        """Pull the cable: connections break, nobody can connect, punches go on."""
        self.online = False
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._udp is not None:
            self._udp.abort()
            self._udp = None
        for peer in list(self.tcp_peers):
            peer.abort()
        self._listeners.clear()
        self._unacknowledged.clear()

    async def come_back(self) -> None:
        await self.start()

    async def reboot(self) -> None:
        """Power cycle: like the cable, and the firmware starts anew, enabled and with other session numbers."""
        self.go_offline()
        self.enabled = True
        self._buffer.free()
        self._next_session += 0x101
        await self.start()

    def add_user(self, user_id: str, *, name: str = "", card: int = 0, pin: str = "", privilege: int = 0) -> int:
        return self.memory.add_user(user_id, name=name, card=card, pin=pin, privilege=privilege)

    def add_template(self, user_id: str, finger: int, payload: bytes, *, flag: int = 1) -> None:
        self.memory.templates[self.memory.uids[user_id], finger] = (flag, payload)

    def swipe(self, user_id: str, verify: int = 1, state: int = 0, at: datetime | None = None) -> bool:
        """Somebody punches: one record, and one live event to whoever registered. False: nothing was recorded."""
        when = at or self.device_time
        if not self.enabled or not self.memory.append(user_id, verify, state, pack_clock(when)):
            return False
        for peer, mask in self._listeners.items():
            if mask & EventFlag.ATTLOG:
                self._unacknowledged.append(asyncio.get_running_loop().time())
                payload = self.memory.live_event(user_id, verify, state, when)
                self._send(peer, Command.REG_EVENT, EventFlag.ATTLOG, 0, payload)
        return True

    def lose_next_live(self) -> None:
        """Nobody is registered until somebody registers again: the next punches are in the log only."""
        self._listeners.clear()

    def corrupt_next(self, frames: int = 1) -> None:
        """Flip a bit in each of the next `frames` frames."""
        self._corrupt += frames

    def truncate_next_chunk(self) -> None:
        """The next chunk ends early, as if it were whole."""
        self._truncate_chunk = True

    def hang_next_chunk(self) -> None:
        """The next chunk is announced and never comes."""
        self._hang_chunk = True

    def drift_clock(self, by: timedelta) -> None:
        self._drift += by

    def fill_memory(self) -> None:
        self.memory.fill(self.device_time)

    # Requests.

    def forget(self, peer: Peer) -> None:
        if self._listeners.pop(peer, None) is not None:
            self._unacknowledged.clear()

    def receive(self, peer: Peer, body: bytes) -> None:
        """One packet from a client; an unsound one is dropped, as terminals do."""
        if not is_sound(body):
            self.unsound_requests += 1
            return
        command, _, session, reply_no = HEAD.unpack_from(body)
        if command == Command.ACK_OK:
            if self._unacknowledged:
                waited = asyncio.get_running_loop().time() - self._unacknowledged.popleft()
                if self.on_acknowledged is not None:
                    self.on_acknowledged(waited)
            return
        self.requests.append(command)
        del self.requests[:-1000]
        if self.on_request is not None:
            self.on_request(command)
        if command not in (Command.CONNECT, Command.AUTH) and not (peer.authorised and session == peer.session):
            self._send(peer, Command.ACK_UNAUTH, session, reply_no)
            return
        handler = self._handlers.get(command)
        if handler is None:
            self._send(peer, Command.ACK_UNKNOWN, session, reply_no)
        else:
            handler(peer, reply_no, body[HEAD.size :])

    def _send(self, peer: Peer, command: int, session: int, reply_no: int, payload: bytes = b"") -> None:
        body = packet(command, session, reply_no, payload)
        if self._corrupt:
            self._corrupt -= 1
            body = bytes((*body[:2], body[2] ^ 0x10, *body[3:]))
        peer.send(body)

    def _ok(self, peer: Peer, reply_no: int, payload: bytes = b"") -> None:
        self._send(peer, Command.ACK_OK, peer.session, reply_no, payload)

    def _answer(self, peer: Peer, reply_no: int, *, ok: bool) -> None:
        self._send(peer, Command.ACK_OK if ok else Command.ACK_ERROR, peer.session, reply_no)

    def _connect(self, peer: Peer, reply_no: int, _: bytes) -> None:
        if isinstance(peer, TcpPeer) and any(other.session for other in self.tcp_peers if other is not peer):
            self.refused_clients += 1
            peer.abort()
            return
        self._next_session = self._next_session % 0xFFFF + 1
        peer.session = self._next_session
        peer.authorised = not self.comm_key
        code = Command.ACK_OK if peer.authorised else Command.ACK_UNAUTH
        self._send(peer, code, peer.session, reply_no)

    def _authorise(self, peer: Peer, reply_no: int, data: bytes) -> None:
        peer.authorised = len(data) == 4 and data == masked_key(self.comm_key, peer.session, data[2])
        code = Command.ACK_OK if peer.authorised else Command.ACK_UNAUTH
        self._send(peer, code, peer.session, reply_no)

    def _exit(self, peer: Peer, reply_no: int, _: bytes) -> None:
        self._ok(peer, reply_no)
        peer.session, peer.authorised = 0, False
        self.forget(peer)

    def _option(self, peer: Peer, reply_no: int, data: bytes) -> None:
        name = data.split(b"\0", 1)[0].decode("ascii", "replace")
        if name in self.options:
            self._ok(peer, reply_no, f"{name}={self.options[name]}\0".encode())
        else:
            self._answer(peer, reply_no, ok=False)

    def _set_option(self, peer: Peer, reply_no: int, data: bytes) -> None:
        name, _, value = data.split(b"\0", 1)[0].decode("ascii", "replace").partition("=")
        self.options[name] = value
        self._ok(peer, reply_no)

    def _sizes(self) -> bytes:
        if self.quirks.one_dword_sizes:
            return bytes(4)
        return self.memory.sizes(records=self.quirks.told_records, users=self.quirks.told_users)

    def _set_time(self, peer: Peer, reply_no: int, data: bytes) -> None:
        self._drift = unpack_clock(int.from_bytes(data[:4], "little")) - self._clock()
        self._ok(peer, reply_no)

    def _register(self, peer: Peer, reply_no: int, data: bytes) -> None:
        if not self.quirks.live_events:
            self._answer(peer, reply_no, ok=False)
            return
        mask = int.from_bytes(data[:4], "little")
        self._listeners.pop(peer, None)
        if mask:
            self._listeners[peer] = mask
        self._ok(peer, reply_no)

    def _enable(self, peer: Peer, reply_no: int, *, on: bool) -> None:
        self.enabled = on
        self._ok(peer, reply_no)

    def _unlock(self, peer: Peer, reply_no: int, data: bytes) -> None:
        self.doors_opened.append(int.from_bytes(data[:4], "little") / 10)
        self._ok(peer, reply_no)

    def _restart(self, peer: Peer, reply_no: int, _: bytes) -> None:
        self._ok(peer, reply_no)
        for other in list(self.tcp_peers):
            asyncio.get_running_loop().call_soon(other.abort)
        self._listeners.clear()

    def _clear_log(self, peer: Peer, reply_no: int, _: bytes) -> None:
        self.memory.log.clear()
        self._buffer.free()
        self._ok(peer, reply_no)

    # Tables and templates.

    def _prepare(self, peer: Peer, reply_no: int, data: bytes) -> None:
        prepared = self._buffer.prepare(data)
        if prepared is None:
            self._answer(peer, reply_no, ok=False)
        elif isinstance(prepared, bytes):
            self._send(peer, Command.DATA, peer.session, reply_no, prepared)
        else:
            self._ok(peer, reply_no, struct.pack("<BIII", 0, prepared, prepared, 0))

    def _chunk(self, peer: Peer, reply_no: int, data: bytes) -> None:
        start, size = struct.unpack("<II", data[:8])
        chunk = self._buffer.chunk(start, size)
        if self._truncate_chunk:
            self._truncate_chunk = False
            chunk = chunk[: len(chunk) // 2]
        frames = _data_frames(peer, chunk, announced=size)
        if self._hang_chunk:
            self._hang_chunk = False
            frames = frames[:1]
        self._send_all(peer, reply_no, frames)

    def _free(self, peer: Peer, reply_no: int, _: bytes) -> None:
        self._buffer.free()
        self._ok(peer, reply_no)

    def _table(self, peer: Peer, reply_no: int, command: int, table: int) -> None:
        body = self._buffer.table(command, table)
        if body is None:
            self._answer(peer, reply_no, ok=False)
        else:
            self._whole(peer, reply_no, body)

    def _users_or_template(self, peer: Peer, reply_no: int, data: bytes) -> None:
        if len(data) >= 3:
            self._template(peer, reply_no, data)
        else:
            self._table(peer, reply_no, Command.USERTEMP_RRQ, data[0] if data else 0)

    def _template(self, peer: Peer, reply_no: int, data: bytes) -> None:
        found = self.memory.templates.get((_u16(data), data[2])) if len(data) >= 3 else None
        if found is None:
            self._answer(peer, reply_no, ok=False)
        else:
            flag, payload = found
            self._whole(peer, reply_no, payload + bytes(6) + bytes((flag,)))

    def _delete_template(self, peer: Peer, reply_no: int, data: bytes) -> None:
        """By internal number, or by user id."""
        if len(data) >= 25:
            key = self.memory.uids.get(data[:24].split(b"\0", 1)[0].decode("ascii", "replace"), 0), data[24]
        else:
            key = _u16(data), data[2]
        self._answer(peer, reply_no, ok=self.memory.templates.pop(key, None) is not None)

    def _whole(self, peer: Peer, reply_no: int, table: bytes) -> None:
        self._send_all(peer, reply_no, _data_frames(peer, table, announced=len(table)))

    def _send_all(self, peer: Peer, reply_no: int, frames: list[tuple[int, bytes]]) -> None:
        gap = self.quirks.frame_gap_s
        if not gap:
            for command, payload in frames:
                self._send(peer, command, peer.session, reply_no, payload)
            return
        loop = asyncio.get_running_loop()
        at = max(loop.time(), self._busy_until)
        for command, payload in frames:
            self.frames_waiting += 1
            loop.call_at(at, self._send_late, peer, command, peer.session, reply_no, payload)
            at += gap
        self._busy_until = at

    def _send_late(self, peer: Peer, command: int, session: int, reply_no: int, payload: bytes) -> None:
        self.frames_waiting -= 1
        self._send(peer, command, session, reply_no, payload)


def _data_frames(peer: Peer, data: bytes, *, announced: int) -> list[tuple[int, bytes]]:
    step = DATAGRAM_DATA if isinstance(peer, UdpPeer) else CHUNK_TCP
    parts = [(int(Command.DATA), data[i : i + step]) for i in range(0, len(data), step)]
    return [(Command.PREPARE_DATA, struct.pack("<II", announced, 0x100000)), *parts, (Command.ACK_OK, b"")]


def _u16(data: bytes) -> int:
    return int.from_bytes(data[:2], "little")
