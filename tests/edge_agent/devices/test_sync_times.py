"""Numbers for time profiles: none comes to mean other hours while a card still names it."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, time

from device_drivers.devices import DeviceUser, TimeProfile
from edge_agent.devices.sync_times import Numbering, Schedules, assign
from edge_agent.policy.controller_times import Spans, Spell

WEEK = frozenset(range(5))
OFFICE, NIGHTS = frozenset({"office"}), frozenset({"nights"})
DAY: list[Spell[Spans]] = [Spell(None, None, WEEK, ((480, 1080),))]
LATE: list[Spell[Spans]] = [Spell(None, None, WEEK, ((1200, 1440),))]
LONG: list[Spell[Spans]] = [Spell(date(2026, 1, 1), None, WEEK, tuple((n * 60, n * 60 + 30) for n in range(8, 15)))]
EIGHT_TO_SIX = TimeProfile(2, WEEK, ((time(8), time(18)),))


def assigned(
    wanted: dict[Schedules, list[Spell[Spans]]],
    *,
    found: tuple[TimeProfile, ...] = (),
    ours: dict[Schedules, list[int]] | None = None,
    configured: tuple[int, ...] = (),
    users: tuple[DeviceUser, ...] = (),
) -> Numbering:
    return assign(wanted, found=found, ours=ours or {}, configured=configured, users=users)


def test_the_first_free_numbers_are_taken_and_midnight_loses_its_minute() -> None:
    made = assigned({OFFICE: DAY, NIGHTS: LATE})
    assert made.heads == {NIGHTS: 2, OFFICE: 3}
    assert made.write == (TimeProfile(2, WEEK, ((time(20), time(23, 59)),)), replace(EIGHT_TO_SIX, number=3))


def test_what_is_there_already_is_not_written() -> None:
    assert assigned({OFFICE: DAY}, found=(EIGHT_TO_SIX,), ours={OFFICE: [2]}).write == ()


def test_more_than_three_spans_are_chained_and_written_from_the_end() -> None:
    made = assigned({OFFICE: LONG})
    assert [(p.number, p.linked, len(p.spans)) for p in made.write] == [(4, 0, 1), (3, 4, 3), (2, 3, 3)]
    assert (made.heads[OFFICE], made.chains[OFFICE]) == (2, (2, 3, 4))
    assert {p.first_day for p in made.write} == {date(2026, 1, 1)}


def test_the_same_schedules_are_rewritten_in_place_and_spare_numbers_stay_theirs() -> None:
    chain = assigned({OFFICE: LONG}).write
    shorter = assigned({OFFICE: DAY}, found=chain, ours={OFFICE: [2, 3, 4]})
    assert shorter.write == (EIGHT_TO_SIX,)
    assert shorter.chains == {OFFICE: (2, 3, 4)}
    both = assigned({OFFICE: DAY, NIGHTS: LATE}, found=(EIGHT_TO_SIX, *chain[:2]), ours={OFFICE: [2, 3, 4]})
    assert both.heads[NIGHTS] == 5


def test_a_number_that_a_card_names_never_comes_to_mean_other_hours() -> None:
    user = DeviceUser("1", doors=(1,), schedule=2)
    named = assigned({NIGHTS: LATE}, found=(EIGHT_TO_SIX,), ours={OFFICE: [2]}, users=(user,))
    assert named.heads == {NIGHTS: 3}
    free = assigned({NIGHTS: LATE}, found=(EIGHT_TO_SIX,), ours={OFFICE: [2]})
    assert free.heads == {NIGHTS: 2}


def test_profiles_of_others_and_those_named_by_hand_are_left_alone() -> None:
    theirs = TimeProfile(2, WEEK, (), linked=3)
    user = DeviceUser("1", doors=(1, 2), door_schedules=((2, 5),))
    continued = TimeProfile(5, WEEK, (), linked=6)
    made = assigned({OFFICE: DAY}, found=(theirs, continued), configured=(4,), users=(user,))
    assert made.heads == {OFFICE: 3}
    again = assigned({OFFICE: DAY, NIGHTS: LATE}, found=(theirs, continued), configured=(3, 4), users=(user,))
    assert again.heads == {NIGHTS: 7, OFFICE: 8}


def test_a_number_that_the_enterprise_took_over_is_ours_no_more() -> None:
    made = assigned({OFFICE: DAY}, found=(EIGHT_TO_SIX,), ours={OFFICE: [2]}, configured=(2,))
    assert (made.heads, [p.number for p in made.write]) == ({OFFICE: 3}, [3])


def test_what_does_not_fit_is_said_with_how_many_numbers_are_missing() -> None:
    made = assigned({OFFICE: DAY, NIGHTS: LONG}, configured=tuple(range(2, 253)))
    assert (made.heads, made.lacking) == ({OFFICE: 253}, {NIGHTS: 1})


def test_schedules_that_never_run_open_nothing() -> None:
    assert assigned({OFFICE: []}).write == (TimeProfile(2, frozenset(), ()),)
