from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from edge_agent.doors.presence import LastPunch, Presence
from edge_agent.policy.access import Granted, Person, Request, decide
from edge_agent.policy.anti_passback import Whereabouts
from edge_agent.policy.attempts import Attempts
from edge_agent.policy.rules import Direction, Factor
from templates_store.template import SubjectId
from tests.flows.site import RULES, START, Site, site

LONG_AGO = START - timedelta(days=1)

ANN, BOB = SubjectId("ann"), SubjectId("bob")


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as running:
        yield running


def granted(s: Site, subject: SubjectId = ANN, *, direction: Direction = Direction.IN, door: str = "front") -> Granted:
    person = Person(subject, frozenset({"staff"}))
    found = decide(Request(door, direction, person, frozenset({Factor.CARD})), s.rules, s.presence, s.clock.now())
    assert isinstance(found, Granted)
    return found


def test_a_reservation_counts_at_once_and_is_taken_back_whole(s: Site) -> None:
    undo = s.presence.reserve(granted(s), s.rules, opener=True)
    assert s.presence.whereabouts(ANN) == Whereabouts("hall", START, "front")
    assert s.presence.occupancy("hall", after=LONG_AGO) == 1
    assert s.presence.open_or_released("front", START)
    assert s.presence.last_opener("front") == START
    undo()
    assert s.presence.whereabouts(ANN) is None
    assert not s.presence.open_or_released("front", START)
    assert s.presence.last_opener("front") is None


def test_taking_back_restores_what_was_there_before(s: Site) -> None:
    s.presence.reserve(granted(s), s.rules, opener=False)
    s.clock.move(minutes=1)
    undo = s.presence.reserve(granted(s, direction=Direction.OUT), s.rules, opener=False)
    assert s.presence.occupancy("hall", after=LONG_AGO) == 0
    undo()
    assert s.presence.whereabouts(ANN) == Whereabouts("hall", START, "front")


def test_taking_back_leaves_what_happened_since(s: Site) -> None:
    doors = [*RULES["doors"], {"name": "side", "device": "panel", "zone_to": "hall", "verify": [["card"]]}]
    s.set_rules({**RULES, "doors": doors, "groups": [{"name": "staff", "grants": [{"doors": ["front", "side"]}]}]})
    undo = s.presence.reserve(granted(s), s.rules, opener=True)  # its controller does not answer
    s.clock.move(seconds=5)
    s.presence.reserve(granted(s, door="side"), s.rules, opener=False)
    s.presence.reserve(granted(s, BOB), s.rules, opener=True)
    undo()
    assert s.presence.muster() == {"hall": [ANN, BOB]}
    assert s.presence.whereabouts(ANN) == Whereabouts("hall", s.clock.now(), "side")
    assert s.presence.open_or_released("front", s.clock.now())
    assert s.presence.last_opener("front") == s.clock.now()


def test_two_doors_asked_in_the_same_moment_do_not_both_let_one_card_in(s: Site) -> None:
    s.set_rules({**RULES, "zones": [{"name": "hall", "anti_passback": "hard"}]})
    s.presence.reserve(granted(s), s.rules, opener=False)  # recorded nowhere yet
    with pytest.raises(AssertionError):
        granted(s)


async def test_what_was_written_is_known_after_a_restart(s: Site) -> None:
    await s.add("ann")
    grant = granted(s)
    s.presence.reserve(grant, s.rules, opener=True)
    s.presence.punched(ANN, "out", START)
    s.presence.set_attempts("person:ann/pin", Attempts(2, 7, START))
    writes = [s.presence.grant_rows(grant), s.presence.punch_rows(ANN), s.presence.attempts_row("person:ann/pin")]

    def work(connection: sqlite3.Connection) -> None:
        for write in writes:
            write(connection)

    await s.database.write(work)
    again = await s.database.read(Presence.load)
    assert again.whereabouts(ANN) == Whereabouts("hall", START, "front")
    assert again.last_punch(ANN) == LastPunch("out", START)
    assert again.attempts("person:ann/pin") == Attempts(2, 7, START)
    assert again.last_opener("front") == START
    assert again.muster() == {"hall": [ANN]}
    s.presence.set_attempts("person:ann/pin", Attempts())
    await s.database.write(s.presence.attempts_row("person:ann/pin"))
    assert (await s.database.read(Presence.load)).attempts("person:ann/pin") == Attempts()


async def test_nothing_is_written_about_somebody_who_is_not_in_the_roster(s: Site) -> None:
    grant = granted(s, BOB)
    s.presence.reserve(grant, s.rules, opener=False)
    await s.database.write(s.presence.grant_rows(grant))
    s.presence.set_attempts(f"person:{BOB}/pin", Attempts(2, 7, START))
    await s.database.write(s.presence.attempts_row(f"person:{BOB}/pin"))
    again = await s.database.read(Presence.load)
    assert again.whereabouts(BOB) is None
    assert again.places_with_failures() == {}


def test_a_door_counts_as_released_until_it_closes(s: Site) -> None:
    s.presence.released("front", START + timedelta(seconds=5))
    assert s.presence.open_or_released("front", START + timedelta(seconds=4))
    assert not s.presence.open_or_released("front", START + timedelta(seconds=5))
    s.presence.opened("front")
    assert s.presence.open_or_released("front", START + timedelta(hours=1))
    s.presence.closed("front")
    assert not s.presence.open_or_released("front", START)


def test_who_left_unseen_fills_a_zone_for_its_memory_and_no_longer(s: Site) -> None:
    s.set_rules({**RULES, "zones": [{"name": "hall", "capacity": 1, "memory_hours": 1}]})
    s.presence.reserve(granted(s), s.rules, opener=False)
    bob = Request("front", Direction.IN, Person(SubjectId("bob"), frozenset({"staff"})), frozenset({Factor.CARD}))
    s.presence.closed("front")
    answers = []
    for minutes in (1, 60):
        s.clock.move(minutes=minutes)
        answers.append(isinstance(decide(bob, s.rules, s.presence, s.clock.now()), Granted))
    assert answers == [False, True]


def test_forgetting_somebody_leaves_the_others(s: Site) -> None:
    for person in (ANN, BOB):
        s.presence.reserve(granted(s, person), s.rules, opener=False)
        s.presence.punched(person, "in", START)
        s.presence.set_attempts(f"person:{person}/pin", Attempts(1, 1, START))
    s.presence.wait_for_second("front", ANN, START, Direction.IN)
    s.presence.forget(ANN)
    assert s.presence.whereabouts(ANN) is None
    assert s.presence.last_punch(ANN) is None
    assert s.presence.first_of_two("front") is None
    assert s.presence.attempts("person:ann/pin") == Attempts()
    assert s.presence.occupancy("hall", after=LONG_AGO) == 1
    assert s.presence.attempts("person:bob/pin") == Attempts(1, 1, START)
