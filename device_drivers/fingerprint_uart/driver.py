"""EF01 fingerprint modules (R30x, R503, AS608, ZFM) on a serial line.

The module is asked for a finger only between `arm()` and `disarm()`: a few times a second, and only whether one lies
there. An image crosses the line when `capture` is called, and is kept nowhere. Enrolling and searching on the module
itself are for sites that keep templates there; the gateway's own matching needs `capture` alone.

password: the module's, a number, decimal or 0x...; 0 as from the factory.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from device_drivers.devices import Capabilities, DeviceConfig, Feature, Feedback, Identity, Record
from device_drivers.errors import (
    AuthenticationFailed,
    DeviceError,
    DeviceRefused,
    LinkTimeout,
    ProtocolError,
    WrongDevice,
)
from device_drivers.events import FingerPresented
from device_drivers.fingerprint_uart import messages
from device_drivers.fingerprint_uart.frame import ANY_ADDRESS, Decoder, Kind, Packet
from device_drivers.fingerprint_uart.messages import AURA, Code, Command, Light, Parameters, Product, Transfer
from device_drivers.links import StreamLink

BAUD = 57600
ANSWER_S = 2.0  # features and searches take up to a second
PACKET_S = 1.0  # between two packets of one transfer
LOOK_S = 0.25  # between two looks for a finger
ALIVE_S = 10.0
SENSOR = 1  # this module's reader number
UPLOADS = 2  # the module keeps its image; a packet lost to noise costs one more transfer

FEEDBACK = {
    Feedback.GRANTED: Light.GRANTED,
    Feedback.DENIED: Light.DENIED,
    Feedback.LOOK_AGAIN: Light.WAITING,
    Feedback.WAIT: Light.WAITING,
    Feedback.TURN_LEFT: Light.WAITING,
    Feedback.TURN_RIGHT: Light.WAITING,
}


class FingerprintModule:
    """One module. Every exchange holds the line's lock; a transfer is never interleaved."""

    def __init__(
        self, config: DeviceConfig, *, cursor: bytes | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.config = config
        try:
            self._password = int(config.password or "0", 0)
        except ValueError:
            raise ValueError("the module's password is a number") from None
        if not 0 <= self._password <= 0xFFFFFFFF:
            raise ValueError("the module's password has 32 bits")
        options = config.options
        self._shape = (int(options["height"]), int(options["width"])) if "height" in options else None
        self._baud = int(options.get("baud", BAUD))
        self._aura = bool(options.get("aura", False))
        self._look_s = float(options.get("look_s", LOOK_S))
        self._clock = clock
        self._link: StreamLink | None = None
        self._decoder = Decoder()
        self._pending: list[Packet] = []
        self._address = ANY_ADDRESS
        self._parameters: Parameters | None = None
        self._product: Product | None = None
        self._lock = asyncio.Lock()
        self._armed = asyncio.Event()

    # -- Driver

    async def probe(self) -> Identity:
        async with self._lock:
            parameters = await self._open()
        product = self._product
        serial = product.serial if product and product.serial else f"{parameters.system_id:04x}{parameters.address:08x}"
        if self.config.serial and self.config.serial != serial:
            raise WrongDevice(self.config.address, expected=self.config.serial, found=serial)
        model = product.model if product else f"EF01 system {parameters.system_id:#06x}"
        return Identity("EF01", model, serial, product.sensor if product else "")

    async def capabilities(self) -> Capabilities:
        async with self._lock:
            parameters = await self._open()
        count = await self.template_count()
        features = {Feature.LIVE, Feature.FINGER_IMAGES, Feature.FINGER_TEMPLATES}
        if self._aura:
            features.add(Feature.FEEDBACK)
        return Capabilities(
            frozenset(features),
            max_finger_templates=parameters.capacity,
            finger_algorithm=f"ef01-{parameters.system_id:04x}",
            users=count,
        )

    async def run(self, record: Record) -> None:
        identity = await self.probe()
        present = False
        try:
            while True:
                if not self._armed.is_set():
                    present = False
                    await self._idle()
                    continue
                async with self._lock:
                    code = await self._confirmed(Command.GET_IMAGE)
                if code == Code.OK and not present:
                    await record([FingerPresented(identity.serial, SENSOR)])
                present = code == Code.OK
                await asyncio.sleep(self._look_s)
        finally:
            await self.close()

    async def _idle(self) -> None:
        """Until armed; now and then see that the module is still there."""
        try:
            async with asyncio.timeout(ALIVE_S):
                await self._armed.wait()
        except TimeoutError:
            async with self._lock:
                await self._confirmed(Command.COUNT)

    async def close(self) -> None:
        if self._link is not None:
            link, self._link = self._link, None
            await link.close()

    def arm(self) -> None:
        """From now on a finger on the sensor is told."""
        self._armed.set()

    def disarm(self) -> None:
        self._armed.clear()

    async def feedback(self, reader: int, what: Feedback) -> None:
        """The ring's light, where there is one (option aura)."""
        if self._aura:
            await self.set_light(FEEDBACK[what])

    # -- images

    async def capture(self, *, timeout_s: float) -> NDArray[np.uint8]:
        """One grey image, shape (H, W), 500 dpi. Raises LinkTimeout if no finger came.

        At 57600 baud 256 x 288 pixels take more than six seconds to arrive: `timeout_s` is for the finger alone.
        """
        async with self._lock:
            await self._open()
            await self._finger(timeout_s)
            return await self._image()

    async def lifted(self, *, timeout_s: float) -> None:
        """Return once no finger lies there. Raises LinkTimeout if one stays."""
        async with self._lock:
            await self._open()
            await self._until(Code.NO_FINGER, timeout_s)

    async def _finger(self, timeout_s: float) -> None:
        await self._until(Code.OK, timeout_s)

    async def _until(self, wanted: Code, timeout_s: float) -> None:
        """Look at the sensor until it shows a finger, or none."""
        deadline = self._clock() + timeout_s
        while (code := await self._confirmed(Command.GET_IMAGE)) != wanted:
            if code not in {Code.OK, Code.NO_FINGER, Code.IMAGE_FAILED}:
                raise self._refusal(Command.GET_IMAGE, code)
            if self._clock() >= deadline:
                raise LinkTimeout(self.config.address, timeout_s)
            await asyncio.sleep(self._look_s / 2)

    async def _image(self) -> NDArray[np.uint8]:
        shape = self._shape
        if shape is None and self._product is not None and self._product.width and self._product.height:
            shape = self._product.height, self._product.width
        expected = shape[0] * shape[1] // 2 if shape else 0
        fault: Exception | None = None
        for _ in range(UPLOADS):
            await self._do(Command.UPLOAD_IMAGE)
            try:
                return messages.image_of(await self._receive_data(expected), shape)
            except (ValueError, LinkTimeout) as exc:
                fault = exc
        raise ProtocolError(f"{self.config.address}: the image did not arrive whole: {fault}") from fault

    # -- templates on the module

    async def enrol(self, slot: int, *, timeout_s: float) -> None:
        """A finger, laid on twice, becomes the template in `slot`. Raises DeviceRefused if they differ."""
        async with self._lock:
            await self._open()
            for buffer in (1, 2):
                if buffer == 2:
                    await self._until(Code.NO_FINGER, timeout_s)
                await self._finger(timeout_s)
                await self._do(Command.TO_FEATURES, bytes([buffer]))
            await self._do(Command.MAKE_TEMPLATE)
            await self._do(Command.STORE, struct.pack(">BH", 1, slot))

    async def search(self, *, timeout_s: float) -> tuple[int, int] | None:
        """(slot, the module's score) of the finger that comes, or None if it is nobody's."""
        async with self._lock:
            parameters = await self._open()
            await self._finger(timeout_s)
            await self._do(Command.TO_FEATURES, b"\x01")
            answer = await self._ask(Command.SEARCH, struct.pack(">BHH", 1, 0, parameters.capacity))
            if answer[0] == Code.NOT_FOUND:
                return None
            self._require(Command.SEARCH, answer, 5)
            slot, score = struct.unpack(">HH", answer[1:5])
            return slot, score

    async def delete(self, slot: int, *, count: int = 1) -> None:
        async with self._lock:
            await self._open()
            await self._do(Command.DELETE, struct.pack(">HH", slot, count))

    async def clear(self) -> None:
        async with self._lock:
            await self._open()
            await self._do(Command.EMPTY)

    async def template_count(self) -> int:
        async with self._lock:
            await self._open()
            answer = self._require(Command.COUNT, await self._ask(Command.COUNT), 3)
            return int.from_bytes(answer[1:3], "big")

    async def slots(self) -> list[int]:
        """Occupied slots."""
        async with self._lock:
            parameters = await self._open()
            found: list[int] = []
            for page in range(min(-(-parameters.capacity // messages.INDEX_PAGE), 16)):
                answer = self._require(Command.INDEX_TABLE, await self._ask(Command.INDEX_TABLE, bytes([page])), 33)
                found += messages.slots_of(answer[1:], page)
            return found

    async def template(self, slot: int) -> bytes:
        """The template in `slot`, in the module's own format."""
        async with self._lock:
            await self._open()
            await self._do(Command.LOAD, struct.pack(">BH", 1, slot))
            await self._do(Command.UPLOAD_TEMPLATE, b"\x01")
            data = await self._receive_data(0)
        if len(data) not in messages.TEMPLATE_SIZES:
            raise ProtocolError(f"{self.config.address}: a template of {len(data)} bytes")
        return data

    async def put_template(self, slot: int, data: bytes) -> None:
        """Store a template that a module of the same algorithm gave."""
        if len(data) not in messages.TEMPLATE_SIZES:
            raise ValueError(f"a template of {len(data)} bytes")
        async with self._lock:
            parameters = await self._open()
            await self._do(Command.DOWNLOAD_TEMPLATE, b"\x01")
            link = self._require_link()
            for packet in messages.data_packets(data, packet_size=parameters.packet_size, address=self._address):
                await link.send(packet.encode())
            await self._do(Command.STORE, struct.pack(">BH", 1, slot))

    async def set_light(self, light: Light) -> None:
        async with self._lock:
            await self._open()
            await self._do(Command.LED, AURA[light])

    async def set_packet_size(self, size: int) -> None:
        """32, 64, 128 or 256 bytes a data packet."""
        codes = {32: 0, 64: 1, 128: 2, 256: 3}
        if size not in codes:
            raise ValueError("data packets have 32, 64, 128 or 256 bytes")
        async with self._lock:
            await self._open()
            await self._do(Command.SET_PARAMETER, bytes([6, codes[size]]))
            self._parameters = await self._read_parameters()

    # -- exchanges, under the lock

    async def _open(self) -> Parameters:
        if self._link is not None and self._parameters is not None:
            return self._parameters
        if self._link is None:
            self._link = await StreamLink.open_serial(self.config.address, baud=self._baud)
        answer = await self._ask(Command.VERIFY_PASSWORD, struct.pack(">I", self._password))
        if answer[0] in {Code.WRONG_PASSWORD, Code.PASSWORD_NEEDED}:
            raise AuthenticationFailed(f"{self.config.address}: the module's password is another", code=answer[0])
        if answer[0] != Code.OK:
            raise self._refusal(Command.VERIFY_PASSWORD, answer[0])
        self._parameters = await self._read_parameters()
        self._product = await self._read_product()
        return self._parameters

    async def _read_parameters(self) -> Parameters:
        answer = self._require(Command.READ_PARAMETERS, await self._ask(Command.READ_PARAMETERS), 17)
        return Parameters.decode(answer[1:])

    async def _read_product(self) -> Product | None:
        try:
            answer = await self._ask(Command.PRODUCT, timeout_s=0.5)
        except LinkTimeout:
            return None  # older modules say nothing to a command they do not know
        if answer[0] != Code.OK or len(answer) < 1 + messages.PRODUCT_LEN:
            return None
        return Product.decode(answer[1:])

    async def _do(self, command: Command, arguments: bytes = b"") -> None:
        code = await self._confirmed(command, arguments)
        if code != Code.OK:
            raise self._refusal(command, code)

    async def _confirmed(self, command: Command, arguments: bytes = b"") -> int:
        return (await self._ask(command, arguments))[0]

    async def _ask(self, command: Command, arguments: bytes = b"", *, timeout_s: float = ANSWER_S) -> bytes:
        """Confirmation code and what follows it. A cancelled question waits for its answer, which would be taken for
        the next one's."""
        link = self._require_link()
        self._pending.clear()  # late packets of an earlier transfer
        deadline = self._clock() + timeout_s
        try:
            await link.send(messages.command(command, arguments, address=self._address).encode())
            return await self._answer(deadline, timeout_s)
        except asyncio.CancelledError:
            with contextlib.suppress(DeviceError):
                await self._answer(deadline, timeout_s)
            raise

    async def _answer(self, deadline: float, told_s: float) -> bytes:
        while True:
            packet = await self._next(deadline - self._clock(), told_s)
            if packet.kind == Kind.ACK and packet.content:
                return packet.content

    async def _receive_data(self, expected: int) -> bytes:
        transfer = Transfer(expected)
        while not transfer.done:
            try:
                packet = await self._next(PACKET_S, PACKET_S)
            except LinkTimeout:
                if not transfer.silence():
                    raise
                break
            try:
                transfer.take(packet)
            except ValueError as exc:
                raise ProtocolError(f"{self.config.address}: {exc}") from exc
        return bytes(transfer.data)

    async def _next(self, wait_s: float, told_s: float) -> Packet:
        link = self._require_link()
        end = self._clock() + wait_s
        while not self._pending:
            left = end - self._clock()
            if left <= 0:
                raise LinkTimeout(self.config.address, told_s)
            self._pending += self._decoder.feed(await link.receive(timeout_s=left))
        return self._pending.pop(0)

    def _require_link(self) -> StreamLink:
        if self._link is None:
            raise ProtocolError(f"{self.config.address}: the line is closed")
        return self._link

    def _require(self, command: Command, answer: bytes, length: int) -> bytes:
        if answer[0] != Code.OK:
            raise self._refusal(command, answer[0])
        if len(answer) < length:
            raise ProtocolError(f"{self.config.address}: {command.name} answered {len(answer)} bytes of {length}")
        return answer

    def _refusal(self, command: Command, code: int) -> DeviceRefused:
        words = Code(code).name.lower().replace("_", " ") if code in set(Code) else f"code {code:#04x}"
        return DeviceRefused(f"{self.config.address}: {command.name}: {words}", code=code)
