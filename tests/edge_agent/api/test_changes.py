"""Changing devices, upstreams, sections, doors and accounts: on what was read, all or nothing, and read back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from device_drivers.adms.queue import QueuedCommand
from edge_agent.delivery.event import Event
from edge_agent.devices.command_journal import DatabaseJournal
from edge_agent.policy.roles import Role
from templates_store.template import Modality
from tests.edge_agent.api.whole import PERSON, Whole

UPSTREAM = {"name": "hr", "url": "https://hr.example/v1/events", "secret": "s3cret", "fields": ["user_id", "door"]}


async def changed(
    client: httpx.AsyncClient, path: str, body: Any, *, read: str = "", method: str = "PATCH"
) -> tuple[httpx.Response, httpx.Response]:
    """The same change twice on one reading: the first is taken, the second came too late."""
    tag = (await client.get(read or path)).headers["etag"]
    first = await client.request(method, path, json=body, headers={"If-Match": tag})
    second = await client.request(method, path, json=body, headers={"If-Match": tag})
    assert second.status_code == 412, second.text
    assert second.headers["etag"] != tag
    return first, second


async def test_a_scan_tells_who_answered_and_who_of_them_is_configured(whole: Whole) -> None:
    async with whole.client(Role.ADMIN) as admin:
        [found] = (await admin.post("/api/v1/devices/scan")).json()
        assert (found["kind"], found["address"], found["name"]) == ("uhppote", "192.0.2.40:60000", "")
        body = {"name": "panel-2", "kind": "uhppote", "address": found["address"], "serial": found["serial"]}
        assert (await admin.post("/api/v1/devices", json=body)).status_code == 201
        [found] = (await admin.post("/api/v1/devices/scan")).json()
        assert found["name"] == "panel-2"
        entries = (await admin.get("/api/v1/audit?action=device.scan")).json()["rows"]
        assert len(entries) == 2


async def test_a_device_is_changed_on_what_was_read_and_keeps_its_password(whole: Whole) -> None:
    async with whole.client(Role.ADMIN) as admin:
        body = {"name": "lobby", "kind": "zkteco", "address": "192.0.2.7", "serial": "S1", "password": "4711"}
        assert (await admin.post("/api/v1/devices", json=body)).status_code == 201
        change = {"address": "192.0.2.8", "biometrics": ["fingerprint"]}
        first, _ = await changed(admin, "/api/v1/devices/lobby", change)
        assert (first.json()["address"], first.json()["biometrics"]) == ("192.0.2.8", ["fingerprint"])
        device = whole.agent.site.devices[1]
        assert (device.address, device.password.get_secret_value()) == ("192.0.2.8", "4711")
        assert (await admin.patch("/api/v1/devices/lobby", json={"enabled": False})).status_code == 428
        tag = {"If-Match": (await admin.get("/api/v1/devices/lobby")).headers["etag"]}
        bad = await admin.patch("/api/v1/devices/lobby", json={"timezone": "Nowhere/Else"}, headers=tag)
        assert (bad.status_code, bad.json()["errors"][0]["field"]) == (422, "devices[1].timezone")
        assert whole.agent.site.devices[1].timezone is None  # nothing half applied
        assert (await admin.delete("/api/v1/devices/lobby", headers={"If-Match": '"1"'})).status_code == 412
        assert (await admin.delete("/api/v1/devices/lobby", headers=tag)).status_code == 204


async def test_commands_that_wait_for_a_terminal_are_listed_without_their_words(whole: Whole) -> None:
    agent, until = whole.agent, whole.agent.clock() + timedelta(hours=1)
    journal = DatabaseJournal(agent.database, b"k" * 32, clock=agent.clock)
    await journal.save("CQZ1", QueuedCommand(7, "DATA UPDATE USERINFO PIN=1\tName=司马青岚", until))
    async with whole.client(Role.ADMIN) as admin:
        body = {"name": "push", "kind": "adms", "serial": "CQZ1"}
        assert (await admin.post("/api/v1/devices", json=body)).status_code == 201
        answer = await admin.get("/api/v1/devices/push/commands")
        assert [(each["number"], each["state"], each["sends"]) for each in answer.json()] == [(7, "queued", 0)]
        assert "司马青岚" not in answer.text
        assert (await admin.get("/api/v1/devices/panel/commands")).json() == []
        assert (await admin.get("/api/v1/devices/none/commands")).status_code == 404


async def test_an_upstream_is_added_changed_stopped_and_taken_back(whole: Whole) -> None:
    async with whole.client(Role.ADMIN) as admin:
        added = await admin.post("/api/v1/upstreams", json=UPSTREAM)
        assert (added.status_code, added.json()["fields"]) == (201, ["user_id", "door"])
        assert "s3cret" not in added.text
        assert (await admin.post("/api/v1/upstreams", json=UPSTREAM)).status_code == 409
        await whole.agent.outbox.append([Event("e1", "t", datetime(2026, 11, 23, tzinfo=UTC), "", None, {})])
        assert (await admin.post("/api/v1/upstreams/hr/revoke")).status_code == 204
        assert (await admin.get("/api/v1/upstreams/hr")).json()["revoked"] is True
        assert (await admin.post("/api/v1/upstreams/hr/reinstate")).status_code == 204
        back = (await admin.get("/api/v1/upstreams/hr")).json()
        assert (back["revoked"], back["pending"], back["balanced"]) == (False, 0, True)  # not what it missed
        first, _ = await changed(admin, "/api/v1/upstreams/hr", {"fields": ["user_id"], "timeout_s": 5})
        assert first.json()["fields"] == ["user_id"]
        assert whole.agent.site.upstreams[0].secret.get_secret_value() == "s3cret"
        tag = {"If-Match": (await admin.get("/api/v1/upstreams/hr")).headers["etag"]}
        bad = await admin.patch("/api/v1/upstreams/hr", json={"fields": ["salary"]}, headers=tag)
        assert bad.status_code == 422
        assert "'subject', 'user_id'" in bad.json()["detail"]  # what is allowed
        for path in ("revoke", "reinstate"):
            assert (await admin.post(f"/api/v1/upstreams/nobody/{path}")).status_code == 404
        tag = {"If-Match": (await admin.get("/api/v1/upstreams/hr")).headers["etag"]}
        assert (await admin.delete("/api/v1/upstreams/hr", headers=tag)).status_code == 204
        assert whole.agent.site.upstreams == ()


async def test_a_release_recognises_whom_a_number_means_now_where_it_is_asked_to(whole: Whole) -> None:
    outbox, now = whole.agent.outbox, whole.agent.clock()
    await outbox.register("hr")
    said = {"user_id": "500", "known": False}
    await outbox.append([Event(f"e{n}", "attendance.punch", now, "panel", None, said) for n in (1, 2, 3)])
    for n in (1, 2, 3):
        await outbox.quarantine("hr", n, reason="unknown user")
    async with whole.client(Role.ADMIN) as admin:
        await changed(admin, f"/api/v1/people/{PERSON['subject']}", {"user_id": "500"})
        judged = {"upstream": "hr", "action": "release"}
        for more in ({"sequences": [1]}, {"sequences": [2], "recognise": True}):
            assert (await admin.post("/api/v1/quarantine", json=judged | more)).json() == {"count": 1}
    subjects = [item.event.subject for item in await outbox.events()][:3]
    assert subjects == [None, PERSON["subject"], None]  # the third still waits for a person's word


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("modalities", {"face": {"enabled": True}}),
        ("retention", {"events_days": 90, "templates_days": 365}),
        ("site", "Building 3"),
        ("sign_in", {"oidc": {"issuer": "https://id.example", "client_id": "gw", "secret": "x"}}),
    ],
)
async def test_each_section_is_replaced_on_its_own(whole: Whole, section: str, value: Any) -> None:
    async with whole.client(Role.ADMIN) as admin:
        path = f"/api/v1/config/{section}"
        tag = (await admin.get(path)).headers["etag"]
        dry = await admin.put(path, params={"dry_run": True}, json=value, headers={"If-Match": tag})
        assert dry.json()["changes"]
        assert (await admin.get(path)).headers["etag"] == tag
        first, _ = await changed(admin, path, value, method="PUT")
        assert first.json()["version"] == 2
        shown = await admin.get(path)
        assert first.headers["etag"] == shown.headers["etag"]
        assert '"x"' not in shown.text
        assert (await admin.put(path, json=["nonsense"], headers={"If-Match": "*"})).status_code == 412
        bad = await admin.put(path, json=["nonsense"], headers={"If-Match": shown.headers["etag"]})
        assert bad.status_code == 422
        assert bad.json()["errors"]


async def test_schedules_groups_and_holidays_are_a_section(whole: Whole) -> None:
    async with whole.client(Role.ADMIN) as admin:
        answer = await admin.get("/api/v1/config/access")
        document = answer.json()
        document["groups"].append({"name": "night", "grants": [{"doors": ["gate"], "schedule": "nowhen"}]})
        tag = {"If-Match": answer.headers["etag"]}
        bad = await admin.put("/api/v1/config/access", json=document, headers=tag)
        assert "there is no 'nowhen'; allowed: always" in bad.json()["detail"]
        document["groups"][-1]["grants"][0]["schedule"] = "always"
        assert (await admin.put("/api/v1/config/access", json=document, headers=tag)).status_code == 200
        assert [group.name for group in whole.agent.site.access.groups] == ["staff", "night"]


async def test_a_door_an_account_and_a_person_are_changed_on_what_was_read(whole: Whole) -> None:
    admin = await whole.browser("admin")
    await changed(admin, "/api/v1/doors/gate/mode", {"mode": "locked"}, read="/api/v1/doors/gate", method="PUT")
    first, _ = await changed(admin, "/api/v1/accounts/the-auditor", {"role": "operator"})
    assert first.json()["role"] == "operator"
    first, _ = await changed(admin, f"/api/v1/people/{PERSON['subject']}", {"department": "二部"})
    assert first.json()["department"] == "二部"
    rules = {"acts": ["door_open", "disclosure"], "minutes": 5}
    first, _ = await changed(admin, "/api/v1/two-people", rules, method="PUT")
    assert first.headers["etag"] == (await admin.get("/api/v1/two-people")).headers["etag"]


async def test_the_last_administrator_keeps_the_role(whole: Whole) -> None:
    admin = await whole.browser("admin")
    first, _ = await changed(admin, "/api/v1/accounts/the-second-admin", {"role": "auditor"})
    assert first.status_code == 200
    tag = {"If-Match": (await admin.get("/api/v1/accounts/the-admin")).headers["etag"]}
    refused = await admin.patch("/api/v1/accounts/the-admin", json={"role": "auditor"}, headers=tag)
    assert (refused.status_code, refused.json()["code"]) == (409, "last_administrator")


async def test_a_consent_is_recorded_without_an_enrolment_and_only_on_the_terms_in_force(whole: Whole) -> None:
    now = whole.agent.clock()
    said = {
        "modality": "face",
        "of_age": True,
        "consents": [
            {"purpose": "attendance", "notice_version": "3", "given_at": now.isoformat(), "evidence_sha256": "9f" * 32}
        ],
    }
    path = f"/api/v1/people/{PERSON['subject']}/consents"
    async with whole.client(Role.PRIVACY_OFFICER) as officer, whole.client(Role.ADMIN) as admin:
        refused = await officer.post(path, json=said)
        assert (refused.status_code, refused.json()["code"]) == (409, "switch_off")
        document = await admin.get("/api/v1/config")
        wanted = document.json() | {
            "modalities": {"face": {"enabled": True}},
            "privacy": {"notice_version": "3", "impact_assessment": "1"},
            "retention": {"templates_days": 30},
        }
        tag = {"If-Match": document.headers["etag"]}
        assert (await admin.put("/api/v1/config", json=wanted, headers=tag)).status_code == 200
        whole.agent.biometrics._switch()
        recorded = await officer.post(path, json=said)
        assert recorded.status_code == 201, recorded.text
        assert [(c["purpose"], c["state"]) for c in recorded.json()] == [("attendance", "valid")]
        given = whole.agent.biometrics.galleries.consents()
        assert [(c.subject_id, c.modality) for c in given] == [(PERSON["subject"], Modality.FACE)]
        said["of_age"] = False
        assert (await officer.post(path, json=said)).json()["code"] == "age_unknown"
        assert (await officer.post("/api/v1/people/nobody/consents", json=said)).status_code == 404


async def test_keys_backup_and_thresholds_are_read_and_made(whole: Whole) -> None:
    async with whole.client(Role.ADMIN) as admin:
        before = (await admin.get("/api/v1/keys")).json()
        assert (before["provider"], before["sealed"]) == ("file", False)
        key = {"Idempotency-Key": "k1"}
        rotated = (await admin.post("/api/v1/keys/rotate", headers=key)).json()["kek"]
        assert rotated != before["kek"]
        assert (await admin.post("/api/v1/keys/rotate", headers=key)).json()["kek"] == rotated  # once
        assert (await admin.get("/api/v1/backup")).status_code == 404
        made = (await admin.post("/api/v1/backup")).json()
        assert (await admin.get("/api/v1/backup")).json() == made
        curves = (await admin.post("/api/v1/calibration")).json()
        assert curves == (await admin.get("/api/v1/calibration")).json()
        assert all(curve["thresholds"]["0.001"] < curve["thresholds"]["1e-06"] for curve in curves)


async def test_a_command_that_was_refused_may_be_sent_again_with_its_key(whole: Whole) -> None:
    async with whole.client(Role.OPERATOR) as operator:
        for _ in range(2):
            answer = await operator.post("/api/v1/devices/panel/clock", headers={"Idempotency-Key": "k2"})
            assert (answer.status_code, answer.json()["code"]) == (409, "offline")


async def test_a_token_ends_with_its_time(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    later = whole.agent.clock() + timedelta(days=2)
    monkeypatch.setattr(whole.app.state.access, "_now", lambda: later)
    async with whole.client(Role.ADMIN) as admin:
        assert (await admin.get("/api/v1/status")).status_code == 401
