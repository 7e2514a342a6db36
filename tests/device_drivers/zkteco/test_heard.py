# ruff: noqa: DTZ001 - a terminal's readings have no zone
from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from device_drivers.events import Punch
from device_drivers.zkteco.heard import MAX_KEYS, Heard, key_of

START = datetime(2026, 3, 2, 8, 0, 0)


def punch(user: str, second: int = 0) -> Punch:
    return Punch("S1", user, START + timedelta(seconds=second))


def test_what_was_heard_is_not_told_again_and_only_once_left_out() -> None:
    heard = Heard()
    heard.add([punch("1"), punch("2")])
    assert heard.unknown([punch("1"), punch("2"), punch("3")]) == [punch("3")]
    assert heard.unknown([punch("1")]) == [punch("1")]


def test_equal_records_are_left_out_together_or_not_at_all() -> None:
    heard = Heard()
    heard.add([punch("1")])
    assert heard.unknown([punch("1"), punch("1")]) == [punch("1"), punch("1")]
    heard.add([punch("1"), punch("1")])
    assert heard.unknown([punch("1"), punch("1")]) == []


def test_equal_punches_heard_one_by_one_are_told_again_with_the_log() -> None:
    heard = Heard()
    heard.add([punch("1")])
    heard.add([punch("1")])
    assert heard.unknown([punch("1"), punch("1")]) == [punch("1"), punch("1")]


def test_two_dates_that_do_not_exist_are_two() -> None:
    one, other = (Punch("S1", "1", None, raw=said) for said in (b"2026-02-30 08:00:05", b"2026-02-31 08:00:05"))
    heard = Heard()
    heard.add([one])
    assert heard.unknown([one, other]) == [other]


def test_it_forgets_the_oldest_and_stays_small() -> None:
    heard = Heard()
    heard.add([punch(str(n)) for n in range(MAX_KEYS + 10)])
    assert len(heard) == MAX_KEYS
    assert heard.unknown([punch("0"), punch(str(MAX_KEYS))]) == [punch("0")]


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_nothing_that_was_not_heard_often_enough_stays_untold(live: list[int], log: list[int]) -> None:
    heard = Heard()
    heard.add([punch(str(n)) for n in live])
    told = Counter(map(key_of, heard.unknown([punch(str(n)) for n in log])))
    for key, count in Counter(key_of(punch(str(n))) for n in log).items():
        enough = Counter(key_of(punch(str(n))) for n in live)[key] >= count
        assert told[key] == (0 if enough else count)
