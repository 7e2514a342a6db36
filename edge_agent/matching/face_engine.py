"""The engine a site configures: one way from a frame to a sample, with the embedding of its choice.

Faces are found, chosen, aligned and judged alike for every embedding, so that a gate means the same at every site.
"""

from __future__ import annotations

from edge_agent.matching.face import Embedder, FaceSample, Frame, checked
from edge_agent.matching.face_alignment import aligned
from edge_agent.matching.face_sface import Sface
from edge_agent.matching.face_yunet import Yunet
from edge_agent.matching.outcomes import Refused, first_failed
from edge_agent.matching.pad import PadResult, PassivePad
from edge_agent.matching.quality import ENROLMENT, PROBE, Face, Gates, checks, choose, measure

ENGINES = ("sface", "dlib")


class YunetEngine:
    """A FaceEngine: YuNet's faces with an embedding."""

    def __init__(
        self,
        embedder: Embedder,
        *,
        probe_gates: Gates = PROBE,
        enrolment_gates: Gates = ENROLMENT,
        passive: PassivePad | None = None,
    ) -> None:
        self.format = embedder.format
        self.metric = embedder.metric
        self._detector = Yunet()
        self._embedder = embedder
        self._probe_gates = probe_gates
        self._enrolment_gates = enrolment_gates
        self._passive = passive

    def detect(self, frame: Frame) -> list[Face]:
        return self._detector.detect(frame)

    def sample(self, frame: Frame) -> FaceSample | Refused:
        return self._sample(frame, self._probe_gates, mirrored=False)

    def reference(self, frame: Frame) -> FaceSample | Refused:
        return self._sample(frame, self._enrolment_gates, mirrored=True)

    def _sample(self, frame: Frame, gates: Gates, *, mirrored: bool) -> FaceSample | Refused:
        frame = checked(frame)
        chosen = choose(self._detector.detect(frame), gates, size=(frame.shape[1], frame.shape[0]))
        if isinstance(chosen, Refused):
            return chosen
        face = self._detector.refine(frame, chosen)
        crop = aligned(frame, face.landmarks)
        quality = measure(face, crop)
        made = checks(quality, gates)
        refused = first_failed(made)
        if refused is not None:
            return refused
        pad = self._passive.judge(frame, face.landmarks) if self._passive is not None else PadResult()
        vector = self._embedder.embed(frame, face, crop, mirrored=mirrored)
        return FaceSample(vector=vector, quality=quality, face=face, pad=pad, checks=tuple(made))


def embedder(name: str) -> Embedder:
    """The embedding of this name, sface or dlib. Raises ValueError, or ModelError if its files are absent."""
    if name == "sface":
        return Sface()
    if name == "dlib":
        from edge_agent.matching.face_dlib import DlibResnet  # loads 20 MB of native code only where it is chosen

        return DlibResnet()
    raise ValueError(f"no face engine {name!r}; there are {' and '.join(ENGINES)}")


def engine(name: str = "sface") -> YunetEngine:
    """As `embedder`, with the gates and the detection of every engine."""
    return YunetEngine(embedder(name))
