"""What comparing and judging a sample can end in. A "no" is a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from templates_store.template import SubjectId


class PadState(StrEnum):
    """Presentation attack detection behind a decision; recorded on every event."""

    NONE = "none"
    PASSIVE = "passive"  # advisory score only
    ACTIVE = "active"  # a challenge was passed
    TERMINAL = "terminal"  # the terminal vouches for it


class SampleFault(StrEnum):
    """Why a sample cannot be used; each is something the person can act on."""

    NO_FACE = "no_face"
    MORE_THAN_ONE_FACE = "more_than_one_face"
    TOO_SMALL = "too_small"
    TOO_DARK = "too_dark"
    TOO_BRIGHT = "too_bright"
    BLURRED = "blurred"
    LOOK_AT_CAMERA = "look_at_camera"
    COVERED = "covered"
    TOO_FEW_MINUTIAE = "too_few_minutiae"
    FINGER_TOO_DRY = "finger_too_dry"
    FINGER_TOO_WET = "finger_too_wet"
    SMALL_AREA = "small_area"
    SAMPLES_DISAGREE = "samples_disagree"
    CHALLENGE_FAILED = "challenge_failed"
    BAD_IMAGE = "bad_image"


class CheckName(StrEnum):
    """What is measured on a sample."""

    FACES = "faces"  # how many are in the way of each other
    SIZE = "size"  # pixels between the eyes
    BRIGHTNESS = "brightness"  # median luma, 0..255
    GLARE = "glare"  # share of white pixels
    SHARPNESS = "sharpness"
    YAW = "yaw"
    PITCH = "pitch"
    ROLL = "roll"  # degrees
    MOUTH = "mouth"  # relief where the mouth is
    DETECTOR = "detector"  # how sure it is that this is a face
    AREA = "area"  # px at 500 dpi covered by a finger
    TONE = "tone"  # 0 wet, 1 dry
    MINUTIAE = "minutiae"
    PRINT = "print"  # quality of the whole, 0..100
    AGREEMENT = "agreement"  # with the samples before it


FAULTS = {  # below the low limit, above the high one
    CheckName.FACES: (SampleFault.NO_FACE, SampleFault.MORE_THAN_ONE_FACE),
    CheckName.SIZE: (SampleFault.TOO_SMALL, SampleFault.TOO_SMALL),
    CheckName.BRIGHTNESS: (SampleFault.TOO_DARK, SampleFault.TOO_BRIGHT),
    CheckName.GLARE: (SampleFault.TOO_BRIGHT, SampleFault.TOO_BRIGHT),
    CheckName.SHARPNESS: (SampleFault.BLURRED, SampleFault.BLURRED),
    CheckName.YAW: (SampleFault.LOOK_AT_CAMERA, SampleFault.LOOK_AT_CAMERA),
    CheckName.PITCH: (SampleFault.LOOK_AT_CAMERA, SampleFault.LOOK_AT_CAMERA),
    CheckName.ROLL: (SampleFault.LOOK_AT_CAMERA, SampleFault.LOOK_AT_CAMERA),
    CheckName.MOUTH: (SampleFault.COVERED, SampleFault.COVERED),
    CheckName.DETECTOR: (SampleFault.COVERED, SampleFault.COVERED),
    CheckName.AREA: (SampleFault.SMALL_AREA, SampleFault.SMALL_AREA),
    CheckName.TONE: (SampleFault.FINGER_TOO_WET, SampleFault.FINGER_TOO_DRY),
    CheckName.MINUTIAE: (SampleFault.TOO_FEW_MINUTIAE, SampleFault.TOO_FEW_MINUTIAE),
    CheckName.PRINT: (SampleFault.TOO_FEW_MINUTIAE, SampleFault.TOO_FEW_MINUTIAE),
    CheckName.AGREEMENT: (SampleFault.SAMPLES_DISAGREE, SampleFault.SAMPLES_DISAGREE),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One figure of a sample beside its limits; at least one of them is set."""

    name: CheckName
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def too_low(self) -> bool:
        return self.low is not None and self.value < self.low

    @property
    def ok(self) -> bool:
        return not self.too_low and not (self.high is not None and self.value > self.high)

    def refused(self, checks: Sequence[Check]) -> Refused:
        """For this check that failed, with all that were made."""
        below, above = FAULTS[self.name]
        fault, limit = (below, self.low) if self.too_low else (above, self.high)
        return Refused(fault, self.value, limit, tuple(checks))


def first_failed(checks: Sequence[Check]) -> Refused | None:
    return next((check.refused(checks) for check in checks if not check.ok), None)


@dataclass(frozen=True, slots=True)
class Refused:
    """A sample not good enough to compare, and all that was measured on it: figures alone."""

    fault: SampleFault
    measured: float | None = None
    required: float | None = None
    checks: tuple[Check, ...] = field(default=(), compare=False)


class NoMatchReason(StrEnum):
    BELOW_THRESHOLD = "below_threshold"
    AMBIGUOUS = "ambiguous"  # the second person is too close
    EMPTY_GALLERY = "empty_gallery"
    SEALED = "sealed"
    NOT_ALLOWED = "not_allowed"  # a switch, the terms or a consent ended while the sensor was open
    SAMPLE = "sample"


@dataclass(frozen=True, slots=True)
class Match:
    subject_id: SubjectId
    score: float
    margin: float | None  # to the second person; None if there is no second
    pad: PadState = PadState.NONE


@dataclass(frozen=True, slots=True)
class NoMatch:
    reason: NoMatchReason
    best_score: float | None = None
    fault: SampleFault | None = None
    pad: PadState = PadState.NONE


Outcome = Match | NoMatch
