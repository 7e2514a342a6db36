"""An EF01 module on a pseudo-terminal: fingers can be laid on it, templates live in it, its faults can be had.

Images are impressions of synthetic fingers. The module's own matcher is not modelled: its features carry whose finger
lay there, so that enrolling, searching and moving templates behave as on a module that never errs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import struct
import tty
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from device_drivers.simulated.synthetic_fingerprints import Finger

START = b"\xef\x01"
COMMAND, DATA, ACK, END = 0x01, 0x02, 0x07, 0x08
TEMPLATE_LEN = 512
OK, NO_FINGER, NO_MATCH, NOT_FOUND, DIFFER, BAD_SLOT, EMPTY_SLOT = 0x00, 0x02, 0x08, 0x09, 0x0A, 0x0B, 0x0C
WRONG_PASSWORD, NO_IMAGE, BAD_REGISTER, PASSWORD_NEEDED, UNKNOWN = 0x13, 0x15, 0x1A, 0x21, 0x01
SCORE = 120


class SimulatedModule:
    """`product` is what an R503 tells about itself; None for modules that stay silent when asked."""

    def __init__(
        self, *, width: int = 256, height: int = 288, capacity: int = 200, password: int = 0, product: str | None = None
    ) -> None:
        self.width, self.height, self.capacity = width, height, capacity
        self.password = password
        self.templates: dict[int, bytes] = {}
        self.lights: list[bytes] = []
        self.commands: list[int] = []  # what was asked for, oldest first
        self.packet_code = 2  # 32 << code bytes a data packet
        self.declared_packet_code: int | None = None  # a size the module claims instead
        self.drop_end_packet = False
        self._product = product
        self._finger: Finger | None = None
        self._impression = 0
        self._taps: list[tuple[Finger, int]] = []
        self._lifts = False  # the next look finds no finger
        self._image: NDArray[np.uint8] | None = None
        self._image_of: Finger | None = None
        self._features: dict[int, bytes] = {}
        self._incoming_template = bytearray()
        self._receiving = 0
        self._offline = False
        self._corrupt_next = False
        self._unlocked = password == 0
        self._buffer = bytearray()
        self._outgoing = bytearray()
        self._master: int | None = None
        self._slave: int | None = None
        self._writing = False
        self._asked = asyncio.Event()
        self._acts: dict[int, Callable[[bytes], bytes]] = {
            0x01: self._get_image, 0x02: self._to_features, 0x03: self._compare, 0x04: self._search,
            0x05: self._make_template, 0x06: self._store, 0x07: self._load, 0x08: self._upload_template,
            0x09: self._download_template, 0x0A: self._upload_image, 0x0C: self._delete, 0x0D: self._empty,
            0x0E: self._set_parameter, 0x0F: lambda _: self._parameters(), 0x12: self._set_password,
            0x13: self._verify_password, 0x1B: self._search, 0x1D: self._count, 0x1F: self._index,
            0x35: self._led, 0x40: lambda _: bytes([OK]), 0x53: lambda _: bytes([0x55]),
        }  # fmt: skip
        if product is not None:
            self._acts[0x3C] = lambda _: self._about(product)

    # -- what a person does

    def place(self, finger: Finger, impression: int = 0) -> None:
        """Lay a finger on the sensor; its size must be the sensor's."""
        if (finger.width, finger.height) != (self.width, self.height):
            raise ValueError("the finger was grown for another sensor")
        self._finger, self._impression, self._lifts = finger, impression, False

    def lift(self) -> None:
        self._finger, self._lifts = None, False

    def tap(self, finger: Finger, *impressions: int) -> None:
        """From the next look on: lay the finger on once for each impression, and lift it when the sensor saw it."""
        self._lifts = True
        self._taps = [(finger, impression) for impression in impressions]

    # -- what happens to a module

    def go_offline(self) -> None:
        self._offline = True

    def come_back(self) -> None:
        self._offline = False

    def corrupt_next(self) -> None:
        """The sum of the next packet is wrong."""
        self._corrupt_next = True

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once `condition()` holds; looks again after each command."""
        while not condition():
            self._asked.clear()
            await self._asked.wait()

    async def start(self) -> str:
        """The path of the pseudo-terminal."""
        self._master, self._slave = pty.openpty()
        tty.setraw(self._master)
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        asyncio.get_running_loop().add_reader(self._master, self._readable)
        return os.ttyname(self._slave)

    async def stop(self) -> None:
        if self._master is None or self._slave is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._master)
        loop.remove_writer(self._master)
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = None

    # -- the line

    def _readable(self) -> None:
        if self._master is None:
            return
        with contextlib.suppress(BlockingIOError, OSError):
            self._buffer += os.read(self._master, 4096)
        while (packet := self._take()) is not None:
            kind, content = packet
            if self._offline:
                continue
            if kind == COMMAND and content:
                self._command(content)
            elif kind in {DATA, END} and self._receiving:
                self._template_part(content, last=kind == END)

    def _take(self) -> tuple[int, bytes] | None:
        start = self._buffer.find(START)
        if start < 0:
            return None
        del self._buffer[:start]
        if len(self._buffer) < 9:
            return None
        kind, length = struct.unpack_from(">BH", self._buffer, 6)
        if len(self._buffer) < 9 + length:
            return None
        content = bytes(self._buffer[9 : 9 + length - 2])
        del self._buffer[: 9 + length]
        return kind, content

    def _command(self, content: bytes) -> None:
        code, arguments = content[0], content[1:]
        self.commands.append(code)
        self._asked.set()
        act = self._acts.get(code)
        if act is None:
            return
        if not self._unlocked and code != 0x13:
            self._send(ACK, bytes([PASSWORD_NEEDED]))
            return
        try:
            answer = act(arguments)
        except (struct.error, IndexError):
            answer = bytes([UNKNOWN])
        if answer:
            self._send(ACK, answer)

    def _send(self, kind: int, content: bytes) -> None:
        length = len(content) + 2
        total = kind + (length >> 8) + (length & 0xFF) + sum(content)
        if self._corrupt_next:
            self._corrupt_next = False
            total ^= 0x5A
        self._outgoing += START + b"\xff" * 4 + struct.pack(">BH", kind, length) + content
        self._outgoing += struct.pack(">H", total & 0xFFFF)
        self._flush()

    def _send_data(self, data: bytes) -> None:
        size = 32 << self.packet_code
        for start in range(0, len(data), size):
            last = start + size >= len(data)
            self._send(END if last and not self.drop_end_packet else DATA, data[start : start + size])

    def _flush(self) -> None:
        if self._master is None:
            return
        loop = asyncio.get_running_loop()
        try:
            sent = os.write(self._master, self._outgoing)
            del self._outgoing[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._outgoing.clear()
        if self._outgoing and not self._writing:
            self._writing = True
            loop.add_writer(self._master, self._flush)
        elif not self._outgoing and self._writing:
            self._writing = False
            loop.remove_writer(self._master)

    # -- commands

    def _get_image(self, _: bytes) -> bytes:
        if self._lifts:
            self.lift()
        elif self._taps:
            self.place(*self._taps.pop(0))
            self._lifts = True
        if self._finger is None:
            return bytes([NO_FINGER])
        self._image = self._finger.impression(self._impression)
        self._image_of = self._finger
        self._impression += 1
        return bytes([OK])

    def _upload_image(self, _: bytes) -> bytes:
        if self._image is None:
            return bytes([NO_IMAGE])
        grey = self._image.reshape(-1) >> 4
        self._send(ACK, bytes([OK]))
        self._send_data((grey[0::2] << 4 | grey[1::2]).tobytes())
        return b""

    def _to_features(self, arguments: bytes) -> bytes:
        if self._image_of is None:
            return bytes([NO_IMAGE])
        self._features[2 if arguments[0] == 2 else 1] = _template(self._image_of)
        return bytes([OK])

    def _compare(self, _: bytes) -> bytes:
        same = 1 in self._features and self._features.get(1) == self._features.get(2)
        return struct.pack(">BH", OK if same else NO_MATCH, SCORE if same else 0)

    def _make_template(self, _: bytes) -> bytes:
        return bytes([OK if self._features.get(1) == self._features.get(2) is not None else DIFFER])

    def _search(self, arguments: bytes) -> bytes:
        probe = self._features.get(2 if arguments[0] == 2 else 1)
        first, count = struct.unpack(">HH", arguments[1:5])
        for slot, stored in sorted(self.templates.items()):
            if first <= slot < first + count and stored == probe:
                return struct.pack(">BHH", OK, slot, SCORE)
        return struct.pack(">BHH", NOT_FOUND, 0, 0)

    def _store(self, arguments: bytes) -> bytes:
        buffer, slot = struct.unpack(">BH", arguments)
        features = self._features.get(2 if buffer == 2 else 1)
        if slot >= self.capacity or features is None:
            return bytes([BAD_SLOT])
        self.templates[slot] = features
        return bytes([OK])

    def _load(self, arguments: bytes) -> bytes:
        buffer, slot = struct.unpack(">BH", arguments)
        if slot not in self.templates:
            return bytes([EMPTY_SLOT])
        self._features[2 if buffer == 2 else 1] = self.templates[slot]
        return bytes([OK])

    def _upload_template(self, arguments: bytes) -> bytes:
        features = self._features.get(2 if arguments[0] == 2 else 1)
        if features is None:
            return bytes([0x0D])
        self._send(ACK, bytes([OK]))
        self._send_data(features)
        return b""

    def _download_template(self, arguments: bytes) -> bytes:
        self._receiving = 2 if arguments[0] == 2 else 1
        self._incoming_template.clear()
        return bytes([OK])

    def _template_part(self, content: bytes, *, last: bool) -> None:
        self._incoming_template += content[: 2048 - len(self._incoming_template)]
        if last:
            self._features[self._receiving] = bytes(self._incoming_template)
            self._receiving = 0

    def _delete(self, arguments: bytes) -> bytes:
        first, count = struct.unpack(">HH", arguments)
        for slot in range(first, min(first + count, self.capacity)):
            self.templates.pop(slot, None)
        return bytes([OK])

    def _empty(self, _: bytes) -> bytes:
        self.templates.clear()
        return bytes([OK])

    def _set_parameter(self, arguments: bytes) -> bytes:
        number, setting = arguments[0], arguments[1]
        if number == 6 and setting <= 3:
            self.packet_code = setting
            return bytes([OK])
        return bytes([OK if number in {4, 5} else BAD_REGISTER])

    def _parameters(self) -> bytes:
        declared = self.packet_code if self.declared_packet_code is None else self.declared_packet_code
        return struct.pack(">BHHHHIHH", OK, 0, 9, self.capacity, 3, 0xFFFFFFFF, declared, 6)

    def _set_password(self, arguments: bytes) -> bytes:
        self.password = int.from_bytes(arguments[:4], "big")
        return bytes([OK])

    def _verify_password(self, arguments: bytes) -> bytes:
        self._unlocked = int.from_bytes(arguments[:4], "big") == self.password
        return bytes([OK if self._unlocked else WRONG_PASSWORD])

    def _count(self, _: bytes) -> bytes:
        return struct.pack(">BH", OK, len(self.templates))

    def _index(self, arguments: bytes) -> bytes:
        table = bytearray(32)
        for slot in self.templates:
            if slot // 256 == arguments[0]:
                table[slot % 256 // 8] |= 1 << slot % 8
        return bytes([OK]) + table

    def _led(self, arguments: bytes) -> bytes:
        self.lights.append(arguments)
        return bytes([OK])

    def _about(self, model: str) -> bytes:
        return bytes([OK]) + struct.pack(
            ">16s4s8s2s8sHHHH", model.encode(), b"B001", b"SIM00001", b"\x01\x00", b"SYNTH-1", self.width, self.height,
            TEMPLATE_LEN, self.capacity,
        )  # fmt: skip


def _template(finger: Finger) -> bytes:
    """Whose finger it is, spread over a module's usual 512 bytes."""
    return np.random.default_rng([finger.seed, finger.width, finger.height]).bytes(TEMPLATE_LEN)
