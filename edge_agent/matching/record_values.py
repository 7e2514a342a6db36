"""What a finger minutiae record says, whichever standard wrote it.

Numbers stay as the record says them (angles in its own unit, pixels, pixels per centimetre), so that what is
decoded encodes to the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from templates_store.errors import BadTemplate

RIDGE_COUNTS = 1  # extension type, all five


class BadRecord(BadTemplate):
    """Not a minutiae record, or one that contradicts itself or ends early."""


class RecordFormat(StrEnum):
    ISO_2005 = "iso-19794-2-2005"
    ISO_2011 = "iso-19794-2-2011"
    ANSI_2004 = "ansi-378-2004"
    ANSI_2009 = "ansi-378-2009"
    ANSI_2009_AM1 = "ansi-378-2009-am1"

    @property
    def degrees_per_step(self) -> float:
        """Unit of a minutia's angle."""
        return 2.0 if self.value.startswith("ansi") else 360.0 / 256.0


@dataclass(frozen=True, slots=True)
class Minutia:
    kind: int  # MinutiaKind; 3 is reserved and kept
    x: int  # pixels from the left
    y: int  # pixels from the top
    angle: int  # counter-clockwise, in the format's unit
    quality: int


@dataclass(frozen=True, slots=True)
class RidgeCount:
    """Ridges crossed between two minutiae, numbered as in the view."""

    first: int
    second: int
    count: int


@dataclass(frozen=True, slots=True)
class Extension:
    """One extended data area, kept as it came."""

    type: int
    data: bytes = field(repr=False)

    def ridge_counts(self) -> list[RidgeCount]:
        """Edges of a ridge count area after its method byte; a rest shorter than an edge is padding."""
        if self.type != RIDGE_COUNTS:
            return []
        body = self.data[1:]
        return [RidgeCount(*body[at : at + 3]) for at in range(0, len(body) - 2, 3)]


@dataclass(frozen=True, slots=True)
class QualityBlock:
    score: int
    vendor: int
    algorithm: int


@dataclass(frozen=True, slots=True)
class Capture:
    """How one ISO 2011 representation was taken."""

    taken: tuple[int, int, int, int, int, int, int]  # year month day hour minute second millisecond, as stated
    sensor_type: int
    sensor_vendor: int
    sensor_id: int
    certificates: tuple[tuple[int, int], ...] = ()  # authority, scheme


@dataclass(frozen=True, slots=True)
class FingerView:
    """One impression of one finger."""

    position: int  # 0 unknown, 1..5 right thumb to little, 6..10 left
    view: int
    impression: int
    width: int
    height: int
    x_resolution: int  # px/cm
    y_resolution: int
    minutiae: tuple[Minutia, ...] = field(repr=False)
    qualities: tuple[QualityBlock, ...] = ()  # one, with vendor 0, where the format has but a byte
    extensions: tuple[Extension, ...] = ()
    capture: Capture | None = None  # ISO 2011 only
    ending_type: int = 0  # ISO 2011 only: what a ridge ending's point means
    minutia_bytes: int = 6  # ISO 2011 only: 5 leaves out the quality


@dataclass(frozen=True, slots=True)
class MinutiaeRecord:
    format: RecordFormat
    views: tuple[FingerView, ...]
    vendor: int = 0  # ANSI: CBEFF product identifier
    subformat: int = 0
    certification: int = 0  # as the format states it: four bits, a byte or a flag
    sensor: int = 0
