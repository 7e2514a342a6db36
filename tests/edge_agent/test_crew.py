from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from edge_agent.crew import Crew


class Diary:
    """Tasks that write down when they begin and end."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.written = asyncio.Condition()

    async def work(self, name: str, spec: int) -> None:
        await self.write(f"+{name}{spec}")
        try:
            await asyncio.Event().wait()
        finally:
            self.lines.append(f"-{name}{spec}")

    async def write(self, line: str) -> None:
        async with self.written:
            self.lines.append(line)
            self.written.notify_all()

    async def until(self, *lines: str) -> None:
        async with asyncio.timeout(5), self.written:
            await self.written.wait_for(lambda: set(lines) <= set(self.lines))


async def test_the_crew_follows_the_configuration() -> None:
    diary = Diary()
    crew: Crew[int] = Crew(diary.work)
    await crew.follow({"a": 1, "b": 1})
    running = asyncio.create_task(crew.run())
    await diary.until("+a1", "+b1")
    await crew.follow({"b": 2, "c": 1})
    await diary.until("+b2", "+c1")
    assert diary.lines.index("-b1") < diary.lines.index("+b2")
    assert "-a1" in diary.lines
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert sorted(diary.lines[-2:]) == ["-b2", "-c1"]


async def test_what_did_not_change_is_left_alone() -> None:
    diary = Diary()
    crew: Crew[int] = Crew(diary.work)
    running = asyncio.create_task(crew.run())
    await crew.follow({"a": 1})
    await diary.until("+a1")
    await crew.follow({"a": 1, "b": 1})
    await diary.until("+b1")
    assert diary.lines == ["+a1", "+b1"]
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_a_fault_in_one_task_ends_the_crew() -> None:
    async def broken(name: str, spec: int) -> None:
        raise OSError("the disk broke")

    crew: Crew[int] = Crew(broken)
    await crew.follow({"a": 1})
    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(crew.run(), 5)
