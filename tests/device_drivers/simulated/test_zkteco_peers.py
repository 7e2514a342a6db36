# ruff: noqa: DTZ001 - a terminal's readings have no zone
"""Other people's clients read the simulated terminal: pyzk, node-zklib and zkteco-js are the judges."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from zk import ZK, const
from zk.exception import ZKErrorResponse
from zk.finger import Finger

from device_drivers.simulated.zkteco import Memory, Quirks, SimulatedZkTerminal
from tests.npm_peers import npm_peers

# pyzk leaves sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

START = datetime(2026, 3, 2, 8, 0, 0)


@pytest.fixture(autouse=True)
def _collect_their_sockets() -> Iterator[None]:
    yield
    gc.collect()


def site(terminal: SimulatedZkTerminal, *, users: int, punches: int) -> SimulatedZkTerminal:
    for index in range(users):
        terminal.add_user(str(1001 + index), name=f"N{index}", card=7000 + index)
    for index in range(punches):
        terminal.swipe(str(1001 + index % users), 1, index % 2, START + timedelta(seconds=7 * index))
    return terminal


def told(punches: int, users: int) -> list[tuple[str, datetime]]:
    return [(str(1001 + index % users), START + timedelta(seconds=7 * index)) for index in range(punches)]


def pyzk(terminal: SimulatedZkTerminal, *, udp: bool = False, password: int = 0) -> Any:
    return ZK(terminal.host, terminal.port, timeout=5, password=password, force_udp=udp, ommit_ping=True)


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
@pytest.mark.parametrize(("record_size", "user_size"), [(8, 28), (16, 28), (40, 72)])
@pytest.mark.parametrize(("users", "punches"), [(2, 3), (40, 2000)])
async def test_pyzk_reads_info_users_and_attendance(
    udp: bool, record_size: int, user_size: int, users: int, punches: int
) -> None:
    def read() -> tuple[Any, ...]:
        connection = pyzk(terminal, udp=udp, password=4242).connect()
        connection.read_sizes()
        try:
            return (
                (connection.get_serialnumber(), connection.get_firmware_version(), connection.get_fp_version()),
                (connection.users, connection.records, connection.rec_cap),
                [(user.user_id, user.name, user.card) for user in connection.get_users()],
                [(punch.user_id, punch.timestamp, punch.status) for punch in connection.get_attendance()],
            )
        finally:
            connection.disconnect()

    memory = Memory(record_size=record_size, user_size=user_size)
    async with SimulatedZkTerminal(comm_key=4242, memory=memory) as terminal:
        site(terminal, users=users, punches=punches)
        info, sizes, people, attendance = await asyncio.to_thread(read)
    assert info == ("SIM0000001", "Ver 6.60 Apr 26 2016", 10)
    assert sizes == (users, punches, 100_000)
    assert people == [(str(1001 + i), f"N{i}", 7000 + i) for i in range(users)]
    assert attendance == [(user_id, when, 1) for user_id, when in told(punches, users)]


async def test_pyzk_with_a_wrong_key_is_refused() -> None:
    async with SimulatedZkTerminal(comm_key=4242) as terminal:
        with pytest.raises(ZKErrorResponse, match="Unauthenticated"):
            await asyncio.to_thread(pyzk(terminal, password=1).connect)


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
async def test_pyzk_writes_users_templates_and_the_clock(udp: bool) -> None:
    template = bytes(range(1, 251)) * 5

    def write() -> tuple[Any, ...]:
        connection = pyzk(terminal, udp=udp).connect()
        try:
            connection.disable_device()
            connection.get_users()  # from it pyzk learns the size of an entry
            connection.set_user(uid=8, name="Eve", privilege=const.USER_ADMIN, password="12", user_id="2001", card=5)
            user = next(user for user in connection.get_users() if user.user_id == "2001")
            connection.save_user_template(user, [Finger(user.uid, 6, 1, template)])
            stored = connection.get_user_template(user.uid, 6).template
            everything = [(finger.uid, finger.fid, finger.template) for finger in connection.get_templates()]
            connection.set_time(START)
            connection.unlock(3)
            connection.enable_device()
            clock = connection.get_time()
            connection.delete_user(uid=1)
            connection.clear_attendance()
        finally:
            connection.disconnect()
        return user, stored, everything, clock

    async with SimulatedZkTerminal() as terminal:
        site(terminal, users=1, punches=2)
        user, stored, everything, clock = await asyncio.to_thread(write)
        assert (user.name, user.privilege, user.password, user.card) == ("Eve", 14, "12", 5)
        assert stored == template
        assert everything == [(8, 6, template)]
        assert timedelta(0) <= clock - START < timedelta(seconds=5)
        assert terminal.doors_opened == [3.0]
        assert (list(terminal.memory.uids), terminal.memory.records, terminal.enabled) == (["2001"], 0, True)


@pytest.mark.parametrize("live_size", [12, 32, 36, 52])
async def test_pyzk_hears_live_punches(live_size: int) -> None:
    loop = asyncio.get_running_loop()
    registered = asyncio.Event()

    def listen() -> Any:
        connection = pyzk(terminal).connect()
        try:
            for punch in connection.live_capture(new_timeout=5):
                connection.end_live_capture = True
                return punch
        finally:
            connection.disconnect()

    async with SimulatedZkTerminal(memory=Memory(live_size=live_size)) as terminal:
        terminal.add_user("1001")
        terminal.on_request = lambda command: registered.set() if command == const.CMD_REG_EVENT else None
        listening = loop.run_in_executor(None, listen)
        async with asyncio.timeout(10):
            await registered.wait()
            terminal.swipe("1001", verify=1, state=1, at=START)
            punch = await listening
    assert (punch.user_id, punch.timestamp, punch.status, punch.punch) == ("1001", START, 1, 1)


@pytest.fixture(scope="session")
def node_peers() -> Path:
    return npm_peers() / "read_terminal.js"


async def read_with(script: Path, library: str, transport: str, terminal: SimulatedZkTerminal) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        "node", str(script), library, transport, str(terminal.port),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "TZ": "UTC"},
    )  # fmt: skip
    async with asyncio.timeout(45):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    result: dict[str, Any] = json.loads(output)
    return result


def when(text: str) -> datetime:
    """Both clients give JavaScript dates, one as ISO, one as a sentence."""
    if text.endswith("Z"):
        return datetime.fromisoformat(text.removesuffix("Z"))
    return datetime.strptime(text.split(" GMT")[0], "%a %b %d %Y %H:%M:%S")  # noqa: DTZ007


# Both clients take one frame from each read of the socket, so the terminal has to leave a pause between
# frames. Over UDP both fix the record sizes: 16 bytes in chunks, 8 at once; zkteco-js cannot do the former.
@pytest.mark.parametrize(
    ("library", "transport", "firmware", "users", "punches"),
    [
        ("node-zklib", "tcp", {"record_size": 40, "user_size": 72}, 20, 1800),
        ("node-zklib", "udp", {"record_size": 16, "user_size": 28}, 20, 200),
        ("zkteco-js", "tcp", {"record_size": 40, "user_size": 72}, 20, 1800),
        ("zkteco-js", "udp", {"record_size": 8, "user_size": 28, "packed_status": True}, 20, 100),
    ],
)
async def test_npm_clients_read_info_users_and_attendance(
    node_peers: Path, library: str, transport: str, firmware: dict[str, Any], users: int, punches: int
) -> None:
    memory = Memory(**firmware)
    async with SimulatedZkTerminal(memory=memory, quirks=Quirks(frame_gap_s=0.03)) as terminal:
        site(terminal, users=users, punches=punches)
        result = await read_with(node_peers, library, transport, terminal)
    assert result["info"] == {"userCounts": users, "logCounts": punches, "logCapacity": 100_000}
    assert result.get("serial") in (None, "SIM0000001")
    assert [(str(user_id), name) for user_id, name in result["users"]] == [
        (str(1001 + i), f"N{i}") for i in range(users)
    ]
    expected = told(punches, users)
    if memory.record_size == 8:  # such a record holds the internal number alone
        expected = [(str(int(user_id) - 1000), moment) for user_id, moment in expected]
    assert [(str(user_id), when(text)) for user_id, text in result["punches"]] == expected
