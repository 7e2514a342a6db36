"""What comparing and judging a sample can end in. A "no" is a value."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Refused:
    """A sample not good enough to compare."""

    fault: SampleFault
    measured: float | None = None
    required: float | None = None


class NoMatchReason(StrEnum):
    BELOW_THRESHOLD = "below_threshold"
    AMBIGUOUS = "ambiguous"  # the second person is too close
    EMPTY_GALLERY = "empty_gallery"
    SEALED = "sealed"
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
