"""EF01 commands, answers and transfers as values: what bytes ask, what they say, how an image unfolds.

Source: GROW R503 user manual V1.2.2 and the R30x manuals. Known of real modules (R30x, AS608): the data packet size in
the system parameters may be wrong, and the packet that ends a transfer may be missing; a transfer therefore ends by
its end packet, by its known size, or by silence.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray

from device_drivers.fingerprint_uart.frame import Kind, Packet

MAX_TRANSFER = 256 * 1024  # eight bits of the largest sensor, and room
TEMPLATE_SIZES = range(128, 2049)  # 512 to 1536 seen on modules
INDEX_PAGE = 256
PRODUCT_LEN = 46


class Command(IntEnum):
    GET_IMAGE = 0x01
    TO_FEATURES = 0x02
    COMPARE = 0x03
    SEARCH = 0x04
    MAKE_TEMPLATE = 0x05
    STORE = 0x06
    LOAD = 0x07
    UPLOAD_TEMPLATE = 0x08  # module to host
    DOWNLOAD_TEMPLATE = 0x09  # host to module
    UPLOAD_IMAGE = 0x0A
    DELETE = 0x0C
    EMPTY = 0x0D
    SET_PARAMETER = 0x0E
    READ_PARAMETERS = 0x0F
    SET_PASSWORD = 0x12
    VERIFY_PASSWORD = 0x13
    COUNT = 0x1D
    INDEX_TABLE = 0x1F
    LED = 0x35
    PRODUCT = 0x3C
    HANDSHAKE = 0x40


class Code(IntEnum):
    OK = 0x00
    PACKET_ERROR = 0x01
    NO_FINGER = 0x02
    IMAGE_FAILED = 0x03
    TOO_MESSY = 0x06
    TOO_FEW_FEATURES = 0x07
    NO_MATCH = 0x08
    NOT_FOUND = 0x09
    DO_NOT_MERGE = 0x0A
    BAD_SLOT = 0x0B
    TEMPLATE_ERROR = 0x0C
    UPLOAD_FAILED = 0x0D
    CANNOT_RECEIVE = 0x0E
    IMAGE_UPLOAD_FAILED = 0x0F
    DELETE_FAILED = 0x10
    EMPTY_FAILED = 0x11
    WRONG_PASSWORD = 0x13
    NO_IMAGE = 0x15
    FLASH_ERROR = 0x18
    BAD_REGISTER = 0x1A
    PASSWORD_NEEDED = 0x21


class Light(StrEnum):
    OFF = "off"
    WAITING = "waiting"
    GRANTED = "granted"
    DENIED = "denied"


# R503 aura: control (1 breathing, 2 flashing, 3 on, 4 off), speed, colour (1 red, 2 blue, 3 purple), times.
AURA = {
    Light.OFF: bytes([4, 0, 0, 0]),
    Light.WAITING: bytes([1, 100, 2, 0]),
    Light.GRANTED: bytes([3, 0, 2, 1]),
    Light.DENIED: bytes([2, 30, 1, 3]),
}

# Sensors by the bytes of a four-bit image: height, width.
SENSORS = {
    256 * 288 // 2: (288, 256),  # R305, R307, AS608, ZFM-20
    192 * 192 // 2: (192, 192),  # R503
    160 * 160 // 2: (160, 160),  # R502
    208 * 288 // 2: (288, 208),  # R551
}


def command(code: Command, arguments: bytes = b"", *, address: int) -> Packet:
    return Packet(Kind.COMMAND, bytes([code]) + arguments, address)


@dataclass(frozen=True, slots=True)
class Parameters:
    """The module's own description; every field may be wrong."""

    status: int
    system_id: int
    capacity: int
    security: int
    address: int
    packet_size: int
    baud: int

    @classmethod
    def decode(cls, content: bytes) -> Parameters:
        """From the 16 bytes after the confirmation code. Raises ValueError."""
        if len(content) < 16:
            raise ValueError(f"system parameters of {len(content)} bytes; 16 are needed")
        status, system_id, capacity, security, address, size, baud = struct.unpack(">HHHHIHH", content[:16])
        return cls(status, system_id, capacity, security, address, 32 << min(size, 3), baud * 9600)


@dataclass(frozen=True, slots=True)
class Product:
    """What an R503 says about itself; older modules have no such command."""

    model: str
    serial: str
    sensor: str
    width: int
    height: int
    template_size: int
    capacity: int

    @classmethod
    def decode(cls, content: bytes) -> Product:
        """Raises ValueError."""
        if len(content) < PRODUCT_LEN:
            raise ValueError(f"product information of {len(content)} bytes; {PRODUCT_LEN} are needed")
        model, _, serial, _, sensor, width, height, size, capacity = struct.unpack(
            ">16s4s8s2s8sHHHH", content[:PRODUCT_LEN]
        )
        return cls(_text(model), _text(serial), _text(sensor), width, height, size, capacity)


def _text(raw: bytes) -> str:
    return "".join(chr(b) for b in raw if 0x20 < b < 0x7F)


def image_of(data: bytes, shape: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Grey image from four-bit pixels, high half first, spread to 0..255. Raises ValueError for another size.

    A transfer with a few packets lost is no image: half a finger would be searched as if it were whole.
    """
    height, width = shape or SENSORS.get(len(data), (0, 0))
    if height * width == 0 or len(data) != height * width // 2:
        raise ValueError(f"an image of {len(data)} bytes fits no known sensor")
    packed = np.frombuffer(data, np.uint8)
    pixels = np.empty(len(data) * 2, np.uint8)
    pixels[0::2] = packed >> 4
    pixels[1::2] = packed & 0x0F
    return (pixels * np.uint8(17)).reshape(height, width)


def slots_of(table: bytes, page: int) -> list[int]:
    """Occupied slots from one 32-byte page of the index table."""
    return [
        page * INDEX_PAGE + byte * 8 + bit
        for byte in range(min(len(table), 32))
        for bit in range(8)
        if table[byte] >> bit & 1
    ]


@dataclass(slots=True)
class Transfer:
    """Collects the data packets of one transfer. `expected` 0: the size is not known beforehand."""

    expected: int = 0
    done: bool = False
    data: bytearray = field(default_factory=bytearray, repr=False)

    def take(self, packet: Packet) -> None:
        """Raises ValueError for a transfer without end."""
        if self.done or packet.kind not in {Kind.DATA, Kind.END}:
            return
        self.data += packet.content
        if len(self.data) > MAX_TRANSFER:
            raise ValueError("a transfer without end")
        self.done = packet.kind == Kind.END or (self.expected > 0 and len(self.data) >= self.expected)

    def silence(self) -> bool:
        """Nothing more came: whether what is there may count as whole (its end packet is missing)."""
        return bool(self.data) and (not self.expected or len(self.data) >= self.expected)


def data_packets(data: bytes, *, packet_size: int, address: int) -> list[Packet]:
    """`data` cut for the module, the last piece as the end packet."""
    pieces = [data[i : i + packet_size] for i in range(0, len(data), packet_size)]
    return [Packet(Kind.END if i == len(pieces) - 1 else Kind.DATA, piece, address) for i, piece in enumerate(pieces)]
