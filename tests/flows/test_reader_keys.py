"""Install mode through the whole agent: a reader with the default key is refused until it gets one of its own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from device_drivers import wiegand
from device_drivers.errors import LinkTimeout
from device_drivers.osdp.driver import OsdpBus
from device_drivers.simulated.osdp import SimulatedBus, SimulatedReader
from edge_agent.agent import Agent
from edge_agent.configuration import public
from tests.flows.agent_site import ANN, CARDS, FACILITY, AgentSite, agent_site, happened, online, people, until


@contextlib.asynccontextmanager
async def with_new_reader(s: AgentSite) -> AsyncIterator[tuple[dict[str, Any], SimulatedReader]]:
    """The site, with a reader in place of its own that nobody has given a key."""
    reader = SimulatedReader(1)
    bus = SimulatedBus(reader)
    site = s.site("controller", "reader")
    [line] = [device for device in site["devices"] if device["name"] == "reader"]
    line |= {"address": await bus.start(), "options": {"pds": [{"address": 1, "name": "gate"}]}}
    try:
        yield site, reader
    finally:
        await bus.stop()


def stands(line: object) -> bool:
    return isinstance(line, OsdpBus) and line._readers[0].secure


async def audited(agent: Agent) -> list[tuple[str, str, str]]:
    rows = await agent.database.read(lambda c: c.execute("SELECT actor, action, outcome FROM audit").fetchall())
    return [row for row in rows if row[1].startswith("reader.")]


async def test_a_new_reader_opens_nothing_until_install_mode_gave_it_a_key(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s, with_new_reader(s) as (site, reader), s.running(site) as agent:
        await people(agent)
        told = await happened(agent, "door.security")
        assert "default key" in told.event.data["reason"]
        await until(lambda: agent.fleet.driver("reader"))
        before = agent.fleet.driver("reader")
        await agent.reader_keys.install("reader", 1, seconds=20, actor="li")
        assert await audited(agent) == [("li", "reader.install.open", "ok"), ("li", "reader.install.close", "ok")]
        [line] = [device for device in agent.site.devices if device.name == "reader"]
        assert line.options["pds"][0]["key"] == reader.key.hex()
        assert reader.key.hex() not in json.dumps(public(agent.site))
        await until(lambda: (line := agent.fleet.driver("reader")) is not before and stands(line))
        reader.show_card(wiegand.encode("H10301", number=CARDS[ANN], facility=FACILITY))
        await happened(agent, "access.granted")


async def test_a_window_that_ends_without_a_key_is_audited_and_changes_nothing(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s, s.running(s.site("controller", "reader")) as agent:
        await online(agent)
        before = agent.site
        with pytest.raises(LinkTimeout):
            await agent.reader_keys.install("reader", 1, seconds=0.5, actor="li")
        [opened, closed] = await audited(agent)
        assert (opened[2], closed[2].startswith("no new key")) == ("ok", True)
        assert agent.site == before
        with pytest.raises(LookupError, match="no readers with keys"):
            await agent.reader_keys.install("controller", 1, seconds=1, actor="li")
