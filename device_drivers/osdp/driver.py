"""OSDP readers and outputs on one RS-485 line or TCP serial server: an adapter over `libosdp`.

Every PD has its own random key; a PD that proves another key, the published default or none is refused and alarmed
once, and nothing it says is a credential. A reader's number is its OSDP address.

A reader in options["pds"] is {address, key (hex, secret), name, door, output, inputs {number: "contact" | "button"}}.
`open_door(n)` drives the output of the PD whose `door` is n (its position in the list unless given).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from osdp.constants import CompletionStatus, Event, StatusReportType

from device_drivers.devices import (
    Capabilities,
    CommandResult,
    CommandState,
    DeviceConfig,
    DeviceUser,
    DoorMode,
    Feature,
    Feedback,
    Identity,
    ItemResult,
    Record,
)
from device_drivers.errors import DeviceRefused, LinkError, LinkTimeout, Unsupported
from device_drivers.events import DeviceEvent, DoorEvent, DoorEventKind, KeysPressed
from device_drivers.links import StreamLink, split_address
from device_drivers.osdp import messages
from device_drivers.osdp.frame import Decoder, Frame
from device_drivers.osdp.panel import LineChannel, Panel, PanelEntry
from device_drivers.osdp.reader import ReaderConfig, ReaderState
from device_drivers.osdp.secure_channel import KEY_LEN, Handshake, Proof

BAUD = 9600
PORT = 10001
MAX_PDS = 31  # what RS-485 carries, and within libosdp's 32-bit status masks
TICK_S = 0.01
PROBE_S = 5.0
COMMAND_S = 2.0
MAX_EVENTS = 1024
INSTALL_LIMIT_S = 600.0


class OsdpBus:
    """A control panel with its PDs: readers that ask, outputs that open."""

    def __init__(
        self, config: DeviceConfig, *, cursor: bytes | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.config = config
        given = list(config.options.get("pds", []))
        if not 1 <= len(given) <= MAX_PDS:
            raise ValueError(f"an OSDP line has 1 to {MAX_PDS} readers")
        configs = [ReaderConfig.of(entry, position) for position, entry in enumerate(given, start=1)]
        if len({entry.address for entry in configs}) != len(configs):
            raise ValueError("two readers of one line have the same address")
        self._format_37 = str(config.options.get("format_37", "H10302"))
        if self._format_37 not in {"H10302", "H10304"}:
            raise ValueError("format_37 is H10302 or H10304")
        self._serial = config.serial or config.name
        self._clock = clock
        # A PD without a key yet gets one nobody knows: it stays outside until install mode.
        self._keys = [entry.key or secrets.token_bytes(KEY_LEN) for entry in configs]
        self._readers = [ReaderState.begin(c, key, clock()) for c, key in zip(configs, self._keys, strict=True)]
        self._by_address = {entry.address: i for i, entry in enumerate(configs)}
        self._channel = LineChannel()
        self._panel = self._new_panel()
        self._rx, self._tx = Decoder(), Decoder()
        self._restarting: set[int] = set()
        self._waiting: list[deque[asyncio.Future[bool]]] = [deque() for _ in configs]
        self._resting: dict[int, int] = {}  # what each output was last told to rest in, by reader
        self._start_mark, self._told = secrets.token_bytes(8), 0
        self._events: deque[DeviceEvent] = deque()
        self._lost_events = 0
        self._ready = asyncio.Event()
        self._wake = asyncio.Event()
        self._standing_changed = asyncio.Event()
        self._failure: Exception | None = None
        self._line: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()

    # -- Driver

    async def probe(self) -> Identity:
        """Who answers over a secure channel; LinkTimeout if no PD answers at all.

        A PD that is refused answers too: `run` has to tell of it, and install mode needs a line that is there.
        """
        await self._start()
        await self._until(lambda: any(reader.secure or reader.alarms for reader in self._readers), PROBE_S)
        found = [index for index, reader in enumerate(self._readers) if reader.secure]
        return self._identity(found[0]) if found else Identity("OSDP", "", self._serial, "")

    def pd_identity(self, reader: int) -> Identity:
        """Who the PD at this address says it is. Raises LinkError while its secure channel is down."""
        index = self._require(reader)
        return self._identity(index)

    def _identity(self, index: int) -> Identity:
        told = self._panel.identity(index)
        return Identity(
            f"OSDP {told['vendor_code'] & 0xFFFFFF:06X}",
            f"{told['model']}.{told['version']}",
            self._serial,
            f"{told['firmware_version'] & 0xFFFFFF:06x}",
        )

    async def capabilities(self) -> Capabilities:
        features = {
            Feature.LIVE, Feature.CARDS, Feature.PINS, Feature.KEYPAD, Feature.FEEDBACK, Feature.OPEN_DOOR,
            Feature.DOOR_MODES,
        }  # fmt: skip
        return Capabilities(frozenset(features), doors=len(self._readers))

    async def run(self, record: Record) -> None:
        await self._start()
        try:
            while True:
                await self._ready.wait()
                self._ready.clear()
                while self._events:
                    batch = list(self._events)
                    self._events.clear()
                    await record(batch)
                    if self._lost_events:
                        words = f"{self._lost_events} events came while the store stood still and are lost"
                        self._lost_events = 0
                        self._emit(DoorEvent(self._serial, DoorEventKind.OTHER, reason=words))
                if self._failure is not None:
                    raise self._failure
        finally:
            await self.close()

    async def close(self) -> None:
        if self._line is not None:
            line, self._line = self._line, None
            line.cancel()
            await asyncio.gather(line, return_exceptions=True)
        for index in range(len(self._waiting)):
            self._abandon(index)

    # -- the line

    async def _start(self) -> None:
        async with self._opening:  # `run` and `probe` may begin together; the line is opened once
            if self._line is not None:
                return
            address = self.config.address
            if address.startswith("/"):
                link = await StreamLink.open_serial(address, baud=int(self.config.options.get("baud", BAUD)))
            else:
                link = await StreamLink.connect(*split_address(address, PORT))
            for reader in self._readers:
                reader.line_opened(self._clock())
            self._line = asyncio.create_task(self._drive(link))

    async def _drive(self, link: StreamLink) -> None:
        pump = asyncio.create_task(self._pump(link))
        try:
            while not pump.done():
                self._step()
                if self._channel.outgoing:
                    await link.send(self._channel.take_outgoing())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await self._wake.wait()
                self._wake.clear()
            pump.result()
        except Exception as exc:  # noqa: BLE001 - `run` raises it: it would wait for ever for a line nobody drives
            self._failure = exc
            self._ready.set()
            self._standing_changed.set()
        finally:
            pump.cancel()
            try:
                await asyncio.gather(pump, return_exceptions=True)
            finally:
                await link.close()

    async def _pump(self, link: StreamLink) -> None:
        while True:
            # Whole frames only: one wrong check sum would make libosdp give the PD up for minutes.
            for frame in self._watch(self._rx, await link.receive(timeout_s=None)):
                if frame.reply:  # some RS-485 adapters echo what we sent
                    self._channel.arrived(frame.wire)
            self._wake.set()

    def _step(self) -> None:
        now = self._clock()
        self._panel.step()
        for index in [index for index in self._restarting if self._panel.disabled(index)]:
            self._panel.enable(index)
            self._restarting.discard(index)
        if self._channel.outgoing:
            self._rx.reset()  # half a reply, or one whose length lied, must not swallow the next
            self._watch(self._tx, bytes(self._channel.outgoing))
        for index, event in self._panel.take_events():
            self._heard(self._readers[index], event, now)
        for index, _, status in self._panel.take_completions():
            if self._waiting[index]:
                self._settle(self._waiting[index].popleft(), status == CompletionStatus.Ok)
        self._supervise(now)

    def _watch(self, decoder: Decoder, data: bytes) -> list[Frame]:
        now = self._clock()
        frames = decoder.feed(data)
        for frame in frames:
            index = self._by_address.get(frame.address)
            if index is not None:
                reader = self._readers[index]
                self._tell(reader, reader.observe(frame, now))
        return frames

    def _supervise(self, now: float) -> None:
        standing = self._panel.secure()
        for index, reader in enumerate(self._readers):
            before = reader.secure
            self._tell(reader, reader.supervise(bool(standing >> index & 1), now))
            if reader.secure and not before:
                self._greet(index)
                self._standing_changed.set()
            elif before and not reader.secure:
                self._abandon(index)
                self._standing_changed.set()
            if digits := reader.keypad.paused(now):
                self._emit(KeysPressed(self._serial, reader.config.address, digits))
            if reader.restart_due(now):
                self._panel.disable(index)
                self._restarting.add(index)

    def _greet(self, index: int) -> None:
        """A PD that (again) stands: how it is, and the state its output rests in, which it may have forgotten."""
        wanted = [messages.status_command(StatusReportType.Local)]
        if index in self._resting:
            output = self._readers[index].config.output
            wanted.append(messages.output_command(output, self._resting[index], seconds=0.0))
        for command in wanted:
            if self._panel.submit(index, command):
                self._waiting[index].append(asyncio.get_running_loop().create_future())

    # -- what readers say

    def _heard(self, reader: ReaderState, event: dict[str, Any], now: float) -> None:
        standing = self._panel.secure() >> self._by_address[reader.config.address] & 1
        if reader.installing or not standing or reader.proof is not Proof.OURS:
            return  # already alarmed by what was seen on the line
        address = reader.config.address
        kind = event["event"]
        if kind == Event.Status:
            for what in reader.contacts.report(event):
                self._tell(reader, [(what, "")])
            return
        if kind not in {Event.CardRead, Event.KeyPress}:
            return
        if not reader.admit(now):
            self._tell(reader, reader.flooded())
            return
        reader.flooding = False
        if kind == Event.KeyPress:
            entries, refused = reader.keypad.press(bytes(event["data"]), now)
            for digits in entries:
                self._emit(KeysPressed(self._serial, address, digits))
            if refused:
                self._tell(reader, [(DoorEventKind.DENIED, f"keypad entry over {messages.MAX_DIGITS} digits")])
            return
        try:
            card = messages.card_read(event, serial=self._serial, reader=address, format_37=self._format_37)
        except ValueError as exc:
            self._tell(reader, [(DoorEventKind.DENIED, str(exc))])
        else:
            self._emit(card)

    def _tell(self, reader: ReaderState, said: Sequence[tuple[DoorEventKind, str]]) -> None:
        """A PD gives its words neither time nor number: a mark of ours tells each from all others."""
        door, address = reader.config.door, reader.config.address
        for kind, words in said:
            self._told += 1
            mark = self._start_mark + self._told.to_bytes(8, "big")
            self._emit(DoorEvent(self._serial, kind, door=door, reader=address, reason=words, raw=mark))
            self._standing_changed.set()

    def _emit(self, event: DeviceEvent) -> None:
        if len(self._events) >= MAX_EVENTS:
            self._lost_events += 1
            return
        self._events.append(event)
        self._ready.set()

    # -- commands

    async def feedback(self, reader: int, what: Feedback) -> None:
        """Light and sound. Raises LinkError while the reader's secure channel is down."""
        index = self._require(reader)
        for command in messages.feedback_commands(what):
            self._submit(index, command)

    async def open_door(self, door: int, *, seconds: float) -> CommandResult:
        """Pulse the output; at most 25.5 s. Withdrawn, not repeated, if the PD does not take it."""
        index = self._door(door)
        return await self._output(index, messages.OUTPUT_PULSE, seconds=seconds)

    async def set_door_mode(self, door: int, mode: DoorMode) -> CommandResult:
        """The output's resting state; LOCKED and CONTROLLED rest alike, deciding is not the output's."""
        code = messages.OUTPUT_ON if mode is DoorMode.UNLOCKED else messages.OUTPUT_OFF
        index = self._door(door)
        self._resting[index] = code
        return await self._output(index, code, seconds=0.0)

    async def _output(self, index: int, control_code: int, *, seconds: float) -> CommandResult:
        command = messages.output_command(self._readers[index].config.output, control_code, seconds=seconds)
        try:
            done = self._submit(index, command)
        except LinkError as exc:
            return CommandResult(CommandState.FAILED, str(exc))
        await asyncio.wait({done}, timeout=COMMAND_S)
        if not done.done() or done.cancelled():
            self._panel.withdraw(index)
            return CommandResult(CommandState.UNKNOWN, "the reader did not confirm")
        if done.result():
            return CommandResult(CommandState.DONE)
        return CommandResult(CommandState.FAILED, "the reader refused")

    def _submit(self, index: int, command: dict[str, Any]) -> asyncio.Future[bool]:
        reader = self._readers[index]
        if not reader.secure or self._line is None:
            raise LinkError(f"reader {reader.config.address}: no secure channel")
        if not self._panel.submit(index, command):
            raise LinkError(f"reader {reader.config.address}: the command was not taken")
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[index].append(done)
        self._wake.set()
        return done

    @staticmethod
    def _settle(done: asyncio.Future[bool], taken: bool) -> None:
        if not done.done():
            done.set_result(taken)

    def _abandon(self, index: int) -> None:
        while self._waiting[index]:
            self._waiting[index].popleft().cancel()

    def _require(self, reader: int) -> int:
        if reader not in self._by_address:
            raise DeviceRefused(f"no reader {reader} on this line")
        index = self._by_address[reader]
        if not self._readers[index].secure:
            raise LinkError(f"reader {reader}: no secure channel")
        return index

    def _door(self, door: int) -> int:
        for index, reader in enumerate(self._readers):
            if reader.config.door == door:
                return index
        raise DeviceRefused(f"no door {door} on this line")

    # -- install mode

    async def install(self, reader: int, seconds: float) -> str:
        """Give the PD a new random key over the default one, within `seconds`; the key (hex), for the caller to store.

        An operator's act at the reader: the PD must be in its own install mode. Opening and end are told as SECURITY
        events. Raises LinkTimeout if the PD did not take the key; the old one then stays.
        """
        if not 0 < seconds <= INSTALL_LIMIT_S:
            raise ValueError(f"install mode lasts at most {INSTALL_LIMIT_S:g} s")
        if reader not in self._by_address:
            raise ValueError(f"no reader {reader} on this line")
        await self._start()
        index = self._by_address[reader]
        state = self._readers[index]
        key = secrets.token_bytes(KEY_LEN)
        old = self._keys[index]
        self._tell(state, [(DoorEventKind.SECURITY, f"install mode opened for {seconds:g} s")])
        state.installing = True
        try:
            self._use_key(index, key, install=True)
            await self._until(lambda: state.secure, seconds)
        except BaseException:
            state.installing = False
            self._use_key(index, old)
            self._tell(state, [(DoorEventKind.SECURITY, "install mode closed: no new key")])
            raise
        state.installing = False
        self._use_key(index, key)
        self._tell(state, [(DoorEventKind.SECURITY, "install mode closed: new key set")])
        return key.hex()

    def _use_key(self, index: int, key: bytes, *, install: bool = False) -> None:
        self._keys[index] = key
        now = self._clock()
        for reader, held in zip(self._readers, self._keys, strict=True):
            reader.handshake = Handshake(held)
            reader.proof, reader.secure = None, False
            reader.next_restart = max(reader.next_restart, now + 1.0)
        for position in range(len(self._waiting)):
            self._abandon(position)
        self._restarting.clear()
        self._panel = self._new_panel(index if install else None)

    def _new_panel(self, installing: int | None = None) -> Panel:
        entries = [
            PanelEntry(reader.config.address, reader.config.name, key, install=i == installing)
            for i, (reader, key) in enumerate(zip(self._readers, self._keys, strict=True))
        ]
        return Panel(entries, self._channel)

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for what secure channels and alarms bring. Raises LinkTimeout, or what ended the line."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    if self._failure is not None:
                        raise self._failure
                    self._standing_changed.clear()
                    await self._standing_changed.wait()
        except TimeoutError as exc:
            raise LinkTimeout(self.config.address, seconds) from exc

    # -- what readers cannot do

    async def get_time(self) -> datetime:
        raise Unsupported("OSDP readers keep no clock")

    async def set_time(self, device_time: datetime) -> None:
        raise Unsupported("OSDP readers keep no clock")

    async def users(self) -> list[DeviceUser]:
        raise Unsupported("OSDP readers keep no users")

    async def upsert_users(self, users: Sequence[DeviceUser]) -> list[ItemResult]:
        raise Unsupported("OSDP readers keep no users")

    async def delete_users(self, user_ids: Sequence[str]) -> list[ItemResult]:
        raise Unsupported("OSDP readers keep no users")
