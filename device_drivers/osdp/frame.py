"""OSDP framing, seen from beside the line: bytes -> Frame.

libosdp is the codec of the control panel. This decoder only watches what passes, to know when a PD was last heard,
which key it proves, and whether it sends credentials in plaintext. Source: IEC 60839-11-5 (SIA OSDP 2.2), packet
format and security blocks; vectors of Annex E and recorded lines.
"""

from __future__ import annotations

import binascii
import struct
from dataclasses import dataclass, field

SOM = 0x53
MARK = 0xFF
REPLY = 0x80
BROADCAST = 0x7F
CRC_INIT = 0x1D0F
HEADER_LEN = 5
MIN_LEN = HEADER_LEN + 1 + 1  # a code and a checksum
MAX_LEN = 1440  # the largest packet the standard allows
HAS_CRC, HAS_SECURITY = 0x04, 0x08

CHLNG = CCRYPT = 0x76
SCS_11, SCS_12 = 0x11, 0x12
SCS_17, SCS_18 = 0x17, 0x18  # payload encrypted
NAK, RAW, FMT, KEYPAD = 0x41, 0x50, 0x51, 0x53
MAC_LEN = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """One packet. `security` is the block's type and data, empty without one; `payload` may be ciphertext."""

    address: int  # 0..126; 127 is everyone
    reply: bool
    sequence: int
    code: int
    payload: bytes
    security: bytes = b""
    crc: bool = True
    wire: bytes = field(default=b"", repr=False, compare=False)  # as it was seen

    @property
    def encrypted(self) -> bool:
        return bool(self.security) and self.security[0] in {SCS_17, SCS_18}

    def encode(self) -> bytes:
        """Wire bytes of a frame without a MAC."""
        block = bytes([len(self.security) + 1]) + self.security if self.security else b""
        control = self.sequence | (HAS_CRC if self.crc else 0) | (HAS_SECURITY if block else 0)
        length = HEADER_LEN + len(block) + 1 + len(self.payload) + (2 if self.crc else 1)
        head = struct.pack("<BBHB", SOM, self.address | (REPLY if self.reply else 0), length, control)
        body = head + block + bytes([self.code]) + self.payload
        return body + (struct.pack("<H", crc16(body)) if self.crc else bytes([checksum(body)]))


def crc16(data: bytes) -> int:
    return binascii.crc_hqx(data, CRC_INIT)


def checksum(data: bytes) -> int:
    return -sum(data) & 0xFF


class Decoder:
    """Finds frames in a byte stream; noise is dropped and counted. Holds at most one frame."""

    def __init__(self) -> None:
        self.noise = 0
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        self._buffer += data
        while (start := self._buffer.find(SOM)) >= 0:
            self._drop(start)
            if len(self._buffer) < HEADER_LEN:
                return frames
            length = struct.unpack_from("<H", self._buffer, 2)[0]
            if not MIN_LEN <= length <= MAX_LEN:
                self._drop(1)
                continue
            if len(self._buffer) < length:
                return frames
            frame = _parse(bytes(self._buffer[:length]))
            if frame is None:
                self._drop(1)
                continue
            frames.append(frame)
            del self._buffer[:length]
        self._drop(len(self._buffer))
        return frames

    def reset(self) -> None:
        """What has come so far of a frame is noise: a new exchange begins."""
        self._drop(len(self._buffer))

    def _drop(self, count: int) -> None:
        self.noise += sum(byte != MARK for byte in self._buffer[:count])
        del self._buffer[:count]


def _parse(packet: bytes) -> Frame | None:
    control = packet[4]
    has_crc = bool(control & HAS_CRC)
    body = packet[: -2 if has_crc else -1]
    if has_crc:
        if crc16(body) != struct.unpack("<H", packet[-2:])[0]:
            return None
    elif checksum(body) != packet[-1]:
        return None
    rest = body[HEADER_LEN:]
    security = b""
    if control & HAS_SECURITY:
        size = rest[0] if rest else 0
        if not 2 <= size < len(rest):
            return None
        security, rest = rest[1:size], rest[size:]
        if security[0] > 0x14:
            if len(rest) <= MAC_LEN:
                return None
            rest = rest[:-MAC_LEN]
    if not rest:
        return None
    reply = bool(packet[1] & REPLY)
    return Frame(packet[1] & 0x7F, reply, control & 0x03, rest[0], rest[1:], security, has_crc, packet)
