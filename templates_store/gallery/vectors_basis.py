"""From float vectors to int8 codes with a proven bound on what the rounding can hide.

Rows are rotated; `head` coordinates are kept, and the length of what is cut off goes along as one more
(Cauchy-Schwarz: the product of the tails is at most the product of their lengths). All are scaled and
rounded to int8. With a, b the exact scaled vectors of row and probe and A, B their codes,

    |a.b - A.B| <= |b| |a - A| + |A| |b - B|,

so a row whose integer product is below the wanted score by more than this cannot have that score, and
every other row is compared in float64. |a - A| and |A| enter as what nearly every row keeps to; the few that
do not are compared in every search. So the bound holds for any rotation, scale or clipping: these decide
only how many rows survive. Which head is cheapest depends on the data's spectrum and is found by trial
on a sample: for SFace's flat spectrum nearly all dimensions, for dlib's steep one a few dozen.

Euclid: -d^2/2 = y.z - |y|^2/2 - |z|^2/2 with y, z centred on the mean. The row's own term is written as
digits in base 127 into further dimensions, so that one integer product holds the whole score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from templates_store.gallery.vectors_scan import DEPTH_STEP, Codes, Kernel

Float64 = NDArray[np.float64]
ROUNDING = 1e-7  # float64 and float32 arithmetic of projections, relative; measured below 1e-9 at 512 dimensions
DIGITS = 4  # dimensions that hold a row's own term, -127 * 127 * (DIGITS - 1) .. 0


class Metric(StrEnum):
    COSINE = "cosine"  # score: cosine in [-1, 1]
    EUCLIDEAN = "euclidean"  # score: minus the distance, so that higher is more alike


def exact_scores(metric: Metric, rows: NDArray[np.float32], norms: Float64, probe: Float64, norm: float) -> Float64:
    """The canonical float64 scores; each depends on its row and the probe alone, not on the rows beside it."""
    if metric is Metric.COSINE:
        return np.asarray(np.add.reduce(rows * probe, axis=1) / (norms * norm), np.float64)  # products are float64
    wide = rows - probe
    wide *= wide
    return np.asarray(-np.sqrt(np.add.reduce(wide, axis=1)), np.float64)


def key(metric: Metric, score: float) -> float:
    """The score on the scale of inner products: the cosine itself, or minus half the squared distance."""
    if metric is Metric.COSINE:
        return score
    return -score * score / 2 if score <= 0 else math.inf  # no distance is negative


@dataclass(frozen=True, slots=True)
class ProbeCode:
    """A probe as the scan wants it, and what its integer products say about scores."""

    codes: Codes  # (1, depth)
    unit: float  # the product that stands for a key of one
    own: float  # |z|^2 / 2 as a product (Euclid), else 0
    error: float  # how far a row may lie above its product
    reach: float  # no product is larger

    def limit(self, wanted: float) -> float:
        """No row whose integer product is below this has a score of this key."""
        return wanted * self.unit + self.own - self.error


@dataclass(frozen=True, slots=True)
class RowCodes:
    codes: Codes  # (n, depth)
    slip: Float64  # (n,) |a - A|
    length: Float64  # (n,) |A|
    own: Float64  # (n,) what the digits take off, >= 0


@dataclass(frozen=True, slots=True)
class Basis:
    metric: Metric
    mean: Float64  # (D,)
    rotation: Float64  # (D, head)
    tail: bool
    scale: float
    largest: int
    slip: float  # |a - A| of a row at most
    length: float  # |A| of a row at most
    own: float  # what a row's digits take off at most

    head: int = field(init=False)
    digits: int = field(init=False)
    depth: int = field(init=False)

    def __post_init__(self) -> None:
        head = int(self.rotation.shape[1])
        digits = DIGITS if self.metric is Metric.EUCLIDEAN else 0
        used = head + self.tail + digits
        object.__setattr__(self, "head", head)
        object.__setattr__(self, "digits", digits)
        object.__setattr__(self, "depth", -(-used // DEPTH_STEP) * DEPTH_STEP)

    def _exact(self, rows: NDArray[np.floating], norms: Float64) -> tuple[Float64, Float64]:
        """Scaled vectors before rounding, and |y|^2."""
        wide = rows.astype(np.float64)
        wide = wide / norms[:, None] if self.metric is Metric.COSINE else wide - self.mean
        kept = wide @ self.rotation
        whole = np.einsum("ij,ij->i", wide, wide)
        if self.tail:
            cut = np.sqrt(np.maximum(whole - np.einsum("ij,ij->i", kept, kept), 0.0) + ROUNDING * whole)
            kept = np.column_stack([kept, cut])
        return kept * self.scale, whole

    def rows(self, rows: NDArray[np.float32], norms: Float64) -> tuple[Codes, NDArray[np.bool_]]:
        """Codes (n, depth), and which rows the bound does not cover: they must be compared in every search."""
        coded = self.code(rows, norms)
        outlying = (coded.slip > self.slip) | (coded.length > self.length)
        coded.codes[outlying] = self.blank()
        return coded.codes, outlying

    def code(self, rows: NDArray[np.float32], norms: Float64) -> RowCodes:
        exact, whole = self._exact(rows, norms)
        rounded = np.clip(np.rint(exact), -self.largest, self.largest)
        codes = np.zeros((len(rows), self.depth), np.int8)
        used = exact.shape[1]
        codes[:, :used] = rounded
        own = np.zeros(len(rows))
        if self.digits:
            # Rounded down, and clipped: a row may only come out above its score.
            own = np.minimum(np.floor(whole / 2 * self.scale**2), np.floor(self.own))
            self._write_digits(codes[:, used : used + self.digits], own)
        exact -= rounded
        return RowCodes(
            codes,
            slip=np.sqrt(np.einsum("ij,ij->i", exact, exact)),
            length=np.sqrt(np.einsum("ij,ij->i", rounded, rounded)),
            own=own,
        )

    def _write_digits(self, out: Codes, own: Float64) -> None:
        """Minus `own`: column 0 counts ones, the others 127s (the probe's codes there are 1 and 127)."""
        big = np.floor(own / self.largest)
        out[:, 0] = -(own - big * self.largest)
        for column in range(1, self.digits):
            part = np.minimum(big, self.largest)
            out[:, column] = -part
            big -= part

    def blank(self) -> Codes:
        """(depth,): the codes of no row; hardly any search looks at their product."""
        codes = np.zeros((1, self.depth), np.int8)
        if self.digits:
            used = self.head + self.tail
            self._write_digits(codes[:, used : used + self.digits], np.array([np.floor(self.own)]))
        return codes.reshape(-1)

    def probe(self, probe: Float64, norm: float) -> ProbeCode:
        """As `code` for one vector; in few calls, for with cold caches each costs as much as scanning 500 rows."""
        used = self.head + self.tail
        exact = np.zeros(self.depth)
        kept = exact[: self.head]
        if self.metric is Metric.COSINE:
            probe.dot(self.rotation, out=kept)
            kept *= self.scale / norm
            whole = self.scale**2
        else:
            centred = probe - self.mean
            centred *= self.scale
            whole = float(centred.dot(centred))
            centred.dot(self.rotation, out=kept)
        if self.tail:
            exact[self.head] = math.sqrt(max(whole - float(kept.dot(kept)), 0.0) + ROUNDING * whole)
        length = math.sqrt(whole * (1.0 + 2 * ROUNDING))
        rounded = np.rint(exact)
        np.minimum(rounded, self.largest, out=rounded)
        np.maximum(rounded, -self.largest, out=rounded)
        exact -= rounded
        slip = math.sqrt(exact.dot(exact))
        if self.digits:
            rounded[used : used + self.digits] = self.largest
            rounded[used] = 1
        own = whole / 2 if self.digits else 0.0
        spread = (length + 1.0) * (self.length + self.slip + 1.0) + own
        return ProbeCode(
            rounded.astype(np.int8).reshape(1, -1),
            unit=self.scale**2,
            own=own,
            error=length * self.slip + self.length * slip + ROUNDING * spread + 1e-3,
            reach=min(length + slip, self.largest * math.sqrt(used)) * self.length + self.own,
        )


def _mixed(columns: Float64, rng: np.random.Generator) -> Float64:
    """The same space under a random orthogonal basis: even variances waste the least of an int8's range."""
    size = columns.shape[1]
    return np.ascontiguousarray(columns @ np.linalg.qr(rng.standard_normal((size, size)))[0])


def tune(
    metric: Metric,
    sample: NDArray[np.float32],
    kernel: Kernel,
    *,
    rows: int,
    seed: int = 0,
) -> Basis:
    """The cheapest basis for searches among `rows` like `sample` (n, D), n >= 2.

    Cost of a search: the bytes read by the scan, and for each row the bound does not exclude a float64
    comparison, which takes as long as SURVIVOR_BYTES of scanning, the first of them FIRST_SURVIVOR_BYTES.
    Counted at the score where a sensible threshold lies: hardly any stranger among so many rows reaches it.
    """
    rng = np.random.default_rng(seed)
    wide = sample.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1)
    dimension = sample.shape[1]
    mean = np.zeros(dimension)
    if metric is Metric.COSINE:
        wide /= norms[:, None]
    else:
        mean = wide.mean(axis=0)
        wide -= mean
    vectors = np.linalg.eigh(wide.T @ wide / len(wide))[1][:, ::-1]
    probes = rng.permutation(len(sample))[: min(64, len(sample) // 2)]
    wanted = _stranger_score(metric, sample, norms, probes, rows)
    tried: list[tuple[float, Basis]] = []
    for depth in _depths(dimension, metric):
        head = min(dimension, depth - 1 - (DIGITS if metric is Metric.EUCLIDEAN else 0))
        if head < 1:
            continue
        full = head + 1 >= dimension
        rotation = _mixed(vectors if full else vectors[:, :head], rng)
        basis = Basis(metric, mean, rotation, not full, 1.0, kernel.largest, 0.0, 0.0, 0.0)
        basis = _bounded(_scaled(basis, basis._exact(sample, norms)[0], kernel), sample, norms)
        share = _survivors(basis, sample, norms, probes, wanted)
        cost = rows * (kernel.row_bytes(basis.depth) + SURVIVOR_BYTES * share)
        cost += FIRST_SURVIVOR_BYTES * -math.expm1(-rows * share)
        tried.append((cost, basis))
    return min(tried, key=lambda pair: pair[0])[1]


# Rows to come over those of the sample; of a million a few exceed it.
HEADROOM = 1.1  # in their largest coordinate and in what is rounded off
LONGER = 1.2  # in length (Euclid)
SURVIVOR_BYTES = 4_000  # 0.3 us at 12 GB/s: take 512 bytes from a random place, widen, compare


FIRST_SURVIVOR_BYTES = 1_200_000  # 0.1 ms of calls with cold caches: a gallery of 10,000 is scanned in that time


def _depths(dimension: int, metric: Metric) -> list[int]:
    extra = DIGITS if metric is Metric.EUCLIDEAN else 0
    full = -(-(dimension + extra) // DEPTH_STEP) * DEPTH_STEP
    return [depth for depth in (16, 32, 48, 64, 80, 96, 112, 128, 192, 256, 384) if depth < full] + [full + DEPTH_STEP]


def _scaled(basis: Basis, exact: Float64, kernel: Kernel) -> Basis:
    """Largest scale that clips nothing and, for a narrow kernel, leaves products in range."""
    scale = kernel.largest / (HEADROOM * float(np.abs(exact).max()) or 1.0)
    reach = float(np.sqrt(np.einsum("ij,ij->i", exact, exact).max())) or 1.0
    # Products reach |a||b| + |y|^2/2 at most; half the rounding of each code comes on top.
    room = kernel.limit / (1.5 * LONGER**2 if basis.digits else 1.0)
    scale = min(scale, max(1.0, np.sqrt(room) - np.sqrt(basis.depth) / 2 - 2) / reach)
    if basis.digits:
        scale = min(scale, np.sqrt(2 * _largest_own(basis) / LONGER**2) / reach)
    return replace(basis, scale=float(scale))


def _bounded(basis: Basis, sample: NDArray[np.float32], norms: Float64) -> Basis:
    """What nearly every row keeps to; the few others are compared in every search instead of loosening the bound."""
    coded = replace(basis, own=_largest_own(basis)).code(sample, norms)
    slip = HEADROOM * float(coded.slip.max())
    length = LONGER * float(coded.length.max()) if basis.digits else basis.scale + slip
    own = min(_largest_own(basis), LONGER**2 * float(coded.own.max()))
    return replace(basis, slip=slip, length=length, own=own)


def _largest_own(basis: Basis) -> float:
    return float(basis.largest**2 * max(0, basis.digits - 1))


def _stranger_score(
    metric: Metric, sample: NDArray[np.float32], norms: Float64, probes: NDArray[np.intp], rows: int
) -> float:
    """That one of twenty strangers reaches with some row, as far as the sample can tell."""
    scores = np.concatenate(
        [
            np.delete(exact_scores(metric, sample, norms, sample[i].astype(np.float64), float(norms[i])), i)
            for i in probes
        ]
    )
    return float(np.quantile(scores, 1.0 - max(0.05 / rows, 5.0 / len(scores))))


def _survivors(
    basis: Basis, sample: NDArray[np.float32], norms: Float64, probes: NDArray[np.intp], wanted: float
) -> float:
    """Share of rows the bound cannot exclude at `wanted`."""
    wide = basis.rows(sample, norms)[0].astype(np.float32)
    total = 0
    for i in probes:
        code = basis.probe(sample[i].astype(np.float64), float(norms[i]))
        products = wide @ code.codes[0].astype(np.float32)
        total += int(np.count_nonzero(products >= code.limit(key(basis.metric, wanted)))) - 1
    return total / (len(probes) * len(sample))
