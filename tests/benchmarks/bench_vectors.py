"""Exact 1:N over embeddings against faiss IndexFlat and numpy: one thread, interleaved in one run.

    make bench ARGS="vectors --rows 10000 100000 1000000"

Galleries have the mean and covariance of real embeddings (SFace, dlib) and are extended to size by drawing
from them; a genuine probe adds the measured difference between two photographs of one person. Without the
photographs the spectra are drawn: flat as SFace's, steep as dlib's. The threshold is that of FPIR 1 % at the
gallery's size. Times are of the thread's processor; each probe is asked several times, in a random order
among the competitors, and its median counts: what the machine does besides is not the search's. "all" is the
99th percentile of every single call over the median, faiss' own beside it. Ends with the memory, enrolment and
removal at their worst, and 10,000 adversarial decisions against float64.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and faiss load their own pools
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import contextlib
import ctypes
import gc
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from templates_store.gallery.vectors import Metric, VectorGallery
from templates_store.gallery.vectors_basis import exact_scores
from templates_store.gallery.vectors_scan import NumpyKernel, best_kernel
from templates_store.gallery.vectors_segment import SEGMENT_ROWS
from templates_store.template import Candidate, SubjectId, TemplateId
from tests.shared_data import SHARED

Rows = NDArray[np.float32]
GOALS = {("sface", 10_000): 1.2, ("sface", 100_000): 2.5, ("sface", 1_000_000): 2.0}
GOALS |= {("dlib", 100_000): 3.5, ("dlib", 1_000_000): 3.5}
P99_GOAL = 2.0  # times the median
WRITE_GOAL_MS = 10.0
FPIR = 0.01
SMALLEST_WEIGHED = 100_000  # rows; below it the allocator's habits outweigh the gallery
console = Console(width=180)


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows and probes come from."""

    name: str
    metric: Metric
    mean: NDArray[np.float64]
    between: NDArray[np.float64]  # factor of the covariance of embeddings
    within: NDArray[np.float64]  # factor of the covariance of one person's
    margin: float

    def rows(self, rng: np.random.Generator, count: int) -> Rows:
        parts = [
            self._finished(self.mean + rng.standard_normal((min(50_000, count - at), len(self.mean))) @ self.between.T)
            for at in range(0, count, 50_000)
        ]
        return np.concatenate(parts)

    def probes(self, rng: np.random.Generator, gallery: Rows, count: int) -> Rows:
        chosen = gallery[rng.integers(0, len(gallery), count)].astype(np.float64)
        return self._finished(chosen + rng.standard_normal(chosen.shape) @ self.within.T)

    def _finished(self, rows: NDArray[np.float64]) -> Rows:
        if self.metric is Metric.COSINE:
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return rows.astype(np.float32)


def source(name: str, people_measured: int) -> Source:
    metric = Metric.COSINE if name == "sface" else Metric.EUCLIDEAN
    margin = 0.03 if name == "sface" else 0.02
    if not (SHARED / "faces" / "lfw").is_dir():
        console.print(f"{name}: photographs absent, drawn spectrum")
        steep = np.exp(-np.arange(128) / (12.0 if name == "dlib" else 90.0))
        steep *= 0.55 / np.sqrt((steep**2).sum())
        return Source(name, metric, np.full(128, 0.02), np.diag(steep), np.diag(steep) * 0.5, margin)
    from tests.accuracy.faces import measure_all, people

    found = measure_all(name, people(people_measured))
    vectors = {person: [m.probe for m in items if m.probe is not None] for person, items in found.items()}
    every = np.array([vector for items in vectors.values() for vector in items], np.float64)
    pairs = np.array([(items[0] - items[1]) / np.sqrt(2.0) for items in vectors.values() if len(items) > 1], np.float64)
    return Source(name, metric, every.mean(0), _factor(every), _factor(pairs), margin)


def _factor(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)), np.float64)


