"""Several recipients at once, as the configuration names them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.config import Upstream
from edge_agent.database import Database
from edge_agent.delivery.collector import Collector
from edge_agent.delivery.outbox import Outbox
from edge_agent.delivery.upstreams import Upstreams
from edge_agent.delivery.webhook import WebhookSink
from edge_agent.people.roster import Roster
from tests.edge_agent.delivery.servers import RawRecorder, serve
from tests.edge_agent.delivery.test_outbox import event


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[Outbox]:
    database = Database.open(tmp_path / "agent.db", ballast_bytes=1)
    yield Outbox(database)
    database.close()


@contextlib.asynccontextmanager
async def running(outbox: Outbox) -> AsyncIterator[Upstreams]:
    upstreams = Upstreams(
        outbox._database,
        outbox,
        Roster(b"k" * 32),
        gateway="gw1",
        tenant="acme",
        derive=lambda use: use.encode().ljust(32, b"."),
    )
    task = asyncio.create_task(upstreams.run())
    try:
        yield upstreams
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def upstream(name: str, url: str, **changes: object) -> Upstream:
    return Upstream.model_validate({"name": name, "url": url} | changes)


async def told(outbox: Outbox, name: str, upstreams: Upstreams) -> str:
    """What a recipient that cannot be reached says."""
    async with asyncio.timeout(10):
        while not (name in upstreams.health and upstreams.health[name].error):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return upstreams.health[name].error


async def test_each_gets_everything_at_its_own_pace_and_in_its_own_words(outbox: Outbox, tmp_path: Path) -> None:
    await outbox.append([event(1, subject="s1", data={"user_id": "7"}), event(2)])
    collectors = [Collector(tmp_path / f"{n}.db") for n in range(2)]
    async with serve(collectors[0].app) as a, serve(collectors[1].app) as b, running(outbox) as upstreams:
        await upstreams.follow(
            [
                upstream("hq", f"http://127.0.0.1:{a}/events"),
                upstream("payroll", f"http://127.0.0.1:{b}/events", fields=("subject",), pseudonymous=True),
                upstream("down", "http://127.0.0.1:9/"),
            ]
        )
        async with asyncio.timeout(10):
            await outbox.drained("hq")
            await outbox.drained("payroll")
        (hq, _), (payroll, _) = [sorted(await c.newest(2), key=lambda m: m["id"]) for c in collectors]
        assert (hq["subject"], hq["data"]["user_id"]) == ("s1", "7")
        assert payroll["subject"] != "s1"
        assert payroll["data"] == {}
        assert (await outbox.ledger("down")).pending == 2
    for collector in collectors:
        collector.close()


async def test_one_that_leaves_the_configuration_is_revoked(outbox: Outbox) -> None:
    recorder = RawRecorder(reply=b"")
    await outbox.append([event(1)])
    async with recorder.serve() as port, running(outbox) as upstreams:
        await upstreams.follow([upstream("hq", f"http://127.0.0.1:{port}/")])
        async with asyncio.timeout(10):
            await recorder.arrived.wait()
            await upstreams.follow([])
            await recorder.gone.wait()
        before = recorder.received
        await outbox.append([event(2)])
        await upstreams.follow([upstream("hq", f"http://127.0.0.1:{port}/")])  # the name stays revoked
        assert (await outbox.ledger("hq")).revoked
        assert (recorder.received, recorder.connections) == (before, 1)


async def test_one_that_is_switched_off_is_owed_what_happens_meanwhile(outbox: Outbox, tmp_path: Path) -> None:
    collector = Collector(tmp_path / "c.db")
    async with serve(collector.app) as port, running(outbox) as upstreams:
        url = f"http://127.0.0.1:{port}/events"
        await upstreams.follow([upstream("hq", url, enabled=False)])
        await outbox.append([event(1)])
        assert (await outbox.ledger("hq")).pending == 1
        await upstreams.follow([upstream("hq", url)])
        async with asyncio.timeout(10):
            await outbox.drained("hq")
        assert (await collector.tally()).events == 1
    collector.close()


async def test_an_endpoint_off_the_list_gets_nothing_and_stops_nothing(outbox: Outbox) -> None:
    recorder = RawRecorder()
    await outbox.append([event(1)])
    async with recorder.serve() as port, running(outbox) as upstreams:
        await upstreams.follow([upstream("abroad", f"http://127.0.0.1:{port}/")], allowed_hosts=["*.example.cn"])
        assert "not on the list" in await told(outbox, "abroad", upstreams)
        assert upstreams.health["abroad"].state == "not_admitted"
    assert recorder.connections == 0
    assert (await outbox.ledger("abroad")).pending == 1


async def test_a_missing_extra_is_named(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "edge_agent.delivery.nats", None)
    await outbox.append([event(1)])
    async with running(outbox) as upstreams:
        await upstreams.follow([upstream("fleet", "nats://127.0.0.1:4222", kind="nats")])
        assert "edge-agent[nats]" in await told(outbox, "fleet", upstreams)


async def test_one_that_is_reinstated_while_its_loop_still_ends_is_served_again(
    outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector, slow = Collector(tmp_path / "c.db"), asyncio.Event()
    close = WebhookSink.close

    async def slowly(sink: WebhookSink) -> None:
        await close(sink)
        if asyncio.current_task() is not this:
            await slow.wait()

    this = asyncio.current_task()
    monkeypatch.setattr(WebhookSink, "close", slowly)
    await outbox.append([event(1)])
    async with serve(collector.app) as port, running(outbox) as upstreams:
        await upstreams.follow([upstream("hq", f"http://127.0.0.1:{port}/events")])
        async with asyncio.timeout(10):
            await outbox.drained("hq")
            await upstreams.revoke("hq")
            await upstreams.reinstate("hq")
            slow.set()
            await outbox.append([event(2)])
            await outbox.drained("hq")
        assert (await collector.tally()).events == 2
    collector.close()
