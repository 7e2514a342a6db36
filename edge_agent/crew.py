"""One task for each thing that the configuration names: started, replaced and ended as the names change.

A task that fails takes the whole crew down, and with it the agent: what may fail on its own (a device, an
upstream) is supervised inside its task, so what comes out here is storage or a defect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, TypeVar

Spec = TypeVar("Spec")


class Crew(Generic[Spec]):
    """`work(name, spec)` runs until cancelled, or returns when it has nothing more to do."""

    def __init__(self, work: Callable[[str, Spec], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._wanted: dict[str, Spec] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._changing = asyncio.Lock()

    async def run(self) -> None:
        """Own the tasks until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for name in self._wanted:
                self._start(name)
            await asyncio.Event().wait()

    async def follow(self, wanted: Mapping[str, Spec]) -> None:
        """Make `wanted` what runs. What is equal stays untouched; what changed ends before it starts anew."""
        async with self._changing:
            changed = [name for name, spec in self._wanted.items() if wanted.get(name) != spec]
            ending = [self._tasks.pop(name) for name in changed if name in self._tasks]
            for task in ending:
                task.cancel()
            if ending:
                await asyncio.wait(ending)
            new = [name for name, spec in wanted.items() if self._wanted.get(name) != spec]
            self._wanted = dict(wanted)
            if self._group is not None:
                for name in new:
                    self._start(name)

    async def restart(self, name: str) -> None:
        """Begin one again that returned; one that still runs, or is not wanted, stays as it is."""
        async with self._changing:
            if name in self._wanted and name in self._tasks and self._tasks[name].done():
                del self._tasks[name]
                self._start(name)

    def _start(self, name: str) -> None:
        if self._group is not None and name not in self._tasks:
            self._tasks[name] = self._group.create_task(self._work(name, self._wanted[name]), name=name)