def compare(data: Source, count: int, probes: int, repeats: int) -> list[str]:
    rng = np.random.default_rng(0)
    rows = data.rows(rng, count)
    gallery = VectorGallery(rows.shape[1], metric=data.metric, background=False)
    before = _memory(reset=True)[0]
    started = time.perf_counter()
    for at in range(0, count, SEGMENT_ROWS):
        part = range(at, min(at + SEGMENT_ROWS, count))
        gallery.add_many((SubjectId(f"s{i}"), TemplateId(f"t{i}"), rows[i]) for i in part)
    gallery.maintain()
    loaded = time.perf_counter() - started
    held, peak = _memory()
    console.print(f"{data.name}, {count:,} rows: loaded in {loaded:.1f} s")
    if count >= SMALLEST_WEIGHED:
        a_row, at_most = (held - before) / count, (peak - before) / count
        faiss_row = 4 * rows.shape[1]
        console.print(
            f"{a_row:.0f} bytes a row with ids and codes, at most {at_most:.0f} while loading (faiss {faiss_row})"
        )
    indexes: dict[str, Any] = {"faiss L2": faiss.IndexFlatL2(rows.shape[1])}
    if data.metric is Metric.COSINE:
        indexes["faiss IP"] = faiss.IndexFlatIP(rows.shape[1])
    for index in indexes.values():
        index.add(rows)
    best = [gallery.search(stranger, k=1)[0].score for stranger in data.rows(rng, 200)]
    threshold = float(np.quantile(best, 1.0 - FPIR))
    basis = gallery._snapshot[0].basis
    depth = f"{basis.depth} int8 a row" if basis is not None else "float64"
    table = Table(title=f"{data.name}, {count:,} rows, {depth}, threshold {threshold:.3f}; ms of processor time")
    heads = ["probes", "decision", "p99", "p99 / median", "all", "faiss: all", "best 2", *indexes, "gemv"]
    for column in (*heads, "faiss / decision", "faiss / best 2", "gemv / decision"):
        table.add_column(column)
    missed = []
    for kind, vectors in {"genuine": data.probes(rng, rows, probes), "impostor": data.rows(rng, probes)}.items():
        times = _timed(gallery, indexes, rows, vectors, threshold=threshold, margin=data.margin, repeats=repeats)
        each = {name: np.median(values, axis=1) for name, values in times.items()}
        median = {name: float(np.median(values)) for name, values in each.items()}
        single = {name: float(np.quantile(values, 0.99)) / median[name] for name, values in times.items()}
        p99 = float(np.quantile(each["decision"], 0.99))
        fastest = min(indexes, key=lambda name: median[name])
        ratio = median[fastest] / median["decision"]
        table.add_row(
            kind,
            f"{median['decision']:.3f}",
            f"{p99:.3f}",
            f"{p99 / median['decision']:.2f}",
            f"{single['decision']:.2f}",
            f"{single[fastest]:.2f}",
            f"{median['best 2']:.3f}",
            *(f"{median[name]:.3f}" for name in indexes),
            f"{median['gemv']:.3f}",
            f"{ratio:.2f}",
            f"{median[fastest] / median['best 2']:.2f}",
            f"{median['gemv'] / median['decision']:.2f}",
        )
        goal = GOALS.get((data.name, count))
        if goal is not None and ratio < goal:
            missed.append(f"{data.name} {count} {kind}: {ratio:.2f}x faiss, wanted {goal}x")
        if p99 > P99_GOAL * median["decision"]:
            missed.append(f"{data.name} {count} {kind}: p99 {p99 / median['decision']:.2f}x the median")
    console.print(table)
    _together(gallery, data.rows(rng, probes), threshold=threshold, margin=data.margin)
    return missed + _writes(gallery, data, rng)


