"""What stops the whole agent, and what does not."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.agent import Agent
from edge_agent.config import parse
from edge_agent.database import StorageError
from edge_agent.devices.supervise import LinkState
from tests.flows.agent_site import PATIENCE_S, agent_site, delivered, happened, online, people, until


@contextlib.contextmanager
def no_file_grows() -> Iterator[None]:
    """The file system refuses every write behind the first page, as a broken disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def storage_faults(error: BaseException) -> list[StorageError]:
    if isinstance(error, BaseExceptionGroup):
        return [fault for each in error.exceptions for fault in storage_faults(each)]
    return [error] if isinstance(error, StorageError) else []


async def test_a_disk_that_fails_stops_the_agent_and_the_punch_comes_again(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s:
        agent = await Agent.open(parse(s.document(s.site("zk")), source="test"))
        working = asyncio.create_task(agent.run())
        async with asyncio.timeout(PATIENCE_S):
            await agent.in_force.wait()
        await people(agent)
        await online(agent)
        with no_file_grows():
            s.zk.swipe("1001")
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.wait([working])
        fault = working.exception()
        assert fault is not None
        assert storage_faults(fault), fault
        await agent.close()
        async with s.running(s.site("zk")) as agent:
            await happened(agent, "attendance.punch")
            await delivered(agent)
        assert [event["data"]["user_id"] for event in await s.receiver.told()] == ["1001"]


async def test_a_gateway_starts_on_a_full_disk_and_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent_site(tmp_path) as s:
        async with s.running(s.site("zk")) as agent:
            await people(agent)
            await online(agent)
        room = [1_000_000]
        monkeypatch.setattr(
            shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 40, (1 << 40) - room[0], room[0])
        )
        async with s.running(s.site("zk")) as agent:
            assert agent.database.ballast.short
            s.zk.swipe("1001")
            await until(lambda: agent.fleet.health["zk"].state is LinkState.STORAGE_FULL)
            room[0] = 1 << 39
            await happened(agent, "attendance.punch")
            await delivered(agent)
        assert [event["data"]["user_id"] for event in await s.receiver.told()] == ["1001"]


async def test_an_agent_whose_only_terminal_is_gone_still_starts_serves_and_stops(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s:
        s.zk.go_offline()
        async with s.running(s.site("zk")) as agent:
            assert agent.address.startswith("https://127.0.0.1:")
            assert set(agent.fleet.health) <= {"zk"}
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", int(agent.address.rstrip("/").rpartition(":")[2]))
