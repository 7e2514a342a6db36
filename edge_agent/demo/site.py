"""What stands outside the gateway: terminals of four protocols, doors, and an upstream with moods."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from device_drivers.listener import listen
from device_drivers.simulated.adms import SimulatedAdms
from device_drivers.simulated.isapi import SimulatedIsapi
from device_drivers.simulated.zkteco import SimulatedZkTerminal
from device_drivers.simulated.zkteco_memory import Memory
from edge_agent.delivery.collector import Collector
from edge_agent.demo.biometrics import DemoBiometrics
from edge_agent.demo.doors import DemoDoors
from edge_agent.demo.people import PEOPLE

SECRET = "demo-secret-of-the-collector"  # noqa: S105 - of the demonstration, printed nowhere
ZONE = "Asia/Shanghai"
VERIFY = [1, 1, 1, 4, 4, 15, 15, 0]  # finger, card, face, password: ZK's numbers
ISAPI_MINOR = [75, 38, 1]  # face, finger, card: Hikvision's
PUNCHES_PER_S = 6.0
FAULT_EVERY_S = 12.0
ADMS_SERIAL, STRANGER_SERIAL = "CQZ7224460173", "CQZ7224460999"


class Moody:
    """The upstream in front of the collector: now and then it answers 503 for a while."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.down_until = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and time.monotonic() < self.down_until:
            await send({"type": "http.response.start", "status": 503, "headers": [(b"retry-after", b"1")]})
            await send({"type": "http.response.body", "body": b"maintenance"})
            return
        await self._app(scope, receive, send)


