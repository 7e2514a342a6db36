"""Bringing controllers that know modes of their own to what is in force.

They are told side by side, none waits for another. What a controller did not confirm is owed, and told again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from device_drivers import devices
from device_drivers.devices import CommandState
from device_drivers.errors import DeviceError
from edge_agent.doors.presence import Presence
from edge_agent.policy.access import mode_of
from edge_agent.policy.rules import Door, DoorMode, Rules

log = logging.getLogger(__name__)

TELL_S = 5.0  # an order's answer waits so long for controllers; the telling goes on
CONFIRMED = frozenset({CommandState.ACCEPTED, CommandState.DONE})
DEVICE_MODES: Mapping[DoorMode, devices.DoorMode] = {
    DoorMode.CONTROLLED: devices.DoorMode.CONTROLLED,
    DoorMode.OFFICE: devices.DoorMode.CONTROLLED,
    DoorMode.LOCKED: devices.DoorMode.LOCKED,
    DoorMode.LOCKDOWN: devices.DoorMode.LOCKED,
    DoorMode.UNLOCKED: devices.DoorMode.UNLOCKED,
    DoorMode.EVACUATION: devices.DoorMode.UNLOCKED,
}


# Of devices without modes: what a terminal that is asked for one goes on doing.
NO_MODES: Mapping[devices.DoorMode, str] = {
    devices.DoorMode.LOCKED: "it has no door modes: it goes on opening to the people in its own memory",
    devices.DoorMode.UNLOCKED: "it has no door modes: it opens for each person, and is not held open",
}


class ControllerModes:
    """What each controller was told; `untold` are doors whose controller does not do as it should, and why."""

    def __init__(
        self,
        presence: Presence,
        *,
        rules: Callable[[], Rules],
        driver: Callable[[str], object | None],
        now: Callable[[], datetime],
    ) -> None:
        self._presence = presence
        self._rules = rules
        self._driver = driver
        self._now = now
        # By door: to which connection, which relay, which mode; None: it may have heard another one.
        self._told: dict[str, tuple[object, int, devices.DoorMode | None]] = {}
        self._telling: dict[str, asyncio.Task[None]] = {}
        self.untold: dict[str, str] = {}

    def owed(self) -> list[str]:
        """Doors whose controller is there and not told of its relay's present mode on this connection."""
        rules, now = self._rules(), self._now()
        found = []
        for door in rules.doors.values():
            driver = self._driver(door.device)
            wanted = (driver, door.relay, device_mode(door, rules, self._presence, now))
            if driver is not None and self._told.get(door.name) != wanted:
                found.append(door.name)
        return found

    def forget(self, device: str) -> None:
        """The device came back and may have forgotten."""
        for door in self._rules().doors.values():
            if door.device == device:
                self._told.pop(door.name, None)

    async def close(self) -> None:
        tasks = list(self._telling.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell_one(self, door_name: str) -> None:
        """Nothing where the controller is away; where it has no modes, that is why it does not do as it should."""
        rules = self._rules()
        door = rules.doors[door_name]
        driver = self._driver(door.device)
        if driver is None:
            return
        mode = device_mode(door, rules, self._presence, self._now())
        left = self._told.get(door_name)
        if not isinstance(driver, devices.DoorController):
            self._told[door_name] = (driver, door.relay, mode)
            if mode in NO_MODES:
                self._not_told(door_name, NO_MODES[mode])
            else:
                self.untold.pop(door_name, None)
            return
        try:
            if left is not None and left[0] is driver and left[1] != door.relay and not self._used_relay(door, left[1]):
                await driver.set_door_mode(left[1], devices.DoorMode.CONTROLLED)
            result = await driver.set_door_mode(door.relay, mode)
        except (DeviceError, ValueError) as exc:
            if left is not None:
                self._told[door_name] = (*left[:2], None)
            self._not_told(door_name, str(exc))
            return
        if result.state in CONFIRMED:
            self._told[door_name] = (driver, door.relay, mode)
        else:
            self._told.pop(door_name, None)
        if result.state not in CONFIRMED or result.reason:
            self._not_told(door_name, result.reason or result.state)
        else:
            self.untold.pop(door_name, None)

    def _used_relay(self, door: Door, relay: int) -> bool:
        return any(each.device == door.device and each.relay == relay for each in self._rules().doors.values())

    def _not_told(self, door_name: str, why: str) -> None:
        if self.untold.get(door_name) != why:
            self.untold[door_name] = why
            log.warning("door_mode_not_told door=%s reason=%s", door_name, why)

    async def tell(self, names: Iterable[str]) -> None:
        """Tell the controllers of these doors side by side; return when all are told, at the latest after TELL_S."""
        tasks = []
        for name in names:
            if name not in self._telling:
                self._telling[name] = asyncio.create_task(self._tell_until_right(name), name=f"mode of {name}")
            tasks.append(self._telling[name])
        if tasks:
            await asyncio.wait(tasks, timeout=TELL_S)

    async def _tell_until_right(self, door_name: str) -> None:
        """Once more if another mode was ordered while the controller was told."""
        mode: devices.DoorMode | None = None
        try:
            while (door := self._rules().doors.get(door_name)) is not None:
                wanted = device_mode(door, self._rules(), self._presence, self._now())
                if wanted is mode:
                    return
                mode = wanted
                await self._tell_one(door_name)
        except Exception:  # one door's trouble, and not the others'
            log.exception("door_mode_not_told door=%s", door_name)
        finally:
            del self._telling[door_name]


def device_mode(door: Door, rules: Rules, presence: Presence, now: datetime) -> devices.DoorMode:
    """What a controller that knows three modes should do."""
    return DEVICE_MODES[mode_of(door, rules, presence, now)]
