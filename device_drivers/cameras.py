"""Cameras: RTSP, USB, or a folder of images shown in turn. Open only inside `frames()`.

OpenCV reads in a thread of its own and keeps nothing but the newest frame: whoever looks late sees what is in front
of the camera now, not a queue. A lost camera raises LinkError; supervision makes a new driver. Between sessions an RTSP
camera is asked now and then whether it is there (DESCRIBE: no picture is sent for that), and where a stream cannot be
opened the camera is asked why.

address: "rtsp://..." or "http(s)://...", a USB index ("0") or "/dev/videoN", or a folder.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
from numpy.typing import NDArray

from device_drivers import rtsp
from device_drivers.devices import Capabilities, DeviceConfig, Feature, Identity, Record, VideoFrame
from device_drivers.errors import LinkError, LinkTimeout

OPEN_S = 10.0
# A camera built on GStreamer answers 503 while it puts away what the last question (a probe's) had set up.
OPENINGS = 3
OPEN_AGAIN_S = 0.5
ASK_EVERY_S = 30.0
LOOK_S = 1.0
SILENCE_S = 10.0  # a stream without a frame for so long is gone
FOLDER_FPS = 5.0
IMAGE_NAMES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm"})
MAX_IMAGE_FILE = 32 * 1024 * 1024
MAX_SIDE = 8192
MAX_IMAGES = 10_000
# UDP, the library's first choice, tears frames on Wi-Fi. Left to itself it looks at a second and a half of the stream
# before it opens, and hands that out first: against a GStreamer server the first frame was 1.5 s old, and is 0.25 s
# old with these, and opening took half the time.
STREAM_OPTIONS = "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay|analyzeduration;200000|probesize;500000"
VIDEO_DEVICES = Path("/sys/class/video4linux")

Pixels = NDArray[np.uint8]


class CameraDriver:
    """One camera. `opened` counts how often it was opened, `sessions` how many look now."""

    def __init__(self, config: DeviceConfig, *, cursor: bytes | None) -> None:
        self.config = config
        self.opened = 0
        self.sessions = 0
        self._source: _Source | None = None
        self._fault: LinkError | None = None  # of the last session
        self._closing: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        if not config.address:
            raise ValueError("a camera needs an address: a stream, a USB index or a folder")

    async def probe(self) -> Identity:
        """What kind of source it is, and whether it is there; no camera looks for a probe."""
        kind = _kind(self.config.address)
        if kind == "folder" and not await asyncio.to_thread(_has_images, Path(self.config.address)):
            raise LinkError(f"{_shown(self.config.address)}: no images in the folder")
        if kind == "usb":
            _require_usb(self.config.address)
        await _ask_why(self.config)
        return Identity("camera", kind, self.config.serial or self.config.name, "")

    async def capabilities(self) -> Capabilities:
        return Capabilities(frozenset({Feature.LIVE}))

    async def run(self, record: Record) -> None:
        """Cameras say nothing by themselves: this waits, and ends with the fault of a session or of a probe."""
        while True:
            if not self.sessions:
                await self.probe()
            for _ in range(round(ASK_EVERY_S / LOOK_S)):
                if self._fault is not None:
                    await self.probe()
                    raise self._fault
                await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        self._let_go()
        if self._closing is not None:
            await asyncio.shield(self._closing)

    def _let_go(self) -> None:
        """No frame from now on; the library's thread ends with the read it is in."""
        if self._source is not None:
            source, self._source = self._source, None
            source.stop()
            self._closing = asyncio.create_task(asyncio.to_thread(source.join))

    @asynccontextmanager
    async def frames(self) -> AsyncIterator[AsyncIterator[VideoFrame]]:
        """Frames while the block lasts; the camera is off before the first and after the last session.

        Nobody at a door waits for a camera that is being switched off; whoever opens it next does.
        """
        async with self._opening:
            if self._source is None:
                await self.close()
                self._source = _Source(self.config, asyncio.get_running_loop())
                self.opened += 1
            self.sessions += 1
            source = self._source
        try:
            yield _newest(source, self.config)
        finally:
            self.sessions -= 1
            self._fault = source.fault
            if self.sessions == 0:
                self._let_go()


async def _newest(source: _Source, config: DeviceConfig) -> AsyncIterator[VideoFrame]:
    seen = 0
    wait_s = OPEN_S
    while True:
        try:
            async with asyncio.timeout(wait_s):
                frame, seen = await source.after(seen)
        except TimeoutError as exc:
            raise LinkTimeout(_shown(config.address), wait_s) from exc
        except LinkError:
            if not seen:
                await _ask_why(config)  # a better word than the library's, if the camera has one
            raise
        wait_s = SILENCE_S
        yield frame


class _Source:
    """A thread that reads; the newest frame and its number under a lock."""

    def __init__(self, config: DeviceConfig, loop: asyncio.AbstractEventLoop) -> None:
        self.fault: LinkError | None = None
        self._config = config
        self._loop = loop
        self._lock = threading.Lock()
        self._frame: VideoFrame | None = None
        self._number = 0
        self._arrived = asyncio.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name=f"camera {config.name}", daemon=True)
        self._thread.start()

    async def after(self, seen: int) -> tuple[VideoFrame, int]:
        """The newest frame with a number above `seen`. Raises LinkError once the source has ended."""
        while True:
            with self._lock:
                frame, number, fault = self._frame, self._number, self.fault
            if fault is not None:
                raise fault
            if frame is not None and number > seen:
                return frame, number
            self._arrived.clear()
            with self._lock:
                fresh = self._number > seen or self.fault is not None
            if not fresh:
                await self._arrived.wait()

    def stop(self) -> None:
        """The last frame goes now; one that is being read is dropped when it comes."""
        self._stop.set()
        with self._lock:
            if self._frame is not None:
                self._frame.pixels.fill(0)
            self._frame = None

    def join(self) -> None:
        self._thread.join(timeout=OPEN_S)

    def _read(self) -> None:
        shown = _shown(self._config.address)
        try:
            for pixels in _pixels(self._config, self._stop):
                with self._lock:
                    if self._stop.is_set():
                        break
                    self._frame = VideoFrame(pixels, time.monotonic())
                    self._number += 1
                self._notify()
            self._end(LinkError(f"{shown}: the camera stopped sending"))
        except LinkError as exc:
            self._end(exc)
        except (OSError, cv2.error) as exc:
            self._end(LinkError(f"{shown}: {type(exc).__name__}"))

    def _end(self, fault: LinkError) -> None:
        with self._lock:
            self._frame = None
            self.fault = fault
        self._notify()

    def _notify(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived.set)


