"""Two doors of the simulated site: a UHPPOTE controller moves the bolts, OSDP readers ask, people come and go."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from device_drivers import wiegand
from device_drivers.simulated.osdp import SimulatedBus, SimulatedReader
from device_drivers.simulated.uhppote import SimulatedUhppote
from edge_agent.demo.people import FACILITY, PEOPLE, SERVER_ROOM, DemoPerson

CONTROLLER = "door-controller"
READERS = "door-readers"
SOUTH_GATE, SERVER_DOOR = 1, 2  # relay and OSDP address alike
STRANGER = 65001
EVERY_S = 2.5


class DemoDoors:
    def __init__(self, zone: str, seed: int) -> None:
        self._random = random.Random(seed)
        tz = ZoneInfo(zone)
        self.controller = SimulatedUhppote(clock=lambda: datetime.now(tz).replace(tzinfo=None))
        self._keys = {address: secrets.token_bytes(16) for address in (SOUTH_GATE, SERVER_DOOR)}
        self.readers = {address: SimulatedReader(address, key=key) for address, key in self._keys.items()}
        self._bus = SimulatedBus(*self.readers.values())
        self._address = ""
        self._line = ""

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[DemoDoors]:
        """Start the controller on UDP and the readers on a pseudo-terminal."""
        self._address = await self.controller.start()
        self._line = await self._bus.start()
        try:
            yield self
        finally:
            await self._bus.stop()
            await self.controller.stop()

    def devices(self) -> list[dict[str, Any]]:
        pds = [
            {"address": address, "key": key.hex(), "name": name}
            for (address, key), name in zip(self._keys.items(), ("south gate", "server room"), strict=True)
        ]
        wired = {"contacts": [SOUTH_GATE, SERVER_DOOR]}
        return [
            {"name": CONTROLLER, "kind": "uhppote", "address": self._address, "attendance": False, "options": wired},
            {"name": READERS, "kind": "osdp", "address": self._line, "attendance": False, "options": {"pds": pds}},
        ]

    def access(self, gate: dict[str, Any]) -> dict[str, Any]:
        """Doors, groups and points as the enterprise would write them; `gate` is what the south gate has besides."""
        return {
            "schedules": {"work": {"weekly": {"daily": ["00:00-24:00"]}}},
            "doors": [
                {
                    "name": "south-gate",
                    "device": CONTROLLER,
                    "relay": SOUTH_GATE,
                    "verify": [["card"], ["face"], ["finger"]],
                },
                {"name": "server-room", "device": CONTROLLER, "relay": SERVER_DOOR, "verify": [["card", "pin"]]},
            ],
            "groups": [
                {"name": "staff", "grants": [{"doors": ["south-gate"]}]},
                {"name": "it", "grants": [{"doors": ["server-room"], "schedule": "work"}]},
            ],
            "points": [
                {"name": "south-gate-in", "door": "south-gate", "reader": READERS, "reader_no": SOUTH_GATE, **gate},
                {"name": "server-room-in", "door": "server-room", "reader": READERS, "reader_no": SERVER_DOOR},
            ],
        }  # fmt: skip

    async def people_come(self) -> None:
        """Cards at the gate, card and PIN at the server room, now and then a stranger, a wrong PIN or a forced door.

        Each comes once in the beginning, so that whoever looks on for a minute has seen them.
        """
        often = [self._gate] * 12 + [self._server_room] * 4 + [self._no_right, self._wrong_pin, self._stranger]
        first = [self._gate, self._server_room, self._stranger, self._no_right, self._wrong_pin]
        first += [self._forced, self._held, self._tamper]
        while True:
            await asyncio.sleep(self._random.expovariate(1 / EVERY_S))
            await (first.pop(0) if first else self._random.choice([*often, self._forced]))()

    async def _gate(self) -> None:
        before = len(self.controller.opened)
        self._show(SOUTH_GATE, self._random.choice(PEOPLE).card_number)
        await self._walk_through(SOUTH_GATE, before)

    async def _server_room(self) -> None:
        person = self._random.choice(PEOPLE[:SERVER_ROOM])
        await self._card_and_pin(person, person.pin)

    async def _wrong_pin(self) -> None:
        await self._card_and_pin(PEOPLE[0], "0000")

    async def _no_right(self) -> None:
        self._show(SERVER_DOOR, PEOPLE[-1].card_number)

    async def _stranger(self) -> None:
        self._show(SOUTH_GATE, STRANGER)

    async def _forced(self) -> None:
        self.controller.forced(SOUTH_GATE)
        await asyncio.sleep(4)
        self.controller.door_contact(SOUTH_GATE, is_open=False)

    async def _held(self) -> None:
        self.controller.held(SOUTH_GATE)
        await asyncio.sleep(4)
        self.controller.door_contact(SOUTH_GATE, is_open=False)

    async def _tamper(self) -> None:
        self.readers[SOUTH_GATE].tamper(on=True)
        await asyncio.sleep(4)
        self.readers[SOUTH_GATE].tamper(on=False)

    async def _card_and_pin(self, person: DemoPerson, pin: str) -> None:
        before = len(self.controller.opened)
        self._show(SERVER_DOOR, person.card_number)
        await asyncio.sleep(0.6)
        self.readers[SERVER_DOOR].press(pin + "#")
        await self._walk_through(SERVER_DOOR, before)

    async def _walk_through(self, door: int, before: int) -> None:
        """Through the door if it was released within a moment."""
        for _ in range(20):
            await asyncio.sleep(0.1)
            if door in self.controller.opened[before:]:
                self.controller.door_contact(door, is_open=True)
                await asyncio.sleep(0.8)
                self.controller.door_contact(door, is_open=False)
                return

    def _show(self, address: int, card: int) -> None:
        self.readers[address].show_card(wiegand.encode("H10301", number=card, facility=FACILITY))
