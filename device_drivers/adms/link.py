"""One push device between the server (which it calls) and the driver (which the agent runs).

It lives as long as the server, so commands and late answers outlast a driver. All uploads of a device pass one lock:
events are recorded in the order sent, and are acknowledged only after `record` returned.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

from device_drivers.adms.messages import Confirmation, PushedPhoto
from device_drivers.adms.queue import SETTLED, QueuedCommand
from device_drivers.adms.session import Session
from device_drivers.devices import CommandState, DeviceTemplate, DeviceUser, Record
from device_drivers.errors import LinkError, LinkTimeout
from device_drivers.events import DeviceEvent

MAX_COLLECTED = 100_000  # rows of one query
Clock = Callable[[], datetime]


class CommandJournal(Protocol):
    """Where commands survive a restart; the agent supplies one over its database."""

    async def next_id(self) -> int: ...
    async def save(self, serial: str, command: QueuedCommand) -> None: ...
    async def unfinished(self, serial: str) -> list[QueuedCommand]: ...


class MemoryJournal:
    """Numbers that do not repeat across restarts as long as fewer than one command a second is given on average."""

    def __init__(self, clock: Clock) -> None:
        self._next = int(clock().timestamp()) % 1_000_000_000

    async def next_id(self) -> int:
        self._next += 1
        return self._next

    async def save(self, serial: str, command: QueuedCommand) -> None:
        """Nothing to keep: this journal is the queue's own memory."""

    async def unfinished(self, serial: str) -> list[QueuedCommand]:
        return []


