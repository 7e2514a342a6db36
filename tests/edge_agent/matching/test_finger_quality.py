"""What the image itself says about a print, and the reason given to the person."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edge_agent.matching.finger_quality import (
    ENROLMENT_QUALITY,
    Impression,
    enrolment_fault,
    evidence,
    evidence_fault,
    impression,
    quality,
    reason,
)
from edge_agent.matching.outcomes import SampleFault
from templates_store.gallery.finger_template import MinutiaeTemplate
from tests.shared_data import shared


def image(name: str) -> NDArray[np.uint8]:
    with Image.open(shared("fingerprints", "fvc2002_db1_b", f"{name}.tif")) as file:
        return np.asarray(file.convert("L"), np.uint8)


def minutiae(count: int, worth: float = 0.9) -> MinutiaeTemplate:
    return MinutiaeTemplate(
        np.zeros((count, 2), np.float32), np.zeros(count, np.float32),
        np.full(count, worth, np.float32), np.ones(count, np.uint8),
    )  # fmt: skip


def stripes(period: float, size: int = 320) -> NDArray[np.uint8]:
    rows = np.arange(size)[:, None] + 0.4 * np.arange(size)[None, :]
    return np.asarray(np.rint(127 + 100 * np.sin(2 * np.pi * rows / period)), np.uint8)


def test_ridges_cover_a_real_print_and_run_clearly() -> None:
    seen = impression(image("102_1"))
    assert 40_000 < seen.area < 110_000
    assert seen.clear > 0.7
    assert seen.area == pytest.approx(impression(image("102_1").T.copy()).area, rel=0.1)


def test_an_empty_sensor_shows_no_finger() -> None:
    assert impression(np.full((288, 256), 200, np.uint8)).area == 0.0
    noise = np.random.default_rng(0).normal(200, 2, (288, 256)).astype(np.uint8)
    assert impression(noise).area == 0.0


def test_half_a_finger_covers_half_the_area() -> None:
    whole = stripes(9)
    half = whole.copy()
    half[:, 160:] = 255
    assert impression(half).area / impression(whole).area == pytest.approx(0.5, abs=0.1)


def test_thinned_ridges_are_dry_and_thickened_ones_wet() -> None:
    print_ = image("102_1")
    kernel = np.ones((5, 5), np.uint8)
    dry, wet = (np.asarray(change(print_, kernel), np.uint8) for change in (cv2.dilate, cv2.erode))
    tones = [impression(picture).tone for picture in (wet, print_, dry)]
    assert tones == sorted(tones)
    assert tones[2] - tones[0] > 0.2


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        (Impression(9_000, 0.9, 0.5), SampleFault.SMALL_AREA),
        (Impression(60_000, 0.3, 0.8), SampleFault.FINGER_TOO_DRY),
        (Impression(60_000, 0.3, 0.2), SampleFault.FINGER_TOO_WET),
        (Impression(60_000, 0.9, 0.5), SampleFault.TOO_FEW_MINUTIAE),
    ],
    ids=["small", "dry", "wet", "few"],
)
def test_a_poor_print_has_a_reason_the_person_can_act_on(seen: Impression, fault: SampleFault) -> None:
    poor = enrolment_fault(seen, 20.0)
    assert poor is not None
    assert poor.fault is reason(seen) is fault


def test_a_good_print_is_never_refused_for_its_tone() -> None:
    for tone in (0.1, 0.5, 0.9):
        assert enrolment_fault(Impression(60_000, 0.9, tone), 70.0) is None


def test_quality_grows_with_minutiae_and_with_clear_ridges() -> None:
    clear, smudged = Impression(60_000, 0.9, 0.5), Impression(60_000, 0.4, 0.5)
    values = [quality(clear, minutiae(count)) for count in (0, 5, 15, 40, 120)]
    assert values == sorted(values)
    assert values[0] == 0.0
    assert 0 < values[1] < ENROLMENT_QUALITY < values[2] < values[4] <= 100
    assert quality(smudged, minutiae(40)) == pytest.approx(values[3] / 2)


def test_a_record_is_judged_by_its_minutiae_alone() -> None:
    assert evidence_fault(evidence(minutiae(40))) is None
    poor = evidence_fault(evidence(minutiae(7)))
    assert poor is not None
    assert poor.fault is SampleFault.TOO_FEW_MINUTIAE
