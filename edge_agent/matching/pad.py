"""Presentation attack detection: what is known about the sample being a living person in front of us.

No passive model that comes in a package is good enough to hold a door, so a passive score is advisory
and says so by its state. What a door can demand is an active challenge: turn the head the way the
screen says. It is a pure state machine over landmarks and `now`; whoever owns the camera feeds it.

A photograph moved, brought nearer, leaned or tilted stays a plane: what four landmarks do, a plane's fifth does too,
and `parallax` is nought. A head's nose stands before the plane of eyes and mouth and leaves it. The detector itself
is the weak point: it sees a print tilted by 60 degrees or more as a turned head, nose and all. But such a print is
narrow as no head is that has just turned far enough, so what has narrowed too much does not count. Measured on
photographs (`make accuracy ARGS=pad` prints it, by kind of attack). A replayed film can obey by luck: the directions
are drawn afresh each time, and two turns make luck one in four.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.matching.outcomes import PadState

Landmarks = NDArray[np.float32]  # (5, 2): right eye, left eye, nose tip, right and left corner of the mouth


@dataclass(frozen=True, slots=True)
class PadResult:
    """State recorded with the decision; `score` in [0, 1], higher is more likely a living person, advisory."""

    state: PadState = PadState.NONE
    score: float | None = None


class PassivePad(Protocol):
    """A model that scores one frame. Advisory: its result never has another state than PASSIVE."""

    def judge(self, frame: NDArray[np.uint8], landmarks: Landmarks) -> PadResult: ...


def yaw_ratio(landmarks: Landmarks) -> float:
    """How far the nose lies off the middle of the eyes, in units of the distance between them.

    0 looking at the camera; positive when the person turns to their own left. Independent of roll, scale and
    place: measured along the line of the eyes.
    """
    right, left, nose = (landmarks[i].astype(np.float64) for i in range(3))
    axis = left - right
    span = float(axis @ axis)
    if span <= 0.0:
        return 0.0
    return float((nose - (right + left) / 2) @ axis) / span


def parallax(front: Landmarks, turned: Landmarks) -> float:
    """How far the nose has left the plane of eyes and mouth, along the eyes, in units of the distance between them.

    The plane's motion is the homography of those four points between the two looks; 0 for anything printed, whatever
    way it is moved or tilted; positive for a turn to the person's own left.
    """
    plane = [0, 1, 3, 4]
    try:
        nose = _homography(front[plane].astype(np.float64), turned[plane].astype(np.float64)) @ [*front[2], 1.0]
    except np.linalg.LinAlgError:  # three of them in one line
        return 0.0
    axis = (turned[1] - turned[0]).astype(np.float64)
    span = float(axis @ axis)
    if span <= 0.0 or abs(nose[2]) < 1e-9:
        return 0.0
    return float((turned[2] - nose[:2] / nose[2]) @ axis) / span


def _homography(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    rows = [
        row
        for (x, y), (u, v) in zip(source, target, strict=True)
        for row in ([x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y])
    ]
    return np.append(np.linalg.solve(np.array(rows), target.reshape(-1)), 1.0).reshape(3, 3)


def narrowing(front: Landmarks, turned: Landmarks) -> float:
    """The eyes' distance over that from eyes to mouth, after a turn as a share of before."""
    return _width(turned) / max(_width(front), 1e-9)


def _width(points: Landmarks) -> float:
    down = points[3:].mean(axis=0) - points[:2].mean(axis=0)
    return float(np.linalg.norm(points[1] - points[0])) / max(float(np.linalg.norm(down)), 1e-9)


class Turn(StrEnum):
    """A direction as the person feels it: their own left or right."""

    LEFT = "left"
    RIGHT = "right"


class ChallengeState(StrEnum):
    CENTRE = "centre"  # look at the camera first
    TURN = "turn"  # turn the way `turn` says
    PASSED = "passed"
    FAILED = "failed"


