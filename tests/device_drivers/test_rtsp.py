"""Asking a camera why it shows nothing, and live streams of GStreamer's RTSP server."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from device_drivers import cameras, rtsp
from device_drivers.cameras import CameraDriver
from device_drivers.devices import DeviceConfig, VideoFrame
from device_drivers.errors import AuthenticationFailed, DeviceError, DeviceRefused, LinkError, ProtocolError
from tests.device_drivers.recorded import Recorded

SYSTEM_PYTHON = "/usr/bin/python3"  # Debian makes gi for it
SERVER = Path(__file__).with_name("rtsp_server.py")
USER, PASSWORD = "guard", "s3c/ret"
SHADES, EACH_S = 24, 0.25
PATIENCE_S = 60.0  # an encoder starts; only a failing test waits


def no_server() -> str:
    """Why GStreamer's server is not to be had here, or ""."""
    wanted = (
        "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst, GstRtspServer;"
        " Gst.init(None); assert Gst.ElementFactory.find('x264enc') and Gst.ElementFactory.find('rtph264pay')"
    )
    try:
        asked = subprocess.run([SYSTEM_PYTHON, "-c", wanted], capture_output=True, timeout=60, check=False)
    except OSError as exc:
        return f"{SYSTEM_PYTHON}: {exc}"
    return "" if asked.returncode == 0 else "GStreamer's RTSP server is not installed; .ci/run names its packages"


WHY_NOT = no_server()
live = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)


