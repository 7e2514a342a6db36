"""Who works at the simulated site: names, numbers, cards, PINs, groups."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass

from edge_agent.agent import Agent
from edge_agent.database import utc_now
from edge_agent.people.credentials import Rights, set_rights

NAMES = [
    ("陈雨桐", "装配一部"), ("王建国", "设备科"), ("李思远", "装配一部"), ("赵敏", "信息"), ("郑雅琪", "行政"),
    ("孙晓梅", "财务"), ("吴浩然", "质检"), ("刘洋", "仓储"), ("何静", "研发"), ("周文博", "装配二部"),
    ("马骏", "装配二部"), ("徐蕾", "质检"), ("高志强", "设备科"), ("林岚", "信息"), ("黄晓明", "研发"),
    ("胡婷", "财务"), ("朱军", "仓储"), ("郭丽", "行政"), ("罗强", "研发"), ("梁芳", "质检"),
]  # fmt: skip
FACILITY = 10
SERVER_ROOM = 4  # how many may enter it


@dataclass(frozen=True, slots=True)
class DemoPerson:
    number: int
    name: str
    department: str
    card_number: int  # as printed on it

    @property
    def subject(self) -> str:
        return f"p{self.number}"

    @property
    def card(self) -> str:
        """As a reader of 26-bit cards gives it: facility and number as one."""
        return str(FACILITY << 16 | self.card_number)

    @property
    def pin(self) -> str:
        return f"{self.number}"[-4:]


PEOPLE = [DemoPerson(1001 + n, name, part, 20001 + n) for n, (name, part) in enumerate(NAMES)]


async def enter(agent: Agent) -> None:
    """Put everybody on the roster, with a card, a PIN and the doors they may use."""
    hashes = await asyncio.to_thread(lambda: {p.pin: agent.roster.hash_pin(p.pin) for p in PEOPLE[:SERVER_ROOM]})

    def work(connection: sqlite3.Connection) -> None:
        now = utc_now()
        rows = [
            {
                "subject": person.subject,
                "name": person.name,
                "department": person.department,
                "user_id": str(person.number),
                "card": person.card,
            }
            for person in PEOPLE
        ]
        agent.roster.take(connection, rows, now=now)
        for n, person in enumerate(PEOPLE):
            groups = ("staff", "it") if n < SERVER_ROOM else ("staff",)
            set_rights(connection, person.subject, Rights(groups=groups))
            if person.pin in hashes:
                agent.roster.set_pin(connection, person.subject, hashes[person.pin], now=now)

    await agent.database.write(work)
