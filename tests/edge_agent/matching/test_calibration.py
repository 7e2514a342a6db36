from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_agent.matching.calibration import (
    Calibration,
    CalibrationError,
    impostor_scores,
    measured,
    measured_on_site,
    read_table,
    recalibrated,
    shipped_table,
    write_table,
)
from templates_store.gallery.vectors_basis import Metric

CURVE = Calibration("p/1", ((1e-1, 0.10), (1e-2, 0.20), (1e-3, 0.28), (1e-4, 0.34)), 10**6, "a test")


def test_a_measured_rate_gives_its_score() -> None:
    assert CURVE.threshold(1e-3) == pytest.approx(0.28)


def test_between_measured_rates_the_score_lies_between() -> None:
    assert 0.20 < CURVE.threshold(5e-3) < 0.28


def test_beyond_the_rarest_rate_the_threshold_goes_on_rising() -> None:
    assert CURVE.threshold(1e-4) < CURVE.threshold(1e-5) < CURVE.threshold(1e-6)
    assert CURVE.threshold(1e-5) - CURVE.threshold(1e-4) == pytest.approx((0.34 - 0.10) / 3)


@given(st.floats(1e-9, 0.09), st.floats(1e-9, 0.09))
def test_a_rarer_rate_never_has_a_lower_threshold(one: float, other: float) -> None:
    assert (one < other) <= (CURVE.threshold(one) >= CURVE.threshold(other))


@pytest.mark.parametrize("fmr", [0.0, 1.0, -1.0, 2.0])
def test_impossible_rates_are_refused(fmr: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        CURVE.threshold(fmr)


@pytest.mark.parametrize(
    "points",
    [
        (),
        ((0.1, 0.2),),
        ((0.1, 0.2), (0.2, 0.3)),
        ((0.1, 0.3), (0.01, 0.2)),
        ((0.1, 0.2), (0.01, float("nan"))),
        ((0.1, 0.2), (0.01, 0.2)),
        ((2.0, 0.2), (0.01, 0.3)),
    ],
)
def test_a_curve_that_cannot_be_is_refused(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(CalibrationError):
        Calibration("p/1", points, 100, "a test")


def test_a_measured_curve_follows_the_scores() -> None:
    scores = np.random.default_rng(0).normal(0.0, 0.1, 200_000)
    curve = measured("p/1", scores, comparisons=len(scores), measured_on="normal noise")
    for rate, deviations in ((1e-1, 1.2816), (1e-2, 2.3263), (1e-3, 3.0902)):
        assert curve.threshold(rate) == pytest.approx(0.1 * deviations, abs=0.006)
    assert min(rate for rate, _ in curve.points) >= 10 / 200_000


def test_the_highest_scores_alone_give_the_same_rare_rates() -> None:
    scores = np.random.default_rng(0).normal(0.0, 0.1, 200_000)
    top = np.sort(scores)[-5_000:]
    whole = measured("p/1", scores, comparisons=200_000, measured_on="all")
    partly = measured("p/1", top, comparisons=200_000, measured_on="top")
    assert partly.threshold(1e-3) == whole.threshold(1e-3)


def test_a_site_with_look_alikes_raises_the_threshold() -> None:
    site = Calibration("p/1", ((1e-1, 0.15), (1e-2, 0.26), (1e-3, 0.35)), 10**5, "the site")
    raised = recalibrated(CURVE, site)
    assert raised.threshold(1e-2) == pytest.approx(0.26)
    assert raised.threshold(1e-3) == pytest.approx(0.35)
    assert raised.threshold(1e-4) >= 0.34 + 0.07 - 1e-9
    assert "the site" in raised.measured_on


@given(st.floats(-0.3, 0.3))
def test_a_site_never_lowers_a_threshold(shift: float) -> None:
    site = Calibration("p/1", tuple((rate, score + shift) for rate, score in CURVE.points[:3]), 10**5, "the site")
    raised = recalibrated(CURVE, site)
    for rate in (5e-2, 1e-2, 1e-3, 1e-4, 1e-6):
        assert raised.threshold(rate) >= CURVE.threshold(rate) - 1e-9


def test_pipelines_do_not_mix() -> None:
    other = Calibration("q/1", CURVE.points, 1, "another")
    with pytest.raises(ValueError, match="pipelines"):
        recalibrated(CURVE, other)


@pytest.mark.parametrize("metric", list(Metric))
def test_strangers_of_a_gallery_are_compared_and_nobody_with_himself(metric: Metric) -> None:
    rng = np.random.default_rng(2)
    people = rng.standard_normal((50, 16))
    rows = np.repeat(people, 2, axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scores, made = impostor_scores(rows.astype(np.float32), [f"s{i // 2}" for i in range(100)], metric=metric)
    assert made == len(scores) == 100 * 98
    assert scores.max() < (0.999 if metric is Metric.COSINE else -0.01)
    assert scores.max() == pytest.approx(best_of_all(rows, metric), abs=1e-4)


def best_of_all(rows: NDArray[np.float64], metric: Metric) -> float:
    pairs = [(rows[i], rows[j]) for i in range(100) for j in range(100) if i // 2 != j // 2]
    return max(float(a @ b) if metric is Metric.COSINE else -float(np.linalg.norm(a - b)) for a, b in pairs)


def test_a_gallery_sharpens_the_shipped_curve() -> None:
    rng = np.random.default_rng(3)
    alike = rng.standard_normal(16) * 2 + rng.standard_normal((60, 16))  # sixty cousins
    scores, made = impostor_scores(alike.astype(np.float32), [str(i) for i in range(60)])
    raised = recalibrated(CURVE, measured_on_site("p/1", scores, comparisons=made))
    assert raised.threshold(1e-2) > CURVE.threshold(1e-2) + 0.3


def test_a_handful_of_people_cannot_calibrate() -> None:
    scores, made = impostor_scores(np.eye(20, dtype=np.float32), [str(i) for i in range(20)])
    with pytest.raises(CalibrationError, match="380 comparisons"):
        measured_on_site("p/1", scores, comparisons=made)


def test_a_table_survives_being_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "site.json"
    write_table(path, [CURVE])
    assert read_table(path) == {"p/1": CURVE}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"p": 1}', '{"p": {"points": [[0.1, 0.2]]}}', '{"p": {"points": "ab"}}', "\x00", "null"]
)
def test_a_broken_table_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "site.json"
    path.write_text(text)
    with pytest.raises(CalibrationError):
        read_table(path)


def test_an_oversized_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.json"
    path.write_text(json.dumps({"p": "x" * (1 << 20)}))
    with pytest.raises(CalibrationError, match="too large"):
        read_table(path)


def test_every_shipped_curve_says_what_it_was_measured_on() -> None:
    for pipeline, curve in shipped_table().items():
        assert curve.pipeline == pipeline
        assert curve.comparisons > 1000
        assert len(curve.measured_on) > 10
