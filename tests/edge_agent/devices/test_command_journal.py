from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from device_drivers.adms import commands
from device_drivers.adms.commands import Dialect
from device_drivers.adms.queue import QueuedCommand
from device_drivers.adms.server import AdmsServer
from device_drivers.devices import CommandState, DeviceTemplate, DeviceUser
from edge_agent.database import Database
from edge_agent.devices.command_journal import BLOCK, DatabaseJournal, carries_template
from tests.device_drivers.adms.site import Recorder, client, config, running

NOW = datetime(2026, 11, 23, 2, tzinfo=UTC)
KEY = bytes(range(32))
PERSON = DeviceUser("42", name="Wang Xiaoming", card="7654321", pin="918273")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = Database.open(tmp_path / "agent.db", ballast_bytes=0)
    yield opened
    opened.close()


def journal(database: Database, *, key: bytes = KEY, now: datetime = NOW) -> DatabaseJournal:
    return DatabaseJournal(database, key, clock=lambda: now)


def command(number: int, text: str = "REBOOT", **more: object) -> QueuedCommand:
    return QueuedCommand(number, text, NOW + timedelta(seconds=60), **more)  # type: ignore[arg-type]


async def test_numbers_never_repeat_also_after_a_restart(database: Database) -> None:
    given = [await journal(database).next_id() for _ in range(3)]
    one = journal(database)
    given += await asyncio.gather(*(one.next_id() for _ in range(BLOCK + 5)))
    given.append(await journal(database).next_id())
    assert len(set(given)) == len(given)


async def test_what_waits_is_found_again_as_it_was_and_what_ended_is_gone(database: Database) -> None:
    sent = command(7, "AC_UNLOCK", state=CommandState.SENT, sent_at=NOW, sends=1)
    saved = [command(5, repeatable=True), sent, command(9)]
    for each in saved:
        await journal(database).save("A1", each)
    await journal(database).save("B2", command(6))
    assert await journal(database).unfinished("A1") == saved
    await journal(database).save("A1", replace(sent, state=CommandState.DONE, text=""))
    assert [c.command_id for c in await journal(database).unfinished("A1")] == [5, 9]


async def test_names_cards_and_pins_do_not_rest_in_clear(database: Database, tmp_path: Path) -> None:
    (text,) = commands.put_user(PERSON, Dialect.ATTENDANCE)
    await journal(database).save("A1", command(1, text))
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (PERSON.name, PERSON.card, PERSON.pin, "USERINFO"):
        assert secret.encode() not in files
    assert (await journal(database).unfinished("A1"))[0].text == text
    assert await journal(database, key=bytes(32)).unfinished("A1") == []


@pytest.mark.parametrize("algorithm", ["zk-finger-10", "biodata-9-39.3-0", "zk-face-7"])
async def test_templates_are_not_kept_at_all(database: Database, algorithm: str) -> None:
    text = commands.put_template(DeviceTemplate("42", "face", 0, algorithm, b"template"), Dialect.ATTENDANCE)
    await journal(database).save("A1", command(1, text))
    assert await journal(database).unfinished("A1") == []
    assert not carries_template("DATA QUERY BIODATA Type=9\tPIN=42")


async def test_commands_past_their_deadline_leave_the_file(database: Database) -> None:
    await journal(database).save("A1", command(1))
    await journal(database, now=NOW + timedelta(seconds=61)).next_id()
    assert await database.read(lambda c: c.execute("SELECT count(*) FROM terminal_commands").fetchone()) == (0,)


async def test_a_restarted_server_sends_what_waited_and_never_the_door_again(database: Database) -> None:
    def clock() -> datetime:
        return NOW

    async def fetch(server: AdmsServer) -> str:
        async with client(server) as http:
            return (await http.get("/iclock/getrequest?SN=A1")).text

    before = AdmsServer(clock=clock, journal=journal(database))
    terminal = before.terminal(config())
    async with running(terminal, Recorder()):
        opening = asyncio.create_task(terminal.open_door(1, seconds=5))
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            while "AC_UNLOCK" not in await fetch(before):  # noqa: ASYNC110
                await asyncio.sleep(0)
        opening.cancel()
        adding = asyncio.create_task(terminal.upsert_users([PERSON]))
        async with asyncio.timeout(5):
            while not any(c.text.startswith("DATA") for c in await journal(database).unfinished("A1")):  # noqa: ASYNC110
                await asyncio.sleep(0)
        adding.cancel()
    after = AdmsServer(clock=clock, journal=journal(database))
    async with running(after.terminal(config()), Recorder()):
        async with asyncio.timeout(5):
            while not (answer := await fetch(after)).startswith("C:"):  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert PERSON.card in answer
        assert "AC_UNLOCK" not in answer
