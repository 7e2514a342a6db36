"""An incident from its signal to its papers, over a real agent that is not running."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from edge_agent.audit import Entry
from edge_agent.command_line.local_client import Invitation
from edge_agent.config import ModalitySwitch
from edge_agent.delivery.event import Event
from edge_agent.doors.alarms import Alarm, AlarmKind, raise_alarm
from edge_agent.incident_documents import Language, Paper, paper
from edge_agent.incidents import Incident, IncidentKind
from edge_agent.policy.roles import Role
from templates_store.template import Modality
from tests.edge_agent.api.whole import PERSON, Whole, whole_gateway


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Whole]:
    async with whole_gateway(tmp_path) as made:
        yield made


async def with_faces(whole: Whole) -> None:
    agent = whole.agent
    site = agent.site.model_copy(
        update={"modalities": {Modality.FACE: ModalitySwitch(enabled=True), Modality.IRIS: ModalitySwitch()}}
    )
    await agent.configuration.apply(site, actor="t", reason="t", now=agent.clock())
    agent.biometrics._switch()


async def tampered(whole: Whole) -> None:
    agent, now = whole.agent, whole.agent.clock()
    alarm = Alarm(AlarmKind.TAMPER, "panel", now, "tamper-1")
    event = Event("tamper-1", "door.tamper", now, "panel", None, {})
    await agent.database.write(lambda c: raise_alarm(c, alarm, event, now=now))


async def test_a_tampered_device_opens_one_incident_however_often_it_is_looked_at(whole: Whole) -> None:
    await whole.agent.incidents.watch()
    assert await whole.agent.incidents.all() == []
    await tampered(whole)
    for _ in range(3):
        await whole.agent.incidents.watch()
    [found] = await whole.agent.incidents.all()
    assert (found.kind, found.opened_by, found.note) == (IncidentKind.TAMPER, "agent", "panel")
    told = [item.event.type for item in await whole.agent.outbox.events(type_prefix="incident")]
    assert told == ["incident.opened"]
    assert whole.agent.incidents.open_count == 1


async def test_a_signal_seen_while_the_disk_is_full_opens_one_when_there_is_room(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    await tampered(whole)
    looks = 0

    async def turn(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            monkeypatch.undo()
        elif looks == 3:
            watching.cancel()
        await asyncio.sleep(0)

    monkeypatch.setattr(whole.agent.database.ballast, "high_water", 1 << 50)
    watching = asyncio.create_task(whole.agent.incidents.run(wait=turn))
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert [found.kind for found in await whole.agent.incidents.all()] == [IncidentKind.TAMPER]


async def test_a_changed_audit_row_opens_one(whole: Whole) -> None:
    await whole.agent.database.write(lambda c: c.execute("UPDATE audit SET actor = 'nobody' WHERE seq = 1"))
    await whole.agent.incidents.watch()
    [found] = await whole.agent.incidents.all()
    assert found.kind is IncidentKind.AUDIT
    assert "row 1" in found.note


async def test_a_run_of_refused_sign_ins_opens_one_and_a_forgotten_password_does_not(whole: Whole) -> None:
    governance = whole.app.state.gateway.governance
    for count, expected in ((5, 0), (20, 1)):
        for _ in range(count):
            await governance.note(
                Entry(actor="lin", action="session.refused", outcome="denied", details={"locked": True})
            )
        await whole.agent.incidents.watch()
        assert len(await whole.agent.incidents.all()) == expected


async def test_freezing_stops_every_modality_and_thawing_brings_back_what_was_on(whole: Whole) -> None:
    await with_faces(whole)
    incidents, store = whole.agent.incidents, whole.agent.biometrics.store
    opened = await incidents.open(IncidentKind.LOSS, actor="lin")
    frozen = await incidents.freeze(opened.id, actor="lin")
    assert frozen.frozen
    assert not store.enabled(Modality.FACE)
    assert whole.agent.biometrics.terms().switched_on == frozenset()
    await incidents.freeze(opened.id, actor="lin")  # again: what to bring back stays known
    thawed = await incidents.thaw(opened.id, actor="lin")
    assert not thawed.frozen
    assert whole.agent.biometrics.terms().switched_on == {Modality.FACE}
    with pytest.raises(ValueError, match="froze nothing"):
        await incidents.thaw(opened.id, actor="lin")


async def test_a_freeze_leaves_what_somebody_else_changes_in_that_moment(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    await with_faces(whole)
    agent = whole.agent
    opened = await agent.incidents.open(IncidentKind.LOSS, actor="lin")
    written_down = agent.incidents._step

    async def meanwhile(*step: str | None) -> Incident:
        site = agent.site.model_copy(update={"site": "moved"})
        await agent.configuration.apply(site, actor="li", reason="t", now=agent.clock())
        return await written_down(*step)  # type: ignore[arg-type]

    monkeypatch.setattr(agent.incidents, "_step", meanwhile)
    await agent.incidents.freeze(opened.id, actor="lin")
    assert (agent.site.site, agent.site.modalities[Modality.FACE].enabled) == ("moved", False)


async def switched(whole: Whole, modality: Modality, **changes: object) -> None:
    agent = whole.agent
    modalities = agent.site.modalities | {modality: agent.site.modalities[modality].model_copy(update=changes)}
    site = agent.site.model_copy(update={"modalities": modalities})
    await agent.configuration.apply(site, actor="lin", reason="change modalities", now=agent.clock())


async def test_thawing_leaves_alone_what_the_enterprise_switched_since(whole: Whole) -> None:
    agent, incidents = whole.agent, whole.agent.incidents
    on = {modality: ModalitySwitch(enabled=True) for modality in (Modality.FACE, Modality.FINGERPRINT, Modality.IRIS)}
    site = agent.site.model_copy(update={"modalities": on})
    await agent.configuration.apply(site, actor="lin", reason="t", now=agent.clock())
    opened = await incidents.open(IncidentKind.LOSS, actor="lin")
    await incidents.freeze(opened.id, actor="lin")
    await switched(whole, Modality.FACE, enabled=True)
    await switched(whole, Modality.FACE, enabled=False)  # and off it stays
    await switched(whole, Modality.FINGERPRINT, target_fpir=0.0005)
    fewer = {modality: switch for modality, switch in agent.site.modalities.items() if modality is not Modality.IRIS}
    site = agent.site.model_copy(update={"modalities": fewer})
    await agent.configuration.apply(site, actor="lin", reason="t", now=agent.clock())
    await incidents.thaw(opened.id, actor="lin")
    assert agent.site.modalities == {
        Modality.FACE: ModalitySwitch(enabled=False),
        Modality.FINGERPRINT: ModalitySwitch(enabled=True, target_fpir=0.0005),
    }


@pytest.mark.parametrize("first", [0, 1])
async def test_what_two_incidents_want_off_comes_back_with_the_second(whole: Whole, first: int) -> None:
    await with_faces(whole)
    incidents = whole.agent.incidents
    opened = [await incidents.open(IncidentKind.LOSS, actor="lin") for _ in range(2)]
    for incident in opened:
        await incidents.freeze(incident.id, actor="lin")
    assert not (await incidents.thaw(opened[first].id, actor="lin")).frozen
    assert whole.agent.biometrics.terms().switched_on == frozenset()
    await incidents.thaw(opened[1 - first].id, actor="lin")
    assert whole.agent.biometrics.terms().switched_on == {Modality.FACE}


async def test_what_the_enterprise_switched_off_between_two_incidents_stays_off(whole: Whole) -> None:
    await with_faces(whole)
    incidents = whole.agent.incidents
    one, two = [await incidents.open(IncidentKind.LOSS, actor="lin") for _ in range(2)]
    await incidents.freeze(one.id, actor="lin")
    await switched(whole, Modality.FACE, enabled=True)
    await switched(whole, Modality.FACE, enabled=False)
    await incidents.freeze(two.id, actor="lin")
    for incident in (one, two):
        await incidents.thaw(incident.id, actor="lin")
    assert whole.agent.biometrics.terms().switched_on == frozenset()


async def test_a_closed_incident_keeps_no_other_frozen(whole: Whole) -> None:
    await with_faces(whole)
    incidents = whole.agent.incidents
    one, two = [await incidents.open(IncidentKind.LOSS, actor="lin") for _ in range(2)]
    await incidents.freeze(one.id, actor="lin")
    await incidents.freeze(two.id, actor="lin")
    await incidents.close(two.id, actor="lin")
    await incidents.thaw(one.id, actor="lin")
    assert whole.agent.biometrics.terms().switched_on == {Modality.FACE}


async def test_an_incident_may_freeze_and_thaw_more_than_once(whole: Whole) -> None:
    await with_faces(whole)
    incidents = whole.agent.incidents
    opened = await incidents.open(IncidentKind.LOSS, actor="lin")
    for _ in range(2):
        await incidents.freeze(opened.id, actor="lin")
        assert whole.agent.biometrics.terms().switched_on == frozenset()
        await incidents.thaw(opened.id, actor="lin")
        assert whole.agent.biometrics.terms().switched_on == {Modality.FACE}


async def test_exchanging_ends_every_session_and_token_and_makes_new_keys(whole: Whole) -> None:
    browser = await whole.browser("admin")
    before = (await browser.get("/api/v1/keys")).json()["kek"]
    opened = (await browser.post("/api/v1/incidents", json={"kind": "intrusion", "note": "n"})).json()
    answer = await browser.post(f"/api/v1/incidents/{opened['id']}/exchange")
    assert answer.status_code == 200, answer.text
    assert answer.json()["keys_at"]
    assert (await browser.get("/api/v1/keys")).status_code == 401
    async with whole.client(Role.ADMIN) as machine:
        assert (await machine.get("/api/v1/keys")).status_code == 401
    token = Invitation.read(whole.agent.config.gateway.data_dir).token  # the command line has a new one
    kek = (await whole.client(Authorization=f"Bearer {token}").get("/api/v1/keys")).json()["kek"]
    assert kek not in {"", before}


async def test_who_is_affected_is_counted_from_what_rests_here(whole: Whole) -> None:
    agent, now = whole.agent, whole.agent.clock()
    subject = PERSON["subject"]
    old = Event("old", "attendance.punch", now - timedelta(days=9), "panel", "p-gone", {})
    new = Event("new", "attendance.punch", now - timedelta(hours=1), "panel", subject, {})
    await agent.outbox.append([old, new])
    opened = await agent.incidents.open(IncidentKind.DISCLOSURE, actor="lin")
    found = await agent.incidents.affected(opened.id)
    assert found.subjects == {subject: ["card", "events", "identity"]}  # outside the span is not affected
    assert found.classes == {"card": 1, "events": 1, "identity": 1}


LANGUAGES: tuple[tuple[Language, str, str], ...] = (
    ("zh", "打卡与通行记录: 1 人", "〔请填写〕"),
    ("en", "access records: 1 people", "[to be filled in]"),
)


@pytest.mark.parametrize(("language", "words", "gap"), LANGUAGES)
@pytest.mark.parametrize("kind", Paper)
async def test_the_papers_have_the_figures_and_leave_gaps_for_what_only_people_know(
    whole: Whole, kind: Paper, language: Language, words: str, gap: str
) -> None:
    agent, now = whole.agent, whole.agent.clock()
    await agent.outbox.append([Event("e", "attendance.punch", now, "panel", PERSON["subject"], {})])
    opened = await agent.incidents.open(IncidentKind.LOSS, actor="lin", note="U 盘", until=now + timedelta(hours=1))
    affected = await agent.incidents.affected(opened.id)
    text = paper(kind, opened, affected, gateway="gw", zone=ZoneInfo("Asia/Shanghai"), language=language)
    assert words in text
    assert opened.id in text
    assert PERSON["name"] not in text
    assert gap in text


async def test_the_whole_way_through_the_api(whole: Whole) -> None:
    await with_faces(whole)
    async with whole.client(Role.PRIVACY_OFFICER) as officer:
        opened = await officer.post("/api/v1/incidents", json={"kind": "loss", "note": "laptop", "freeze": True})
        where = f"/api/v1/incidents/{opened.json()['id']}"
        assert opened.json()["frozen"]
        assert (await officer.get(f"{where}/affected")).json()["classes"]["identity"] == 1
        report = await officer.get(f"{where}/report", params={"lang": "en"})
        assert report.headers["content-type"].startswith("text/markdown")
        assert "capture and matching of biometrics stopped" in report.text
        assert (await officer.post(f"{where}/exchange")).status_code == 403  # keys are the administrator's
        assert (await officer.post(f"{where}/thaw")).json()["frozen"] is False
        assert (await officer.post(f"{where}/thaw")).status_code == 409
        assert (await officer.post(f"{where}/close")).json()["closed_by"].startswith("token:")
        assert (await officer.get("/api/v1/incidents/none")).status_code == 404
    warned = await whole.client(Role.ADMIN).get("/api/v1/status")
    assert warned.json()["warnings"] == [w for w in warned.json()["warnings"] if "incident" not in w]


@pytest.mark.parametrize(
    ("language", "words"),
    [
        (
            "zh",
            (
                "1 起安全事件正在处理",
                "设备或备份丢失",
                "停止采集和比对",
                "更换密钥和口令",
                "告知书（英文）",
                "受影响的人",
            ),
        ),
        ("en", ("1 incident is open", "A device or a backup was lost", "Stop capture", "Exchange keys", "(Chinese)")),
    ],
)
async def test_the_page_offers_every_step_and_paper_in_words(
    whole: Whole, language: str, words: tuple[str, ...]
) -> None:
    opened = await whole.agent.incidents.open(IncidentKind.LOSS, actor="lin", note="U 盘")
    admin, auditor = await whole.browser("admin"), await whole.browser("auditor")
    text = (await admin.get(f"/incidents?lang={language}")).text
    for word in words:
        assert word in text, word
    calls = set(re.findall(rf"/api/v1/incidents/{opened.id}/[a-z?=]+", text))
    papers = {f"/api/v1/incidents/{opened.id}/{kind}?lang={to}" for kind in ("notice", "report") for to in ("zh", "en")}
    steps = {f"/api/v1/incidents/{opened.id}/{step}" for step in ("freeze", "close", "affected")}
    assert calls == papers | steps
    for call in papers:
        assert (await admin.get(call)).status_code == 200
    await whole.agent.incidents.freeze(opened.id, actor="lin")
    assert "/thaw" in (await admin.get("/incidents")).text
    seen = (await auditor.get(f"/incidents?lang={language}")).text
    assert "/report?lang" in seen
    assert "/thaw" not in seen
