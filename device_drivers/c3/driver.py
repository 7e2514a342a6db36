"""A C3 or inBio panel: one connection, one question at a time, the log asked for again and again.

A panel hands out each event of its log once. What was fetched and could not be recorded is kept by `C3Panels` for the
next connection, for as long as the process lives. A panel keeps its events in a table besides, so what happened while
we were away is read from there on each new connection, as far as the table fits in one answer: how to ask for a part
of it, or how a longer answer comes, nobody has described. A table that cannot be read is warned of, and recorded as a
gap. Written rows are read back: panels say OK to a key they do not understand.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from uuid import uuid4

from device_drivers.c3 import frame, messages
from device_drivers.c3.frame import Frame, FrameDecoder
from device_drivers.c3.messages import DoorState, Table, Value
from device_drivers.c3.session import Session
from device_drivers.devices import (
    Capabilities,
    CommandResult,
    CommandState,
    DeviceConfig,
    DeviceUser,
    DoorMode,
    Feature,
    Identity,
    ItemResult,
    Record,
)
from device_drivers.errors import DeviceRefused, LinkError, ProtocolError, Unsupported, WrongDevice
from device_drivers.events import DoorEvent, DoorEventKind, Origin
from device_drivers.links import StreamLink, split_address
from device_drivers.zk_access import decode_seconds, encode_seconds, leaves

PORT = 4370
POLL_S = 0.5
ANSWER_TIMEOUT_S = 10.0
OVERLAP = 20
ROWS_AT_ONCE = 50
IDENTITY = ("~SerialNumber", "FirmVer", "~DeviceName", "LockCount", "ReaderCount", "AuxInCount", "AuxOutCount")
LIMITS = ("~MaxUserCount", "~MaxAttLogCount", "~ZKFPVersion")
OPEN_TOO_LONG, ALARM = 2, 1  # bits of a door's alarm byte in binary logs
NOT_READ = "backlog unreadable: what happened while nobody was connected to the panel is missing"


class C3Panels:
    """One for the agent: makes the driver of each connection."""

    def __init__(self) -> None:
        self._unrecorded: dict[str, list[DoorEvent]] = {}  # by device

    def panel(self, config: DeviceConfig, *, cursor: bytes | None = None) -> C3Panel:
        return C3Panel(config, cursor=cursor, unrecorded=self._unrecorded.setdefault(config.name, []))


class C3Panel:
    def __init__(
        self, config: DeviceConfig, *, cursor: bytes | None = None, unrecorded: list[DoorEvent] | None = None
    ) -> None:
        """`unrecorded`: what an earlier connection fetched; filled and emptied here."""
        self.config = config
        self.warning = ""
        self._unrecorded = [] if unrecorded is None else unrecorded
        self.counters: Counter[str] = Counter()
        self._host, self._port = split_address(config.address, PORT)
        self._poll_s = float(config.options.get("poll_s", POLL_S))
        self._timeout_s = float(config.options.get("answer_timeout_s", ANSWER_TIMEOUT_S))
        self._session = Session(config.password)
        self._link: StreamLink | None = None
        self._lost = False
        self._decoder = FrameDecoder()
        self._one_question = asyncio.Lock()
        self._tables: dict[str, Table] | None = None
        self._identity: Identity | None = None
        self._parameters: dict[str, str] = {}
        self._text_log = False
        self._last_row = _read_cursor(cursor)
        self._alarms = b""
        self.leaves: dict[int, bool] = {}

    # -- talking -------------------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        """Raises LinkError, AuthenticationFailed or ProtocolError; a second client of a panel breaks the first."""
        if self._lost:
            raise LinkError(f"{self.config.name}: the connection broke")
        if self._link is not None:
            return
        link = await StreamLink.connect(self._host, self._port)
        self._decoder = FrameDecoder()
        self._session = Session(self.config.password)
        try:
            if not self._session.connected(await self._exchange(link, self._session.connect())):
                self._session.answer(await self._exchange(link, self._session.connect_plain()))
        except BaseException:
            await link.close()
            raise
        self._link = link

    async def _exchange(self, link: StreamLink, question: Frame) -> Frame:
        await link.send(question.encode())
        while True:
            frames = self._decoder.feed(await link.receive(timeout_s=self._timeout_s))
            if len(frames) > 1:
                raise ProtocolError("more answers than questions")
            if frames:
                return frames[0]

    async def _ask(self, command: int, data: bytes = b"") -> bytes:
        async with self._one_question:
            await self._connect()
            link = self._link
            if link is None:
                raise LinkError(f"{self.config.name}: not connected")
            try:
                reply = await self._exchange(link, self._session.ask(command, data))
            except BaseException:  # also a cancelled question: its answer would be taken for the next one's
                self._link, self._lost = None, True
                await link.close()
                raise
            return self._session.answer(reply)

    async def close(self) -> None:
        """Says goodbye: a panel that is not told keeps its only place taken for a while."""
        link, self._link = self._link, None
        if link is None:
            return
        try:
            await link.send(self._session.ask(frame.DISCONNECT).encode())
            await link.receive(timeout_s=1.0)
        except LinkError:
            pass
        finally:
            await link.close()

    async def parameters(self, names: Sequence[str]) -> dict[str, str]:
        """What the panel says of these; names it does not know are absent."""
        found: dict[str, str] = {}
        for start in range(0, len(names), messages.MAX_PARAMETERS):
            wanted = ",".join(names[start : start + messages.MAX_PARAMETERS])
            found |= messages.text_pairs(await self._ask(frame.GET_PARAMETERS, wanted.encode("ascii")))
        return found

    async def tables(self) -> dict[str, Table]:
        """The panel's own schema, asked for once a connection."""
        if self._tables is None:
            self._tables = messages.tables(await self._ask(frame.TABLES))
        return self._tables

    async def _table(self, name: str) -> Table:
        table = (await self.tables()).get(name)
        if table is None:
            raise Unsupported(f"{self.config.name}: no table {name} on this panel")
        return table

    async def rows(self, name: str, *, column: str = "") -> list[dict[str, Value]]:
        """All rows, or one column of them. Raises Unsupported for a table or an answer this panel cannot give."""
        table = await self._table(name)
        columns = [found] if column and (found := table.column(column)) else table.columns
        return table.decode(await self._ask(frame.GET_DATA, table.request(columns)))

    async def _stored(self) -> set[str] | None:
        """Numbers of the people in the panel; None if it has more than it can say in one message."""
        try:
            return {str(row.get("Pin", "")) for row in await self.rows("user", column="Pin")}
        except Unsupported:
            self.counters["not_read_back"] += 1
            return None

    # -- the driver ----------------------------------------------------------------------------------------------------

    async def probe(self) -> Identity:
        said = await self.parameters(IDENTITY)
        serial = said.get("~SerialNumber") or said.get("SerialNumber", "")
        if self.config.serial and self.config.serial != serial:
            raise WrongDevice(self.config.address, expected=self.config.serial, found=serial)
        self._parameters |= said
        self._identity = Identity("ZKTeco", said.get("~DeviceName", ""), serial, said.get("FirmVer", ""))
        return self._identity

    async def capabilities(self) -> Capabilities:
        if self._identity is None:
            await self.probe()
        try:
            self._parameters |= await self.parameters(LIMITS)
        except DeviceRefused:
            self.counters["limits_refused"] += 1
        said, have = self._parameters, await self.tables()
        features = {Feature.LIVE, Feature.CLOCK, Feature.OPEN_DOOR, Feature.DOOR_MODES, Feature.REBOOT}
        if "transaction" in have:
            features.add(Feature.PUNCHES)
        if user := have.get("user"):
            features.add(Feature.USERS)
            features |= {Feature.CARDS} if user.column("CardNo") else set()
            features |= {Feature.PINS} if user.column("Password") else set()
        if "timezone" in have:
            features.add(Feature.SCHEDULES)
        return Capabilities(
            frozenset(features),
            max_users=_times(said.get("~MaxUserCount"), 100),
            max_records=_times(said.get("~MaxAttLogCount"), 10_000),
            doors=_times(said.get("LockCount"), 1) or 0,
        )

    async def run(self, record: Record) -> None:
        identity = await self.probe()
        await self._hand_over(record)
        await self._poll(record, identity.serial)
        await self._backlog(record, identity.serial)
        while True:
            await asyncio.sleep(self._poll_s)
            await self._poll(record, identity.serial)

    async def _poll(self, record: Record, serial: str) -> None:
        if not self._text_log:
            data = await self._ask(frame.LOG_BINARY)
            if messages.is_binary_log(data):
                events, states = messages.binary_log(data, serial=serial)
            else:
                self._text_log = True
        if self._text_log:
            events, states = messages.text_log(await self._ask(frame.LOG_TEXT), serial=serial)
        for state in states:
            events += self._alarm_events(state, serial)
            self._alarms = state.alarms
        self._unrecorded += events
        await self._hand_over(record)
        if states:
            news = not self.leaves
            self.leaves = leaves(sensor & 0x0F for sensor in states[-1].sensors)
            if news:
                await record(())

    async def _hand_over(self, record: Record) -> None:
        """Each event is let go of when it is durable: the panel does not have it any more."""
        if events := list(self._unrecorded):
            await record(events)
            del self._unrecorded[: len(events)]

    def _alarm_events(self, state: DoorState, serial: str) -> list[DoorEvent]:
        found = []
        for door, bits in enumerate(state.alarms, start=1):
            changed = bits ^ (self._alarms[door - 1] if door <= len(self._alarms) else 0)
            for bit in (ALARM, OPEN_TOO_LONG):
                if changed & bit:
                    on = bool(bits & bit)
                    kind = DoorEventKind.OTHER
                    if bit == OPEN_TOO_LONG:
                        kind = DoorEventKind.HELD if on else DoorEventKind.HELD_CLEARED
                    found.append(
                        DoorEvent(
                            serial, kind, door=door, device_time=state.device_time, reason_code=bit,
                            reason="alarm raised" if on else "alarm cleared", raw=state.raw,
                        )
                    )  # fmt: skip
        return found

    async def _backlog(self, record: Record, serial: str) -> None:
        """Stored events behind the cursor, with an overlap; all of them if the cursor's row is gone."""
        try:
            rows = await self.rows("transaction")
        except (Unsupported, DeviceRefused) as exc:
            self.counters["backlog_unreadable"] += 1
            self.warning = f"{NOT_READ} ({exc})"
            # Its bytes tell one gap from the next.
            await record([DoorEvent(serial, DoorEventKind.OTHER, reason=self.warning, raw=uuid4().bytes)])
            return
        marks = [_mark(row) for row in rows]
        start = 0
        if self._last_row in marks:
            start = max(0, len(marks) - 1 - marks[::-1].index(self._last_row) - OVERLAP)
            while start and rows[start].get("Time_second") == rows[start - 1].get("Time_second"):
                start -= 1  # equal records of one second are told together, each time
        events = [
            messages.stored_event(
                row, serial=serial, origin=Origin.BACKLOG, raw=json.dumps(row).encode(), numbered=self._text_log
            )
            for row in rows[start:]
        ]
        if events:
            self._last_row = marks[-1]
            await record(events, cursor=json.dumps({"row": self._last_row}).encode())

    # -- clock and doors -----------------------------------------------------------------------------------------------

    async def get_time(self) -> datetime:
        said = (await self.parameters(["DateTime"])).get("DateTime", "")
        moment = decode_seconds(int(said)) if said.isascii() and said.isdecimal() and len(said) < 12 else None
        if moment is None:
            raise Unsupported(f"{self.config.name}: this panel does not tell its clock")
        return moment

    async def set_time(self, device_time: datetime) -> None:
        await self._ask(frame.SET_TIME, f"DateTime={encode_seconds(device_time)}".encode())

    async def open_door(self, door: int, *, seconds: float) -> CommandResult:
        return await self._control(messages.open_door(self._door(door), seconds))

    async def set_door_mode(self, door: int, mode: DoorMode) -> CommandResult:
        """A panel can hold a door open, or not; it has no word for a door that nothing opens, and shuts it at least."""
        door = self._door(door)
        if mode is DoorMode.UNLOCKED:
            return await self._control(messages.hold_open(door))
        done = await self._control(messages.close_door(door))
        if done.state is CommandState.DONE:
            done = await self._control(messages.end_normal_open(door))
        if mode is DoorMode.LOCKED and done.state is CommandState.DONE:
            return CommandResult(CommandState.ACCEPTED, "shut; but this panel cannot bar a door to cards it knows")
        return done

    async def reboot(self) -> CommandResult:
        return await self._control(messages.RESTART)

    @staticmethod
    def _door(door: int) -> int:
        if not 1 <= door <= 16:
            raise DeviceRefused(f"no door {door} on this panel: doors are numbered from 1 to 16")
        return door

    async def _control(self, data: bytes) -> CommandResult:
        """Never asked twice. A lost link leaves it unknown whether the panel heard."""
        try:
            await self._ask(frame.CONTROL, data)
        except (DeviceRefused, Unsupported) as exc:
            return CommandResult(CommandState.FAILED, str(exc), getattr(exc, "code", None))
        except LinkError as exc:
            return CommandResult(CommandState.UNKNOWN, str(exc))
        return CommandResult(CommandState.DONE)

    # -- people --------------------------------------------------------------------------------------------------------

    async def users(self) -> list[DeviceUser]:
        access: dict[str, tuple[int, int]] = {}
        if "userauthorize" in await self.tables():
            for row in await self.rows("userauthorize"):
                zone, doors = row.get("AuthorizeTimezoneId", 0), row.get("AuthorizeDoorId", 0)
                if isinstance(zone, int) and isinstance(doors, int):
                    access[str(row.get("Pin", ""))] = (doors, zone)
        found = [messages.user(row, access) for row in await self.rows("user")]
        return [user for user in found if user is not None]

    async def upsert_users(self, users: Sequence[DeviceUser]) -> list[ItemResult]:
        reasons = await self._write(frame.SET_DATA, "user", {u.user_id: messages.user_row(u) for u in users})
        with_doors = {u.user_id: messages.access_row(u) for u in users if u.doors and not reasons.get(u.user_id)}
        if with_doors:
            reasons |= {k: v for k, v in (await self._write(frame.SET_DATA, "userauthorize", with_doors)).items() if v}
        stored = await self._stored()
        return [
            _result(
                user.user_id,
                reasons.get(user.user_id, ""),
                "the panel did not keep it",
                stored is None or user.user_id in stored,
            )
            for user in users
        ]

    async def delete_users(self, user_ids: Sequence[str]) -> list[ItemResult]:
        reasons: dict[str, str] = {}
        have = await self.tables()
        for name in ("userauthorize", "templatev10", "template", "user"):
            if name in have:
                rows: dict[str, Mapping[str, Value]] = {user_id: {"Pin": user_id} for user_id in user_ids}
                reasons |= {k: v for k, v in (await self._write(frame.DELETE_DATA, name, rows)).items() if v}
        stored = await self._stored() or set()
        return [
            _result(user_id, reasons.get(user_id, ""), "the panel still has it", user_id not in stored)
            for user_id in user_ids
        ]

    async def _write(self, command: int, name: str, rows: Mapping[str, Mapping[str, Value]]) -> dict[str, str]:
        """Reason by key, empty if taken. Many rows go in one message; if that is refused, each goes alone."""
        table = await self._table(name)
        reasons: dict[str, str] = {}
        good: deque[str] = deque()
        for key, row in rows.items():
            reasons[key] = _attempt(partial(table.encode, [row]))
            if not reasons[key]:
                good.append(key)
        while good:
            batch = [good.popleft() for _ in range(min(ROWS_AT_ONCE, len(good)))]
            try:
                await self._ask(command, table.encode([rows[key] for key in batch]))
            except DeviceRefused as refused:
                for key in batch:
                    reasons[key] = await self._write_one(command, table, rows[key]) if len(batch) > 1 else str(refused)
        return reasons

    async def _write_one(self, command: int, table: Table, row: Mapping[str, Value]) -> str:
        try:
            await self._ask(command, table.encode([row]))
        except DeviceRefused as exc:
            return str(exc)
        return ""


def _attempt(action: Callable[[], object]) -> str:
    try:
        action()
    except ValueError as exc:
        return str(exc)
    return ""


def _result(key: str, reason: str, otherwise: str, found: bool) -> ItemResult:
    reason = reason or ("" if found else otherwise)
    return ItemResult(key, ok=not reason, reason=reason)


def _times(text: str | None, unit: int) -> int | None:
    return int(text) * unit if text and text.isascii() and text.isdecimal() and len(text) < 10 else None


def _mark(row: Mapping[str, Value]) -> str:
    """A row's own fingerprint: the table has no number that is never used again."""
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:32]


def _read_cursor(cursor: bytes | None) -> str:
    try:
        saved = json.loads(cursor) if cursor else {}
    except ValueError:
        return ""
    row = saved.get("row", "") if isinstance(saved, dict) else ""
    return row if isinstance(row, str) else ""
