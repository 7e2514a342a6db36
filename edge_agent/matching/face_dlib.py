"""The engine of the `face_recognition` package, for sites that hold such templates: dlib's ResNet, 128 dimensions.

Same models and steps as `face_recognition.face_encodings` with its default five-point landmarks, so that
vectors compare with those a site already has. Distances are Euclidean; the customary 0.6 is far too lax
for identification, which is why thresholds come from the calibration table like everybody else's.

The face is found with YuNet, which sees what the histogram detector misses and gives landmarks of the
mouth for the gates; the histogram detector then looks at that part of the frame alone, since dlib's
landmarks are trained on its boxes. dlib comes without type information: its objects are `Any` here.
"""

from __future__ import annotations

import threading
from typing import Any

import cv2
import dlib
import numpy as np

from edge_agent.matching.face import Frame, Vector
from edge_agent.matching.models import model_path
from edge_agent.matching.quality import Face
from templates_store.gallery.vectors_basis import Metric
from templates_store.template import TemplateFormat

RESNET_SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
LANDMARKS_SHA256 = "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888"
LOOK_AROUND = 0.6  # of the face's size, on each side: the histogram detector wants surroundings
WORKING_FACE = 160.0  # pixels; the histogram detector finds faces from 80 on, the embedding reads 150


class DlibResnet:
    format = TemplateFormat("dlib-5-point+resnet-v1/1", 128)
    metric = Metric.EUCLIDEAN

    def __init__(self) -> None:
        package = "face_recognition_models"
        resnet = model_path(package, "models/dlib_face_recognition_resnet_model_v1.dat", RESNET_SHA256)
        shape = model_path(package, "models/shape_predictor_5_face_landmarks.dat", LANDMARKS_SHA256)
        self._histogram: Any = dlib.get_frontal_face_detector()
        self._shape: Any = dlib.shape_predictor(str(shape))
        self._resnet: Any = dlib.face_recognition_model_v1(str(resnet))
        self._lock = threading.Lock()

    def embed(self, frame: Frame, face: Face, crop: Frame, *, mirrored: bool) -> Vector:
        image, box = _surroundings(frame, face)
        images = [image, np.ascontiguousarray(image[:, ::-1])] if mirrored else [image]
        vectors = []
        for i, rgb in enumerate(images):
            left, right = (box[0], box[2]) if i == 0 else (image.shape[1] - box[2], image.shape[1] - box[0])
            with self._lock:
                place = self._place(rgb, dlib.rectangle(left, box[1], right, box[3]))
                vectors.append(np.array(self._resnet.compute_face_descriptor(rgb, self._shape(rgb, place), 1)))
        return np.asarray(np.mean(vectors, axis=0), np.float32)

    def _place(self, rgb: Frame, expected: Any) -> Any:
        """The histogram detector's box of the face expected there, or that itself."""
        boxes = [box for box in self._histogram(rgb, 0) if not box.intersect(expected).is_empty()]
        return max(boxes, key=lambda box: box.intersect(expected).area(), default=expected)


def _surroundings(frame: Frame, face: Face) -> tuple[Frame, tuple[int, int, int, int]]:
    """RGB cut-out with the face at WORKING_FACE pixels, and the face's box in it (left, top, right, bottom)."""
    x, y, width, height = face.box
    side = max(width, height)
    scale = WORKING_FACE / side
    span = side * (1 + 2 * LOOK_AROUND)
    left, top = x + width / 2 - span / 2, y + height / 2 - span / 2
    window = np.array([[scale, 0.0, -left * scale], [0.0, scale, -top * scale]])
    size = round(span * scale)
    smooth = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
    cut = cv2.warpAffine(frame, window, (size, size), flags=smooth, borderMode=cv2.BORDER_REPLICATE)
    rgb = np.asarray(cv2.cvtColor(cut, cv2.COLOR_BGR2RGB), np.uint8)
    corner = (round((x - left) * scale), round((y - top) * scale))
    return rgb, (corner[0], corner[1], corner[0] + round(width * scale), corner[1] + round(height * scale))
