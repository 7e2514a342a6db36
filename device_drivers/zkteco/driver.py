"""ZktecoTerminal: one connection to a ZKTeco terminal on TCP or UDP 4370.

`run` registers for live events first and reads the log second, so that no punch falls between the
two. A live event is acknowledged only once it is durable; the log is the authority all the same: when
a keepalive shows more records than live events accounted for, and otherwise after so many live events or
minutes, the log is read from the cursor on. Each terminal comes to that at a moment of its own, and what
live events have told already is not told again, so that a fleet does not confirm itself in one burst.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from device_drivers.devices import (
    Capabilities,
    CommandResult,
    CommandState,
    DeviceConfig,
    DeviceTemplate,
    DeviceUser,
    Feature,
    Identity,
    ItemResult,
    Record,
)
from device_drivers.errors import (
    AuthenticationFailed,
    DeviceRefused,
    LinkError,
    ProtocolError,
    Unsupported,
    WrongDevice,
)
from device_drivers.events import Origin, Punch
from device_drivers.zkteco.backlog import OVERLAP, AttendanceLog
from device_drivers.zkteco.codes import LIVE_SIZES, Command, EventFlag
from device_drivers.zkteco.connection import MAX_LIVE_PAYLOAD, Connection, Timing
from device_drivers.zkteco.device_clock import pack_time, unpack_time
from device_drivers.zkteco.heard import Heard
from device_drivers.zkteco.messages import option_value, read_u32, scramble_key, u32
from device_drivers.zkteco.people import People, disabled, read_option, read_sizes
from device_drivers.zkteco.records import Attendance, decode_live
from device_drivers.zkteco.session import LiveEvent
from device_drivers.zkteco.tables import TableReader

MAX_UNLOCK_S = 60.0
LIVE_BATCH = 500  # punches recorded together at the most: packets of a hostile terminal hold hundreds of thousands
CONFIRM_EVERY = 256  # live events that stand unconfirmed at the most

logger = logging.getLogger(__name__)


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Attached:
    """What exists once a terminal has answered."""

    connection: Connection
    identity: Identity
    log: AttendanceLog
    people: People


class ZktecoTerminal:
    """A `device_drivers.devices.Terminal`.

    `config.password` is the communication key, a number; empty means 0. `measured_offset` is the terminal's clock, read
    in `config.timezone`, minus ours, to the second, as measured at connecting and whenever the log is confirmed.
    """

    def __init__(
        self,
        config: DeviceConfig,
        *,
        cursor: bytes | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.config = config
        self.measured_offset: timedelta | None = None
        self.live_gaps = 0  # times the log held other than live events told
        self._udp = _choice(config, "transport", "tcp", "udp") == "udp"
        self._verify_checksum = _choice(config, "checksum", "verify", "ignore") == "verify"
        self._user_size = config.options.get("user_size")
        if self._user_size not in (None, 28, 72):
            raise ValueError(f"option user_size is {self._user_size!r}; it must be 28 or 72")
        if config.password and not config.password.isdecimal():
            raise ValueError("the password of a zkteco device is its communication key, a number")
        self._timing = Timing.from_options(config.options)
        self._zone = ZoneInfo(config.timezone)
        self._now = now
        self._cursor = cursor
        self._live_recorded = 0  # live punches since the log was last read
        self._held: list[LiveEvent] = []
        self._heard = Heard()
        self._asked: list[asyncio.Future[bytes]] = []  # who waits for the log to be read
        self._opening = asyncio.Lock()
        self._attached: _Attached | None = None

    async def _attach(self) -> _Attached:
        """Open, authorise and check against the pinned serial at first use."""
        async with self._opening:
            if self._attached is not None:
                return self._attached
            connection = await Connection.open(
                self.config.address, udp=self._udp, timing=self._timing, verify_checksum=self._verify_checksum
            )
            try:
                await self._authorise(connection)
                identity = await self._identify(connection)
                # A connection lost in the middle of a write may have left the terminal disabled.
                await connection.ask(Command.ENABLEDEVICE, repeatable=True)
                self.measured_offset = await self._measure_offset(connection)
            except BaseException:
                await connection.close()
                raise
            tables = TableReader(connection)
            log = AttendanceLog(tables, serial=identity.serial, cursor=self._cursor)
            people = People(connection, tables, encoding=self.config.encoding, user_size=self._user_size)
            self._attached = _Attached(connection, identity, log, people)
            return self._attached

    async def _authorise(self, connection: Connection) -> None:
        answer = await connection.ask(Command.CONNECT, timeout_s=self._timing.connect_s, repeatable=True)
        if answer.command == Command.ACK_UNAUTH:
            key = scramble_key(int(self.config.password or "0"), connection.session_id)
            answer = await connection.ask(Command.AUTH, key, repeatable=True)
            if answer.command != Command.ACK_OK:
                raise AuthenticationFailed(
                    f"{connection.address}: the terminal refused the communication key", code=answer.command
                )
        if answer.command != Command.ACK_OK:
            raise DeviceRefused(f"CONNECT was answered with {answer.command}", code=answer.command)

    async def _identify(self, connection: Connection) -> Identity:
        serial = await read_option(connection, "~SerialNumber") or ""
        if self.config.serial and serial != self.config.serial:
            raise WrongDevice(connection.address, expected=self.config.serial, found=serial)
        firmware = await connection.ask(Command.GET_VERSION, repeatable=True)
        version = option_value(firmware.payload) if firmware.command == Command.ACK_OK else ""
        model = await read_option(connection, "~DeviceName") or await read_option(connection, "~Platform") or ""
        return Identity(vendor="ZKTeco", model=model, serial=serial, firmware=version)

    async def _measure_offset(self, connection: Connection) -> timedelta | None:
        device_time = unpack_time(read_u32(await connection.require(Command.GET_TIME, repeatable=True)))
        return device_time.replace(tzinfo=self._zone) - self._now() if device_time else None

    async def close(self) -> None:
        if self._attached is not None:
            await self._attached.connection.close()

    async def probe(self) -> Identity:
        return (await self._attach()).identity

    async def capabilities(self) -> Capabilities:
        """As the terminal answers now; a function it does not answer for is left out."""
        connection = (await self._attach()).connection
        sizes = await read_sizes(connection)
        algorithm = await read_option(connection, "~ZKFPVersion")
        face = None
        if await read_option(connection, "FaceFunOn") == "1":
            face = await read_option(connection, "ZKFaceVersion")
        lock = await read_option(connection, "LockOn")
        live = await connection.ask(Command.REG_EVENT, u32(EventFlag.ATTLOG), repeatable=True)
        features = {Feature.PUNCHES, Feature.CLOCK, Feature.USERS, Feature.PINS, Feature.CARDS}
        features |= {Feature.CLEAR_LOG, Feature.REBOOT}
        if live.command == Command.ACK_OK:
            features.add(Feature.LIVE)
        if algorithm:
            features.add(Feature.FINGER_TEMPLATES)
        if lock is not None:
            features.add(Feature.OPEN_DOOR)
        return Capabilities(
            features=frozenset(features),
            max_users=sizes.max_users,
            max_records=sizes.max_records,
            max_finger_templates=sizes.max_fingers,
            max_face_templates=sizes.max_faces,
            finger_algorithm=f"zk-finger-{algorithm}" if algorithm else None,
            face_algorithm=f"zk-face-{face}" if face else None,
            doors=0 if lock is None else 1,
            users=sizes.users,
            records=sizes.records,
        )

    # Punches.

    async def run(self, record: Record) -> None:
        attached = await self._attach()
        connection = attached.connection
        live = await connection.ask(Command.REG_EVENT, u32(EventFlag.ATTLOG), repeatable=True)
        if live.command != Command.ACK_OK:
            logger.info("no live events; the log is polled", extra={"device": self.config.name, "code": live.command})
        clock = asyncio.get_running_loop().time
        try:
            await self._catch_up(attached, record)
            confirmed = alive = clock()
            while True:
                # Who asked while the log was being read woke nobody: there is no waiting then.
                wait_s = 0.0 if self._asked else max(0.0, alive + self._timing.keepalive_s - clock())
                events = await connection.live_events(timeout_s=wait_s)
                await self._record_live(attached, record, events)
                due = self._asked or self._live_recorded >= CONFIRM_EVERY
                if not due and clock() - alive < self._timing.keepalive_s:
                    continue
                alive = clock()
                asked = len(self._asked)
                if due or await self._gap(attached, record) or clock() - confirmed >= self._timing.confirm_s:
                    await self._catch_up(attached, record)
                    self.measured_offset = await self._measure_offset(connection)
                    confirmed = clock()
                    self._answer(asked, attached.log.position)
        finally:
            for waiting in self._asked:
                if not waiting.done():
                    waiting.set_exception(
                        LinkError(f"{self.config.address}: the connection ended before the log was read")
                    )

    def _answer(self, count: int, position: bytes) -> None:
        """Tell the first `count` of those who asked for a reading how far it went."""
        asked, self._asked = self._asked[:count], self._asked[count:]
        for waiting in asked:
            if not waiting.done():
                waiting.set_result(position)

    async def _catch_up(self, attached: _Attached, record: Record) -> None:
        """Record the log from the cursor on, and live events as they come in between."""
        told = (await read_sizes(attached.connection)).records
        while unknown := await self._read_log(attached, record, told):
            await attached.people.look_up(unknown)

    async def _read_log(self, attached: _Attached, record: Record, told: int) -> set[int]:
        """Empty at the end of the log; else internal user numbers to look up before going on.

        The log must be closed meanwhile: a terminal has one buffer for all its tables.
        """
        first = True
        async with contextlib.aclosing(attached.log.read(told_count=told)) as batches:
            async for batch in batches:
                if unknown := _unknown(attached.people, batch.records):
                    return unknown
                punches = [_punch(attached, item, Origin.BACKLOG) for item in batch.records]
                await record(self._heard.unknown(punches), cursor=batch.cursor)
                self._heard.add(punches[-OVERLAP:])
                events = await attached.connection.live_events(timeout_s=0)
                await self._record_live(attached, record, events, log_open=True)
                if first:  # what came before the table was prepared is in the table
                    self._live_recorded = 0
                    first = False
        return set()

    async def _gap(self, attached: _Attached, record: Record) -> bool:
        """Whether the log holds other than what was read plus what live events brought."""
        log = attached.log
        stored = (await read_sizes(attached.connection)).records if log.count_is_true else await log.stored_count()
        await self._record_live(attached, record, await attached.connection.live_events(timeout_s=0))
        if log.read_count <= stored <= log.read_count + self._live_recorded:
            return False
        self.live_gaps += 1
        logger.info(
            "live events do not account for the log; reading it",
            extra={"device": self.config.name, "stored": stored, "read": log.read_count, "live": self._live_recorded},
        )
        return True

    async def _record_live(
        self, attached: _Attached, record: Record, events: Sequence[LiveEvent], *, log_open: bool = False
    ) -> None:
        """Record what `events` say, some at a time, and acknowledge them; a look-up waits for the log to close."""
        events = [*self._held, *events]
        self._held = []
        while events:
            count, heard = _some(events)
            if unknown := _unknown(attached.people, heard):
                if log_open:
                    self._held = events
                    return
                await attached.people.look_up(unknown)
            if heard:
                punches = [_punch(attached, item, Origin.LIVE) for item in heard]
                await record(punches)
                self._heard.add(punches)
                self._live_recorded += len(heard)
            await attached.connection.acknowledge(count)
            events = events[count:]

    async def read_log(self) -> bytes:
        """Have `run` read the log to its end now; the cursor of what is then recorded. Raises LinkError."""
        attached = await self._attach()
        read: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked.append(read)
        attached.connection.interrupt()
        return await read

    async def clear_log(self, *, confirmed_through: bytes) -> CommandResult:
        """Delete every attendance record, if the log still ends with the record this cursor stands for.

        Clearing is all or nothing, so it is for the enterprise to order, once upstream holds everything up to
        there durably. Nobody can punch between the look and the clearing.
        """
        attached = await self._attach()
        await attached.log.stored_count()  # a reading under way ends before people are kept from punching
        async with disabled(attached.connection):
            covered, stored = await attached.log.ends_at(confirmed_through)
            if not covered:
                reason = f"the log holds {stored} records and is not what was read and confirmed; read it again"
                return CommandResult(CommandState.FAILED, reason)
            result = await self._command(attached, Command.CLEAR_ATTLOG)
            if result.state is CommandState.DONE:
                await attached.connection.ask(Command.REFRESHDATA)
        return result

    # Clock, door, power.

    async def get_time(self) -> datetime:
        """Naive, as the terminal says it. Raises ProtocolError for a date that does not exist."""
        connection = (await self._attach()).connection
        device_time = unpack_time(read_u32(await connection.require(Command.GET_TIME, repeatable=True)))
        if device_time is None:
            raise ProtocolError("the terminal's clock shows a date that does not exist")
        return device_time

    async def set_time(self, device_time: datetime) -> None:
        """`device_time` is naive, in the zone the terminal's clock is set to."""
        if device_time.tzinfo is not None:
            raise ValueError("a terminal's clock has no zone: pass a naive time")
        attached = await self._attach()
        await attached.connection.require(Command.SET_TIME, u32(pack_time(device_time)))
        self.measured_offset = await self._measure_offset(attached.connection)

    async def open_door(self, door: int, *, seconds: float) -> CommandResult:
        """Never repeated: UNKNOWN means that the order may have been carried out."""
        if door != 1:
            return CommandResult(CommandState.FAILED, "a terminal has door 1 only")
        if not 0 < seconds <= MAX_UNLOCK_S:
            return CommandResult(CommandState.FAILED, f"{seconds:g} s; allowed are more than 0 to {MAX_UNLOCK_S:g}")
        return await self._command(await self._attach(), Command.UNLOCK, u32(max(1, round(seconds * 10))))

    async def reboot(self) -> CommandResult:
        """The terminal goes away for a minute or so; the connection ends."""
        return await self._command(await self._attach(), Command.RESTART)

    async def _command(self, attached: _Attached, command: Command, payload: bytes = b"") -> CommandResult:
        """An order with an effect in the world, sent once."""
        if attached.connection.failure is not None:
            raise LinkError(f"{self.config.address}: the connection has ended") from attached.connection.failure
        try:
            answer = await attached.connection.ask(command, payload)
        except (LinkError, ProtocolError) as exc:
            return CommandResult(CommandState.UNKNOWN, str(exc))
        if answer.command == Command.ACK_OK:
            return CommandResult(CommandState.DONE)
        return CommandResult(CommandState.FAILED, f"{command.name} was refused", answer.command)

    # People.

    async def users(self) -> list[DeviceUser]:
        return await (await self._attach()).people.users()

    async def upsert_users(self, users: Sequence[DeviceUser]) -> list[ItemResult]:
        return await (await self._attach()).people.upsert(users)

    async def delete_users(self, user_ids: Sequence[str]) -> list[ItemResult]:
        return await (await self._attach()).people.delete(user_ids)

    async def templates(self, user_id: str) -> list[DeviceTemplate]:
        return await (await self._attach()).people.templates(user_id)

    async def put_templates(self, templates: Sequence[DeviceTemplate]) -> list[ItemResult]:
        return await (await self._attach()).people.put_templates(templates)

    async def delete_templates(self, user_id: str, *, modality: str | None = None) -> list[ItemResult]:
        """Raises Unsupported for another modality than fingerprint: this driver cannot delete those."""
        if modality not in (None, "fingerprint"):
            raise Unsupported(f"this driver does not delete {modality} templates")
        return await (await self._attach()).people.delete_templates(user_id)


