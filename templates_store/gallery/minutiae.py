"""1:1 comparison and 1:N search over fingerprints.

A search is a funnel whose every stage is one array operation over many candidates: Hamming distances between all
cylinders, relaxation, and for the best few the alignment that gives the final score. Up to EXHAUSTIVE templates
relaxation sees every one; above, a coarse code (every second cell of each cylinder, a quarter of the bits) chooses
RELAXED of them first. Its loss is printed by the benchmark.

Templates rest in immutable segments; a snapshot is a tuple of them. A writer builds the changed segment and
swaps the tuple, so a reader never waits and never sees half a change, and a removed template is in no array
of any later snapshot.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from templates_store.errors import Duplicate
from templates_store.gallery.finger_code import FingerCode, Real, prepare
from templates_store.gallery.finger_segment import AT_ONCE, Segment
from templates_store.gallery.finger_template import MinutiaeTemplate
from templates_store.template import Candidate, SubjectId, TemplateId

SEGMENT = 256  # templates; what one enrolment copies
EXHAUSTIVE = 1500  # templates that relaxation sees without a prefilter
RELAXED = 500  # templates that reach relaxation above that
ALIGNED = 32  # templates that reach alignment, and more where more subjects are asked for


def compare(a: MinutiaeTemplate, b: MinutiaeTemplate) -> float:
    """Similarity of two impressions in [0, 1); 0 where one has too few minutiae to compare."""
    return compare_codes(prepare(a), prepare(b))


def compare_codes(probe: FingerCode, candidate: FingerCode) -> float:
    """`compare` without the preparation, for one probe against several."""
    return float(Segment.of([candidate]).aligned(probe, np.array([0]))[0])


@dataclass(frozen=True, slots=True)
class _Block:
    """A segment with whose templates are in it, row for row."""

    segment: Segment = field(repr=False)
    subjects: tuple[SubjectId, ...]
    ids: tuple[TemplateId, ...]

    @classmethod
    def of(cls, rows: list[tuple[SubjectId, TemplateId, FingerCode]]) -> _Block:
        ordered = sorted(rows, key=lambda row: len(row[2].cylinders))  # neighbours of like size pad each other little
        return cls(
            Segment.of([code for _, _, code in ordered]),
            tuple(subject for subject, _, _ in ordered),
            tuple(template for _, template, _ in ordered),
        )

    def rows(self) -> list[tuple[SubjectId, TemplateId, FingerCode]]:
        return list(zip(self.subjects, self.ids, self.segment.codes, strict=True))


class MinutiaeGallery:
    """Fingers of one pipeline: minutiae of different extractors belong in different galleries.

    Searches run on a snapshot and are never blocked by a writer.
    """

    def __init__(self) -> None:
        self._blocks: tuple[_Block, ...] = ()
        self._ids: set[TemplateId] = set()
        self._writing = threading.Lock()

    def __len__(self) -> int:
        """Templates, not subjects."""
        return sum(len(block.ids) for block in self._blocks)

    def add(self, subject_id: SubjectId, template_id: TemplateId, template: MinutiaeTemplate) -> None:
        """Raises Duplicate if the template id is there."""
        self.add_all([(subject_id, template_id, template)])

    def add_all(self, rows: Iterable[tuple[SubjectId, TemplateId, MinutiaeTemplate]]) -> None:
        """Many at once, all or none. Raises Duplicate."""
        new = [(subject, key, prepare(template)) for subject, key, template in rows]
        with self._writing:
            keys = {key for _, key, _ in new}
            if len(keys) < len(new) or not self._ids.isdisjoint(keys):
                raise Duplicate("a fingerprint template id is already in the gallery")
            blocks = list(self._blocks)
            if blocks and len(blocks[-1].ids) < SEGMENT:
                new = blocks.pop().rows() + new
            blocks += [_Block.of(new[at : at + SEGMENT]) for at in range(0, len(new), SEGMENT)]
            self._blocks = tuple(blocks)
            self._ids |= keys

    def remove(self, subject_id: SubjectId) -> int:
        """Forget every template of a subject; how many there were."""
        with self._writing:
            blocks, removed = [], 0
            for block in self._blocks:
                if subject_id not in block.subjects:
                    blocks.append(block)
                    continue
                kept = [row for row in block.rows() if row[0] != subject_id]
                removed += len(block.ids) - len(kept)
                self._ids.difference_update(
                    key for subject, key in zip(block.subjects, block.ids, strict=True) if subject == subject_id
                )
                if kept:
                    blocks.append(_Block.of(kept))
            self._blocks = tuple(blocks)
        return removed

    def search(self, probe: MinutiaeTemplate, *, k: int) -> list[Candidate]:
        """Best `k` subjects, highest score first; a subject's score is the best of its templates'.

        Subjects with a score of 0 (nothing to compare, or no likeness at all) are left out.
        """
        if k < 1:
            raise ValueError("a search is for at least one subject")
        blocks = self._blocks
        if not blocks:
            return []
        code = prepare(probe)
        best: dict[SubjectId, float] = {}
        for block, rows in _leading(blocks, _relaxed(blocks, code), max(ALIGNED, 4 * k)):
            scores = block.segment.aligned(code, rows)
            for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
                subject = block.subjects[row]
                best[subject] = max(score, best.get(subject, 0.0))
        ranked = sorted(best.items(), key=lambda item: (-item[1], item[0]))
        return [Candidate(subject, score) for subject, score in ranked[:k] if score > 0.0]

    def impostor_scores(self, *, comparisons: int = 20_000, seed: int = 0) -> Real:
        """Scores between different subjects drawn at random, about `comparisons` of them: what calibrates a site.

        Empty with fewer than two subjects. Takes about 0.3 ms a comparison.
        """
        blocks = self._blocks
        total = sum(len(block.ids) for block in blocks)
        rng = np.random.default_rng(seed)
        found: list[Real] = []
        for number in rng.permutation(total)[: max(2, comparisons // AT_ONCE)].tolist():
            probe, owner = _nth(blocks, number)
            block = blocks[int(rng.integers(len(blocks)))]
            others = np.flatnonzero([subject != owner for subject in block.subjects])
            if len(others):
                found.append(block.segment.aligned(probe, rng.permutation(others)[:AT_ONCE]))
        return np.concatenate(found)[:comparisons] if found else np.zeros(0, np.float32)


def _nth(blocks: tuple[_Block, ...], number: int) -> tuple[FingerCode, SubjectId]:
    for block in blocks:
        if number < len(block.ids):
            return block.segment.codes[number], block.subjects[number]
        number -= len(block.ids)
    raise IndexError(number)


def _relaxed(blocks: tuple[_Block, ...], code: FingerCode) -> list[Real]:
    """Relaxed score of every template, by block; 0 where the prefilter left it out."""
    if sum(len(block.ids) for block in blocks) <= EXHAUSTIVE:
        return [block.segment.relaxed(code) for block in blocks]
    coarse = [block.segment.coarse(code) for block in blocks]
    scores = [np.zeros(len(block.ids), np.float32) for block in blocks]
    index = {id(block): number for number, block in enumerate(blocks)}
    for block, rows in _leading(blocks, coarse, RELAXED):
        scores[index[id(block)]][rows] = block.segment.relaxed(code, rows)
    return scores


def _leading(blocks: tuple[_Block, ...], scores: list[Real], count: int) -> list[tuple[_Block, NDArray[np.intp]]]:
    """Rows of the `count` best scores above 0, by block."""
    together = np.concatenate(scores)
    if len(together) > count:
        floor = np.partition(together, len(together) - count)[len(together) - count]
    else:
        floor = np.float32(0.0)
    chosen = [np.flatnonzero((score >= floor) & (score > 0.0)) for score in scores]
    return [(block, rows) for block, rows in zip(blocks, chosen, strict=True) if len(rows)]
