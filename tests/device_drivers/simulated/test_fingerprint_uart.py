"""Other people's clients drive the simulated module: they are the judges of its protocol."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import types
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import serial
from PIL import Image

from device_drivers.simulated.fingerprint_uart import SimulatedModule
from device_drivers.simulated.synthetic_fingerprints import Finger


@contextlib.asynccontextmanager
async def on_a_line(module: SimulatedModule) -> AsyncIterator[str]:
    path = await module.start()
    try:
        yield path
    finally:
        await module.stop()


@pytest.fixture
def adafruit(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Their client wants a board's `busio` for its types alone, and MicroPython's `const`."""
    busio, micropython = types.ModuleType("busio"), types.ModuleType("micropython")
    busio.UART = object  # type: ignore[attr-defined]
    micropython.const = int  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "busio", busio)
    monkeypatch.setitem(sys.modules, "micropython", micropython)
    monkeypatch.delitem(sys.modules, "adafruit_fingerprint", raising=False)
    import adafruit_fingerprint

    module: types.ModuleType = adafruit_fingerprint
    return module


async def test_pyfingerprint_enrols_searches_and_downloads_an_image(tmp_path: Path) -> None:
    from pyfingerprint.pyfingerprint import PyFingerprint

    module = SimulatedModule()
    finger = Finger.grow(11)

    def client(path: str) -> None:
        sensor = PyFingerprint(path, 57600, 0xFFFFFFFF, 0x00000000)
        assert sensor.verifyPassword()
        assert (sensor.getTemplateCount(), sensor.getStorageCapacity()) == (0, 200)
        assert not sensor.readImage()
        module.place(finger)
        assert sensor.readImage()
        sensor.convertImage(1)
        assert sensor.searchTemplate()[0] == -1
        assert sensor.readImage()
        sensor.convertImage(2)
        assert sensor.compareCharacteristics() > 0
        assert sensor.createTemplate()
        assert sensor.storeTemplate() == 0
        characteristics = sensor.downloadCharacteristics(1)
        assert len(characteristics) == 512
        assert sensor.uploadCharacteristics(1, characteristics)
        assert sensor.readImage()
        sensor.downloadImage(str(tmp_path / "finger.bmp"))
        sensor.convertImage(1)
        assert sensor.searchTemplate()[0] == 0
        assert sensor.getTemplateIndex(0)[0]
        assert sensor.deleteTemplate(0)
        assert sensor.getTemplateCount() == 0

    async with on_a_line(module) as path:
        async with asyncio.timeout(60):
            await asyncio.to_thread(client, path)
    downloaded = np.asarray(Image.open(tmp_path / "finger.bmp"))
    assert np.array_equal(downloaded, (finger.impression(2) >> 4) * 17)


async def test_adafruits_client_enrols_searches_and_reads_an_image(adafruit: types.ModuleType) -> None:
    module = SimulatedModule(width=192, height=192, product="R503")
    finger = Finger.grow(12, width=192, height=192)

    def client(path: str) -> None:
        with serial.Serial(path, 57600, timeout=5) as uart:
            sensor = adafruit.Adafruit_Fingerprint(uart)
            assert sensor.check_module()
            assert (sensor.library_size, sensor.data_packet_size) == (200, 2)
            assert sensor.get_image() == adafruit.NOFINGER
            module.place(finger)
            for slot in (1, 2):
                assert sensor.get_image() == adafruit.OK
                assert sensor.image_2_tz(slot) == adafruit.OK
            assert sensor.create_model() == adafruit.OK
            assert sensor.store_model(4) == adafruit.OK
            assert sensor.read_templates() == adafruit.OK
            assert sensor.templates == [4]
            assert sensor.finger_search() == adafruit.OK
            assert sensor.finger_id == 4
            template = sensor.get_fpdata("char", 1)
            assert len(template) == 512
            assert sensor.send_fpdata(template, "char", 2)
            assert sensor.store_model(5, 2) == adafruit.OK
            assert len(sensor.get_fpdata("image")) == 192 * 192 // 2
            assert sensor.set_led(color=1, mode=3) == adafruit.OK
            assert sensor.delete_model(4) == adafruit.OK
            assert sensor.empty_library() == adafruit.OK

    async with on_a_line(module) as path:
        async with asyncio.timeout(60):
            await asyncio.to_thread(client, path)
    assert module.templates == {}
    assert len(module.lights) == 1


async def test_a_finger_of_another_size_cannot_lie_on_the_sensor() -> None:
    with pytest.raises(ValueError, match="another sensor"):
        SimulatedModule(width=192, height=192).place(Finger.grow(1, width=64, height=64))
