"""Order of talking on a ZKTeco 4370 connection, without I/O: one request at a time, replies, live events.

Source: adrobinoga/zk-protocol, protocol.md "Reply Number" and sections/ex_data.md. A reply carries the
number of its request; anything else is a straggler of a request that was given up, and is dropped.
Bulk data arrive as PREPARE_DATA, DATA (once or many times), ACK_OK, or as a single DATA; the session
puts them together, so that a caller sees one answer to one request. Requests are never pipelined:
terminals lose data silently when asked for the next chunk before the last one is complete.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from device_drivers.errors import ProtocolError
from device_drivers.zkteco.codes import Command
from device_drivers.zkteco.frame import MAX_PAYLOAD, Frame
from device_drivers.zkteco.messages import read_u32


@dataclass(frozen=True, slots=True)
class Answer:
    """The whole reply to the request in flight; `payload` is what DATA frames brought, where they did."""

    command: int
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """A realtime packet: its kind, and a payload that depends on it."""

    kind: int
    payload: bytes = field(repr=False)


@dataclass(slots=True)
class _Exchange:
    command: int
    reply_no: int
    max_answer: int
    announced: int | None = None
    data: bytearray = field(default_factory=bytearray)


class Session:
    """One connection's state. `ask` puts a request in flight, `receive` returns what frames meant."""

    def __init__(self, encode: Callable[[Frame], bytes]) -> None:
        self.session_id = 0
        self.stray_frames = 0
        self.received_bytes = 0  # of bulk data; grows while an answer is coming in
        self._encode = encode
        self._reply_no = -1
        self._exchange: _Exchange | None = None
        self._outgoing: deque[Frame] = deque()

    def ask(self, command: Command, payload: bytes = b"", *, max_answer: int = MAX_PAYLOAD) -> None:
        """Put a request in flight. Raises ValueError while another is unanswered."""
        if self._exchange is not None:
            raise ValueError("a request is still unanswered")
        self._reply_no = (self._reply_no + 1) % 0xFFFF
        self._exchange = _Exchange(command, self._reply_no, max_answer)
        self._outgoing.append(Frame(command, self.session_id, self._reply_no, payload))

    def abandon(self) -> None:
        """Give up the request in flight; its reply will be dropped as a straggler."""
        self._exchange = None

    def acknowledge(self) -> None:
        """Confirm the oldest unconfirmed live event: the terminal may forget it."""
        self._outgoing.append(Frame(Command.ACK_OK, self.session_id, 0))

    def next_send(self) -> bytes | None:
        """Bytes to send next, or None."""
        return self._encode(self._outgoing.popleft()) if self._outgoing else None

    def receive(self, frame: Frame) -> list[Answer | LiveEvent]:
        """What a frame means. Raises ProtocolError where data contradict their announcement."""
        if frame.command == Command.REG_EVENT:
            return [LiveEvent(frame.session, frame.payload)]
        exchange = self._exchange
        if exchange is None or frame.reply_no != exchange.reply_no:
            self.stray_frames += 1
            return []
        if exchange.command == Command.CONNECT and frame.session:
            self.session_id = frame.session
        if frame.command == Command.PREPARE_DATA:
            return self._announce(exchange, frame.payload)
        if frame.command == Command.DATA:
            return self._collect(exchange, frame.payload)
        if exchange.announced is not None and frame.command == Command.ACK_OK:
            if len(exchange.data) != exchange.announced:
                raise ProtocolError(f"{exchange.announced} bytes were announced and {len(exchange.data)} came")
            return self._finish(Command.DATA, bytes(exchange.data))
        return self._finish(frame.command, frame.payload)

    def _announce(self, exchange: _Exchange, payload: bytes) -> list[Answer | LiveEvent]:
        size = read_u32(payload)
        if size > exchange.max_answer:
            raise ProtocolError(f"{size} bytes are announced; allowed are {exchange.max_answer}")
        if exchange.announced is not None:
            raise ProtocolError("one answer was announced twice")
        exchange.announced = size
        return []

    def _collect(self, exchange: _Exchange, payload: bytes) -> list[Answer | LiveEvent]:
        self.received_bytes += len(payload)
        if exchange.announced is None:
            return self._finish(Command.DATA, payload)
        exchange.data += payload
        if len(exchange.data) > exchange.announced:
            raise ProtocolError(f"{exchange.announced} bytes were announced and more came")
        return []

    def _finish(self, command: int, payload: bytes) -> list[Answer | LiveEvent]:
        self._exchange = None
        return [Answer(command, payload)]
