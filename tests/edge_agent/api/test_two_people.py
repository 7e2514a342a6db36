from __future__ import annotations

import html
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from edge_agent.__main__ import NotApproved, _decommission
from edge_agent.agent import Agent
from edge_agent.api import accounts
from edge_agent.api.access import RateLimit
from edge_agent.api.approvals import END
from edge_agent.api.two_people import approved
from edge_agent.audit import Entry
from edge_agent.database import DiskFull
from edge_agent.decommission import ordered
from edge_agent.policy.roles import Role
from edge_agent.policy.rules import DoorMode
from edge_agent.policy.two_people import ActKind, TwoPeople
from edge_agent.server import application
from tests.edge_agent.api.whole import PERSON, Whole, whole_gateway

OPEN = "/api/v1/doors/gate/open"


async def asked_for(whole: Whole, *kinds: ActKind) -> None:
    site = whole.agent.site.model_copy(update={"two_people": TwoPeople(acts=frozenset(kinds), minutes=30)})
    await whole.agent.configuration.apply(site, actor="t", reason="t", now=whole.agent.clock())


async def actions(whole: Whole) -> list[tuple[str, str, str]]:
    return await whole.agent.database.read(
        lambda c: c.execute("SELECT actor, action, outcome FROM audit WHERE action LIKE 'act.%'").fetchall()
    )


async def held(answer: httpx.Response) -> str:
    assert answer.status_code == 202, answer.text
    assert answer.json()["state"] == "waiting"
    return answer.headers["location"]


async def test_one_asks_another_approves_and_then_it_is_done(whole: Whole) -> None:
    await asked_for(whole, ActKind.DOOR_OPEN)
    guard, admin = await whole.browser("security"), await whole.browser("admin")
    where = await held(await guard.post(OPEN))
    assert where == await held(await guard.post(OPEN))  # asked twice is one act
    assert [act["asked"] for act in (await admin.get("/api/v1/approvals")).json()] == [{"door": "gate"}]
    done = (await admin.post(f"{where}/approve")).json()
    assert (done["state"], done["person"], done["decided_by"]) == ("done", "the-security", "the-admin")
    assert "failed" in done["outcome"]  # it was tried: the panel of this test is not there
    again = await admin.post(f"{where}/approve")
    assert again.status_code == 409
    assert [row[:2] for row in await actions(whole)][:2] == [("the-security", "act.ask"), ("the-admin", "act.approve")]


async def test_nobody_decides_their_own_act_in_any_guise(whole: Whole) -> None:
    await asked_for(whole, ActKind.DOOR_OPEN)
    admin = await whole.browser("admin")
    token = (await admin.post("/api/v1/tokens", json={"name": "mine", "scopes": ["doors:open", "status:read"]})).json()
    machine = whole.client(Authorization=f"Bearer {token['token']}")
    where = await held(await machine.post(OPEN))
    assert (await admin.get(where)).json()["person"] == "the-admin"
    for client in (admin, machine):
        refused = await client.post(f"{where}/approve")
        assert (refused.status_code, refused.json()["code"]) == (403, "two_people")
    assert ("the-admin", "act.approve", "denied") in await actions(whole)


async def test_a_machine_decides_nothing_and_asks_only_for_a_person(whole: Whole) -> None:
    await asked_for(whole, ActKind.DOOR_OPEN)
    where = await held(await (await whole.browser("security")).post(OPEN))
    async with whole.client(Role.ADMIN) as machine:  # issued by nobody who has an account
        assert (await machine.post(f"{where}/approve")).status_code == 403
        nobody = await machine.post(OPEN)
    assert (nobody.status_code, nobody.json()["code"]) == (403, "nobody")


FIRST, OWN = "a sentence they know too", "nobody else knows this one"


