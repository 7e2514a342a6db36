"""Which sequence numbers are settled, as sorted, disjoint, never adjacent ranges (first, last)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

Range = tuple[int, int]


def runs(numbers: Iterable[int]) -> Iterator[Range]:
    """Numbers in any order, repeats allowed, as ranges."""
    first = last = None
    for number in sorted(set(numbers)):
        if first is None or last is None:
            first = last = number
        elif number == last + 1:
            last = number
        else:
            yield first, last
            first = last = number
    if first is not None and last is not None:
        yield first, last


def covers(ranges: Sequence[Range], number: int) -> bool:
    place = bisect_right(ranges, (number, float("inf"))) - 1
    return place >= 0 and ranges[place][0] <= number <= ranges[place][1]


def union(ranges: Sequence[Range], more: Iterable[Range]) -> list[Range]:
    joined: list[Range] = []
    for first, last in sorted([*ranges, *more]):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


def gaps(ranges: Sequence[Range], *, after: int, last: int) -> list[Range]:
    """What `ranges` leaves open of after+1 .. last."""
    open_from, found = after + 1, []
    for first, end in ranges:
        if first > last:
            break
        if first > open_from:
            found.append((open_from, first - 1))
        open_from = max(open_from, end + 1)
    if open_from <= last:
        found.append((open_from, last))
    return found


def total(ranges: Iterable[Range]) -> int:
    return sum(last - first + 1 for first, last in ranges)


def clip(ranges: Iterable[Range], *, after: int | None = None, upto: int | None = None) -> list[Range]:
    """The part of `ranges` above `after` and not above `upto`."""
    clipped = []
    for first, last in ranges:
        low = first if after is None else max(first, after + 1)
        high = last if upto is None else min(last, upto)
        if low <= high:
            clipped.append((low, high))
    return clipped