def _timed(
    gallery: VectorGallery,
    indexes: dict[str, Any],
    rows: Rows,
    vectors: Rows,
    *,
    threshold: float,
    margin: float,
    repeats: int,
) -> dict[str, NDArray[np.float64]]:
    """Milliseconds (probes, repeats) of each competitor."""
    rng = np.random.default_rng(2)
    out = np.empty(len(rows), np.float32)
    actions: dict[str, Callable[[Rows], object]] = {
        "decision": partial(gallery.best_two, threshold=threshold, margin=margin),
        "best 2": partial(gallery.search, k=2),
        "gemv": lambda vector: np.dot(rows, vector, out=out).argmax(),
        **{name: partial(_nearest, index) for name, index in indexes.items()},
    }
    times = {name: np.zeros((len(vectors), repeats)) for name in actions}
    for repeat in range(repeats):  # far apart, so that a busy moment of the machine meets a probe once
        for i in rng.permutation(len(vectors)):
            for name in rng.permutation(list(actions)):  # nobody always runs on the caches another left
                times[name][i, repeat] = _clocked(actions[name], vectors[i])
    return times


def _nearest(index: Any, vector: Rows) -> object:
    return index.search(vector[None], 2)


def _clocked(action: Callable[..., object], *args: object) -> float:
    """Milliseconds of this thread's processor, which does all of the work: other programs do not count."""
    started = time.thread_time()
    action(*args)
    return (time.thread_time() - started) * 1e3