@dataclass
class DemoSite:
    """What stands outside the gateway."""

    folder: Path
    faces: Path | None = None  # Name/photo.jpg
    webcam: str = ""  # a USB camera in place of the folder
    terminals: dict[str, SimulatedZkTerminal] = field(default_factory=dict)
    adms: list[SimulatedAdms] = field(default_factory=list)  # the first is approved, the second asks to join
    isapi: SimulatedIsapi = field(default_factory=SimulatedIsapi)
    doors: DemoDoors = field(init=False)
    biometrics: DemoBiometrics = field(init=False)
    collector: Collector = field(init=False)
    moody: Moody = field(init=False)
    collector_port: int = 0
    swiped: int = 0
    news: deque[str] = field(default_factory=lambda: deque(maxlen=6))
    _recent: deque[str] = field(default_factory=lambda: deque(maxlen=len(PEOPLE) - 2))
    random: random.Random = field(default_factory=lambda: random.Random(7))

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[DemoSite]:
        """Start the devices and the receiver on free ports of this machine."""
        self.collector = Collector(self.folder / "collected.db", secret=SECRET.encode())
        self.moody = Moody(self.collector.app)
        async with contextlib.AsyncExitStack() as stack:
            for name, serial, record_size, transport in (
                ("lobby", "CJDE193560303", 40, "tcp"),
                ("workshop", "OIN7020057", 16, "tcp"),
                ("canteen", "AEYU184160001", 8, "udp"),
            ):
                terminal = SimulatedZkTerminal(
                    serial=serial, comm_key=4711, timezone=ZONE, memory=Memory(record_size=record_size)
                )
                for person in PEOPLE:
                    terminal.add_user(str(person.number), name=person.name)
                await stack.enter_async_context(terminal)
                self.terminals[f"{name}-{transport}"] = terminal
            self.doors = DemoDoors(ZONE, seed=11)
            await stack.enter_async_context(self.doors.open())
            self.biometrics = DemoBiometrics(self.folder, self.faces, self.webcam, self.news, seed=13)
            await stack.enter_async_context(self.biometrics.open())
            await stack.enter_async_context(self.isapi.running())
            stack.callback(self.collector.close)
            server = await stack.enter_async_context(listen(self.moody, host="127.0.0.1", port=0))
            self.collector_port = server.sockets[0].getsockname()[1]
            yield self

    def configuration(self, *, api_port: int) -> dict[str, Any]:
        """The same document that a customer would write."""
        return {
            "gateway": {"name": "demo-gateway", "tenant": "demo", "data_dir": str(self.folder), "ballast_mb": 4},
            "api": {"listen": f"127.0.0.1:{api_port}"},
            "adms": {"listen": "127.0.0.1:0"},
            "site": {
                "site": "示范园区 Demo site",
                "timezone": ZONE,
                "devices": [
                    {
                        "name": name.rpartition("-")[0],
                        "kind": "zkteco",
                        "address": terminal.address,
                        "password": "4711",
                        "location": {"latitude": 31.2304, "longitude": 121.4737},
                        "options": {"transport": name.rpartition("-")[2]},
                    }
                    for name, terminal in self.terminals.items()
                ]
                + [
                    {"name": "warehouse", "kind": "adms", "serial": ADMS_SERIAL},
                    {
                        "name": "turnstile",
                        "kind": "isapi",
                        "address": self.isapi.address,
                        "username": self.isapi.username,
                        "password": self.isapi.password,
                    },
                ]
                + self.doors.devices()
                + self.biometrics.devices(),
                "access": self.doors.access(self.biometrics.point()),
                **self.biometrics.terms(),
                "upstreams": [
                    {
                        "name": "collector",
                        "url": f"http://127.0.0.1:{self.collector_port}/events",
                        "secret": SECRET,
                    }
                ],
            },
        }

    def call_in(self, adms_port: int) -> list[asyncio.Task[None]]:
        """Let the push terminals call, now that the agent listens."""
        url = f"http://127.0.0.1:{adms_port}"
        self.adms = [SimulatedAdms(url, ADMS_SERIAL), SimulatedAdms(url, STRANGER_SERIAL, poll_s=10.0)]
        return [asyncio.create_task(terminal.run()) for terminal in self.adms]

    async def people_punch(self) -> None:
        """A lively shift change; one punch in forty is of somebody nobody entered."""
        while True:
            await asyncio.sleep(self.random.expovariate(PUNCHES_PER_S))
            number = self._next_person()
            place, state = self.random.randrange(len(self.terminals) + 2), self.random.choice((0, 0, 1))
            if place < len(self.terminals):
                terminal = list(self.terminals.values())[place]
                self.swiped += terminal.swipe(number, verify=self.random.choice(VERIFY), state=state)
            elif place == len(self.terminals) and self.adms:
                self.adms[0].swipe(number, verify=15, state=state)
                self.swiped += 1
            else:
                self.isapi.swipe(number, minor=self.random.choice(ISAPI_MINOR))
                self.swiped += 1

    def _next_person(self) -> str:
        """Nobody punches twice within a second or two: people do not, and ADMS could not tell it from a resend."""
        known = [str(person.number) for person in PEOPLE if str(person.number) not in self._recent]
        number = self.random.choice(known) if self.random.random() > 0.025 else str(9000 + self.random.randrange(50))
        self._recent.append(number)
        return number

    async def things_break(self) -> None:
        """One fault at a time, with a word about it."""
        while True:
            await asyncio.sleep(FAULT_EVERY_S)
            name = self.random.choice(list(self.terminals))
            terminal, short = self.terminals[name], name.rpartition("-")[0]
            fault = self.random.choice((self._unplug, self._corrupt, self._reboot, self._drift, self._upstream_down))
            await fault(short, terminal)

    async def _unplug(self, name: str, terminal: SimulatedZkTerminal) -> None:
        self.news.append(f"{name}: 网线被拔掉 cable pulled")
        terminal.go_offline()
        try:
            await asyncio.sleep(5)
        finally:
            await terminal.come_back()
        self.news.append(f"{name}: 网线插回 cable back")

    async def _corrupt(self, name: str, terminal: SimulatedZkTerminal) -> None:
        self.news.append(f"{name}: 线路噪声 noise on the line")
        terminal.corrupt_next(2)

    async def _reboot(self, name: str, terminal: SimulatedZkTerminal) -> None:
        self.news.append(f"{name}: 终端重启 terminal reboots")
        await terminal.reboot()

    async def _drift(self, name: str, terminal: SimulatedZkTerminal) -> None:
        self.news.append(f"{name}: 时钟走快 14 秒 clock runs 14 s fast")
        terminal.drift_clock(timedelta(seconds=14))

    async def _upstream_down(self, _name: str, _terminal: SimulatedZkTerminal) -> None:
        self.news.append("upstream: 503 六秒 for 6 s")
        self.moody.down_until = time.monotonic() + 6
