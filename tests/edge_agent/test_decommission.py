from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent import Agent
from edge_agent.config import parse
from edge_agent.decommission import Ending, NotConfirmed, Report, decommission, ordered, reported
from edge_agent.devices.wiping import wipe
from edge_agent.policy.consent import ConsentRefused
from tests.flows.agent_site import ANN, AgentSite, acts, agent_site, enrol_finger, happened, online, people

DEVICES = ("zk", "isapi", "controller", "reader", "sensor")


async def end(agent: Agent, **more: Any) -> Report:
    return await decommission(agent, actor="li", confirm_host="gw1", notice_s=10, **more)


async def populated(agent: Agent, s: AgentSite) -> None:
    await people(agent)
    await online(agent)
    await enrol_finger(agent, ANN, 1)
    s.zk.swipe("1001")
    await happened(agent, "attendance.punch")


def outcomes(report: Report) -> dict[str, str]:
    return {device["name"]: device["outcome"] for device in report.document["devices"]}


async def test_the_end_leaves_no_person_no_key_and_a_report_that_recipients_can_check(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s:
        async with s.running(s.site(*DEVICES)) as agent:
            await populated(agent, s)
            with pytest.raises(NotConfirmed):
                await decommission(agent, actor="li", confirm_host="gw2")
            assert not ordered(s.data)
            report = await end(agent)
            assert outcomes(report) == {
                "zk": "wiped",
                "isapi": "wiped",
                "controller": "wiped",
                "reader": "nothing",
                "sensor": "wiped",
            }
            assert report.complete
            assert not s.zk.memory.users
            assert report.document["steps"]["data"]["people"] == 2
            assert report.document["steps"]["templates"] | {"at": ""} == {
                "people": 1,
                "keys": 1,
                "warning": "",
                "at": "",
            }
            assert report.document["audit"]["intact"]
            with pytest.raises(ConsentRefused):
                await agent.enrolment.start(acts(ANN), actor="li", position=2)
            assert await agent.outbox.events() == []
            s.zk.swipe("1001")
            bodies = len(s.receiver.bodies)
        [told] = await s.receiver.told("gateway.decommissioned")
        assert report.verify(bytes.fromhex(told["data"]["public_key"]))
        assert len(s.receiver.bodies) == bodies
        left = {path.name for path in s.data.rglob("*") if path.is_file()} - {"agent.db-wal", "agent.db-shm"}
        assert left <= {"agent.db", "agent.db.ballast", "audit.anchors", "decommission.report.json"}
        kept = b"".join(path.read_bytes() for path in s.data.rglob("agent.db*"))
        assert b"Ann" not in kept
        again = reported(s.data)
        assert again is not None
        assert again.document == report.document


async def test_a_changed_report_does_not_verify() -> None:
    report = Report({"complete": True, "devices": [], "signature": "00" * 64})
    assert not report.verify(bytes(32))


async def test_an_offline_terminal_is_owed_its_wiping_and_gets_it_later_or_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.decommission.wipe", partial(wipe, reach_s=2.0, timeout_s=3.0))
    async with agent_site(tmp_path) as s:
        wanted = s.site("zk", "isapi", "adms")
        async with s.running(wanted) as agent:
            await people(agent)
            await online(agent)
            s.zk.go_offline()
        agent = await Agent.open(parse(s.document(wanted), source="test"))  # as the command line does: not at work
        try:
            report = await end(agent)
            assert (report.complete, report.pending) == (False, ["zk", "adms"])
            assert (s.data / "identity.key").exists()
            await s.zk.come_back()
            report = await end(agent)
            assert report.pending == ["adms"]
            assert not s.zk.memory.users
            report = await end(agent, leave_devices=True)
            assert outcomes(report) == {"zk": "wiped", "isapi": "wiped", "adms": "left"}
            assert report.complete
            assert not (s.data / "identity.key").exists()
            assert (await end(agent)).document == report.document
        finally:
            await agent.close()


STEPS = ("capture_off", "notify", "close_interfaces", "wipe_devices", "destroy_templates", "delete_data", "report")


class PowerCut(Exception):
    pass


@pytest.mark.parametrize("broken", STEPS)
async def test_a_crash_after_any_step_is_made_good(
    tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent_site(tmp_path) as s:
        config = parse(s.document(s.site("zk")), source="test")
        agent = await Agent.open(config)
        await people(agent)
        real = getattr(Ending, broken)

        async def cut(self: Ending, *args: Any, **kwargs: Any) -> None:
            await real(self, *args, **kwargs)
            raise PowerCut

        with monkeypatch.context() as patch:
            patch.setattr(Ending, broken, cut)
            with pytest.raises(PowerCut):
                await end(agent)
        await agent.close()
        assert ordered(s.data)
        report = reported(s.data)
        if report is None:
            agent = await Agent.open(config)
            assert agent.site.devices[0].enabled is False  # nothing is captured meanwhile
            report = await end(agent)
            await agent.close()
        assert report.complete
        assert json.loads((s.data / "decommission.report.json").read_text())["complete"]
        assert not s.zk.memory.users
        assert not (s.data / "identity.key").exists()
        assert not (s.data / "templates.db").exists()
