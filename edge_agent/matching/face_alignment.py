"""A face brought to where the embedding was trained to see it: eyes and mouth at fixed places of 112 x 112 pixels.

The similarity (turn, scale, shift) is the least-squares fit of five landmarks, in closed form with the plane's points
as complex numbers; it equals OpenCV's `FaceRecognizerSF.alignCrop`.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.matching.face import Frame

SIDE = 112
PLACES = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])


def aligned(frame: Frame, landmarks: NDArray[np.float32]) -> Frame:
    crop = cv2.warpAffine(frame, similarity(landmarks), (SIDE, SIDE), flags=cv2.INTER_LINEAR)
    return np.asarray(crop, np.uint8)


def similarity(landmarks: NDArray[np.float32]) -> NDArray[np.float64]:
    """(2, 3) matrix from the frame's pixels to the crop's."""
    source = landmarks[:, 0].astype(np.float64) + 1j * landmarks[:, 1]
    target = PLACES[:, 0] + 1j * PLACES[:, 1]
    spread = source - source.mean()
    turn = complex(np.vdot(spread, target - target.mean())) / max(float(np.vdot(spread, spread).real), 1e-9)
    shift = complex(target.mean()) - turn * complex(source.mean())
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
