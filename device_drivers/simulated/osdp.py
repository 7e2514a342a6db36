"""OSDP readers on a pseudo-terminal or a TCP port, spoken for by libosdp's peripheral device.

Cards can be shown, keys pressed, cases opened, cables pulled; what a reader was told to light, sound and
switch is kept for looking at. Everything runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import tty
from collections.abc import Callable
from typing import Any

import osdp
from osdp.constants import Capability, CardFormat, Command, Event, LibFlag, LogLevel, StatusReportType

TICK_S = 0.005
MAX_BUFFER = 4096


class _Wire(osdp.Channel):  # type: ignore[misc] # the library has no types
    def __init__(self, send: Callable[[bytes], None]) -> None:
        super().__init__()
        self.incoming = bytearray()
        self._send = send

    def read(self, max_bytes: int) -> bytes:
        data = bytes(self.incoming[:max_bytes])
        del self.incoming[:max_bytes]
        return data

    def write(self, buf: bytes) -> int:
        self._send(bytes(buf))
        return len(buf)

    def flush(self) -> None:
        self.incoming.clear()


class _Peripheral(osdp.PeripheralDevice):  # type: ignore[misc] # the library has no types
    """The library keeps every command in a queue without end unless its handler is replaced."""

    told: Callable[[dict[str, Any]], None]

    def _internal_command_handler(self, command: dict[str, Any]) -> tuple[int, None]:
        self.told(command)
        return 0, None


class SimulatedReader:
    """One PD. Without a key it is as from the factory: in install mode, holding the default key."""

    def __init__(self, address: int, *, key: bytes = b"", inputs: int = 2, outputs: int = 2) -> None:
        self.address = address
        self.key = key
        self.commands: list[dict[str, Any]] = []  # everything the control panel told it, oldest first
        self._outputs = outputs
        self._inputs = bytearray(inputs)
        self._local = bytearray(2)
        self._offline = False
        self._send: Callable[[bytes], None] = lambda _: None
        self._corrupt_next = False
        self._changed = asyncio.Event()
        self._power_up()

    def _power_up(self) -> None:
        capabilities = osdp.PDCapabilities(
            [
                (Capability.ContactStatusMonitoring, 1, len(self._inputs)),
                (Capability.OutputControl, 1, self._outputs),
                (Capability.CardDataFormat, 1, 1),
                (Capability.LEDControl, 1, 1),
                (Capability.AudibleControl, 1, 1),
                (Capability.Readers, 0, 1),
            ]
        )
        info = osdp.PDInfo(
            self.address,
            wire := _Wire(self._transmit),
            scbk=self.key or None,
            flags=[LibFlag.EnforceSecure] if self.key else [LibFlag.InstallMode],
            id=osdp.PdId(1, 7, 0x00CAFE, 1000 + self.address, 0x010203),
        )
        self.wire = wire
        self._device = _Peripheral(info, capabilities, log_level=LogLevel.Emergency)
        self._device.told = self._told

    # -- what a person does

    def show_card(self, bits: str) -> None:
        """`bits` as on the wire of a Wiegand reader, with parity."""
        padded = bits.ljust(-(-len(bits) // 8) * 8, "0")
        data = int(padded, 2).to_bytes(len(padded) // 8, "big")
        self._submit(
            {
                "event": Event.CardRead, "reader_no": 0, "direction": 0, "format": CardFormat.Wiegand,
                "length": len(bits), "data": data,
            }
        )  # fmt: skip

    def press(self, keys: str) -> None:
        self._submit({"event": Event.KeyPress, "reader_no": 0, "data": keys.encode("ascii")})

    def tamper(self, *, on: bool) -> None:
        self._local[0] = on
        self._report(StatusReportType.Local, self._local)

    def power_fail(self, *, on: bool) -> None:
        self._local[1] = on
        self._report(StatusReportType.Local, self._local)

    def set_input(self, number: int, *, on: bool) -> None:
        self._inputs[number] = on
        self._report(StatusReportType.Input, self._inputs)

    def go_offline(self) -> None:
        self._offline = True

    def come_back(self) -> None:
        """Power again: a new start with the key it last got."""
        self._offline = False
        self._power_up()

    def corrupt_next(self) -> None:
        """The next reply is damaged on the line."""
        self._corrupt_next = True

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once `condition()` holds; looks again after each command."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    @property
    def pulses(self) -> list[tuple[int, int]]:
        """(output, tenths of a second) of each timed release."""
        return [(c["output_no"], c["timer_count"]) for c in self.told_of(Command.Output) if c["control_code"] == 5]

    def told_of(self, command: int) -> list[dict[str, Any]]:
        return [told for told in self.commands if told["command"] == command]

    # -- the inside

    def attach(self, send: Callable[[bytes], None]) -> None:
        self._send = send

    def arrived(self, data: bytes) -> None:
        if not self._offline:
            self.wire.incoming += data
            del self.wire.incoming[:-MAX_BUFFER]

    def refresh(self) -> None:
        if not self._offline:
            self._device.ctx.refresh()

    def _transmit(self, data: bytes) -> None:
        if self._corrupt_next:
            self._corrupt_next = False
            data = data[:-1] + bytes([data[-1] ^ 0x55])
        self._send(data)

    def _submit(self, event: dict[str, Any]) -> None:
        self._device.ctx.submit_event(event)

    def _report(self, kind: int, values: bytearray) -> None:
        self._submit({"event": Event.Status, "type": kind, "nr_entries": len(values), "report": bytes(values)})

    def _told(self, command: dict[str, Any]) -> None:
        if command["command"] == Command.Keyset:
            self.key = bytes(command["data"])
        self.commands.append(command)
        self._changed.set()


class SimulatedBus:
    """A line with readers on it: a pseudo-terminal, or a serial server's TCP port."""

    def __init__(self, *readers: SimulatedReader) -> None:
        self.readers = {reader.address: reader for reader in readers}
        self._master: int | None = None
        self._slave: int | None = None
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._clockwork: asyncio.Task[None] | None = None
        for reader in readers:
            reader.attach(self._send)

    async def start(self) -> str:
        """Open a pseudo-terminal; the path for the driver."""
        self._master, self._slave = pty.openpty()
        tty.setraw(self._master)
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        asyncio.get_running_loop().add_reader(self._master, self._readable)
        self._clockwork = asyncio.create_task(self._tick())
        return os.ttyname(self._slave)

    async def start_tcp(self, host: str = "127.0.0.1") -> str:
        """Listen as a serial server does; the address for the driver."""
        self._server = await asyncio.start_server(self._serve, host, 0)
        self._clockwork = asyncio.create_task(self._tick())
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self.unplug()
        if self._clockwork is not None:
            self._clockwork.cancel()
            await asyncio.gather(self._clockwork, return_exceptions=True)
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def unplug(self) -> None:
        """The line is gone, as when the adapter is pulled."""
        if self._master is not None and self._slave is not None:
            asyncio.get_running_loop().remove_reader(self._master)
            os.close(self._slave)
            os.close(self._master)
            self._master = self._slave = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        with contextlib.suppress(OSError):
            while data := await reader.read(MAX_BUFFER):
                self._arrived(data)
        writer.close()

    def _readable(self) -> None:
        if self._master is not None:
            with contextlib.suppress(BlockingIOError, OSError):
                self._arrived(os.read(self._master, MAX_BUFFER))

    def _arrived(self, data: bytes) -> None:
        for reader in self.readers.values():
            reader.arrived(data)
            reader.refresh()

    async def _tick(self) -> None:
        while True:
            for reader in self.readers.values():
                reader.refresh()
            await asyncio.sleep(TICK_S)

    def _send(self, data: bytes) -> None:
        if self._master is not None:
            with contextlib.suppress(BlockingIOError, OSError):
                os.write(self._master, data)
        elif self._writer is not None and not self._writer.is_closing():
            self._writer.write(data)
