"""The whole agent between simulated devices on real sockets and an upstream that writes down every body it gets."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from device_drivers.listener import listen
from device_drivers.simulated.adms import SimulatedAdms
from device_drivers.simulated.c3 import SimulatedC3
from device_drivers.simulated.fingerprint_uart import SimulatedModule
from device_drivers.simulated.isapi import SimulatedIsapi
from device_drivers.simulated.osdp import SimulatedBus, SimulatedReader
from device_drivers.simulated.synthetic_fingerprints import DPI, Finger
from device_drivers.simulated.uhppote import SimulatedUhppote
from device_drivers.simulated.zkteco import SimulatedZkTerminal
from device_drivers.wiegand import encode
from edge_agent.agent import Agent
from edge_agent.config import SiteConfig, parse
from edge_agent.configuration import Version
from edge_agent.database import utc_now
from edge_agent.delivery.collector import Collector
from edge_agent.delivery.outbox import Stored
from edge_agent.delivery.payload import TYPE_PREFIX
from edge_agent.devices.supervise import LinkState
from edge_agent.people.credentials import Rights, set_rights
from edge_agent.people.roster import Person
from edge_agent.policy.consent import Act
from templates_store.template import Modality, Purpose, SubjectId

PATIENCE_S = 30.0  # for something that takes moments; only a failing test waits
SECRET = "secret-of-the-collector-in-tests"
ADMS_SERIAL = "CQZ7224460173"
READER_KEY = bytes(range(1, 17))
FACILITY = 10
ANN, BOB = SubjectId("p1001"), SubjectId("p1002")
CARDS = {ANN: 20001, BOB: 20002}
PIN = "4711"


@cache
def finger(seed: int) -> Finger:
    return Finger.grow(seed, width=256, height=288)


@dataclass
class Receiver:
    """The collector behind a recorder of bodies; `url` once it listens."""

    collector: Collector
    url: str = ""
    bodies: list[bytes] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()

        async def overheard() -> Message:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        await self.collector.app(scope, overheard, send)
        self.bodies.append(bytes(body))

    async def told(self, prefix: str = "attendance.punch") -> list[dict[str, Any]]:
        """What arrived, oldest first; each event once however often it was sent."""
        newest = await self.collector.newest(10_000)
        return [event for event in reversed(newest) if event["type"].startswith(TYPE_PREFIX + prefix)]


@contextlib.asynccontextmanager
async def receiver(path: Path) -> AsyncIterator[Receiver]:
    made = Receiver(Collector(path, secret=SECRET.encode()))
    async with listen(made, host="127.0.0.1", port=0) as server:
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/events"
        yield made
    made.collector.close()


def upstream(name: str, to: Receiver, **more: Any) -> dict[str, Any]:
    return {"name": name, "url": to.url, "secret": SECRET, **more}


class AgentSite:
    """Devices and the receiver; `running` puts an agent between them, again and again in the same folder."""

    def __init__(self, folder: Path, upstream_receiver: Receiver) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.receiver = upstream_receiver
        self.zk = SimulatedZkTerminal(serial="CJDE193560303", comm_key=4711, timezone="Asia/Shanghai")
        self.isapi = SimulatedIsapi()
        self.c3 = SimulatedC3()
        self.controller = SimulatedUhppote(clock=lambda: datetime.now(UTC).replace(tzinfo=None))
        self.reader = SimulatedReader(1, key=READER_KEY)
        self.module = SimulatedModule()
        self.adms: SimulatedAdms | None = None
        self.lines: dict[str, str] = {}
        self._bus = SimulatedBus(self.reader)

    @contextlib.asynccontextmanager
    async def devices(self) -> AsyncIterator[None]:
        for user_id in ("1001", "1002"):
            self.zk.add_user(user_id)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self.zk)
            await stack.enter_async_context(self.isapi.running())
            await stack.enter_async_context(self.c3.running())
            self.lines["controller"] = await self.controller.start()
            stack.push_async_callback(self.controller.stop)
            self.lines["reader"] = await self._bus.start()
            stack.push_async_callback(self._bus.stop)
            self.lines["module"] = await self.module.start()
            stack.push_async_callback(self.module.stop)
            yield

    def device(self, name: str) -> dict[str, Any]:
        """One device as the enterprise would write it."""
        pds = [{"address": 1, "key": READER_KEY.hex(), "name": "gate"}]
        quick = {"poll_s": 0.05}
        known: dict[str, dict[str, Any]] = {
            "zk": {"kind": "zkteco", "address": self.zk.address, "password": "4711"},
            "adms": {"kind": "adms", "serial": ADMS_SERIAL},
            "isapi": {
                "kind": "isapi",
                "address": self.isapi.address,
                "username": self.isapi.username,
                "password": self.isapi.password,
            },
            "pushing": {
                "kind": "isapi",
                "address": self.isapi.address,
                "username": self.isapi.username,
                "password": self.isapi.password,
                "options": {"events": "push", "check_s": 0.05, "sweep_s": 0.2},
            },
            "c3": {"kind": "c3", "address": self.c3.address, "options": quick},
            "controller": {
                "kind": "uhppote",
                "address": self.lines["controller"],
                "attendance": False,
                "options": {**quick, "timeout_s": 1.0},
            },
            "reader": {
                "kind": "osdp",
                "address": self.lines["reader"],
                "attendance": False,
                "options": {"pds": pds},
            },
            "sensor": {
                "kind": "fingerprint_uart",
                "address": self.lines["module"],
                "attendance": False,
                "biometrics": ["fingerprint"],
                "options": {"look_s": 0.01},
            },
        }
        return {"name": name, **known[name]}

    def site(self, *devices: str, **more: Any) -> dict[str, Any]:
        """A site of these devices; with a reader among them it has a door."""
        made: dict[str, Any] = {
            "site": "HQ",
            "timezone": "Asia/Shanghai",
            "devices": [self.device(name) for name in devices],
            "upstreams": [upstream("collector", self.receiver)],
        }
        if "reader" in devices:
            point: dict[str, Any] = {"name": "gate", "door": "front", "reader": "reader", "reader_no": 1}
            if "sensor" in devices:
                point |= {"fingerprint": "sensor", "session_s": 5}
                made |= {
                    "modalities": {"fingerprint": {"enabled": True}},
                    "privacy": {"notice_version": "n1", "impact_assessment": "pia-1"},
                    "retention": {"templates_days": 365},
                }
            made["access"] = {
                "doors": [
                    {
                        "name": "front",
                        "device": "controller",
                        "relay": 1,
                        "verify": [["card"], ["finger"], ["pin"]],
                    }
                ],
                "groups": [{"name": "staff", "grants": [{"doors": ["front"]}]}],
                "points": [point],
            }
        return made | more

    def document(self, site: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {
            "gateway": {"name": "gw1", "tenant": "acme", "data_dir": str(self.data), "ballast_mb": 1},
            "api": {"listen": "127.0.0.1:0"},
            "adms": {"listen": "127.0.0.1:0"},
            "site": site,
            **more,
        }

    @contextlib.asynccontextmanager
    async def running(self, site: dict[str, Any], **more: Any) -> AsyncIterator[Agent]:
        """An agent at work, everything configured online."""
        agent = await Agent.open(parse(self.document(site, **more), source="test"))
        working = asyncio.create_task(agent.run())
        calling: asyncio.Task[None] | None = None
        try:
            await _first(working, agent.ready.wait(), agent.in_force.wait())
            if any(device.kind == "adms" for device in agent.site.devices):
                self.adms = SimulatedAdms(f"http://127.0.0.1:{agent.adms_port}", ADMS_SERIAL, poll_s=0.05)
                calling = asyncio.create_task(self.adms.run())
            yield agent
            if working.done():
                await working
        finally:
            for task in (calling, working):
                if task is not None:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
            await agent.close()

    def show_card(self, subject: SubjectId) -> None:
        self.reader.show_card(encode("H10301", number=CARDS[subject], facility=FACILITY))


async def _first(working: asyncio.Task[None], *waits: Awaitable[object]) -> None:
    """Until all of `waits` hold, or the agent's own fault comes out."""
    waiting: asyncio.Future[Any] = asyncio.gather(*waits)
    either: set[asyncio.Future[Any]] = {working, waiting}
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        waiting.cancel()
        await working