def _kind(address: str) -> str:
    if re.match(r"(rtsps?|https?|rtmp)://", address):
        return "stream"
    if re.fullmatch(r"(/dev/video)?\d{1,3}", address, re.ASCII):
        return "usb"
    return "folder"


def _shown(address: str) -> str:
    """The address without what may be a password."""
    return re.sub(r"//[^/@]*@", "//", address).partition("?")[0]


async def _ask_why(config: DeviceConfig) -> None:
    """Raises what an RTSP camera says against showing this stream. Other sources say nothing."""
    if config.address.startswith("rtsp://"):
        await rtsp.describe(config.address, username=config.username, password=config.password)


def usb_cameras() -> dict[str, str]:
    """What this machine has: "/dev/videoN" -> the name the camera gives itself."""
    if not VIDEO_DEVICES.is_dir():
        return {}
    names = (device / "name" for device in sorted(VIDEO_DEVICES.iterdir()))
    return {f"/dev/{name.parent.name}": name.read_text("utf-8", "replace").strip() for name in names if name.is_file()}


def _require_usb(address: str) -> None:
    """Raises LinkError that names what there is, or whose rights are missing."""
    device = Path(f"/dev/video{_usb_index(address)}")
    if not device.exists():
        others = ", ".join(f"{path} ({name})" for path, name in usb_cameras().items()) or "none"
        raise LinkError(f"{device}: no camera is plugged in there; on this machine: {others}")
    if not os.access(device, os.R_OK | os.W_OK):
        raise LinkError(f"{device}: may not be opened; this account has to be in the group video")


def _usb_index(address: str) -> int:
    return int(address.removeprefix("/dev/video"))


def _pixels(config: DeviceConfig, stop: threading.Event) -> Iterator[Pixels]:
    if _kind(config.address) == "folder":
        return _folder(config, stop)
    return _video(config, stop)


def _video(config: DeviceConfig, stop: threading.Event) -> Iterator[Pixels]:
    capture = _opened(config, stop)
    try:
        while not stop.is_set():
            there, pixels = capture.read()
            if not there or pixels is None or pixels.ndim != 3:
                return
            yield np.asarray(pixels, np.uint8)
    finally:
        capture.release()


def _opened(config: DeviceConfig, stop: threading.Event) -> Any:
    for _ in range(OPENINGS - 1):
        try:
            return _open_video(config)
        except LinkError:
            if _kind(config.address) == "usb" or stop.wait(OPEN_AGAIN_S):
                raise
    return _open_video(config)


def _open_video(config: DeviceConfig) -> Any:
    address = config.address
    if _kind(address) == "usb":
        _require_usb(address)
        capture = cv2.VideoCapture(_usb_index(address), cv2.CAP_V4L2)
        for key, setting in (("width", cv2.CAP_PROP_FRAME_WIDTH), ("height", cv2.CAP_PROP_FRAME_HEIGHT)):
            if key in config.options:
                capture.set(setting, int(config.options[key]))
    else:
        os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", STREAM_OPTIONS)  # read at each opening
        limits = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(OPEN_S * 1000), cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(SILENCE_S * 1000),
        ]  # fmt: skip
        capture = cv2.VideoCapture(_with_credentials(config), cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        capture.release()
        raise LinkError(f"{_shown(address)}: the camera cannot be opened")
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture


def _with_credentials(config: DeviceConfig) -> str:
    if not config.username or "@" in config.address:
        return config.address
    scheme, _, rest = config.address.partition("://")
    return f"{scheme}://{quote(config.username, safe='')}:{quote(config.password, safe='')}@{rest}"


def _folder(config: DeviceConfig, stop: threading.Event) -> Iterator[Pixels]:
    folder = Path(config.address)
    pause_s = 1.0 / max(float(config.options.get("fps", FOLDER_FPS)), 0.1)
    names = _images(folder)
    if not names:
        raise LinkError(f"{folder}: no images in the folder")
    shown = 0
    for position, path in enumerate(itertools.cycle(names), start=1):
        pixels = _image(path)
        if pixels is not None:
            shown += 1
            yield pixels
            if stop.wait(pause_s):
                return
        elif position >= len(names) and not shown:
            raise LinkError(f"{folder}: no file there can be read as an image")
        if stop.is_set():
            return


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_NAMES and path.is_file())
    return sorted(itertools.islice(found, MAX_IMAGES))


def _has_images(folder: Path) -> bool:
    return bool(_images(folder))


def _image(path: Path) -> Pixels | None:
    """BGR, or None for a file that is no image of bearable size."""
    try:
        if path.stat().st_size > MAX_IMAGE_FILE:
            return None
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        return None
    if pixels is None or max(pixels.shape[:2]) > MAX_SIDE:
        return None
    return np.asarray(pixels, np.uint8)
