"""What a search must answer: every row in float64, one at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from templates_store.gallery.vectors import Metric
from templates_store.template import Candidate, SubjectId


def oracle(
    metric: Metric, rows: NDArray[np.float32], subjects: Sequence[str], probe: NDArray[np.floating]
) -> list[Candidate]:
    q = probe.astype(np.float64)
    best: dict[str, float] = {}
    for row, subject in zip(rows.astype(np.float64), subjects, strict=True):
        if metric is Metric.COSINE:
            score = float((row * q).sum() / (np.sqrt((row * row).sum()) * np.sqrt((q * q).sum())))
        else:
            score = -float(np.sqrt(((row - q) ** 2).sum()))
        best[subject] = max(score, best.get(subject, -np.inf))
    return [Candidate(SubjectId(s), v) for s, v in sorted(best.items(), key=lambda item: (-item[1], item[0]))]


def decided(ranked: list[Candidate], threshold: float, margin: float) -> list[Candidate]:
    if not ranked or ranked[0].score < threshold:
        return []
    return ranked[: 2 if len(ranked) > 1 and ranked[0].score - ranked[1].score < margin else 1]
