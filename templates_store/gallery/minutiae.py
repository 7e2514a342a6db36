"""1:1 comparison and 1:N search over fingerprints."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from templates_store.errors import Duplicate
from templates_store.gallery.cylinders import Cylinders, cylinders
from templates_store.gallery.finger_template import MinutiaeTemplate
from templates_store.gallery.relaxation import relaxed_score, similarity
from templates_store.template import Candidate, SubjectId, TemplateId


def _hamming(a: Cylinders, b: Cylinders) -> NDArray[np.uint32]:
    words_a, words_b = a.bits.view(np.uint64), b.bits.view(np.uint64)
    different = np.bitwise_count(words_a[:, None, :] ^ words_b[None, :, :])
    return np.asarray(different.sum(axis=2), np.uint32)


def compare(a: MinutiaeTemplate, b: MinutiaeTemplate) -> float:
    """Similarity of two impressions in [0, 1]; 0 where one of them has too few minutiae to compare."""
    return _compare(cylinders(a), cylinders(b))


def _compare(a: Cylinders, b: Cylinders) -> float:
    return relaxed_score(similarity(_hamming(a, b), a, b), a, b)


@dataclass(frozen=True, slots=True)
class _Entry:
    subject_id: SubjectId
    code: Cylinders = field(repr=False)


class MinutiaeGallery:
    """Fingers of one pipeline. Readers take a snapshot and are never blocked by a writer."""

    def __init__(self) -> None:
        self._entries: dict[TemplateId, _Entry] = {}  # replaced, never changed
        self._writing = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, subject_id: SubjectId, template_id: TemplateId, template: MinutiaeTemplate) -> None:
        """Raises Duplicate if the template id is there."""
        entry = _Entry(subject_id, cylinders(template))
        with self._writing:
            if template_id in self._entries:
                raise Duplicate(template_id)
            self._entries = {**self._entries, template_id: entry}

    def remove(self, subject_id: SubjectId) -> int:
        """Forget every template of a subject; how many there were."""
        with self._writing:
            kept = {key: entry for key, entry in self._entries.items() if entry.subject_id != subject_id}
            removed = len(self._entries) - len(kept)
            self._entries = kept
        return removed

    def search(self, probe: MinutiaeTemplate, *, k: int) -> list[Candidate]:
        """Best `k` subjects, highest score first; a subject's score is the best of its templates."""
        code = cylinders(probe)
        best: dict[SubjectId, float] = {}
        for entry in self._entries.values():
            score = _compare(code, entry.code)
            best[entry.subject_id] = max(score, best.get(entry.subject_id, 0.0))
        ranked = sorted(best.items(), key=lambda item: (-item[1], item[0]))
        return [Candidate(subject, score) for subject, score in ranked[:k]]