async def signed_in(whole: Whole, name: str, password: str) -> httpx.AsyncClient:
    client = whole.client()
    whole.app.state.access.sign_ins = RateLimit(per_s=1, burst=1)
    answer = await client.post("/api/v1/session", json={"name": name, "password": password})
    assert answer.status_code == 200, answer.text
    client.headers["X-CSRF-Token"] = answer.json()["csrf"]
    return client


async def account(whole: Whole, maker: httpx.AsyncClient, name: str, *, reset: bool = False) -> httpx.AsyncClient:
    """Made or reset by `maker`; then somebody signs in and sets "their own" password."""
    if reset:
        tag = {"If-Match": (await maker.get(f"/api/v1/accounts/{name}")).headers["etag"]}
        made = await maker.patch(f"/api/v1/accounts/{name}", json={"password": FIRST}, headers=tag)
    else:
        made = await maker.post("/api/v1/accounts", json={"name": name, "role": "admin", "password": FIRST})
    assert made.status_code in {200, 201}, made.text
    client = await signed_in(whole, name, FIRST)
    changed = await client.put("/api/v1/session/me/password", json={"current": FIRST, "new": OWN})
    assert changed.status_code == 204
    return client


async def test_an_account_is_no_second_person_to_whoever_made_it(whole: Whole) -> None:
    await asked_for(whole, ActKind.DOOR_OPEN)
    admin, second = await whole.browser("admin"), await whole.browser("second-admin")
    body = {"name": "fresh", "role": "admin", "password": FIRST}
    assert (await admin.post("/api/v1/accounts", json=body)).status_code == 201
    puppet = await account(whole, admin, "puppet")
    where = await held(await admin.post(OPEN))
    with_first = await (await signed_in(whole, "fresh", FIRST)).post(f"{where}/approve")
    assert "set their own password" in with_first.json()["detail"]
    refused = await puppet.post(f"{where}/approve")
    assert (refused.status_code, refused.json()["code"]) == (403, "two_people")
    assert "edge-agent accounts reset" in refused.json()["detail"]
    assert (await puppet.get(where)).json()["why_not"] == "hands"
    own_act = await held(await puppet.post(OPEN))
    assert (await admin.post(f"{own_act}/approve")).status_code == 403
    assert (await second.post(f"{own_act}/approve")).json()["state"] == "done"  # a third person


async def test_no_detour_leads_out_of_the_hands_that_made_an_account(whole: Whole) -> None:
    await asked_for(whole, ActKind.DOOR_OPEN)
    admin = await whole.browser("admin")
    one, two = await account(whole, admin, "puppet1"), await account(whole, admin, "puppet2")
    assert (await one.post(f"{await held(await two.post(OPEN))}/approve")).status_code == 403  # one person's puppets
    scopes = ["accounts:write"]
    token = (await one.post("/api/v1/tokens", json={"name": "ci", "scopes": scopes})).json()["token"]
    machine = whole.client(Authorization=f"Bearer {token}")
    three = await account(whole, machine, "puppet3")
    two = await account(whole, one, "puppet2", reset=True)  # the puppets reset each other
    one = await account(whole, two, "puppet1", reset=True)
    where = await held(await admin.post(OPEN))
    for puppet in (one, two, three):
        assert (await puppet.get(where)).json()["why_not"] == "hands"


@pytest.mark.parametrize("by", ["another administrator", "the gateway itself"])
async def test_an_account_that_others_reset_is_a_second_person(whole: Whole, by: str) -> None:
    await asked_for(whole, ActKind.DOOR_OPEN)
    admin = await whole.browser("admin")
    await account(whole, admin, "colleague")
    other = await whole.browser("second-admin") if by == "another administrator" else whole.client(Role.ADMIN)
    colleague = await account(whole, other, "colleague", reset=True)
    where = await held(await admin.post(OPEN))
    assert (await colleague.post(f"{where}/approve")).json()["state"] == "done"


