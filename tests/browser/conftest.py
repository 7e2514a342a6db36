"""One gateway and one headless Chromium for the tests of one file.

Not for longer: Playwright keeps an event loop running in this thread, in which no asynchronous test can run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from edge_agent.api.access import COOKIE
from edge_agent.policy.roles import Role
from tests.browser.gateway import BrowserGateway
from tests.shared_data import SHARED

CHROMIUM = Path("/usr/bin/chromium")
FACES = SHARED / "faces" / "lfw"
CAMERA_SHOWS = FACES / "Akhmed_Zakayev"
WAIT_MS = 15_000  # for whatever a page is to show; a busy machine takes its time
NAME, PASSWORD = "linlan", "correct horse battery staple"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]  # fmt: skip


expect.set_options(timeout=WAIT_MS)


@dataclass
class Console:
    """What a person has before them: pages of one gateway, and everything a page did wrong."""

    gateway: BrowserGateway
    browser: Browser
    faults: list[str] = field(default_factory=list)
    _expected: list[str] = field(default_factory=list)
    _contexts: list[BrowserContext] = field(default_factory=list)
    _state: dict[str, object] | None = None  # cookies of the administrator

    def context(self, *, signed_in: bool = True, language: str = "en", width: int = 1440) -> BrowserContext:
        if signed_in and self._state is None:
            self.sign_in()
        context = self.browser.new_context(
            base_url=self.gateway.url,
            ignore_https_errors=True,  # the gateway's own certificate authority is not in the browser
            locale="zh-CN" if language == "zh" else "en-GB",
            viewport={"width": width, "height": 900},
            reduced_motion="reduce",
            storage_state=self._state if signed_in else None,  # type: ignore[arg-type]
        )
        context.set_default_timeout(WAIT_MS)
        self._contexts.append(context)
        return context

    def page(self, path: str = "", *, signed_in: bool = True, language: str = "en", width: int = 1440) -> Page:
        page = self.context(signed_in=signed_in, language=language, width=width).new_page()
        self.watch(page)
        if path:
            page.goto(path)
        return page

    def page_of(self, name: str, role: Role, path: str, *, language: str = "en") -> Page:
        """Somebody else, at a browser of their own."""
        self.be_claimed()
        context = self.context(signed_in=False, language=language)
        context.add_cookies(
            [{"name": COOKIE, "value": self.gateway.account(name, role), "url": self.gateway.url, "secure": True}]
        )
        page = context.new_page()
        self.watch(page)
        page.goto(path)
        return page

    def watch(self, page: Page) -> None:
        """Note console errors, script errors, and requests to anywhere but the gateway."""
        own = urlsplit(self.gateway.url).netloc

        def request(url: str) -> None:
            parts = urlsplit(url)
            if parts.scheme not in {"data", "blob"} and parts.netloc != own:
                self.faults.append(f"request to {url}")

        page.on("console", lambda m: self.faults.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("pageerror", lambda error: self.faults.append(f"script: {error}"))
        page.on("request", lambda r: request(r.url))

    def expected(self, words: str) -> None:
        """A refusal that the test asked for: the browser writes it to its console, again each time the page tries."""
        assert any(words in fault for fault in self.faults)
        self._expected.append(words)

    def unexpected(self) -> list[str]:
        return [fault for fault in self.faults if not any(words in fault for words in self._expected)]

    def clear(self) -> None:
        self.faults.clear()
        self._expected.clear()

    def claim(self) -> Page:
        """The first visit: the one-time token makes the administrator."""
        page = self.page("/", signed_in=False)
        page.get_by_label("One-time token").fill(self.gateway.token or "")
        page.get_by_label("Administrator account").fill(NAME)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Claim and continue").click()
        page.wait_for_url(self.gateway.url + "/")
        self.gateway.token = None
        return page

    def be_claimed(self) -> None:
        """The administrator has been here before."""
        if self.gateway.token is not None:
            self.sign_in()

    def sign_in(self) -> Page:
        """Through the sign-in page; the first time through the claim."""
        if self.gateway.token is not None:
            page = self.claim()
        else:
            page = self.page("/login", signed_in=False)
            page.get_by_label("Account").fill(NAME)
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url(self.gateway.url + "/")
        self._state = dict(page.context.storage_state())
        return page

    def close_pages(self) -> None:
        for context in self._contexts:
            context.close()
        self._contexts.clear()


@pytest.fixture(scope="module")
def console_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    if not CHROMIUM.exists():
        pytest.skip(f"needs a browser at {CHROMIUM}, which is not on this machine")
    folder = tmp_path_factory.mktemp("gateway")
    arguments = list(ARGUMENTS)
    if CAMERA_SHOWS.is_dir():
        film = folder / "camera.mjpeg"
        film.write_bytes(_film(sorted(CAMERA_SHOWS.glob("*.jpg"))))
        arguments.append(f"--use-file-for-fake-video-capture={film}")
    gateway = BrowserGateway(folder, FACES if FACES.is_dir() else None)
    gateway.open()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
            try:
                yield Console(gateway, browser)
            finally:
                browser.close()
    finally:
        gateway.close()


def _film(photos: list[Path]) -> bytes:
    """Motion JPEG for the browser's camera: each photograph for a second, in the middle of a grey frame."""
    frames = []
    for photo in photos:
        picture = cv2.resize(np.asarray(cv2.imread(str(photo))), (480, 480))
        frame = np.full((480, 640, 3), 128, np.uint8)
        frame[:, 80:560] = picture
        frames += [cv2.imencode(".jpg", frame)[1].tobytes()] * 20
    return b"".join(frames)


@pytest.fixture
def console(console_of_module: Console) -> Iterator[Console]:
    """A clean table before each test; whatever its pages did wrong fails it."""
    console_of_module.clear()
    yield console_of_module
    console_of_module.close_pages()
    assert not console_of_module.unexpected()
