"""The console's pages. They read what the API reads, and change things through the API alone."""

from __future__ import annotations

import asyncio
import json
import platform
import shutil
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from device_drivers.catalog import DRIVERS
from edge_agent import __version__
from edge_agent.api import access_tokens, accounts
from edge_agent.api.context import Gateway
from edge_agent.api.devices import pending_views
from edge_agent.api.roles import Role, Scope
from edge_agent.audit import Entry
from edge_agent.config import SiteConfig
from edge_agent.configuration import public
from edge_agent.console import views
from edge_agent.console.door_pages import DoorPages, door_cards
from edge_agent.console.page import Pages, Text
from edge_agent.console.people_pages import PeoplePages
from edge_agent.console.rows import BLANK
from edge_agent.database import Database

STATIC = Path(__file__).with_name("static")
KEEP_ALIVE_S = 10.0
LIVE_PAGE = 50


class ConsoleRoutes:
    """One method a page."""

    def __init__(self, gateway: Gateway, pages: Pages) -> None:
        self._gateway = gateway
        self._pages = pages
        self.seen = views.Seen()

    def mount(self, app: FastAPI) -> None:
        doors, people = DoorPages(self._gateway, self._pages), PeoplePages(self._gateway, self._pages)
        pages: dict[str, Any] = {
            "/": self.overview,
            "/login": self.login,
            "/setup": self.setup,
            "/live": self.live,
            "/devices": self.devices,
            "/doors": doors.doors,
            "/people": people.people,
            "/people/{subject}": people.person,
            "/people/{subject}/enrol": people.enrol,
            "/privacy": people.privacy,
            "/sealed": self.sealed,
            "/events": self.events,
            "/upstreams": self.upstreams,
            "/quarantine": self.quarantine,
            "/audit": self.audit,
            "/settings": self.settings,
            "/health": self.health,
            "/more": self.more,
            "/account": self.account,
        }
        for path, page in pages.items():
            app.router.routes.append(Route(path, page, methods=["GET"]))
        app.mount("/static", StaticFiles(directory=STATIC))

    @property
    def _database(self) -> Database:
        return self._gateway.governance.database

    @property
    def _site(self) -> SiteConfig:
        return self._gateway.governance.configuration.site

    async def look(self) -> None:
        """What the lamps and the numbers beside the navigation need from the database."""
        self.seen = await views.look(self._gateway)

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
        return self._pages.render(request, "login.html", None, health=lines)

    async def setup(self, request: Request) -> Response:
        if await self._database.read(accounts.listing):
            return RedirectResponse("/login", status_code=303)
        return self._pages.render(request, "setup.html", None)

    async def overview(self, request: Request) -> Response:
        caller = await self._pages.caller(request, Scope.STATUS_READ)
        if isinstance(caller, Response):
            return caller
        t, gateway = self._pages.text(request), self._gateway
        books = views.total(await gateway.outbox.stats())
        figures = await views.today(gateway, t)
        needs = views.attention(gateway, self.seen, t, may=caller.may)
        devices = views.device_rows(gateway, t)
        people = await self._database.read(gateway.roster.count)
        may_see = caller.may(Scope.EVENTS_READ)
        newest = await gateway.outbox.events(limit=10, newest_first=True) if may_see else []
        local = gateway.governance.now().astimezone(views.zone_of(gateway))
        return self._pages.render(
            request,
            "overview.html",
            caller,
            cur="overview",
            headline=views.headline(len(needs), t),
            today=local.strftime(t("%Y 年 %m 月 %d 日", "%A, %d %B %Y"))
            + t(" 星期" + "一二三四五六日"[local.weekday()], ""),
            people=people,
            attention=needs,
            rows=await views.shown_rows(gateway, newest, t),
            blank=BLANK,
            live_after=newest[0].sequence if newest else 0,
            can_watch=may_see,
            doors=await door_cards(gateway, t) if caller.may(Scope.DOORS_READ) else [],
            ledger=books,
            devices=devices[:4],
            devices_line=views.devices_headline(devices, 0, t),
            templates=views.templates(gateway, t),
            **figures,
        )

    async def live(self, request: Request) -> Response:
        """Rows as they happen, and the figures beside them."""
        caller = await self._pages.caller(request, Scope.EVENTS_READ)
        if isinstance(caller, Response):
            return Response(status_code=403)
        t = self._pages.text(request)
        # From where the page ends, or where a broken stream ended: nothing in between is passed over.
        given = request.headers.get("last-event-id", "") or request.query_params.get("after", "")
        if given.isdecimal() and len(given) < 19:
            after = int(given)
        else:
            newest = await self._gateway.outbox.events(limit=1, newest_first=True)
            after = newest[0].sequence if newest else 0
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(self._stream(t, after), media_type="text/event-stream", headers=headers)

    async def _stream(self, t: Text, after: int) -> AsyncIterator[str]:
        outbox = self._gateway.outbox
        yield "retry: 2000\n\n"
        while True:
            found = await outbox.events(after=after, limit=LIVE_PAGE)
            if found:
                after = found[-1].sequence
            for shown in await views.shown_rows(self._gateway, found, t):
                yield f"id: {shown['sequence']}\nevent: row\ndata: {json.dumps(shown, ensure_ascii=False)}\n\n"
            books = views.total(await outbox.stats())
            figures = {
                name: f"{getattr(books, name):,}" for name in ("received", "delivered", "pending", "quarantined")
            }
            today = await views.today(self._gateway, t)
            figures |= {key: f"{value:,}" for _, key, value in today["kpi"]}
            yield f"event: figure\ndata: {json.dumps(figures)}\n\n"
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    await outbox.changed(after)
                    await asyncio.sleep(0.25)  # a burst becomes one flush
            except TimeoutError:
                yield ": still here\n\n"

    async def devices(self, request: Request) -> Response:
        caller = await self._pages.caller(request, Scope.DEVICES_READ)
        if isinstance(caller, Response):
            return caller
        t = self._pages.text(request)
        rows, waiting = views.device_rows(self._gateway, t), pending_views(self._gateway)
        zone = views.zone_of(self._gateway)
        return self._pages.render(
            request,
            "devices.html",
            caller,
            cur="devices",
            headline=views.devices_headline(rows, len(waiting), t),
            devices=rows,
            pending=[
                {
                    "serial": item.serial,
                    "address": item.address,
                    "times": item.times,
                    "first": item.first_seen.astimezone(zone).strftime("%H:%M"),
                }
                for item in waiting
            ],
            kinds=sorted(DRIVERS),
            can_write=caller.may(Scope.DEVICES_WRITE),
        )

    async def events(self, request: Request) -> Response:
        caller = await self._pages.caller(request, Scope.EVENTS_READ)
        if isinstance(caller, Response):
            return caller
        t, query = self._pages.text(request), request.query_params
        before = query.get("before", "")
        kind, device, subject = query.get("type", "")[:64], query.get("device", "")[:64], query.get("subject", "")[:64]
        found = await self._gateway.outbox.events(
            before=int(before) if before.isdecimal() and len(before) < 19 else None,
            limit=50,
            newest_first=True,
            type_prefix=kind or None,
            device=device or None,
            subject=subject or None,
        )
        await self._gateway.governance.note(
            Entry(actor=caller.name, action="events.read", details={"rows": len(found)})
        )
        books = views.total(await self._gateway.outbox.stats())
        newest = await self._gateway.outbox.events(limit=1, newest_first=True)
        return self._pages.render(
            request,
            "events.html",
            caller,
            cur="events",
            received=newest[0].sequence if newest else books.received,
            rows=await views.shown_rows(self._gateway, found, t),
            kinds=[
                ("", t("全部", "All")),
                ("attendance.", t("打卡", "Punches")),
                ("access.", t("通行", "Entries")),
                ("door.", t("门", "Doors")),
                ("subject.", t("人员", "People")),
            ],
            kind=kind,
            device=device,
            subject=subject,
            next_before=found[-1].sequence if len(found) == 50 else None,
            can_export=caller.may(Scope.EXPORT),
        )

    async def upstreams(self, request: Request) -> Response:
        caller = await self._pages.caller(request, Scope.UPSTREAMS_READ)
        if isinstance(caller, Response):
            return caller
        t = self._pages.text(request)
        health = self._gateway.upstreams.health
        configured = {upstream.name: upstream for upstream in self._site.upstreams}
        shown = []
        for books in await self._gateway.outbox.stats():
            delivery, upstream = health.get(books.sink), configured.get(books.sink)
            waiting = bool(delivery and delivery.failures)
            tone, state = ("ok", t("正常", "Normal"))
            if books.revoked:
                tone, state = "off", t("已停止", "Revoked")
            elif waiting:
                tone, state = "warn", t("等待中", "Waiting")
            shown.append(
                {
                    "name": books.sink,
                    "tone": tone,
                    "state": state,
                    "kind": upstream.kind if upstream else "",
                    "url": upstream.url if upstream else "",
                    "fields": upstream.fields if upstream else (),
                    "revoked": books.revoked,
                    "received": books.received,
                    "delivered": books.delivered,
                    "pending": books.pending,
                    "quarantined": books.quarantined,
                    "discarded": books.discarded,
                    "error": delivery.error if delivery and waiting else "",
                }
            )
        late = [str(item["name"]) for item in shown if item["tone"] == "warn"]
        words = t("全部送达正常", "Everything is arriving")
        if late:
            words = t(
                f"{'、'.join(late)} 暂时送不到，其余正常", f"{', '.join(late)} cannot be reached; the rest is fine"
            )
        if not shown:
            words = t("还没有上游", "No upstream yet")
        return self._pages.render(
            request,
            "upstreams.html",
            caller,
            cur="upstreams",
            headline=words,
            upstreams=shown,
            can_write=caller.may(Scope.UPSTREAMS_WRITE),
        )

    async def quarantine(self, request: Request) -> Response:
        caller = await self._pages.caller(request, Scope.UPSTREAMS_READ)
        if isinstance(caller, Response):
            return caller
        found = await self._gateway.outbox.quarantined(limit=500) if caller.may(Scope.EVENTS_READ) else []
        await self._gateway.governance.note(
            Entry(actor=caller.name, action="quarantine.read", details={"rows": len(found)})
        )
        return self._pages.render(
            request,
            "quarantine.html",
            caller,
            cur="quarantine",
            total=self.seen.quarantined,
            groups=views.quarantine_groups(found, views.zone_of(self._gateway)),
            can_judge=caller.may(Scope.QUARANTINE_WRITE),
        )

    async def audit(self, request: Request) -> Response:
        caller = await self._pages.caller(request, Scope.AUDIT_READ)
        if isinstance(caller, Response):
            return caller
        governance, query = self._gateway.governance, request.query_params
        before, action, actor = query.get("before", ""), query.get("action", "")[:64], query.get("actor", "")[:64]
        limit = 50
        rows = await self._database.read(
            lambda c: c.execute(
                "SELECT seq, at, actor, action, object, outcome, details FROM audit WHERE (?1 IS NULL OR seq < ?1)"
                " AND (?2 = '' OR action = ?2) AND (?3 = '' OR actor = ?3) ORDER BY seq DESC LIMIT ?4",
                (int(before) if before.isdecimal() and len(before) < 19 else None, action, actor, limit),
            ).fetchall()
        )
        anchors = governance.anchors()
        verdict = await self._database.read(lambda c: governance.audit.verify(c, anchors))
        await governance.note(Entry(actor=caller.name, action="audit.read", details={"rows": len(rows)}))
        zone = views.zone_of(self._gateway)
        names = ("seq", "at", "actor", "action", "object", "outcome", "details")
        shown = [dict(zip(names, found, strict=True)) for found in rows]
        for item in shown:
            item["at"] = datetime.fromisoformat(item["at"]).astimezone(zone).strftime("%m-%d %H:%M:%S")
            item["details"] = "" if item["details"] == "{}" else item["details"]
        return self._pages.render(
            request,
            "audit.html",
            caller,
            cur="audit",
            verdict=verdict,
            rows=shown,
            action=action,
            actor=actor,
            next_before=rows[-1][0] if len(rows) == limit else None,
        )

    async def settings(self, request: Request) -> Response:
        caller = await self._pages.caller(request, Scope.CONFIG_READ)
        if isinstance(caller, Response):
            return caller
        configuration, now = self._gateway.governance.configuration, self._gateway.governance.now()
        administers = caller.may(Scope.ACCOUNTS_WRITE)
        zone = views.zone_of(self._gateway)
        history = await configuration.history(20)
        return self._pages.render(
            request,
            "settings.html",
            caller,
            cur="settings",
            document=json.dumps(public(configuration.site), ensure_ascii=False, indent=2),
            can_write=caller.may(Scope.CONFIG_WRITE),
            versions=[
                {
                    "number": number,
                    "at": datetime.fromisoformat(at).astimezone(zone).strftime("%m-%d %H:%M"),
                    "actor": actor,
                    "reason": reason,
                }
                for number, at, actor, reason in history
            ],
            accounts=await self._database.read(accounts.listing) if administers else None,
            roles=[role.value for role in Role],
            scopes=sorted(caller.scopes),
            tokens=[
                {
                    "name": token.name,
                    "scopes": " ".join(sorted(token.scopes)),
                    "until": token.expires_at.astimezone(zone).strftime("%Y-%m-%d"),
                    "valid": token.revoked_at is None and now < token.expires_at,
                }
                for token in (await self._database.read(access_tokens.listing) if administers else [])
            ],
            sessions=[
                {"handle": handle, "account": name, "address": address, "agent": agent}
                for handle, name, _, _, address, agent in (
                    await self._database.read(accounts.sessions) if administers else []
                )
            ],
        )

    async def health(self, request: Request) -> Response:
        caller = await self._pages.caller(request, Scope.STATUS_READ)
        if isinstance(caller, Response):
            return caller
        t, gateway = self._pages.text(request), self._gateway
        checks = [
            {"label": lamp.label, "value": lamp.value, "tone": lamp.tone or "ok", "detail": ""}
            for lamp in views.lamps(gateway, self.seen, t)
        ]
        usage = shutil.disk_usage(gateway.data_dir)
        ballast = self._database.ballast
        checks.append(
            {
                "label": t("应急空间", "Ballast"),
                "value": t("已备", "Held") if ballast.held else t("未备", "Not held"),
                "tone": "ok" if ballast.held else "warn",
                "detail": t("磁盘写满时用来腾挪，平时不动", "kept back so that a full disk can be recovered from"),
            }
        )
        bad = [check for check in checks if check["tone"] in {"bad", "warn"}]
        words = t("一切正常", "Everything is fine.") if not bad else t(
            f"{len(bad)} 项要留意", f"{len(bad)} checks need a look"
        )  # fmt: skip
        up = gateway.governance.now() - gateway.started_at
        facts = [
            (t("主机", "Host"), platform.node()),
            (t("版本", "Version"), __version__),
            (t("运行", "Up"), str(up).split(".")[0]),
            (t("磁盘可用", "Disk free"), f"{usage.free / 2**30:.1f} GiB"),
            ("Python", platform.python_version()),
        ]
        return self._pages.render(
            request, "health.html", caller, cur="health", headline=words, checks=checks, facts=facts
        )

    async def account(self, request: Request) -> Response:
        """One's own password and second factor; every role has them."""
        caller = await self._pages.caller(request, Scope.STATUS_READ)
        if isinstance(caller, Response):
            return caller
        mine = await self._database.read(lambda c: accounts.find(c, caller.name))
        return self._pages.render(
            request,
            "account.html",
            caller,
            cur="account",
            name=caller.name,
            role=caller.role.value if caller.role else "",
            has_totp=bool(mine and mine.has_totp),
        )

    async def sealed(self, request: Request) -> Response:
        caller = await self._pages.caller(request, Scope.STATUS_READ)
        if isinstance(caller, Response):
            return caller
        if not self._gateway.biometrics.sealed:
            return RedirectResponse("/", status_code=303)
        return self._pages.render(
            request,
            "sealed.html",
            caller,
            cur="overview",
            reason=self._gateway.biometrics.store.seal_reason,
            may_unseal=caller.may(Scope.KEYS_WRITE),
        )

    async def more(self, request: Request) -> Response:
        caller = await self._pages.caller(request, Scope.STATUS_READ)
        if isinstance(caller, Response):
            return caller
        return self._pages.render(request, "more.html", caller, cur="more")
