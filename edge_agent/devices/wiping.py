"""Removes every person, template and timed task from one device, over a connection of its own, and looks whether they
are gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from device_drivers import catalog
from device_drivers.devices import DeviceConfig, Driver, ItemResult, TimeKeeper
from device_drivers.errors import DeviceError, Unsupported

TIMEOUT_S = 60.0  # a terminal with thousands of people takes its time
REACH_S = 10.0
MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class Wiped:
    """`outcome` is "wiped", "nothing" (it keeps no people) or "pending" with the reason."""

    outcome: str
    people: int = 0
    reason: str = ""


async def wipe(
    config: DeviceConfig,
    *,
    make: Callable[[DeviceConfig], Driver] = catalog.make,
    timeout_s: float = TIMEOUT_S,
    reach_s: float = REACH_S,
) -> Wiped:
    """Connect, delete, read back."""
    try:
        driver: Any = make(config)
    except ValueError as exc:
        return Wiped("pending", reason=str(exc)[:MAX_REASON])
    keeps = hasattr(driver, "delete_users") or hasattr(driver, "clear")
    try:
        if not keeps:
            return Wiped("nothing")
        async with asyncio.timeout(timeout_s):
            async with asyncio.timeout(reach_s):
                await driver.probe()
            if hasattr(driver, "clear"):
                await driver.clear()
                left = await driver.template_count()
                return Wiped("wiped") if left == 0 else Wiped("pending", reason=f"{left} templates are still there")
            return await _people(driver)
    except Unsupported:
        return Wiped("nothing")
    except TimeoutError:
        return Wiped("pending", reason="no answer in time")
    except DeviceError as exc:
        return Wiped("pending", reason=f"{type(exc).__name__}: {exc}"[:MAX_REASON])
    finally:
        with contextlib.suppress(DeviceError):
            await driver.close()


async def _people(driver: Any) -> Wiped:
    known = [user.user_id for user in await driver.users()]
    refused: list[ItemResult] = []
    if hasattr(driver, "delete_templates"):
        for user_id in known:
            with contextlib.suppress(Unsupported):  # no such modality: then it holds none
                refused += [item for item in await driver.delete_templates(user_id) if not item.ok]
    refused += [item for item in await driver.delete_users(known) if not item.ok]
    if isinstance(driver, TimeKeeper):
        await driver.set_tasks([])  # or its doors would go on unlocking by our schedules
    left = await driver.users()
    if left:
        why = next((item.reason for item in refused), "it keeps them")
        return Wiped("pending", len(known) - len(left), f"{len(left)} people are still there: {why}"[:MAX_REASON])
    return Wiped("wiped", len(known))
