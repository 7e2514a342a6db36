"""People, one person, enrolment: the pages that show personal data. Each visit is audited."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import asdict
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode

from fastapi.responses import RedirectResponse, Response

from device_drivers.devices import Camera, FingerprintReader
from edge_agent.api.context import Gateway
from edge_agent.api.people import person_view
from edge_agent.api.privacy import receipts_of
from edge_agent.audit import Entry
from edge_agent.console import day, views
from edge_agent.console.event_pages import day_of
from edge_agent.console.page import Text, Visit, counted
from edge_agent.console.privacy_pages import receipt_paper
from edge_agent.console.words import MODALITIES, PLACED, PURPOSES
from edge_agent.matching.outcomes import CheckName
from edge_agent.people.credentials import Rights, rights_of
from edge_agent.people.roster import Person
from edge_agent.policy.consent import terms_fault
from edge_agent.policy.roles import Scope
from templates_store.records import ConsentState, Placement, StoredConsent
from templates_store.template import Modality, SubjectId

Meter = tuple[tuple[CheckName, ...], str, str]
STATES = {
    ConsentState.VALID: ("ok", "有效", "Valid"),
    ConsentState.STALE: ("warn", "待续签", "Renewal due"),
    ConsentState.WITHDRAWN: ("off", "已撤回", "Withdrawn"),
    ConsentState.ENDED: ("off", "已结束", "Ended"),
    ConsentState.SUPERSEDED: ("off", "已更新", "Renewed"),
}
LIVE = {ConsentState.VALID, ConsentState.STALE}
FINGERS = (
    ("右拇指", "Right thumb"), ("右食指", "Right index"), ("右中指", "Right middle"), ("右无名指", "Right ring"),
    ("右小指", "Right little"), ("左拇指", "Left thumb"), ("左食指", "Left index"), ("左中指", "Left middle"),
    ("左无名指", "Left ring"), ("左小指", "Left little"),
)  # fmt: skip
# The meters: which figures of a sample each shows, in the order in which they are asked.
FACE_METERS: tuple[Meter, ...] = (
    ((CheckName.FACES,), "一张人脸", "One face"), ((CheckName.SIZE,), "距离", "Distance"),
    ((CheckName.BRIGHTNESS, CheckName.GLARE), "光线", "Light"), ((CheckName.SHARPNESS,), "清晰", "Sharpness"),
    ((CheckName.YAW, CheckName.PITCH, CheckName.ROLL), "正对", "Facing"),
    ((CheckName.MOUTH, CheckName.DETECTOR), "无遮挡", "Uncovered"), ((CheckName.AGREEMENT,), "同一人", "Same person"),
)  # fmt: skip
FINGER_METERS: tuple[Meter, ...] = (
    ((CheckName.AREA,), "位置", "Placement"), ((CheckName.TONE,), "干湿", "Moisture"),
    ((CheckName.MINUTIAE,), "特征够多", "Enough detail"), ((CheckName.PRINT,), "清晰", "Clear ridges"),
    ((CheckName.AGREEMENT,), "同一指", "Same finger"),
)  # fmt: skip
PAGE = 100
DAY_EVENTS = 200
METERS = {Modality.FACE: FACE_METERS, Modality.FINGERPRINT: FINGER_METERS}  # what can be enrolled here


class PeoplePages:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def people(self, visit: Visit) -> Response:
        t, people, search, following = visit.t, *await self._found(visit)
        total = await self._gateway.governance.database.read(self._gateway.roster.count)
        consents = await asyncio.to_thread(self._live_consents, [person.subject for person in people])
        return visit.render(
            "people.html",
            cur="people",
            headline=t(f"{total:,} 人", counted(total, "person", "people")) if total else t("还没有人员", "Nobody yet"),
            people=[self._line(person, consents[person.subject], t) for person in people],
            total=total,
            search=search,
            following=following,
            can_write=visit.may(Scope.PEOPLE_WRITE),
            can_enrol=visit.may(Scope.ENROL),
        )

    async def choose(self, visit: Visit) -> Response:
        """The first step of an enrolment: who, and of what."""
        t, people, search, following = visit.t, *await self._found(visit)
        consents = await asyncio.to_thread(self._live_consents, [person.subject for person in people])
        return visit.render(
            "choose.html",
            cur="people",
            people=[self._line(person, consents[person.subject], t) for person in people],
            search=search,
            following=following,
            modalities=[
                (modality.value, *MODALITIES[modality][:1], t(*MODALITIES[modality][1:]))
                for modality in METERS
                if self._enrollable(modality)
            ],
        )

    async def _found(self, visit: Visit) -> tuple[list[Person], str, str]:
        """A page of people, what was searched for, and the query of the next page."""
        search, after, roster = visit.query("search", 100), visit.query("after"), self._gateway.roster
        found = await self._gateway.governance.database.read(
            lambda c: roster.people(c, after=after, limit=PAGE, search=search)
        )
        await self._note(visit, "people.read", rows=len(found))
        following = urlencode({"search": search, "after": found[-1].subject}) if len(found) == PAGE else ""
        return found, search, following

    async def person(self, visit: Visit) -> Response:
        t, gateway, subject = visit.t, self._gateway, visit.path("subject")
        person = await self._find(subject)
        if person is None:
            return visit.missing(t("名单里没有这个人", "Nobody here has this number"))
        store, site = gateway.biometrics.store, gateway.governance.configuration.site
        consents = await asyncio.to_thread(store.consents, SubjectId(subject))
        placements = await asyncio.to_thread(store.placements, SubjectId(subject))
        live = [c for c in consents if c.state in LIVE]
        rights = await gateway.governance.database.read(lambda c: rights_of(c, subject))
        await self._note(visit, "person.read", subject=subject)
        papers = await receipts_of(gateway, subject) if visit.may(Scope.PRIVACY_READ) else []
        return visit.render(
            "person.html",
            cur="people",
            person=person,
            number=person.user_ids[0][1] if person.user_ids else "",
            base=person_view(person).model_dump_json(include={"name", "department", "valid_from", "valid_until"}),
            first_day=self._first_day(person),
            last_day=self._last_day(person),
            notice=site.privacy.notice_version,
            modalities=[self._modality(modality, live, t) for modality in Modality],
            past=sorted({(MODALITIES[c.modality], STATES[c.state]) for c in consents if c.state not in LIVE}),
            today=await self._day(visit, subject, rights),
            receipts=[receipt_paper(paper, views.zone_of(gateway), t, person.name) for paper in papers],
            placements=self._placements(live, placements, t),
            rights=rights,
            rights_view=asdict(rights) | {"groups": list(rights.groups)},
            groups=[group.name for group in site.access.groups],
            fingers=[(n, t(*names)) for n, names in enumerate(FINGERS, 1)],
            can_write=visit.may(Scope.PEOPLE_WRITE),
            can_enrol=visit.may(Scope.ENROL),
            can_erase=visit.may(Scope.ERASE),
            can_export=visit.may(Scope.EXPORT),
        )

    async def _day(self, visit: Visit, subject: str, rights: Rights) -> dict[str, Any] | None:
        if not visit.may(Scope.EVENTS_READ):
            return None
        gateway, zone, t = self._gateway, views.zone_of(self._gateway), visit.t
        now = gateway.governance.now().astimezone(zone)
        shown = min(day_of(visit.query("day")) or now.date(), now.date())
        since, until = day.span(shown, zone)
        newest = await gateway.outbox.events(
            subject=subject, since=since, until=until, limit=DAY_EVENTS, newest_first=True
        )
        rules = gateway.governance.configuration.site.access
        hours = day.open_hours(rules, rights.groups, shown)
        in_order = sorted(newest, key=lambda item: item.event.occurred_at)
        return {
            "title": t("今天", "Today") if shown == now.date() else shown.isoformat(),
            "before": _other(shown, -1),
            "after": _other(shown, 1) if shown < now.date() else "",
            "track": day.track(in_order, hours, zone, t),
            "now": round((now.hour * 60 + now.minute) / 14.4, 2) if shown == now.date() else None,
            "rows": await views.shown_rows(gateway, newest[:12], t),
            "more": max(0, len(newest) - 12),
            "link": urlencode({"subject": subject, "since": shown.isoformat(), "until": shown.isoformat()}),
        }

    async def enrol(self, visit: Visit) -> Response:
        t, gateway, subject = visit.t, self._gateway, visit.path("subject")
        person = await self._find(subject)
        wanted = visit.query("modality") or "face"
        if person is None or wanted not in METERS:
            return RedirectResponse("/enrol", status_code=303)
        modality = Modality(wanted)
        site = gateway.governance.configuration.site
        wanted_kind: type = Camera if modality is Modality.FACE else FingerprintReader
        days = site.retention.templates_days or 0
        until = gateway.governance.now().astimezone(views.zone_of(gateway)) + timedelta(days=days)
        _, zh, en = MODALITIES[modality]
        await self._note(visit, "person.read", subject=subject)
        return visit.render(
            "enrol.html",
            cur="people",
            person=person,
            modality=modality.value,
            label=t(zh, en.lower()),
            usable=self._enrollable(modality),
            notice=site.privacy.notice_version,
            until=until.strftime(t("%Y 年 %m 月 %d 日", "%d %b %Y")),
            fingers=[(n, t(*names)) for n, names in enumerate(FINGERS, 1)],
            meters=[(" ".join(names), t(*words)) for names, *words in METERS[modality]],
            sensors=[
                device.name
                for device in site.devices
                if modality in device.biometrics and isinstance(gateway.fleet.driver(device.name), wanted_kind)
            ],
        )

    async def _find(self, subject: str) -> Person | None:
        def read(connection: sqlite3.Connection) -> Person | None:
            return self._gateway.roster.person(connection, subject)

        return await self._gateway.governance.database.read(read)

    async def _note(self, visit: Visit, action: str, *, subject: str = "", **details: Any) -> None:
        entry = Entry(actor=visit.caller.name, action=action, object=subject, details=details or None)
        await self._gateway.governance.note(entry)

    def _live_consents(self, subjects: list[str]) -> dict[str, list[StoredConsent]]:
        store = self._gateway.biometrics.store
        return {subject: [c for c in store.consents(SubjectId(subject)) if c.state in LIVE] for subject in subjects}

    def _enrollable(self, modality: Modality) -> bool:
        """Whether the enterprise's terms and this machine's engines allow an enrolment now."""
        biometrics = self._gateway.biometrics
        return (
            not biometrics.sealed
            and terms_fault(modality, biometrics.terms()) is None
            and biometrics.identification.supports(modality)
        )

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
            "until": self._last_day(person) or "—",
        }

    def _last_day(self, person: Person) -> str:
        """The last day on the site's clock on which they are still valid."""
        if person.valid_until is None:
            return ""
        return (
            (person.valid_until - timedelta(microseconds=1)).astimezone(views.zone_of(self._gateway)).date().isoformat()
        )

    def _first_day(self, person: Person) -> str:
        since = person.valid_from
        return since.astimezone(views.zone_of(self._gateway)).date().isoformat() if since else ""

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
            "enrollable": self._enrollable(modality),
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

    def _placements(self, live: list[StoredConsent], placed: list[Placement], t: Text) -> list[tuple[str, str]]:
        names = {health.serial: name for name, health in self._gateway.fleet.health.items() if health.serial}
        here = [(t("本机模板库", "This gateway"), t("加密，AES-256-GCM", "sealed, AES-256-GCM"))] if live else []
        return here + [(names.get(item.device_serial, item.device_serial), t(*PLACED[item.state])) for item in placed]


def _other(shown: date, step: int) -> str:
    return (shown + timedelta(days=step)).isoformat()


def _first_of(consent: StoredConsent, live: list[StoredConsent]) -> bool:
    """One icon for a modality, however many purposes."""
    return next(c for c in live if c.modality is consent.modality) is consent
