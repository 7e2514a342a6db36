"""C3 framing: bytes on TCP <-> Frame.

`AA`, version, command, length (2), data, CRC-16/ARC of everything between, `55`. The version byte is 0, 1 or 2 in
what panels answer, so it is kept and not judged.
Source: the published description of the zkaccess-c3 project (readme), and frames recorded from C3-200/400 and inBio.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from device_drivers.errors import FrameError

START, END = 0xAA, 0x55
HEADER_LEN = 5
TRAILER_LEN = 3
MAX_DATA = 0xFFFF - 4  # beside a session's four bytes
CRC_POLYNOMIAL = 0xA001  # CRC-16/ARC, reflected, initial value 0

CONNECT_PLAIN = 0x01
DISCONNECT = 0x02
SET_TIME = 0x03
GET_PARAMETERS = 0x04
CONTROL = 0x05
TABLES = 0x06
SET_DATA = 0x07
GET_DATA = 0x08
DELETE_DATA = 0x09
LOG_BINARY = 0x0B
DISCOVER = 0x14
CONNECT_SESSION = 0x76
LOG_TEXT = 0x79
REPLY_OK = 0xC8
REPLY_ERROR = 0xC9


def _table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ CRC_POLYNOMIAL if value & 1 else value >> 1
        table.append(value)
    return tuple(table)


_CRC = _table()


def crc16(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = (crc >> 8) ^ _CRC[(crc ^ byte) & 0xFF]
    return crc


@dataclass(frozen=True, slots=True)
class Frame:
    command: int
    data: bytes = field(default=b"", repr=False)
    version: int = 1

    def encode(self) -> bytes:
        body = struct.pack("<BBH", self.version, self.command, len(self.data)) + self.data
        return bytes([START]) + body + struct.pack("<HB", crc16(body), END)


class FrameDecoder:
    """TCP loses nothing, so a bad frame raises FrameError and the connection ends. Holds one frame at most."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        self._buffer += data
        frames = []
        while len(self._buffer) >= HEADER_LEN:
            if self._buffer[0] != START:
                raise FrameError("no start mark")
            length = self._buffer[3] | self._buffer[4] << 8
            total = HEADER_LEN + length + TRAILER_LEN
            if len(self._buffer) < total:
                break
            frames.append(self._decode(bytes(self._buffer[:total])))
            del self._buffer[:total]
        return frames

    @staticmethod
    def _decode(wire: bytes) -> Frame:
        if wire[-1] != END:
            raise FrameError("no end mark")
        if crc16(wire[1:-3]) != wire[-3] | wire[-2] << 8:
            raise FrameError("checksum")
        return Frame(wire[2], wire[5:-3], wire[1])
