from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.matching.advice import advice
from edge_agent.matching.images import ImageFault
from edge_agent.matching.outcomes import CheckName, NoMatchReason, Refused, SampleFault
from edge_agent.matching.quality import ENROLMENT, PROBE, Face, FaceQuality, choose, judge, measure

GOOD = FaceQuality(
    eye_distance=44.0,
    brightness=136.0,
    dark=0.0,
    bright=0.0,
    sharpness=5.2,
    yaw=0.05,
    pitch=0.56,
    roll_deg=1.0,
    detector=0.93,
    mouth=1.1,
)


def drawn(light: float = 1.0) -> NDArray[np.uint8]:
    """An aligned crop with eyes, brows and a mouth where an engine would put them, and grain as skin has."""
    crop = np.full((112, 112, 3), (120, 140, 180), np.uint8)
    for x in (38, 74):
        cv2.ellipse(crop, (x, 52), (9, 4), 0, 0, 360, (40, 40, 50), -1)
        cv2.line(crop, (x - 10, 42), (x + 10, 41), (50, 60, 70), 3)
    cv2.ellipse(crop, (56, 92), (15, 4), 0, 0, 360, (70, 60, 150), -1)
    grain = np.random.default_rng(0).normal(0, 6, crop.shape)
    return np.clip((crop + grain) * light, 0, 255).astype(np.uint8)


def face(
    eyes: float = 44.0, *, at: tuple[float, float] = (160.0, 120.0), score: float = 0.93, nose: float = 0.0
) -> Face:
    x, y = at
    points = np.array([[-0.5, 0], [0.5, 0], [nose, 0.55], [-0.4, 1.0], [0.4, 1.0]]) * eyes + at
    return Face((x - eyes * 1.1, y - eyes, eyes * 2.2, eyes * 2.8), points.astype(np.float32), score)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"eye_distance": 9.0}, SampleFault.TOO_SMALL),
        ({"brightness": 16.0}, SampleFault.TOO_DARK),
        ({"brightness": 240.0}, SampleFault.TOO_BRIGHT),
        ({"bright": 0.6}, SampleFault.TOO_BRIGHT),
        ({"sharpness": 1.5}, SampleFault.BLURRED),
        ({"yaw": 0.7}, SampleFault.LOOK_AT_CAMERA),
        ({"yaw": -0.7}, SampleFault.LOOK_AT_CAMERA),
        ({"pitch": 0.1}, SampleFault.LOOK_AT_CAMERA),
        ({"pitch": 0.95}, SampleFault.LOOK_AT_CAMERA),
        ({"roll_deg": -60.0}, SampleFault.LOOK_AT_CAMERA),
        ({"mouth": 0.05}, SampleFault.COVERED),
        ({"detector": 0.5}, SampleFault.COVERED),
    ],
)
def test_each_gate_refuses_with_its_reason(change: dict[str, float], fault: SampleFault) -> None:
    refused = judge(replace(GOOD, **change), PROBE)
    assert isinstance(refused, Refused)
    assert refused.fault is fault
    assert refused.measured is not None
    assert judge(replace(GOOD, **change), ENROLMENT) is not None


def test_every_figure_is_told_beside_its_limits_whichever_failed() -> None:
    refused = judge(replace(GOOD, sharpness=0.5, yaw=-0.9), PROBE)
    assert refused is not None
    assert refused.fault is SampleFault.BLURRED
    failed = {check.name: (check.value, check.high) for check in refused.checks if not check.ok}
    assert failed == {CheckName.SHARPNESS: (0.5, None), CheckName.YAW: (0.9, PROBE.yaw)}
    assert {check.name for check in refused.checks} >= {CheckName.SIZE, CheckName.BRIGHTNESS, CheckName.MOUTH}


def test_a_good_face_passes_both_sets_of_gates() -> None:
    assert judge(GOOD, PROBE) is None
    assert judge(GOOD, ENROLMENT) is None


def test_enrolment_asks_for_more_than_a_probe() -> None:
    sideways = replace(GOOD, yaw=0.45)
    assert judge(sideways, PROBE) is None
    assert judge(sideways, ENROLMENT) is not None


def test_what_is_drawn_well_is_measured_as_good() -> None:
    assert judge(measure(face(), drawn()), PROBE) is None


@pytest.mark.parametrize(
    ("crop", "fault"),
    [
        (drawn(0.1), SampleFault.TOO_DARK),
        (drawn(3.0), SampleFault.TOO_BRIGHT),
        (np.asarray(cv2.GaussianBlur(drawn(), (0, 0), 4.0), np.uint8), SampleFault.BLURRED),
        (np.full((112, 112, 3), 128, np.uint8), SampleFault.BLURRED),
    ],
)
def test_a_spoilt_picture_is_refused_for_what_spoilt_it(crop: NDArray[np.uint8], fault: SampleFault) -> None:
    refused = judge(measure(face(), crop), PROBE)
    assert refused is not None
    assert refused.fault is fault


def test_a_covered_mouth_is_seen() -> None:
    covered = drawn()
    covered[70:, 16:96] = (200, 190, 170)
    assert judge(measure(face(), covered), PROBE) == Refused(SampleFault.COVERED, 0.0, PROBE.mouth)


def test_a_turned_head_is_measured_from_its_landmarks() -> None:
    assert measure(face(nose=0.4), drawn()).yaw == pytest.approx(0.4, abs=1e-5)
    assert measure(face(), drawn()).pitch == pytest.approx(0.55, abs=1e-5)


def test_nobody_is_no_face() -> None:
    assert choose([], PROBE, size=(640, 480)) == Refused(SampleFault.NO_FACE)


def test_the_prominent_face_is_meant() -> None:
    near, far = face(60.0), face(25.0, at=(40.0, 60.0))
    assert choose([far, near], PROBE, size=(320, 240)) is near
    assert choose([far, near], replace(PROBE, second_face=99.0), size=(320, 240)) is near


def test_two_alike_are_refused() -> None:
    pair = [face(50.0, at=(100.0, 120.0)), face(48.0, at=(220.0, 120.0))]
    refused = choose(pair, PROBE, size=(320, 240))
    assert isinstance(refused, Refused)
    assert refused.fault is SampleFault.MORE_THAN_ONE_FACE


@pytest.mark.parametrize("code", [*SampleFault, *ImageFault, *NoMatchReason])
def test_every_refusal_has_words_in_both_languages(code: SampleFault | ImageFault | NoMatchReason) -> None:
    words = advice(code)
    assert words.en.isascii()
    assert any("\u4e00" <= letter <= "\u9fff" for letter in words.zh)
