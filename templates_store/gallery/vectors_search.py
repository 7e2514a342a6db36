"""One probe against a snapshot: scan, exclude by the bound, compare the rest in float64.

The score a row must reach (the floor) rises while better subjects are found, so each row is compared at
most a few times and most never. A single pass over the codes does: a block's scores are looked at while
they are still in the cache.
"""

from __future__ import annotations

import heapq
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from templates_store.gallery.vectors_basis import Basis, Metric, ProbeCode, exact_scores
from templates_store.gallery.vectors_scan import Kernel, Scores
from templates_store.gallery.vectors_segment import Block, Segment, View
from templates_store.template import Candidate, SubjectId

CROWD = 64  # survivors of one block that are worth raising the floor for, with the best of them, first
FIRST_LOOK = 16
HELD_BACK = 4_096  # survivors that may wait for a higher floor
CHUNK = 4_096  # rows compared in float64 at a time


LOWEST, HIGHEST = -(2**31), 2**31 - 1


def _whole(cut: float) -> int:
    """Integers compare with integers ten times faster than with a float."""
    return math.ceil(min(max(cut, LOWEST), HIGHEST))


def _behind(score: float, margin: float) -> float:
    """Not above any score that rounds to less than `margin` behind."""
    return score - margin - 4 * math.ulp(max(abs(score), margin)) if math.isfinite(score) else score


class Survivors(NamedTuple):
    """Rows of a block that the bound did not exclude, with their integer scores."""

    segment: Segment
    block: Block
    basis: Basis
    rows: NDArray[np.intp]
    scores: Scores
    top: int


class Ranking:
    """The best score of each subject that is among the best `k` so far."""

    def __init__(self, k: int, floor: float) -> None:
        self.k = k
        self.floor = floor  # what a row must reach to matter
        self.found: dict[SubjectId, float] = {}

    def note(self, scores: NDArray[np.float64], subjects: NDArray[np.object_]) -> None:
        order = range(len(scores)) if len(scores) <= FIRST_LOOK else (-scores).argsort()
        for i in order:
            score = float(scores[i])
            if score < self.floor:
                continue
            subject: SubjectId = subjects[i]
            if score > self.found.get(subject, -math.inf):
                self.found[subject] = score
                self._raise_floor()

    def _raise_floor(self) -> None:
        if len(self.found) < self.k:
            return
        least = heapq.nlargest(self.k, self.found.values())[-1]
        if least > self.floor:
            self.floor = least
            if len(self.found) > 2 * self.k:
                self.found = {subject: score for subject, score in self.found.items() if score >= least}

    def best(self) -> list[Candidate]:
        ranked = sorted(self.found.items(), key=lambda item: (-item[1], item[0]))
        return [Candidate(subject, score) for subject, score in ranked[: self.k]]


