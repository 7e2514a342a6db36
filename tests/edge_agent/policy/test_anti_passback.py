from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from edge_agent.policy.anti_passback import Passback, PassbackRule, Whereabouts, judge

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CLEAR, WARNING, VIOLATION = Passback.CLEAR, Passback.WARNING, Passback.VIOLATION


@pytest.mark.parametrize(
    ("rule", "origin", "target", "last", "hours", "expected"),
    [
        ("off", "", "lab", "lab", 1, CLEAR),
        ("hard", "", "lab", None, 0, CLEAR),
        ("hard", "", "lab", "", 1, CLEAR),
        ("hard", "", "lab", "lab", 1, VIOLATION),
        ("hard", "hall", "lab", "store", 1, VIOLATION),
        ("hard", "hall", "lab", "hall", 1, CLEAR),
        ("hard", "lab", "lab", "lab", 1, CLEAR),  # a door inside one zone
        ("hard", "", "lab", "lab", 15.99, VIOLATION),
        ("hard", "", "lab", "lab", 16, CLEAR),  # forgotten
        ("hard", "lab", "", "", 1, WARNING),  # leaving is never denied
        ("hard", "lab", "", "store", 1, WARNING),
        ("soft", "", "lab", "lab", 1, WARNING),
        ("soft", "hall", "lab", "store", 1, WARNING),
        ("timed", "", "lab", "lab", 0.24, VIOLATION),
        ("timed", "", "lab", "lab", 0.25, CLEAR),
        ("timed", "hall", "lab", "store", 0.1, CLEAR),
        ("timed", "lab", "", "", 0.1, WARNING),
    ],
)
def test_who_is_where_decides(
    rule: str, origin: str, target: str, last: str | None, hours: float, expected: Passback
) -> None:
    where = None if last is None else Whereabouts(last, NOW - timedelta(hours=hours))
    found = judge(
        PassbackRule(rule),
        origin=origin,
        target=target,
        last=where,
        now=NOW,
        timed=timedelta(minutes=15),
        memory=timedelta(hours=16),
    )
    assert found is expected
