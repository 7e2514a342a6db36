"""What cameras, light and people do to a face, applied to photographs. Each takes the frame and its landmarks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.matching.face import Frame
from tests.accuracy.faces import Change

Points = NDArray[np.float32]


def _bytes(values: NDArray[np.floating] | cv2.typing.MatLike) -> Frame:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _pixels(width: int) -> Change:
    """A far face: reduced until it is `width` pixels wide (2.2 eye distances), and enlarged again."""

    def change(frame: Frame, points: Points) -> Frame:
        scale = width / (2.2 * float(np.linalg.norm(points[1] - points[0])))
        small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return _bytes(cv2.resize(small, (frame.shape[1], frame.shape[0]), interpolation=cv2.INTER_CUBIC))

    return change


def _blur(sigma: float) -> Change:
    return lambda frame, _: _bytes(cv2.GaussianBlur(frame, (0, 0), sigma))


def _light(gain: float, lift: float, noise: float) -> Change:
    def change(frame: Frame, points: Points) -> Frame:
        rng = np.random.default_rng(int(points.sum()))
        return _bytes(frame * gain + lift + rng.normal(0.0, noise, frame.shape))

    return change


def _jpeg(quality: int) -> Change:
    def change(frame: Frame, _: Points) -> Frame:
        data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)

    return change


def _mask(frame: Frame, points: Points) -> Frame:
    """A surgical mask: everything from the nose down to below the chin, in one pale colour."""
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    down = mouth - eyes
    across = np.array([-down[1], down[0]]) * 0.95
    middle = points[2] * 0.6 + eyes * 0.4
    corners = np.array([middle - across, middle + across, mouth + across * 0.8 + down, mouth - across * 0.8 + down])
    covered = frame.copy()
    cv2.fillConvexPoly(covered, corners.astype(np.int32), (215, 200, 175), cv2.LINE_AA)
    return covered


def _roll(degrees: float) -> Change:
    def change(frame: Frame, points: Points) -> Frame:
        x, y = points.mean(0)
        turn = cv2.getRotationMatrix2D((float(x), float(y)), degrees, 1.0)
        return _bytes(cv2.warpAffine(frame, turn, (frame.shape[1], frame.shape[0]), borderMode=cv2.BORDER_REPLICATE))

    return change


DEGRADATIONS: dict[str, Change] = {
    "48 px": _pixels(48),
    "32 px": _pixels(32),
    "24 px": _pixels(24),
    "blur 2": _blur(2.0),
    "blur 4": _blur(4.0),
    "dark": _light(0.12, 0.0, 3.0),
    "bright": _light(2.0, 60.0, 3.0),
    "JPEG 15": _jpeg(15),
    "mask": _mask,
    "roll 20": _roll(20.0),
    "roll 45": _roll(45.0),
}
