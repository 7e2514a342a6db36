"""The whole application over a real agent that is not running: every route and page, no sockets, no devices."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from edge_agent.agent import Agent
from edge_agent.api import access_tokens, accounts
from edge_agent.api.access import COOKIE, CSRF_HEADER
from edge_agent.api.app import api_routes
from edge_agent.api.openapi import route_scope
from edge_agent.config import parse
from edge_agent.policy.roles import ROLES, Role, Scope
from edge_agent.server import ROUTERS, application
from tests.edge_agent.api.client import BASE

PERSON = {"subject": "p1001", "name": "司马青岚", "department": "装配一部", "user_id": "77310", "card": "0098765432"}


@dataclass
class Whole:
    agent: Agent
    app: FastAPI
    tokens: Mapping[Role, str]
    cookies: Mapping[str, str]

    def client(self, role: Role | None = None, **headers: str) -> httpx.AsyncClient:
        if role is not None:
            headers["Authorization"] = f"Bearer {self.tokens[role]}"
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url=BASE, headers=headers)

    async def browser(self, account: str) -> httpx.AsyncClient:
        """Somebody signed in, with the header that a page sends."""
        client = self.client()
        client.cookies.set(COOKIE, self.cookies[account])
        client.headers[CSRF_HEADER] = (await client.get("/api/v1/session/me")).json()["csrf"]
        return client

    def routes(self) -> list[tuple[str, str, Scope | None]]:
        """(method, path, scope) of the API; None is public."""
        return [
            (method, route.path, route_scope(route))
            for route in api_routes(module.router for module in ROUTERS)
            for method in sorted(route.methods or ())
        ]

    async def status(self, method: str, path: str, *, token: str = "", cookie: str = "") -> int:
        """What one call answers; it ends when the status is known, so that endless streams can be asked too."""
        headers = [(b"host", b"gw.example")]
        if token:
            headers.append((b"authorization", f"Bearer {token}".encode()))
        if cookie:
            headers.append((b"cookie", f"{COOKIE}={cookie}".encode()))
        scope: dict[str, Any] = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "https",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
            "client": ("192.0.2.7", 50000), "server": ("gw.example", 443),
        }  # fmt: skip
        begun: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        bodies = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> dict[str, Any]:
            for message in bodies:
                return message
            await asyncio.Event().wait()  # the caller stays on the line
            raise AssertionError

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start" and not begun.done():
                begun.set_result(message["status"])

        working = asyncio.ensure_future(self.app(scope, receive, send))
        try:
            await asyncio.wait({working, begun}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
            if not begun.done():
                await working
            return begun.result()
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


def filled(path: str) -> str:
    """A path with something in place of each parameter."""
    return re.sub(r"\{(\w+)\}", lambda m: "1" if m[1] == "number" else "nothing-here", path)


@contextlib.asynccontextmanager
async def whole_gateway(folder: Path) -> AsyncIterator[Whole]:
    document = {
        "gateway": {"name": "gw", "tenant": "t", "data_dir": str(folder), "ballast_mb": 1},
        "site": {
            "site": "HQ",
            "timezone": "Asia/Shanghai",
            "devices": [{"name": "panel", "kind": "uhppote", "address": "192.0.2.9", "attendance": False}],
            "access": {
                "doors": [{"name": "gate", "device": "panel", "relay": 1, "verify": [["card"]]}],
                "groups": [{"name": "staff", "grants": [{"doors": ["gate"]}]}],
            },
        },
    }
    agent = await Agent.open(parse(document, source="test"))
    try:
        now = agent.clock()

        def prepare(connection: Any) -> tuple[dict[Role, str], dict[str, str]]:
            agent.roster.take(connection, [PERSON], now=now)
            tokens: dict[Role, str] = {}
            cookies: dict[str, str] = {}
            for name, role in [("second-admin", Role.ADMIN), *((role.value, role) for role in Role)]:
                tokens[role] = access_tokens.issue(
                    connection, f"of-{name}", scopes=ROLES[role], lifetime=timedelta(days=1), now=now,
                    created_by=access_tokens.MACHINE,
                )  # fmt: skip
                account = accounts.add(connection, f"the-{name}", role=role, password_hash=None, now=now)
                cookies[name] = accounts.open_session(connection, account, address="", agent="", now=now).id
            return tokens, cookies

        tokens, cookies = await agent.database.write(prepare)
        yield Whole(agent, application(agent.gateway()), tokens, cookies)
    finally:
        await agent.close()
