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


async def test_a_task_that_does_not_end_keeps_only_its_own_name_waiting() -> None:
    diary, released = Diary(), asyncio.Event()

    async def stubborn(name: str, spec: int) -> None:
        try:
            await diary.work(name, spec)
        except asyncio.CancelledError:
            if spec == 1:
                await released.wait()
                await diary.write(f"!{name}{spec}")
            raise

    crew: Crew[int] = Crew(stubborn, patience_s=0.0)
    running = asyncio.create_task(crew.run())
    await crew.follow({"a": 1})
    await diary.until("+a1")
    await crew.follow({"a": 2})
    await crew.follow({"a": 3, "b": 3})
    await diary.until("-a1", "+b3")
    assert not {"+a2", "+a3"} & set(diary.lines)
    released.set()
    await diary.until("+a3")
    assert "+a2" not in diary.lines
    assert diary.lines.index("!a1") < diary.lines.index("+a3")
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_one_that_is_about_to_return_begins_again() -> None:
    diary, leaving = Diary(), asyncio.Event()

    async def work(name: str, spec: int) -> None:
        await diary.write(f"+{len(diary.lines)}")
        await leaving.wait()

    crew: Crew[int] = Crew(work)
    running = asyncio.create_task(crew.run())
    await crew.follow({"a": 1})
    await diary.until("+0")
    await crew.restart("a")
    leaving.set()
    await diary.until("+1")
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
