"""The console's pages and the scope each asks for. They read what the API reads, and change things through it alone."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Match, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope as Asked

from edge_agent.api import accounts
from edge_agent.api.context import Gateway
from edge_agent.console import day, views
from edge_agent.console.approval_pages import ApprovalPages
from edge_agent.console.delivery_pages import DeliveryPages
from edge_agent.console.device_pages import DevicePages
from edge_agent.console.door_pages import DoorPages, door_cards
from edge_agent.console.event_pages import EventPages
from edge_agent.console.incident_pages import IncidentPages
from edge_agent.console.live import Live
from edge_agent.console.page import Pages, Visit
from edge_agent.console.people_pages import PeoplePages
from edge_agent.console.privacy_pages import PrivacyPages
from edge_agent.console.rows import BLANK
from edge_agent.console.settings_pages import SettingsPages
from edge_agent.console.system_pages import SystemPages
from edge_agent.database import Database, StorageError
from edge_agent.policy.roles import Scope
from templates_store.errors import StoreError

STATIC = Path(__file__).with_name("static")
log = logging.getLogger(__name__)

Page = Callable[[Visit], Awaitable[Response]]
MACHINES = ("/api/", "/static/")  # what lies there is answered in JSON, or as files


class Elsewhere(Route):
    """Any other address a person may type: a page says that nothing is there."""

    def matches(self, scope: Asked) -> tuple[Match, Asked]:
        match, child = super().matches(scope)
        return (match, child) if match is Match.FULL and not scope["path"].startswith(MACHINES) else (Match.NONE, {})


class ConsoleRoutes:
    """Mounts the pages; has those that stand before or above all the others."""

    def __init__(self, gateway: Gateway, pages: Pages) -> None:
        self._gateway = gateway
        self._pages = pages
        self.seen = views.Seen()

    def mount(self, app: FastAPI) -> None:
        gateway = self._gateway
        doors, devices, people = DoorPages(gateway), DevicePages(gateway), PeoplePages(gateway)
        events, delivery, privacy = EventPages(gateway), DeliveryPages(gateway), PrivacyPages(gateway)
        settings, system = SettingsPages(gateway), SystemPages(gateway)
        approvals, incidents = ApprovalPages(gateway), IncidentPages(gateway)
        pages: dict[str, tuple[Scope, Page]] = {
            "/": (Scope.STATUS_READ, self.overview),
            "/doors": (Scope.DOORS_READ, doors.doors),
            "/doors/{name}": (Scope.DOORS_READ, doors.door),
            "/access": (Scope.CONFIG_READ, doors.access),
            "/devices": (Scope.DEVICES_READ, devices.devices),
            "/devices/{name}": (Scope.DEVICES_READ, devices.device),
            "/people": (Scope.PEOPLE_READ, people.people),
            "/people/{subject}": (Scope.PEOPLE_READ, people.person),
            "/people/{subject}/enrol": (Scope.ENROL, people.enrol),
            "/enrol": (Scope.ENROL, people.choose),
            "/events": (Scope.EVENTS_READ, events.events),
            "/events/{sequence}": (Scope.EVENTS_READ, events.event),
            "/audit": (Scope.AUDIT_READ, events.audit),
            "/upstreams": (Scope.UPSTREAMS_READ, delivery.upstreams),
            "/quarantine": (Scope.UPSTREAMS_READ, delivery.quarantine),
            "/privacy": (Scope.PRIVACY_READ, privacy.privacy),
            "/privacy/receipts": (Scope.PRIVACY_READ, privacy.receipts),
            "/privacy/receipts/{receipt}": (Scope.PRIVACY_READ, privacy.receipt),
            "/approvals": (Scope.STATUS_READ, approvals.approvals),
            "/incidents": (Scope.PRIVACY_READ, incidents.incidents),
            "/settings": (Scope.CONFIG_READ, settings.settings),
            "/settings/accounts": (Scope.ACCOUNTS_WRITE, settings.accounts),
            "/settings/configuration": (Scope.CONFIG_READ, settings.configuration),
            "/settings/configuration/{number}": (Scope.CONFIG_READ, settings.version),
            "/account": (Scope.STATUS_READ, settings.account),
            "/health": (Scope.STATUS_READ, system.health),
            "/sealed": (Scope.STATUS_READ, system.sealed),
            "/more": (Scope.STATUS_READ, system.more),
        }
        routes = app.router.routes
        routes += [Route(path, self._guarded(scope, page), methods=["GET"]) for path, (scope, page) in pages.items()]
        routes += [Route("/login", self.login, methods=["GET"]), Route("/setup", self.setup, methods=["GET"])]
        live = Live(gateway, self.look)

        async def stream(request: Request) -> Response:
            visit = await self._pages.visit(request, Scope.STATUS_READ)
            return await live.live(visit) if isinstance(visit, Visit) else Response(status_code=403)

        routes.append(Route("/live", stream, methods=["GET"]))
        app.mount("/static", StaticFiles(directory=STATIC))
        routes.append(Elsewhere("/{rest:path}", self._guarded(Scope.STATUS_READ, self.elsewhere), methods=["GET"]))

    def _guarded(self, scope: Scope, page: Page) -> Callable[[Request], Awaitable[Response]]:
        """A page behind its scope; what cannot be read is said in a page, not in JSON."""

        async def answer(request: Request) -> Response:
            try:
                visit = await self._pages.visit(request, scope)
                return await page(visit) if isinstance(visit, Visit) else visit
            except (StorageError, StoreError):
                request_id = getattr(request.state, "request_id", "")
                log.exception("page_failed request=%s path=%s", request_id, request.url.path)
                return self._pages.broken(request, request_id)

        return answer

    @property
    def _database(self) -> Database:
        return self._gateway.governance.database

    async def look(self) -> str:
        """Read what the lamps and the numbers beside the navigation need; the digest of all that pages show."""
        self.seen = seen = await views.look(self._gateway)
        return views.digest(self._gateway, seen)

    async def login(self, request: Request) -> Response:
        if not await self._database.read(accounts.listing):
            return RedirectResponse("/setup", status_code=303)
        t = self._pages.text(request)
        fleet = self._gateway.fleet
        lines = [
            {"tone": "", "text": t("打卡照常接收", "Punches are being received")},
            {
                "tone": "" if fleet.online() == len(fleet.health) else "warn",
                "text": t(
                    f"{fleet.online()}/{len(fleet.health)} 台设备在线",
                    f"{fleet.online()} of {len(fleet.health)} devices online",
                ),
            },
        ]
        if self._database.ballast.short:
            lines[0] = {"tone": "bad", "text": t("磁盘空间不足", "The disk is short of room")}
        return self._pages.render(request, "login.html", None, health=lines)

    async def setup(self, request: Request) -> Response:
        if await self._database.read(accounts.listing):
            return RedirectResponse("/login", status_code=303)
        return self._pages.render(request, "setup.html", None)

    async def elsewhere(self, visit: Visit) -> Response:
        return visit.missing(visit.t("这里没有页面", "There is no such page"))

    async def overview(self, visit: Visit) -> HTMLResponse:
        t, gateway = visit.t, self._gateway
        books = views.total(await gateway.outbox.stats())
        figures = await day.today(gateway, t)
        needs = views.attention(gateway, self.seen, t, caller=visit.caller)
        devices = views.device_rows(gateway, t)
        people = await self._database.read(gateway.roster.count)
        may_see = visit.may(Scope.EVENTS_READ)
        newest = await gateway.outbox.events(limit=10, newest_first=True) if may_see else []
        local = gateway.governance.now().astimezone(views.zone_of(gateway))
        doors = await door_cards(gateway, t) if visit.may(Scope.DOORS_READ) else []
        return visit.render(
            "overview.html",
            cur="overview",
            headline=views.headline(len(needs), t),
            today=views.date_line(local, t),
            people=people,
            attention=needs,
            rows=await views.shown_rows(gateway, newest, t),
            blank=BLANK,
            live_after=newest[0].sequence if newest else 0,
            can_watch=may_see,
            doors=doors[:8],
            more_doors=max(0, len(doors) - 8),
            ledger=books,
            devices=devices[:4],
            more_devices=max(0, len(devices) - 4),
            devices_line=views.devices_headline(devices, 0, t),
            templates=views.templates(gateway, t),
            sealed=gateway.biometrics.sealed,
            **figures,
        )
