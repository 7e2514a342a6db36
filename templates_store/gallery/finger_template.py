"""A fingerprint as its minutiae: the value both sides of a comparison are made from, and its stored bytes.

Coordinates are pixels at 500 dpi with x to the right and y up, angles counter-clockwise in radians, whatever
the extractor or record format said before: a mirrored y turns every rotation backwards and costs a factor of
ten in error rate, so the conversion happens once, where minutiae enter.

Cylinders are not stored. They follow from the minutiae, which are an eighth of the size, and a new version of
the cylinder code then needs no new enrolment.

    payload  version u8 = 1 | count u8 | count x (x i16, y i16 in quarter pixels, angle u16 in 1/65536 turn,
             quality u8 in 1/255, kind u8), little-endian, ordered as extracted
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from templates_store.errors import BadTemplate

MAX_MINUTIAE = 255  # what one record of any standard can carry for a finger
VERSION = 1
QUARTER = 4.0
TURN = 65536
MAX_COORDINATE = 8000.0  # px, 40 cm at 500 dpi: beyond it nothing is a finger
RECORD = np.dtype([("x", "<i2"), ("y", "<i2"), ("angle", "<u2"), ("quality", "u1"), ("kind", "u1")])


class MinutiaKind(IntEnum):
    """ISO/IEC 19794-2 minutia type."""

    OTHER = 0
    ENDING = 1
    BIFURCATION = 2


@dataclass(frozen=True, slots=True, eq=False)
class MinutiaeTemplate:
    """Minutiae of one impression; arrays of equal length n, made read-only here.

    `xy` has shape (n, 2), pixels at 500 dpi, y up; `angle` radians counter-clockwise; `quality` in [0, 1].
    Raises BadTemplate on shapes, sizes or values that cannot be compared.
    """

    xy: NDArray[np.float32] = field(repr=False)
    angle: NDArray[np.float32] = field(repr=False)
    quality: NDArray[np.float32] = field(repr=False)
    kind: NDArray[np.uint8] = field(repr=False)

    def __post_init__(self) -> None:
        count = len(self.angle)
        shapes = (self.xy.shape, self.angle.shape, self.quality.shape, self.kind.shape)
        if shapes != ((count, 2), (count,), (count,), (count,)):
            raise BadTemplate("minutiae arrays differ in length")
        if count > MAX_MINUTIAE:
            raise BadTemplate(f"{count} minutiae; at most {MAX_MINUTIAE} are kept")
        if not (np.isfinite(self.xy).all() and np.isfinite(self.angle).all() and np.isfinite(self.quality).all()):
            raise BadTemplate("minutiae that are not numbers")
        if count and float(np.abs(self.xy).max()) > MAX_COORDINATE:
            raise BadTemplate("minutiae farther apart than a finger is long")
        for array in (self.xy, self.angle, self.quality, self.kind):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.angle)

    def encode(self) -> bytes:
        """The stored payload. A decoded payload encodes to the same bytes."""
        rows = np.zeros(len(self), RECORD)
        rows["x"], rows["y"] = np.rint(self.xy.T.astype(np.float64) * QUARTER)
        rows["angle"] = np.rint(self.angle.astype(np.float64) / math.tau * TURN).astype(np.int64) % TURN
        rows["quality"] = np.rint(np.clip(self.quality, 0.0, 1.0).astype(np.float64) * 255)
        rows["kind"] = self.kind
        return bytes([VERSION, len(self)]) + rows.tobytes()

    @classmethod
    def decode(cls, payload: bytes) -> MinutiaeTemplate:
        """Raises BadTemplate for anything `encode` cannot have written."""
        if len(payload) < 2 or payload[0] != VERSION:
            raise BadTemplate("no minutiae payload of a known version")
        if len(payload) != 2 + payload[1] * RECORD.itemsize:
            raise BadTemplate("minutiae payload is cut short or too long")
        rows = np.frombuffer(payload, RECORD, offset=2)
        if (rows["kind"] > MinutiaKind.BIFURCATION).any():
            raise BadTemplate("minutia of an unknown kind")
        return cls(
            xy=(np.stack([rows["x"], rows["y"]], axis=1) / QUARTER).astype(np.float32),
            angle=(rows["angle"] * (math.tau / TURN)).astype(np.float32),
            quality=(rows["quality"] / 255).astype(np.float32),
            kind=rows["kind"].copy(),
        )
