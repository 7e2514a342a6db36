from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from edge_agent.policy.retention import Kept, Periods, cutoff, is_due

NOW = datetime(2028, 3, 1, tzinfo=UTC)  # the day after a leap day
PERIODS = Periods(event=30, audit=1095, receipt=365, request=90, template=400)


@pytest.mark.parametrize("kept", list(Kept))
def test_kept_until_just_before_its_period_and_due_at_it(kept: Kept) -> None:
    days = PERIODS.days(kept)
    assert days is not None
    taken = NOW - timedelta(days=days)
    assert is_due(kept, PERIODS, since=taken, now=NOW)
    assert is_due(kept, PERIODS, since=taken - timedelta(microseconds=1), now=NOW)
    assert not is_due(kept, PERIODS, since=taken + timedelta(microseconds=1), now=NOW)
    assert cutoff(kept, PERIODS, now=NOW) == taken


def test_a_shorter_period_makes_more_due_at_once() -> None:
    taken = NOW - timedelta(days=10)
    assert not is_due(Kept.EVENT, PERIODS, since=taken, now=NOW)
    assert is_due(Kept.EVENT, Periods(event=10), since=taken, now=NOW)


def test_templates_without_a_published_period_are_due_at_once() -> None:
    assert is_due(Kept.TEMPLATE, Periods(), since=NOW, now=NOW)
    assert cutoff(Kept.TEMPLATE, Periods(), now=NOW) is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"event": 0}, "event: 0 days; allowed are 1"), ({"template": 1096}, "1 to 1095"), ({"audit": 3651}, "3650")],
)
def test_an_impossible_period_is_refused_in_words(wrong: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Periods(**wrong)
