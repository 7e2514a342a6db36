from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from cryptography.exceptions import InvalidTag

from edge_agent.database import Database
from edge_agent.people.roster import Person, Roster
from edge_agent.people.sealed_numbers import SealedNumbers

NOW = datetime(2026, 11, 23, 2, tzinfo=UTC)
KEY = bytes(range(32))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database.open(tmp_path / "agent.db", ballast_bytes=0)
    yield opened
    opened.close()


def cards(needed: Callable[[], bool], *, key: bytes = KEY) -> SealedNumbers:
    return SealedNumbers(key, kind="card number", table="sealed_cards", needed=needed)


async def add(database: Database, numbers: SealedNumbers, card: str = "7654321") -> Roster:
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
    numbers = cards(lambda: needed[0])
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
    await add(database, cards(lambda: False))
    assert await sealed(database) == []
    await add(database, cards(lambda: True))
    assert len(await sealed(database)) == 1


async def test_it_goes_with_the_card(database: Database) -> None:
    roster = await add(database, cards(lambda: True))
    await database.write(lambda c: roster.remove_card(c, "7654321"))
    assert await sealed(database) == []


def test_another_key_opens_nothing() -> None:
    made = cards(lambda: True).seal("7654321")
    assert made is not None
    with pytest.raises(InvalidTag):
        cards(lambda: True, key=bytes(32)).open(made)


async def test_a_pin_rests_sealed_beside_its_hash_until_it_is_replaced_or_goes_with_the_person(
    database: Database, tmp_path: Path
) -> None:
    needed = [True]
    pins = SealedNumbers(KEY, kind="pin", table="sealed_pins", needed=lambda: needed[0])
    roster = Roster(KEY, hasher=PasswordHasher(time_cost=1, memory_cost=8, parallelism=1), seal_pin=pins.seal)

    async def rests() -> list[str]:
        rows = await database.read(lambda c: c.execute("SELECT sealed FROM sealed_pins").fetchall())
        return [pins.open(row[0]) for row in rows]

    def work(connection, pin: str) -> None:  # type: ignore[no-untyped-def]
        roster.put(connection, Person("ann", "Ann"), now=NOW)
        roster.set_pin(connection, "ann", roster.hash_pin(pin), now=NOW)

    await database.write(lambda c: work(c, "73519264"))
    assert await rests() == ["73519264"]
    assert all(b"73519264" not in path.read_bytes() for path in tmp_path.iterdir())
    await database.write(lambda c: work(c, "555666"))
    assert await rests() == ["555666"]
    needed[0] = False
    await database.write(lambda c: work(c, "777888"))
    assert await rests() == []  # the old one says nothing about the new
    needed[0] = True
    await database.write(lambda c: work(c, "999000"))
    await database.write(lambda c: roster.remove(c, "ann"))
    assert await rests() == []


def test_a_card_number_is_no_pin() -> None:
    made = cards(lambda: True).seal("7654321")
    assert made is not None
    with pytest.raises(InvalidTag):
        SealedNumbers(KEY, kind="pin", table="sealed_pins", needed=lambda: True).open(made)
