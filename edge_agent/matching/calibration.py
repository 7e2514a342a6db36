"""How often strangers reach a score: measured curves by pipeline, shipped with provenance, sharpened on site.

A curve is the false match rate of one comparison as a function of the score. It is measured by
`make accuracy`, written to `calibration_*.json` beside this module with what it was measured on, and read
from there. Beyond the rarest rate measured the curve goes on as a straight line in log(FMR), with the slope of its
last decade. That is a guess: among 931 people look-alikes lay .02 above what the line from 240 people said of one in
a hundred thousand. So a curve is measured on as many people as there are.

A site's own people differ from a public set (families, one ethnicity, one camera). `recalibrated` measures
the strangers' scores inside the site's gallery and raises the curve where they are more alike. It never
lowers it: a gallery of forty people cannot prove that a low threshold is safe.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from templates_store.gallery.vectors_basis import Metric

RATES = tuple(10.0 ** (-exponent / 4) for exponent in range(4, 33))  # 1e-1 .. 1e-8, four a decade
LEAST_HITS = 10  # a rate is "measured" when at least this many impostor comparisons reached the score
LEAST_COMPARISONS = 1000  # about forty people; fewer say nothing about rates below one in a hundred
SITE_PROBES = 2000  # templates of the gallery compared with all others when recalibrating


class CalibrationError(ValueError):
    """A calibration file cannot be used, or has no entry for a pipeline."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Impostor curve of one pipeline. `points`: (FMR, score), rates falling, scores rising."""

    pipeline: str
    points: tuple[tuple[float, float], ...]
    comparisons: int
    measured_on: str

    def __post_init__(self) -> None:
        rates = [rate for rate, _ in self.points]
        scores = [score for _, score in self.points]
        if len(self.points) < 2 or not all(map(math.isfinite, rates + scores)):
            raise CalibrationError(f"{self.pipeline}: a curve needs two finite points")
        if not all(0.0 < rate <= 1.0 for rate in rates) or sorted(set(rates), reverse=True) != rates:
            raise CalibrationError(f"{self.pipeline}: false match rates must fall from point to point")
        if sorted(scores) != scores or scores[0] == scores[-1]:
            raise CalibrationError(f"{self.pipeline}: scores must rise from point to point")

    def threshold(self, fmr: float) -> float:
        """The score that strangers reach with probability `fmr` or less."""
        if not 0.0 < fmr < 1.0:
            raise ValueError("a false match rate lies between 0 and 1")
        logs = [-math.log10(rate) for rate, _ in self.points]
        scores = [score for _, score in self.points]
        wanted = -math.log10(fmr)
        if wanted <= logs[0]:
            return scores[0]
        if wanted <= logs[-1]:
            return float(np.interp(wanted, logs, scores))
        first = max(0, len(logs) - 5)  # the slope of the last decade, steadier than that of the last pair
        slope = (scores[-1] - scores[first]) / (logs[-1] - logs[first])
        return scores[-1] + slope * (wanted - logs[-1])

    def as_json(self) -> dict[str, Any]:
        return {
            "points": [[float(f"{rate:.4g}"), float(f"{score:.6g}")] for rate, score in self.points],
            "comparisons": self.comparisons,
            "measured_on": self.measured_on,
        }


def measured(pipeline: str, impostors: ArrayLike, *, comparisons: int, measured_on: str) -> Calibration:
    """Curve from impostor scores. `impostors` may hold only the highest of the `comparisons` made."""
    scores = np.sort(np.asarray(impostors, np.float64).reshape(-1))[::-1]
    if comparisons < len(scores) or not np.isfinite(scores).all():
        raise ValueError("impostor scores must be finite and no more than the comparisons made")
    points: list[tuple[float, float]] = []
    for rate in RATES:
        hits = round(rate * comparisons)
        if hits < LEAST_HITS:
            break
        if hits <= len(scores):
            points.append((rate, float(scores[hits - 1])))
    rising = [point for i, point in enumerate(points) if i == 0 or point[1] >= points[i - 1][1]]
    return Calibration(pipeline, tuple(rising), comparisons, measured_on)


