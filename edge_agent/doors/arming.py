"""Fingerprint sensors ask for a finger only while one may be used.

A sensor at a capture point is armed while the modality is switched on for it, the terms are in force and at least
one person who consented is enrolled; otherwise it is not asked at all. An armed sensor looks whether a finger
lies there; an image is taken by the session which that finger starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from edge_agent.biometrics.sensing import Sensing
from edge_agent.policy.rules import Factor, Rules
from templates_store.template import Purpose

EVERY_S = 1.0


@runtime_checkable
class Armable(Protocol):
    """A sensor that is asked for fingers only between these two."""

    def arm(self) -> None: ...
    def disarm(self) -> None: ...


class Arming:
    def __init__(self, *, rules: Callable[[], Rules], sensing: Sensing, driver: Callable[[str], object | None]) -> None:
        self._rules = rules
        self._sensing = sensing
        self._driver = driver

    def step(self) -> None:
        """Bring every connected sensor to what is allowed now."""
        for point in self._rules().points.values():
            sensor = self._driver(point.fingerprint) if point.fingerprint else None
            if point.fingerprint is None or not isinstance(sensor, Armable):
                continue
            purpose = Purpose.ACCESS if point.door else Purpose.ATTENDANCE
            if self._sensing.allowed(point.fingerprint, Factor.FINGER, purpose, None):
                sensor.arm()
            else:
                sensor.disarm()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.step()
            await asyncio.sleep(EVERY_S)
