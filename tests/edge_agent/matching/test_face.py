from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.matching import face_sface, face_yunet
from edge_agent.matching.agreement import agreed, similarity, somebody_else
from edge_agent.matching.calibration import shipped_calibration
from edge_agent.matching.decision import Targets, Thresholds
from edge_agent.matching.face import FaceSample
from edge_agent.matching.face_alignment import aligned
from edge_agent.matching.face_engine import YunetEngine, embedder, engine
from edge_agent.matching.face_sface import Sface
from edge_agent.matching.face_yunet import Yunet
from edge_agent.matching.models import model_path
from edge_agent.matching.outcomes import PadState, Refused, SampleFault
from edge_agent.matching.pad import PadResult
from edge_agent.matching.quality import Face
from templates_store.gallery.vectors import VectorGallery
from templates_store.gallery.vectors_basis import Metric
from templates_store.template import SubjectId, TemplateId
from tests.shared_data import shared

Frame = NDArray[np.uint8]


@pytest.fixture(scope="module")
def sface() -> YunetEngine:
    return engine()


def photograph(person: str, number: int) -> Frame:
    path: Path = shared("faces", "lfw", person, f"{person}_{number:04d}.jpg")
    return np.asarray(cv2.imread(str(path)), np.uint8)


def vector(sample: FaceSample | Refused) -> NDArray[np.float32]:
    assert isinstance(sample, FaceSample), sample
    return sample.vector


def opencv_detector() -> Any:
    return cv2.FaceDetectorYN.create(str(model_path(*face_yunet.MODEL)), "", (250, 250), 0.6, 0.3, 50)


@pytest.mark.parametrize("size", [(250, 250), (200, 150), (128, 128)])
def test_faces_are_those_of_opencvs_decoder(size: tuple[int, int]) -> None:
    image = np.asarray(cv2.resize(photograph("Andre_Agassi", 1), size), np.uint8)
    detector = opencv_detector()
    detector.setInputSize(size)
    assert Yunet()._run(image) == pytest.approx(detector.detect(image)[1], abs=1e-2)


def test_crop_and_vector_are_those_of_opencv() -> None:
    image = photograph("Andre_Agassi", 1)
    opencv = cv2.FaceRecognizerSF.create(str(model_path(*face_sface.MODEL)), "")
    row = opencv_detector().detect(image)[1][0]
    crop = np.asarray(opencv.alignCrop(image, row), np.uint8)
    own = aligned(image, row[4:14].reshape(5, 2))
    assert np.abs(own.astype(int) - crop).max() <= 4  # pixels are weighed in steps of a 32nd
    expected = face_sface.unit(opencv.feature(crop))
    assert face_sface.Sface().embed(image, Face((0, 0, 1, 1), row, 1.0), crop, mirrored=False) == pytest.approx(
        expected, abs=1e-5
    )


def test_several_crops_at_once_give_what_each_gives_alone() -> None:
    crops = [np.asarray(cv2.resize(photograph("Andre_Agassi", n), (112, 112)), np.uint8) for n in (1, 2)]
    sface = face_sface.Sface()
    alone = np.concatenate([sface.raw(crop) for crop in crops])
    assert sface.raw(*crops) == pytest.approx(alone, rel=1e-4, abs=1e-4)


def test_every_engine_of_a_process_shares_one_network() -> None:
    assert face_sface.Sface()._session is face_sface.Sface()._session


@pytest.mark.parametrize("shape", [(480, 640), (8, 8), (1, 1), (1, 900), (2000, 30)])
def test_an_empty_scene_has_no_face(sface: YunetEngine, shape: tuple[int, int]) -> None:
    frame = np.full((*shape, 3), 127, np.uint8)
    assert sface.detect(frame) == []
    assert sface.sample(frame) == Refused(SampleFault.NO_FACE)


@pytest.mark.parametrize(
    "frame", [np.zeros((10, 10), np.uint8), np.zeros((10, 10, 4), np.uint8), np.zeros((10, 10, 3)), np.zeros((0, 9, 3))]
)
def test_what_is_no_frame_is_our_own_mistake(sface: YunetEngine, frame: Frame) -> None:
    with pytest.raises(ValueError, match="a frame is"):
        sface.sample(frame)


def test_noise_has_no_face(sface: YunetEngine) -> None:
    frame = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    assert isinstance(sface.sample(frame), Refused)


def test_there_is_no_other_engine() -> None:
    with pytest.raises(ValueError, match="sface and dlib"):
        engine("guess")


def test_every_engine_has_a_shipped_curve() -> None:
    for pipeline in (Sface.format.pipeline, "dlib-5-point+resnet-v1/1"):
        assert shipped_calibration(pipeline).comparisons > 10_000


def test_two_photographs_of_one_person_are_more_alike_than_of_two(sface: YunetEngine) -> None:
    one, again = sface.sample(photograph("Andre_Agassi", 1)), sface.sample(photograph("Andre_Agassi", 2))
    other = sface.sample(photograph("Adrien_Brody", 2))
    limits = Thresholds.of(shipped_calibration(sface.format.pipeline), Targets(), gallery_size=1000)
    assert float(vector(one) @ vector(again)) > limits.identify
    assert float(vector(one) @ vector(other)) < limits.verify


