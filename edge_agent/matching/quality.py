"""Is this face good enough to compare? Measured on the face itself, refused with a reason a person can act on.

Order matters: what makes the other measurements meaningless is asked first (no face, several, too small),
then light, then sharpness, then pose and what covers the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.matching.outcomes import Check, CheckName, Refused, SampleFault, first_failed
from edge_agent.matching.pad import yaw_ratio


@dataclass(frozen=True, slots=True)
class Face:
    """One detected face, in pixels of the frame it was found in."""

    box: tuple[float, float, float, float]  # x, y, width, height
    landmarks: NDArray[np.float32]  # (5, 2): right eye, left eye, nose tip, right and left corner of the mouth
    score: float

    @property
    def eye_distance(self) -> float:
        return float(np.linalg.norm(self.landmarks[1] - self.landmarks[0]))


@dataclass(frozen=True, slots=True)
class FaceQuality:
    """What was measured; the unit of each value is the field's comment."""

    eye_distance: float  # pixels of the frame
    brightness: float  # median luma of the aligned face, 0..255
    dark: float  # share of aligned pixels below 30
    bright: float  # share of aligned pixels above 250
    sharpness: float  # see `sharpness`
    yaw: float  # see `yaw_ratio`
    pitch: float  # nose between the lines of eyes and mouth: 0.5 in the middle
    roll_deg: float
    detector: float  # the detector's own score, 0..1
    mouth: float  # vertical contrast where the mouth is, over that where the eyes are; near 0 under a mask


@dataclass(frozen=True, slots=True)
class Gates:
    """Limits a sample must keep. The enrolment set is stricter: a poor reference fails every later probe."""

    eye_distance: float
    brightness: tuple[float, float]
    bright: float
    sharpness: float
    yaw: float
    pitch: tuple[float, float]
    roll_deg: float
    detector: float
    mouth: float
    second_face: float  # a second face as prominent as this share of the first is in the way


# Measured on LFW as it is (1924 photographs) and degraded (80); quantiles 1 % / 50 % / 99 %.
#   eye distance   29 / 44 / 56; a face 32 pixels wide has 14.5
#   brightness     70 / 136 / 193; darkened to 12 %: 9 / 16 / 21; overexposed: 205 / 255 / 255
#   bright         0 / 0 / .03; overexposed .15 / .66 / .89
#   sharpness      2.6 / 5.2 / 9.5; blur sigma 2: 1.4 / 2.2 / 3.6; sigma 4: .9 / 1.5 / 2.4; 24 pixels: 1.7 / 2.9 / 4.3
#   yaw            median .09, 95 % .33, 99 % .48; probes up to .5 and beyond still matched
#   pitch          .45 / .56 / .65
#   detector       .89 / .93 / .95; masked .85 / .90 / .92
#   mouth          .63 / 1.1 / 1.9; under a painted mask 0 / 0 / .09
# The probe's limits lie where photographs as they are hardly ever fall and degraded ones do.
PROBE = Gates(
    eye_distance=14.0,
    brightness=(40.0, 215.0),
    bright=0.25,
    sharpness=1.8,
    yaw=0.6,
    pitch=(0.25, 0.85),
    roll_deg=50.0,
    detector=0.7,
    mouth=0.3,
    second_face=0.8,
)
ENROLMENT = Gates(
    eye_distance=26.0,
    brightness=(60.0, 200.0),
    bright=0.1,
    sharpness=2.8,
    yaw=0.33,
    pitch=(0.4, 0.7),
    roll_deg=25.0,
    detector=0.85,
    mouth=0.45,
    second_face=0.6,
)


def measure(face: Face, aligned: NDArray[np.uint8]) -> FaceQuality:
    """`aligned` is the (112, 112, 3) BGR crop the embedding is made of."""
    luma = np.asarray(cv2.cvtColor(aligned, cv2.COLOR_BGR2GRAY), np.uint8)
    core = luma[24:104, 20:92]  # eyes to mouth: no hair, no background
    right, left, nose, mouth_right, mouth_left = face.landmarks.astype(np.float64)
    eyes, mouth = (right + left) / 2, (mouth_right + mouth_left) / 2
    down = mouth - eyes
    span = max(float(down @ down), 1e-9)
    axis = left - right
    return FaceQuality(
        eye_distance=face.eye_distance,
        brightness=float(np.median(core)),
        dark=float(np.mean(core < 30)),
        bright=float(np.mean(core > 250)),
        sharpness=sharpness(core),
        yaw=yaw_ratio(face.landmarks),
        pitch=float((nose - eyes) @ down) / span,
        roll_deg=float(np.degrees(np.arctan2(axis[1], axis[0]))),
        detector=face.score,
        mouth=_relief(luma[80:108, 40:72]) / (_relief(luma[40:66, 26:86]) + 0.1),
    )


def _relief(luma: NDArray[np.uint8]) -> float:
    """Mean difference from row to row: lips and lids are lines across."""
    return float(np.abs(np.diff(luma.astype(np.float32), axis=0)).mean())


def sharpness(luma: NDArray[np.uint8]) -> float:
    """Mean absolute Laplacian over contrast, in per cent: falls with blur, hardly with light."""
    contrast = float(luma.std())
    if contrast < 1.0:
        return 0.0
    return 100.0 * float(np.abs(cv2.Laplacian(luma, cv2.CV_32F)).mean()) / contrast / 4.0


def checks(quality: FaceQuality, gates: Gates) -> list[Check]:
    """Every figure beside its limits, in the order in which they are asked."""
    return [
        Check(CheckName.FACES, 1, 1, 1),
        Check(CheckName.SIZE, quality.eye_distance, gates.eye_distance),
        Check(CheckName.BRIGHTNESS, quality.brightness, *gates.brightness),
        Check(CheckName.GLARE, quality.bright, high=gates.bright),
        Check(CheckName.SHARPNESS, quality.sharpness, gates.sharpness),
        Check(CheckName.YAW, abs(quality.yaw), high=gates.yaw),
        Check(CheckName.PITCH, quality.pitch, *gates.pitch),
        Check(CheckName.ROLL, abs(quality.roll_deg), high=gates.roll_deg),
        Check(CheckName.MOUTH, quality.mouth, gates.mouth),
        Check(CheckName.DETECTOR, quality.detector, gates.detector),
    ]


def judge(quality: FaceQuality, gates: Gates) -> Refused | None:
    """The first limit not kept, or None."""
    return first_failed(checks(quality, gates))


def choose(faces: list[Face], gates: Gates, *, size: tuple[int, int]) -> Face | Refused:
    """The one face that is meant: wide and central, unless another stands out nearly as much.

    `size` is that of the frame (width, height). A face at the frame's edge counts half: a passer-by behind
    somebody who stands at the door is no reason to refuse.
    """
    if not faces:
        return Refused(SampleFault.NO_FACE, checks=(Check(CheckName.FACES, 0, 1, 1),))
    weighed = sorted(((_prominence(face, size), i) for i, face in enumerate(faces)), reverse=True)
    rivals = sum(weight > gates.second_face * weighed[0][0] for weight, _ in weighed[1:])
    alike = Check(CheckName.FACES, 1 + rivals, 1, 1)
    if not alike.ok:
        return alike.refused([alike])
    return faces[weighed[0][1]]


def _prominence(face: Face, size: tuple[int, int]) -> float:
    x, y, width, height = face.box
    aside = max(abs((x + width / 2) / size[0] - 0.5), abs((y + height / 2) / size[1] - 0.5))
    return width * (1.0 - min(aside, 0.5))
