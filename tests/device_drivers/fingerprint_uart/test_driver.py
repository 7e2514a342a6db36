"""The module driver against the simulated module: images, templates, faults."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import cache

import numpy as np
import pytest

from device_drivers.devices import DeviceConfig, Feature, Feedback, FingerprintReader
from device_drivers.errors import (
    AuthenticationFailed,
    DeviceRefused,
    LinkError,
    LinkTimeout,
    ProtocolError,
    WrongDevice,
)
from device_drivers.events import FingerPresented
from device_drivers.fingerprint_uart.driver import FingerprintModule
from device_drivers.simulated.fingerprint_uart import SimulatedModule
from device_drivers.simulated.synthetic_fingerprints import Finger
from tests.device_drivers.recorded import Recorded

GET_IMAGE = 0x01


@cache
def finger(seed: int, *, width: int = 256, height: int = 288) -> Finger:
    return Finger.grow(seed, width=width, height=height)


@contextlib.asynccontextmanager
async def site(
    module: SimulatedModule | None = None, *, serial: str = "", password: str = "", **options: object
) -> AsyncIterator[tuple[SimulatedModule, FingerprintModule]]:
    module = module or SimulatedModule()
    path = await module.start()
    config = DeviceConfig(
        "finger", "fingerprint_uart", path, serial=serial, password=password, options={"look_s": 0.01, **options}
    )
    driver = FingerprintModule(config, cursor=None)
    try:
        yield module, driver
    finally:
        await driver.close()
        await module.stop()


def four_bits(image: np.ndarray) -> np.ndarray:
    return (image >> 4) * 17


async def test_the_captured_image_is_the_impression_in_sixteen_greys() -> None:
    async with site() as (module, driver):
        assert isinstance(driver, FingerprintReader)
        module.place(finger(1))
        image = await driver.capture(timeout_s=1)
        assert np.array_equal(image, four_bits(finger(1).impression(0)))


async def test_an_r503_says_its_own_size_and_number() -> None:
    module = SimulatedModule(width=192, height=192, product="R503")
    async with site(module, aura=True) as (_, driver):
        identity = await driver.probe()
        assert (identity.model, identity.serial) == ("R503", "SIM00001")
        assert Feature.FEEDBACK in (await driver.capabilities()).features
        module.place(finger(2, width=192, height=192))
        assert (await driver.capture(timeout_s=1)).shape == (192, 192)
        await driver.feedback(1, Feedback.GRANTED)
        assert len(module.lights) == 1


async def test_a_missing_end_packet_and_a_lying_packet_size_are_survived() -> None:
    async with site(width=256, height=288) as (module, driver):
        module.drop_end_packet = True
        module.declared_packet_code = 0
        module.place(finger(1))
        for number in range(2):
            image = await driver.capture(timeout_s=1)
            assert np.array_equal(image, four_bits(finger(1).impression(number)))
        module.tap(finger(1), 0, 1)
        await driver.enrol(3, timeout_s=1)
        assert len(await driver.template(3)) == 512


async def test_an_image_damaged_on_the_line_is_asked_for_again() -> None:
    async with site(width=256, height=288) as (module, driver):
        module.place(finger(1))
        await driver.probe()
        original = module._send_data

        def damaged_once(data: bytes) -> None:
            module._send_data = original  # type: ignore[method-assign]
            module.corrupt_next()
            original(data)

        module._send_data = damaged_once  # type: ignore[method-assign]
        image = await driver.capture(timeout_s=1)
        assert np.array_equal(image, four_bits(finger(1).impression(0)))
        assert module.commands.count(0x0A) == 2


async def test_without_a_finger_capture_times_out() -> None:
    async with site() as (module, driver):
        with pytest.raises(LinkTimeout):
            await driver.capture(timeout_s=0.05)
        assert 0x0A not in module.commands


async def test_fingers_are_looked_for_only_while_armed_and_told_once() -> None:
    async with site() as (module, driver):
        record = Recorded()
        module.place(finger(1))
        task = asyncio.create_task(driver.run(record))
        try:
            async with asyncio.timeout(5):
                await module.until(lambda: 0x0F in module.commands)
                assert 0x01 not in module.commands
                driver.arm()
                await record.until(lambda events: len(events) == 1)
                await module.until(lambda: module.commands.count(0x01) >= 4)
                module.lift()
                seen = module.commands.count(0x01)
                await module.until(lambda: module.commands.count(0x01) >= seen + 3)
                module.place(finger(1))
                await record.until(lambda events: len(events) == 2)
                driver.disarm()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert all(isinstance(event, FingerPresented) for event in record.events)
        assert 0x0A not in module.commands  # no image crossed the line


async def test_enrolling_searching_and_deleting_on_the_module() -> None:
    async with site() as (module, driver):
        module.tap(finger(1), 0, 1)
        await driver.enrol(7, timeout_s=1)
        assert await driver.slots() == [7]
        module.place(finger(1))
        assert await driver.search(timeout_s=1) == (7, 120)
        module.place(finger(2))
        assert await driver.search(timeout_s=1) is None
        await driver.delete(7)
        assert await driver.template_count() == 0
        with pytest.raises(DeviceRefused):
            await driver.template(7)
        module.tap(finger(2), 0, 1)
        await driver.enrol(1, timeout_s=1)
        await driver.clear()
        assert await driver.slots() == []


async def test_a_finger_that_rests_is_not_lifted() -> None:
    async with site() as (module, driver):
        module.place(finger(1))
        with pytest.raises(LinkTimeout):
            await driver.lifted(timeout_s=0.05)
        with pytest.raises(LinkTimeout):
            await driver.enrol(1, timeout_s=0.05)
        assert await driver.slots() == []
        module.lift()
        await driver.lifted(timeout_s=1)


async def test_two_different_fingers_are_not_enrolled_as_one() -> None:
    async with site() as (module, driver):
        module.tap(finger(1), 0)
        original = module._to_features

        def swap(arguments: bytes) -> bytes:
            answer = original(arguments)
            module.tap(finger(2), 0)
            return answer

        module._acts[0x02] = swap
        with pytest.raises(DeviceRefused, match="do not merge"):
            await driver.enrol(1, timeout_s=1)
        assert module.templates == {}


async def test_templates_move_from_one_module_to_another() -> None:
    async with site() as (first, giver), site(SimulatedModule(capacity=100)) as (second, taker):
        first.tap(finger(1), 0, 1)
        await giver.enrol(5, timeout_s=1)
        data = await giver.template(5)
        for size in (32, 256):
            await taker.set_packet_size(size)
            await taker.put_template(9, data)
            assert second.templates == {9: data}
        second.place(finger(1))
        assert await taker.search(timeout_s=1) == (9, 120)
        with pytest.raises(ValueError, match="template of 5 bytes"):
            await taker.put_template(9, b"short")
        with pytest.raises(DeviceRefused, match="bad slot"):
            await taker.put_template(100, data)


async def test_the_password_is_asked_first_and_a_wrong_one_waits_for_a_person() -> None:
    async with site(SimulatedModule(password=0xCAFE), password="0xCAFE") as (_, driver):
        await driver.probe()
    async with site(SimulatedModule(password=0xCAFE), password="1") as (_, driver):
        with pytest.raises(AuthenticationFailed) as caught:
            await driver.probe()
        assert "cafe" not in str(caught.value).lower()
    for wrong in ("x", "-1", str(1 << 32)):
        with pytest.raises(ValueError, match="password"):
            FingerprintModule(DeviceConfig("f", "fingerprint_uart", "/dev/null", password=wrong), cursor=None)


async def test_another_module_than_the_pinned_one_is_refused() -> None:
    async with site(serial="00090000000") as (_, driver):
        with pytest.raises(WrongDevice):
            await driver.run(Recorded())


async def test_a_silent_module_is_a_timeout_and_no_port_a_link_error() -> None:
    async with site() as (module, driver):
        await driver.probe()
        module.go_offline()
        with pytest.raises(LinkTimeout):
            await driver.template_count()
        module.come_back()
        assert await driver.template_count() == 0
    with pytest.raises(LinkError):
        await FingerprintModule(DeviceConfig("f", "fingerprint_uart", "/dev/absent"), cursor=None).probe()


async def test_an_image_of_no_known_size_is_a_protocol_error() -> None:
    module = SimulatedModule(width=100, height=100)
    async with site(module) as (_, driver):
        module.place(finger(3, width=100, height=100))
        with pytest.raises(ProtocolError, match="fits no known sensor"):
            await driver.capture(timeout_s=1)


async def test_a_capture_that_was_given_up_leaves_no_answer_for_the_next_question() -> None:
    async with site() as (module, driver):
        await driver.probe()
        capturing = asyncio.create_task(driver.capture(timeout_s=5))
        await module.until(lambda: GET_IMAGE in module.commands)
        capturing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await capturing
        assert await driver.template_count() == 0
