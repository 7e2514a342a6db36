"""`edge-agent demo`: a simulated site on real sockets, the real agent, and a small upstream that keeps what it got.

Nothing here is special to the agent: it reads a configuration, speaks the devices' protocols over TCP, and
delivers over HTTP, as it does at a customer's. Only the devices and the receiver are of our own making.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.live import Live

from device_drivers.cameras import CameraDriver
from device_drivers.devices import DeviceConfig
from edge_agent.agent import Agent
from edge_agent.config import AgentConfig, parse
from edge_agent.database import utc_now
from edge_agent.demo import people
from edge_agent.demo.screen import Figures, count_punches
from edge_agent.demo.site import DemoSite
from edge_agent.server import bootstrap_token


async def run(
    folder: Path, *, api_port: int, seconds: float | None, plain: bool, faces: Path | None = None, webcam: str = ""
) -> int:
    """Run the demonstration until Ctrl-C, or for `seconds`. Exit status 1 if anything was lost or came twice."""
    if webcam:
        await CameraDriver(
            DeviceConfig("webcam", "camera", webcam), cursor=None
        ).probe()  # LinkError if it is not there
    folder.mkdir(parents=True, exist_ok=True)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with DemoSite(folder, faces, webcam).open() as site:
        document = site.configuration(api_port=api_port)
        config: AgentConfig = parse(document, source="demo")
        agent = await Agent.open(config)
        await _put_configuration(agent, config)
        await people.enter(agent)
        working = asyncio.create_task(agent.run())
        calling: list[asyncio.Task[None]] = []
        acting: list[asyncio.Task[None]] = []
        before = await agent.database.read(count_punches)
        figures = Figures(agent, site, before=before, seen=agent.outbox.last_sequence)
        try:
            async with contextlib.AsyncExitStack() as stack:
                await _ready(agent, working)
                calling = site.call_in(agent.adms_port)
                acting = [
                    asyncio.create_task(work)
                    for work in (
                        site.people_punch(),
                        site.things_break(),
                        site.doors.people_come(),
                        site.biometrics.people_come(agent),
                    )
                ]
                figures.token = await bootstrap_token(agent.database, now=utc_now())
                if plain:
                    print(figures.welcome(), flush=True)  # noqa: T201 - this is the output asked for
                show = await _screen(stack, figures, plain=plain)
                await _until(stop, working, figures, show, seconds)
        finally:
            for task in acting:
                task.cancel()
            ended = await asyncio.gather(*acting, return_exceptions=True)
            lost = await _settle(figures, working) if not working.done() else None
            for task in calling:
                task.cancel()
            await asyncio.gather(*calling, return_exceptions=True)
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
            await agent.close()
    for fault in ended:
        if isinstance(fault, Exception):  # the simulated life broke, not the agent: say so
            raise fault
    return _verdict(figures, lost)


async def _ready(agent: Agent, working: asyncio.Task[None]) -> None:
    """Wait until the console answers, or the agent's fault comes out."""
    waiting = asyncio.create_task(agent.ready.wait())
    await asyncio.wait({waiting, working}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if working.done():
        await working


async def _put_configuration(agent: Agent, config: AgentConfig) -> None:
    """Ports differ from run to run: the newest document wins over the one a former run left."""
    if agent.site != config.site:
        await agent.configuration.apply(config.site, actor="demo", reason="new ports", now=utc_now())


async def _screen(stack: contextlib.AsyncExitStack, figures: Figures, *, plain: bool) -> Callable[[list[str]], None]:
    if plain:
        return lambda lines: print(*lines, figures.line(), sep="\n", flush=True)  # noqa: T201 - the output asked for
    live = stack.enter_context(Live(figures.table(), console=Console(), refresh_per_second=4, screen=False))
    return lambda _lines: live.update(figures.table())


async def _until(
    stop: asyncio.Event,
    working: asyncio.Task[None],
    figures: Figures,
    show: Callable[[list[str]], None],
    seconds: float | None,
) -> None:
    while not stop.is_set() and not working.done():
        await figures.measure()
        show(await figures.happened())
        if seconds is not None and time.monotonic() - figures.began >= seconds:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await stop.wait()
    if working.done():
        await working  # its fault is the news


async def _settle(figures: Figures, working: asyncio.Task[None]) -> int:
    """Give what is under way time to arrive. How many punches are then still missing upstream."""
    site = figures.site
    site.moody.down_until = 0.0
    for name in figures.agent.fleet.health:
        figures.agent.fleet.nudge(name)
    figures.agent.upstreams.nudge()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30):
            while not working.done():
                await figures.measure()
                if figures.punches >= site.swiped and figures.pending == 0:
                    break
                await asyncio.sleep(0.2)
    await figures.measure()
    return max(0, site.swiped - figures.punches) + figures.pending


def _verdict(figures: Figures, lost: int | None) -> int:
    summary = {
        "punched": figures.site.swiped,
        "stored": figures.punches,
        "delivered": figures.delivered,
        "quarantined": figures.quarantined,
        "still_on_the_way": lost,
    }
    sys.stdout.write(json.dumps(summary) + "\n")
    return 0 if lost == 0 else 1