def impostor_scores(
    vectors: NDArray[np.float32],
    subjects: Sequence[str],
    *,
    metric: Metric = Metric.COSINE,
    seed: int = 0,
    keep: int = 1_000_000,
) -> tuple[NDArray[np.float32], int]:
    """Scores between different subjects of a gallery: the highest `keep`, and how many were made.

    `vectors` is (N, D). At most SITE_PROBES rows, drawn at random, are compared with all. Scores are rounded
    as float32 rounds: a curve asks for no more.
    """
    rows = vectors
    if metric is Metric.COSINE:
        rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    squares = np.square(rows).sum(axis=1)
    names = np.unique(np.asarray(subjects, object).astype(str), return_inverse=True)[1]
    chosen = np.random.default_rng(seed).permutation(len(rows))[:SITE_PROBES]
    kept = np.empty(0, np.float32)
    made = 0
    for start in range(0, len(chosen), 64):
        probes = chosen[start : start + 64]
        scores = rows[probes] @ rows.T
        if metric is Metric.EUCLIDEAN:
            scores = -np.sqrt(np.maximum(squares[probes][:, None] + squares[None, :] - 2 * scores, 0.0))
        others = scores[names[probes][:, None] != names[None, :]]
        made += len(others)
        kept = np.concatenate([kept, others.astype(np.float32)])
        if len(kept) > 2 * keep:
            kept = np.partition(kept, len(kept) - keep)[-keep:]
    return kept, made


def measured_on_site(pipeline: str, impostors: ArrayLike, *, comparisons: int) -> Calibration:
    """Curve of a site's own strangers. Raises CalibrationError if they are too few to say anything."""
    if comparisons < LEAST_COMPARISONS:
        raise CalibrationError(f"{comparisons} comparisons between different people; {LEAST_COMPARISONS} are needed")
    return measured(pipeline, impostors, comparisons=comparisons, measured_on="this site's gallery")


def recalibrated(shipped: Calibration, site: Calibration) -> Calibration:
    """The shipped curve, raised wherever the site's own strangers are more alike."""
    if shipped.pipeline != site.pipeline:
        raise ValueError("curves of two pipelines do not compare")
    rarest = min(rate for rate, _ in site.points)
    rates = sorted({rate for rate, _ in shipped.points} | {rate for rate, _ in site.points}, reverse=True)
    points: list[tuple[float, float]] = []
    for rate in rates:
        score = shipped.threshold(rate) if rate < 1.0 else shipped.points[0][1]
        if rate >= rarest and rate < 1.0:
            score = max(score, site.threshold(rate))
        elif points:
            # Past what the site could measure: keep the lift it showed at its rarest rate.
            score += max(0.0, site.threshold(rarest) - shipped.threshold(rarest))
        points.append((rate, max(score, points[-1][1] if points else -math.inf)))
    return Calibration(
        shipped.pipeline,
        tuple(points),
        shipped.comparisons,
        f"{shipped.measured_on}; raised by {site.measured_on}",
    )


def _parsed(text: str, source: str) -> dict[str, Calibration]:
    try:
        entries: Mapping[str, Any] = json.loads(text)
        return {
            pipeline: Calibration(
                pipeline,
                tuple((float(rate), float(score)) for rate, score in entry["points"]),
                int(entry["comparisons"]),
                str(entry["measured_on"]),
            )
            for pipeline, entry in entries.items()
        }
    except CalibrationError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise CalibrationError(f"{source} is not a calibration table") from exc


@cache
def shipped_table() -> dict[str, Calibration]:
    """Every curve that came with this version, by pipeline."""
    table: dict[str, Calibration] = {}
    for entry in sorted(resources.files("edge_agent.matching").iterdir(), key=lambda item: item.name):
        if entry.name.startswith("calibration_") and entry.name.endswith(".json"):
            table |= _parsed(entry.read_text("utf-8"), entry.name)
    return table


def shipped_calibration(pipeline: str) -> Calibration:
    try:
        return shipped_table()[pipeline]
    except KeyError:
        raise CalibrationError(f"no calibration for pipeline {pipeline}") from None


def read_table(path: Path) -> dict[str, Calibration]:
    """A site's table. Raises CalibrationError, or OSError if it cannot be read."""
    if path.stat().st_size > 1 << 20:
        raise CalibrationError(f"{path.name} is too large for a calibration table")
    return _parsed(path.read_text("utf-8", errors="replace"), path.name)


def write_table(path: Path, calibrations: Iterable[Calibration]) -> None:
    """Written beside and moved into place, so that a power cut leaves the old table or the new."""
    entries = {calibration.pipeline: calibration.as_json() for calibration in calibrations}
    draft = path.with_suffix(path.suffix + ".new")
    draft.write_text(json.dumps(entries, indent=1) + "\n", "utf-8")
    draft.replace(path)
