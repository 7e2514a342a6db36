from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.matching.face_yunet import Yunet
from edge_agent.matching.outcomes import PadState
from edge_agent.matching.pad import (
    LEAST_PARALLAX,
    LEAST_WIDTH,
    TURNED,
    ChallengeState,
    Landmarks,
    Turn,
    TurnChallenge,
    narrowing,
    parallax,
    yaw_ratio,
)
from tests.accuracy.acc_pad import SIDE, passes, tilted
from tests.shared_data import shared


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


Space = NDArray[np.float64]  # (5, 3)

FACE = np.array([[-20, 0, 0], [20, 0, 0], [0, 25, -16], [-15, 45, 0], [15, 45, 0]], np.float64)
FLAT = FACE * [1, 1, 0]  # the same face printed


def seen(points: Space, *, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0, near: float = 1.0) -> Landmarks:
    """Points turned by degrees (yaw positive to the person's own left), as a camera 300 units away sees them."""
    space = points
    for axis, degrees in (([1.0, 0, 0], -pitch), ([0, 1.0, 0], -yaw), ([0, 0, 1.0], roll)):
        space = space @ cv2.Rodrigues(np.array(axis) * np.radians(degrees))[0].T
    return np.asarray(space[:, :2] * 300 * near / (space[:, 2:] + 300) + 200, np.float32)


def watch(challenge: TurnChallenge, *looks: Landmarks) -> ChallengeState:
    for number, landmarks in enumerate(looks):
        challenge.observe([landmarks], now=number * 0.1)
    return challenge.state


@pytest.mark.parametrize("turn", list(Turn))
def test_a_head_that_turns_in_space_passes(turn: Turn) -> None:
    way = 1.0 if turn is Turn.LEFT else -1.0
    turning = [seen(FACE, yaw=way * degrees, pitch=5.0, roll=4.0) for degrees in (0, 0, 15, 30, 40, 42)]
    assert watch(TurnChallenge([turn], started_at=0.0), *turning) is ChallengeState.PASSED


MOTIONS = {
    "held still": [seen(FLAT)] * 12,
    "moved sideways": [seen(FLAT) + np.float32(3 * step) for step in range(12)],
    "brought nearer": [seen(FLAT, near=1.0 + 0.1 * step) for step in range(12)],
    "leaned": [seen(FLAT, roll=4.0 * step) for step in range(12)],
    "tilted about an upright axis": [seen(FLAT, yaw=6.0 * step) for step in range(12)],
    "tilted about a level axis": [seen(FLAT, pitch=6.0 * step) for step in range(12)],
    "tilted about a slanting axis": [seen(FLAT, yaw=5.0 * step, pitch=4.0 * step) for step in range(12)],
}


@pytest.mark.parametrize("turn", list(Turn))
@pytest.mark.parametrize("motion", MOTIONS)
def test_a_printed_face_never_passes_whatever_way_it_is_moved(motion: str, turn: Turn) -> None:
    looks = MOTIONS[motion]
    assert watch(TurnChallenge([turn], started_at=0.0), looks[0], looks[0], *looks) is not ChallengeState.PASSED


def test_a_slanting_print_looks_turned_until_its_plane_is_looked_at() -> None:
    front, slanting = seen(FLAT), seen(FLAT, yaw=55.0, pitch=44.0)
    assert abs(yaw_ratio(slanting)) >= TURNED
    assert parallax(front, slanting) == pytest.approx(0.0, abs=1e-4)
    assert abs(parallax(seen(FACE), seen(FACE, yaw=40.0))) >= LEAST_PARALLAX


def test_a_nose_off_the_plane_of_a_face_too_narrow_is_no_turn() -> None:
    """What the detector makes of a print tilted by 65 degrees."""
    front, narrow = head(), head(0.4)
    narrow[:, 0] = 100 + (narrow[:, 0] - 100) * 0.5
    assert parallax(front, narrow) >= LEAST_PARALLAX
    assert narrowing(front, narrow) < LEAST_WIDTH
    assert watch(TurnChallenge([Turn.LEFT], started_at=0.0), front, front, narrow, narrow) is ChallengeState.TURN


def test_points_in_one_line_have_no_parallax() -> None:
    line = np.array([[0, 0], [10, 0], [20, 0], [30, 0], [40, 0]], np.float32)
    assert parallax(line, head()) == 0.0
    assert parallax(head(), np.zeros((5, 2), np.float32)) == 0.0


@pytest.mark.parametrize("person", ["Andre_Agassi", "Adrien_Brody"])
@pytest.mark.parametrize("turn", list(Turn))
def test_a_photograph_before_the_real_detector_does_not_pass(person: str, turn: Turn) -> None:
    photograph = cv2.imread(str(shared("faces", "lfw", person, f"{person}_0001.jpg")))
    image = np.asarray(cv2.resize(photograph, (SIDE, SIDE)), np.uint8)
    assert not passes(Yunet(), image, tilted(90.0)(1), turn)


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
