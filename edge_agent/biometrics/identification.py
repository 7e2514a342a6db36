"""From a sample to a person: engine, gallery, threshold. Blocks; flows call it in threads.

The threshold of 1:N follows the size of the gallery searched; 1:1 has its own. For a finger its position can be asked
too, because one of a person's fingers may mean duress.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.biometrics.galleries import Galleries, Probe
from edge_agent.matching import decision
from edge_agent.matching.agreement import similarity
from edge_agent.matching.calibration import Calibration
from edge_agent.matching.decision import Targets, Thresholds
from edge_agent.matching.face import FaceEngine, FaceSample
from edge_agent.matching.fingerprint import FingerprintEngine, FingerSample
from edge_agent.matching.outcomes import Match, NoMatch, NoMatchReason, Outcome, PadState, Refused
from templates_store.gallery.minutiae import compare
from templates_store.template import Modality, Purpose, SubjectId, TemplateFormat

Sample = FaceSample | FingerSample


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom to compare with: `claimed` for 1:1, nobody in particular for 1:N."""

    purpose: Purpose
    claimed: SubjectId | None = None


class Identification:
    """Engines that are None are not installed or not wanted here."""

    def __init__(
        self,
        galleries: Galleries,
        *,
        face: FaceEngine | None,
        finger: FingerprintEngine | None,
        calibration: Callable[[str], Calibration],
        targets: Callable[[Modality], Targets],
    ) -> None:
        self.galleries = galleries
        self.face = face
        self.finger = finger
        self._calibration = calibration
        self._targets = targets

    def supports(self, modality: Modality) -> bool:
        return {Modality.FACE: self.face, Modality.FINGERPRINT: self.finger}.get(modality) is not None

    def face_sample(self, frame: NDArray[np.uint8]) -> FaceSample | Refused:
        if self.face is None:
            raise ValueError("no face engine is configured")
        return self.face.sample(frame)

    def finger_sample(self, image: NDArray[np.uint8], *, dpi: float) -> FingerSample | Refused:
        if self.finger is None:
            raise ValueError("no fingerprint engine is configured")
        return self.finger.sample(image, dpi=dpi)

    def decide(self, sample: Sample, whom: Subject, *, pad: PadState = PadState.NONE) -> Outcome:
        """Match or NoMatch. Nothing of the sample is kept."""
        if self.galleries.sealed:
            return NoMatch(NoMatchReason.SEALED, pad=pad)
        modality, kind, probe = self._taken_apart(sample)
        thresholds = self.thresholds_of(sample, whom.purpose)
        if whom.claimed is not None:
            scores = self.galleries.scores(whom.claimed, modality, whom.purpose, kind.pipeline, probe)
            return decision.verify(whom.claimed, [score for _, score in scores], thresholds=thresholds, pad=pad)
        found = self.galleries.leading(
            modality, whom.purpose, kind.pipeline, probe, threshold=thresholds.identify, margin=thresholds.margin
        )
        size = self.galleries.count(modality, whom.purpose, kind.pipeline)
        return decision.identify(found, gallery_size=size, thresholds=thresholds, pad=pad)

    def thresholds_of(self, sample: Sample, purpose: Purpose | None = None) -> Thresholds:
        """For the gallery of this purpose; 1:1 needs none."""
        modality, kind, _ = self._taken_apart(sample)
        size = self.galleries.count(modality, purpose, kind.pipeline)
        return Thresholds.of(self._calibration(kind.pipeline), self._targets(modality), gallery_size=size)

    def similarity(self, one: Sample, other: Sample) -> float:
        """Two samples of one modality, as their gallery would score them."""
        if isinstance(one, FingerSample) and isinstance(other, FingerSample):
            return compare(one.template, other.template)
        if isinstance(one, FaceSample) and isinstance(other, FaceSample) and self.face is not None:
            return similarity(self.face.metric, one.vector, other.vector)
        raise ValueError("samples of two modalities do not compare")

    def is_somebody_else(self, sample: Sample, purpose: Purpose, subject_id: SubjectId) -> bool:
        """Would 1:N take the sample for another person?"""
        modality, kind, probe = self._taken_apart(sample)
        threshold = self.thresholds_of(sample, purpose).identify
        found = self.galleries.search(modality, purpose, kind.pipeline, probe, k=2)
        return any(other.score >= threshold for other in found if other.subject_id != subject_id)

    def _taken_apart(self, sample: Sample) -> tuple[Modality, TemplateFormat, Probe]:
        if isinstance(sample, FingerSample):
            return Modality.FINGERPRINT, sample.format, sample.template
        if self.face is None:
            raise ValueError("no face engine is configured")
        return Modality.FACE, self.face.format, sample.vector

    def position(self, sample: FingerSample, match: Match, purpose: Purpose) -> int:
        """Which of the matched person's fingers it was; 0 if none is stored."""
        scores = self.galleries.scores(
            match.subject_id, Modality.FINGERPRINT, purpose, sample.format.pipeline, sample.template
        )
        return max(scores, key=lambda pair: pair[1], default=(0, 0.0))[0]


def wipe(sample: FaceSample) -> None:
    """Best effort: Python may hold copies that nobody can reach."""
    if sample.vector.flags.writeable:
        sample.vector.fill(0.0)
