"""A gateway's governance part and a browser-like client, for the tests of the API."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import argon2
import httpx
from fastapi import FastAPI

from edge_agent.api import access_tokens, audit, configuration, events, own_account, people, session, tokens, upstreams
from edge_agent.api.access import CSRF_HEADER, AccessControl
from edge_agent.api.app import create_app
from edge_agent.api.context import Governance
from edge_agent.audit import AuditLog
from edge_agent.config import SiteConfig
from edge_agent.configuration import Configuration
from edge_agent.database import Database
from edge_agent.delivery.outbox import Outbox
from edge_agent.delivery.upstreams import Upstreams
from edge_agent.people.roster import Roster

BASE = "https://gw.example"
PASSWORD = "correct horse battery staple"


@dataclass
class Clock:
    at: datetime = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def pass_by(self, time: timedelta) -> None:
        self.at += time


@dataclass
class Site:
    governance: Governance
    app: FastAPI
    clock: Clock
    outbox: Outbox
    closers: list[Callable[[], None]] = field(default_factory=list)

    def client(self, **headers: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=BASE, headers=headers)

    async def administrator(self) -> httpx.AsyncClient:
        """A signed-in browser: the first account of a fresh gateway."""
        now = self.clock()
        token = await self.governance.database.write(lambda c: access_tokens.bootstrap(c, now=now))
        client = self.client()
        answer = await client.post("/api/v1/setup", json={"token": token, "name": "linlan", "password": PASSWORD})
        assert answer.status_code == 201, answer.text
        client.headers[CSRF_HEADER] = answer.json()["csrf"]
        return client


async def make_site(folder: Path, seed: SiteConfig | None = None) -> Site:
    clock = Clock()
    database = Database.open(folder / "agent.db")
    settings = Configuration(database, key=b"c" * 32)
    await settings.load(seed or SiteConfig(), now=clock())
    governance = Governance(
        database=database,
        configuration=settings,
        audit=AuditLog(b"a" * 32),
        now=clock,
        anchors=list,
        open_secret=lambda sealed: sealed.decode(),
        seal_secret=lambda secret: secret.encode(),
    )
    outbox = Outbox(database, clock=clock)
    roster = Roster(b"r" * 32, hasher=argon2.PasswordHasher(1, 8, 1))
    app = create_app(
        AccessControl(database, now=clock),
        [m.router for m in (session, own_account, tokens, configuration, audit, events, upstreams, people)],
        public=session.PUBLIC,
        state={
            "governance": governance,
            "outbox": outbox,
            "roster": roster,
            "upstreams": Upstreams(database, outbox, roster, gateway="gw", tenant="t", derive=lambda use: use.encode()),
        },
    )
    return Site(governance, app, clock, outbox, [database.close])
