"""Prepared fingers side by side in memory, compared with a probe by array operations over many of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numkong
import numpy as np
from numpy.typing import NDArray

from templates_store.gallery.alignment import aligned_scores
from templates_store.gallery.cylinders import BYTES, COARSE_BYTES, Cylinders
from templates_store.gallery.finger_code import Complex, FingerCode, Real
from templates_store.gallery.relaxation import Index, Relaxed, decisive_pairs, relax, similarities

AT_ONCE = 32  # candidates per array operation: what stays in a core's cache


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Immutable. Cylinders of all fingers follow each other; finger i owns rows start[i] to start[i + 1]."""

    codes: tuple[FingerCode, ...] = field(repr=False)
    start: Index
    bits: NDArray[np.uint8] = field(repr=False)
    coarse_bits: NDArray[np.uint8] = field(repr=False)
    coarse_ones: Real = field(repr=False)
    norm: Real = field(repr=False)  # one more row than cylinders: 0, which padding points to; so below
    position: Complex = field(repr=False)
    direction: Complex = field(repr=False)

    @classmethod
    def of(cls, codes: list[FingerCode]) -> Segment:
        parts = [code.cylinders for code in codes]
        counts = np.array([len(part) for part in parts], np.intp)
        return cls(
            codes=tuple(codes),
            start=np.concatenate([np.zeros(1, np.intp), np.cumsum(counts)]),
            bits=np.concatenate([part.bits for part in parts]),
            coarse_bits=np.concatenate([part.coarse_bits for part in parts]),
            coarse_ones=np.concatenate([part.coarse_ones for part in parts]),
            norm=np.concatenate([*(part.norm for part in parts), np.zeros(1, np.float32)]),
            position=np.concatenate([*(part.position for part in parts), np.zeros(1, np.complex64)]),
            direction=np.concatenate([*(part.direction for part in parts), np.ones(1, np.complex64)]),
        )

    def coarse(self, probe: FingerCode) -> Real:
        """A cheap score of every finger that ranks well enough to leave most of them out."""
        own = probe.cylinders
        scores = np.zeros(len(self.codes), np.float32)
        if len(own) == 0 or len(self.bits) == 0:
            return scores
        table = hamming(self.coarse_bits, own.coarse_bits).astype(np.float32)
        table /= self.coarse_ones[:, None] + own.coarse_ones
        filled = np.flatnonzero(np.diff(self.start))
        nearest = np.minimum.reduceat(table, self.start[filled], axis=0)  # (fingers, probe cylinders)
        counts = np.diff(self.start)[filled]
        wanted = decisive_pairs(len(own), counts)
        most = min(int(wanted.max()), nearest.shape[1])
        nearest.partition(most - 1, axis=1)
        scores[filled] = 2.0 - nearest[:, :most].mean(axis=1)
        return scores

    def relaxed(self, probe: FingerCode, rows: Index | None = None) -> Real:
        """LSA-R scores of `rows`, or of all."""
        chosen = np.arange(len(self.codes)) if rows is None else rows
        scores = np.zeros(len(chosen), np.float32)
        for at in range(0, len(chosen), AT_ONCE):
            part = self._relax(probe.cylinders, chosen[at : at + AT_ONCE])
            if part is not None:
                scores[at : at + AT_ONCE] = part.score
        return scores

    def aligned(self, probe: FingerCode, rows: Index) -> Real:
        """Final scores of `rows`."""
        scores = np.zeros(len(rows), np.float32)
        for at in range(0, len(rows), AT_ONCE):
            part = rows[at : at + AT_ONCE]
            relaxed = self._relax(probe.cylinders, part)
            if relaxed is not None:
                scores[at : at + AT_ONCE] = aligned_scores(relaxed, probe, [self.codes[row] for row in part])
        return scores

    def _relax(self, probe: Cylinders, rows: Index) -> Relaxed | None:
        counts = self.start[rows + 1] - self.start[rows]
        longest = int(counts.max(initial=0))
        if min(longest, len(probe)) < 2:
            return None
        column = np.arange(longest)
        index = np.where(column < counts[:, None], self.start[rows][:, None] + column, len(self.bits))
        present = index.ravel()[index.ravel() < len(self.bits)]
        distance = np.zeros((*index.shape, len(probe)), np.uint32)
        distance[column < counts[:, None]] = hamming(self.bits[present], probe.bits)
        table = similarities(distance, probe, self.norm[index], self.direction[index])
        return relax(table, probe, self.position[index], self.direction[index], counts)


def hamming(rows: NDArray[np.uint8], probe: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Distances, shape (rows, probe rows); exact."""
    if rows.shape[1] not in (BYTES, COARSE_BYTES) or rows.shape[1] != probe.shape[1]:
        raise ValueError("cylinder codes of different length")
    return np.asarray(numkong.hammings_packed(rows, numkong.hammings_pack(probe)))
