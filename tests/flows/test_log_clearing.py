"""Clearing a terminal's log: never before upstream has everything, never more than was read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from device_drivers.devices import CommandState
from edge_agent.agent import Agent
from edge_agent.database import utc_now
from edge_agent.delivery.sink import Refused
from edge_agent.devices.log_clearing import NotCleared
from tests.flows.agent_site import AgentSite, agent_site, delivered, happened, online, until, upstream


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[AgentSite]:
    async with agent_site(tmp_path) as made:
        yield made


async def audited(agent: Agent) -> list[str]:
    rows = await agent.database.read(
        lambda c: c.execute("SELECT outcome FROM audit WHERE action = 'device.log.clear' ORDER BY seq").fetchall()
    )
    return [outcome for (outcome,) in rows]


async def test_a_log_is_cleared_once_every_punch_is_upstream(site: AgentSite) -> None:
    async with site.running(site.site("zk")) as agent:
        site.zk.swipe("1001")
        await happened(agent, "attendance.punch")
        await delivered(agent)
        result = await agent.log_clearing.clear("zk", actor="li")
        assert (result.state, site.zk.memory.records) == (CommandState.DONE, 0)
        site.zk.swipe("1002")
        await happened(agent, "attendance.punch", lambda stored: stored.event.data["user_id"] == "1002")
        await delivered(agent)
        assert await audited(agent) == ["ordered", "ok"]
    assert [event["data"]["user_id"] for event in await site.receiver.told()] == ["1001", "1002"]


async def test_nothing_is_cleared_while_a_recipient_lacks_a_punch(site: AgentSite) -> None:
    dead = upstream("archive", site.receiver) | {"url": "http://127.0.0.1:9/events"}
    async with site.running(site.site("zk", upstreams=[upstream("collector", site.receiver), dead])) as agent:
        site.zk.swipe("1001")
        punch = await happened(agent, "attendance.punch")
        await delivered(agent)
        with pytest.raises(NotCleared, match="archive lacks 1"):
            await agent.log_clearing.clear("zk", actor="li")
        await agent.outbox.quarantine("archive", punch.sequence, reason=str(Refused("HTTP 400")))
        with pytest.raises(NotCleared, match="archive lacks 1"):
            await agent.log_clearing.clear("zk", actor="li")
        await agent.outbox.discard("archive", [punch.sequence])
        assert (await agent.log_clearing.clear("zk", actor="li")).state is CommandState.DONE


async def test_a_new_name_does_not_make_old_punches_confirmed(site: AgentSite) -> None:
    dead = upstream("archive", site.receiver) | {"url": "http://127.0.0.1:9/events"}
    wanted = site.site("zk", upstreams=[dead])
    async with site.running(wanted) as agent:
        site.zk.swipe("1001")
        await happened(agent, "attendance.punch")
        wanted["devices"][0]["name"] = "north-gate"
        await agent.configuration.apply(agent.configuration.complete(wanted), actor="li", reason="t", now=utc_now())
        await until(lambda: "north-gate" in agent.fleet.health)
        await online(agent)
        with pytest.raises(NotCleared, match="archive lacks 1"):
            await agent.log_clearing.clear("north-gate", actor="li")
        assert site.zk.memory.records == 1


async def test_without_a_mandatory_recipient_nobody_has_confirmed_anything(site: AgentSite) -> None:
    optional = upstream("collector", site.receiver, mandatory=False)
    async with site.running(site.site("zk", upstreams=[optional])) as agent:
        site.zk.swipe("1001")
        await happened(agent, "attendance.punch")
        with pytest.raises(NotCleared, match="no mandatory upstream"):
            await agent.log_clearing.clear("zk", actor="li")
        assert (site.zk.memory.records, await audited(agent)) == (1, [])


async def test_a_device_without_a_log_or_without_a_connection_says_so(site: AgentSite) -> None:
    async with site.running(site.site("isapi")) as agent:
        await online(agent)
        with pytest.raises(NotCleared, match="no log to clear"):
            await agent.log_clearing.clear("isapi", actor="li")
        with pytest.raises(NotCleared, match="not connected"):
            await agent.log_clearing.clear("nowhere", actor="li")
