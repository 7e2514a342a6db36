"""Pairing and relaxation, one candidate and many at once."""

from __future__ import annotations

import numpy as np
import pytest

from templates_store.gallery.finger_code import prepare
from templates_store.gallery.finger_segment import Segment
from templates_store.gallery.relaxation import agreement, decisive_pairs, pair
from tests.templates_store.gallery.fingers import again, finger, nothing


def test_pairs_are_those_that_prefer_each_other() -> None:
    table = np.array([[[0.9, 0.8, 0.0], [0.7, 0.6, 0.0], [0.0, 0.0, 0.1]]], np.float32)
    partner, similarity = pair(table.copy())
    assert partner.tolist() == [[0, 1, 2]]  # 0.6 in the second round, when 0.9 has taken its row and column
    assert similarity[0] == pytest.approx([0.9, 0.6, 0.1])


def test_each_minutia_is_paired_at_most_once() -> None:
    table = np.random.default_rng(0).random((5, 20, 30), np.float32)
    partner, similarity = pair(table.copy())
    for one, values, source in zip(partner, similarity, table, strict=True):
        chosen = one[values > 0]
        assert len(set(chosen.tolist())) == len(chosen) > 5
        assert values[values > 0].tolist() == source[chosen, np.flatnonzero(values > 0)].tolist()


def test_nothing_alike_pairs_nothing() -> None:
    assert not pair(np.zeros((1, 4, 4), np.float32))[1].any()


def test_agreement_ignores_how_the_finger_lies_but_not_its_shape() -> None:
    rng = np.random.default_rng(2)
    position = (rng.uniform(-80, 80, 6) + 1j * rng.uniform(-80, 80, 6)).astype(np.complex64)[None]
    direction = np.exp(1j * rng.uniform(0, 6, 6)).astype(np.complex64)[None]
    turn = np.complex64(np.exp(0.7j))
    same = agreement(position, direction, position * turn + np.complex64(50), direction * turn)
    off_diagonal = ~np.eye(6, dtype=bool)
    assert same[0][off_diagonal].min() > 0.99
    assert not same[0][~off_diagonal].any()
    moved = position.copy()
    moved[0, 0] += 40
    assert agreement(position, direction, moved, direction)[0, 0].max() < 0.5


def test_more_minutiae_ask_for_more_pairs() -> None:
    assert decisive_pairs(40, np.array([5, 20, 60])).tolist() == [4, 8, 12]


def test_many_at_once_score_as_each_alone() -> None:
    original = finger(1)
    probe = prepare(again(original, 9))
    codes = [prepare(finger(seed, 25 + seed)) for seed in range(2, 9)] + [prepare(original), prepare(nothing())]
    together = Segment.of(codes).relaxed(probe)
    alone = [float(Segment.of([code]).relaxed(probe)[0]) for code in codes]
    assert together == pytest.approx(alone, abs=1e-5)
    assert together.argmax() == 7
    assert together[8] == 0.0


def test_scores_do_not_depend_on_the_order_of_minutiae() -> None:
    original = finger(1)
    shuffled = again(original, 4, turn=0.0, shift=(0.0, 0.0), lost=0)
    ordered = again(original, 4, turn=0.0, shift=(0.0, 0.0), lost=0)
    order = np.arange(len(ordered))[::-1]
    reordered = type(ordered)(ordered.xy[order], ordered.angle[order], ordered.quality[order], ordered.kind[order])
    probe = prepare(original)
    first, second = (float(Segment.of([prepare(t)]).relaxed(probe)[0]) for t in (shuffled, reordered))
    assert first == pytest.approx(second, abs=1e-4)
