"""Ranges against plain sets of numbers."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.delivery import ranges

numbers = st.sets(st.integers(1, 60))


def members(found: list[ranges.Range]) -> set[int]:
    return {n for first, last in found for n in range(first, last + 1)}


@given(numbers, numbers)
def test_a_union_holds_what_either_held_and_stays_joined(a: set[int], b: set[int]) -> None:
    joined = ranges.union(list(ranges.runs(a)), ranges.runs(b))
    assert members(joined) == a | b
    assert all(second[0] > first[1] + 1 for first, second in itertools.pairwise(joined))


@given(numbers, st.integers(0, 60), st.integers(0, 70))
def test_gaps_are_what_is_missing(a: set[int], after: int, last: int) -> None:
    settled = list(ranges.runs(a))
    found = ranges.gaps(settled, after=after, last=last)
    assert members(found) == set(range(after + 1, last + 1)) - a
    assert ranges.total(found) == len(members(found))
    assert found == sorted(found)


@given(numbers, st.integers(0, 61))
def test_covers_agrees_with_membership(a: set[int], n: int) -> None:
    assert ranges.covers(list(ranges.runs(a)), n) == (n in a)


@given(numbers, st.integers(0, 61))
def test_clipping_splits_without_loss(a: set[int], line: int) -> None:
    settled = list(ranges.runs(a))
    assert members(ranges.clip(settled, upto=line)) == {n for n in a if n <= line}
    assert members(ranges.clip(settled, after=line)) == {n for n in a if n > line}
