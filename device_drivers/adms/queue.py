"""Commands that wait for a device which calls when it likes, and answers later or never.

queued -> sent -> (accepted) -> done | failed; `unknown` when the deadline passed after sending. A confirmation that
comes later still moves `unknown` to what really happened. What may be repeated without harm (data that is set to a
value) is sent again when no confirmation came; a door is never opened twice by itself, nor after its deadline.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from device_drivers.adms.codes import ACCEPTED, return_text
from device_drivers.adms.messages import Confirmation
from device_drivers.devices import CommandState

MAX_WAITING = 2000
MAX_SETTLED = 500  # kept so that a late or repeated confirmation finds its command
RESEND_AFTER = timedelta(seconds=30)
MAX_SENDS = 5
MAX_ANSWER_BYTES = 512 * 1024
MAX_ANSWER_COMMANDS = 64
PERSON = re.compile(r"\bpin=([A-Za-z0-9]{1,24})", re.IGNORECASE)
SETTLED = frozenset({CommandState.DONE, CommandState.FAILED, CommandState.UNKNOWN})


@dataclass(frozen=True, slots=True)
class QueuedCommand:
    command_id: int
    text: str = field(repr=False)  # may hold names, PINs, templates
    deadline: datetime
    repeatable: bool = False
    state: CommandState = CommandState.QUEUED
    sent_at: datetime | None = None
    sends: int = 0
    code: int | None = None
    reason: str = ""
    content: dict[str, str] = field(default_factory=dict, repr=False)


class CommandQueue:
    """One device's commands, oldest first. Every method returns the commands whose state it changed."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[int, QueuedCommand] = OrderedDict()
        self._settled: OrderedDict[int, QueuedCommand] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, command: QueuedCommand) -> list[QueuedCommand]:
        """Raises ValueError past MAX_WAITING or for a number in use.

        A deletion overtakes what still waits to put the same person there: sent again after it, that would bring back
        who was erased.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise ValueError(f"{MAX_WAITING} commands already wait for this device")
        if command.command_id in self._waiting:
            raise ValueError(f"command {command.command_id} exists")
        overtaken = self._overtaken_by(command)
        self._waiting[command.command_id] = command
        return overtaken

    def _overtaken_by(self, deletion: QueuedCommand) -> list[QueuedCommand]:
        who = PERSON.search(deletion.text) if deletion.text.startswith("DATA DELETE ") else None
        if who is None:
            return []
        changed = []
        for command in list(self._waiting.values()):
            other = PERSON.search(command.text) if command.text.startswith("DATA UPDATE ") else None
            if other is None or other[1] != who[1]:
                continue
            if command.state is CommandState.QUEUED:
                changed.append(self._settle(command, CommandState.FAILED, reason="the person was deleted meanwhile"))
            elif command.repeatable:  # it left already, and the deletion comes after it
                self._waiting[command.command_id] = once = replace(command, repeatable=False)
                changed.append(once)
        return changed

    def get(self, command_id: int) -> QueuedCommand | None:
        return self._waiting.get(command_id) or self._settled.get(command_id)

    def due(self, now: datetime, encoding: str) -> tuple[bytes, list[QueuedCommand]]:
        """The body of one getrequest answer, and the commands in it, now marked sent."""
        body = bytearray()
        sent: list[QueuedCommand] = []
        for command in list(self._waiting.values()):
            if len(sent) >= MAX_ANSWER_COMMANDS:
                break
            if not self._may_send(command, now):
                continue
            line = f"C:{command.command_id}:{command.text}\n".encode(encoding, "replace")
            if sent and len(body) + len(line) > MAX_ANSWER_BYTES:
                break
            body += line
            moved = replace(command, state=CommandState.SENT, sent_at=now, sends=command.sends + 1)
            self._waiting[command.command_id] = moved
            sent.append(moved)
        return bytes(body), sent

    @staticmethod
    def _may_send(command: QueuedCommand, now: datetime) -> bool:
        if now >= command.deadline:
            return False
        if command.state is CommandState.QUEUED:
            return True
        return (
            command.repeatable
            and command.state is CommandState.SENT
            and command.sends < MAX_SENDS
            and command.sent_at is not None
            and now - command.sent_at >= RESEND_AFTER
        )

    def confirm(self, confirmation: Confirmation) -> list[QueuedCommand]:
        """Confirmations of commands nobody remembers change nothing."""
        command = self.get(confirmation.command_id)
        if command is None or command.state is CommandState.QUEUED:
            return []
        if command.state in {CommandState.DONE, CommandState.FAILED}:
            return []
        if confirmation.code == ACCEPTED:
            if command.state is CommandState.SENT:
                moved = replace(command, state=CommandState.ACCEPTED)
                self._waiting[command.command_id] = moved
                return [moved]
            return []
        ok = confirmation.code >= 0
        return [
            self._settle(
                command,
                CommandState.DONE if ok else CommandState.FAILED,
                code=confirmation.code,
                reason="" if ok else return_text(confirmation.code),
                content=confirmation.content,
            )
        ]

    def expire(self, now: datetime, *, overdue: Collection[int] = ()) -> list[QueuedCommand]:
        """Past its deadline, or `overdue`, a command that never left has failed; one that left is unknown."""
        late = [
            command for command in self._waiting.values() if now >= command.deadline or command.command_id in overdue
        ]
        return [
            self._settle(command, CommandState.FAILED, reason="the device did not call before the deadline")
            if command.state is CommandState.QUEUED
            else self._settle(command, CommandState.UNKNOWN, reason="sent, no confirmation before the deadline")
            for command in late
        ]

    def _settle(
        self,
        command: QueuedCommand,
        state: CommandState,
        *,
        reason: str,
        code: int | None = None,
        content: dict[str, str] | None = None,
    ) -> QueuedCommand:
        self._waiting.pop(command.command_id, None)
        settled = replace(command, text="", state=state, reason=reason, code=code, content=content or {})
        self._settled[command.command_id] = settled
        while len(self._settled) > MAX_SETTLED:
            self._settled.popitem(last=False)
        return settled
