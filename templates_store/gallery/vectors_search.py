"""One probe against a snapshot: scan, exclude by the bound, compare the rest in float64.

A scan at the memory's speed leaves little time for anything else: with cold caches every call of numpy
takes as long as scanning a few hundred rows. So all blocks are scanned into one array of integer scores,
and it is asked only for what matters. A decision asks first for the rows that may reach its threshold:
for most strangers there is none. What leads then says how far down the second may be.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from templates_store.gallery.vectors_basis import Float64, Metric, ProbeCode, exact_scores, key
from templates_store.gallery.vectors_scan import Kernel, Scores
from templates_store.gallery.vectors_segment import Group, Segment
from templates_store.template import Candidate, SubjectId

FIRST_LOOK = 16  # rows compared first, so that the floor has risen for the others
SECOND_LOOK = 4_096  # where the first brought fewer subjects than wanted
CROWD = 256  # rows that are worth a first look
STRIPES = 256
CHUNK = 4_096  # rows compared in float64 at a time
LOWEST, HIGHEST = -(2**31), 2**31 - 1

Rows = NDArray[np.intp]
Picked = list[tuple[Segment, Rows]]


def _whole(limit: float) -> int:
    """Integers compare with integers ten times faster than with a float."""
    return math.ceil(min(max(limit, LOWEST), HIGHEST))


def _behind(score: float, margin: float) -> float:
    """Not above any score that rounds to less than `margin` behind."""
    return score - margin - 4 * math.ulp(max(abs(score), margin)) if math.isfinite(score) else score


class Ranking:
    """The best score of each subject that is among the best `k` so far."""

    def __init__(self, k: int, floor: float) -> None:
        self.k = k
        self.floor = floor  # what a row must reach to matter
        self.leading = -math.inf
        self.found: dict[SubjectId, float] = {}

    def note(self, subject: SubjectId, score: float) -> None:
        if score <= self.found.get(subject, -math.inf):
            return
        self.found[subject] = score
        self.leading = max(self.leading, score)
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


class Scan:
    """Integer scores of a group's rows. Those from some limit on are singled out; each is handed out once."""

    def __init__(self, group: Group, code: ProbeCode, scores: Scores) -> None:
        self.group = group
        self._code = code
        self._scores = scores
        self._rows: Rows = np.empty(0, np.intp)
        self._kept = scores[:0]
        self._done = HIGHEST + 1  # the rows from this score on have been handed out

    def limit(self, wanted: float) -> int:
        """No row below has a score of the key `wanted`."""
        return _whole(self._code.limit(wanted))

    def crest(self, count: int) -> int:
        """A limit that the best `count` rows or a few more reach."""
        scores = self._scores
        if count <= FIRST_LOOK and len(scores) > STRIPES:  # one pass; an exact partition takes ten
            width = len(scores) // STRIPES
            scores = scores[: width * STRIPES].reshape(STRIPES, width).max(axis=1)
        return int(np.partition(scores, -count)[-count]) if count < len(scores) else LOWEST

    def single_out(self, limit: int) -> None:
        self._rows = (self._scores >= limit).nonzero()[0]
        self._kept = self._scores[self._rows]

    def take(self, limit: int) -> tuple[Rows, Scores]:
        """From `limit` on, of those singled out."""
        if len(self._rows) == 0:
            return self._rows, self._kept
        chosen = self._kept >= limit
        if self._done <= HIGHEST:
            chosen &= self._kept < self._done
        self._done = min(self._done, limit)
        return self._rows[chosen], self._kept[chosen]


