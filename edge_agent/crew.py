"""One task for each thing that the configuration names: started, replaced and ended as the names change.

A task that fails takes the whole crew down, and with it the agent: what may fail on its own (a device, an
upstream) is supervised inside its task, so what comes out here is storage or a defect.

Whoever changes the names is not kept waiting by a task that does not end: it is left behind, still of this
crew, and what comes after it under the same name begins once it has ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, TypeVar

PATIENCE_S = 10.0  # with tasks that were told to end

log = logging.getLogger(__name__)

Spec = TypeVar("Spec")


class Crew(Generic[Spec]):
    """`work(name, spec)` runs until cancelled, or returns when it has nothing more to do."""

    def __init__(
        self, work: Callable[[str, Spec], Coroutine[Any, Any, None]], *, patience_s: float = PATIENCE_S
    ) -> None:
        self._work = work
        self._patience_s = patience_s
        self._wanted: dict[str, Spec] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: dict[str, set[asyncio.Task[None]]] = {}
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
            ending = {name: self._part(name) for name in changed if name in self._tasks}
            for task in ending.values():
                task.cancel()
            if ending:
                await asyncio.wait(ending.values(), timeout=self._patience_s)
            for name, task in ending.items():
                if not task.done():
                    log.error("task_does_not_end name=%s", name)
            new = [name for name, spec in wanted.items() if self._wanted.get(name) != spec]
            self._wanted = dict(wanted)
            if self._group is not None:
                for name in new:
                    self._start(name)

    async def restart(self, name: str) -> None:
        """Begin one again that returned or is about to; one that is not wanted stays as it is."""
        async with self._changing:
            if name in self._wanted and name in self._tasks:
                self._part(name)
                self._start(name)

    def _start(self, name: str) -> None:
        if self._group is not None and name not in self._tasks:
            before = self._ending.get(name, set()).copy()
            work = self._work_after(before, name, self._wanted[name])
            self._tasks[name] = self._group.create_task(work, name=name)

    def _part(self, name: str) -> asyncio.Task[None]:
        """Its task, which is the name's no more; whoever comes next waits for its end."""
        task = self._tasks.pop(name)
        if not task.done():
            self._ending.setdefault(name, set()).add(task)
            task.add_done_callback(lambda ended: self._forget(name, ended))
        return task

    def _forget(self, name: str, ended: asyncio.Task[None]) -> None:
        self._ending[name].discard(ended)
        if not self._ending[name]:
            del self._ending[name]

    async def _work_after(self, before: set[asyncio.Task[None]], name: str, spec: Spec) -> None:
        if before:
            await asyncio.wait(before)
        await self._work(name, spec)
