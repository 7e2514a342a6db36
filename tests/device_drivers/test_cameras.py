"""Cameras as folders and as video files: newest frame wins, nothing open outside a session."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from device_drivers import cameras
from device_drivers.cameras import CameraDriver
from device_drivers.devices import Camera, DeviceConfig
from device_drivers.errors import LinkError, LinkTimeout
from tests.device_drivers.recorded import Recorded


def picture(path: Path, grey: int) -> None:
    assert cv2.imwrite(str(path), np.full((48, 64, 3), grey, np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, grey in enumerate((10, 120, 230)):
        picture(tmp_path / f"{number}.png", grey)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 not a jpeg")
    return tmp_path


def filmed(folder: Path) -> Path:
    """Three frames."""
    film = folder / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for _ in range(3):
        writer.write(np.full((48, 64, 3), 90, np.uint8))
    writer.release()
    return film


def driver_of(address: str | Path, **options: object) -> CameraDriver:
    return CameraDriver(DeviceConfig("door camera", "camera", str(address), options=options), cursor=None)


async def greys(driver: CameraDriver, count: int) -> list[int]:
    seen: list[int] = []
    async with asyncio.timeout(10), driver.frames() as frames:
        async for frame in frames:
            seen.append(int(frame.pixels[0, 0, 0]))
            if len(seen) == count:
                break
    return seen


def camera_threads() -> int:
    return sum(thread.name.startswith("camera ") for thread in threading.enumerate())


async def test_a_folder_is_shown_in_turn_and_files_that_are_no_images_are_passed_over(folder: Path) -> None:
    driver = driver_of(folder, fps=50)
    assert isinstance(driver, Camera)
    assert await greys(driver, 5) == [10, 120, 230, 10, 120]


async def test_a_late_looker_sees_the_newest_frame_and_no_queue(folder: Path) -> None:
    driver = driver_of(folder, fps=200)
    async with driver.frames() as frames:
        first = await anext(frames)
        source = driver._source
        assert source is not None
        async with asyncio.timeout(10):
            await source.after(9)  # nine frames came and nobody looked
        second = await anext(frames)
        assert second.taken_at > first.taken_at
        assert source._number - 9 <= 3
        assert [a for a in vars(source).values() if isinstance(a, (list, dict, set, asyncio.Queue))] == []


async def test_the_camera_is_open_only_during_sessions_and_openings_are_counted(folder: Path) -> None:
    driver = driver_of(folder, fps=100)
    await driver.probe()
    assert (driver.opened, camera_threads()) == (0, 0)
    async with driver.frames() as one, driver.frames() as two:
        assert (await anext(one)).pixels.shape == (await anext(two)).pixels.shape == (48, 64, 3)
        assert (driver.opened, driver.sessions, camera_threads()) == (1, 2, 1)
    assert (driver.sessions, driver._source) == (0, None)
    await driver.close()
    assert camera_threads() == 0
    await greys(driver, 1)
    assert driver.opened == 2


async def test_nobody_waits_for_a_camera_that_is_switched_off_and_its_last_frame_is_gone_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, hold = threading.Event(), threading.Event()

    def pixels(_config: DeviceConfig, _stop: threading.Event) -> Iterator[cameras.Pixels]:
        for grey in (80, 90):
            yield np.full((48, 64, 3), grey, np.uint8)
            slow.set()
            hold.wait(30)

    monkeypatch.setattr(cameras, "_pixels", pixels)
    driver = driver_of(folder)
    async with driver.frames() as frames:
        frame = await anext(frames)
        source = driver._source
        await asyncio.to_thread(slow.wait, 30)
    assert (driver._source, camera_threads(), frame.pixels.max()) == (None, 1, 0)  # the library is still in a read
    hold.set()
    await driver.close()
    assert camera_threads() == 0
    assert source is not None
    assert source._frame is None


async def test_a_camera_that_is_taken_away_keeps_no_session_waiting(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = threading.Event()

    def pixels(_config: DeviceConfig, _stop: threading.Event) -> Iterator[cameras.Pixels]:
        yield np.full((48, 64, 3), 80, np.uint8)
        hold.wait(30)
        yield np.full((48, 64, 3), 90, np.uint8)  # the library was in a read

    monkeypatch.setattr(cameras, "_pixels", pixels)
    monkeypatch.setattr(cameras, "SILENCE_S", 2.0)
    driver = driver_of(folder)
    async with driver.frames() as frames:
        await anext(frames)
        closing = asyncio.create_task(driver.close())  # its configuration was changed
        asyncio.get_running_loop().call_soon(hold.set)
        with pytest.raises(LinkError, match="stopped sending"):
            await anext(frames)
    await closing


async def test_a_session_that_fails_closes_the_camera(folder: Path) -> None:
    driver = driver_of(folder)
    with pytest.raises(RuntimeError, match="no face"):
        async with driver.frames():
            raise RuntimeError("no face")
    await driver.close()
    assert (driver.sessions, camera_threads()) == (0, 0)


async def test_a_video_that_ends_is_a_lost_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cameras, "_kind", lambda address: "stream")
    driver = driver_of(filmed(tmp_path))
    with pytest.raises(LinkError, match="stopped sending"):
        await greys(driver, 10)
    await driver.close()
    assert camera_threads() == 0


async def test_a_camera_that_is_busy_for_a_moment_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cameras, "_kind", lambda address: "stream")
    monkeypatch.setattr(cameras, "OPEN_AGAIN_S", 0.01)
    open_video, openings = cameras._open_video, list[str]()

    def busy(config: DeviceConfig) -> object:
        openings.append(config.address)
        if len(openings) < cameras.OPENINGS:
            raise LinkError("503")
        return open_video(config)

    monkeypatch.setattr(cameras, "_open_video", busy)
    driver = driver_of(filmed(tmp_path))
    assert await greys(driver, 1)
    await driver.close()
    assert len(openings) == cameras.OPENINGS


async def test_a_stream_nobody_serves_is_a_link_error_without_its_password() -> None:
    driver = driver_of("rtsp://guard:s3cret@127.0.0.1:1/live?token=abc")
    with pytest.raises(LinkError) as caught:
        await greys(driver, 1)
    assert "s3cret" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_credentials_are_put_into_the_address_the_library_needs() -> None:
    config = DeviceConfig("c", "camera", "rtsp://10.0.0.9/live", username="guard", password="p@ss/word")
    assert cameras._with_credentials(config) == "rtsp://guard:p%40ss%2Fword@10.0.0.9/live"


async def test_a_lost_session_ends_the_driver(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cameras, "LOOK_S", 0.01)
    driver = driver_of(folder, fps=50)
    running = asyncio.create_task(driver.run(Recorded()))
    async with driver.frames() as frames:
        await anext(frames)
        assert driver._source is not None
        driver._source._end(LinkError("unplugged"))
    with pytest.raises(LinkError, match="unplugged"):
        await asyncio.wait_for(running, 10)


@pytest.fixture
def no_usb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with one camera whose file nobody made: this one may have any."""
    listed = tmp_path / "video4linux"
    (listed / "video241").mkdir(parents=True)
    (listed / "video241" / "name").write_text("Integrated Camera\n")
    (listed / "video242").mkdir()
    monkeypatch.setattr(cameras, "VIDEO_DEVICES", listed)
    return listed


