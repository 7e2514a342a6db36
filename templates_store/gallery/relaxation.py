"""Local similarities, assignment and relaxation (LSA-R), for many candidates at once.

Source: Cappelli, Ferrara, Maltoni, IEEE TPAMI 32(12), 2010, sections 4 and 5. Minutiae are paired by cylinder
similarity; pairs then support or weaken each other by how well they agree in distance and angles; the pairs that
lost least make the score. Taking the best pairs without relaxation triples FNMR at FMR 0.1 %.

Two departures. Pairs are those that prefer each other, twice over, instead of a greedy walk down the sorted
table: as accurate (measured on distorted and cropped templates), and each step is one array operation for all
candidates. Angle differences are chords between unit vectors, which equal the angle where it matters and need
no wrapping.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from templates_store.gallery.cylinders import Cylinders

PAIRING_ROUNDS = 2
ROUNDS = 5
KEEP = 0.5  # weight of a pair's own value in each round
MIN_PAIRS, MAX_PAIRS = 4, 12
PAIRS_MIDDLE, PAIRS_SLOPE = 20.0, 0.4
DISTANCE_MIDDLE, DISTANCE_SLOPE = 5.0, 1.6  # px
ANGLE_MIDDLE, ANGLE_SLOPE = math.pi / 12, 30.0
EPSILON = np.float32(1e-6)

Real = NDArray[np.float32]
Complex = NDArray[np.complex64]
Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Relaxed:
    """Outcome for C candidates with up to P pairs each; a pair of value 0 is none."""

    score: Real  # (C,)
    probe: Index  # (C, P), cylinder numbers
    candidate: Index  # (C, P)
    value: Real  # (C, P), after relaxation
    agreement: Real  # (C, P, P)


def similarities(distance: NDArray[np.uint32], probe: Cylinders, norm: Real, direction: Complex) -> Real:
    """Cylinder similarities in [0, 1] from Hamming distances, shape (C, m, n) as `distance`: candidates, probe.

    0 where directions differ by more than 90 degrees, and where the candidate's row is padding (norm 0).
    """
    result = np.sqrt(distance, dtype=np.float32)
    result /= np.maximum(norm[:, :, None] + probe.norm, EPSILON)
    np.subtract(np.float32(1.0), result, out=result)
    towards = direction.real[:, :, None] * probe.direction.real + direction.imag[:, :, None] * probe.direction.imag
    result *= (towards > 0.0) & (norm > 0.0)[:, :, None]
    return result


def pair(table: Real) -> tuple[Index, Real]:
    """For each probe cylinder its partner and the pair's similarity (0: none), both shape (C, n).

    `table` (C, m, n) is used up.
    """
    candidates, _, columns = table.shape
    which, column = np.arange(candidates)[:, None], np.arange(columns)[None, :]
    partner = np.zeros((candidates, columns), np.intp)
    similarity = np.zeros((candidates, columns), np.float32)
    for _ in range(PAIRING_ROUNDS):
        row_of_column = table.argmax(axis=1)
        column_of_row = table.argmax(axis=2)
        best = np.take_along_axis(table, row_of_column[:, None, :], axis=1)[:, 0]
        mutual = (column_of_row[which, row_of_column] == column) & (best > 0.0)
        partner[mutual] = row_of_column[mutual]
        similarity[mutual] = best[mutual]
        taken, at = np.nonzero(mutual)
        table[taken, row_of_column[mutual]] = 0.0
        table[taken, :, at] = 0.0
    return partner, similarity


def decisive_pairs(probe: int, candidate: NDArray[np.intp]) -> Index:
    """How many pairs make the score: more where both sides have more cylinders."""
    fewer = np.minimum(probe, candidate)
    share = 1.0 / (1.0 + np.exp(-PAIRS_SLOPE * (fewer - PAIRS_MIDDLE)))
    return np.asarray(np.rint(MIN_PAIRS + (MAX_PAIRS - MIN_PAIRS) * share), np.intp)


def agreement(pa: Complex, ua: Complex, pb: Complex, ub: Complex) -> Real:
    """How well each two pairs agree, in [0, 1], shape (C, P, P); arguments (C, P): positions and directions.

    The three factors 1 / (1 + exp(x)) share one division.
    """
    da, db = pa[:, None, :] - pa[:, :, None], pb[:, None, :] - pb[:, :, None]
    la, lb = np.abs(da), np.abs(db)
    turn = np.abs(ua[:, :, None] * ua[:, None, :].conj() - ub[:, :, None] * ub[:, None, :].conj())
    da *= ua.conj()[:, :, None]
    db *= ub.conj()[:, :, None]
    bearing = np.abs(da / np.maximum(la, np.float32(1e-3)) - db / np.maximum(lb, np.float32(1e-3)))
    product = 1.0 + np.exp(np.minimum(DISTANCE_SLOPE * (np.abs(la - lb) - DISTANCE_MIDDLE), np.float32(25.0)))
    product *= 1.0 + np.exp(np.minimum(ANGLE_SLOPE * (turn - ANGLE_MIDDLE), np.float32(25.0)))
    product *= 1.0 + np.exp(np.minimum(ANGLE_SLOPE * (bearing - ANGLE_MIDDLE), np.float32(25.0)))
    result = np.reciprocal(product, dtype=np.float32)
    diagonal = np.arange(result.shape[1])
    result[:, diagonal, diagonal] = 0.0
    return np.asarray(result, np.float32)


def relax(table: Real, probe: Cylinders, position: Complex, direction: Complex, counts: Index) -> Relaxed:
    """LSA-R of C candidates. `table` (C, m, n) from `similarities`, used up; `position`, `direction` (C, m);
    `counts` (C,) cylinders of each candidate.
    """
    partner, similarity = pair(table)
    pairs = max(2, int((similarity > 0.0).sum(axis=1).max(initial=0)))
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :pairs]
    first = np.take_along_axis(similarity, order, axis=1)
    matched = np.take_along_axis(partner, order, axis=1)
    which = np.arange(len(table))[:, None]
    agree = agreement(
        probe.position[order], probe.direction[order], position[which, matched], direction[which, matched]
    )
    real = first > 0.0
    found = real.sum(axis=1)
    support = (1.0 - KEEP) / np.maximum(found - 1, 1).astype(np.float32)
    value = first
    for _ in range(ROUNDS):
        value = KEEP * value + support[:, None] * np.matmul(agree, value[:, :, None])[:, :, 0]
        value *= real
    efficiency = np.where(real, value / np.maximum(first, EPSILON), -1.0)
    wanted = decisive_pairs(len(probe), counts)
    best = np.argsort(-efficiency, axis=1, kind="stable")[:, : int(wanted.max(initial=1))]
    chosen = np.take_along_axis(value, best, axis=1) * (np.arange(best.shape[1]) < wanted[:, None])
    score = np.where(found >= 2, chosen.sum(axis=1) / wanted, 0.0)
    return Relaxed(score.astype(np.float32), order, matched, value.astype(np.float32), agree)
