"""What every page carries: language, theme, the caller, the navigation a role may see, the lamps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from edge_agent import __version__
from edge_agent.api.access import AccessControl, Caller
from edge_agent.api.context import Governance
from edge_agent.policy.roles import Scope

HERE = Path(__file__).parent
LANGUAGE_COOKIE = "lang"
Text = Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class Lamp:
    """One light of the faceplate. An empty tone is normal."""

    label: str
    value: str
    href: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the navigation."""

    key: str
    href: str
    icon: str
    zh: str
    en: str
    scope: Scope


GROUPS: tuple[tuple[str, str, tuple[Item, ...]], ...] = (
    (
        "日常",
        "Every day",
        (
            Item("overview", "/", "home", "总览", "Overview", Scope.STATUS_READ),
            Item("doors", "/doors", "door", "门", "Doors", Scope.DOORS_READ),
            Item("people", "/people", "people", "人员", "People", Scope.PEOPLE_READ),
            Item("events", "/events", "list", "事件", "Events", Scope.EVENTS_READ),
        ),
    ),
    (
        "网关",
        "Gateway",
        (
            Item("devices", "/devices", "device", "设备", "Devices", Scope.DEVICES_READ),
            Item("upstreams", "/upstreams", "up", "上游", "Upstreams", Scope.UPSTREAMS_READ),
            Item("quarantine", "/quarantine", "box", "隔离区", "Quarantine", Scope.UPSTREAMS_READ),
        ),
    ),
    (
        "责任",
        "Accountability",
        (
            Item("privacy", "/privacy", "shield", "隐私", "Privacy", Scope.PRIVACY_READ),
            Item("approvals", "/approvals", "people", "双人批准", "Approvals", Scope.STATUS_READ),
            Item("incidents", "/incidents", "alarm", "事件响应", "Incidents", Scope.PRIVACY_READ),
            Item("audit", "/audit", "audit", "审计", "Audit", Scope.AUDIT_READ),
        ),
    ),
    (
        "系统",
        "System",
        (
            Item("health", "/health", "pulse", "健康", "Health", Scope.STATUS_READ),
            Item("settings", "/settings", "gear", "设置", "Settings", Scope.CONFIG_READ),
        ),
    ),
)
TABS = ("overview", "doors", "people", "privacy")


def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters["n"] = lambda number: f"{number:,}"
    made.filters["combos"] = lambda ways: ", ".join("+".join(sorted(way)) for way in ways)
    return made