async def sign_in_at(client: httpx.AsyncClient, oidc: dict[str, Any] | None) -> None:
    tag = (await client.get("/api/v1/config/sign_in")).headers["etag"]
    answer = await client.put("/api/v1/config/sign_in", json={"oidc": oidc}, headers={"If-Match": tag})
    assert answer.status_code == 200, answer.text


async def test_a_provider_set_up_by_the_asker_vouches_for_no_second_person(whole: Whole) -> None:
    """Otherwise one administrator with an identity provider of their own would be two people."""
    await asked_for(whole, ActKind.DOOR_OPEN)
    admin = await whole.browser("admin")
    mine = {"issuer": "https://mine.example", "client_id": "x", "roles": {"all": "admin"}}
    await sign_in_at(admin, mine)
    await whole.agent.database.write(
        lambda c: c.execute("UPDATE accounts SET identity = 'https://mine.example 1' WHERE name = 'the-second-admin'")
    )
    where = await held(await admin.post(OPEN))
    second, guard = await whole.browser("second-admin"), await whole.browser("security")
    refused = await second.post(f"{where}/approve")
    assert "identity provider" in refused.json()["detail"]
    assert (await guard.post(f"{where}/approve")).json()["state"] == "done"  # who does not come from there


async def test_whose_provider_it_was_stays_true_when_it_is_taken_off_and_its_people_are_signed_out(
    whole: Whole,
) -> None:
    await asked_for(whole, ActKind.DOOR_OPEN)
    admin, second = await whole.browser("admin"), await whole.browser("second-admin")
    await sign_in_at(admin, {"issuer": "https://mine.example", "client_id": "x", "roles": {"all": "admin"}})
    ghost = await whole.browser("security")
    await whole.agent.database.write(
        lambda c: c.execute("UPDATE accounts SET identity = 'https://mine.example 1' WHERE name = 'the-security'")
    )
    where = await held(await admin.post(OPEN))
    await sign_in_at(second, None)
    assert (await ghost.get("/api/v1/session/me")).status_code == 401
    await sign_in_at(second, {"issuer": "https://mine.example.other", "client_id": "x"})
    session = await whole.agent.database.write(
        lambda c: accounts.open_session(
            c, accounts.Account("the-security", Role.SECURITY), address="", agent="", now=whole.agent.clock()
        )
    )
    again = await Whole(whole.agent, whole.app, whole.tokens, {"ghost": session.id}).browser("ghost")
    assert "identity provider" in (await again.post(f"{where}/approve")).json()["detail"]


