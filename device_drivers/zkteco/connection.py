"""One open connection to a ZKTeco terminal: asks, waits, keeps live events for whoever records them.

A single task reads the link, because live events arrive in the middle of replies; a lock keeps one
request in flight. A request that is not answered, or whose answer only trickles, ends the connection: what
comes after could not be trusted to belong to the next request. Over UDP, where packets get lost, a read may
be asked again. Closing waits for no request: it ends the one in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from device_drivers.errors import DeviceError, DeviceRefused, LinkError, LinkTimeout
from device_drivers.links import CONNECT_TIMEOUT_S, DatagramLink, Link, StreamLink, split_address
from device_drivers.zkteco.codes import CHUNK_TCP, CHUNK_UDP, DEFAULT_PORT, Command
from device_drivers.zkteco.frame import MAX_PAYLOAD, DatagramDecoder, Frame, StreamDecoder
from device_drivers.zkteco.session import Answer, LiveEvent, Session

SLOWEST_BYTES_S = 128.0  # an answer that comes slower than this over its whole length ends the connection
FAREWELL_S = 2.0
MAX_LIVE_WAITING = 4096  # beyond it events are left unacknowledged; the terminal's log has them
MAX_LIVE_PAYLOAD = 1024  # several events may share a packet; terminals send no longer ones


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, from `DeviceConfig.options`; the defaults suit a terminal behind a slow radio link."""

    connect_s: float = CONNECT_TIMEOUT_S
    reply_s: float = 10.0
    chunk_s: float = 20.0  # silence in the middle of a table; terminals prepare 100,000 records in several seconds
    keepalive_s: float = 30.0
    confirm_s: float = 300.0  # how long live events stand without being checked against the log

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Timing:
        """Raises ValueError for one that is no positive number."""
        given = {}
        for name in cls.__dataclass_fields__:
            value = options.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise ValueError(f"option {name} is {value!r}; it must be a positive number of seconds")
            given[name] = float(value)
        return cls(**given)


