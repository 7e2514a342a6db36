"""A whole gateway for the browser: the real agent with simulated devices, on a loop of its own in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from device_drivers.simulated.osdp import SimulatedReader
from device_drivers.simulated.synthetic_fingerprints import Finger
from edge_agent.agent import Agent
from edge_agent.api import accounts
from edge_agent.config import parse
from edge_agent.database import utc_now
from edge_agent.demo import people
from edge_agent.demo.site import STRANGER_SERIAL, DemoSite
from edge_agent.policy.roles import Role
from edge_agent.server import bootstrap_token

T = TypeVar("T")
START_S = 40.0


class BrowserGateway:
    """Started by `open`, in a thread; everything of the agent's loop is reached through `call`."""

    agent: Agent
    site: DemoSite
    token: str | None

    def __init__(self, folder: Path, faces: Path | None) -> None:
        self.stranger = STRANGER_SERIAL
        self._folder = folder
        self._faces = faces
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gateway")
        self._stack = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        return self.agent.address.rstrip("/")

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the gateway's loop and wait for it."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(START_S)

    def open(self) -> None:
        self._thread.start()
        try:
            self.call(self._stack.enter_async_context(self._running()))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        try:
            self.call(self._stack.aclose())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(START_S)
            self._loop.close()

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        async with DemoSite(self._folder, self._faces).open() as self.site:
            self.agent = await Agent.open(parse(self.site.configuration(api_port=0), source="browser test"))
            await people.enter(self.agent)
            working = asyncio.create_task(self.agent.run())
            calling: list[asyncio.Task[None]] = []
            try:
                async with asyncio.timeout(START_S):
                    await self.agent.ready.wait()
                calling = self.site.call_in(self.agent.adms_port)
                self.token = await bootstrap_token(self.agent.database, now=utc_now())
                yield
            finally:
                for task in (*calling, working):
                    task.cancel()
                await asyncio.gather(*calling, working, return_exceptions=True)
                await self.agent.close()

    def punch(self, number: int) -> None:
        """Somebody puts a finger on the terminal in the lobby."""

        async def swipe() -> None:
            self.site.terminals["lobby-tcp"].swipe(str(number), verify=1, state=0)

        self.call(swipe())

    def lay(self, finger: Finger, impression: int) -> None:
        """Somebody lays a finger on the sensor."""
        self.site.biometrics.module.place(finger, impression)

    def force(self, door: int) -> None:
        """Somebody breaks a door open."""

        async def work() -> None:
            self.site.doors.controller.forced(door)

        self.call(work())

    def shut(self, door: int) -> None:
        async def work() -> None:
            self.site.doors.controller.door_contact(door, is_open=False)

        self.call(work())

    def reset_reader(self, address: int) -> SimulatedReader:
        """A door reader goes back to how it left the factory: install mode, the default key."""
        reader = self.site.doors.readers[address]

        async def work() -> None:
            reader.go_offline()
            reader.key = b""
            reader.come_back()

        self.call(work())
        return reader

    def change(self, section: str, values: dict[str, Any]) -> None:
        """Another administrator changes one section of the configuration."""

        async def work() -> None:
            site = self.agent.site
            part = getattr(site, section).model_copy(update=values)
            await self.agent.configuration.apply(
                site.model_copy(update={section: part}), actor="zhaomin", reason="longer", now=utc_now()
            )

        self.call(work())

    def account(self, name: str, role: Role) -> str:
        """Somebody else with a password of their own, signed in: the value of their session cookie."""
        now = utc_now()

        def work(connection: sqlite3.Connection) -> str:
            known = accounts.find(connection, name)
            known = known or accounts.add(connection, name, role=role, password_hash=None, now=now)
            return accounts.open_session(connection, known, address="", agent="", now=now).id

        return self.call(self.agent.database.write(work))

    def write(self, work: Callable[[sqlite3.Connection], Any]) -> None:
        self.call(self.agent.database.write(work))

    def stand(self, photo: Path) -> None:
        """Put somebody before the gateway's own camera."""
        camera = self._folder / "camera"
        for old in camera.iterdir():
            old.unlink()
        (camera / "now.jpg").symlink_to(photo.resolve())
