"""Grown fingers: the same from the same seed, alike among themselves, unlike each other to a real matcher."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from device_drivers.simulated.synthetic_fingerprints import DPI, Finger, Pattern
from edge_agent.matching.fingerprint import FingerprintEngine, FingerSample
from templates_store.gallery.finger_code import prepare
from templates_store.gallery.minutiae import compare_codes


def test_a_seed_is_a_finger_and_a_number_an_impression() -> None:
    one, again, other = Finger.grow(5), Finger.grow(5), Finger.grow(6)
    assert np.array_equal(one.impression(0), again.impression(0))
    assert not np.array_equal(one.impression(0), one.impression(1))
    assert not np.array_equal(one.impression(0), other.impression(0))


@pytest.mark.parametrize(("width", "height"), [(256, 288), (192, 192), (160, 160)])
def test_impressions_have_the_sensors_size_and_a_background(width: int, height: int) -> None:
    image = Finger.grow(1, width=width, height=height).impression(0)
    assert (image.shape, image.dtype) == ((height, width), np.uint8)
    assert image[0, 0] > 200
    assert image[height // 4 : -height // 4, width // 4 : -width // 4].std() > 50


@pytest.mark.parametrize("pattern", list(Pattern))
def test_every_pattern_grows_ridges_of_human_width(pattern: Pattern) -> None:
    ridges = Finger.grow(3, pattern=pattern).ridges
    middle = ridges[100:228, 100:228]
    spectrum = np.abs(np.fft.fftshift(np.fft.fft2(middle - middle.mean())))
    y, x = np.indices(spectrum.shape) - 64
    radius = np.hypot(x, y).round().astype(int)
    power = np.bincount(radius.ravel(), (spectrum**2).ravel())[:64]
    period = 128 / (int(power[4:].argmax()) + 4)
    assert 7.0 <= period <= 11.0


def test_growing_and_pressing_are_quick() -> None:
    Finger.grow(0)
    spent = []
    for seed in range(3):
        start = time.process_time()
        Finger.grow(seed).impression(0)
        spent.append(time.process_time() - start)
    assert min(spent) < 1.5  # 0.2 s on an idle core


def test_a_minutiae_matcher_tells_grown_fingers_apart() -> None:
    engine = FingerprintEngine()
    codes = {}
    for seed, number in itertools.product(range(3), range(2)):
        sample = engine.sample(Finger.grow(seed).impression(number), dpi=DPI)
        assert isinstance(sample, FingerSample)
        assert sample.doubt is None
        codes[seed, number] = prepare(sample.template)
    genuine = [compare_codes(codes[seed, 0], codes[seed, 1]) for seed in range(3)]
    impostor = [compare_codes(codes[a, 0], codes[b, 1]) for a, b in itertools.permutations(range(3), 2)]
    assert min(genuine) > max(impostor) + 0.1
