"""Laying one finger over another."""

from __future__ import annotations

import numpy as np
import pytest

from templates_store.gallery.finger_code import convex_hull, prepare
from templates_store.gallery.finger_segment import Segment
from templates_store.gallery.finger_template import MinutiaeTemplate
from templates_store.gallery.minutiae import compare
from tests.templates_store.gallery.fingers import again, finger, nothing


def test_the_hull_goes_round_counter_clockwise() -> None:
    square = np.array([0, 10, 10 + 10j, 10j, 5 + 5j, 3 + 2j], np.complex64)
    assert convex_hull(square).tolist() == [0, 10, 10 + 10j, 10j]


@pytest.mark.parametrize("points", [[], [1 + 1j], [1 + 1j, 1 + 1j], [0, 5 + 5j]])
def test_a_hull_of_next_to_nothing_is_its_points(points: list[complex]) -> None:
    assert set(convex_hull(np.array(points, np.complex64)).tolist()) == set(points)


@pytest.mark.parametrize("turn", [0.0, 0.6, -1.3])  # radians; beyond a quarter turn nobody puts a finger
def test_the_same_finger_scores_high_however_it_lies(turn: float) -> None:
    for seed in range(3):
        original = finger(seed)
        assert compare(original, again(original, seed + 50, turn=turn)) > 0.45


def test_strangers_score_low() -> None:
    fingers = [prepare(finger(seed)) for seed in range(30)]
    scores = Segment.of(fingers[1:]).aligned(fingers[0], np.arange(29))
    assert scores.max() < 0.35


def test_minutiae_that_should_be_there_and_are_not_cost_score() -> None:
    original = finger(1, 60)
    half = original.xy[:, 0] < 0
    part = MinutiaeTemplate(original.xy[half], original.angle[half], original.quality[half], original.kind[half])
    stranger = finger(2, 60)
    # one half the same, the other somebody else's: as many minutiae agree as with the half print alone
    other = stranger.xy[:, 0] >= 0
    patched = MinutiaeTemplate(
        np.concatenate([part.xy, stranger.xy[other]]), np.concatenate([part.angle, stranger.angle[other]]),
        np.concatenate([part.quality, stranger.quality[other]]), np.concatenate([part.kind, stranger.kind[other]]),
    )  # fmt: skip
    assert compare(original, part) > compare(original, patched) + 0.03


def test_a_smooth_stretch_is_bent_back() -> None:
    original = finger(1)
    stretch = np.array([[1.06, 0.03], [0.0, 0.96]], np.float32)
    stretched = MinutiaeTemplate(original.xy @ stretch, original.angle, original.quality, original.kind)
    assert compare(original, stretched) > 0.55


def test_many_at_once_score_as_each_alone() -> None:
    original = finger(1)
    probe = prepare(again(original, 9))
    codes = [prepare(finger(seed, 25 + seed)) for seed in range(2, 9)] + [prepare(original), prepare(nothing())]
    together = Segment.of(codes).aligned(probe, np.arange(len(codes)))
    alone = [float(Segment.of([code]).aligned(probe, np.array([0]))[0]) for code in codes]
    assert together == pytest.approx(alone, abs=1e-4)


def test_scores_stay_in_range_for_degenerate_fingers() -> None:
    line = MinutiaeTemplate(
        np.stack([np.arange(30) * 6.0, np.zeros(30)], axis=1).astype(np.float32), np.zeros(30, np.float32),
        np.ones(30, np.float32), np.ones(30, np.uint8),
    )  # fmt: skip
    heap = MinutiaeTemplate(
        np.zeros((30, 2), np.float32), np.zeros(30, np.float32), np.ones(30, np.float32), np.ones(30, np.uint8)
    )
    for a in (line, heap, nothing(), finger(1)):
        for b in (line, heap, nothing(), finger(2)):
            assert 0.0 <= compare(a, b) < 1.0
    assert compare(nothing(), finger(1)) == 0.0