class Connection:
    """See the module. Made by `open`, ended by `close` or by the first DeviceError of its link."""

    def __init__(self, link: Link, *, udp: bool, timing: Timing, verify_checksum: bool = True) -> None:
        self.udp = udp
        self.timing = timing
        self.chunk_bytes = CHUNK_UDP if udp else CHUNK_TCP
        self.live_received = 0
        self.live_dropped = 0
        self.failure: DeviceError | None = None
        self._link = link
        self._decoder: StreamDecoder | DatagramDecoder
        if udp:
            self._decoder = DatagramDecoder(verify_checksum=verify_checksum)
            self._session = Session(Frame.encode)
        else:
            self._decoder = StreamDecoder(verify_checksum=verify_checksum)
            self._session = Session(Frame.encode_tcp)
        self._lock = asyncio.Lock()
        self._pending: asyncio.Future[Answer] | None = None
        self._silence: asyncio.Timeout | None = None
        self._silence_s = 0.0
        self._deadline = 0.0  # of the answer, were not one byte more to come
        self._live: deque[LiveEvent] = deque()
        self._wake = asyncio.Event()
        self._reader = asyncio.create_task(self._read(), name=f"zkteco {link.address}")

    @classmethod
    async def open(cls, address: str, *, udp: bool, timing: Timing, verify_checksum: bool = True) -> Connection:
        """Raises LinkError."""
        host, port = split_address(address, DEFAULT_PORT)
        link: Link
        if udp:
            link = await DatagramLink.connect(host, port)
        else:
            link = await StreamLink.connect(host, port, timeout_s=timing.connect_s)
        return cls(link, udp=udp, timing=timing, verify_checksum=verify_checksum)

    @property
    def address(self) -> str:
        return self._link.address

    @property
    def session_id(self) -> int:
        return self._session.session_id

    async def close(self) -> None:
        if self.failure is None and not self._lock.locked():
            with contextlib.suppress(DeviceError, TimeoutError):
                async with asyncio.timeout(FAREWELL_S):
                    await self.ask(Command.EXIT, timeout_s=1.0)
        self._fail(LinkError(f"{self.address}: the connection was closed"))
        self._reader.cancel()
        (ended,) = await asyncio.gather(self._reader, return_exceptions=True)
        await self._link.close()
        if isinstance(ended, Exception):
            raise ended

    async def ask(
        self,
        command: Command,
        payload: bytes = b"",
        *,
        timeout_s: float | None = None,
        max_answer: int = MAX_PAYLOAD,
        repeatable: bool = False,
    ) -> Answer:
        """Send a request and wait for its answer, whatever it says; `timeout_s` bounds silence, not length.

        An answer may take `timeout_s` and what its bytes take at SLOWEST_BYTES_S.
        Raises LinkError or ProtocolError; both end the connection. `repeatable` allows asking again over UDP.
        """
        async with self._lock:
            attempts = 3 if self.udp and repeatable else 1
            while True:
                attempts -= 1
                try:
                    answer = await self._exchange(command, payload, timeout_s or self.timing.reply_s, max_answer)
                    break
                except LinkTimeout as exc:
                    if attempts == 0:
                        self._fail(exc)
                        raise
            if answer.command == Command.ACK_UNAUTH and command not in (Command.CONNECT, Command.AUTH):
                # Over UDP nothing else tells that the terminal has rebooted.
                self._fail(LinkError(f"{self.address}: the terminal has forgotten our session"))
                raise LinkError(f"{self.address}: the terminal has forgotten our session")
            return answer

    async def require(
        self,
        command: Command,
        payload: bytes = b"",
        *,
        timeout_s: float | None = None,
        repeatable: bool = False,
    ) -> bytes:
        """Like `ask`, for requests that must succeed. Raises DeviceRefused with the terminal's code."""
        answer = await self.ask(command, payload, timeout_s=timeout_s, repeatable=repeatable)
        if answer.command not in (Command.ACK_OK, Command.DATA):
            raise DeviceRefused(f"{command.name} was answered with {answer.command}", code=answer.command)
        return answer.payload

    async def live_events(self, *, timeout_s: float) -> list[LiveEvent]:
        """Events waiting; none if `timeout_s` passed or somebody interrupts. Raises what ended the connection."""
        if not self._live and self.failure is None:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._wake.wait()
        if not self._live and self.failure is not None:
            raise self.failure
        events = list(self._live)
        self._live.clear()
        return events

    def interrupt(self) -> None:
        """Let whoever waits for live events look up."""
        self._wake.set()

    async def acknowledge(self, events: int) -> None:
        """Confirm `events` live events, the oldest first. Raises LinkError."""
        for _ in range(events):
            self._session.acknowledge()
        await self._flush()

    async def _exchange(self, command: Command, payload: bytes, timeout_s: float, max_answer: int) -> Answer:
        if self.failure is not None:
            raise LinkError(f"{self.address}: the connection has ended") from self.failure
        self._pending = asyncio.get_running_loop().create_future()
        self._session.ask(command, payload, max_answer=max_answer)
        try:
            async with asyncio.timeout(timeout_s) as self._silence:
                self._silence_s = timeout_s
                self._deadline = asyncio.get_running_loop().time() + timeout_s
                await self._flush()
                return await self._pending
        except TimeoutError as exc:
            raise LinkTimeout(self.address, timeout_s) from exc
        finally:
            self._silence = None
            self._pending = None
            self._session.abandon()

    async def _flush(self) -> None:
        while (data := self._session.next_send()) is not None:
            await self._link.send(data)

    async def _read(self) -> None:
        try:
            while True:
                data = await self._link.receive(timeout_s=None)
                for frame in self._decoder.feed(data):
                    self._receive(frame)
        except DeviceError as exc:
            self._fail(exc)
        finally:
            self._fail(LinkError(f"{self.address}: nobody reads the connection any more"))

    def _receive(self, frame: Frame) -> None:
        before = self._session.received_bytes
        for event in self._session.receive(frame):
            if isinstance(event, LiveEvent):
                self._keep(event)
            elif self._pending is not None and not self._pending.done():
                self._pending.set_result(event)
        received = self._session.received_bytes - before
        if received and self._silence is not None and not self._silence.expired():
            self._deadline += received / SLOWEST_BYTES_S
            self._silence.reschedule(min(asyncio.get_running_loop().time() + self._silence_s, self._deadline))

    def _keep(self, event: LiveEvent) -> None:
        self.live_received += 1
        if len(self._live) >= MAX_LIVE_WAITING or len(event.payload) > MAX_LIVE_PAYLOAD:
            self.live_dropped += 1
            return
        self._live.append(event)
        self._wake.set()

    def _fail(self, failure: DeviceError) -> None:
        if self.failure is None:
            self.failure = failure
        if self._pending is not None and not self._pending.done():
            self._pending.set_exception(failure)
        self._wake.set()


async def answers(host: str, port: int, timeout_s: float) -> bool:
    """Whether a terminal answers there over UDP. The session it opens for us is ended again."""
    try:
        connection = await Connection.open(f"{host}:{port}", udp=True, timing=Timing(reply_s=timeout_s))
        try:
            await connection.ask(Command.CONNECT)
        finally:
            await connection.close()
    except DeviceError:
        return False
    return True