class Search:
    """`probe` is float64 (D,), finite; `norm` its length."""

    def __init__(
        self, metric: Metric, views: tuple[View, ...], kernel: Kernel, *, probe: NDArray[np.float64], norm: float
    ) -> None:
        self._metric = metric
        self._views = views
        self._kernel = kernel
        self._probe = probe
        self._norm = norm
        self._codes: dict[int, ProbeCode] = {}

    def best(self, k: int) -> list[Candidate]:
        ranking = Ranking(k, -math.inf)
        self._compare(self._scan(ranking), ranking)
        return ranking.best()

    def decide(self, threshold: float, margin: float) -> list[Candidate]:
        """Best subject at `threshold` or above; then the second, if less than `margin` behind.

        A stranger has nobody at the threshold: then nothing below it need be compared.
        """
        ranking = Ranking(2, _behind(threshold, margin))
        waiting = self._scan(ranking)
        waiting = self._compare(waiting, ranking, goal=threshold)
        leading = max(ranking.found.values(), default=-math.inf)
        if leading < threshold:
            return []
        self._compare(waiting, ranking, goal=_behind(leading, margin))
        pair = ranking.best()
        return pair if len(pair) == 2 and pair[0].score - pair[1].score < margin else pair[:1]

    def score(self, segment: Segment, rows: NDArray[np.intp]) -> list[float]:
        """Exact scores of single rows; those removed meanwhile are left out."""
        scores = self._exact(segment, rows)
        return [float(score) for score in scores[segment.alive[rows]]]

    def _scan(self, ranking: Ranking) -> list[Survivors]:
        waiting: list[Survivors] = []
        held = 0
        for view in self._views:
            if view.basis is None:
                self._compare_all(view.segment, 0, view.count, ranking)
                continue
            code = self._code(view.basis)
            for block in view.blocks:
                if not view.basis.fits(code, length=block.length, own=block.own, limit=self._kernel.limit):
                    self._compare_all(view.segment, block.start, block.start + block.width, ranking)
                    continue
                survivors = self._survivors(view.segment, block, view.basis, code, ranking)
                if survivors is None:
                    continue
                waiting.append(survivors)
                held += len(survivors.rows)
                if held > HELD_BACK:
                    self._compare(waiting, ranking)
                    waiting, held = [], 0
        return waiting

    def _survivors(
        self, segment: Segment, block: Block, basis: Basis, code: ProbeCode, ranking: Ranking
    ) -> Survivors | None:
        scores = block.packed.scan(code.codes)
        cut = _whole(basis.limit(ranking.floor, code, slip=block.slip, length=block.length))
        top = int(scores[scores.argmax()])
        if top < cut:
            return None
        rows = (scores >= cut).nonzero()[0]
        if len(rows) > CROWD:
            first = rows[np.argpartition(scores[rows], len(rows) - FIRST_LOOK)[-FIRST_LOOK:]]
            self._note(segment, first + block.start, ranking)
            cut = _whole(basis.limit(ranking.floor, code, slip=block.slip, length=block.length))
            rows = (scores >= cut).nonzero()[0]
        return Survivors(segment, block, basis, rows + block.start, scores[rows], top)

    def _compare(self, waiting: list[Survivors], ranking: Ranking, *, goal: float = -math.inf) -> list[Survivors]:
        """Compare those whose bound reaches the floor and `goal`; returns the others.

        The promising come first, so that the floor has risen for the rest.
        """
        if len(waiting) > 1:
            waiting.sort(key=lambda entry: -entry.top)
        left: list[Survivors] = []
        for entry in waiting:
            code = self._code(entry.basis)
            wanted = max(goal, ranking.floor)
            cut = _whole(entry.basis.limit(wanted, code, slip=entry.block.slip, length=entry.block.length))
            if entry.top < cut:
                left.append(entry)
                continue
            rows = entry.rows
            if len(rows) > 1:
                reach = entry.scores >= cut
                rows = rows[reach]
                if len(rows) < len(entry.rows):
                    rest = ~reach
                    left.append(entry._replace(rows=entry.rows[rest], scores=entry.scores[rest], top=cut - 1))
            for start in range(0, len(rows), CHUNK):
                self._note(entry.segment, rows[start : start + CHUNK], ranking)
        return left

    def _compare_all(self, segment: Segment, start: int, stop: int, ranking: Ranking) -> None:
        for first in range(start, stop, CHUNK):
            self._note(segment, np.arange(first, min(first + CHUNK, stop)), ranking)

    def _note(self, segment: Segment, rows: NDArray[np.intp], ranking: Ranking) -> None:
        scores = self._exact(segment, rows)
        subjects = segment.subjects[rows]
        live = segment.alive[rows]  # last: a row wiped while we read it is marked by now
        if live.all():
            ranking.note(scores, subjects)
        else:
            ranking.note(scores[live], subjects[live])

    def _exact(self, segment: Segment, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        taken = segment.rows.take(rows, axis=0)
        return exact_scores(self._metric, taken, segment.norms[rows], self._probe, self._norm)

    def _code(self, basis: Basis) -> ProbeCode:
        code = self._codes.get(id(basis))
        if code is None:
            code = self._codes[id(basis)] = basis.probe(self._probe, self._norm)
        return code
