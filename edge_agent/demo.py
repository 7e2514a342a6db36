"""`edge-agent demo`: a simulated site on real sockets, the real agent, and a small upstream that keeps what it got.

Nothing here is special to the agent: it reads a configuration, speaks the devices' protocols over TCP, and
delivers over HTTP, as it does at a customer's. Only the devices and the receiver are of our own making.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from starlette.types import ASGIApp, Receive, Scope, Send

from device_drivers.adms.listener import listen
from device_drivers.simulated.zkteco import SimulatedZkTerminal
from device_drivers.simulated.zkteco_memory import Memory
from edge_agent.agent import Agent
from edge_agent.api.server import bootstrap_token
from edge_agent.config import AgentConfig, parse
from edge_agent.database import utc_now
from edge_agent.delivery.collector import Collector
from edge_agent.supervise import LinkState

SECRET = "demo-secret-of-the-collector"  # noqa: S105 - of the demonstration, printed nowhere
ZONE = "Asia/Shanghai"
PEOPLE = [
    ("陈雨桐", "装配一部"), ("王建国", "设备科"), ("李思远", "装配一部"), ("赵敏", "信息"), ("郑雅琪", "行政"),
    ("孙晓梅", "财务"), ("吴浩然", "质检"), ("刘洋", "仓储"), ("何静", "研发"), ("周文博", "装配二部"),
    ("马骏", "装配二部"), ("徐蕾", "质检"), ("高志强", "设备科"), ("林岚", "信息"), ("黄晓明", "研发"),
    ("胡婷", "财务"), ("朱军", "仓储"), ("郭丽", "行政"), ("罗强", "研发"), ("梁芳", "质检"),
]  # fmt: skip
VERIFY = [1, 1, 1, 4, 4, 15, 15, 0]  # finger, card, face, password: ZK's numbers
HEADINGS = ("设备 Device", "状态 State", "地址 Address", "型号 Model", "事件 Events", "时钟差 Clock", "说明 Note")
PUNCHES_PER_S = 6.0
FAULT_EVERY_S = 12.0


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
    terminals: dict[str, SimulatedZkTerminal] = field(default_factory=dict)
    collector: Collector = field(init=False)
    moody: Moody = field(init=False)
    collector_port: int = 0
    swiped: int = 0
    news: deque[str] = field(default_factory=lambda: deque(maxlen=6))
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
                for number, (person, _) in enumerate(PEOPLE, 1001):
                    terminal.add_user(str(number), name=person)
                await stack.enter_async_context(terminal)
                self.terminals[f"{name}-{transport}"] = terminal
            stack.callback(self.collector.close)
            server = await stack.enter_async_context(listen(self.moody, host="127.0.0.1", port=0))
            self.collector_port = server.sockets[0].getsockname()[1]
            yield self

    def configuration(self, *, api_port: int) -> dict[str, Any]:
        """The same document that a customer would write."""
        return {
            "gateway": {"name": "demo-gateway", "tenant": "demo", "data_dir": str(self.folder), "ballast_mb": 4},
            "api": {"listen": f"127.0.0.1:{api_port}"},
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
                ],
                "upstreams": [
                    {
                        "name": "collector",
                        "url": f"http://127.0.0.1:{self.collector_port}/events",
                        "secret": SECRET,
                    }
                ],
            },
        }

    async def people_punch(self) -> None:
        """A lively shift change; one punch in forty is of somebody nobody entered."""
        while True:
            await asyncio.sleep(self.random.expovariate(PUNCHES_PER_S))
            terminal = self.random.choice(list(self.terminals.values()))
            number = 1001 + self.random.randrange(len(PEOPLE)) if self.random.random() > 0.025 else 9000
            if terminal.swipe(str(number), verify=self.random.choice(VERIFY), state=self.random.choice((0, 0, 1))):
                self.swiped += 1

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


@dataclass
class Figures:
    """What the table and the plain line show."""

    agent: Agent
    site: DemoSite
    token: str | None = None
    began: float = field(default_factory=time.monotonic)
    samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=10))
    delivered: int = 0
    pending: int = 0
    quarantined: int = 0
    collected: int = 0
    repeats: int = 0

    async def measure(self) -> None:
        books = {ledger.sink: ledger for ledger in await self.agent.outbox.stats()}
        if "collector" in books:
            ledger = books["collector"]
            self.delivered, self.pending, self.quarantined = ledger.delivered, ledger.pending, ledger.quarantined
        tally = await self.site.collector.tally()
        self.collected, self.repeats = tally.events, tally.repeats
        self.samples.append((time.monotonic(), self.agent.attendance.stored))

    @property
    def punches_per_s(self) -> float:
        if len(self.samples) < 2:
            return 0.0
        (then, before), (now, after) = self.samples[0], self.samples[-1]
        return (after - before) / max(now - then, 1e-6)

    def welcome(self) -> str:
        """Where to look, and how to get in."""
        token = self.token or "用已有账号登录 sign in with your account"
        return (
            f"控制台 console: {self.agent.address}\n一次性口令 one-time token: {token}\n"
            f"证书指纹 certificate SHA-256: {self.agent.certificate.fingerprint if self.agent.certificate else ''}"
        )

    def line(self) -> str:
        """One plain status line, for a file or a pipe."""
        fleet = self.agent.fleet
        return (
            f"{utc_now().isoformat(timespec='seconds')} devices={fleet.online()}/{len(fleet.health)}"
            f" punches_per_s={self.punches_per_s:.1f} punched={self.site.swiped}"
            f" stored={self.agent.attendance.stored} outbox={self.pending} delivered={self.delivered}"
            f" quarantined={self.quarantined} collected={self.collected}"
        )

    def table(self) -> Group:
        devices = Table(expand=True, box=None, header_style="dim")
        for heading in (
            "设备 Device",
            "状态 State",
            "地址 Address",
            "型号 Model",
            "事件 Events",
            "时钟差 Clock",
            "说明 Note",
        ):
            devices.add_column(heading)
        for name, health in self.agent.fleet.health.items():
            online = health.state is LinkState.ONLINE
            offset = health.clock_offset.total_seconds() if health.clock_offset is not None else None
            devices.add_row(
                name,
                Text("● 在线 online" if online else f"○ {health.state}", style="green" if online else "red"),
                health.address,
                health.model,
                f"{health.events:,}",
                "" if offset is None else Text(f"{offset:+.1f} s", style="yellow" if abs(offset) > 5 else ""),
                Text(health.error[:60], style="dim"),
            )
        totals = Table(expand=True, box=None, show_header=False)
        for _ in range(6):
            totals.add_column(justify="center")
        totals.add_row(
            f"[b]{self.punches_per_s:.1f}[/]\n打卡/秒 punches/s",
            f"[b]{self.agent.attendance.stored:,}[/]\n已落盘 on disk",
            f"[b]{self.pending:,}[/]\n待发 outbox",
            f"[b]{self.delivered:,}[/]\n已送达 delivered",
            f"[b]{self.quarantined:,}[/]\n隔离 quarantined",
            f"[b]{self.collected:,}[/]\n上游收到 upstream holds",
        )
        news = Text("\n".join(self.site.news) or "…", style="dim")
        where = Text(self.welcome(), overflow="fold")
        return Group(
            Panel(where, title="edge-agent demo", border_style="dim"),
            Panel(devices, title="设备 devices", border_style="dim"),
            Panel(totals, title="打卡从终端到上游 punches from terminal to upstream", border_style="dim"),
            Panel(news, title="故障 faults now and then", border_style="dim"),
            Text("Ctrl-C 结束 ends it", style="dim"),
        )


Serve = Callable[[Agent], Awaitable[None]]


async def run(folder: Path, *, api_port: int, seconds: float | None, plain: bool) -> int:
    """Run the demonstration until Ctrl-C, or for `seconds`. Exit status 1 if anything was lost or came twice."""
    folder.mkdir(parents=True, exist_ok=True)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with DemoSite(folder).open() as site:
        document = site.configuration(api_port=api_port)
        config: AgentConfig = parse(document, source="demo")
        agent = await Agent.open(config)
        await _put_configuration(agent, config)
        await _enter_people(agent)
        working = asyncio.create_task(agent.run())
        acting = [asyncio.create_task(site.people_punch()), asyncio.create_task(site.things_break())]
        figures = Figures(agent, site)
        try:
            async with contextlib.AsyncExitStack() as stack:
                await _ready(agent, working)
                figures.token = await bootstrap_token(agent.database, now=utc_now())
                if plain:
                    print(figures.welcome(), flush=True)  # noqa: T201 - this is the output asked for
                show = await _screen(stack, figures, plain=plain)
                await _until(stop, working, figures, show, seconds)
        finally:
            for task in acting:
                task.cancel()
            await asyncio.gather(*acting, return_exceptions=True)
            lost = await _settle(figures, working) if not working.done() else None
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
            await agent.close()
    return _verdict(figures, lost)


async def _ready(agent: Agent, working: asyncio.Task[None]) -> None:
    """Wait until the console answers, or the agent's fault comes out."""
    waiting = asyncio.create_task(agent.ready.wait())
    await asyncio.wait({waiting, working}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if working.done():
        await working


async def _put_configuration(agent: Agent, config: AgentConfig) -> None:
    """Ports differ from run to run: the newest document wins over the one a former run left."""
    if agent.site != config.site:
        await agent.configuration.apply(config.site, actor="demo", reason="new ports", now=utc_now())


async def _enter_people(agent: Agent) -> None:
    rows = [
        {"subject": f"p{number}", "name": name, "department": part, "user_id": str(number)}
        for number, (name, part) in enumerate(PEOPLE, 1001)
    ]
    await agent.database.write(lambda c: agent.roster.take(c, rows, now=utc_now()))


async def _screen(stack: contextlib.AsyncExitStack, figures: Figures, *, plain: bool) -> Callable[[], None]:
    if plain:
        return lambda: print(figures.line(), flush=True)  # noqa: T201 - this is the output asked for
    live = stack.enter_context(Live(figures.table(), console=Console(), refresh_per_second=4, screen=False))
    return lambda: live.update(figures.table())


async def _until(
    stop: asyncio.Event,
    working: asyncio.Task[None],
    figures: Figures,
    show: Callable[[], None],
    seconds: float | None,
) -> None:
    while not stop.is_set() and not working.done():
        await figures.measure()
        show()
        if seconds is not None and time.monotonic() - figures.began >= seconds:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await stop.wait()
    if working.done():
        await working  # its fault is the news


async def _settle(figures: Figures, working: asyncio.Task[None]) -> int:
    """Give what is under way time to arrive. How many punches are then still missing upstream."""
    site = figures.site
    site.moody.down_until = 0.0
    for name in figures.agent.fleet.health:
        figures.agent.fleet.nudge(name)
    figures.agent.upstreams.nudge()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30):
            while not working.done():
                await figures.measure()
                if figures.agent.attendance.stored >= site.swiped and figures.pending == 0:
                    break
                await asyncio.sleep(0.2)
    await figures.measure()
    return max(0, site.swiped - figures.agent.attendance.stored) + figures.pending


def _verdict(figures: Figures, lost: int | None) -> int:
    summary = {
        "punched": figures.site.swiped,
        "stored": figures.agent.attendance.stored,
        "delivered": figures.delivered,
        "quarantined": figures.quarantined,
        "still_on_the_way": lost,
    }
    sys.stdout.write(json.dumps(summary) + "\n")
    return 0 if lost == 0 else 1