def counted(number: int, one: str, many: str = "") -> str:
    """English has a plural: `1 door`, `2 doors`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers beside the navigation: key -> (count, tone)."""

    beside: Mapping[str, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Visit:
    """One signed-in person asking for one page."""

    request: Request
    caller: Caller
    t: Text
    pages: Pages
    digest: str  # of the state from before the page was read: what changed meanwhile is shown by its stream

    def may(self, scope: Scope) -> bool:
        return self.caller.may(scope)

    def query(self, name: str, limit: int = 64) -> str:
        return self.request.query_params.get(name, "")[:limit]

    def path(self, name: str) -> str:
        return str(self.request.path_params[name])[:64]

    def before(self) -> int | None:
        """The cursor of a list that leads further back."""
        return number(self.query("before"))

    def render(self, template: str, *, cur: str, status: int = 200, **data: Any) -> HTMLResponse:
        data["digest"] = self.digest
        return self.pages.render(self.request, template, self.caller, cur=cur, status=status, **data)

    def missing(self, words: str) -> HTMLResponse:
        return self.render("missing.html", cur="", status=404, words=words)


def number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


class Pages:
    """Renders a page for a signed-in caller, or leads to where one signs in."""

    def __init__(
        self,
        governance: Governance,
        access: AccessControl,
        *,
        host: str,
        lamps: Callable[[Text], list[Lamp]],
        counts: Callable[[Caller], Counts],
        look: Callable[[], Awaitable[str]],
    ) -> None:
        self.governance = governance
        self._access = access
        self._host = host
        self._lamps = lamps
        self._counts = counts
        self._look = look  # reads what lamps and counts show from the database; another digest, another state
        self._environment = environment()

    def language(self, request: Request) -> str:
        chosen = request.query_params.get("lang") or request.cookies.get(LANGUAGE_COOKIE, "")
        if chosen in {"zh", "en"}:
            return chosen
        return "en" if request.headers.get("accept-language", "zh").lower().startswith("en") else "zh"

    def text(self, request: Request) -> Text:
        chinese = self.language(request) == "zh"
        return lambda zh, en: zh if chinese else en

    async def visit(self, request: Request, scope: Scope) -> Visit | Response:
        """Who asks, if they may see this page; else where to go."""
        caller = await self._access.authenticate(request)
        if caller is None:
            return RedirectResponse("/login", status_code=303)
        await self._access.touch(caller)
        digest = await self._look()
        if not caller.may(scope):
            if scope is Scope.STATUS_READ:
                return RedirectResponse("/login", status_code=303)
            t = self.text(request)
            words = t("您的角色不能看这一页", "Your role does not include this page")
            return self.render(request, "refused.html", caller, words=words, status=403)
        return Visit(request, caller, self.text(request), self, digest)

    async def still(self, visit: Visit) -> bool:
        """Whether the person is still signed in: a stream outlives the request that opened it."""
        return await self._access.authenticate(visit.request) is not None

    def lamps(self, t: Text) -> list[Lamp]:
        return self._lamps(t)

    def broken(self, request: Request, request_id: str) -> HTMLResponse:
        """Storage did not answer. Rendered without a caller: who asks may not be readable either."""
        return self.render(request, "broken.html", None, status=503, request_id=request_id)

    def light(self, t: Text, caller: Caller) -> dict[str, Any]:
        """Lamps and counts as the live stream carries them."""
        lamps = self._lamps(t)
        worst = _worst(lamps)
        return {
            "lamps": [[lamp.tone, lamp.value] for lamp in lamps],
            "worst": [worst.tone, f"{worst.label} {worst.value}"],
            "counts": {key: [count or "", tone] for key, (count, tone) in self._counts(caller).beside.items()},
        }

    def render(
        self, request: Request, template: str, caller: Caller | None, *, status: int = 200, cur: str = "", **data: Any
    ) -> HTMLResponse:
        t, language = self.text(request), self.language(request)
        lamps = self._lamps(t) if caller else []
        beside = self._counts(caller).beside if caller else {}
        now = self.governance.now()
        version = self.governance.configuration.version
        zone = ZoneInfo(self.governance.configuration.site.timezone)

        def entry(item: Item) -> dict[str, Any]:
            count, tone = beside.get(item.key, (0, ""))
            return {
                "key": item.key,
                "href": item.href,
                "icon": item.icon,
                "label": t(item.zh, item.en),
                "count": count or "",
                "tone": tone,
            }

        visible = [
            (t(zh, en), [entry(item) for item in items if caller and caller.may(item.scope)])
            for zh, en, items in GROUPS
        ]
        flat = {item["key"]: item for _, items in visible for item in items}
        theme = request.cookies.get("theme", "")
        html = self._environment.get_template(template).render(
            t=t,
            L=language,
            theme=theme if theme in {"dark", "light"} else "",
            host=self._host,
            site=self.governance.configuration.site.site,
            lamps=lamps,
            worst=_worst(lamps),
            clock=now.astimezone(zone).strftime("%H:%M:%S"),
            clock_s=int((now.astimezone(zone).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()),
            zone=zone.key,
            who=caller.name if caller else "",
            csrf=caller.csrf if caller else "",
            may=caller.may if caller else lambda scope: False,
            nav=[{"label": label, "items": items} for label, items in visible if items],
            tabs=[flat[key] for key in TABS if key in flat]
            + [{"key": "more", "href": "/more", "icon": "more", "label": t("更多", "More"), "count": ""}],
            version=__version__,
            config_version=version.number if version else 0,
            cur=cur,
            **{"live_after": "", "digest": "", **data},
        )
        response = HTMLResponse(html, status_code=status)
        if request.query_params.get("lang") == language:
            response.set_cookie(LANGUAGE_COOKIE, language, max_age=31536000, secure=True, samesite="lax")
        return response


def _worst(lamps: list[Lamp]) -> Lamp:
    """What a phone has room for."""
    return next((lamp for tone in ("bad", "warn", "seal") for lamp in lamps if lamp.tone == tone), Lamp("", "", "/"))
