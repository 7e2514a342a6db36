"""People, one person, enrolment, privacy: the pages that show personal data. Each visit is audited."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import Request
from fastapi.responses import RedirectResponse, Response

from device_drivers.devices import Camera, FingerprintReader
from edge_agent.api.context import Gateway
from edge_agent.api.privacy import receipts_of, request_view, requests_of
from edge_agent.api.roles import Scope
from edge_agent.audit import Entry
from edge_agent.console import views
from edge_agent.console.page import Pages, Text
from edge_agent.credentials import rights_of
from edge_agent.policy.consent import terms_fault
from edge_agent.policy.requests import Standing, Verb
from edge_agent.roster import Person
from templates_store.records import ConsentState, StoredConsent
from templates_store.template import Modality, Purpose, SubjectId

MODALITIES = {
    Modality.FACE: ("face", "人脸", "Face"),
    Modality.FINGERPRINT: ("finger", "指纹", "Finger"),
    Modality.VOICE: ("mic", "声纹", "Voice"),
    Modality.IRIS: ("eye", "虹膜", "Iris"),
}
PURPOSES = {Purpose.ATTENDANCE: ("考勤", "Attendance"), Purpose.ACCESS: ("开门", "Doors")}
STATES = {
    ConsentState.VALID: ("ok", "有效", "Valid"),
    ConsentState.STALE: ("warn", "待续签", "Renewal due"),
    ConsentState.WITHDRAWN: ("off", "已撤回", "Withdrawn"),
    ConsentState.ENDED: ("off", "已结束", "Ended"),
    ConsentState.SUPERSEDED: ("off", "已更新", "Renewed"),
}
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
FINGERS = (
    ("右拇指", "Right thumb"), ("右食指", "Right index"), ("右中指", "Right middle"), ("右无名指", "Right ring"),
    ("右小指", "Right little"), ("左拇指", "Left thumb"), ("左食指", "Left index"), ("左中指", "Left middle"),
    ("左无名指", "Left ring"), ("左小指", "Left little"),
)  # fmt: skip
WORKING_DAYS = 15
PAGE = 100


class PeoplePages:
    def __init__(self, gateway: Gateway, pages: Pages) -> None:
        self._gateway = gateway
        self._pages = pages

    async def people(self, request: Request) -> Response:
        caller = await self._pages.caller(request, Scope.PEOPLE_READ)
        if isinstance(caller, Response):
            return caller
        t, roster, database = self._pages.text(request), self._gateway.roster, self._gateway.governance.database
        search, after = request.query_params.get("search", "")[:100], request.query_params.get("after", "")[:64]
        found = await database.read(lambda c: roster.people(c, after=after, limit=PAGE, search=search))
        await self._note(caller.name, "people.read", rows=len(found))
        consents = await asyncio.to_thread(self._live_consents, [person.subject for person in found])
        return self._pages.render(
            request,
            "people.html",
            caller,
            cur="people",
            people=[self._line(person, consents[person.subject], t) for person in found],
            total=await database.read(roster.count),
            search=search,
            next_after=found[-1].subject if len(found) == PAGE else "",
            can_write=caller.may(Scope.PEOPLE_WRITE),
        )

    async def person(self, request: Request) -> Response:
        caller = await self._pages.caller(request, Scope.PEOPLE_READ)
        if isinstance(caller, Response):
            return caller
        t, gateway, subject = self._pages.text(request), self._gateway, request.path_params["subject"][:64]
        person = await self._find(subject)
        if person is None:
            return RedirectResponse("/people", status_code=303)
        store = gateway.biometrics.store
        consents = await asyncio.to_thread(store.consents, SubjectId(subject))
        placements = await asyncio.to_thread(store.placements, SubjectId(subject))
        live = [c for c in consents if c.state in {ConsentState.VALID, ConsentState.STALE}]
        groups = await gateway.governance.database.read(lambda c: rights_of(c, subject).groups)
        may_events = caller.may(Scope.EVENTS_READ)
        newest = await gateway.outbox.events(subject=subject, limit=12, newest_first=True) if may_events else []
        await self._note(caller.name, "person.read", subject=subject)
        places = [(t("本机模板库，加密", "This gateway, sealed"), "AES-256-GCM")] if live else []
        return self._pages.render(
            request,
            "person.html",
            caller,
            cur="people",
            person=person,
            number=person.user_ids[0][1] if person.user_ids else "",
            notice=gateway.governance.configuration.site.privacy.notice_version,
            modalities=[self._modality(modality, live, t) for modality in Modality],
            rows=await views.shown_rows(gateway, newest, t),
            receipts=await receipts_of(gateway, subject) if caller.may(Scope.PRIVACY_READ) else [],
            placements=places + [(item.device_serial, item.state.value) for item in placements],
            groups=groups,
            can_write=caller.may(Scope.PEOPLE_WRITE),
            can_enrol=caller.may(Scope.ENROL),
            can_erase=caller.may(Scope.ERASE),
            can_export=caller.may(Scope.EXPORT),
        )

    async def enrol(self, request: Request) -> Response:
        caller = await self._pages.caller(request, Scope.ENROL)
        if isinstance(caller, Response):
            return caller
        t, gateway, subject = self._pages.text(request), self._gateway, request.path_params["subject"][:64]
        person = await self._find(subject)
        wanted = request.query_params.get("modality", "face")
        if person is None or wanted not in {Modality.FACE, Modality.FINGERPRINT}:
            return RedirectResponse("/people", status_code=303)
        modality = Modality(wanted)
        site = gateway.governance.configuration.site
        wanted_kind: type = Camera if modality is Modality.FACE else FingerprintReader
        days = site.retention.templates_days or 0
        until = gateway.governance.now().astimezone(views.zone_of(gateway)) + timedelta(days=days)
        _, zh, en = MODALITIES[modality]
        await self._note(caller.name, "person.read", subject=subject)
        return self._pages.render(
            request,
            "enrol.html",
            caller,
            cur="people",
            person=person,
            modality=modality.value,
            label=t(zh, en.lower()),
            notice=site.privacy.notice_version,
            until=until.strftime(t("%Y 年 %m 月 %d 日", "%d %b %Y")),
            fingers=[(n, t(*names)) for n, names in enumerate(FINGERS, 1)],
            sensors=[
                device.name
                for device in site.devices
                if modality in device.biometrics and isinstance(gateway.fleet.driver(device.name), wanted_kind)
            ],
        )

    async def privacy(self, request: Request) -> Response:
        caller = await self._pages.caller(request, Scope.PRIVACY_READ)
        if isinstance(caller, Response):
            return caller
        t, gateway = self._pages.text(request), self._gateway
        database, site = gateway.governance.database, gateway.governance.configuration.site
        found = [request_view(gateway, item) for item in await database.read(requests_of)]
        subjects = {item.subject for item in found}
        names = await database.read(lambda c: gateway.roster.names(c, subjects))
        overdue = sum(item.standing is Standing.OVERDUE for item in found)
        soon = sum(item.standing is Standing.DUE_SOON for item in found)
        counts = await asyncio.to_thread(self._consent_counts)
        await self._note(caller.name, "privacy.read", rows=len(found))
        days = t("%s 天", "%s days")
        templates = site.retention.templates_days
        return self._pages.render(
            request,
            "privacy.html",
            caller,
            cur="privacy",
            headline=_privacy_headline(overdue, soon, t),
            requests=[_request_row(item, names, t) for item in found],
            modalities=[
                {
                    "icon": icon,
                    "label": t(zh, en),
                    "on": modality in site.modalities and site.modalities[modality].enabled,
                    "attendance": counts[modality, Purpose.ATTENDANCE],
                    "access": counts[modality, Purpose.ACCESS],
                }
                for modality, (icon, zh, en) in MODALITIES.items()
            ],
            retention=[
                (
                    t("生物特征模板", "Biometric templates"),
                    days % templates if templates else t("未公布，因此不采集", "not published, so none are taken"),
                ),
                (t("打卡与通行记录", "Punches and entries"), days % site.retention.events_days),
                (t("照片与视频画面", "Pictures and video"), t("不保留", "never kept")),
                (t("审计", "Audit"), days % site.retention.audit_days),
            ],
            receipts=(await receipts_of(gateway, None))[:5],
            assessment=site.privacy.impact_assessment,
            notice=site.privacy.notice_version,
            verbs=[(verb.value, t(*words)) for verb, words in VERBS.items()],
            can_write=caller.may(Scope.PRIVACY_WRITE),
        )

    async def _find(self, subject: str) -> Person | None:
        roster = self._gateway.roster
        return await self._gateway.governance.database.read(lambda c: roster.person(c, subject))

    async def _note(self, actor: str, action: str, *, subject: str = "", **details: Any) -> None:
        entry = Entry(actor=actor, action=action, object=subject, details=details or None)
        await self._gateway.governance.note(entry)

    def _live_consents(self, subjects: list[str]) -> dict[str, list[StoredConsent]]:
        store = self._gateway.biometrics.store
        return {
            subject: [
                c for c in store.consents(SubjectId(subject)) if c.state in {ConsentState.VALID, ConsentState.STALE}
            ]
            for subject in subjects
        }

    def _consent_counts(self) -> Counter[tuple[Modality, Purpose]]:
        live = self._gateway.biometrics.store.expired(datetime.max.replace(tzinfo=UTC))
        return Counter((c.modality, c.purpose) for c in live if c.state is ConsentState.VALID)

    def _line(self, person: Person, live: list[StoredConsent], t: Text) -> dict[str, Any]:
        ways = [(MODALITIES[c.modality][0], t(*MODALITIES[c.modality][1:])) for c in live if _first_of(c, live)]
        ways += [("card", t("卡片", "Card") + f" …{hint}") for hint in person.cards]
        ways += [("pin", t("密码", "PIN"))] if person.has_pin else []
        ways += [("device", t("终端", "Terminal"))] if person.user_ids else []
        consent = None
        if live:
            worst = ConsentState.STALE if any(c.state is ConsentState.STALE for c in live) else ConsentState.VALID
            tone, zh, en = STATES[worst]
            consent = {"tone": tone, "label": t(zh, en)}
        return {
            "subject": person.subject,
            "name": person.name,
            "department": person.department,
            "number": person.user_ids[0][1] if person.user_ids else "",
            "ways": ways,
            "consent": consent,
            "until": person.valid_until.strftime("%Y-%m-%d") if person.valid_until else "—",
        }

    def _modality(self, modality: Modality, live: list[StoredConsent], t: Text) -> dict[str, Any]:
        mine = [consent for consent in live if consent.modality is modality]
        icon, zh, en = MODALITIES[modality]
        tone, state = "off", t("未使用", "Not used")
        if mine:
            tone, state = STATES[mine[0].state][0], t(*STATES[mine[0].state][1:])
        return {
            "modality": modality.value,
            "icon": icon,
            "label": t(zh, en),
            "tone": tone,
            "state": state,
            "enrollable": terms_fault(modality, self._gateway.biometrics.terms()) is None
            and self._gateway.biometrics.identification.supports(modality),
            "consents": [
                {
                    "purpose": t(*PURPOSES[consent.purpose]),
                    "given": consent.given_at.strftime("%Y-%m-%d"),
                    "until": consent.expires_at.strftime("%Y-%m-%d"),
                    "evidence": f"sha256 {consent.evidence_sha256[:12]}…",
                }
                for consent in mine
            ],
        }


def _first_of(consent: StoredConsent, live: list[StoredConsent]) -> bool:
    """One icon for a modality, however many purposes."""
    return next(c for c in live if c.modality is consent.modality) is consent


def _privacy_headline(overdue: int, soon: int, t: Text) -> str:
    if overdue:
        return t(f"{overdue} 份请求已逾期", f"{overdue} requests are overdue")
    if soon:
        return t(
            f"没有逾期，{soon} 份请求 3 个工作日内到期", f"Nothing overdue. {soon} requests due within 3 working days."
        )
    return t("没有逾期的请求", "Nothing is overdue")


def _request_row(item: Any, names: dict[str, str], t: Text) -> dict[str, Any]:
    tone, zh, en = STANDINGS[item.standing]
    left = item.working_days_left
    following = ""
    if item.standing is Standing.UNVERIFIED:
        following = "verify"
    elif item.standing is not Standing.ANSWERED:
        following = "answer"
    due = t("核实后起算", "starts once verified")
    if item.due:
        due = item.due.isoformat()
        if left is not None:
            due = t(f"{item.due} · 还剩 {left} 个工作日", f"{item.due} · {left} working days left")
    return {
        "id": item.request,
        "subject": item.subject,
        "who": names.get(item.subject, item.subject),
        "verb": t(*VERBS[item.verb]),
        "tone": tone,
        "state": t(zh, en),
        "used": None if left is None else max(0, min(WORKING_DAYS, WORKING_DAYS - left)),
        "due": due,
        "next": following,
        "next_label": t("核实身份", "Verify") if following == "verify" else t("已答复", "Answered"),
    }
