"""Terminals that keep what they have until it is acknowledged, repeat themselves, and are read out of order."""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random

from tests.faults import lines

START = datetime(2026, 11, 23, 8, 0)  # noqa: DTZ001 - a terminal's clock knows no zone
AHEAD = 400  # punches a terminal makes beyond what was acknowledged
OVERLAP = 32
PIECE = 150


@dataclass
class Terminal:
    """`punches`: (user, time, record number or None), in the order of the log."""

    serial: str
    punches: list[tuple[str, str, int | None]]
    acknowledged: set[int] = field(default_factory=set)

    @property
    def numbered(self) -> bool:
        return self.punches[0][2] is not None

    @property
    def made(self) -> int:
        return min(len(self.punches), len(self.acknowledged) + AHEAD)

    def border(self, index: int) -> int:
        """Not after `index`, and where the time changes."""
        while 0 < index < len(self.punches) and self.punches[index][1] == self.punches[index - 1][1]:
            index -= 1
        return index


def make(serial: str, count: int, random: Random, *, numbered: bool) -> Terminal:
    """A few people, a punch or more each second, now and then the same person twice within one."""
    punches: list[tuple[str, str, int | None]] = []
    moment = START
    while len(punches) < count:
        moment += timedelta(seconds=random.randint(1, 3))
        user = str(random.randint(1, 40))
        for _ in range(random.choice([1, 1, 1, 1, 2, 3])):
            if len(punches) < count:
                punches.append((user, moment.isoformat(), len(punches) + 1 if numbered else None))
                user = user if random.random() < 0.5 else str(random.randint(1, 40))
    return Terminal(serial, punches)


@dataclass
class Site:
    terminals: dict[str, Terminal]
    random: Random
    told: int = 0  # punches pushed, repeats included
    progress: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def acknowledged(self) -> int:
        return sum(len(terminal.acknowledged) for terminal in self.terminals.values())

    def serve(self) -> AbstractAsyncContextManager[int]:
        return lines.serve(self._client)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = json.loads(await reader.readline())
        terminal = self.terminals[hello["serial"]]
        if terminal.numbered:
            await self._shuffled(terminal, reader, writer)
        else:
            await self._in_order(terminal, hello["cursor"], reader, writer)

    async def _push(
        self,
        terminal: Terminal,
        chosen: list[int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        origin: str,
        cursor: int | None = None,
    ) -> None:
        punches = [terminal.punches[n] for n in chosen]
        self.told += len(punches)
        number = self.told
        line = {"id": number, "origin": origin, "cursor": cursor, "punches": punches}
        writer.write(json.dumps(line).encode() + b"\n")
        if int(await reader.readline()) != number:
            raise ValueError("another push was acknowledged")
        terminal.acknowledged.update(chosen)
        self.progress.set()

    async def _shuffled(self, terminal: Terminal, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Whatever is not acknowledged, in any order, with some of what is."""
        while True:
            waiting = [n for n in range(terminal.made) if n not in terminal.acknowledged]
            chosen = self.random.sample(waiting, min(len(waiting), self.random.randint(1, 60)))
            if terminal.acknowledged:
                again = self.random.choices(sorted(terminal.acknowledged), k=self.random.randint(0, 6))
                chosen += again
            self.random.shuffle(chosen)
            if not waiting and self.random.random() < 0.9:
                await asyncio.sleep(0.01)
                continue
            await self._push(terminal, chosen, reader, writer, origin="live")

    async def _in_order(
        self, terminal: Terminal, cursor: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """The log from the cursor on with overlap, then live, then the log again."""
        terminal.acknowledged.update(range(cursor))  # a durable cursor says the same as an acknowledgement
        while True:
            place = terminal.border(max(0, cursor - OVERLAP))
            end = terminal.border(terminal.made)
            while place < end:
                upto = end if end - place <= PIECE else terminal.border(place + PIECE)
                await self._push(terminal, list(range(place, upto)), reader, writer, origin="backlog", cursor=upto)
                place = upto
            cursor = place
            for _ in range(self.random.randint(0, 20)):
                if place < terminal.made:
                    await self._push(terminal, [place], reader, writer, origin="live")
                    place += 1
            if place >= len(terminal.punches):
                await asyncio.sleep(0.01)
