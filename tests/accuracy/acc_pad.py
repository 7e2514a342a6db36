"""The turn challenge against prints, by kind of attack, and against heads that do turn.

No film of attacks is at hand, so prints are simulated: a photograph on a plane, moved before a camera, found in each
view by the real detector. Each kind is played as a sequence against a turn to either side; APCER counts the sequences
that pass. Genuine turns are pairs of LFW photographs of one person, one looking at the camera and one turned: the BPCER
here is the share whose turned photograph would not count as a turn. A number of prints per kind, not a promise.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from edge_agent.matching.face import Frame
from edge_agent.matching.face_yunet import Yunet
from edge_agent.matching.pad import CENTRED, HELD, TURNED, ChallengeState, Landmarks, Turn, TurnChallenge, yaw_ratio
from tests.accuracy.acc_face import wilson
from tests.accuracy.faces import people

SIDE = 480
BACKGROUND = (110, 110, 110)
Pose = tuple[float, float, float, tuple[float, float], float]  # axis, tilt, roll in degrees; shift; scale
console = Console(width=130)


def view(image: Frame, pose: Pose, *, distance: float = 3.0) -> Frame:
    """A print of half-width 1 seen from `distance`: tilted about an axis in its plane, then turned and moved in it."""
    axis, tilt, roll, shift, scale = pose
    along = np.radians(axis)
    turn = cv2.Rodrigues(np.array([np.cos(along), np.sin(along), 0.0]) * np.radians(tilt))[0]
    turn = np.asarray(cv2.Rodrigues(np.array([0.0, 0.0, np.radians(roll)]))[0] @ turn)
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) @ turn.T
    seen = corners[:, :2] * scale / (corners[:, 2:] + distance) * distance + shift
    target = ((seen + 1.0) * SIDE / 2).astype(np.float32)
    source = np.array([[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE]], np.float32)
    matrix = cv2.getPerspectiveTransform(source, target)
    return np.asarray(cv2.warpPerspective(image, matrix, (SIDE, SIDE), borderValue=BACKGROUND), np.uint8)


def tilted(axis: float) -> Callable[[int], Iterator[Pose]]:
    def poses(side: int) -> Iterator[Pose]:
        for tilt in range(0, 76, 5):
            yield axis, float(side * tilt), 0.0, (0.0, 0.0), 1.0

    return poses


def moved(side: int) -> Iterator[Pose]:
    for step in range(12):
        yield 0.0, 0.0, 0.0, (side * 0.04 * step, 0.0), 1.0


def nearer(_: int) -> Iterator[Pose]:
    for step in range(12):
        yield 0.0, 0.0, 0.0, (0.0, 0.0), 0.8 + 0.05 * step


def leaned(side: int) -> Iterator[Pose]:
    for roll in range(0, 46, 4):
        yield 0.0, 0.0, float(side * roll), (0.0, 0.0), 1.0


ATTACKS: dict[str, Callable[[int], Iterator[Pose]]] = {
    "held still": lambda _: iter([(0.0, 0.0, 0.0, (0.0, 0.0), 1.0)] * 12),
    "moved sideways": moved,
    "brought nearer": nearer,
    "leaned": leaned,
    "tilted, upright axis": tilted(90.0),
    "tilted, level axis": tilted(0.0),
    "tilted, slanting axis": tilted(50.0),
}


def landmarks(detector: Yunet, image: Frame) -> Landmarks | None:
    faces = detector.detect(image)
    return faces[0].landmarks if faces else None


def passes(detector: Yunet, image: Frame, poses: Iterator[Pose], turn: Turn) -> bool:
    """One turn asked for: half of what a door asks."""
    challenge = TurnChallenge([turn], started_at=0.0, timeout_s=60.0, gap_s=60.0)
    still = [(0.0, 0.0, 0.0, (0.0, 0.0), 1.0)] * HELD
    for number, pose in enumerate([*still, *poses]):
        found = landmarks(detector, view(image, pose))
        state = challenge.observe([found] if found is not None else [], now=number * 0.1)
        if state in (ChallengeState.PASSED, ChallengeState.FAILED):
            break
    return challenge.state is ChallengeState.PASSED


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="pad")
    parser.add_argument("--prints", type=int, default=60, help="photographs presented in each way")
    options, _ = parser.parse_known_args(argv)
    detector = Yunet()
    seen: dict[str, list[tuple[Frame, Landmarks]]] = {}
    for person, paths in people(0).items():
        for path in paths:
            image = np.asarray(cv2.resize(np.asarray(cv2.imread(str(path))), (SIDE, SIDE)), np.uint8)
            found = landmarks(detector, image)
            if found is not None and float(np.abs(found.mean(axis=0) - SIDE / 2).max()) < SIDE / 5:
                seen.setdefault(person, []).append((image, found))
    prints = [
        next(image for image, points in looks if abs(yaw_ratio(points)) <= CENTRED / 2)
        for looks in seen.values()
        if any(abs(yaw_ratio(points)) <= CENTRED / 2 for _, points in looks)
    ][: options.prints]
    table = Table(title="one turn of the head asked for; prints are simulated; shares with 95 % intervals")
    for column in ("kind", "APCER"):
        table.add_column(column)
    for label, attack in ATTACKS.items():
        tries = [(image, side, turn) for image in prints for side in (-1, 1) for turn in Turn]
        through = sum(passes(detector, image, attack(side), turn) for image, side, turn in tries)
        table.add_row(label, wilson(through, len(tries)))
        print(f"  {label}: {len(tries)} sequences", flush=True)
    console.print(table)
    missed = genuine = 0
    for looks in seen.values():
        for front, turned in pairs([points for _, points in looks]):
            genuine += 1
            challenge = TurnChallenge([Turn.LEFT if yaw_ratio(turned) > 0 else Turn.RIGHT], started_at=0.0)
            still = turned - turned.mean(axis=0) + front.mean(axis=0)
            for number, points in enumerate([front] * HELD + [still] * HELD):
                challenge.observe([points], now=number * 0.1)
            missed += challenge.state is not ChallengeState.PASSED
    console.print(
        f"BPCER: {wilson(missed, genuine)} of {genuine} turned heads (yaw ratio {TURNED} to {TURNED * 1.5:.2f})"
    )


def pairs(looks: list[NDArray[np.float32]]) -> Iterator[tuple[Landmarks, Landmarks]]:
    """Looks at the camera and turned ones of one person, as far as a person turns when told to."""
    for front in looks:
        for turned in looks:
            if abs(yaw_ratio(front)) <= CENTRED and TURNED <= abs(yaw_ratio(turned)) <= 1.5 * TURNED:
                yield front, turned
