from __future__ import annotations

import sys

import numpy as np
import pytest

from templates_store.gallery.vectors_basis import Basis, Metric, exact_scores, key, tune
from templates_store.gallery.vectors_scan import Kernel, NumkongKernel, NumpyKernel, best_kernel


@pytest.fixture
def fresh() -> None:
    best_kernel.cache_clear()


@pytest.mark.parametrize("kernel", [best_kernel(), NumpyKernel()], ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("rows", [1, 3999, 4001])
def test_a_scan_is_the_integer_product(kernel: Kernel, rows: int) -> None:
    rng = np.random.default_rng(rows)
    codes = rng.integers(-15, 16, (rows, 64), np.int8)
    probe = rng.integers(-15, 16, (1, 64), np.int8)
    expected = codes.astype(np.int32) @ probe[0].astype(np.int32)
    packs = [kernel.pack(codes[:1]), kernel.pack(codes[1:])] if rows > 1 else [kernel.pack(codes)]
    assert np.array_equal(kernel.scan(packs, probe), expected)


def test_numkong_is_taken_where_it_counts_right(fresh: None) -> None:
    pytest.importorskip("numkong")
    assert best_kernel().name == NumkongKernel.name


def test_numpy_stands_in_where_numkong_is_absent(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numkong", None)
    assert best_kernel().name == NumpyKernel.name
    best_kernel.cache_clear()


def test_numpy_stands_in_where_numkong_miscounts(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("templates_store.gallery.vectors_scan._exact", lambda kernel: False)
    assert best_kernel().name == NumpyKernel.name
    best_kernel.cache_clear()


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("kernel", [best_kernel(), NumpyKernel()], ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("decay", [6.0, 500.0])
def test_no_row_below_the_limit_has_the_score(metric: Metric, kernel: Kernel, decay: float) -> None:
    """The bound itself, for every row and probe, at the row's own score."""
    rng = np.random.default_rng(5)
    rows = (rng.standard_normal((400, 64)) * np.exp(-np.arange(64) / decay)).astype(np.float32)
    rows[0] *= 40.0  # beyond what the basis was tuned for: clipped, and the bound must know
    norms = np.sqrt(np.square(rows, dtype=np.float64).sum(1))
    basis = tune(metric, rows[1:300], kernel, rows=400)
    codes, outlying = basis.rows(rows, norms)
    assert outlying.nonzero()[0].tolist() in ([], [0])
    for probe in (rows[0], rows[7], -rows[9], rows[350] + rows[351]):
        wide = probe.astype(np.float64)
        norm = float(np.sqrt(np.square(wide).sum()))
        scores = exact_scores(metric, rows, norms, wide, norm)
        code = basis.probe(wide, norm)
        products = codes.astype(np.int64) @ code.codes[0].astype(np.int64)
        limits = np.array([code.limit(key(metric, float(score))) for score in scores])
        assert (products[~outlying] >= limits[~outlying]).all()
        assert np.abs(products).max() <= code.reach


def tuned(decay: float, rows: int) -> Basis:
    sample = np.random.default_rng(6).standard_normal((2000, 128)) * np.exp(-np.arange(128) / decay)
    return tune(Metric.COSINE, sample.astype(np.float32), best_kernel(), rows=rows)


def test_a_steep_spectrum_is_scanned_in_fewer_dimensions_than_a_flat_one() -> None:
    assert tuned(8.0, 100_000).depth <= 48 < 80 <= tuned(1000.0, 100_000).depth


def test_a_small_gallery_is_scanned_in_more_dimensions_than_a_large_one() -> None:
    """There one row that must be compared costs more than the scan."""
    assert tuned(60.0, 2_000).depth > tuned(60.0, 1_000_000).depth
