"""The books balance, whatever sinks, people and retention do in whatever order."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge_agent.database import Database
from edge_agent.delivery import books as books_module
from edge_agent.delivery.outbox import Event, Outbox, Revoked, Stored, UnknownSink, append

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def event(n: int | str, **changes: Any) -> Event:
    fields: dict[str, Any] = {
        "id": f"id-{n}",
        "type": "attendance.punch",
        "occurred_at": NOW,
        "device": "gate",
        "subject": None,
        "data": {"n": n},
    }
    return Event(**(fields | changes))


def sequences(stored: Sequence[Stored]) -> list[int]:
    return [one.sequence for one in stored]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database.open(tmp_path / "agent.db", ballast_bytes=1)
    yield database
    database.close()


@pytest.fixture
async def outbox(database: Database, clock: Clock) -> Outbox:
    outbox = Outbox(database, clock=clock)
    await outbox.register("hq")
    return outbox


async def test_the_same_id_is_stored_once_and_uses_no_sequence(outbox: Outbox) -> None:
    assert await outbox.append([event(1), event(2), event(1)]) == 2
    assert await outbox.append([event(2), event(3)]) == 1
    assert sequences(await outbox.pending("hq", 10)) == [1, 2, 3]


async def test_events_come_back_as_they_went_in(outbox: Outbox) -> None:
    told = event("x", subject="s1", data={"name": "人员", "at": [1, 2.5, None, True]})
    await outbox.append([told])
    (stored,) = await outbox.events()
    assert stored.event == told
    assert stored.recorded_at == NOW


@pytest.mark.parametrize(
    "bad",
    [
        event("x", occurred_at=datetime(2026, 1, 1)),  # noqa: DTZ001 - the fault under test
        event("x", data={"big": "x" * 70_000}),
        event("x", id=""),
        event("x", id="i" * 500),
        event("x", data={"n": float("nan")}),
    ],
)
async def test_an_event_that_cannot_travel_is_refused_whole(outbox: Outbox, bad: Event) -> None:
    with pytest.raises(ValueError):
        await outbox.append([event(1), bad])
    assert await outbox.events() == []


async def test_an_ack_may_come_in_any_order_and_twice(outbox: Outbox) -> None:
    await outbox.append(event(n) for n in range(1, 7))
    assert await outbox.ack("hq", [5, 2]) == 2
    assert await outbox.ack("hq", [2, 1, 99]) == 1
    assert sequences(await outbox.pending("hq", 10)) == [3, 4, 6]
    assert (await outbox.ledger("hq")).delivered == 3


async def test_each_sink_has_its_own_place(outbox: Outbox) -> None:
    await outbox.append([event(1), event(2)])
    await outbox.register("payroll")
    await outbox.register("late", from_now=True)
    await outbox.ack("hq", [1, 2])
    await outbox.append([event(3)])
    assert sequences(await outbox.pending("hq", 10)) == [3]
    assert sequences(await outbox.pending("payroll", 10)) == [1, 2, 3]
    assert sequences(await outbox.pending("late", 10)) == [3]
    await outbox.register("payroll", mandatory=False)  # known already: keeps its place
    assert len(await outbox.pending("payroll", 10)) == 3


async def test_an_unknown_sink_is_an_error(outbox: Outbox) -> None:
    with pytest.raises(UnknownSink):
        await outbox.pending("nobody", 1)


async def test_quarantine_lets_the_rest_move_and_a_person_decides(outbox: Outbox) -> None:
    await outbox.append(event(n) for n in range(1, 5))
    for n in (2, 3):
        await outbox.quarantine("hq", n, reason="refused", reply="400 unknown user")
    await outbox.ack("hq", [1, 4])
    (two, three) = await outbox.quarantined()
    assert (two.sink, two.stored.sequence, two.reason, two.reply) == ("hq", 2, "refused", "400 unknown user")
    assert await outbox.release("hq", [2]) == 1
    assert sequences(await outbox.pending("hq", 10)) == [2]
    assert await outbox.discard("hq") == 1
    assert await outbox.ack("hq", [2]) == 1
    books = await outbox.ledger("hq")
    assert (books.received, books.delivered, books.discarded, books.pending) == (4, 3, 1, 0)
    assert books.balanced
    assert three.stored.sequence == 3


async def test_an_event_delivered_meanwhile_is_not_quarantined(outbox: Outbox) -> None:
    await outbox.append([event(1)])
    await outbox.ack("hq", [1])
    await outbox.quarantine("hq", 1, reason="late")
    assert await outbox.quarantined() == []


async def test_a_revoked_sink_gets_nothing_and_holds_nothing_back(outbox: Outbox, clock: Clock) -> None:
    await outbox.append([event(1), event(2)])
    await outbox.quarantine("hq", 1, reason="refused")
    await outbox.revoke("hq")
    with pytest.raises(Revoked):
        await outbox.pending("hq", 1)
    assert (await outbox.ledger("hq")).revoked
    assert await outbox.depth() == 0
    assert await outbox.prune(clock.now + timedelta(days=1)) == 2
    await outbox.register("hq")
    with pytest.raises(Revoked):
        await outbox.pending("hq", 1)
    await outbox.reinstate("hq")
    await outbox.append([event(3)])
    assert sequences(await outbox.pending("hq", 10)) == [3]
    assert (await outbox.ledger("hq")).balanced


async def test_waiting_ends_with_the_next_event(outbox: Outbox) -> None:
    waiting = asyncio.create_task(outbox.changed(0))
    owed = asyncio.create_task(outbox.due("hq", 5))
    await asyncio.sleep(0)
    await outbox.append([event(1)])
    async with asyncio.timeout(5):
        assert await waiting == 1
        assert sequences(await owed) == [1]
    assert await outbox.changed(0) == 1


async def test_a_release_wakes_a_waiting_sink(outbox: Outbox) -> None:
    await outbox.append([event(1)])
    await outbox.quarantine("hq", 1, reason="refused")
    owed = asyncio.create_task(outbox.due("hq", 5))
    await asyncio.sleep(0)
    await outbox.release("hq")
    async with asyncio.timeout(5):
        assert sequences(await owed) == [1]


async def test_pages_filter_and_go_both_ways(outbox: Outbox) -> None:
    await outbox.append(
        event(
            n,
            type="door.opened" if n % 2 else "attendance.punch",
            device="gate" if n < 5 else "yard",
            subject="s1" if n in (2, 3) else None,
            occurred_at=NOW + timedelta(hours=n),
        )
        for n in range(1, 9)
    )
    assert sequences(await outbox.events(limit=3)) == [1, 2, 3]
    assert sequences(await outbox.events(after=3, limit=3)) == [4, 5, 6]
    assert sequences(await outbox.events(newest_first=True, before=4)) == [3, 2, 1]
    assert sequences(await outbox.events(type_prefix="door.")) == [1, 3, 5, 7]
    assert sequences(await outbox.events(type_prefix="%")) == []
    assert sequences(await outbox.events(device="yard", type_prefix="attendance")) == [6, 8]
    assert sequences(await outbox.events(subject="s1")) == [2, 3]
    assert sequences(await outbox.events(since=NOW + timedelta(hours=3), until=NOW + timedelta(hours=5))) == [3, 4]


async def test_far_behind_new_events_go_first_and_the_backlog_fills_the_rest(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books_module, "LANES_FROM", 20)
    await outbox.append(event(n) for n in range(1, 101))
    assert sequences(await outbox.pending("hq", 4)) == [1, 2, 3, 4]
    await outbox.ack("hq", [1, 2, 3, 4])
    await outbox.append(event(n) for n in range(101, 106))
    first = sequences(await outbox.pending("hq", 6))
    assert first == [101, 102, 103, 5, 6, 7]
    await outbox.ack("hq", first)
    fresh_start = Outbox(outbox._database)
    assert sequences(await fresh_start.pending("hq", 6)) == [104, 105, 8, 9, 10, 11]
    while batch := sequences(await outbox.pending("hq", 10)):
        await outbox.ack("hq", batch)
    books = await outbox.ledger("hq")
    assert books.balanced
    assert books.delivered == 105


# Retention


async def test_pruning_waits_for_retention_and_every_mandatory_sink(outbox: Outbox, clock: Clock) -> None:
    await outbox.register("optional", mandatory=False)
    await outbox.append([event(1), event(2)])
    clock.now += timedelta(days=40)
    await outbox.append([event(3)])
    await outbox.ack("hq", [1, 3])
    assert await outbox.prune(NOW) == 0
    assert await outbox.prune(NOW + timedelta(days=30)) == 1
    assert sequences(await outbox.events()) == [2, 3]
    books = await outbox.ledger("optional")
    assert books.balanced
    assert (books.discarded, books.pending) == (1, 2)


async def test_quarantined_events_outlive_retention(outbox: Outbox) -> None:
    await outbox.append([event(1)])
    await outbox.quarantine("hq", 1, reason="refused")
    assert await outbox.prune(NOW + timedelta(days=9999)) == 0
    await outbox.discard("hq")
    assert await outbox.prune(NOW + timedelta(days=9999)) == 1


@pytest.mark.parametrize("sinks", ["none", "optional", "revoked"])
async def test_a_short_disk_frees_nothing_that_nobody_has_confirmed(
    database: Database, clock: Clock, sinks: str
) -> None:
    outbox = Outbox(database, clock=clock)
    if sinks != "none":
        await outbox.register("old", mandatory=sinks != "optional")
    await outbox.append([event(1), event(2)])
    if sinks == "revoked":
        await outbox.revoke("old")
    assert await outbox.relieve() == 0
    await outbox.register("new")
    assert sequences(await outbox.pending("new", 10)) == [1, 2]


async def test_without_a_mandatory_sink_retention_holds_by_age_alone(database: Database, clock: Clock) -> None:
    outbox = Outbox(database, clock=clock)
    await outbox.register("optional", mandatory=False)
    await outbox.append([event(1)])
    clock.now += timedelta(days=40)
    await outbox.append([event(2)])
    assert await outbox.prune(NOW + timedelta(days=30)) == 1
    assert sequences(await outbox.events()) == [2]


@pytest.mark.parametrize("mandatory", [True, False])
async def test_a_sink_that_comes_after_pruning_is_not_owed_what_is_gone(
    outbox: Outbox, clock: Clock, mandatory: bool
) -> None:
    await outbox.append(event(n) for n in range(1, 8))
    await outbox.quarantine("hq", 2, reason="refused")
    await outbox.quarantine("hq", 5, reason="refused")
    await outbox.ack("hq", [1, 3, 4, 6, 7])
    await outbox.relieve()
    await outbox.register("erp", mandatory=mandatory)
    books = await outbox.ledger("erp")
    assert books.balanced
    assert (books.pending, books.discarded) == (2, 4)
    await outbox.ack("erp", sequences(await outbox.pending("erp", 10)))
    await outbox.discard("hq")
    await outbox.append([event(8)])
    await outbox.ack("hq", [8])
    await outbox.ack("erp", [8])
    assert await outbox.relieve() == 3
    assert await outbox.depth() == 0


async def test_a_sink_that_waits_for_what_is_gone_is_freed_when_it_is_registered_again(
    outbox: Outbox, database: Database
) -> None:
    await outbox.append(event(n) for n in range(1, 5))
    await outbox.ack("hq", [1, 2, 3, 4])
    await outbox.relieve()
    await database.write(
        lambda c: c.execute("INSERT INTO sinks (name, mandatory, start, registered_at) VALUES ('erp', 1, 1, '')")
    )
    assert (await outbox.ledger("erp")).pending == 3
    await outbox.register("erp")
    books = await outbox.ledger("erp")
    assert (books.balanced, books.pending, books.discarded) == (True, 0, 3)


async def test_a_pruned_event_told_again_stays_old(outbox: Outbox) -> None:
    await outbox.append([event(1)])
    await outbox.ack("hq", [1])
    assert await outbox.relieve() == 1
    assert await outbox.append([event(1), event(2)]) == 1
    assert sequences(await outbox.events()) == [2]


async def test_flows_append_in_their_own_transaction(database: Database, outbox: Outbox) -> None:
    def work(connection: Any) -> None:
        append(connection, [event(1)], now=NOW)
        raise LookupError

    with pytest.raises(LookupError):
        await database.write(work)
    assert outbox.last_sequence == 0


class Books(RuleBasedStateMachine):
    """Any order of everything, against a plain model."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.database = Database.open(Path(self.folder.name) / "agent.db", ballast_bytes=1)
        self.run(self.make())
        self.told: set[int] = set()
        self.state: dict[str, dict[int, str]] = {"hq": {}, "optional": {}}

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def make(self) -> None:
        self.outbox = Outbox(self.database)
        await self.outbox.register("hq")
        await self.outbox.register("optional", mandatory=False)

    def teardown(self) -> None:
        self.database.close()
        self.loop.close()
        self.folder.cleanup()

    @rule(numbers=st.lists(st.integers(1, 40), max_size=8))
    def tell(self, numbers: list[int]) -> None:
        new = set(numbers) - self.told
        assert self.run(self.outbox.append(event(n) for n in numbers)) == len(new)
        self.told |= new
        for states in self.state.values():
            states.update(dict.fromkeys(range(len(self.told) - len(new) + 1, len(self.told) + 1), "pending"))

    @rule(sink=st.sampled_from(["hq", "optional"]), limit=st.integers(1, 6), what=st.sampled_from(["ack", "refuse"]))
    def send(self, sink: str, limit: int, what: str) -> None:
        batch = sequences(self.run(self.outbox.pending(sink, limit)))
        waiting = [n for n, state in self.state[sink].items() if state == "pending"]
        assert set(batch) <= set(waiting)
        assert len(batch) == min(limit, len(waiting))
        if what == "ack":
            self.run(self.outbox.ack(sink, batch))
        else:
            for n in batch:
                self.run(self.outbox.quarantine(sink, n, reason="no"))
        self.state[sink].update(dict.fromkeys(batch, "delivered" if what == "ack" else "quarantined"))

    @rule(sink=st.sampled_from(["hq", "optional"]), what=st.sampled_from(["release", "discard"]))
    def judge(self, sink: str, what: str) -> None:
        held = [n for n, state in self.state[sink].items() if state == "quarantined"]
        assert self.run(getattr(self.outbox, what)(sink, held[:2])) == len(held[:2])
        self.state[sink].update(dict.fromkeys(held[:2], "pending" if what == "release" else "discarded"))

    @rule()
    def prune(self) -> None:
        before = {one.sequence for one in self.run(self.outbox.events())}
        self.run(self.outbox.relieve())
        gone = before - {one.sequence for one in self.run(self.outbox.events())}
        for n in gone:
            assert self.state["hq"][n] in {"delivered", "discarded"}
            assert self.state["optional"][n] != "quarantined"
            if self.state["optional"][n] == "pending":
                self.state["optional"][n] = "discarded"

    @invariant()
    def balanced(self) -> None:
        for sink, states in self.state.items():
            books = self.run(self.outbox.ledger(sink))
            assert books.balanced
            assert books.received == len(states)
            for name in ("delivered", "pending", "quarantined", "discarded"):
                assert getattr(books, name) == list(states.values()).count(name), name


Books.TestCase.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
TestBooks = Books.TestCase
