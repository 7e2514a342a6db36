"""From candidates to a decision: thresholds out of a target error rate, and a margin to the second person.

A fixed threshold fails as the gallery grows: at SFace's customary 0.363 every second unknown person
matches somebody among a thousand. So a site says which FPIR it accepts, and the threshold follows from
the impostor curve and the number of templates an unknown person is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.matching.calibration import Calibration
from edge_agent.matching.outcomes import Match, NoMatch, NoMatchReason, Outcome, PadState
from templates_store.template import Candidate, SubjectId


@dataclass(frozen=True, slots=True)
class Targets:
    """What a site accepts: the share of unknown people taken for somebody (1:N), and of impostors let by (1:1)."""

    fpir: float = 0.01
    verify_fmr: float = 1e-4
    margin: float = 0.03  # the best person must lead the second by this much

    def __post_init__(self) -> None:
        if not (0.0 < self.fpir < 1.0 and 0.0 < self.verify_fmr < 1.0 and 0.0 <= self.margin < 1.0):
            raise ValueError("error rates lie between 0 and 1, a margin from 0 to below 1")


@dataclass(frozen=True, slots=True)
class Thresholds:
    identify: float
    verify: float
    margin: float

    @classmethod
    def of(cls, calibration: Calibration, targets: Targets, *, gallery_size: int) -> Thresholds:
        """`gallery_size` counts templates: each is one more chance for a stranger."""
        comparisons = max(1, gallery_size)
        single = -math.expm1(math.log1p(-targets.fpir) / comparisons)  # 1 - (1 - fpir) ** (1 / comparisons)
        return cls(
            identify=calibration.threshold(single),
            verify=calibration.threshold(targets.verify_fmr),
            margin=targets.margin,
        )


def identify(
    candidates: Sequence[Candidate],
    *,
    gallery_size: int,
    thresholds: Thresholds,
    pad: PadState = PadState.NONE,
) -> Outcome:
    """Decide on the best subjects of a search, best first.

    A subject that a search left out counts as below the threshold, or further behind than the margin.
    """
    if gallery_size == 0:
        return NoMatch(NoMatchReason.EMPTY_GALLERY, pad=pad)
    if not candidates:
        return NoMatch(NoMatchReason.BELOW_THRESHOLD, pad=pad)
    best = candidates[0]
    if not best.score >= thresholds.identify:  # a NaN is no match
        return NoMatch(NoMatchReason.BELOW_THRESHOLD, best.score, pad=pad)
    margin = best.score - candidates[1].score if len(candidates) > 1 else None
    if margin is not None and margin < thresholds.margin:
        return NoMatch(NoMatchReason.AMBIGUOUS, best.score, pad=pad)
    return Match(best.subject_id, best.score, margin, pad)


def verify(
    subject_id: SubjectId, scores: Sequence[float], *, thresholds: Thresholds, pad: PadState = PadState.NONE
) -> Outcome:
    """1:1: is the sample the claimed subject's? `scores` are those of the subject's templates."""
    if not scores:
        return NoMatch(NoMatchReason.EMPTY_GALLERY, pad=pad)
    best = max(scores)
    if not best >= thresholds.verify:
        return NoMatch(NoMatchReason.BELOW_THRESHOLD, best, pad=pad)
    return Match(subject_id, best, None, pad)
