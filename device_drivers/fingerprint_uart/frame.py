"""EF01 framing: bytes on the UART <-> Packet.

Source: GROW R503 user manual V1.2.2 and the R30x manuals: start code, address, kind, length, content, sum.
The length counts content and sum; the sum covers kind, length and content. All numbers are big-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum

START = b"\xef\x01"
ANY_ADDRESS = 0xFFFFFFFF
HEADER = struct.Struct(">2sIBH")
SUM_LEN = 2
MAX_CONTENT = 256  # the largest data packet a module can be set to


class Kind(IntEnum):
    COMMAND = 0x01
    DATA = 0x02
    ACK = 0x07
    END = 0x08


@dataclass(frozen=True, slots=True)
class Packet:
    kind: int
    content: bytes = field(repr=False)  # may be part of an image or a template
    address: int = ANY_ADDRESS

    def encode(self) -> bytes:
        if len(self.content) > MAX_CONTENT:
            raise ValueError(f"a packet holds at most {MAX_CONTENT} bytes")
        length = len(self.content) + SUM_LEN
        total = self.kind + (length >> 8) + (length & 0xFF) + sum(self.content)
        return HEADER.pack(START, self.address, self.kind, length) + self.content + struct.pack(">H", total & 0xFFFF)


class Decoder:
    """Finds packets in a byte stream; noise and broken packets are dropped and counted. Holds at most one packet."""

    def __init__(self) -> None:
        self.noise = 0
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Packet]:
        packets: list[Packet] = []
        self._buffer += data
        while self._buffer:
            start = self._buffer.find(START)
            if start < 0:
                # The last byte may be the first half of a start code.
                self._drop(len(self._buffer) - (self._buffer[-1] == START[0]))
                break
            self._drop(start)
            if len(self._buffer) < HEADER.size:
                break
            _, address, kind, length = HEADER.unpack_from(self._buffer)
            if not SUM_LEN <= length <= MAX_CONTENT + SUM_LEN:
                self._drop(len(START))
                continue
            if len(self._buffer) < HEADER.size + length:
                break
            content = bytes(self._buffer[HEADER.size : HEADER.size + length - SUM_LEN])
            packet = Packet(kind, content, address)
            if packet.encode() != bytes(self._buffer[: HEADER.size + length]):
                self._drop(len(START))
                continue
            packets.append(packet)
            del self._buffer[: HEADER.size + length]
        return packets

    def _drop(self, count: int) -> None:
        self.noise += count
        del self._buffer[:count]
