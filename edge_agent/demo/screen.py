"""What the demonstration shows: a live table, or plain lines; with each entry, refusal and alarm as it happens."""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from dataclasses import dataclass, field

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edge_agent.agent import Agent
from edge_agent.console.views import shown_rows
from edge_agent.database import utc_now
from edge_agent.demo.site import DemoSite
from edge_agent.devices.supervise import LinkState

SHOWN = ("access.", "door.duress", "door.forced", "door.held", "door.tamper", "device.link")
HEADINGS = ("设备 Device", "状态 State", "地址 Address", "型号 Model", "事件 Events", "时钟差 Clock", "说明 Note")


@dataclass
class Figures:
    """What the table and the plain line show."""

    agent: Agent
    site: DemoSite
    before: int = 0  # punches that an earlier demonstration left in this folder
    token: str | None = None
    began: float = field(default_factory=time.monotonic)
    samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=10))
    delivered: int = 0
    pending: int = 0
    quarantined: int = 0
    collected: int = 0
    punches: int = 0
    repeats: int = 0
    seen: int = 0  # sequence of the last event looked at; what an earlier demonstration left is not shown
    doors: deque[str] = field(default_factory=lambda: deque(maxlen=8))

    async def measure(self) -> None:
        books = {ledger.sink: ledger for ledger in await self.agent.outbox.stats()}
        if "collector" in books:
            ledger = books["collector"]
            self.delivered, self.pending, self.quarantined = ledger.delivered, ledger.pending, ledger.quarantined
        tally = await self.site.collector.tally()
        self.collected, self.repeats = tally.events, tally.repeats
        self.punches = await self.agent.database.read(count_punches) - self.before
        self.samples.append((time.monotonic(), self.punches))

    async def happened(self) -> list[str]:
        """What came at the doors since the last look, a line each."""
        gateway = self.agent.gateway()
        found = await self.agent.outbox.events(after=self.seen, limit=500)
        if found:
            self.seen = found[-1].sequence
        chosen = [stored for stored in found if stored.event.type.startswith(SHOWN)]
        rows = await shown_rows(gateway, chosen, lambda zh, en: f"{zh} {en}")
        lines = [" | ".join((row["time"], row["what"], row["how"], row["who"], row["result"])) for row in rows]
        self.doors.extend(lines)
        return lines

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
            f" stored={self.punches} outbox={self.pending} delivered={self.delivered}"
            f" quarantined={self.quarantined} collected={self.collected}"
        )

    def table(self) -> Group:
        devices = Table(expand=True, box=None, header_style="dim")
        for heading in HEADINGS:
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
            f"[b]{self.punches:,}[/]\n已落盘 on disk",
            f"[b]{self.pending:,}[/]\n待发 outbox",
            f"[b]{self.delivered:,}[/]\n已送达 delivered",
            f"[b]{self.quarantined:,}[/]\n隔离 quarantined",
            f"[b]{self.collected:,}[/]\n上游收到 upstream holds",
        )
        news = Text("\n".join(self.site.news) or "…", style="dim")
        doors = Text("\n".join(self.doors) or "…")
        where = Text(self.welcome(), overflow="fold")
        return Group(
            Panel(where, title="edge-agent demo", border_style="dim"),
            Panel(devices, title="设备 devices", border_style="dim"),
            Panel(totals, title="打卡从终端到上游 punches from terminal to upstream", border_style="dim"),
            Panel(doors, title="门 doors: 通行、拒绝、告警 entries, refusals, alarms", border_style="dim"),
            Panel(news, title="故障 faults now and then", border_style="dim"),
            Text("Ctrl-C 结束 ends it", style="dim"),
        )


def count_punches(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM events WHERE type = 'attendance.punch'").fetchone()[0])
