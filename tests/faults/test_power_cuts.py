"""The short form: a share of the write points; `make faults` cuts at each, several times."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edge_agent import database
from edge_agent.database import configure
from tests.faults import power_cuts
from tests.faults.disks import Image, Platter, apply


def test_what_was_confirmed_outlives_a_power_cut() -> None:
    cuts, faults = power_cuts.every_point(step=17)
    assert cuts > 10
    assert faults == []


def test_the_cuts_find_a_database_that_does_not_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(connection: Any) -> None:
        configure(connection)
        connection.execute("PRAGMA synchronous=OFF")

    monkeypatch.setattr(database, "configure", careless)
    _, faults = power_cuts.every_point(step=29)
    assert any("lost" in fault for fault in faults)


def test_the_judge_sees_a_confirmed_event_that_is_not_there(tmp_path: Path) -> None:
    platter = Platter("judge")
    confirmed = power_cuts.Confirmed(set(), set())
    try:
        asyncio.run(power_cuts.work(tmp_path / "agent.db", "judge", confirmed))
    finally:
        platter.close()
    assert power_cuts.judge(tmp_path / "agent.db", confirmed) == ""
    confirmed.events.add("never stored")
    assert "confirmed and lost" in power_cuts.judge(tmp_path / "agent.db", confirmed)


def test_an_unsynced_write_may_be_torn_and_a_synced_one_not() -> None:
    image = Image()
    image.pending = [(0, b"abcd"), (2, b"XY"), (3, None)]
    image.sync()
    assert bytes(image.durable) == b"abX"
    content = bytearray()
    apply(content, (2, b"z"))
    assert bytes(content) == b"\0\0z"