# Measured on 148 pairs of LFW photographs, one looking at the camera and one turned, and on 120 photographs tilted by
# up to 70 degrees. Heads turned by a yaw ratio of .3 to .45: parallax 1 % / 50 %: .20 / .39; narrowing .62 / .81.
# Prints seen as turned that far: narrowing 50 % / 95 %: .44 / .60.
TURNED = 0.30  # yaw ratio taken for a turned head
CENTRED = 0.12
LEAST_PARALLAX = 0.20
LEAST_WIDTH = 0.62
HELD = 2  # observations in a row before a pose counts: one may be a detector's slip
JUMP = 0.8  # eye distances a face may travel between two observations; more is another face


@dataclass(slots=True)
class TurnChallenge:
    """Look at the camera, then turn as told, once per entry of `turns`, before `timeout_s` has passed.

    Fails on a turn to the wrong side, on a face that jumps (exchanged for another), on more than one face, and
    on time. What moves as a plane does has not turned. `observe` may be called with no face for a moment: heads blur
    while they turn.
    """

    turns: Sequence[Turn]
    started_at: float  # monotonic seconds
    timeout_s: float = 12.0
    gap_s: float = 1.0  # the longest the face may be out of sight
    state: ChallengeState = ChallengeState.CENTRE
    _step: int = 0
    _held: int = 0
    _wrong: int = 0
    _front: Landmarks | None = field(default=None, repr=False)  # the last look at the camera
    _last: Landmarks | None = field(default=None, repr=False)
    _seen_at: float | None = None

    def __post_init__(self) -> None:
        if not self.turns:
            raise ValueError("a challenge needs at least one turn")

    @property
    def turn(self) -> Turn | None:
        """What to show the person now; None: look at the camera, or it is over."""
        return self.turns[self._step] if self.state is ChallengeState.TURN else None

    @property
    def result(self) -> PadResult:
        return PadResult(PadState.ACTIVE if self.state is ChallengeState.PASSED else PadState.NONE)

    def observe(self, faces: Sequence[Landmarks], *, now: float) -> ChallengeState:
        """Landmarks of every face of one frame, in the order of time."""
        if self.state in (ChallengeState.PASSED, ChallengeState.FAILED):
            return self.state
        if now - self.started_at > self.timeout_s or len(faces) > 1:
            return self._fail()
        if not faces:
            if self._seen_at is not None and now - self._seen_at > self.gap_s:
                return self._fail()
            return self.state
        landmarks = faces[0]
        if self._jumped(landmarks, now):
            return self._fail()
        self._last, self._seen_at = landmarks, now
        return self._advance(landmarks)

    def _advance(self, landmarks: Landmarks) -> ChallengeState:
        yaw = yaw_ratio(landmarks)
        if self.state is ChallengeState.CENTRE:
            self._held = self._held + 1 if abs(yaw) <= CENTRED else 0
            if self._held >= HELD:
                self.state, self._front, self._held, self._wrong = ChallengeState.TURN, landmarks, 0, 0
            return self.state
        way = self._turned(landmarks, yaw)
        self._held = self._held + 1 if way is self.turns[self._step] else 0
        self._wrong = self._wrong + 1 if way not in (None, self.turns[self._step]) else 0
        if self._wrong >= HELD:
            return self._fail()
        if self._held >= HELD:
            self._step, self._held = self._step + 1, 0
            self.state = ChallengeState.PASSED if self._step == len(self.turns) else ChallengeState.CENTRE
        return self.state

    def _turned(self, landmarks: Landmarks, yaw: float) -> Turn | None:
        """Which way a head has turned since it last looked at the camera; None if none has."""
        if self._front is None or abs(yaw) < TURNED or narrowing(self._front, landmarks) < LEAST_WIDTH:
            return None
        depth = parallax(self._front, landmarks)
        if yaw * depth <= 0.0 or abs(depth) < LEAST_PARALLAX:
            return None
        return Turn.LEFT if yaw > 0.0 else Turn.RIGHT

    def _jumped(self, landmarks: Landmarks, now: float) -> bool:
        if self._last is None or self._seen_at is None:
            return False
        if now - self._seen_at > self.gap_s:
            return True
        eyes = float(np.linalg.norm(self._last[1] - self._last[0]))
        moved = float(np.linalg.norm(landmarks.mean(axis=0) - self._last.mean(axis=0)))
        return moved > JUMP * max(eyes, 1.0)

    def _fail(self) -> ChallengeState:
        self.state = ChallengeState.FAILED
        return self.state
