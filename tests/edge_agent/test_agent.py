"""What the agent does by itself, over a real agent that is not running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.edge_agent.api.whole import Whole, whole_gateway


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Whole]:
    async with whole_gateway(tmp_path) as made:
        yield made


async def test_housekeeping_goes_on_while_the_disk_is_full(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = whole.agent
    agent.device_templates.dropped["zk"] += 3
    rounds = 0

    async def turn(seconds: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            monkeypatch.undo()
        else:
            keeping.cancel()
        await asyncio.sleep(0)

    monkeypatch.setattr(agent.database.ballast, "high_water", 1 << 50)
    keeping = asyncio.create_task(agent._keep_house(wait=turn))
    with pytest.raises(asyncio.CancelledError):
        await keeping
    dropped = await agent.database.read(
        lambda c: c.execute("SELECT object, details FROM audit WHERE action = 'templates.dropped'").fetchall()
    )
    assert dropped == [("zk", '{"count":3}')]
