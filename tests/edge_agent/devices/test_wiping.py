from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime, time

import pytest

from device_drivers.devices import DeviceConfig, DeviceUser, DoorMode, DoorTask, Identity, ItemResult, TimeProfile
from device_drivers.errors import AuthenticationFailed, DeviceError, LinkError, Unsupported
from edge_agent.devices.wiping import Wiped, wipe

CONFIG = DeviceConfig("gate", "zkteco", "10.0.0.5:4370")


class Terminal:
    """People by number; `fails` at the probe, `keeps` what it will not delete."""

    def __init__(self, *people: str, keeps: str = "", fails: DeviceError | None = None) -> None:
        self.people, self.keeps, self.fails = set(people), keeps, fails
        self.templates = set(people)
        self.closed = False

    async def probe(self) -> Identity:
        if self.fails:
            raise self.fails
        return Identity("test", "double", "S1", "1")

    async def users(self) -> list[DeviceUser]:
        return [DeviceUser(each) for each in sorted(self.people)]

    async def delete_users(self, user_ids: Sequence[str]) -> list[ItemResult]:
        self.people -= set(user_ids) - {self.keeps}
        return [ItemResult(each, each != self.keeps, "busy" if each == self.keeps else "") for each in user_ids]

    async def delete_templates(self, user_id: str, *, modality: str | None = None) -> list[ItemResult]:
        self.templates.discard(user_id)
        return [ItemResult(user_id, ok=True)]

    async def close(self) -> None:
        self.closed = True


class Module(Terminal):
    """A fingerprint module: slots, no people."""

    def __init__(self, slots: int, *, stuck: bool = False) -> None:
        super().__init__()
        self.slots, self.stuck = slots, stuck

    async def clear(self) -> None:
        self.slots = self.slots if self.stuck else 0

    async def template_count(self) -> int:
        return self.slots


class Controller(Terminal):
    """Decides alone, by tasks it was given."""

    config = CONFIG
    tasks: Sequence[DoorTask] = (DoorTask(1, time(8), DoorMode.UNLOCKED, frozenset(range(7))),)

    async def get_time(self) -> datetime:
        return datetime(2026, 11, 24, 8)  # noqa: DTZ001 - a device's reading has no zone

    async def set_time(self, device_time: datetime) -> None: ...

    async def time_profiles(self) -> list[TimeProfile]:
        return []

    async def set_time_profile(self, profile: TimeProfile) -> None: ...

    async def set_tasks(self, tasks: Sequence[DoorTask]) -> None:
        self.tasks = tasks

    async def activate_keypads(self, readers: Collection[int]) -> None: ...


async def test_a_wiped_controller_unlocks_no_door_by_a_schedule_of_ours() -> None:
    controller = Controller("1", "2")
    assert await wipe(CONFIG, make=lambda _: controller) == Wiped("wiped", 2)
    assert list(controller.tasks) == []


class Lens:
    """A camera: nothing to delete."""

    async def close(self) -> None: ...


async def run(device: object, *, reach_s: float = 5.0) -> Wiped:
    return await wipe(CONFIG, make=lambda _: device, reach_s=reach_s)  # type: ignore[arg-type,return-value]


async def test_people_and_templates_go_and_the_connection_is_closed() -> None:
    terminal = Terminal("1", "2", "3")
    assert await run(terminal) == Wiped("wiped", 3)
    assert (terminal.people, terminal.templates, terminal.closed) == (set(), set(), True)


async def test_what_a_terminal_keeps_is_still_owed() -> None:
    assert await run(Terminal("1", "2", keeps="2")) == Wiped("pending", 1, "1 people are still there: busy")


async def test_a_module_is_emptied_and_counted() -> None:
    assert await run(Module(5)) == Wiped("wiped")
    assert await run(Module(5, stuck=True)) == Wiped("pending", reason="5 templates are still there")


async def test_a_camera_has_nothing() -> None:
    assert await run(Lens()) == Wiped("nothing")


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (LinkError("no route"), "pending"),
        (AuthenticationFailed("no"), "pending"),
        (Unsupported("no people"), "nothing"),
    ],
)
async def test_a_device_that_does_not_answer_is_still_owed(fault: DeviceError, outcome: str) -> None:
    terminal = Terminal("1", fails=fault)
    assert (await run(terminal)).outcome == outcome
    assert terminal.people == {"1"}
    assert terminal.closed


async def test_silence_ends_after_a_while() -> None:
    class Silent(Terminal):
        async def probe(self) -> Identity:
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

    assert await run(Silent("1"), reach_s=0.01) == Wiped("pending", reason="no answer in time")


async def test_a_configuration_that_makes_no_driver_is_told() -> None:
    def make(config: DeviceConfig) -> object:
        raise ValueError("needs a serial number")

    assert await wipe(CONFIG, make=make) == Wiped("pending", reason="needs a serial number")  # type: ignore[arg-type]
