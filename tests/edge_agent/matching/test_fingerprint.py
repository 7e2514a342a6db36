"""Finger images and records to samples: real prints, small and strange images, broken records."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edge_agent.matching.fingerprint import (
    FROM_IMAGE,
    FROM_RECORD,
    FingerprintEngine,
    FingerSample,
    disagreement,
)
from edge_agent.matching.outcomes import Refused, SampleFault
from edge_agent.matching.record_values import BadRecord
from templates_store.gallery.finger_template import MinutiaeTemplate
from templates_store.gallery.minutiae import compare
from tests.shared_data import shared

STRANGERS = 0.33  # above every impostor score of FVC2002 DB1_B and DB3_B


@pytest.fixture(scope="module")
def engine() -> FingerprintEngine:
    return FingerprintEngine()


def image(name: str) -> NDArray[np.uint8]:
    with Image.open(shared("fingerprints", "fvc2002_db3_b", f"{name}.tif")) as file:
        return np.asarray(file.convert("L"), np.uint8)


@pytest.fixture(scope="module")
def first(engine: FingerprintEngine) -> FingerSample:
    sample = engine.sample(image("104_1"), dpi=500)
    assert isinstance(sample, FingerSample)
    return sample


def test_two_impressions_match_and_a_stranger_does_not(engine: FingerprintEngine, first: FingerSample) -> None:
    same, other = engine.sample(image("104_2"), dpi=500), engine.sample(image("106_1"), dpi=500)
    assert isinstance(same, FingerSample)
    assert isinstance(other, FingerSample)
    assert compare(first.template, same.template) > STRANGERS > compare(first.template, other.template)
    assert first.format == engine.format == FROM_IMAGE
    assert disagreement([first, same], threshold=STRANGERS) is None
    found = disagreement([first, same, other], threshold=STRANGERS)
    assert found is not None
    assert found.fault is SampleFault.SAMPLES_DISAGREE


def test_a_stored_template_compares_like_the_sample(first: FingerSample) -> None:
    again = MinutiaeTemplate.decode(first.template.encode())
    assert compare(first.template, again) > 0.7


def test_minutiae_lie_where_the_finger_does_and_y_goes_up(first: FingerSample) -> None:
    assert (first.template.xy[:, 0] >= 0).all()
    assert (first.template.xy[:, 1] <= 0).all()
    assert len(first.template) >= 20
    assert 40 < first.quality <= 100
    assert first.doubt is None


def test_four_bits_at_another_resolution_still_match(engine: FingerprintEngine, first: FingerSample) -> None:
    small = cv2.resize(image("104_1"), None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    sample = engine.sample(np.asarray(np.right_shift(small, 4), np.uint8), dpi=400)
    assert isinstance(sample, FingerSample)
    assert compare(first.template, sample.template) > 0.5


@pytest.mark.parametrize(
    ("picture", "dpi", "fault"),
    [
        (np.full((300, 300), 255, np.uint8), 500, SampleFault.SMALL_AREA),
        (np.zeros((288, 256), np.uint8), 500, SampleFault.SMALL_AREA),
        (np.zeros((40, 300), np.uint8), 500, SampleFault.SMALL_AREA),
        (np.zeros((0, 0), np.uint8), 500, SampleFault.SMALL_AREA),
        (np.zeros((4000, 4000), np.uint8), 500, SampleFault.BAD_IMAGE),
        (np.zeros((1200, 1200), np.uint8), 300, SampleFault.BAD_IMAGE),
        (np.zeros((300, 300, 3), np.uint8), 500, SampleFault.BAD_IMAGE),
        (np.zeros((300, 300), np.uint16), 500, SampleFault.BAD_IMAGE),
        (np.zeros((300, 300), np.uint8), 0, SampleFault.BAD_IMAGE),
        (np.zeros((300, 300), np.uint8), math.nan, SampleFault.BAD_IMAGE),
        (np.zeros((300, 300), np.uint8), 1e9, SampleFault.BAD_IMAGE),
    ],
    ids=["white", "black", "narrow", "empty", "huge", "huge scaled", "colour", "16 bits", "0 dpi", "nan", "absurd dpi"],
)
def test_refuses_images_without_a_finger(
    engine: FingerprintEngine, picture: NDArray[np.uint8], dpi: float, fault: SampleFault
) -> None:
    refused = engine.sample(picture, dpi=dpi)
    assert isinstance(refused, Refused)
    assert refused.fault is fault


@pytest.mark.parametrize(("gain", "offset"), [(0.2, 190.0), (-1.0, 255.0)], ids=["faint", "light ridges on dark"])
def test_other_sensors_greys_still_match(
    engine: FingerprintEngine, first: FingerSample, gain: float, offset: float
) -> None:
    greys = np.clip(image("104_2") * gain + offset, 0, 255).astype(np.uint8)
    sample = engine.sample(greys, dpi=500)
    assert isinstance(sample, FingerSample)
    assert compare(first.template, sample.template) > STRANGERS


def test_refuses_noise(engine: FingerprintEngine) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (160, 160)).astype(np.uint8)
    assert isinstance(engine.sample(noise, dpi=500), Refused)


def test_a_corner_of_a_finger_compares_but_should_not_be_enrolled(engine: FingerprintEngine) -> None:
    corner = engine.sample(np.ascontiguousarray(image("104_1")[90:200, 100:230]), dpi=500)
    doubt = corner if isinstance(corner, Refused) else corner.doubt
    assert doubt is not None
    assert doubt.fault in (SampleFault.SMALL_AREA, SampleFault.TOO_FEW_MINUTIAE)


def test_records_are_another_pipeline_and_match_among_themselves(engine: FingerprintEngine) -> None:
    folder = shared("fingerprints", "fvc2002_db1_b")
    one, same, other = (engine.from_record((folder / f"{n}.iso").read_bytes()) for n in ("102_1", "102_2", "105_1"))
    assert isinstance(one, FingerSample)
    assert isinstance(same, FingerSample)
    assert isinstance(other, FingerSample)
    assert one.format == FROM_RECORD != FROM_IMAGE
    assert compare(one.template, same.template) > STRANGERS > compare(one.template, other.template)


def test_a_record_without_that_view_or_with_too_few_minutiae_is_refused(engine: FingerprintEngine) -> None:
    record = (shared("fingerprints", "fvc2002_db1_b") / "102_1.iso").read_bytes()
    with pytest.raises(BadRecord):
        engine.from_record(record, view=1)
    with pytest.raises(BadRecord):
        engine.from_record(record, view=-1)
    with pytest.raises(BadRecord):
        engine.from_record(record[:-1])
    three = record[:24] + record[24:27] + bytes([3]) + record[28 : 28 + 18] + b"\0\0"
    three = three[:8] + len(three).to_bytes(4, "big") + three[12:]
    refused = engine.from_record(three)
    assert isinstance(refused, Refused)
    assert refused.fault is SampleFault.TOO_FEW_MINUTIAE


def test_one_impression_agrees_with_itself(first: FingerSample) -> None:
    assert disagreement([first], threshold=0.99) is None
    assert disagreement([], threshold=0.99) is None
    assert disagreement([first, replace(first)], threshold=0.7) is None