@contextlib.asynccontextmanager
async def agent_site(folder: Path) -> AsyncIterator[AgentSite]:
    async with receiver(folder / "upstream.db") as made:
        site = AgentSite(folder, made)
        async with site.devices():
            yield site


async def happened(agent: Agent, prefix: str, matches: Callable[[Stored], bool] = lambda _: True) -> Stored:
    """The first stored event of this type that `matches`, waiting for it."""
    seen: list[Stored] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                last = agent.outbox.last_sequence
                seen = await agent.outbox.events(type_prefix=prefix, limit=1000)
                for stored in seen:
                    if matches(stored):
                        return stored
                await agent.outbox.changed(last)
    except TimeoutError:
        states = {name: (str(health.state), health.error) for name, health in agent.fleet.health.items()}
        raise AssertionError(f"no {prefix} came; {states}; {[(e.event.device, e.event.data) for e in seen]}") from None


async def until(condition: Callable[[], object]) -> None:
    """For what nobody announces; looks a hundred times a second."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def online(agent: Agent) -> None:
    """Every configured device is here."""
    wanted = {device.name for device in agent.site.devices}
    await until(lambda: wanted == {n for n, h in agent.fleet.health.items() if h.state is LinkState.ONLINE})


async def delivered(agent: Agent, sink: str = "collector") -> None:
    async with asyncio.timeout(PATIENCE_S):
        await agent.outbox.drained(sink)


async def people(agent: Agent) -> None:
    """Ann and Bob: numbers at every terminal, cards, rights; Ann has a PIN."""
    hashed = await asyncio.to_thread(agent.roster.hash_pin, PIN)

    def work(connection: sqlite3.Connection) -> None:
        now = utc_now()
        for subject, name in ((ANN, "Ann"), (BOB, "Bob")):
            agent.roster.put(connection, Person(subject, name), now=now)
            agent.roster.link(connection, subject, subject[1:])
            agent.roster.add_card(connection, subject, str(FACILITY << 16 | CARDS[subject]), now=now)
            set_rights(connection, subject, Rights(groups=("staff",)))
        agent.roster.set_pin(connection, ANN, hashed, now=now)

    await agent.database.write(work)


def acts(subject: SubjectId, modality: Modality = Modality.FINGERPRINT) -> list[Act]:
    return [
        Act(subject, modality, purpose, "n1", utc_now(), "ab" * 32, of_age=True, recorded_by="li")
        for purpose in Purpose
    ]


async def enrol_finger(agent: Agent, subject: SubjectId, seed: int) -> None:
    """With consent, through the flow that a customer uses."""
    step = await agent.enrolment.start(acts(subject), actor="li", position=2, samples=2)
    for number in range(6):
        image = await asyncio.to_thread(finger(seed).impression, number)
        step = await agent.enrolment.offer_finger(step.enrolment_id, image, dpi=DPI)
        if step.ready:
            await agent.enrolment.finish(step.enrolment_id)
            return
    raise AssertionError("a grown finger gives good samples")


async def apply(agent: Agent, site: dict[str, Any]) -> Version:
    """A new version, as an administrator makes one, and its devices and upstreams in force."""
    wanted = SiteConfig.model_validate(site)
    version = await agent.configuration.apply(wanted, actor="li", reason="test", now=utc_now())
    await until(
        lambda: (
            set(agent.fleet.health) == {d.name for d in wanted.devices}
            and set(agent.upstreams.health) == {u.name for u in wanted.upstreams}
        )
    )
    return version
