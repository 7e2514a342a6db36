from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

import pytest

from edge_agent.doors.arming import Arming
from edge_agent.policy.rules import AccessRules, Factor, Rules
from templates_store.template import Purpose, SubjectId

RULES = {
    "doors": [{"name": "front", "device": "panel"}],
    "points": [
        {"name": "gate", "door": "front", "fingerprint": "gate-sensor"},
        {"name": "clock", "fingerprint": "clock-sensor"},
        {"name": "card-only", "door": "front", "reader": "reader"},
    ],
}


@dataclass
class Sensor:
    armed: bool = False
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def arm(self) -> None:
        self.armed = True
        self.told.set()

    def disarm(self) -> None:
        self.armed = False


@dataclass
class Allowing:
    """Says yes for these purposes and writes down what it was asked."""

    purposes: set[Purpose]
    asked: list[tuple[str, Factor, Purpose]] = field(default_factory=list)

    def allowed(self, device: str, factor: Factor, purpose: Purpose, person: SubjectId | None) -> bool:
        assert person is None
        self.asked.append((device, factor, purpose))
        return purpose in self.purposes


def arming(sensing: Allowing, devices: dict[str, object]) -> Arming:
    rules = Rules(AccessRules.model_validate(RULES), zone=ZoneInfo("UTC"))
    return Arming(rules=lambda: rules, sensing=sensing, driver=devices.get)  # type: ignore[arg-type]


def test_a_sensor_is_armed_for_what_its_point_is_for() -> None:
    gate, clock = Sensor(), Sensor()
    sensing = Allowing({Purpose.ACCESS})
    arming(sensing, {"gate-sensor": gate, "clock-sensor": clock}).step()
    assert (gate.armed, clock.armed) == (True, False)
    assert sensing.asked == [
        ("gate-sensor", Factor.FINGER, Purpose.ACCESS),
        ("clock-sensor", Factor.FINGER, Purpose.ATTENDANCE),
    ]


def test_a_sensor_rests_as_soon_as_it_may_not_be_used() -> None:
    gate = Sensor(armed=True)
    sensing = Allowing({Purpose.ACCESS})
    step = arming(sensing, {"gate-sensor": gate}).step
    step()
    assert gate.armed
    sensing.purposes.clear()
    step()
    assert not gate.armed


@pytest.mark.parametrize("device", [None, object()])
def test_a_sensor_that_is_not_here_or_cannot_be_armed_is_passed_over(device: object | None) -> None:
    sensing = Allowing({Purpose.ACCESS})
    arming(sensing, {"gate-sensor": device} if device else {}).step()
    assert sensing.asked == []


async def test_keeps_looking_until_cancelled() -> None:
    gate = Sensor()
    task = asyncio.create_task(arming(Allowing({Purpose.ACCESS}), {"gate-sensor": gate}).run())
    async with asyncio.timeout(5):
        await gate.told.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
