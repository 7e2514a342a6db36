from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import argon2
import pytest

from device_drivers import discovery
from device_drivers.devices import Identity
from device_drivers.discovery import FoundDevice
from edge_agent.api import accounts
from tests.edge_agent.api.client import Site, make_site
from tests.edge_agent.api.whole import Whole, whole_gateway

SCHEMA = Path(__file__).resolve().parents[3] / "edge_agent" / "schema"


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_broadcast(monkeypatch: pytest.MonkeyPatch) -> None:
    """One controller answers, and the network of whoever runs the tests is left in peace."""

    async def scan() -> list[FoundDevice]:
        return [FoundDevice("uhppote", "192.0.2.40:60000", Identity("UHPPOTE", "UT0311-L04", "423187757", "v8.92"))]

    monkeypatch.setattr(discovery, "scan", scan)


@pytest.fixture
def connection() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA foreign_keys = ON")
    for name in ("0004_governance.sql", "0009_accountability.sql", "0013_whose_accounts.sql"):
        connection.executescript((SCHEMA / name).read_text("utf-8"))
    return connection


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = await make_site(tmp_path)
    yield made
    for close in made.closers:
        close()


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Whole]:
    async with whole_gateway(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def _quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real cost of Argon2id would be most of these tests' time; one test in test_accounts keeps it."""
    monkeypatch.setattr(accounts, "_hasher", argon2.PasswordHasher(1, 8, 1))
