"""Whatever is lost, nothing opens by itself and decisions go on: the whole agent, real sockets, cables pulled."""

from __future__ import annotations

from pathlib import Path

from device_drivers.simulated.uhppote import CONTROLLED
from edge_agent.agent import Agent
from edge_agent.devices.supervise import LinkState
from tests.flows.agent_site import ANN, AgentSite, agent_site, delivered, happened, online, people, until

DOOR = 1  # the relay
NOWHERE = "http://127.0.0.1:1/events"


def untouched(s: AgentSite, *, opened: int) -> None:
    """The relay has moved so often and no more, and the door asks as before."""
    assert s.controller.opened == [DOOR] * opened
    assert s.controller.doors[DOOR].mode == CONTROLLED


async def granted(agent: Agent, s: AgentSite, *, opened: int) -> None:
    last = agent.outbox.last_sequence
    s.show_card(ANN)
    await happened(agent, "access.granted", lambda stored: stored.sequence > last)
    await until(lambda: len(s.controller.opened) == opened)


async def test_without_upstream_decisions_go_on_and_are_told_when_it_is_back(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s:
        site = s.site("controller", "reader")
        site["upstreams"][0]["url"] = NOWHERE
        async with s.running(site) as agent:
            await people(agent)
            await online(agent)
            await granted(agent, s, opened=1)
            await granted(agent, s, opened=2)
            assert (await agent.outbox.stats())[0].pending >= 2
        untouched(s, opened=2)
        async with s.running(site) as agent:
            site["upstreams"][0]["url"] = s.receiver.url
            await agent.configuration.apply(
                agent.site.model_validate(site), actor="li", reason="back", now=agent.clock()
            )
            await delivered(agent)
            assert len(await s.receiver.told("access.granted")) == 2


async def test_a_readers_cable_that_is_cut_opens_nothing_and_stops_nobody_else(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s, s.running(s.site("controller", "reader")) as agent:
        await people(agent)
        await online(agent)
        s._bus.unplug()
        await until(lambda: agent.fleet.health["reader"].state is not LinkState.ONLINE)
        untouched(s, opened=0)
        await agent.conclusion.open_remotely("front", actor="li")
        untouched(s, opened=1)
        s.controller.button(DOOR)  # leaving asks nobody
        untouched(s, opened=2)


async def test_a_controller_out_of_reach_is_told_and_nothing_is_made_up_for_later(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s, s.running(s.site("controller", "reader")) as agent:
        await people(agent)
        await online(agent)
        s.controller.go_offline()
        s.show_card(ANN)
        told = await happened(agent, "access.not_opened")
        assert told.event.data["reason"] == "device_offline"
        s.controller.come_back()
        await until(lambda: agent.fleet.health["controller"].state is LinkState.ONLINE)
        untouched(s, opened=0)
        await granted(agent, s, opened=1)


async def test_an_agent_that_ends_and_starts_again_releases_no_door(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s:
        site = s.site("controller", "reader")
        async with s.running(site) as agent:
            await people(agent)
            await online(agent)
            await granted(agent, s, opened=1)
        untouched(s, opened=1)
        assert s.controller.button(DOOR) is not None  # nobody is there, and people leave
        untouched(s, opened=2)
        async with s.running(site) as agent:
            await online(agent)
            untouched(s, opened=2)
            await granted(agent, s, opened=3)
