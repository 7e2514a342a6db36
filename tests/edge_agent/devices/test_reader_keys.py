"""A reader's new key, while somebody else changes the configuration."""

from __future__ import annotations

import asyncio
from pathlib import Path

from edge_agent.config import SiteConfig
from edge_agent.configuration import Configuration, Version
from edge_agent.devices.reader_keys import ReaderKeys
from tests.edge_agent.api.whole import whole_gateway

KEY = "0123456789abcdef0123456789abcdef"
SITE = {
    "devices": [
        {"name": "line", "kind": "osdp", "address": "192.0.2.1", "options": {"pds": [{"address": 1, "name": "gate"}]}}
    ]
}


class Line:
    """Sets a key, and in that moment somebody renames the site."""

    def __init__(self, renamed: SiteConfig, configuration: Configuration) -> None:
        self.renamed, self.configuration = renamed, configuration
        self.renaming: asyncio.Task[Version] | None = None

    async def install(self, reader: int, seconds: float) -> str:
        now = self.configuration.version.at  # type: ignore[union-attr]
        apply = self.configuration.apply(self.renamed, actor="an", reason="t", now=now, expected=2)
        self.renaming = asyncio.create_task(apply)
        await asyncio.sleep(0)  # under way, and not in force yet
        return KEY


async def test_a_key_and_a_change_of_the_same_moment_are_both_kept(tmp_path: Path) -> None:
    async with whole_gateway(tmp_path) as whole:
        agent = whole.agent
        site = SiteConfig.model_validate(SITE)
        await agent.configuration.apply(site, actor="li", reason="t", now=agent.clock())
        line = Line(site.model_copy(update={"site": "moved"}), agent.configuration)
        keys = ReaderKeys(
            database=agent.database,
            configuration=agent.configuration,
            audit=agent.audit,
            driver={"line": line}.get,
            now=agent.clock,
        )
        await keys.install("line", 1, seconds=20, actor="li")
        assert line.renaming is not None
        await line.renaming
        [device] = agent.site.devices
        assert (agent.site.site, device.options["pds"][0]["key"]) == ("moved", KEY)
