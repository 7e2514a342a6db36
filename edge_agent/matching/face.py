"""What a face engine gives and what every engine offers: detect -> choose -> align -> quality -> PAD -> embed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.matching.outcomes import Check, Refused
from edge_agent.matching.pad import PadResult
from edge_agent.matching.quality import Face, FaceQuality
from templates_store.gallery.vectors_basis import Metric
from templates_store.template import TemplateFormat

Frame = NDArray[np.uint8]  # (height, width, 3), BGR
Vector = NDArray[np.float32]  # (D,)


@dataclass(frozen=True, slots=True)
class FaceSample:
    """A face fit to compare. The vector is biometric: it stays out of repr and logs."""

    vector: Vector = field(repr=False)
    quality: FaceQuality
    face: Face = field(repr=False)
    pad: PadResult = field(default_factory=PadResult)
    checks: tuple[Check, ...] = ()


class FaceEngine(Protocol):
    """What every engine offers. Calls block; run them off the event loop. Several threads may call at once and run
    side by side: that is how frames that wait together are served.
    """

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


class Embedder(Protocol):
    """The part in which engines differ: a found face -> the vector its templates hold."""

    format: TemplateFormat
    metric: Metric

    def embed(self, frame: Frame, face: Face, crop: Frame, *, mirrored: bool) -> Vector:
        """`crop` is the face aligned to 112 x 112; `mirrored`: averaged with the mirror image's vector."""
        ...


def checked(frame: Frame) -> Frame:
    """Raises ValueError unless `frame` is (height, width, 3) of uint8."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or min(frame.shape[:2]) < 1:
        raise ValueError("a frame is an array (height, width, 3) of uint8, BGR")
    return np.ascontiguousarray(frame)
