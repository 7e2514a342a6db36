"""Cylinder codes against the published formula written out, and what they must not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from templates_store.gallery import cylinders as mcc
from templates_store.gallery.cylinders import cylinders
from templates_store.gallery.finger_template import MinutiaeTemplate
from tests.templates_store.gallery.fingers import finger, nothing


def by_the_book(template: MinutiaeTemplate, minutia: int) -> list[bool]:
    """Equations 4 to 11 and 20 of the source for one minutia, cell by cell."""
    x, y = map(float, template.xy[minutia])
    theta = float(template.angle[minutia])
    step, height = 2 * mcc.RADIUS / mcc.SIDE, 2 * math.pi / mcc.LEVELS
    bits = []
    for i in range(mcc.SIDE):
        for j in range(mcc.SIDE):
            u, v = (i + 0.5) * step - mcc.RADIUS, (j + 0.5) * step - mcc.RADIUS
            if u * u + v * v > mcc.RADIUS**2:
                continue
            px = x + math.cos(theta) * u - math.sin(theta) * v
            py = y + math.sin(theta) * u + math.cos(theta) * v
            for k in range(mcc.LEVELS):
                phi = -math.pi + (k + 0.5) * height
                total = 0.0
                for other in range(len(template)):
                    ox, oy = map(float, template.xy[other])
                    if other == minutia or math.hypot(ox - x, oy - y) > mcc.RADIUS + 3 * mcc.SIGMA_S:
                        continue
                    distance = math.hypot(ox - px, oy - py)
                    spatial = math.exp(-(distance**2) / (2 * mcc.SIGMA_S**2)) / (mcc.SIGMA_S * math.sqrt(2 * math.pi))
                    turned = math.remainder(theta - float(template.angle[other]), math.tau)
                    alpha = math.remainder(phi - turned, math.tau)
                    low, high = ((alpha + side * height / 2) / (mcc.SIGMA_D * math.sqrt(2)) for side in (-1, 1))
                    total += spatial * 0.5 * (math.erf(high) - math.erf(low))
                bits.append(total > mcc.BIT_THRESHOLD)
    return bits


@pytest.mark.parametrize("minutia", [0, 17])
def test_bits_are_those_of_the_published_formula(minutia: int) -> None:
    template = finger(3)
    code = cylinders(template)
    assert len(code) == len(template)
    ours = np.unpackbits(code.bits[minutia])[: mcc.BITS].astype(bool)
    differing = np.count_nonzero(ours != np.array(by_the_book(template, minutia)))
    assert ours.sum() > 50
    assert differing <= 2  # cells within rounding of the threshold


def test_a_turned_and_moved_finger_has_the_same_codes() -> None:
    template = finger(4)
    turn = 1.1
    rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]], np.float32)
    moved = MinutiaeTemplate(
        template.xy @ rotation + np.array([300, -200], np.float32), template.angle + np.float32(turn),
        template.quality, template.kind,
    )  # fmt: skip
    before, after = cylinders(template), cylinders(moved)
    changed = np.bitwise_count(before.bits ^ after.bits).sum(axis=1)
    assert changed.mean() < 0.01 * mcc.BITS


def test_a_mirrored_finger_has_other_codes() -> None:
    template = finger(4)
    mirrored = MinutiaeTemplate(
        template.xy * np.array([-1, 1], np.float32), np.float32(np.pi) - template.angle,
        template.quality, template.kind,
    )  # fmt: skip
    changed = np.bitwise_count(cylinders(template).bits ^ cylinders(mirrored).bits).sum(axis=1)
    assert changed.mean() > 0.1 * mcc.BITS


def test_norms_count_the_ones_and_the_coarse_code_is_part_of_the_fine_one() -> None:
    code = cylinders(finger(5))
    ones = np.bitwise_count(code.bits).sum(axis=1)
    assert code.norm**2 == pytest.approx(ones, rel=1e-5)
    coarse = np.bitwise_count(code.coarse_bits).sum(axis=1)
    assert code.coarse_ones.tolist() == coarse.tolist()
    assert (coarse <= ones).all()


def test_lonely_minutiae_have_no_cylinder() -> None:
    far_apart = MinutiaeTemplate(
        np.array([[0, 0], [500, 0], [0, 500], [10, 0], [0, 10]], np.float32), np.zeros(5, np.float32),
        np.ones(5, np.float32), np.ones(5, np.uint8),
    )  # fmt: skip
    assert cylinders(far_apart).position.tolist() == [0, 10, 10j]
    assert len(cylinders(nothing())) == 0
