"""The loop of one recipient against upstreams that fail in every way they can."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge_agent.database import Database
from edge_agent.delivery.deliver import Delivery, Pauses
from edge_agent.delivery.outbox import Outbox, Revoked
from edge_agent.delivery.payload import FIELDS, Recipient
from edge_agent.delivery.sink import Message, NotAdmitted, Refused, Unavailable
from edge_agent.delivery.webhook import WebhookConfig, WebhookSink
from edge_agent.people.roster import Person, Roster
from tests.edge_agent.delivery.servers import Authority, RawRecorder
from tests.edge_agent.delivery.test_outbox import event

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
EVERYTHING = frozenset(FIELDS)


class Upstream:
    """Takes what `judge` lets it; keeps it by id."""

    def __init__(self, judge: Callable[[Sequence[Message]], None] = lambda _: None) -> None:
        self.judge = judge
        self.held: dict[str, Message] = {}
        self.batches: list[int] = []
        self.repeats = 0
        self.closed = False
        self.news = asyncio.Event()

    async def send(self, batch: Sequence[Message]) -> None:
        assert not self.closed
        self.batches.append(len(batch))
        self.judge(batch)
        for message in batch:
            self.repeats += message["id"] in self.held
            self.held[message["id"]] = message
        self.news.set()

    async def close(self) -> None:
        self.closed = True

    async def holds(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.held) < count:
                self.news.clear()
                await self.news.wait()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database.open(tmp_path / "agent.db", ballast_bytes=1)
    yield database
    database.close()


@pytest.fixture
def outbox(database: Database) -> Outbox:
    return Outbox(database)


def delivery(outbox: Outbox, sink: Any, *, fields: frozenset[str] = EVERYTHING - {"name"}, **options: Any) -> Delivery:
    name = options.pop("name", "hq")
    recipient = Recipient(name, fields, pseudonym_key=options.pop("pseudonym_key", None))
    defaults = {"gateway": "gw1", "tenant": "acme", "pauses": Pauses(first_s=0.001, longest_s=0.002)}
    return Delivery(outbox, sink, recipient, **(defaults | options))


@contextlib.asynccontextmanager
async def running(*deliveries: Delivery) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one.run()) for one in deliveries]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def settled(outbox: Outbox, sink: str = "hq") -> None:
    """Until nothing is pending."""
    await outbox.register(sink)
    async with asyncio.timeout(10):
        await outbox.drained(sink)


async def test_everything_arrives_in_order_in_batches(outbox: Outbox) -> None:
    await outbox.append(event(n) for n in range(250))
    upstream = Upstream()
    async with running(delivery(outbox, upstream)):
        await upstream.holds(250)
        await settled(outbox)
    assert upstream.batches == [100, 100, 50]
    assert list(upstream.held) == [f"id-{n}" for n in range(250)]


async def test_later_means_the_same_events_again(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    failures = [Unavailable("503", retry_after_s=0.001), Unavailable("timeout"), NotAdmitted("401")]

    def judge(_: Sequence[Message]) -> None:
        if failures:
            raise failures.pop()

    upstream = Upstream(judge)
    await outbox.append([event(1)])
    with caplog.at_level(logging.INFO, logger="edge_agent.delivery.deliver"):
        async with running(it := delivery(outbox, upstream)):
            await settled(outbox)
            assert (it.health.failures, it.health.error, it.health.sent) == (0, "", 1)
    assert [record.message.split()[0] for record in caplog.records] == ["upstream_lost", "upstream_back"]
    assert upstream.batches == [1, 1, 1, 1]


@pytest.mark.parametrize("fault", [OverflowError("a defect"), OSError("a socket"), asyncio.CancelledError()])
async def test_a_fault_in_a_sink_is_no_end_of_the_agent(outbox: Outbox, fault: BaseException) -> None:
    faults = [fault]

    def judge(_: Sequence[Message]) -> None:
        if faults:
            raise faults.pop()

    upstream = Upstream(judge)
    await outbox.append([event(1)])
    async with running(delivery(outbox, upstream)):
        await settled(outbox)
    assert upstream.batches == [1, 1]


async def test_a_connection_that_cannot_be_closed_keeps_nobody_from_being_revoked(outbox: Outbox) -> None:
    class Stubborn(Upstream):
        async def close(self) -> None:
            raise OSError("bad file descriptor")

    await outbox.append([event(1)])
    async with running(it := delivery(outbox, Stubborn())):
        await settled(outbox)
        await it.revoke()
        assert (await outbox.ledger("hq")).revoked


def test_no_upstream_may_ask_for_a_pause_of_days() -> None:
    assert Pauses().next(at_least_s=1e9) == 3600.0


async def test_an_ack_that_was_lost_repeats_and_counts_once(outbox: Outbox) -> None:
    upstream = Upstream()
    lost = [True]
    take = upstream.send

    async def send(batch: Sequence[Message]) -> None:
        await take(batch)
        if lost.pop() if lost else False:
            raise Unavailable("connection reset")

    upstream.send = send  # type: ignore[method-assign]
    await outbox.append(event(n) for n in range(5))
    async with running(delivery(outbox, upstream)):
        await settled(outbox)
    assert (len(upstream.held), upstream.repeats) == (5, 5)
    assert (await outbox.ledger("hq")).delivered == 5


async def test_poison_is_found_by_halving_and_the_rest_moves_on(outbox: Outbox) -> None:
    poison = {"id-3", "id-64", "id-65"}

    def judge(batch: Sequence[Message]) -> None:
        if found := [message["id"] for message in batch if message["id"] in poison]:
            raise Refused("HTTP 422", reply=f"will not have {found[0]}")

    upstream = Upstream(judge)
    await outbox.append(event(n) for n in range(100))
    async with running(delivery(outbox, upstream)):
        await settled(outbox)
    assert len(upstream.held) == 97
    held = await outbox.quarantined("hq")
    assert {one.stored.event.id for one in held} == poison
    assert {one.reason for one in held} == {"HTTP 422"}
    assert all(one.reply == f"will not have {one.stored.event.id}" for one in held)
    assert len(upstream.batches) < 45
    assert (await outbox.ledger("hq")).balanced


async def test_a_released_event_is_sent_again(outbox: Outbox) -> None:
    angry = [True]

    def judge(_: Sequence[Message]) -> None:
        if angry:
            raise Refused("HTTP 400", reply="no")

    upstream = Upstream(judge)
    await outbox.append([event(1)])
    async with running(delivery(outbox, upstream)):
        await settled(outbox)
        assert len(await outbox.quarantined()) == 1
        angry.clear()
        await outbox.release("hq")
        await upstream.holds(1)
        await settled(outbox)
    books = await outbox.ledger("hq")
    assert (books.delivered, books.quarantined) == (1, 0)


async def test_a_slow_upstream_does_not_slow_the_others(outbox: Outbox) -> None:
    def stuck(_: Sequence[Message]) -> None:
        raise Unavailable("down")

    broken, healthy = Upstream(stuck), Upstream()
    await outbox.append(event(n) for n in range(30))
    async with running(delivery(outbox, broken, name="broken"), delivery(outbox, healthy, name="healthy")):
        await settled(outbox, "healthy")
    assert len(healthy.held) == 30
    assert (await outbox.ledger("broken")).pending == 30


async def test_nudging_ends_a_long_pause(outbox: Outbox) -> None:
    asked = asyncio.Event()

    def judge(_: Sequence[Message]) -> None:
        if not asked.is_set():
            asked.set()
            raise Unavailable("down", retry_after_s=3600)

    upstream = Upstream(judge)
    it = delivery(outbox, upstream)
    await outbox.append([event(1)])
    async with running(it), asyncio.timeout(5):
        await asked.wait()
        it.nudge()
        await upstream.holds(1)


# Fields


async def one_message(outbox: Outbox, **options: Any) -> Message:
    upstream = Upstream()
    async with running(delivery(outbox, upstream, **options)):
        await upstream.holds(1)
    return next(iter(upstream.held.values()))


DATA = {
    "serial": "S1",
    "user_id": "7",
    "verify_mode": "finger",
    "work_code": "3",
    "site": "Plant 2",
    "location": {"latitude": 1.0},
    "device_time": "2026-11-23T16:00:00",
    "template": "canary",
    "image": "canary",
    "raw": "canary",
    "name": "canary",
}


async def test_nothing_leaves_but_what_the_list_names(outbox: Outbox) -> None:
    await outbox.append([event(1, subject="s1", data=DATA)])
    assert await one_message(outbox, fields=frozenset()) == {
        "specversion": "1.0",
        "id": "id-1",
        "source": "/acme/gw1",
        "type": "edge-agent.attendance.punch",
        "time": "2026-11-23T08:00:00.000+00:00",
        "sequence": "0000000000000001",
        "recordedtime": (await outbox.events())[0].recorded_at.isoformat(timespec="milliseconds"),
        "datacontenttype": "application/json",
        "data": {},
    }


async def test_each_field_lets_its_own_keys_through_and_no_others(outbox: Outbox) -> None:
    await outbox.append([event(1, subject="s1", data=DATA)])
    message = await one_message(outbox, fields=frozenset({"user_id", "verify"}))
    assert message["data"] == {"user_id": "7", "verify_mode": "finger"}
    assert "subject" not in message


async def test_templates_and_images_have_no_field_at_all(outbox: Outbox, database: Database) -> None:
    await outbox.append([event(1, subject="s1", data=DATA)])
    message = await one_message(outbox, fields=EVERYTHING, database=database, roster=Roster(b"k" * 32))
    assert "canary" not in str(message)


async def test_names_come_from_the_roster_and_only_where_allowed(outbox: Outbox, database: Database) -> None:
    roster = Roster(b"k" * 32)
    await database.write(lambda c: roster.put(c, Person("s1", "林小雨"), now=NOW))
    await outbox.append([event(1, subject="s1", data=DATA)])
    asked = {"fields": frozenset({"subject", "name"}), "database": database, "roster": roster}
    message = await one_message(outbox, **asked)
    assert message["subject"] == "s1"
    assert message["data"] == {"name": "林小雨"}
    with pytest.raises(ValueError, match="roster"):
        delivery(outbox, Upstream(), fields=frozenset({"name"}))
    assert "林" not in str(await one_message(outbox, name="other"))


async def test_each_pseudonymous_recipient_gets_subjects_of_its_own(outbox: Outbox) -> None:
    await outbox.append([event(1, subject="s1"), event(2, subject="s1")])
    told = []
    for name, key in (("a", b"a" * 32), ("b", b"b" * 32)):
        upstream = Upstream()
        async with running(delivery(outbox, upstream, name=name, pseudonym_key=key)):
            await upstream.holds(2)
        subjects = {message["subject"] for message in upstream.held.values()}
        assert len(subjects) == 1
        told.append(subjects.pop())
    assert told[0] != told[1]
    assert "s1" not in told


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValueError, match="face"):
        Recipient("hq", frozenset({"face"}))


# Revocation


@pytest.mark.parametrize("tls", [False, True])
async def test_after_a_revocation_not_one_byte_goes_there(outbox: Outbox, tmp_path: Path, tls: bool) -> None:
    authority = Authority.make(tmp_path)
    recorder = RawRecorder(reply=b"")  # takes the request and keeps us waiting
    await outbox.append(event(n) for n in range(500))
    async with recorder.serve(tls=authority.server("localhost") if tls else None) as port, asyncio.timeout(10):
        url = f"{'https' if tls else 'http'}://localhost:{port}/"
        sink = WebhookSink(WebhookConfig(url, ca_file=authority.ca_file if tls else None))
        it = delivery(outbox, sink)
        task = asyncio.create_task(it.run())
        await recorder.arrived.wait()
        await it.revoke()
        await recorder.gone.wait()
        before = (recorder.received, recorder.connections)
        await task
        await outbox.append([event("later")])
        with pytest.raises(Unavailable):
            await sink.send([{"id": "x"}])
        with pytest.raises(Revoked):
            await outbox.pending("hq", 1)
        assert (recorder.received, recorder.connections) == before
    assert it.health.state == "revoked"


async def test_a_revocation_outlasts_a_restart(outbox: Outbox) -> None:
    await outbox.append([event(1)])
    first = delivery(outbox, Upstream())
    await outbox.register("hq")
    await first.revoke()
    upstream = Upstream()
    again = delivery(outbox, upstream)
    async with asyncio.timeout(5):
        await again.run()
    assert upstream.batches == []
    assert again.health.state == "revoked"
