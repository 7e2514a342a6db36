"""A UHPPOTE controller on UDP and TCP that can be swiped, pressed, forced, cleared and unplugged.

Frames are built here byte by byte from the protocol's published layout; the client library reads them.
It decides like the real one: card, permission or time profile, validity, PIN, door mode.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import cast

SOM, SOM_V6_62 = 0x17, 0x19
MAGIC = 0x55AAAA55
FRAME = 64
SWIPE, DOOR, ALARM = 1, 2, 3
UNLOCKED, LOCKED, CONTROLLED = 1, 2, 3
TASK_MODES = {0: CONTROLLED, 1: UNLOCKED, 2: LOCKED}


@dataclass(slots=True)
class StoredCard:
    first_day: date
    last_day: date
    doors: tuple[int, int, int, int]
    pin: int = field(default=0, repr=False)


@dataclass(frozen=True, slots=True)
class LogEntry:
    index: int
    kind: int
    granted: bool
    door: int
    direction: int
    card: int
    at: datetime | None
    reason: int


@dataclass(slots=True)
class SimulatedDoor:
    mode: int = CONTROLLED
    seconds: int = 5
    open: bool = False
    relay: bool = False


def _bcd(text: str) -> bytes:
    return bytes.fromhex(text)


def _date(packed: bytes) -> date:
    return datetime.strptime(packed.hex(), "%Y%m%d").date()  # noqa: DTZ007 - a controller has no zone


def _clock(packed: bytes) -> time:
    return time(int(packed[:1].hex()), int(packed[1:2].hex()))


class SimulatedUhppote:
    """One controller. `clock` gives its naive local time; `capacity` is the length of its event log."""

    def __init__(
        self,
        serial: int = 405419896,
        *,
        clock: Callable[[], datetime],
        capacity: int = 1000,
        v6_62: bool = False,
    ) -> None:
        self.serial = serial
        self.doors = {n: SimulatedDoor() for n in range(1, 5)}
        self.cards: dict[int, StoredCard] = {}
        self.profiles: dict[int, bytes] = {}
        self.tasks: list[bytes] = []  # in force
        self.log: list[LogEntry] = []
        self.next_index = 1
        self.event_index = 0
        self.listener: tuple[str, int] | None = None
        self.special_events = False
        self.host_control = False
        self.keypads: set[int] = set()  # entry readers that ask for the card's PIN
        self.fire = False
        self.drift = timedelta()
        self.opened: list[int] = []  # doors whose relay was released, oldest first
        self.requests: list[int] = []  # function codes asked for, oldest first
        self.unstored: LogEntry | None = None  # announced but never stored: firmware v6.62 does that
        self._clock = clock
        self._new_tasks: list[bytes] = []  # added, and not in force before a refresh
        self._capacity = capacity
        self._v6_62 = v6_62
        self._offline = False
        self._corrupt_next = False
        self._drop = 0
        self._asked = asyncio.Event()
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._answers: dict[int, Callable[[bytes], bytes | None]] = {
            0x20: self._status, 0x30: self._set_time, 0x32: lambda _: self._bcd_now(), 0x40: self._open,
            0x50: self._put_card, 0x52: self._delete_card, 0x54: self._delete_cards,
            0x58: lambda _: struct.pack("<I", len(self.cards)), 0x5A: self._get_card, 0x5C: self._card_at,
            0x80: self._set_door, 0x82: self._get_door, 0x88: self._set_profile, 0x8A: self._clear_profiles,
            0x8E: self._special, 0x90: self._set_listener, 0x94: lambda _: self._controller(),
            0x98: self._get_profile, 0xA0: self._pc_control, 0xA4: self._keypads, 0xB0: self._get_event,
            0xA6: self._clear_tasks, 0xA8: self._add_task, 0xAC: self._refresh_tasks,
            0xB2: self._set_index, 0xB4: lambda _: struct.pack("<I", self.event_index),
        }  # fmt: skip

    # -- on the network

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Answer on UDP and TCP at the same port; the address."""
        loop = asyncio.get_running_loop()
        self._tcp = await asyncio.start_server(self._serve, host, port)
        bound = self._tcp.sockets[0].getsockname()[1]
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Endpoint(self), local_addr=(host, bound))
        return f"{host}:{bound}"

    async def stop(self) -> None:
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
            await self._tcp.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                reply = self.answer(await reader.readexactly(FRAME))
                if reply is None:
                    break
                writer.write(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    def answer(self, request: bytes) -> bytes | None:
        """The reply to one request; None where a real controller stays silent."""
        if self._offline or len(request) != FRAME or request[0] != SOM:
            return None
        code = request[1]
        addressed = struct.unpack_from("<I", request, 4)[0]
        if addressed != self.serial and not (code == 0x94 and addressed == 0):
            return None
        self.requests.append(code)
        self._asked.set()
        if self._drop:
            self._drop -= 1
            return None
        act = self._answers.get(code)
        try:
            payload = act(request) if act else None
        except (KeyError, ValueError):  # a door it has not, a date that is none: the real one says nothing either
            payload = None
        if payload is None:
            return None
        reply = (struct.pack("<BBHI", SOM, code, 0, self.serial) + payload).ljust(FRAME, b"\0")
        if self._corrupt_next:
            self._corrupt_next = False
            reply = bytes([0x00]) + reply[1:]
        return reply

    # -- what a person does at the door

    def swipe(self, card: int, door: int, *, direction: int = 1, pin: int = 0) -> LogEntry:
        """Show a card; the controller decides. Reasons as in its event table."""
        reason = self._reason(card, door, pin)
        granted = reason == 1
        if granted:
            self._release(door)
        return self._happen(SWIPE, granted=granted, door=door, direction=direction, card=card, reason=reason)

    def button(self, door: int) -> LogEntry | None:
        """Press the exit button: works unless the door is locked."""
        locked = self.doors[door].mode == LOCKED
        if not locked:
            self._release(door)
        return self._special_event(DOOR, door, 31 if locked else 20, granted=not locked)

    def door_contact(self, door: int, *, is_open: bool) -> LogEntry | None:
        """The door leaf moves; opened without a release it is forced."""
        state = self.doors[door]
        state.open = is_open
        if is_open and not state.relay and state.mode != UNLOCKED:
            return self.forced(door)
        state.relay = False
        return self._special_event(DOOR, door, 23 if is_open else 24, granted=True)

    def forced(self, door: int) -> LogEntry:
        self.doors[door].open = True
        return self._happen(ALARM, granted=False, door=door, reason=38)

    def held(self, door: int) -> LogEntry:
        return self._happen(ALARM, granted=False, door=door, reason=37)

    def fire_input(self, *, on: bool) -> None:
        self.fire = on
        if on:
            self._happen(ALARM, granted=False, door=0, reason=39)

    def announce_unstored(self, card: int, door: int) -> None:
        """An event that the listener is told and the log never gets."""
        self.unstored = LogEntry(self.next_index, SWIPE, True, door, 1, card, self.now(), 1)
        self._announce(self.unstored)

    def tick(self) -> None:
        """The clock has moved to a new minute: tasks that are due change their door's mode."""
        now = self.now()
        for task in self.tasks:
            due = _date(task[0:4]) <= now.date() <= _date(task[4:8]) and task[8 + now.weekday()]
            if due and _clock(task[15:17]) == now.time().replace(second=0) and task[18] in TASK_MODES:
                self.doors[task[17]].mode = TASK_MODES[task[18]]

    # -- what happens to a controller

    def go_offline(self) -> None:
        self._offline = True

    def come_back(self) -> None:
        self._offline = False

    def corrupt_next(self) -> None:
        self._corrupt_next = True

    def drop_next(self, count: int = 1) -> None:
        self._drop = count

    def drift_clock(self, by: timedelta) -> None:
        self.drift += by

    def clear_log(self) -> None:
        self.log.clear()
        self.next_index = 1
        self.event_index = 0

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once `condition()` holds; looks again after each request."""
        while not condition():
            self._asked.clear()
            await self._asked.wait()

    def now(self) -> datetime:
        return (self._clock() + self.drift).replace(microsecond=0, tzinfo=None)

    # -- deciding and logging

    def _reason(self, number: int, door: int, pin: int) -> int:
        if self.host_control:
            return 5
        state = self.doors[door]
        if state.mode == LOCKED:
            return 11
        card = self.cards.get(number)
        if card is None:
            return 6
        permission = card.doors[door - 1]
        if permission == 0:
            return 6
        now = self.now()
        if not card.first_day <= now.date() <= card.last_day:
            return 15
        if permission > 1 and not self._within(permission, now):
            return 15
        return 7 if door in self.keypads and card.pin and card.pin != pin else 1

    def _within(self, number: int, now: datetime) -> bool:
        seen: set[int] = set()
        while number in self.profiles and number not in seen:
            seen.add(number)
            stored = self.profiles[number]
            in_dates = _date(stored[1:5]) <= now.date() <= _date(stored[5:9])
            if in_dates and stored[9 + now.weekday()]:
                for start in (16, 20, 24):
                    if _clock(stored[start : start + 2]) <= now.time() < _clock(stored[start + 2 : start + 4]):
                        return True
            number = stored[28]
        return False

    def _release(self, door: int) -> None:
        self.doors[door].relay = True
        self.opened.append(door)

    def _special_event(self, kind: int, door: int, reason: int, *, granted: bool) -> LogEntry | None:
        if not self.special_events:
            return None
        return self._happen(kind, granted=granted, door=door, reason=reason)

    def _happen(
        self, kind: int, *, granted: bool, door: int, reason: int, direction: int = 1, card: int = 0
    ) -> LogEntry:
        entry = LogEntry(self.next_index, kind, granted, door, direction, card, self.now(), reason)
        self.next_index += 1
        self.log.append(entry)
        del self.log[: -self._capacity]
        self.unstored = None
        self._announce(entry)
        return entry

    def _announce(self, entry: LogEntry) -> None:
        if self.listener is None or self._udp is None or self._offline:
            return
        som = SOM_V6_62 if self._v6_62 else SOM
        packet = struct.pack("<BBHI", som, 0x20, 0, self.serial) + self._status_fields(entry)
        self._udp.sendto(packet.ljust(FRAME, b"\0"), self.listener)

    # -- replies: what follows the eight bytes of header

    def _controller(self) -> bytes:
        version = _bcd("0662" if self._v6_62 else "0892")
        addresses = bytes([127, 0, 0, 1, 255, 0, 0, 0, 127, 0, 0, 254])
        return addresses + bytes.fromhex("001223344556") + version + _bcd("20181105")

    def _bcd_now(self) -> bytes:
        return _bcd(f"{self.now():%Y%m%d%H%M%S}")

    def _set_time(self, request: bytes) -> bytes:
        wanted = datetime.strptime(request[8:15].hex(), "%Y%m%d%H%M%S")  # noqa: DTZ007 - a controller has no zone
        self.drift += wanted - self.now()
        return self._bcd_now()

    def _status(self, _: bytes) -> bytes:
        newest = self.unstored or (self.log[-1] if self.log else None)
        return self._status_fields(newest)

    def _status_fields(self, entry: LogEntry | None) -> bytes:
        now = self.now()
        relays = sum(1 << (n - 1) for n, door in self.doors.items() if door.relay)
        return (
            (self._event_fields(entry) if entry else bytes(20))
            + bytes(door.open for door in self.doors.values())
            + bytes(4)  # buttons
            + b"\0"  # system error
            + _bcd(f"{now:%H%M%S}")
            + struct.pack("<II", 0, 0)
            + bytes([0, relays, int(self.fire)])
            + _bcd(f"{now:%y%m%d}")
        )

    def _event_fields(self, entry: LogEntry) -> bytes:
        at = _bcd(f"{entry.at:%Y%m%d%H%M%S}") if entry.at else bytes(7)
        return (
            struct.pack("<IBBBBI", entry.index, entry.kind, entry.granted, entry.door, entry.direction, entry.card)
            + at
            + bytes([entry.reason])
        )

    def _get_event(self, request: bytes) -> bytes:
        index = struct.unpack_from("<I", request, 8)[0]
        if self.log:
            index = {0: self.log[0].index, 0xFFFFFFFF: self.log[-1].index}.get(index, index)
        for entry in self.log:
            if entry.index == index:
                return self._event_fields(entry)
        overwritten = bool(self.log) and 0 < index < self.log[0].index
        shown = index if overwritten else 0
        return struct.pack("<IB", shown, 0xFF if overwritten else 0)

    def _set_index(self, request: bytes) -> bytes:
        self.event_index = struct.unpack_from("<I", request, 8)[0]
        return b"\x01"

    def _open(self, request: bytes) -> bytes:
        door = request[8]
        if door not in self.doors or self.doors[door].mode == LOCKED:
            return b"\0"
        self._release(door)
        self._special_event(DOOR, door, 44, granted=True)
        return b"\x01"

    def _put_card(self, request: bytes) -> bytes:
        number = struct.unpack_from("<I", request, 8)[0]
        doors = (request[20], request[21], request[22], request[23])
        pin = int.from_bytes(request[24:27], "little")
        self.cards[number] = StoredCard(_date(request[12:16]), _date(request[16:20]), doors, pin)
        return b"\x01"

    def _delete_card(self, request: bytes) -> bytes:
        return bytes([self.cards.pop(struct.unpack_from("<I", request, 8)[0], None) is not None])

    def _delete_cards(self, request: bytes) -> bytes:
        if struct.unpack_from("<I", request, 8)[0] == MAGIC:
            self.cards.clear()
        return b"\x01"

    def _get_card(self, request: bytes) -> bytes:
        return self._card_fields(struct.unpack_from("<I", request, 8)[0])

    def _card_at(self, request: bytes) -> bytes:
        index = struct.unpack_from("<I", request, 8)[0]
        numbers = list(self.cards)
        return self._card_fields(numbers[index - 1] if 0 < index <= len(numbers) else 0)

    def _card_fields(self, number: int) -> bytes:
        card = self.cards.get(number)
        if card is None:
            return bytes(4)
        days = _bcd(f"{card.first_day:%Y%m%d}{card.last_day:%Y%m%d}")
        return struct.pack("<I", number) + days + bytes(card.doors) + card.pin.to_bytes(3, "little")

    def _set_door(self, request: bytes) -> bytes:
        self.doors[request[8]].mode, self.doors[request[8]].seconds = request[9], request[10]
        return self._get_door(request)

    def _get_door(self, request: bytes) -> bytes:
        door = self.doors[request[8]]
        return bytes([request[8], door.mode, door.seconds])

    def _set_profile(self, request: bytes) -> bytes:
        linked = request[36]
        if linked and linked not in self.profiles:
            return b"\0"
        self.profiles[request[8]] = bytes(request[8:37])
        return b"\x01"

    def _get_profile(self, request: bytes) -> bytes:
        return self.profiles.get(request[8], b"\0")

    def _clear_profiles(self, request: bytes) -> bytes:
        if struct.unpack_from("<I", request, 8)[0] == MAGIC:
            self.profiles.clear()
        return b"\x01"

    def _clear_tasks(self, request: bytes) -> bytes:
        if struct.unpack_from("<I", request, 8)[0] == MAGIC:
            self.tasks, self._new_tasks = [], []
        return b"\x01"

    def _add_task(self, request: bytes) -> bytes:
        self._new_tasks.append(bytes(request[8:28]))
        return b"\x01"

    def _refresh_tasks(self, request: bytes) -> bytes:
        if struct.unpack_from("<I", request, 8)[0] == MAGIC:
            self.tasks, self._new_tasks = self._new_tasks, []
        return b"\x01"

    def _special(self, request: bytes) -> bytes:
        self.special_events = bool(request[8])
        return b"\x01"

    def _set_listener(self, request: bytes) -> bytes:
        host = ".".join(str(byte) for byte in request[8:12])
        self.listener = host, struct.unpack_from("<H", request, 12)[0]
        return b"\x01"

    def _pc_control(self, request: bytes) -> bytes:
        self.host_control = bool(request[12])
        return b"\x01"

    def _keypads(self, request: bytes) -> bytes:
        self.keypads = {reader for reader in range(1, 5) if request[7 + reader]}
        return b"\x01"


class _Endpoint(asyncio.DatagramProtocol):
    def __init__(self, device: SimulatedUhppote) -> None:
        self._device = device
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self._device.answer(data)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)
