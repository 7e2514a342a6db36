"""The gateway's own HTTPS service: API and console on one port."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime

from fastapi import FastAPI

from device_drivers.listener import listen
from edge_agent.api import (
    access_tokens,
    approvals,
    audit,
    certificate,
    configuration,
    device_log,
    devices,
    doors,
    enrolments,
    events,
    health,
    incidents,
    keys,
    oidc,
    own_account,
    people,
    privacy,
    rights,
    session,
    sync,
    tokens,
    upstreams,
)
from edge_agent.api.access import AccessControl, Caller
from edge_agent.api.app import create_app
from edge_agent.api.certificate import ServerCertificate
from edge_agent.api.context import Gateway
from edge_agent.api.oidc import SignOns
from edge_agent.config import Api, listen_address
from edge_agent.console import views
from edge_agent.console.page import Counts, Pages
from edge_agent.console.routes import ConsoleRoutes
from edge_agent.database import Database

# Those asked most come first: FastAPI tries router after router.
ROUTERS = (
    health, events, doors, devices, people, upstreams, session, sync, device_log, rights, privacy, enrolments, audit,
    configuration, tokens, own_account, oidc, approvals, incidents, keys,
)  # fmt: skip
MAX_CONNECTIONS = 400


def application(gateway: Gateway) -> FastAPI:
    """API and console over one gateway."""
    access = AccessControl(gateway.governance.database, now=gateway.governance.now)
    app = create_app(
        access,
        [module.router for module in ROUTERS],
        public=(*session.PUBLIC, *oidc.PUBLIC, *health.PUBLIC),
        state={
            "governance": gateway.governance,
            "gateway": gateway,
            "outbox": gateway.outbox,
            "roster": gateway.roster,
            "upstreams": gateway.upstreams,
            "sign_ons": SignOns(now=gateway.governance.now),
            "name": gateway.name,
        },
    )

    def counts(caller: Caller) -> Counts:
        return views.counts(gateway, console.seen, caller)

    async def look() -> str:
        return await console.look()

    pages = Pages(
        gateway.governance,
        access,
        host=gateway.name,
        lamps=lambda t: views.lamps(gateway, console.seen, t),
        counts=counts,
        look=look,
    )
    console = ConsoleRoutes(gateway, pages)
    console.mount(app)
    return app


def own_certificate(gateway: Gateway, settings: Api, *, now: datetime) -> ServerCertificate:
    """The company's certificate if one is configured, else our own."""
    if settings.certificate is not None and settings.private_key is not None:
        return certificate.describe(settings.certificate, settings.private_key)
    return certificate.ensure(gateway.data_dir / "tls", name=gateway.name, hostnames=settings.hostnames, now=now)


@contextlib.asynccontextmanager
async def serve(gateway: Gateway, settings: Api) -> AsyncIterator[tuple[str, ServerCertificate]]:
    """Reachable inside the block. Yields the address and the certificate to compare with."""
    server_certificate = own_certificate(gateway, settings, now=gateway.governance.now())
    host, port = listen_address(settings.listen)
    async with listen(
        application(gateway),
        host=host,
        port=port,
        tls=certificate.tls_context(server_certificate),
        max_connections=MAX_CONNECTIONS,
    ) as server:
        bound = server.sockets[0].getsockname()[1]
        shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - only what is printed
        yield f"https://{shown}:{bound}/", server_certificate


async def bootstrap_token(database: Database, *, now: datetime) -> str | None:
    """A fresh one-time token while nobody has an account yet."""
    return await database.write(lambda c: access_tokens.bootstrap(c, now=now))
