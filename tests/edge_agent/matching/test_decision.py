from __future__ import annotations

import math

import pytest

from edge_agent.matching.calibration import Calibration
from edge_agent.matching.decision import Targets, Thresholds, identify, verify
from edge_agent.matching.outcomes import Match, NoMatch, NoMatchReason, PadState
from templates_store.template import Candidate, SubjectId

CURVE = Calibration("p/1", ((1e-1, 0.10), (1e-3, 0.30), (1e-5, 0.45)), 10**6, "a test")
LIMITS = Thresholds(identify=0.5, verify=0.4, margin=0.05)


def candidates(*scores: float) -> list[Candidate]:
    return [Candidate(SubjectId(f"s{i}"), score) for i, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("found", "size", "expected"),
    [
        ([], 0, NoMatch(NoMatchReason.EMPTY_GALLERY)),
        (candidates(0.9), 0, NoMatch(NoMatchReason.EMPTY_GALLERY)),
        ([], 5, NoMatch(NoMatchReason.BELOW_THRESHOLD)),
        (candidates(0.49), 5, NoMatch(NoMatchReason.BELOW_THRESHOLD, 0.49)),
        (candidates(math.nextafter(0.5, 0)), 5, NoMatch(NoMatchReason.BELOW_THRESHOLD, math.nextafter(0.5, 0))),
        (candidates(0.5), 1, Match(SubjectId("s0"), 0.5, None)),
        (candidates(0.75, 0.5), 5, Match(SubjectId("s0"), 0.75, 0.25)),
        (candidates(0.75, 0.75), 5, NoMatch(NoMatchReason.AMBIGUOUS, 0.75)),
        (candidates(0.75, 0.72), 5, NoMatch(NoMatchReason.AMBIGUOUS, 0.75)),
        (candidates(0.6, 0.1), 5, Match(SubjectId("s0"), 0.6, 0.5)),
        (candidates(math.nan), 5, None),
    ],
)
def test_the_table_of_identification(found: list[Candidate], size: int, expected: Match | NoMatch | None) -> None:
    outcome = identify(found, gallery_size=size, thresholds=LIMITS)
    if expected is None:
        assert isinstance(outcome, NoMatch)
        assert outcome.reason is NoMatchReason.BELOW_THRESHOLD
    else:
        assert outcome == expected


def test_the_state_of_attack_detection_is_on_every_outcome() -> None:
    for found, size in (([], 0), (candidates(0.1), 1), (candidates(0.9, 0.9), 2), (candidates(0.9), 1)):
        assert identify(found, gallery_size=size, thresholds=LIMITS, pad=PadState.ACTIVE).pad is PadState.ACTIVE


def test_verification_has_its_own_threshold() -> None:
    assert verify(SubjectId("a"), [0.1, 0.45], thresholds=LIMITS) == Match(SubjectId("a"), 0.45, None)
    assert verify(SubjectId("a"), [0.39], thresholds=LIMITS) == NoMatch(NoMatchReason.BELOW_THRESHOLD, 0.39)
    assert verify(SubjectId("a"), [], thresholds=LIMITS) == NoMatch(NoMatchReason.EMPTY_GALLERY)


def test_the_threshold_rises_with_the_gallery() -> None:
    limits = [Thresholds.of(CURVE, Targets(), gallery_size=size).identify for size in (0, 1, 10, 1000, 100_000)]
    assert limits == sorted(limits)
    assert limits[1] < limits[2] < limits[3] < limits[4]


def test_a_gallery_of_one_is_held_to_the_target_itself() -> None:
    assert Thresholds.of(CURVE, Targets(fpir=1e-3), gallery_size=1).identify == pytest.approx(0.30)


def test_a_hundred_chances_ask_for_a_hundredth_of_the_rate() -> None:
    limits = Thresholds.of(CURVE, Targets(fpir=1e-3), gallery_size=100)
    assert limits.identify == pytest.approx(CURVE.threshold(1e-5), abs=1e-3)
    assert limits.verify == pytest.approx(CURVE.threshold(1e-4))


@pytest.mark.parametrize("wrong", [{"fpir": 0.0}, {"fpir": 1.0}, {"verify_fmr": 0.0}, {"margin": -0.1}])
def test_impossible_targets_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="error rates"):
        Targets(**wrong)
