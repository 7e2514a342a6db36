from __future__ import annotations

import logging
from pathlib import Path

import pytest

from device_drivers.c3.driver import C3Panel
from device_drivers.devices import DeviceConfig
from edge_agent import logs
from edge_agent.console import views
from edge_agent.database import utc_now
from edge_agent.devices.supervise import Supervisor
from edge_agent.policy.roles import Role
from edge_agent.policy.rules import AccessRules
from tests.edge_agent.api.whole import PERSON, Whole

SECRETS = {
    "password": "canary-password-of-a-person",
    "device": "canary-password-of-a-device",
    "upstream": "canary-secret-of-an-upstream",
    "passphrase": "canary-passphrase-of-a-keeper",
    "pin": "86420975",
    "card": "0071234567890",
    "token": "canary-one-time-token",
    "name": "canary-name-of-a-person",
}


async def test_probes_answer_without_a_caller_and_tell_when_no_punch_could_be_kept(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with whole.client() as stranger:
        assert (await stranger.get("/healthz")).text == "ok\n"
        assert (await stranger.get("/readyz")).json() == {"ready": True}
        monkeypatch.setattr(whole.agent.database.ballast, "short", True)
        short = await stranger.get("/readyz")
    assert (short.status_code, short.json()) == (503, {"ready": False})


async def test_what_a_driver_at_work_warns_of_is_said_where_health_is_shown(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = C3Panel(DeviceConfig("gate", "c3", address="192.0.2.7"))
    panel.warning = "backlog unreadable"
    attendance, fleet = whole.agent.attendance, whole.agent.fleet
    gate = Supervisor(
        panel.config,
        lambda config, cursor: panel,
        record_for=lambda: attendance.recorder("gate"),
        load_cursor=lambda: attendance.cursor("gate"),
    )
    gate.driver = panel
    monkeypatch.setitem(fleet._supervisors, "gate", gate)
    async with whole.client(Role.ADMIN) as admin:
        said = (await admin.get("/api/v1/status")).json()["warnings"]
    shown = views.warnings(whole.app.state.gateway, lambda zh, en: en)
    assert "gate: backlog unreadable" in said
    assert "gate: what happens while it is not connected cannot be read from it" in shown


async def test_a_door_that_cannot_do_as_it_should_is_said_where_health_is_shown(whole: Whole) -> None:
    site = whole.agent.site
    lost = {"name": "yard", "device": "panel-9", "verify": [["card"]]}
    access = AccessRules.model_validate({**site.access.model_dump(), "doors": [*site.access.doors, lost]})
    await whole.agent.configuration.apply(
        site.model_copy(update={"access": access}), actor="li", reason="a gate", now=utc_now()
    )
    whole.agent.doors.modes.untold["yard"] = "no door 9 on this controller"
    async with whole.client(Role.ADMIN) as admin:
        said = (await admin.get("/api/v1/status")).json()["warnings"]
    assert "door yard: no door 9 on this controller" in said
    doors = {lamp.label: lamp for lamp in views.lamps(whole.app.state.gateway, views.Seen(), lambda zh, en: en)}[
        "Doors"
    ]
    assert (doors.value, doors.tone) == ("1 at odds", "warn")
    del whole.agent.doors.modes.untold["yard"]
    assert "Door yard: there is no device panel-9" in views.warnings(whole.app.state.gateway, lambda zh, en: en)


async def test_metrics_hold_nothing_personal(whole: Whole) -> None:
    async with whole.client(Role.INTEGRATION) as scraper:
        text = (await scraper.get("/metrics")).text
    assert "edge_agent_rights_requests_overdue 0.0" in text
    for value in (*PERSON.values(), "the-admin", "of-admin"):
        assert value not in text


async def test_no_secret_comes_into_a_log_whatever_fails(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything secret that the API takes, taken, refused and failing inside, at the debug level."""
    s, file = SECRETS, tmp_path / "agent.log"
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    logs.configure(verbose=True, file=file)
    calls = (
        ("POST", "/api/v1/setup", {"token": s["token"], "name": "lin", "password": s["password"]}),
        ("POST", "/api/v1/session", {"name": "the-admin", "password": s["password"]}),
        ("POST", "/api/v1/accounts", {"name": "x1", "role": "admin", "password": s["password"]}),
        ("POST", "/api/v1/devices", {"name": "d", "kind": "zkteco", "address": "192.0.2.1", "password": s["device"]}),
        ("POST", "/api/v1/upstreams", {"name": "u", "url": "https://u.example", "secret": s["upstream"]}),
        ("POST", "/api/v1/keys/unseal", {"passphrase": s["passphrase"]}),
        ("POST", "/api/v1/people", {"name": s["name"], "pin": s["pin"], "card": s["card"]}),
        ("PUT", "/api/v1/config", {"devices": [{"name": "d", "kind": "none", "password": s["device"]}]}),
    )
    try:
        async with whole.client(Role.ADMIN, **{"If-Match": '"1"'}) as admin:
            for method, path, body in calls:
                await admin.request(method, path, json=body)
            monkeypatch.setattr(whole.agent.database, "write", _fails)
            monkeypatch.setattr(whole.agent.configuration, "complete", _fails)
            monkeypatch.setattr(whole.agent.biometrics, "unseal", _fails)
            statuses = [(await admin.request(method, path, json=body)).status_code for method, path, body in calls]
            monkeypatch.undo()
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = before
        root.setLevel(level)
    assert 500 in statuses
    text = file.read_text("utf-8")
    assert "request_failed" in text
    for secret in (*s.values(), whole.tokens[Role.ADMIN], whole.cookies["admin"]):
        assert secret not in text


def _fails(*_: object, **__: object) -> None:
    raise RuntimeError("a defect")
