"""Copies on devices that have to go, because a person's erasure or leaving owes them.

Every device that holds one is asked, all at once: a silent terminal, whose commands take a minute each to fail, keeps
neither the others nor whoever gave the order waiting. It is asked again from time to time, and as soon as it is here
anew: until it has answered, the person still matches there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime
from typing import Any

from device_drivers.devices import ItemResult
from device_drivers.errors import DeviceError
from edge_agent.database import Database, StorageError, utc_text
from templates_store.errors import StoreError
from templates_store.records import Placement
from templates_store.store import TemplateStore

log = logging.getLogger(__name__)

PATIENCE_S = 5.0  # a terminal that calls us does so every two seconds
LOOK_S = 1.0
MAX_ERROR = 200

Removal = tuple[str, str, str]  # device, number there, order


class DeviceCopies:
    """`terminal` gives the running driver of a device by serial number, `device` by configured name."""

    def __init__(
        self,
        *,
        database: Database,
        store: TemplateStore,
        terminal: Callable[[str], object | None],
        device: Callable[[str], object | None],
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._store = store
        self._terminal = terminal
        self._device = device
        self._now = now
        self._owing: tuple[set[str], set[str]] = set(), set()  # serial numbers, names
        self._asked: list[object] = []  # those of them that were here when last asked
        self._asking: dict[int, asyncio.Task[int]] = {}  # by id of the driver
        self._again: set[int] = set()  # asked for meanwhile

    async def ask(self) -> int:
        """Ask all that are here and wait for their answers. How many copies went."""
        return sum(await asyncio.gather(*await self._ask_all()))

    async def ask_with_patience(self) -> None:
        """The same, but whoever has not answered in time answers later."""
        if asking := await self._ask_all():
            await asyncio.wait(asking, timeout=PATIENCE_S)

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Ask a device when it is here anew, until the end of the block; then nobody is asked any more."""
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            tasks = [looking, *self._asking.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            if any(not any(driver is asked for asked in self._asked) for driver in self._here(*self._owing)):
                with contextlib.suppress(StorageError, StoreError, sqlite3.Error):  # the next look tries again
                    await self._ask_all()

    def _here(self, serials: Iterable[str], names: Iterable[str]) -> list[object]:
        found = [*map(self._terminal, serials), *map(self._device, names)]
        return [driver for driver in found if driver is not None]

    async def _ask_all(self) -> list[asyncio.Task[int]]:
        placements, removals = await self._owed()
        self._owing = {p.device_serial for p in placements}, {device for device, _, _ in removals}
        self._asked = self._here(*self._owing)
        asking = []
        for key, driver in {id(driver): driver for driver in self._asked}.items():
            task = self._asking.get(key)
            if task is None or task.done():
                task = self._asking[key] = asyncio.create_task(self._ask(driver))
                task.add_done_callback(self._answered)
            else:
                self._again.add(key)
            asking.append(task)
        return asking

    def _answered(self, task: asyncio.Task[int]) -> None:
        self._asking = {key: other for key, other in self._asking.items() if other is not task}
        if not task.cancelled() and (exc := task.exception()) is not None:
            log.error("copies_not_asked_for error=%r", exc)

    async def _ask(self, driver: Any) -> int:
        """One after the other on one device, templates before the people they belong to."""
        gone = 0
        while True:
            self._again.discard(id(driver))
            placements, removals = await self._owed()
            for placement in placements:
                if self._terminal(placement.device_serial) is driver and hasattr(driver, "delete_templates"):
                    gone += await self._template(driver, placement)
            for removal in removals:
                if self._device(removal[0]) is driver and hasattr(driver, "delete_users"):
                    gone += await self._user(driver, *removal)
            if id(driver) not in self._again:
                return gone

    async def _owed(self) -> tuple[list[Placement], list[Removal]]:
        placements = [] if self._store.sealed else await asyncio.to_thread(self._store.pending_erasures)
        return list(placements), await self._database.read(_removals_due)

    async def _template(self, driver: Any, placement: Placement) -> bool:
        user_id = placement.slot.partition("/")[0]
        try:
            fault = _fault(await driver.delete_templates(user_id, modality=placement.modality.value))
        except DeviceError as exc:
            fault = _short(exc)
        if fault:
            await asyncio.to_thread(self._store.note_placement_failure, placement.placement_id, fault)
        else:
            await asyncio.to_thread(self._store.close_placement, placement.placement_id)
        return not fault

    async def _user(self, driver: Any, device: str, user_id: str, order_id: str) -> bool:
        try:
            fault = _fault(await driver.delete_users([user_id]))
        except DeviceError as exc:
            fault = _short(exc)
        at = utc_text(self._now())

        def work(connection: sqlite3.Connection) -> tuple[str | None, int]:
            connection.execute(
                "UPDATE device_removals SET attempts = attempts + 1, last_error = ?1,"
                " done_at = CASE ?1 WHEN '' THEN ?2 END WHERE device = ?3 AND user_id = ?4 AND erasure = ?5",
                (fault, at, device, user_id, order_id),
            )
            (left,) = connection.execute(
                "SELECT count(*) FROM device_removals WHERE erasure = ? AND device = ? AND done_at IS NULL",
                (order_id, device),
            ).fetchone()
            row = connection.execute("SELECT receipt FROM erasure_orders WHERE id = ?", (order_id,)).fetchone()
            return (row[0] if row else None), left

        receipt_id, left = await self._database.write(work, essential=True)
        if receipt_id and not left and not self._store.sealed:
            await asyncio.to_thread(self._store.confirm_erased, receipt_id, f"users@{device}")
        return not fault


def _removals_due(connection: sqlite3.Connection) -> list[Removal]:
    return connection.execute(
        "SELECT device, user_id, erasure FROM device_removals WHERE done_at IS NULL ORDER BY device, user_id"
    ).fetchall()


def _fault(results: Iterable[ItemResult]) -> str:
    """The first refusal's reason; a device that never had it has nothing to refuse."""
    return next((result.reason[:MAX_ERROR] or "refused" for result in results if not result.ok), "")


def _short(error: DeviceError) -> str:
    return f"{type(error).__name__}: {error}"[:MAX_ERROR]