def _some(events: Sequence[LiveEvent]) -> tuple[int, list[Attendance]]:
    """How many of the oldest are recorded together, and the attendance in them."""
    heard: list[Attendance] = []
    for count, event in enumerate(events, 1):
        if event.kind & EventFlag.ATTLOG:
            heard += decode_live(event.payload)
        if len(heard) > LIVE_BATCH - MAX_LIVE_PAYLOAD // min(LIVE_SIZES):
            return count, heard
    return len(events), heard


def _unknown(people: People, items: Sequence[Attendance]) -> set[int]:
    """Internal numbers that stand in `items` alone and have not been looked up."""
    return {item.uid for item in items if item.uid is not None and not item.user_id and not people.knows(item.uid)}


def _punch(attached: _Attached, item: Attendance, origin: Origin) -> Punch:
    user_id = item.user_id
    if not user_id and item.uid is not None:
        user_id = attached.people.user_id_of(item.uid)
    return item.punch(attached.identity.serial, user_id, origin)


def _choice(config: DeviceConfig, name: str, *allowed: str) -> str:
    """A textual option, the first of `allowed` if not given. Raises ValueError."""
    value = config.options.get(name, allowed[0])
    if value not in allowed:
        raise ValueError(f"option {name} is {value!r}; it must be one of {', '.join(allowed)}")
    return str(value)
