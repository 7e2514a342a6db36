"""When devices are brought up to date, while the configuration moves on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from device_drivers.devices import DeviceUser, ItemResult
from edge_agent.audit import AuditLog
from edge_agent.config import SiteConfig
from edge_agent.devices.device_templates import DeviceTemplates
from edge_agent.devices.sync_runs import SyncRuns
from tests.edge_agent.devices.test_sync import sync_of
from tests.flows.site import PATIENCE_S, Site, Terminal, site


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as running:
        yield running


class Filled(Terminal):
    """Tells what it was given."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.given: asyncio.Queue[set[str]] = asyncio.Queue()

    async def upsert_users(self, users: Sequence[DeviceUser]) -> list[ItemResult]:
        self.given.put_nowait({user.user_id for user in users})
        return await super().upsert_users(users)


def site_with(*, sync: bool) -> SiteConfig:
    device = {"name": "zk-1", "kind": "zkteco", "address": "192.0.2.1", "options": {"sync": sync}}
    return SiteConfig.model_validate({"devices": [device]})


async def test_a_device_taken_off_the_list_while_it_is_looked_at_stops_nobody(s: Site) -> None:
    """A configuration is in force a moment before everybody follows it."""
    terminal = s.devices["zk-1"] = Filled("zk-1")
    in_force, looked_at = site_with(sync=True), asyncio.Event()

    def site_in_force() -> SiteConfig:
        looked_at.set()
        return in_force

    async def no_time(seconds: float) -> None: ...

    runs = SyncRuns(
        database=s.database,
        sync=sync_of(s),
        templates=DeviceTemplates(
            database=s.database,
            store=s.store,
            roster=s.roster,
            audit=AuditLog(b"a" * 32),
            terms=lambda: s.terms,
            sensor_on=lambda device, modality: False,
            device_of=lambda serial: "zk-1",
            purposes=lambda device: frozenset(),
            now=s.clock.now,
        ),
        audit=AuditLog(b"a" * 32),
        site=site_in_force,
        driver=s.devices.get,
        serial_of=lambda device: "Z1",
        now=s.clock.now,
        wait=no_time,
    )
    await s.add("ann", number="42")
    running = asyncio.create_task(runs.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await runs.follow(in_force)
            assert await terminal.given.get() == {"42"}
            async with runs.standing("zk-1").busy:  # it is through
                in_force = site_with(sync=False)
                looked_at.clear()
            await s.add("bob", number="43")
            await looked_at.wait()
            in_force = site_with(sync=True)
            await runs.follow(in_force)
            assert await terminal.given.get() == {"43"}
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
