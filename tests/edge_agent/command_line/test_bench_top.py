from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from edge_agent.command_line.bench_top import enrol_folder, identify_image
from edge_agent.matching.calibration import Calibration
from edge_agent.matching.face import FaceSample, Frame
from edge_agent.matching.images import BadImage
from edge_agent.matching.outcomes import Match, NoMatch, NoMatchReason, Refused, SampleFault
from edge_agent.matching.quality import Face, FaceQuality
from templates_store.gallery.vectors import VectorGallery
from templates_store.gallery.vectors_basis import Metric
from templates_store.template import SubjectId, TemplateFormat

CURVE = Calibration("colour/1", ((1e-1, 0.5), (1e-3, 0.8), (1e-5, 0.9)), 10**6, "a test")
QUALITY = FaceQuality(40, 130, 0, 0, 5, 0, 0.5, 0, 0.9, 1)


class ColourEngine:
    """Takes the mean colour of a picture for a face: enough to tell who was enrolled. Black has no face."""

    format = TemplateFormat("colour/1", 3)
    metric = Metric.COSINE

    def detect(self, frame: Frame) -> list[Face]:
        return [Face((0, 0, 10, 10), np.zeros((5, 2), np.float32), 0.9)] if frame.any() else []

    def sample(self, frame: Frame) -> FaceSample | Refused:
        if not frame.any():
            return Refused(SampleFault.NO_FACE)
        colour = frame.reshape(-1, 3).mean(axis=0)
        vector = (colour / np.linalg.norm(colour)).astype(np.float32)
        return FaceSample(vector, QUALITY, self.detect(frame)[0])

    reference = sample


def save(path: Path, colour: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((32, 32, 3), colour, np.uint8))


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=160)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_folder_is_enrolled_and_who_was_refused_is_reported(tmp_path: Path, console: Console) -> None:
    save(tmp_path / "Ann" / "1.png", (250, 10, 10))
    save(tmp_path / "Ann" / "2.png", (240, 20, 10))
    save(tmp_path / "Bob" / "1.png", (10, 250, 10))
    save(tmp_path / "Mixed" / "1.png", (10, 10, 250))
    save(tmp_path / "Mixed" / "2.png", (10, 250, 10))
    save(tmp_path / "Nobody" / "1.png", (0, 0, 0))
    save(tmp_path / "Robert" / "1.png", (12, 249, 12))
    (tmp_path / "Nobody" / "2.jpg").write_bytes(b"no image")
    (tmp_path / "Nobody" / "notes.txt").write_text("not looked at")
    gallery, kept = VectorGallery(3), []

    def keep(subject: SubjectId, name: str, reference: NDArray[np.float32]) -> None:
        kept.append((subject, name))

    report = enrol_folder(
        tmp_path, engine=ColourEngine(), gallery=gallery, calibration=CURVE, console=console, keep=keep
    )
    assert report.enrolled == ["Ann", "Bob"]
    assert kept == [("Ann", "Ann"), ("Bob", "Bob")]
    assert {(refusal.where, refusal.code) for refusal in report.refused} == {
        ("Mixed", "samples_disagree"),
        ("Nobody/1.png", "no_face"),
        ("Nobody/2.jpg", "not_an_image"),
        ("Nobody", "no_photograph"),
        ("Robert", "already_enrolled"),
    }
    assert "2 enrolled" in said(console)
    assert "未检测到人脸" in said(console)


def test_enrolling_a_folder_again_replaces(tmp_path: Path, console: Console) -> None:
    save(tmp_path / "Ann" / "1.png", (250, 10, 10))
    gallery = VectorGallery(3)
    for _ in range(2):
        enrol_folder(tmp_path, engine=ColourEngine(), gallery=gallery, calibration=CURVE, console=console)
    assert len(gallery) == 1


def test_what_is_no_folder_is_refused(tmp_path: Path, console: Console) -> None:
    with pytest.raises(NotADirectoryError):
        enrol_folder(
            tmp_path / "none", engine=ColourEngine(), gallery=VectorGallery(3), calibration=CURVE, console=console
        )


def test_a_gallery_of_another_metric_is_refused(tmp_path: Path, console: Console) -> None:
    gallery = VectorGallery(3, metric=Metric.EUCLIDEAN)
    with pytest.raises(ValueError, match="cosine"):
        enrol_folder(tmp_path, engine=ColourEngine(), gallery=gallery, calibration=CURVE, console=console)


def test_an_image_is_identified_by_name(tmp_path: Path, console: Console) -> None:
    save(tmp_path / "people" / "Ann" / "1.png", (250, 10, 10))
    save(tmp_path / "people" / "Bob" / "1.png", (10, 250, 10))
    gallery, engine = VectorGallery(3), ColourEngine()
    enrol_folder(tmp_path / "people", engine=engine, gallery=gallery, calibration=CURVE, console=console)
    save(tmp_path / "probe.png", (245, 12, 9))
    outcome = identify_image(
        tmp_path / "probe.png",
        engine=engine,
        gallery=gallery,
        calibration=CURVE,
        console=console,
        names={SubjectId("Ann"): "Ann [Lee]"},
    )
    assert isinstance(outcome, Match)
    assert outcome.subject_id == "Ann"
    assert "Ann [Lee]" in said(console)


def test_a_stranger_a_black_picture_and_a_broken_file_are_told_apart(tmp_path: Path, console: Console) -> None:
    gallery, engine = VectorGallery(3), ColourEngine()
    save(tmp_path / "probe.png", (10, 10, 250))
    save(tmp_path / "black.png", (0, 0, 0))
    (tmp_path / "broken.png").write_bytes(b"x")

    def outcome(name: str) -> object:
        return identify_image(tmp_path / name, engine=engine, gallery=gallery, calibration=CURVE, console=console)

    assert outcome("probe.png") == NoMatch(NoMatchReason.EMPTY_GALLERY)
    assert outcome("black.png") == NoMatch(NoMatchReason.SAMPLE, fault=SampleFault.NO_FACE)
    with pytest.raises(BadImage):
        outcome("broken.png")
    save(tmp_path / "people" / "Ann" / "1.png", (250, 10, 10))
    enrol_folder(tmp_path / "people", engine=engine, gallery=gallery, calibration=CURVE, console=console)
    stranger = outcome("probe.png")
    assert isinstance(stranger, NoMatch)
    assert stranger.reason is NoMatchReason.BELOW_THRESHOLD
