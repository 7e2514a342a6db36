"""Privacy: requests with deadlines, consents, retention, receipts as paper."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from fastapi.responses import Response

from edge_agent.api.context import Gateway
from edge_agent.api.privacy import ReceiptView, RequestView, receipts_of, request_view, requests_of
from edge_agent.audit import Entry
from edge_agent.console import views
from edge_agent.console.page import Text, Visit, counted
from edge_agent.console.words import MODALITIES, PLACES, PURPOSES
from edge_agent.policy.requests import Standing, Verb
from edge_agent.policy.roles import Scope
from templates_store.records import ConsentState
from templates_store.template import Modality, Purpose

VERBS = {
    Verb.ACCESS: ("查阅与复制", "Access"),
    Verb.CORRECT: ("更正", "Correct"),
    Verb.DELETE: ("擦除", "Erase"),
    Verb.WITHDRAW: ("撤回同意", "Withdraw"),
    Verb.LEAVE: ("离职", "Leave"),
    Verb.CANCEL: ("注销", "Cancel"),
}
STANDINGS = {
    Standing.UNVERIFIED: ("off", "待核实身份", "Verify identity"),
    Standing.OPEN: ("info", "待处理", "To do"),
    Standing.DUE_SOON: ("warn", "即将到期", "Due soon"),
    Standing.OVERDUE: ("bad", "已逾期", "Overdue"),
    Standing.ANSWERED: ("ok", "已答复", "Answered"),
}
WORKING_DAYS = 15
SOON = timedelta(days=30)  # consents that end within it are shown as due for renewal
RECEIPTS_SHOWN = 3


class PrivacyPages:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def privacy(self, visit: Visit) -> Response:
        t, gateway = visit.t, self._gateway
        database, site = gateway.governance.database, gateway.governance.configuration.site
        everything = [request_view(gateway, item) for item in await database.read(requests_of)]
        waiting = [item for item in everything if item.standing is not Standing.ANSWERED]
        answered = [item for item in everything if item.standing is Standing.ANSWERED]
        show_all = visit.query("show") == "all"
        found = sorted(waiting, key=_urgency) + (answered if show_all else [])
        papers = await receipts_of(gateway, None)
        subjects = {item.subject for item in found} | {paper.subject for paper in papers[:RECEIPTS_SHOWN]}
        names = await database.read(lambda c: gateway.roster.names(c, subjects))
        overdue = sum(item.standing is Standing.OVERDUE for item in waiting)
        soon = sum(item.standing is Standing.DUE_SOON for item in waiting)
        zone = views.zone_of(gateway)
        await self._note(visit, "privacy.read", rows=len(found))
        return visit.render(
            "privacy.html",
            cur="privacy",
            headline=_headline(overdue, soon, t),
            requests=[_request_row(item, names, t) for item in found],
            answered=len(answered),
            show_all=show_all,
            modalities=await self._consents(t),
            retention=await self._retention(t),
            receipts=[receipt_paper(paper, zone, t, names.get(paper.subject, "")) for paper in papers[:RECEIPTS_SHOWN]],
            receipts_total=len(papers),
            assessment=site.privacy.impact_assessment,
            high_risk=site.privacy.high_risk,
            notice=site.privacy.notice_version,
            recipients=[upstream.name for upstream in site.upstreams if upstream.enabled],
            verbs=[(verb.value, t(*words)) for verb, words in VERBS.items()],
            can_write=visit.may(Scope.PRIVACY_WRITE),
            can_configure=visit.may(Scope.CONFIG_WRITE),
            can_export=visit.may(Scope.EXPORT),
        )

    async def receipts(self, visit: Visit) -> Response:
        """Every receipt, those that still wait for a device first."""
        t, gateway, zone = visit.t, self._gateway, views.zone_of(self._gateway)
        papers = await receipts_of(gateway, None)
        names = await gateway.governance.database.read(
            lambda c: gateway.roster.names(c, {paper.subject for paper in papers})
        )
        await self._note(visit, "receipts.read", rows=len(papers))
        pending = sum(not paper.closed for paper in papers)
        return visit.render(
            "receipts.html",
            cur="privacy",
            headline=t(f"{pending} 份收据未完结", f"{counted(pending, 'receipt')} not closed yet")
            if pending
            else t("所有收据都已完结", "Every receipt is closed"),
            receipts=[
                receipt_paper(paper, zone, t, names.get(paper.subject, ""))
                for paper in sorted(papers, key=lambda paper: paper.closed)
            ],
            sealed=gateway.biometrics.sealed,
        )

    async def receipt(self, visit: Visit) -> Response:
        """One receipt, to print and to hand over."""
        t, gateway, wanted = visit.t, self._gateway, visit.path("receipt")
        paper = next((found for found in await receipts_of(gateway, None) if found.receipt == wanted), None)
        if paper is None:
            return visit.missing(t("没有这份收据", "There is no such receipt"))
        names = await gateway.governance.database.read(lambda c: gateway.roster.names(c, {paper.subject}))
        await self._note(visit, "receipts.read", rows=1)
        return visit.render(
            "receipt.html",
            cur="privacy",
            receipt=receipt_paper(paper, views.zone_of(gateway), t, names.get(paper.subject, "")),
            document=paper.model_dump_json(indent=2),
        )

    async def _consents(self, t: Text) -> list[dict[str, Any]]:
        site, now = self._gateway.governance.configuration.site, self._gateway.governance.now()
        everything = await asyncio.to_thread(self._gateway.biometrics.store.expired, datetime.max.replace(tzinfo=UTC))
        valid = [c for c in everything if c.state is ConsentState.VALID]
        counts: Counter[tuple[Modality, Purpose]] = Counter((c.modality, c.purpose) for c in valid)
        renew: Counter[Modality] = Counter(
            c.modality for c in everything if c.state is ConsentState.STALE or c.expires_at < now + SOON
        )
        return [
            {
                "icon": icon,
                "label": t(zh, en),
                "on": modality in site.modalities and site.modalities[modality].enabled,
                "purposes": [counts[modality, purpose] for purpose in PURPOSES],
                "renew": renew[modality],
            }
            for modality, (icon, zh, en) in MODALITIES.items()
        ]

    async def _retention(self, t: Text) -> list[tuple[str, str, str]]:
        """(what, how long, how many are held now)."""
        site = self._gateway.governance.configuration.site

        def held(connection: sqlite3.Connection) -> list[int]:
            return [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("events", "audit")]  # noqa: S608 - names of our own

        events, rows = await self._gateway.governance.database.read(held)
        templates = site.retention.templates_days

        def days(count: int) -> str:
            return t(f"{count:,} 天", counted(count, "day"))

        return [
            (
                t("生物特征模板", "Biometric templates"),
                days(templates) if templates else t("未公布，因此不采集", "not published, so none are taken"),
                f"{self._gateway.biometrics.galleries.count():,}",
            ),
            (t("打卡与通行记录", "Punches and entries"), days(site.retention.events_days), f"{events:,}"),
            (t("照片与视频画面", "Pictures and video"), t("不保留", "never kept"), "0"),
            (t("收据", "Receipts"), days(site.retention.receipts_days), "—"),
            (t("请求", "Requests"), days(site.retention.requests_days), "—"),
            (t("审计", "Audit"), days(site.retention.audit_days), f"{rows:,}"),
        ]

    async def _note(self, visit: Visit, action: str, *, rows: int) -> None:
        await self._gateway.governance.note(Entry(actor=visit.caller.name, action=action, details={"rows": rows}))


def receipt_paper(paper: ReceiptView, zone: ZoneInfo, t: Text, name: str) -> dict[str, Any]:
    """A receipt as it is shown: local times, places in words."""

    def at(moment: datetime, form: str) -> str:
        return moment.astimezone(zone).strftime(form)

    places = [
        {
            "label": t(*PLACES[place.location]) if place.location in PLACES else place.location,
            "gone": place.outcome == "gone",
            "outcome": at(place.at, "%H:%M:%S")
            if place.outcome == "gone"
            else t("会重试", "will be retried")
            if place.location != "backups"
            else t("等下次轮换密钥", "at the next key rotation"),
        }
        for place in paper.locations
    ]
    gone = [place.at for place in paper.locations if place.outcome == "gone"]
    what = t(*MODALITIES[paper.modality][1:]) if paper.modality else t("全部", "Everything")
    if paper.purpose:
        what += " · " + t(*PURPOSES[paper.purpose])
    return {
        "id": paper.receipt,
        "subject": paper.subject,
        "closed": paper.closed,
        "facts": [
            (t("本人", "Person"), f"{name} · {paper.subject}" if name else paper.subject),
            (t("范围", "Scope"), what),
            (t("提出", "Asked"), at(paper.requested_at, "%Y-%m-%d %H:%M:%S")),
            (t("停止识别", "Stopped matching"), at(min(gone), "%Y-%m-%d %H:%M:%S") if gone else "—"),
            (t("经办", "By"), paper.actor),
            (t("版次", "Revision"), str(paper.revision)),
        ],
        "places": places,
        "signature": paper.signature,
        "key": paper.public_key,
    }


def _urgency(item: RequestView) -> tuple[int, int]:
    left = item.working_days_left
    return (1, 0) if left is None else (0, left)


def _headline(overdue: int, soon: int, t: Text) -> str:
    if overdue:
        return t(f"{overdue} 份请求已逾期", f"{counted(overdue, 'request is', 'requests are')} overdue")
    if soon:
        return t(
            f"没有逾期，{soon} 份请求 3 个工作日内到期",
            f"Nothing overdue. {counted(soon, 'request is', 'requests are')} due within 3 working days",
        )
    return t("没有逾期的请求", "Nothing is overdue")


def _request_row(item: RequestView, names: dict[str, str], t: Text) -> dict[str, Any]:
    tone, zh, en = STANDINGS[item.standing]
    left = item.working_days_left
    following = ""
    if item.standing is Standing.UNVERIFIED:
        following = "verify"
    elif item.standing is not Standing.ANSWERED:
        following = "answer"
    due, used = t("核实后起算", "starts once verified"), None
    if item.standing is Standing.ANSWERED:
        due = ""
    elif left is not None:
        used = max(0, min(WORKING_DAYS, WORKING_DAYS - left))
        due = t(f"还剩 {left} 个工作日", f"{counted(left, 'working day')} left")
        if item.standing is Standing.OVERDUE:
            late = max(1, -left)
            due = t(f"逾期 {late} 个工作日", f"{counted(late, 'working day')} late")
        elif left == 0:
            due = t("今天截止", "due today")
        due += f" · {item.due}"
    return {
        "id": item.request,
        "subject": item.subject,
        "who": names.get(item.subject, item.subject),
        "verb": t(*VERBS[item.verb]),
        "tone": tone,
        "state": t(zh, en),
        "used": used,
        "due": due,
        "next": following,
        "next_label": t("核实身份", "Verify") if following == "verify" else t("已答复", "Answered"),
    }