@dataclass
class Server:
    port: int
    process: Process

    async def die(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    def driver(self, path: str = "live", *, password: str = PASSWORD) -> CameraDriver:
        address = f"rtsp://127.0.0.1:{self.port}/{path}"
        return CameraDriver(DeviceConfig("gate", "camera", address, username=USER, password=password), cursor=None)


@contextlib.asynccontextmanager
async def server(port: int = 0) -> AsyncIterator[Server]:
    words = [str(SERVER), str(port), USER, PASSWORD, str(SHADES), str(EACH_S)]
    process = await asyncio.create_subprocess_exec(SYSTEM_PYTHON, *words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        word, _, bound = (await process.stdout.readline()).decode().partition(" ")
    assert word == "ready"
    made = Server(int(bound), process)
    try:
        yield made
    finally:
        await made.die()


async def _drained(frames: AsyncIterator[VideoFrame]) -> None:
    async for _ in frames:
        pass


def shade_of(frame: VideoFrame) -> int:
    return int(frame.pixels.mean() * SHADES / 256)


def shade_now() -> int:
    return int(time.monotonic() / EACH_S) % SHADES


@live
async def test_the_newest_frame_of_a_live_stream_wins() -> None:
    async with server() as camera:
        driver = camera.driver()
        await driver.probe()
        async with asyncio.timeout(PATIENCE_S), driver.frames() as frames:
            first = await anext(frames)
            assert (shade_now() - shade_of(first)) % SHADES * EACH_S <= 1.0  # not what came in while it was opened
            source = driver._source
            assert source is not None
            await source.after(source._number + 60)  # three seconds in which nobody looks
            second = await anext(frames)
            assert second.taken_at - first.taken_at >= 1.5
            assert (shade_now() - shade_of(second)) % SHADES * EACH_S <= 2.5  # a queue would be further behind
        assert driver._source is None


@live
async def test_a_camera_that_goes_is_a_lost_link_and_the_next_driver_finds_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cameras, "LOOK_S", 0.01)
    async with server() as camera:
        driver = camera.driver()
        running = asyncio.create_task(driver.run(Recorded()))
        async with asyncio.timeout(PATIENCE_S):
            async with driver.frames() as frames:
                await anext(frames)
                await camera.die()
                with pytest.raises(LinkError, match="stopped sending"):
                    await _drained(frames)
            with pytest.raises(LinkError):
                await running
        assert driver._source is None
        with pytest.raises(LinkError, match="Connect call failed"):
            await camera.driver().probe()
        async with server(camera.port) as again, asyncio.timeout(PATIENCE_S), again.driver().frames() as frames:
            assert (await anext(frames)).pixels.shape == (240, 320, 3)


@live
@pytest.mark.parametrize(
    ("path", "password", "error", "words"),
    [
        ("live", "wrong", AuthenticationFailed, "refuses this user name or password"),
        ("none", PASSWORD, DeviceRefused, "no stream under this path"),
    ],
)
async def test_a_wrong_password_and_a_wrong_path_are_told_apart(
    path: str, password: str, error: type[DeviceError], words: str
) -> None:
    async with server() as camera:
        driver = camera.driver(path, password=password)
        with pytest.raises(error, match=words):
            await driver.probe()
        with pytest.raises(error, match=words) as caught:
            async with driver.frames() as frames:
                await anext(frames)
        assert password not in str(caught.value)


@live
async def test_nothing_of_a_stream_is_kept_after_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    async with server() as camera:
        driver = camera.driver()
        async with asyncio.timeout(PATIENCE_S), driver.frames() as frames:
            await anext(frames)
            source = driver._source
        assert source is not None
        assert (driver._source, source._frame) == (None, None)
    assert list(tmp_path.iterdir()) == []


# From RFC 2617 section 3.5 and RFC 7616 section 3.9.1: the method and URI are theirs.
RFC_2617 = (
    'Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093",'
    ' opaque="5ccc069c403ebaf9f0171e9517f40e41"'
)
RFC_7616 = (
    'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=SHA-256,'
    ' nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)


@pytest.mark.parametrize(
    ("challenge", "username", "password", "cnonce", "response"),
    [
        (RFC_2617, "Mufasa", "Circle Of Life", "0a4f113b", "6629fae49393a05397450978507c4ef1"),
        (
            RFC_7616,
            "Mufasa",
            "Circle of Life",
            "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
        ),
    ],
)
def test_digest_answers_are_those_of_the_specifications(
    monkeypatch: pytest.MonkeyPatch, challenge: str, username: str, password: str, cnonce: str, response: str
) -> None:
    monkeypatch.setattr(rtsp.secrets, "token_hex", lambda _n: cnonce)
    said = rtsp.authorization(
        ["Basic realm=x", challenge], url="/dir/index.html", username=username, password=password, method="GET"
    )
    assert f'response="{response}"' in said
    assert password not in said


def test_basic_is_answered_where_nothing_better_is_offered() -> None:
    said = rtsp.authorization(["Basic realm=x"], url="u", username="Aladdin", password="open sesame")
    assert said == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="  # RFC 7617 section 2


@pytest.mark.parametrize("challenges", [[], ["Negotiate"], ['Digest realm="x", algorithm=MD5-sess']])
def test_a_challenge_that_nobody_can_answer_is_said(challenges: list[str]) -> None:
    with pytest.raises(ProtocolError, match="neither digest nor basic"):
        rtsp.authorization(challenges, url="u", username="a", password="b")


@pytest.mark.parametrize(
    "head", [b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"RTSP/1.0 20\r\n\r\n", b"\xff" * 100 + b"\r\n\r\n"]
)
def test_what_is_no_rtsp_is_refused(head: bytes) -> None:
    with pytest.raises(ProtocolError, match="no RTSP"):
        rtsp.answer(head, address="camera:554")


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n", None, ""),
        (b"RTSP/1.0 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\n\r\n", AuthenticationFailed, "asks for"),
        (b"RTSP/1.0 503 Busy\r\n\r\n", DeviceRefused, "answered 503"),
        (b"x" * 40_000, ProtocolError, "no RTSP"),
        (b"", LinkError, "closed the connection"),
    ],
)
async def test_a_camera_may_answer_anything(said: bytes, error: type[DeviceError] | None, words: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    made = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with made:
        address = f"rtsp://127.0.0.1:{made.sockets[0].getsockname()[1]}/live?token=s3cret"
        if error is None:
            await rtsp.describe(address)
            return
        with pytest.raises(error, match=words) as caught:
            await rtsp.describe(address)
        assert "s3cret" not in str(caught.value)
