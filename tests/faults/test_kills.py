"""The short form of `make faults`."""

from __future__ import annotations

from pathlib import Path

from tests.faults.kills import run


async def test_nothing_is_lost_or_doubled_through_kills_and_a_bad_line(tmp_path: Path) -> None:
    outcome = await run(tmp_path, punches=1200, kills=3, collector_kills=1, seed=7, limit_s=90)
    assert (outcome.lost, outcome.duplicate, outcome.balanced) == (0, 0, True), str(outcome)
    assert (outcome.agent_kills, outcome.collector_kills) == (3, 1)
    assert outcome.told > outcome.punches