def _memory(*, reset: bool = False) -> tuple[int, int]:
    """Resident bytes of this process, and the most since the last reset."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    now, most = (int(status[field].split()[0]) * 1024 for field in ("VmRSS", "VmHWM"))
    return now, most


def _together(gallery: VectorGallery, vectors: Rows, *, threshold: float, margin: float) -> None:
    """Two threads against one, by the clock on the wall."""

    def work() -> None:
        for vector in vectors:
            gallery.best_two(vector, threshold=threshold, margin=margin)

    def elapsed(count: int) -> float:
        threads = [threading.Thread(target=work) for _ in range(count)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - started

    gain = np.median([2 * elapsed(1) / elapsed(2) for _ in range(5)])
    console.print(
        f"two probes at once: {gain:.2f} times as many a second (by the wall clock, load {os.getloadavg()[0]:.1f})"
    )


def _writes(gallery: VectorGallery, data: Source, rng: np.random.Generator) -> list[str]:
    """One at a time, through the end of a full segment into the next."""
    stored = len(gallery)
    if stored > SEGMENT_ROWS:
        filler = data.rows(rng, -stored % SEGMENT_ROWS)[:-75]
        gallery.add_many((SubjectId(f"f{i}"), TemplateId(f"f{i}"), row) for i, row in enumerate(filler))
        gallery.maintain()  # in use this runs in the background
    vectors = data.rows(rng, 150)
    enrol = [_clocked(gallery.add, SubjectId(f"new{i}"), TemplateId(f"new{i}"), vectors[i]) for i in range(150)]
    remove = [_clocked(gallery.remove, SubjectId(f"s{i * (stored // 150)}")) for i in range(150)]
    console.print(
        f"enrol median {np.median(enrol):.2f} ms, worst {max(enrol):.2f}; "
        f"remove median {np.median(remove):.2f} ms, worst {max(remove):.2f} (goal: worst below {WRITE_GOAL_MS:.0f})"
    )
    if max(*enrol, *remove) < WRITE_GOAL_MS:
        return []
    return [f"{data.name} {stored}: a write took {max(*enrol, *remove):.1f} ms"]


def adversarial(data: Source, decisions: int) -> list[str]:
    """Ties, duplicates, thresholds and margins at a score and one unit in the last place beside it."""
    rng = np.random.default_rng(1)
    done = wrong = 0
    while done < decisions:
        count = int(rng.choice([1, 2, 3, 100, 300, 2_000, 5_000, 20_000]))
        rows = data.rows(rng, count)
        people = np.array([f"s{i}" for i in rng.integers(0, max(1, count * 2 // 3), count)], object)
        for _ in range(count // 20):
            rows[rng.integers(count)] = rows[rng.integers(count)]
        kernel = NumpyKernel() if rng.random() < 0.3 else best_kernel()
        gallery = VectorGallery(rows.shape[1], metric=data.metric, kernel=kernel, background=False)
        gallery.add_many((SubjectId(p), TemplateId(str(i)), rows[i]) for i, p in enumerate(people))
        norms = np.sqrt(np.square(rows, dtype=np.float64).sum(1))
        for _ in range(60):
            probe = rows[rng.integers(count)] if rng.random() < 0.3 else data.probes(rng, rows, 1)[0]
            wide = probe.astype(np.float64)
            scores = exact_scores(data.metric, rows, norms, wide, float(np.sqrt(np.square(wide).sum())))
            ranked = _ranked(scores, people)
            for threshold in _beside(ranked[0].score):
                gap = ranked[0].score - ranked[1].score if len(ranked) > 1 else 0.1
                for margin in (0.0, data.margin, *_beside(gap)):
                    answer = gallery.best_two(probe, threshold=threshold, margin=max(0.0, margin))
                    wrong += answer != _decided(ranked, threshold, max(0.0, margin))
                    done += 1
    console.print(f"{data.name}: {done} adversarial decisions, {wrong} differ from float64")
    return [f"{data.name}: {wrong} decisions differ"] if wrong else []


def _ranked(scores: NDArray[np.float64], people: NDArray[np.object_]) -> list[Candidate]:
    best: dict[str, float] = {}
    for i in np.argsort(-scores)[:200]:
        best.setdefault(people[i], float(scores[i]))
    return [Candidate(SubjectId(p), s) for p, s in sorted(best.items(), key=lambda item: (-item[1], item[0]))]


def _decided(ranked: list[Candidate], threshold: float, margin: float) -> list[Candidate]:
    if ranked[0].score < threshold:
        return []
    return ranked[: 2 if len(ranked) > 1 and ranked[0].score - ranked[1].score < margin else 1]


def _beside(value: float) -> tuple[float, float, float]:
    return value, float(np.nextafter(value, np.inf)), float(np.nextafter(value, -np.inf))


def _kernels() -> str:
    """Who runs on which instructions: nobody may be held back."""
    try:
        import numkong

        found = [name for name, there in numkong.get_capabilities().items() if there and name != "serial"]
        ours = f"numkong {version('numkong')} ({', '.join(found)})"
    except ImportError:
        ours = "no numkong"
    blas = "unknown"
    for library in Path(np.__file__).parent.parent.glob("numpy.libs/libscipy_openblas*"):
        core = ctypes.CDLL(str(library)).scipy_openblas_get_corename64_
        core.restype = ctypes.c_char_p
        blas = core().decode()
    forced = os.environ.get("OPENBLAS_CORETYPE", "not set")
    return (
        f"kernels: ours {best_kernel().name}, {ours}; numpy {np.__version__} with OpenBLAS {blas} "
        f"(OPENBLAS_CORETYPE {forced}); faiss {faiss.__version__} {faiss.get_compile_options().strip()}; "
        "one thread each"
    )


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="vectors")
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--engine", choices=["sface", "dlib"], nargs="*", default=["sface", "dlib"])
    parser.add_argument("--probes", type=int, default=100, help="of each kind")
    parser.add_argument("--repeats", type=int, default=5, help="of each probe; their median counts")
    parser.add_argument("--people", type=int, default=160, help="whose photographs give the covariance")
    parser.add_argument("--decisions", type=int, default=10_000)
    options, _ = parser.parse_known_args(argv)
    faiss.omp_set_num_threads(1)
    console.print(_kernels())
    missed: list[str] = []
    for name in options.engine:
        data = source(name, options.people)
        for count in options.rows:
            missed += compare(data, count, options.probes, options.repeats)
        missed += adversarial(data, options.decisions)
    if missed:
        raise SystemExit("; ".join(missed))
