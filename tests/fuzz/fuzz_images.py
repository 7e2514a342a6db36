"""Any bytes as an uploaded photograph: a bounded frame, or BadImage."""

from __future__ import annotations

import numpy as np

from edge_agent.matching.images import MAX_SIDE, BadImage, decode_image


def one_input(data: bytes) -> None:
    try:
        frame = decode_image(data)
    except BadImage:
        return
    assert frame.dtype == np.uint8
    assert frame.ndim == 3
    assert frame.shape[2] == 3
    assert max(frame.shape[:2]) <= MAX_SIDE
