from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from edge_agent.policy.attempts import Attempts, Limits, Stand

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def after(failures: int, *, spaced: timedelta = timedelta(0)) -> Attempts:
    attempts = Attempts()
    for n in range(failures):
        attempts = attempts.failed(NOW + n * spaced)
    return attempts


@pytest.mark.parametrize(
    ("failures", "pad", "wait_s", "expected"),
    [
        (0, False, 0, Stand.FREE),
        (4, False, 0, Stand.FREE),
        (5, False, 0, Stand.WAIT),
        (5, False, 29.9, Stand.WAIT),
        (5, False, 30, Stand.FREE),
        (10, False, 0, Stand.WAIT),
        (5, True, 0, Stand.FREE),
        (9, True, 0, Stand.FREE),
        (10, True, 0, Stand.WAIT),
        (10, True, 30, Stand.FREE),
        (49, False, 3600, Stand.FREE),
        (50, False, 3600, Stand.DISABLED),
        (50, True, 3600, Stand.FREE),
        (99, True, 3600, Stand.FREE),
        (100, True, 3600, Stand.DISABLED),
    ],
)
def test_failures_lead_to_a_delay_and_then_to_another_factor(
    failures: int, pad: bool, wait_s: float, expected: Stand
) -> None:
    assert after(failures).stand(NOW + timedelta(seconds=wait_s), pad=pad) is expected


def test_the_failure_after_a_delay_begins_a_new_row() -> None:
    spaced = timedelta(seconds=30)
    assert after(6, spaced=spaced).stand(NOW + 5 * spaced) is Stand.FREE
    assert after(10, spaced=spaced).stand(NOW + 9 * spaced) is Stand.WAIT


@pytest.mark.parametrize(
    ("failures", "running", "expected"),
    [
        (0, 4, Stand.FREE),
        (0, 5, Stand.WAIT),
        (3, 1, Stand.FREE),
        (4, 1, Stand.WAIT),
        (5, 4, Stand.FREE),
        (5, 5, Stand.WAIT),
        (48, 1, Stand.FREE),
        (49, 1, Stand.WAIT),
        (50, 1, Stand.DISABLED),
    ],
)
def test_attempts_whose_result_is_not_known_yet_take_the_places_of_failures(
    failures: int, running: int, expected: Stand
) -> None:
    assert after(failures).stand(NOW + timedelta(hours=1), running=running) is expected


def test_a_success_ends_the_row_and_the_count() -> None:
    assert after(49).succeeded().failed(NOW).stand(NOW) is Stand.FREE


def test_a_clock_set_back_does_not_end_the_delay() -> None:
    assert after(5).stand(NOW - timedelta(hours=1)) is Stand.WAIT


def test_says_when_the_next_attempt_is_free() -> None:
    assert after(5).free_at() == NOW + timedelta(seconds=30)
    assert Attempts().free_at() is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"in_a_row": 6}, "in_a_row"),
        ({"in_a_row_with_pad": 11}, "in_a_row"),
        ({"in_all": 51}, "in_all"),
        ({"in_all_with_pad": 101}, "in_all"),
        ({"delay": timedelta(seconds=29)}, "allowed is 30 s or more"),
    ],
)
def test_limits_may_be_stricter_but_not_laxer(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Limits(**wrong)  # type: ignore[arg-type]
