from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag

from edge_agent.card_numbers import CardNumbers
from edge_agent.database import Database
from edge_agent.roster import Person, Roster

NOW = datetime(2026, 11, 23, 2, tzinfo=UTC)
KEY = bytes(range(32))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database.open(tmp_path / "agent.db", ballast_bytes=0)
    yield opened
    opened.close()


async def add(database: Database, numbers: CardNumbers, card: str = "7654321") -> Roster:
    roster = Roster(KEY, seal_number=numbers.seal)

    def work(connection) -> None:  # type: ignore[no-untyped-def]
        roster.put(connection, Person("ann", "Ann"), now=NOW)
        roster.add_card(connection, "ann", card, now=NOW)

    await database.write(work)
    return roster


async def sealed(database: Database) -> list[bytes]:
    return [row[0] for row in await database.read(lambda c: c.execute("SELECT sealed FROM sealed_cards").fetchall())]


async def test_a_number_rests_sealed_and_only_while_a_device_needs_it(database: Database, tmp_path: Path) -> None:
    needed = [True]
    numbers = CardNumbers(KEY, needed=lambda: needed[0])
    await add(database, numbers)
    [kept] = await sealed(database)
    assert numbers.open(kept) == "7654321"
    assert all(b"7654321" not in path.read_bytes() for path in tmp_path.iterdir())
    await database.write(numbers.forget_unneeded)
    assert await sealed(database) == [kept]
    needed[0] = False
    await database.write(numbers.forget_unneeded)
    assert await sealed(database) == []


async def test_without_such_a_device_no_number_is_kept_and_entering_it_again_keeps_it(database: Database) -> None:
    await add(database, CardNumbers(KEY, needed=lambda: False))
    assert await sealed(database) == []
    await add(database, CardNumbers(KEY, needed=lambda: True))
    assert len(await sealed(database)) == 1


async def test_it_goes_with_the_card(database: Database) -> None:
    roster = await add(database, CardNumbers(KEY, needed=lambda: True))
    await database.write(lambda c: roster.remove_card(c, "7654321"))
    assert await sealed(database) == []


def test_another_key_opens_nothing() -> None:
    made = CardNumbers(KEY, needed=lambda: True).seal("7654321")
    assert made is not None
    with pytest.raises(InvalidTag):
        CardNumbers(bytes(32), needed=lambda: True).open(made)
