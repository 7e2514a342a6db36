"""ZKTeco 4370 framing: a TCP stream or UDP datagrams <-> Frame.

Source: adrobinoga/zk-protocol, protocol.md "Packet Fields". Over TCP a frame is preceded by a start
mark and its length; over UDP one datagram is one frame. In a realtime packet the session field holds
the event's kind and the reply number is zero.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from device_drivers.errors import FrameError
from device_drivers.zkteco.codes import TCP_MAGIC

HEADER = struct.Struct("<HHHH")
TOP = struct.Struct("<4sI")
MAX_PAYLOAD = 0x10000  # the largest chunk we ask for is 0xFFC0 bytes
MAX_LENGTH = HEADER.size + MAX_PAYLOAD


def checksum(command: int, session: int, reply_no: int, payload: bytes) -> int:
    """Ones' complement of the ones' complement sum of little-endian 16-bit words.

    65536 is 1 modulo 65535, so a whole payload read as one number sums its own words.
    """
    total = command + session + reply_no + int.from_bytes(payload, "little")
    return -total % 0xFFFF


@dataclass(frozen=True, slots=True)
class Frame:
    command: int
    session: int
    reply_no: int
    payload: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """As one UDP datagram."""
        mark = checksum(self.command, self.session, self.reply_no, self.payload)
        return HEADER.pack(self.command, mark, self.session, self.reply_no) + self.payload

    def encode_tcp(self) -> bytes:
        body = self.encode()
        return TOP.pack(TCP_MAGIC, len(body)) + body

    @classmethod
    def decode(cls, body: bytes, *, verify_checksum: bool = True) -> Frame:
        """One datagram, or what a TCP length announced. Raises FrameError."""
        if not HEADER.size <= len(body) <= MAX_LENGTH:
            raise FrameError(f"frame of {len(body)} bytes; allowed are {HEADER.size} to {MAX_LENGTH}")
        command, mark, session, reply_no = HEADER.unpack_from(body)
        payload = body[HEADER.size :]
        if verify_checksum and mark % 0xFFFF != checksum(command, session, reply_no, payload):
            raise FrameError(f"checksum of a command {command} frame is wrong")
        return cls(command, session, reply_no, payload)


class StreamDecoder:
    """Bytes of a TCP connection -> frames; holds at most one frame and what one read added.

    A bad start mark, length or checksum raises: on TCP that is no noise but a peer out of step.
    """

    def __init__(self, *, verify_checksum: bool = True) -> None:
        self._buffer = bytearray()
        self._verify_checksum = verify_checksum

    def feed(self, data: bytes) -> list[Frame]:
        """Every frame completed by `data`. Raises FrameError."""
        self._buffer += data
        frames = []
        start = 0
        while len(self._buffer) - start >= TOP.size:
            magic, length = TOP.unpack_from(self._buffer, start)
            if magic != TCP_MAGIC:
                raise FrameError("a frame does not begin with 50 50 82 7d")
            if not HEADER.size <= length <= MAX_LENGTH:
                raise FrameError(f"frame length {length}; allowed are {HEADER.size} to {MAX_LENGTH}")
            end = start + TOP.size + length
            if len(self._buffer) < end:
                break
            body = bytes(self._buffer[start + TOP.size : end])
            frames.append(Frame.decode(body, verify_checksum=self._verify_checksum))
            start = end
        del self._buffer[:start]
        return frames


class DatagramDecoder:
    """UDP datagrams -> frames. A packet that is none is dropped and counted, as on any noisy line."""

    def __init__(self, *, verify_checksum: bool = True) -> None:
        self.dropped = 0
        self._verify_checksum = verify_checksum

    def feed(self, data: bytes) -> list[Frame]:
        try:
            return [Frame.decode(data, verify_checksum=self._verify_checksum)]
        except FrameError:
            self.dropped += 1
            return []
