"""Commands that wait for push terminals, kept over a restart.

Their words hold names, card numbers and PINs: they rest sealed under a key of their own (AES-256-GCM, bound to
terminal and number) and leave the file when the command has ended. Templates are not kept at all, sealed or not:
erasing a person destroys their key in the template store, and a copy here would outlive it. A template that was on
its way at a restart is sent again by the next comparison with the device.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable
from datetime import datetime

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from device_drivers.adms.queue import SETTLED, QueuedCommand
from device_drivers.adms.uploads import TEMPLATE_TABLES
from device_drivers.devices import CommandState
from edge_agent.database import Database, utc_text

BLOCK = 100  # numbers reserved with one write; a restart skips what is left of them
HIGHEST = 1_000_000_000
NONCE_LEN = 12

log = logging.getLogger(__name__)


class DatabaseJournal:
    """`key` is 32 secret bytes for this use alone."""

    def __init__(self, database: Database, key: bytes, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._cipher = AESGCM(key)
        self._clock = clock
        self._next = 0
        self._end = 0
        self._reserving = asyncio.Lock()

    async def next_id(self) -> int:
        """A number that no command had before, also not before a restart."""
        async with self._reserving:
            if self._next >= self._end:
                self._next = await self._database.write(self._reserve)
                self._end = self._next + BLOCK
            number, self._next = self._next, self._next + 1
            return number

    async def save(self, serial: str, command: QueuedCommand) -> None:
        if command.state in SETTLED:
            await self._database.write(
                lambda c: c.execute("DELETE FROM terminal_commands WHERE command_id = ?", (command.command_id,))
            )
            return
        if carries_template(command.text):
            return
        row = (
            command.command_id,
            serial,
            self._seal(serial, command),
            utc_text(command.deadline),
            int(command.repeatable),
            command.state.value,
            utc_text(command.sent_at) if command.sent_at else None,
            command.sends,
        )
        await self._database.write(
            lambda c: c.execute("INSERT OR REPLACE INTO terminal_commands VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        )

    async def unfinished(self, serial: str) -> list[QueuedCommand]:
        """Oldest first. What was sealed under another key is left out, and said so once."""
        rows = await self._database.read(
            lambda c: c.execute(
                "SELECT command_id, sealed, deadline, repeatable, state, sent_at, sends FROM terminal_commands"
                " WHERE serial = ? ORDER BY command_id",
                (serial,),
            ).fetchall()
        )
        found = []
        for number, sealed, deadline, repeatable, state, sent_at, sends in rows:
            try:
                text = self._cipher.decrypt(sealed[:NONCE_LEN], sealed[NONCE_LEN:], _bound_to(serial, number))
            except InvalidTag:
                log.warning("terminal_command_unreadable serial=%s command=%d", serial, number)
                continue
            found.append(
                QueuedCommand(
                    number,
                    text.decode(),
                    datetime.fromisoformat(deadline),
                    bool(repeatable),
                    CommandState(state),
                    datetime.fromisoformat(sent_at) if sent_at else None,
                    sends,
                )
            )
        return found

    def _seal(self, serial: str, command: QueuedCommand) -> bytes:
        nonce = os.urandom(NONCE_LEN)
        return nonce + self._cipher.encrypt(nonce, command.text.encode(), _bound_to(serial, command.command_id))

    def _reserve(self, connection: sqlite3.Connection) -> int:
        """The first number of a fresh block. Commands past their deadline go with it: nobody waits for them."""
        now = self._clock()
        connection.execute("DELETE FROM terminal_commands WHERE deadline < ?", (utc_text(now),))
        row = connection.execute("SELECT next FROM terminal_command_numbers").fetchone()
        if row is None:
            # Terminals may still confirm numbers that an earlier installation gave.
            first = int(now.timestamp()) % HIGHEST
            connection.execute("INSERT INTO terminal_command_numbers VALUES (?)", (first + BLOCK,))
            return first
        first = int(row[0]) if row[0] < HIGHEST else 1
        connection.execute("UPDATE terminal_command_numbers SET next = ?", (first + BLOCK,))
        return first


def carries_template(text: str) -> bool:
    verb, _, rest = text.partition(" ")
    kind, _, rest = rest.partition(" ")
    return (verb, kind) == ("DATA", "UPDATE") and rest.partition(" ")[0].lower() in {*TEMPLATE_TABLES, "biophoto"}


def _bound_to(serial: str, number: int) -> bytes:
    return f"terminal command\0{serial}\0{number}".encode()
