"""UHPPOTE UT0311-L0x controllers: an adapter over `uhppoted`, one request and one reply at a time.

A controller decides at its doors by itself from the cards it holds; this driver keeps those in step and reads its
event log. Packets to the event listener are only a reason to look: anyone on the network can send one, so what is
recorded always comes from the controller's own log, or (firmware v6.62 announces events it never stores) from its
answer to a status request. The cursor is the index of the last recorded event with a digest of it, so that a
cleared and refilled log is noticed. The controller's own event index moves only after `record` returned.

With the option host_decides the controller opens nothing by itself and each swipe becomes a CardRead. How a leaf
stands on connecting is believed only of the doors in `contacts`: an input without a wire may read as open.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from ipaddress import IPv4Address
from typing import Any

from uhppoted import decode, encode, udp_async

from device_drivers.devices import (
    Capabilities,
    CommandResult,
    CommandState,
    DeviceConfig,
    DeviceUser,
    DoorMode,
    DoorTask,
    Feature,
    Identity,
    ItemResult,
    Record,
    TimeProfile,
)
from device_drivers.errors import DeviceRefused, LinkError, ProtocolError
from device_drivers.events import CardRead, DeviceEvent, DoorEvent, DoorEventKind
from device_drivers.links import split_address
from device_drivers.uhppote import messages
from device_drivers.uhppote.exchange import ANY, PORT, Exchange, door_count, identity_of, require_door
from device_drivers.uhppote.memory import Memory
from device_drivers.uhppote.messages import Entry

TIMEOUT_S = 2.5
POLL_S = 1.0
FRESH = timedelta(seconds=10)  # by the controller's own clock; later nobody stands there any more
POLL_LISTENING_S = 5.0  # below the 30 s after which host control falls back to the controller
BATCH = 32
FIRST, LAST = 0, 0xFFFFFFFF  # event indices that stand for the oldest and the newest record


def encode_cursor(serial: str, entry: Entry) -> bytes:
    return f"{serial}:{entry.index}:{entry.digest}".encode()


def decode_cursor(cursor: bytes | None) -> tuple[str, int, int] | None:
    """None for a cursor this driver did not write: everything is read again."""
    if cursor is None or len(cursor) > 64:
        return None
    parts = cursor.decode("ascii", "replace").split(":")
    if len(parts) != 3 or not all(part.isascii() and part.isdecimal() for part in parts):
        return None
    return parts[0], int(parts[1]), int(parts[2])


class UhppoteController:
    """One controller, over UDP or TCP."""

    def __init__(self, config: DeviceConfig, *, cursor: bytes | None) -> None:
        self.config = config
        options = config.options
        host, port = split_address(config.address, PORT)
        self._address = f"{host}:{port}"
        self._listen: str | None = options.get("listen")
        self._link = Exchange(
            self._address,
            protocol=str(options.get("protocol", "udp")),
            bind=str(options.get("bind", ANY)),
            timeout_s=float(options.get("timeout_s", TIMEOUT_S)),
            serial=int(config.serial) if config.serial else 0,
        )
        self._poll_s = float(options.get("poll_s", POLL_LISTENING_S if self._listen else POLL_S))
        self.card_format = str(options.get("card_format", "wiegand-26"))
        self._memory = Memory(self._link, known=self._known, card_format=self.card_format)
        self._host_decides = bool(options.get("host_decides", False))
        self._contacts = frozenset(options.get("contacts", ()))
        self._cursor = decode_cursor(cursor)
        self._wake = asyncio.Event()
        self._delays: dict[int, tuple[int, int]] = {}  # door -> (mode code, seconds)
        self._setting = asyncio.Lock()  # a door's mode and seconds are written together: who sets one keeps the other
        self._fire = False
        self._before = 0  # the newest event when this connection began
        self.leaves: dict[int, bool] = {}

    # -- Driver

    async def probe(self) -> Identity:
        reply, _ = await self._link.ask(
            encode.get_controller_request(self._link.serial), decode.get_controller_response
        )
        self._link.serial = reply.controller
        return identity_of(reply)

    async def capabilities(self) -> Capabilities:
        await self._known()
        cards, _ = await self._link.ask(encode.get_cards_request(self._link.serial), decode.get_cards_response)
        features = {
            Feature.LIVE, Feature.CLOCK, Feature.USERS, Feature.CARDS, Feature.PINS, Feature.OPEN_DOOR,
            Feature.DOOR_MODES, Feature.SCHEDULES, Feature.KEYPAD,
        }  # fmt: skip
        return Capabilities(frozenset(features), doors=door_count(self._link.serial), users=cards.cards)

    async def _known(self) -> int:
        if not self._link.serial:
            await self.probe()
        return self._link.serial

    async def run(self, record: Record) -> None:
        await self.probe()
        status, _ = await self._status()
        self._before = int(status.event_index)
        stand = (status.door_1_open, status.door_2_open, status.door_3_open, status.door_4_open)
        self.leaves = {door: is_open for door, is_open in enumerate(stand, start=1) if door in self._contacts}
        await record(())
        # Door contacts and buttons enter the log only when this is on.
        await self._link.order(
            encode.record_special_events_request(self._link.serial, True),
            decode.record_special_events_response, done="updated", what="record special events",
        )  # fmt: skip
        if self._host_decides:
            await self._link.order(
                encode.set_pc_control_request(self._link.serial, True), decode.set_pc_control_response, done="ok",
                what="host control",
            )  # fmt: skip
        listener = await self._start_listening()
        try:
            index = await self._start_index()
            while True:
                self._wake.clear()
                index = await self._catch_up(index, record)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_s):
                        await self._wake.wait()
                if listener is not None and listener.done():
                    raise LinkError(f"listener {self._listen}: {listener.exception() or 'closed'}")
        finally:
            if listener is not None:
                listener.cancel()
                await asyncio.gather(listener, return_exceptions=True)

    async def close(self) -> None:
        """Nothing stays open between requests."""

    # -- events

    async def _start_listening(self) -> asyncio.Task[None] | None:
        if not self._listen:
            return None
        host, port = split_address(self._listen, 60001)
        await self._link.order(
            encode.set_listener_request(self._link.serial, IPv4Address(host), port, 0),
            decode.set_listener_response, done="ok", what="event listener address",
        )  # fmt: skip
        bind = str(self.config.options.get("listen_bind", self._listen))
        sockets = udp_async.UDPAsync(ANY, self._address, bind)
        return asyncio.create_task(sockets.listen(self._announced))

    def _announced(self, packet: bytes) -> None:
        with contextlib.suppress(ValueError):
            if decode.event(packet).controller == self._link.serial:
                self._wake.set()

    async def _entry(self, index: int) -> tuple[Entry, bytes]:
        reply, packet = await self._link.ask(
            encode.get_event_request(self._link.serial, index), decode.get_event_response
        )
        return Entry.of(reply), packet

    async def _start_index(self) -> int:
        """The first index to read: the last recorded one again, or the oldest if the log is another one."""
        if self._cursor is not None:
            serial, index, digest = self._cursor
            if serial == str(self._link.serial):
                entry, _ = await self._entry(index)
                if entry.index == index and entry.digest == digest:
                    return index
                if entry.kind == messages.OVERWRITTEN:
                    return index + 1
            return await self._oldest()
        acknowledged, _ = await self._link.ask(
            encode.get_event_index_request(self._link.serial), decode.get_event_index_response
        )
        newest, _ = await self._entry(LAST)
        index = int(acknowledged.event_index)
        return index if 0 < index <= newest.index else await self._oldest()

    async def _oldest(self) -> int:
        entry, _ = await self._entry(FIRST)
        return max(entry.index, 1)

    async def _catch_up(self, index: int, record: Record) -> int:
        """Record everything from `index` to the newest; the index to go on from."""
        status, packet = await self._status()
        await self._fire_input(status, record)
        newest = int(status.event_index)
        if newest and newest < index - 1:
            index = await self._oldest()  # the log was cleared
        events: list[DeviceEvent] = []
        last: Entry | None = None
        while index <= newest:
            entry, raw = await self._entry(index)
            if entry.kind == messages.OVERWRITTEN:
                oldest = await self._oldest()
                if oldest <= index:
                    raise ProtocolError(f"{self._address}: event {index} is overwritten and yet the oldest")
                events.append(self._gap(index, oldest - 1))
                index = oldest
                continue
            if entry.kind == messages.NO_EVENT and index == newest:
                entry, raw = self._from_status(status), packet
            if entry.kind != messages.NO_EVENT and entry.index == index:
                events.append(self._event(entry, raw, status))
                last = entry
            else:
                events.append(self._gap(index, index))
            index += 1
            if len(events) >= BATCH:
                await self._commit(events, last, record)
                events, last = [], None
        if events:
            await self._commit(events, last, record)
        return index

    async def _commit(self, events: list[DeviceEvent], last: Entry | None, record: Record) -> None:
        if last is None:
            await record(events)
            return
        await record(events, cursor=encode_cursor(str(self._link.serial), last))
        await self._link.ask(
            encode.set_event_index_request(self._link.serial, last.index), decode.set_event_index_response
        )

    async def _status(self) -> tuple[Any, bytes]:
        return await self._link.ask(encode.get_status_request(self._link.serial), decode.get_status_response)

    def _from_status(self, status: Any) -> Entry:
        return Entry(
            status.event_index, status.event_type, status.event_access_granted, status.event_door,
            status.event_direction, status.event_card, status.event_timestamp, status.event_reason,
        )  # fmt: skip

    def _event(self, entry: Entry, raw: bytes, status: Any) -> DeviceEvent:
        """Somebody asks to be let in only while they stand there: an old swipe is a swipe that was refused."""
        live = entry.index > self._before and messages.age(entry, status) <= FRESH
        event = messages.door_event(
            entry, serial=str(self._link.serial), card_format=self.card_format, live=live, raw=bytes(raw)
        )
        if live and self._host_decides and entry.reason == messages.PC_CONTROL_DENIED:
            return CardRead(
                str(self._link.serial), event.reader or entry.door, event.card, card_format=self.card_format
            )
        return event

    def _gap(self, first: int, last: int) -> DoorEvent:
        words = f"events {first} to {last} are no longer on the controller"
        return DoorEvent(str(self._link.serial), DoorEventKind.OTHER, reason=words, raw=b"%d-%d" % (first, last))

    async def _fire_input(self, status: Any, record: Record) -> None:
        fire = bool(status.inputs & 0x01)
        if fire and not self._fire:
            since = f"{status.system_date} {status.system_time}".encode()  # each fire is one of its own
            await record([DoorEvent(str(self._link.serial), DoorEventKind.FIRE, reason="fire input", raw=since)])
        self._fire = fire

    # -- doors

    async def open_door(self, door: int, *, seconds: float) -> CommandResult:
        require_door(await self._known(), door)
        await self._set_delay(door, seconds)  # a LinkError here: nothing was sent that opens
        try:
            reply, _ = await self._link.ask(
                encode.open_door_request(self._link.serial, door), decode.open_door_response, attempts=1
            )
        except LinkError as exc:
            return CommandResult(CommandState.UNKNOWN, str(exc))
        if reply.opened:
            return CommandResult(CommandState.DONE)
        return CommandResult(CommandState.FAILED, "the controller refused to open")

    async def set_door_mode(self, door: int, mode: DoorMode) -> CommandResult:
        require_door(await self._known(), door)
        async with self._setting:
            _, seconds = await self._door_control(door)
            await self._set_door(door, messages.MODE_CODES[mode], seconds)
        return CommandResult(CommandState.DONE)

    async def set_door_delay(self, door: int, *, seconds: float) -> None:
        """How long a release lasts, whoever it is given to; 1 to 255 s."""
        require_door(await self._known(), door)
        await self._set_delay(door, seconds)

    async def activate_keypads(self, readers: Collection[int]) -> None:
        """The readers (1 to 4) whose keypad asks for the card's PIN; all others do not."""
        request = encode.activate_keypads_request(await self._known(), *(reader in readers for reader in range(1, 5)))
        await self._link.order(request, decode.activate_keypads_response, done="ok", what="keypads")

    async def _set_delay(self, door: int, seconds: float) -> None:
        wanted = min(max(round(seconds), 1), 255)
        async with self._setting:
            mode, current = await self._door_control(door)
            if wanted != current:
                await self._set_door(door, mode, wanted)

    async def _door_control(self, door: int) -> tuple[int, int]:
        if door not in self._delays:
            reply, _ = await self._link.ask(
                encode.get_door_control_request(self._link.serial, door), decode.get_door_control_response
            )
            self._delays[door] = reply.mode, reply.delay
        return self._delays[door]

    async def _set_door(self, door: int, mode: int, seconds: int) -> None:
        self._delays.pop(door, None)
        reply, _ = await self._link.ask(
            encode.set_door_control_request(self._link.serial, door, mode, seconds), decode.set_door_control_response
        )
        if (reply.mode, reply.delay) != (mode, seconds):
            raise DeviceRefused(f"{self._address}: door {door} keeps mode {reply.mode}, {reply.delay} s")
        self._delays[door] = mode, seconds

    # -- clock

    async def get_time(self) -> datetime:
        reply, _ = await self._link.ask(encode.get_time_request(await self._known()), decode.get_time_response)
        if reply.datetime is None:
            raise ProtocolError(f"{self._address}: the controller's clock shows no date")
        return datetime.combine(reply.datetime.date(), reply.datetime.time())

    async def set_time(self, device_time: datetime) -> None:
        serial = await self._known()
        reply, _ = await self._link.ask(encode.set_time_request(serial, device_time), decode.set_time_response)
        if reply.datetime != device_time.replace(microsecond=0, tzinfo=None):
            raise DeviceRefused(f"{self._address}: the clock was not set")

    # -- what it decides by

    async def users(self) -> list[DeviceUser]:
        return await self._memory.users()

    async def upsert_users(self, users: Sequence[DeviceUser]) -> list[ItemResult]:
        return await self._memory.upsert_users(users)

    async def delete_users(self, user_ids: Sequence[str]) -> list[ItemResult]:
        """`user_ids` are card numbers as `users` gives them."""
        return await self._memory.delete_users(user_ids)

    async def time_profiles(self) -> list[TimeProfile]:
        return await self._memory.time_profiles()

    async def time_profile(self, number: int) -> TimeProfile | None:
        return await self._memory.time_profile(number)

    async def set_time_profile(self, profile: TimeProfile) -> None:
        await self._memory.set_time_profile(profile)

    async def clear_time_profiles(self) -> None:
        await self._memory.clear_time_profiles()

    async def set_tasks(self, tasks: Sequence[DoorTask]) -> None:
        await self._memory.set_tasks(tasks)