class Search:
    """`probe` is float64 (D,), finite; `norm` its length."""

    def __init__(
        self, metric: Metric, groups: tuple[Group, ...], kernel: Kernel, *, probe: Float64, norm: float
    ) -> None:
        self._metric = metric
        self._groups = groups
        self._kernel = kernel
        self._probe = probe
        self._norm = norm

    def best(self, k: int) -> list[Candidate]:
        ranking = Ranking(k, -math.inf)
        for scan in self._scans(ranking):
            for count in (max(FIRST_LOOK, k), SECOND_LOOK):
                if ranking.floor == -math.inf:
                    crest = scan.crest(count)
                    scan.single_out(crest)
                    self._note(scan, scan.take(crest)[0], ranking)
            scan.single_out(scan.limit(key(self._metric, ranking.floor)))
            self._compare(scan, ranking, lambda: ranking.floor)
        return ranking.best()

    def decide(self, threshold: float, margin: float) -> list[Candidate]:
        """Best subject at `threshold` or above; then the second, if less than `margin` behind.

        A stranger has nobody at the threshold: then nothing below it need be compared.
        """

        def wanted() -> float:
            return _behind(ranking.leading, margin) if ranking.leading >= threshold else threshold

        ranking = Ranking(2, _behind(threshold, margin))
        scans = self._scans(ranking)
        for scan in scans:
            scan.single_out(scan.limit(key(self._metric, ranking.floor)))
            self._compare(scan, ranking, wanted)
        if ranking.leading < threshold:
            return []
        for scan in scans:
            self._compare(scan, ranking, wanted)
        pair = ranking.best()
        return pair if len(pair) == 2 and pair[0].score - pair[1].score < margin else pair[:1]

    def score(self, segment: Segment, rows: Rows) -> list[float]:
        """Exact scores of single rows; those removed meanwhile are left out."""
        scores = self._exact([(segment, rows)])
        return [float(score) for score in scores[segment.alive[rows]]]

    def _scans(self, ranking: Ranking) -> list[Scan]:
        """Rows that cannot be scanned are compared at once."""
        scans: list[Scan] = []
        for group in self._groups:
            code = group.basis.probe(self._probe, self._norm) if group.basis is not None else None
            if code is None or code.reach >= self._kernel.limit:
                self._note_picked([(segment, np.arange(n)) for segment, n in group.parts], ranking)
                continue
            scores = self._kernel.scan(group.packs, code.codes)
            scans.append(Scan(group, code, scores if len(self._groups) == 1 else scores.copy()))
            if group.outliers:
                self._note_picked(group.outliers, ranking)
        return scans

    def _compare(self, scan: Scan, ranking: Ranking, wanted: Callable[[], float]) -> None:
        """Every row that may have the score `wanted`; it may change with what is found."""
        limit = scan.limit(key(self._metric, wanted()))
        rows, scores = scan.take(limit)
        if len(rows) > CROWD:
            crest = np.partition(scores, -FIRST_LOOK)[-FIRST_LOOK]
            self._note(scan, rows[scores >= crest], ranking)
            limit = scan.limit(key(self._metric, wanted()))
            rows = rows[(scores >= limit) & (scores < crest)]
        self._note(scan, rows, ranking)

    def _note(self, scan: Scan, rows: Rows, ranking: Ranking) -> None:
        if len(rows):
            self._note_picked(scan.group.picked(rows), ranking)

    def _note_picked(self, picked: Picked, ranking: Ranking) -> None:
        for batch in _batches(picked):
            scores = self._exact(batch)
            reaching = (scores >= ranking.floor).nonzero()[0]
            ends = list(accumulate(len(rows) for _, rows in batch))
            for i in reaching[(-scores[reaching]).argsort()] if len(reaching) > 1 else reaching:
                score = float(scores[i])
                if score < ranking.floor:
                    break
                part = bisect_right(ends, i)
                segment, rows = batch[part]
                row = rows[i - ends[part]]
                subject: SubjectId = segment.subjects[row]
                if segment.alive[row]:  # asked last: a row wiped while we read it is marked by now
                    ranking.note(subject, score)

    def _exact(self, batch: Picked) -> Float64:
        rows = [segment.rows.take(rows, axis=0) for segment, rows in batch]
        norms = [segment.norms[rows] for segment, rows in batch]
        if len(batch) == 1:
            return exact_scores(self._metric, rows[0], norms[0], self._probe, self._norm)
        return exact_scores(self._metric, np.concatenate(rows), np.concatenate(norms), self._probe, self._norm)


def _batches(picked: Picked) -> Iterable[Picked]:
    """Of CHUNK rows at most."""
    batch: Picked = []
    held = 0
    for segment, rows in picked:
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            if held + len(part) > CHUNK:
                yield batch
                batch, held = [], 0
            batch.append((segment, part))
            held += len(part)
    if batch:
        yield batch