def test_the_same_frame_gives_the_same_unit_vector_in_any_thread(sface: YunetEngine) -> None:
    frame = photograph("Andre_Agassi", 1)
    expected = vector(sface.sample(frame))
    assert np.linalg.norm(expected) == pytest.approx(1.0, abs=1e-6)
    found: list[NDArray[np.float32]] = []
    threads = [threading.Thread(target=lambda: found.append(vector(sface.sample(frame)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert all((other == expected).all() for other in found)


def test_a_face_is_found_alike_in_a_larger_frame(sface: YunetEngine) -> None:
    small = photograph("Andre_Agassi", 1)
    large = np.full((720, 1280, 3), 90, np.uint8)
    large[200:450, 500:750] = small
    assert float(vector(sface.sample(small)) @ vector(sface.sample(large))) > 0.95


@pytest.mark.parametrize("degrees", [-30.0, 25.0])
def test_a_leaning_head_is_measured_upright(sface: YunetEngine, degrees: float) -> None:
    frame = photograph("Andre_Agassi", 1)
    turn = cv2.getRotationMatrix2D((125.0, 125.0), degrees, 1.0)
    leaning = np.asarray(cv2.warpAffine(frame, turn, (250, 250), borderMode=cv2.BORDER_REPLICATE), np.uint8)
    sample = sface.sample(leaning)
    assert float(vector(sample) @ vector(sface.sample(frame))) > 0.8
    assert isinstance(sample, FaceSample)
    assert sample.quality.roll_deg == pytest.approx(-degrees, abs=10.0)


def test_a_spoilt_photograph_is_refused(sface: YunetEngine) -> None:
    frame = photograph("Andre_Agassi", 1)
    blurred = np.asarray(cv2.GaussianBlur(frame, (0, 0), 6.0), np.uint8)
    dark = (frame * 0.1).astype(np.uint8)
    faults = [sample.fault for sample in map(sface.sample, (blurred, dark)) if isinstance(sample, Refused)]
    assert faults == [SampleFault.BLURRED, SampleFault.TOO_DARK]


def test_two_people_side_by_side_are_refused(sface: YunetEngine) -> None:
    pair = np.concatenate([photograph("Andre_Agassi", 1), photograph("Adrien_Brody", 2)], axis=1)
    refused = sface.sample(pair)
    assert isinstance(refused, Refused)
    assert refused.fault is SampleFault.MORE_THAN_ONE_FACE


def test_a_passive_score_is_carried_and_stays_advisory() -> None:
    class Always:
        def judge(self, frame: Frame, landmarks: NDArray[np.float32]) -> PadResult:
            return PadResult(PadState.PASSIVE, 0.4)

    sample = YunetEngine(embedder("sface"), passive=Always()).sample(photograph("Andre_Agassi", 1))
    assert isinstance(sample, FaceSample)
    assert sample.pad == PadResult(PadState.PASSIVE, 0.4)


def test_nothing_biometric_is_in_a_repr(sface: YunetEngine) -> None:
    sample = sface.sample(photograph("Andre_Agassi", 1))
    assert "array" not in repr(sample)
    assert "landmarks" not in repr(sample)


def test_dlib_tells_people_apart() -> None:
    dlib_engine = engine("dlib")
    one, again = (vector(dlib_engine.sample(photograph("Andre_Agassi", n))) for n in (1, 2))
    other = vector(dlib_engine.sample(photograph("Adrien_Brody", 2)))
    assert one.shape == (128,)
    assert similarity(Metric.EUCLIDEAN, one, again) > similarity(Metric.EUCLIDEAN, one, other) + 0.1


def basis_vector(*values: float) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


def test_samples_that_agree_become_their_mean() -> None:
    merged = agreed([basis_vector(1, 0), basis_vector(0.8, 0.6)], metric=Metric.COSINE, threshold=0.5)
    assert not isinstance(merged, Refused)
    assert merged == pytest.approx(np.array([0.9487, 0.3162]), abs=1e-3)


def test_samples_of_two_people_are_refused() -> None:
    refused = agreed(
        [basis_vector(1, 0), basis_vector(0.9, 0.43), basis_vector(0, 1)], metric=Metric.COSINE, threshold=0.5
    )
    assert isinstance(refused, Refused)
    assert refused.fault is SampleFault.SAMPLES_DISAGREE


def test_somebody_enrolled_already_is_found_under_the_other_name_only() -> None:
    gallery = VectorGallery(2)
    gallery.add(SubjectId("a"), TemplateId("a"), basis_vector(1, 0))
    probe = basis_vector(0.99, 0.1)
    found = somebody_else(gallery, probe, subject_id=SubjectId("b"), threshold=0.5)
    assert found is not None
    assert found.subject_id == "a"
    assert somebody_else(gallery, probe, subject_id=SubjectId("a"), threshold=0.5) is None
    assert somebody_else(gallery, basis_vector(0, 1), subject_id=SubjectId("b"), threshold=0.5) is None