@pytest.mark.parametrize("address", ["250", "/dev/video250"])
async def test_a_usb_camera_that_is_not_there_is_named_with_those_that_are(no_usb: Path, address: str) -> None:
    assert cameras.usb_cameras() == {"/dev/video241": "Integrated Camera"}
    driver = driver_of(address)
    for attempt in (driver.probe(), greys(driver, 1)):
        with pytest.raises(LinkError, match=r"/dev/video250.* on this machine: /dev/video241 \(Integrated Camera\)"):
            await attempt
    await driver.close()
    assert camera_threads() == 0


async def test_without_any_usb_camera_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cameras, "VIDEO_DEVICES", tmp_path / "none")
    with pytest.raises(LinkError, match="on this machine: none"):
        await driver_of("250").probe()


async def test_a_usb_camera_is_asked_for_its_size_and_lost_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A film stands for the device: the library's own reader, behind the index that a camera has."""
    film = filmed(tmp_path)
    asked: dict[int, float] = {}

    reader = cv2.VideoCapture(str(film))

    class Plugged:
        def __init__(self, index: int, backend: int) -> None:
            assert (index, backend) == (3, cv2.CAP_V4L2)
            self.isOpened, self.read, self.release = reader.isOpened, reader.read, reader.release

        def set(self, setting: int, value: float) -> bool:
            asked[setting] = value
            return True

    monkeypatch.setattr(cv2, "VideoCapture", Plugged)
    monkeypatch.setattr(cameras, "_require_usb", lambda _address: None)
    driver = driver_of("3", width=1280, height=720)
    with pytest.raises(LinkError, match="stopped sending"):
        await greys(driver, 10)
    assert (asked[cv2.CAP_PROP_FRAME_WIDTH], asked[cv2.CAP_PROP_FRAME_HEIGHT]) == (1280, 720)


async def test_a_camera_that_sends_nothing_times_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cameras, "SILENCE_S", 0.05)
    driver = driver_of(folder, fps=0.2)
    with pytest.raises(LinkTimeout):
        await greys(driver, 2)


@pytest.mark.parametrize("make", ["missing", "empty"])
async def test_a_folder_without_images_is_a_link_error(tmp_path: Path, make: str) -> None:
    driver = driver_of(tmp_path / "none" if make == "missing" else tmp_path)
    with pytest.raises(LinkError, match="no images"):
        await driver.run(Recorded())
    with pytest.raises(LinkError, match="no images"):
        await greys(driver, 1)


async def test_a_folder_of_broken_images_is_a_link_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"junk")
    with pytest.raises(LinkError, match="read as an image"):
        await greys(driver_of(tmp_path), 1)


def test_an_empty_address_is_refused() -> None:
    with pytest.raises(ValueError, match="address"):
        driver_of("")