async def test_what_nobody_decided_in_time_falls_away(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    await asked_for(whole, ActKind.DOOR_OPEN)
    guard, admin = await whole.browser("security"), await whole.browser("admin")
    where = await held(await guard.post(OPEN))
    later = whole.agent.clock() + timedelta(minutes=31)
    monkeypatch.setattr(whole.app.state.gateway.governance, "now", lambda: later)
    assert (await admin.post(f"{where}/approve")).status_code == 409
    assert [act["state"] for act in (await admin.get("/api/v1/approvals")).json()] == ["expired"]
    assert ("agent", "act.expire", "ok") in await actions(whole)


async def test_who_asked_takes_it_back_and_others_refuse(whole: Whole) -> None:
    await asked_for(whole, ActKind.DOOR_OPEN)
    guard, admin = await whole.browser("security"), await whole.browser("admin")
    for who in (guard, admin):
        where = await held(await guard.post(OPEN))
        assert (await who.post(f"{where}/refuse")).json()["state"] == "refused"
        assert (await admin.post(f"{where}/approve")).status_code == 409


async def test_what_breaks_when_it_is_carried_out_can_be_asked_for_again(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(door: str, *, actor: str) -> None:
        raise DiskFull("no room")

    await asked_for(whole, ActKind.DOOR_OPEN)
    guard, admin = await whole.browser("security"), await whole.browser("admin")
    where = await held(await guard.post(OPEN))
    with monkeypatch.context() as patch:
        patch.setattr(whole.agent.conclusion, "open_remotely", full)
        assert (await admin.post(f"{where}/approve")).status_code == 503
    again = await held(await guard.post(OPEN))
    assert again != where
    assert (await admin.post(f"{again}/approve")).json()["state"] == "done"


async def test_an_approval_lapses_with_the_right_to_ask(whole: Whole) -> None:
    await asked_for(whole, ActKind.DOOR_OPEN)
    where = await held(await (await whole.browser("security")).post(OPEN))
    await whole.agent.database.write(lambda c: accounts.set_disabled(c, "the-security", disabled=True))
    assert (await (await whole.browser("admin")).post(f"{where}/approve")).status_code == 409


async def test_an_export_is_given_once_to_who_asked_and_rests_nowhere(whole: Whole) -> None:
    await asked_for(whole, ActKind.EXPORT)
    officer = await whole.browser("privacy_officer")
    await whole.agent.database.write(
        lambda c: accounts.add(c, "deputy", role=Role.PRIVACY_OFFICER, password_hash=None, now=whole.agent.clock())
    )
    session = await whole.agent.database.write(
        lambda c: accounts.open_session(
            c, accounts.Account("deputy", Role.PRIVACY_OFFICER), address="", agent="", now=whole.agent.clock()
        )
    )
    whole = Whole(whole.agent, whole.app, whole.tokens, {**whole.cookies, "deputy": session.id})
    deputy = await whole.browser("deputy")
    where = await held(await officer.get("/api/v1/people/p1001/export"))
    approved = (await deputy.post(f"{where}/approve")).json()
    assert (approved["state"], approved["outcome"]) == ("approved", "")
    await held(await deputy.get("/api/v1/people/p1001/export"))  # leave was not given to them
    assert (await officer.get("/api/v1/people/p1001/export")).json()["people"][0]["subject"] == "p1001"
    await held(await officer.get("/api/v1/people/p1001/export"))  # once
    await held(await officer.get("/api/v1/events/export"))


@pytest.mark.parametrize(
    ("kind", "who", "call"),
    [
        (ActKind.LOCKDOWN, "admin", ("POST", "/api/v1/doors/lockdown", None)),
        (ActKind.LOCKDOWN, "admin", ("POST", "/api/v1/doors/lockdown/lift", None)),
        (ActKind.LOCKDOWN, "admin", ("PUT", "/api/v1/doors/gate/mode", {"mode": "lockdown"})),
        (ActKind.DOOR_OPEN, "admin", ("PUT", "/api/v1/doors/gate/mode", {"mode": "unlocked"})),
        (ActKind.ERASURE, "privacy_officer", ("POST", "/api/v1/people/p1001/erasures", {"verb": "delete"})),
        (ActKind.KEY_ROTATION, "admin", ("POST", "/api/v1/keys/rotate", None)),
        (ActKind.DECOMMISSION, "admin", ("POST", "/api/v1/decommission/permit", None)),
        (
            ActKind.DISCLOSURE,
            "privacy_officer",
            ("POST", "/api/v1/disclosures", {"subject": "p1001", "authority": "court", "reference": "12/26"}),
        ),
    ],
)
async def test_each_act_waits_where_it_is_asked_for_and_not_otherwise(
    whole: Whole, kind: ActKind, who: str, call: tuple[str, str, Any]
) -> None:
    client = await whole.browser(who)
    method, path, body = call

    async def ask() -> httpx.Response:
        read = await client.get("/api/v1/doors/gate") if method == "PUT" else None
        tag = {"If-Match": read.headers["etag"]} if read else {}
        return await client.request(method, path, json=body, headers=tag)

    await asked_for(whole)
    assert (await ask()).status_code in {200, 201, 204}
    await asked_for(whole, kind)
    await held(await ask())


async def test_an_incident_is_no_way_around_the_second_person_of_a_rotation(whole: Whole) -> None:
    await asked_for(whole, ActKind.KEY_ROTATION)
    admin, second = await whole.browser("admin"), await whole.browser("second-admin")
    opened = (await admin.post("/api/v1/incidents", json={"kind": "loss"})).json()["id"]
    before = whole.agent.biometrics.kek()
    assert (await admin.post("/api/v1/incidents/none/exchange")).status_code == 404
    where = await held(await admin.post(f"/api/v1/incidents/{opened}/exchange"))
    assert whole.agent.biometrics.kek() == before
    assert f"因事件 {opened} 更换密钥" in await page(whole, "second-admin", "zh")
    assert (await second.post(f"{where}/approve")).json()["state"] == "done"
    assert whole.agent.biometrics.kek() != before


async def test_taking_back_a_consent_never_waits(whole: Whole) -> None:
    await asked_for(whole, *ActKind)
    officer = await whole.browser("privacy_officer")
    answer = await officer.post("/api/v1/people/p1001/erasures", json={"verb": "withdraw", "modality": "face"})
    assert answer.status_code == 201, answer.text


async def test_no_configuration_takes_the_second_person_away(whole: Whole) -> None:
    await asked_for(whole, ActKind.DOOR_OPEN, ActKind.DISCLOSURE)
    admin, second = await whole.browser("admin"), await whole.browser("second-admin")
    document = await admin.get("/api/v1/config")
    tag = {"If-Match": document.headers["etag"]}
    weaker = document.json() | {"two_people": {"acts": [], "minutes": 30}}
    whole_document = await admin.put("/api/v1/config", json=weaker, headers=tag)
    section = await admin.get("/api/v1/config/two_people")
    part = await admin.put(
        "/api/v1/config/two_people", json=weaker["two_people"], headers={"If-Match": section.headers["etag"]}
    )
    back = await admin.post("/api/v1/config/versions/1/restore", headers=tag)
    assert [answer.json()["code"] for answer in (whole_document, part, back)] == ["two_people"] * 3

    async def put(**rules: Any) -> httpx.Response:
        tag = (await admin.get("/api/v1/two-people")).headers["etag"]
        return await admin.put("/api/v1/two-people", json=rules, headers={"If-Match": tag})

    assert (await put(acts=[*ActKind], minutes=5)).status_code == 200
    where = await held(await put(acts=["export"], minutes=5))
    assert (await second.post(f"{where}/approve")).json()["state"] == "done"
    assert whole.agent.site.two_people.acts == {ActKind.EXPORT}


UNLOCKED_ALL_DAY: dict[str, Any] = {
    "schedules": {"allday": {"weekly": {"daily": ["00:00-24:00"]}}},
    "doors": [{"name": "gate", "device": "panel", "mode_times": [{"schedule": "allday", "mode": "unlocked"}]}],
}


async def test_no_configuration_does_alone_what_takes_two_people(whole: Whole) -> None:
    admin, second = await whole.browser("admin"), await whole.browser("second-admin")

    async def put(section: str, body: Any, **query: str) -> httpx.Response:
        tag = {"If-Match": (await admin.get(f"/api/v1/config/{section}")).headers["etag"]}
        return await admin.put(f"/api/v1/config/{section}", json=body, headers=tag, params=query)

    async def changed(section: str, **values: Any) -> httpx.Response:
        return await put(section, (await admin.get(f"/api/v1/config/{section}")).json() | values)

    closed = (await admin.get("/api/v1/config/access")).json()
    await asked_for(whole)
    assert (await changed("access", **UNLOCKED_ALL_DAY)).status_code == 200  # nobody asked for two people
    assert (await put("access", closed)).status_code == 200
    assert (await changed("retention", templates_days=365)).status_code == 200
    await asked_for(whole, ActKind.DOOR_OPEN, ActKind.LOCKDOWN, ActKind.ERASURE)
    assert (await put("site", "HQ 2")).status_code == 200  # what opens nothing waits for nobody
    assert (await changed("access", **UNLOCKED_ALL_DAY)).status_code == 202
    document = await admin.get("/api/v1/config")
    tag = {"If-Match": document.headers["etag"]}
    access = document.json()["access"] | UNLOCKED_ALL_DAY
    await held(await admin.put("/api/v1/config", json=document.json() | {"access": access}, headers=tag))
    await held(await changed("access", doors=[], groups=[]))  # with its door a lockdown would go
    await held(await changed("retention", templates_days=1))
    assert whole.agent.site.access.doors[0].mode_times == ()
    assert whole.agent.site.retention.templates_days == 365

    where = await held(await changed("access", **UNLOCKED_ALL_DAY))
    assert "“gate” stands open: unlocked allday 00:00-24:00" in await page(whole, "second-admin", "en")
    assert (await admin.post(f"{where}/approve")).status_code == 403
    assert (await second.post(f"{where}/approve")).json()["state"] == "approved"
    assert "save the same change once more" in await page(whole, "admin", "en")
    more = UNLOCKED_ALL_DAY | {"doors": [UNLOCKED_ALL_DAY["doors"][0] | {"mode": "unlocked"}]}
    await held(await changed("access", **more))  # not what was approved
    assert (await changed("access", **UNLOCKED_ALL_DAY)).status_code == 200
    assert (await put("access", closed)).status_code == 200
    await held(await changed("access", **UNLOCKED_ALL_DAY))  # it was approved once


async def test_going_back_to_a_version_with_open_doors_waits_too(whole: Whole) -> None:
    await asked_for(whole, ActKind.DOOR_OPEN)
    admin, closed = await whole.browser("admin"), whole.agent.site
    doors = tuple(door.model_copy(update={"mode": DoorMode.UNLOCKED}) for door in closed.access.doors)
    opened = closed.model_copy(update={"access": closed.access.model_copy(update={"doors": doors})})
    numbers = [
        (await whole.agent.configuration.apply(each, actor="t", reason="t", now=whole.agent.clock())).number
        for each in (opened, closed)
    ]
    path, tag = f"/api/v1/config/versions/{numbers[0]}/restore", {"If-Match": f'"{numbers[1]}"'}
    await held(await admin.post(path, headers=tag))


async def test_a_disclosure_is_for_two_people_unless_they_said_otherwise(whole: Whole) -> None:
    assert ActKind.DISCLOSURE in whole.agent.site.two_people.acts
    await asked_for(whole)
    officer = await whole.browser("privacy_officer")
    body = {"subject": "p1001", "authority": "市公安局", "reference": "调证字12号"}
    answer = await officer.post("/api/v1/disclosures", json=body)
    assert answer.json()["reference"] == "调证字12号"
    assert answer.json()["people"][0]["subject"] == "p1001"
    [row] = await whole.agent.database.read(
        lambda c: c.execute("SELECT actor, object, details FROM audit WHERE action = 'person.disclose'").fetchall()
    )
    assert row[:2] == ("the-privacy_officer", "p1001")
    assert "调证字12号" in row[2]


async def test_every_act_has_its_own_row_in_the_chain(whole: Whole) -> None:
    await asked_for(whole, ActKind.DOOR_OPEN)
    await held(await (await whole.browser("security")).post(OPEN))
    await whole.app.state.gateway.governance.note(Entry(actor="t", action="t"))
    assert (await whole.agent.database.read(whole.agent.audit.verify)).intact


async def test_the_end_of_a_gateway_waits_for_its_second_person_too(tmp_path: Path) -> None:
    async with whole_gateway(tmp_path) as whole:
        await asked_for(whole, ActKind.DECOMMISSION)
        where = await held(await (await whole.browser("admin")).post("/api/v1/decommission/permit"))
        settings = whole.agent.config
    with pytest.raises(NotApproved):
        await _decommission(settings, "gw", leave_devices=True)
    assert not ordered(tmp_path)
    agent = await Agent.open(settings)
    try:
        again = Whole(agent, application(agent.gateway()), whole.tokens, whole.cookies)
        second = await again.browser("second-admin")
        assert (await second.post(f"{where}/approve")).json()["state"] == "approved"
        assert (await (await again.browser("admin")).post("/api/v1/decommission/permit")).status_code == 204
        assert await agent.database.read(lambda c: approved(c, END.name, now=agent.clock()))
    finally:
        await agent.close()


async def page(whole: Whole, who: str, language: str) -> str:
    client = await whole.browser(who)
    return (await client.get(f"/approvals?lang={language}")).text


async def test_the_page_says_in_words_what_was_asked_and_who_may_decide(whole: Whole) -> None:
    await asked_for(whole, ActKind.DOOR_OPEN, ActKind.LOCKDOWN, ActKind.EXPORT)
    guard, admin = await whole.browser("security"), await whole.browser("admin")
    where = await held(await guard.post(OPEN))
    tag = {"If-Match": (await admin.get("/api/v1/doors/gate")).headers["etag"]}
    order = {"mode": "unlocked", "minutes": 5}
    await held(await admin.put("/api/v1/doors/gate/mode", json=order, headers=tag))
    rules = {"acts": ["lockdown"], "minutes": 90}
    tag = {"If-Match": (await admin.get("/api/v1/two-people")).headers["etag"]}
    await held(await admin.put("/api/v1/two-people", json=rules, headers=tag))
    officer = await whole.browser("privacy_officer")
    await held(await officer.get("/api/v1/people/p1001/export"))

    act = (await guard.get(where)).json()
    assert (act["why_not"], act["deciders"]) == ("own_act", ["admin", "security"])
    assert (await admin.get(where)).json()["why_not"] is None

    text = await page(whole, "security", "en")
    assert "Open “gate” once" in text
    assert "You asked for it: another person has to approve." in text
    assert "Administrator, Security; not the-security" in text
    assert "Take back" in text
    assert "/approve" not in text
    text = await page(whole, "admin", "zh")
    assert "把「gate」开一次" in text
    assert "让「gate」保持开锁 5 分钟" in text
    assert "不再要的：远程开门、保持开锁、导出数据；最多等 90 分钟" in text
    assert f"{where}/approve" in text
    assert "导出" not in text.partition("不再要的")[0].rpartition("以后要两个人的")[0]  # not this role's to see
    local = datetime.fromisoformat(act["asked_at"]).astimezone(ZoneInfo("Asia/Shanghai"))
    assert f"{local:%Y-%m-%d %H:%M:%S}" in text
    assert f"导出 {PERSON['name']} (p1001) 的全部数据" in await page(whole, "privacy_officer", "zh")

    assert (await admin.post(f"{where}/approve")).status_code == 200
    assert "It was tried; the door did not open" in await page(whole, "admin", "en")


async def test_what_waits_for_me_is_counted_and_my_own_is_not(whole: Whole) -> None:
    await asked_for(whole, ActKind.DOOR_OPEN)
    guard, admin = await whole.browser("security"), await whole.browser("admin")
    await held(await guard.post(OPEN))
    assert "1 act waits for your approval" in (await admin.get("/?lang=en")).text
    assert "for your approval" not in (await guard.get("/?lang=en")).text


async def test_an_approved_export_is_fetched_from_the_page_by_who_asked(whole: Whole) -> None:
    await asked_for(whole, ActKind.EXPORT)
    officer = await whole.browser("privacy_officer")
    where = await held(await officer.get("/api/v1/events/export?format=ndjson&device=panel"))
    await whole.agent.database.write(lambda c: c.execute("UPDATE acts SET state = 'approved'"))
    text = html.unescape(await page(whole, "privacy_officer", "en"))
    assert "Export as NDJSON: all events, device panel" in text
    call = text.partition('data-save="GET ')[2].partition('"')[0]
    assert (await officer.get(call)).status_code == 200
    assert (await officer.get(where)).json()["state"] == "done"  # the very one that was approved