PhotoHook = Callable[[PushedPhoto], Awaitable[bool]]  # whether anything came of it
TemplateHook = Callable[[str, Sequence[DeviceTemplate]], Awaitable[None]]
UserHook = Callable[[str, Sequence[DeviceUser]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Hooks:
    """What happens to things pushed unasked. Without a hook they are dropped and counted, never kept.

    A picture is not even decoded unless `wants_photo` says so of the terminal's serial number.
    """

    photo: PhotoHook | None = None
    wants_photo: Callable[[str], bool] = field(default=lambda _serial: True)
    template: TemplateHook | None = None
    user: UserHook | None = None


@dataclass(slots=True)
class Collection:
    """Rows that answer one query: they come as uploads of their own, before or after the confirmation."""

    command_id: int | None = None  # not given yet: rows with a number are not for us
    users: dict[str, DeviceUser] = field(default_factory=dict)
    templates: dict[tuple[str, str, int], DeviceTemplate] = field(default_factory=dict)
    access: dict[str, tuple[int, int]] = field(default_factory=dict)  # user -> doors as bits, time zone
    packets: int = 0
    packets_expected: int = 0
    last_row: float = 0.0

    @property
    def rows(self) -> int:
        return len(self.users) + len(self.templates) + len(self.access)


class DeviceLink:
    def __init__(self, session: Session, *, journal: CommandJournal, hooks: Hooks, clock: Clock) -> None:
        self.session = session
        self.hooks = hooks
        self.clock = clock
        self.counters: Counter[str] = Counter()
        self.last_seen: float | None = None
        self._journal = journal
        self._record: Record | None = None
        self._failure: asyncio.Future[None] | None = None
        self._uploads = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._collections: list[Collection] = []
        self._restored = False
        self._overdue_at: dict[int, float] = {}  # by the loop's time: a wall clock set back gives no command more time
        self._heard = asyncio.Event()
        self.leaves: dict[int, bool] = {}  # as told since a driver receives

    @property
    def serial(self) -> str:
        return self.session.serial

    @property
    def attached(self) -> bool:
        return self._record is not None

    def heard(self) -> None:
        self.last_seen = asyncio.get_running_loop().time()
        self._heard.set()

    async def calling(self, within_s: float) -> None:
        """Returns if the device called within this time, or once it does. Raises LinkTimeout."""
        now = asyncio.get_running_loop().time()
        if self.last_seen is not None and now - self.last_seen < within_s:
            return
        self._heard.clear()
        try:
            async with asyncio.timeout(within_s):
                await self._heard.wait()
        except TimeoutError as exc:
            raise LinkTimeout(self.serial, within_s) from exc

    # -- the driver's side -------------------------------------------------------------------------------------------

    async def run(self, record: Record, *, cursor: bytes | None, silence_s: float) -> None:
        """Receive for as long as the device keeps calling. Raises LinkTimeout, or what `record` raised."""
        if self.attached:
            raise LinkError(f"{self.serial}: another driver already receives from this terminal")
        loop = asyncio.get_running_loop()
        self.session.restore(cursor)
        await self._restore_commands()
        self._failure = loop.create_future()
        self._record = record
        self.leaves = {}
        started = loop.time()
        try:
            while True:
                quiet = loop.time() - max(started, self.last_seen or 0.0)
                if quiet >= silence_s:
                    raise LinkTimeout(self.serial, silence_s)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(silence_s - quiet):
                        await asyncio.shield(self._failure)
        finally:
            self._record = None
            self._failure.cancel()

    async def _restore_commands(self) -> None:
        if self._restored:
            return
        for command in await self._journal.unfinished(self.serial):
            with contextlib.suppress(ValueError):
                self.session.commands.add(command)
        self._restored = True

    async def submit(self, text: str, *, deadline_s: float, repeatable: bool) -> QueuedCommand:
        """Put a command in the queue once it is durable. Raises LinkError if the queue is full."""
        command = QueuedCommand(
            await self._journal.next_id(), text, self.clock() + timedelta(seconds=deadline_s), repeatable
        )
        overdue_at = asyncio.get_running_loop().time() + deadline_s
        await self._journal.save(self.serial, command)  # or the terminal would do what whoever asked was refused
        overtaken: list[QueuedCommand] = []
        if self.session.commands.get(command.command_id) is None:  # else restored from the journal meanwhile
            try:
                overtaken = self.session.commands.add(command)
            except ValueError as exc:
                await self._journal.save(self.serial, replace(command, state=CommandState.FAILED))
                raise LinkError(f"{self.serial}: {exc}") from exc
        self._overdue_at[command.command_id] = overdue_at
        await self._announce(overtaken)
        return command

    async def settled(self, command_id: int) -> QueuedCommand:
        """Wait for the end of a command, at most until its deadline."""
        async with self._changed:
            while True:
                command = self.session.commands.get(command_id)
                if command is None:
                    return QueuedCommand(command_id, "", self.clock(), state=CommandState.UNKNOWN)
                if command.state in SETTLED:
                    return command
                left = (command.deadline - self.clock()).total_seconds()
                if command_id in self._overdue_at:
                    left = min(left, self._overdue_at[command_id] - asyncio.get_running_loop().time())
                if left <= 0:
                    await self._note(self._expire())
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left + 0.01):
                        await self._changed.wait()

    @contextlib.asynccontextmanager
    async def collecting(self) -> AsyncIterator[Collection]:
        """Keep the rows that arrive while a query is under way; entered before the query is put in the queue."""
        collection = Collection()
        self._collections.append(collection)
        try:
            yield collection
        finally:
            self._collections.remove(collection)

    async def all_rows(self, collection: Collection, expected: int, *, quiet_s: float, deadline_s: float) -> bool:
        """True when the announced packets or `expected` rows are in, or nothing more came for `quiet_s`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline_s
        start = loop.time()
        async with self._changed:
            while True:
                if collection.packets_expected and collection.packets >= collection.packets_expected:
                    return True
                if expected and collection.rows >= expected:
                    return True
                quiet_at = max(collection.last_row, start) + quiet_s
                wake = min(end, quiet_at)
                if loop.time() >= wake:
                    return expected == 0 and quiet_at <= end
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(wake):
                        await self._changed.wait()

    # -- the server's side -------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def uploading(self) -> AsyncIterator[None]:
        async with self._uploads:
            yield

    async def record(self, events: Sequence[DeviceEvent], *, cursor: bytes | None = None) -> None:
        """Durable on return. Whatever `record` raises also ends `run`: storage is not the device's fault.

        Raises LinkError while no driver is attached.
        """
        record, failure = self._record, self._failure
        if record is None or failure is None:
            raise LinkError(f"{self.serial}: nobody receives at the moment")
        try:
            await record(events, cursor=cursor)
        except Exception as exc:
            if not failure.done():
                failure.set_exception(exc)
            raise
        self.counters["events"] += len(events)

    async def next_commands(self) -> bytes:
        now = self.clock()
        expired = self._expire()
        body, sent = self.session.commands.due(now, self.session.wire_encoding)
        await self._announce([*expired, *sent])
        return body

    def _expire(self) -> list[QueuedCommand]:
        ticks = asyncio.get_running_loop().time()
        overdue = {command_id for command_id, at in self._overdue_at.items() if at <= ticks}
        return self.session.commands.expire(self.clock(), overdue=overdue)

    async def confirmed(self, confirmations: Sequence[Confirmation]) -> None:
        changed: list[QueuedCommand] = []
        for confirmation in confirmations:
            moved = self.session.commands.confirm(confirmation)
            if not moved:
                self.counters["unmatched_confirmations"] += 1
            if confirmation.command == "INFO" or "~DeviceName" in confirmation.content:
                self.session.learn(confirmation.content)
            changed += moved
        await self._announce(changed)

    async def _announce(self, changed: Sequence[QueuedCommand]) -> None:
        if changed:
            async with self._changed:
                await self._note(changed)

    async def _note(self, changed: Sequence[QueuedCommand]) -> None:
        for command in changed:
            if command.state in SETTLED:
                self._overdue_at.pop(command.command_id, None)
            await self._journal.save(self.serial, command)
        self._changed.notify_all()

    async def deliver_users(self, users: Sequence[DeviceUser], *, command_id: int | None = None) -> None:
        collected = await self._collect(command_id, users=users)
        if users and not collected:
            if self.hooks.user is None:
                self.counters["users_dropped"] += len(users)
            else:
                await self.hooks.user(self.serial, users)

    async def deliver_templates(self, templates: Sequence[DeviceTemplate], *, command_id: int | None = None) -> None:
        collected = await self._collect(command_id, templates=templates)
        if templates and not collected:
            if self.hooks.template is None:
                self.counters["templates_dropped"] += len(templates)
            else:
                await self.hooks.template(self.serial, templates)

    async def deliver_access(self, access: dict[str, tuple[int, int]], *, command_id: int | None) -> None:
        await self._collect(command_id, access=access)

    async def deliver_photos(self, photos: Sequence[PushedPhoto]) -> None:
        for photo in photos:
            captured = self.hooks.photo is not None and await self.hooks.photo(photo)
            self.counters["photos_captured" if captured else "photos_dropped"] += 1

    async def packet(self, command_id: int, *, of: int) -> None:
        async with self._changed:
            for collection in self._collections:
                if collection.command_id == command_id:
                    collection.packets += 1
                    collection.packets_expected = of
            self._changed.notify_all()

    async def _collect(
        self,
        command_id: int | None,
        *,
        users: Sequence[DeviceUser] = (),
        templates: Sequence[DeviceTemplate] = (),
        access: dict[str, tuple[int, int]] | None = None,
    ) -> bool:
        """Give rows to the queries that wait for them; without a command number, to every one."""
        waiting = [c for c in self._collections if command_id is None or c.command_id == command_id]
        if not waiting:
            return False
        async with self._changed:
            for collection in waiting:
                if collection.rows < MAX_COLLECTED:
                    collection.users |= {user.user_id: user for user in users}
                    collection.templates |= {(t.user_id, t.algorithm, t.index): t for t in templates}
                    collection.access |= access or {}
                collection.last_row = asyncio.get_running_loop().time()
            self._changed.notify_all()
        return True
