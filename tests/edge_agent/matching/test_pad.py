from __future__ import annotations

import numpy as np
import pytest

from edge_agent.matching.outcomes import PadState
from edge_agent.matching.pad import ChallengeState, Landmarks, Turn, TurnChallenge, yaw_ratio


def head(yaw: float = 0.0, *, at: tuple[float, float] = (100.0, 100.0), roll_deg: float = 0.0) -> Landmarks:
    """Landmarks of a face with eyes 40 pixels apart whose nose has moved by `yaw` eye distances."""
    points = np.array([[-20, 0], [20, 0], [40 * yaw, 25], [-15, 45], [15, 45]], np.float64)
    angle = np.radians(roll_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray(points @ turn.T + at, np.float32)


def play(challenge: TurnChallenge, *yaws: float, start: float = 0.0, step: float = 0.2) -> ChallengeState:
    for i, yaw in enumerate(yaws):
        challenge.observe([head(yaw)], now=start + i * step)
    return challenge.state


@pytest.mark.parametrize("roll", [-30.0, 0.0, 45.0])
def test_yaw_is_independent_of_roll(roll: float) -> None:
    assert yaw_ratio(head(0.4, roll_deg=roll)) == pytest.approx(0.4, abs=1e-5)


def test_landmarks_in_one_point_have_no_yaw() -> None:
    assert yaw_ratio(np.zeros((5, 2), np.float32)) == 0.0


def test_turning_as_told_passes() -> None:
    challenge = TurnChallenge([Turn.LEFT], started_at=0.0)
    assert play(challenge, 0.0, 0.0) is ChallengeState.TURN
    assert challenge.turn is Turn.LEFT
    assert play(challenge, 0.2, 0.35, 0.4, start=0.5) is ChallengeState.PASSED
    assert challenge.result.state is PadState.ACTIVE
    assert challenge.turn is None


def test_two_turns_ask_for_the_middle_between_them() -> None:
    challenge = TurnChallenge([Turn.RIGHT, Turn.LEFT], started_at=0.0)
    play(challenge, 0.0, 0.0, -0.4, -0.4)
    assert challenge.state is ChallengeState.CENTRE
    assert play(challenge, 0.0, 0.0, 0.4, 0.4, start=1.0) is ChallengeState.PASSED


@pytest.mark.parametrize(
    ("yaws", "why"),
    [
        ((0.0, 0.0, 0.4, 0.4), "turned to the wrong side"),
        ((0.4, 0.4, 0.4, 0.4), "was never seen looking at the camera"),
        ((0.0, 0.0, -0.4, 0.0, -0.4), "did not hold the turn"),
        ((0.0, 0.0, 0.0, 0.0), "did not turn: a photograph"),
    ],
)
def test_anything_else_does_not_pass(yaws: tuple[float, ...], why: str) -> None:
    challenge = TurnChallenge([Turn.RIGHT], started_at=0.0)
    assert play(challenge, *yaws) is not ChallengeState.PASSED, why
    assert challenge.result.state is PadState.NONE


def test_time_runs_out() -> None:
    challenge = TurnChallenge([Turn.LEFT], started_at=0.0, timeout_s=5.0)
    play(challenge, 0.0, 0.0)
    assert challenge.observe([head(0.4)], now=5.1) is ChallengeState.FAILED


def test_a_second_face_fails() -> None:
    challenge = TurnChallenge([Turn.LEFT], started_at=0.0)
    assert challenge.observe([head(), head(at=(300.0, 100.0))], now=0.1) is ChallengeState.FAILED


def test_another_face_put_in_its_place_fails() -> None:
    challenge = TurnChallenge([Turn.LEFT], started_at=0.0)
    play(challenge, 0.0, 0.0)
    assert challenge.observe([head(0.4, at=(160.0, 100.0))], now=0.6) is ChallengeState.FAILED


def test_a_face_may_be_lost_for_a_moment_only() -> None:
    challenge = TurnChallenge([Turn.LEFT], started_at=0.0, gap_s=1.0)
    play(challenge, 0.0, 0.0)
    assert challenge.observe([], now=1.0) is ChallengeState.TURN
    assert challenge.observe([], now=1.3) is ChallengeState.FAILED


def test_a_face_that_comes_back_late_fails() -> None:
    challenge = TurnChallenge([Turn.LEFT], started_at=0.0, gap_s=1.0)
    play(challenge, 0.0, 0.0)
    assert challenge.observe([head(0.4)], now=1.5) is ChallengeState.FAILED


def test_what_is_over_stays_over() -> None:
    challenge = TurnChallenge([Turn.LEFT], started_at=0.0)
    play(challenge, 0.0, 0.0, -0.4, -0.4)
    assert play(challenge, 0.0, 0.0, 0.4, 0.4, start=2.0) is ChallengeState.FAILED


def test_a_challenge_needs_a_turn() -> None:
    with pytest.raises(ValueError, match="at least one turn"):
        TurnChallenge([], started_at=0.0)
