from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from templates_store.errors import BadTemplate, Duplicate
from templates_store.gallery.vectors import Metric, VectorGallery
from templates_store.gallery.vectors_scan import Kernel, NumpyKernel, best_kernel
from templates_store.template import Candidate, SubjectId, TemplateId
from tests.templates_store.gallery.vectors_oracle import decided, oracle

Rows = NDArray[np.float32]
KERNELS = [best_kernel(), NumpyKernel()]
METRICS = list(Metric)


def faces(rng: np.random.Generator, people: int, each: int, dimension: int, *, steep: bool) -> tuple[Rows, list[str]]:
    """Clusters of unit vectors, with a flat spectrum as SFace's or a steep one as dlib's."""
    energy = np.exp(-np.arange(dimension) / (8.0 if steep else 200.0))
    centres = rng.standard_normal((people, dimension)) * energy
    rows = np.repeat(centres, each, 0) + 0.5 * rng.standard_normal((people * each, dimension)) * energy
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), [f"s{i // each:05d}" for i in range(people * each)]


def loaded(
    metric: Metric, rows: Rows, subjects: Sequence[str], kernel: Kernel | None = None, *, background: bool = False
) -> VectorGallery:
    gallery = VectorGallery(rows.shape[1], metric=metric, kernel=kernel, background=background)
    gallery.add_many(
        (SubjectId(s), TemplateId(f"t{i}"), row) for i, (s, row) in enumerate(zip(subjects, rows, strict=True))
    )
    return gallery


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("steep", [False, True])
def test_search_is_that_of_a_float64_comparison_with_every_row(metric: Metric, kernel: Kernel, steep: bool) -> None:
    rng = np.random.default_rng(3)
    rows, subjects = faces(rng, 700, 3, 128, steep=steep)
    gallery = loaded(metric, rows, subjects, kernel)
    for i in range(12):
        noise = rng.standard_normal(128) * (0.02, 0.2, 5.0)[i % 3]
        probe = (rows[rng.integers(len(rows))] + noise).astype(np.float32)
        expected = oracle(metric, rows, subjects, probe)
        for k in (1, 2, 7):
            assert gallery.search(probe, k=k) == expected[:k]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("metric", METRICS)
def test_decisions_beside_the_threshold_are_those_of_the_oracle(metric: Metric, kernel: Kernel) -> None:
    rng = np.random.default_rng(4)
    rows, subjects = faces(rng, 300, 2, 64, steep=False)
    rows[10], rows[20], rows[21] = rows[11], rows[30], rows[30]  # duplicates within and across people
    gallery = loaded(metric, rows, subjects, kernel)
    for i in range(40):
        probe = rows[30] if i % 4 == 0 else (rows[i] + rng.standard_normal(64) * 0.05).astype(np.float32)
        ranked = oracle(metric, rows, subjects, probe)
        gap = ranked[0].score - ranked[1].score
        for threshold in (ranked[0].score, np.nextafter(ranked[0].score, 9), np.nextafter(ranked[0].score, -9), -0.3):
            for margin in (0.0, gap, np.nextafter(gap, 9), max(0.0, np.nextafter(gap, -9)), 0.3):
                answer = gallery.best_two(probe, threshold=float(threshold), margin=float(margin))
                assert answer == decided(ranked, float(threshold), float(margin))


@settings(max_examples=40, deadline=None)
@given(
    dimension=st.integers(1, 40),
    people=st.integers(1, 400),
    metric=st.sampled_from(METRICS),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e4, 1e30]),
    seed=st.integers(0, 2**32 - 1),
    kernel=st.sampled_from(KERNELS),
)
def test_any_shape_and_scale_gives_the_answer_of_the_oracle(
    dimension: int, people: int, metric: Metric, scale: float, seed: int, kernel: Kernel
) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.standard_normal((people, dimension)) * scale).astype(np.float32)
    rows[rng.integers(people)] *= np.float32(50.0)  # an outlier must cost time only
    subjects = [f"s{i % max(1, people * 2 // 3)}" for i in range(people)]
    gallery = loaded(metric, rows, subjects, kernel)
    probe = rows[rng.integers(people)] + rng.standard_normal(dimension) * scale * 0.1
    expected = oracle(metric, rows, subjects, probe)
    assert gallery.search(probe, k=3) == expected[:3]
    assert gallery.best_two(probe, threshold=expected[0].score, margin=0.0) == expected[:1]


def test_an_empty_gallery_answers_nobody() -> None:
    gallery = VectorGallery(8)
    assert gallery.search(np.ones(8), k=2) == []
    assert gallery.best_two(np.ones(8), threshold=-1.0, margin=0.5) == []
    assert len(gallery) == 0


def test_one_person_has_no_second() -> None:
    gallery = VectorGallery(8)
    gallery.add(SubjectId("a"), TemplateId("1"), np.eye(8)[0])
    gallery.add(SubjectId("a"), TemplateId("2"), np.eye(8)[1])
    assert gallery.search(np.eye(8)[1], k=2) == [Candidate(SubjectId("a"), 1.0)]


@pytest.mark.parametrize(
    "vector",
    [np.ones(7), np.full(8, np.nan), np.array([np.inf] + [0.0] * 7), np.zeros(8), "no numbers", np.ones((1, 8))],
)
def test_a_bad_vector_is_refused_and_nothing_is_kept(vector: object) -> None:
    gallery = VectorGallery(8)
    with pytest.raises(BadTemplate):
        gallery.add_many([(SubjectId("a"), TemplateId("1"), np.ones(8)), (SubjectId("b"), TemplateId("2"), vector)])  # type: ignore[list-item]
    assert len(gallery) == 0
    assert gallery.subjects == set()


@pytest.mark.parametrize("probe", [np.ones(7), np.full(8, np.nan), np.zeros(8)])
def test_a_bad_probe_is_refused(probe: NDArray[np.float64]) -> None:
    gallery = VectorGallery(8)
    with pytest.raises(ValueError, match="probe"):
        gallery.search(probe, k=1)


def test_a_known_template_id_is_refused() -> None:
    gallery = VectorGallery(8)
    gallery.add(SubjectId("a"), TemplateId("1"), np.ones(8))
    with pytest.raises(Duplicate):
        gallery.add(SubjectId("b"), TemplateId("1"), np.ones(8))
    assert gallery.subjects == {"a"}


@pytest.mark.parametrize("metric", METRICS)
def test_enrolling_and_removing_keep_the_answers_of_the_oracle(metric: Metric) -> None:
    rng = np.random.default_rng(5)
    rows, subjects = faces(rng, 900, 2, 32, steep=True)
    gallery = VectorGallery(32, metric=metric, background=False)
    held: dict[int, str] = {}
    for step in range(900):
        for i in (2 * step, 2 * step + 1):
            gallery.add(SubjectId(subjects[i]), TemplateId(str(i)), rows[i])
            held[i] = subjects[i]
        if step % 3 == 0:
            victim = subjects[int(rng.integers(2 * step + 2))]
            gone = [i for i, s in held.items() if s == victim]
            assert gallery.remove(SubjectId(victim)) == len(gone)
            for i in gone:
                del held[i]
        if step % 100 == 50:
            gallery.maintain()
        if step % 60 == 10:
            kept = sorted(held)
            probe = rows[int(rng.integers(2 * step))]
            expected = oracle(metric, rows[kept], [held[i] for i in kept], probe)
            assert gallery.search(probe, k=3) == expected[:3]
            assert len(gallery) == len(held)
    assert gallery.subjects == set(held.values())


def test_removing_one_template_keeps_the_others() -> None:
    gallery = VectorGallery(4)
    gallery.add(SubjectId("a"), TemplateId("1"), [1, 0, 0, 0])
    gallery.add(SubjectId("a"), TemplateId("2"), [0, 1, 0, 0])
    assert gallery.remove_template(TemplateId("1"))
    assert not gallery.remove_template(TemplateId("1"))
    assert gallery.search([1, 0, 0, 0], k=1) == [Candidate(SubjectId("a"), 0.0)]
    assert gallery.scores([0, 1, 0, 0], SubjectId("a")) == [1.0]
    assert gallery.remove(SubjectId("a")) == 1
    assert gallery.remove(SubjectId("a")) == 0
    assert gallery.scores([0, 1, 0, 0], SubjectId("a")) == []


def test_a_removed_template_leaves_no_copy_in_the_gallery() -> None:
    rng = np.random.default_rng(6)
    rows, subjects = faces(rng, 300, 1, 32, steep=False)
    buffers: list[Rows] = []

    def allocate(shape: tuple[int, int]) -> Rows:
        buffers.append(np.zeros(shape, np.float32))
        return buffers[-1]

    gallery = VectorGallery(32, allocate=allocate, background=False)
    gallery.add_many((SubjectId(s), TemplateId(s), row) for s, row in zip(subjects, rows, strict=True))
    gallery.remove(SubjectId(subjects[7]))
    assert not any((buffer == rows[7]).all(axis=1).any() for buffer in buffers)
    assert any((buffer == rows[8]).all(axis=1).any() for buffer in buffers)


def test_a_mostly_removed_gallery_is_compacted() -> None:
    rng = np.random.default_rng(7)
    rows, subjects = faces(rng, 1500, 1, 16, steep=False)
    sizes: list[int] = []

    def allocate(shape: tuple[int, int]) -> Rows:
        sizes.append(shape[0])
        return np.zeros(shape, np.float32)

    gallery = VectorGallery(16, allocate=allocate, background=False)
    gallery.add_many((SubjectId(s), TemplateId(s), row) for s, row in zip(subjects, rows, strict=True))
    for subject in subjects[:1400]:
        gallery.remove(SubjectId(subject))
    gallery.maintain()
    assert sizes == [2048, 1024]
    assert gallery.search(rows[1450], k=2) == oracle(Metric.COSINE, rows[1400:], subjects[1400:], rows[1450])[:2]
    assert gallery.remove(SubjectId(subjects[1450])) == 1
    assert gallery.search(rows[1450], k=1)[0].subject_id != subjects[1450]


def test_readers_see_whole_subjects_while_writers_work() -> None:
    """A person whose templates come and go is found with all or not at all; the resident is always found."""
    rng = np.random.default_rng(8)
    rows, subjects = faces(rng, 2000, 1, 32, steep=False)
    gallery = loaded(Metric.COSINE, rows[:600], subjects[:600], background=True)
    stop, known = threading.Event(), set(subjects)
    wrong: list[str] = []

    def read() -> None:
        while not stop.is_set():
            if gallery.search(rows[5], k=1)[0].subject_id != subjects[5]:
                wrong.append("the resident was missed")
            if not {candidate.subject_id for candidate in gallery.search(rows[700], k=2)} <= known:
                wrong.append("a removed row was returned")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for i in range(600, 2000):
        gallery.add(SubjectId(subjects[i]), TemplateId(f"t{i}"), rows[i])
        if i % 2:
            gallery.remove(SubjectId(subjects[i - 1]))
    gallery.settle()
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    kept = [i for i in range(2000) if i < 600 or i % 2]
    assert len(gallery) == len(kept)
    expected = oracle(Metric.COSINE, rows[kept], [subjects[i] for i in kept], rows[701])
    assert gallery.search(rows[701], k=3) == expected[:3]


def test_a_search_waits_for_no_writer() -> None:
    """Readers take no lock: they answer while a writer holds it."""
    rng = np.random.default_rng(10)
    rows, subjects = faces(rng, 400, 1, 16, steep=False)
    gallery = loaded(Metric.COSINE, rows, subjects)
    found: list[list[Candidate]] = []
    with gallery._write:
        reader = threading.Thread(target=lambda: found.append(gallery.best_two(rows[3], threshold=0.9, margin=0.0)))
        reader.start()
        reader.join(timeout=30)
    assert [candidates[0].subject_id for candidates in found] == [subjects[3]]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("metric", METRICS)
def test_rows_that_the_bound_does_not_cover_are_found_and_leave_with_their_subject(
    metric: Metric, kernel: Kernel
) -> None:
    """Here half of all, since the basis is told to bear half of the rounding it bears."""
    rng = np.random.default_rng(11)
    rows, subjects = faces(rng, 600, 1, 64, steep=False)
    gallery = loaded(metric, rows, subjects, kernel)
    (segment,) = gallery._segments
    assert segment.basis is not None
    slip = segment.basis.code(rows, np.linalg.norm(rows.astype(np.float64), axis=1)).slip
    segment.encode(replace(segment.basis, slip=float(np.median(slip))), gallery._kernel)
    gallery._publish()
    outlying = segment.outliers.tolist()
    assert len(outlying) == 300
    for i in (*outlying[:10], *range(10)):
        ranked = oracle(metric, rows, subjects, rows[i])
        assert gallery.search(rows[i], k=2) == ranked[:2]
        assert gallery.best_two(rows[i], threshold=ranked[0].score, margin=0.0) == ranked[:1]
    first = outlying[0]
    gallery.remove(SubjectId(subjects[first]))
    left = oracle(metric, np.delete(rows, first, 0), [s for s in subjects if s != subjects[first]], rows[first])
    assert gallery.search(rows[first], k=2) == left[:2]


@pytest.mark.parametrize("metric", METRICS)
def test_many_templates_alike_are_searched_to_the_end(metric: Metric) -> None:
    """The best rows are all one person's, hundreds of them: the second person must be found behind them."""
    rng = np.random.default_rng(12)
    rows, subjects = faces(rng, 500, 1, 32, steep=False)
    crowd = np.repeat(rows[:1], 700, 0) + rng.standard_normal((700, 32)).astype(np.float32) * np.float32(1e-3)
    every, names = np.concatenate([rows, crowd]), [*subjects, *["crowd"] * 700]
    gallery = loaded(metric, every, names)
    expected = oracle(metric, every, names, rows[0])
    assert gallery.search(rows[0], k=3) == expected[:3]
    assert gallery.best_two(rows[0], threshold=-3.0, margin=9.0) == expected[:2]
    assert gallery.best_two(rows[0], threshold=expected[0].score, margin=0.0) == expected[:1]


@pytest.mark.parametrize("metric", METRICS)
def test_answers_stay_while_a_new_basis_is_taken_up(metric: Metric) -> None:
    """Segments of two bases at once, and one of none: the spectrum changes as the gallery grows."""
    rng = np.random.default_rng(13)
    old, _ = faces(rng, 1_000, 1, 32, steep=True)
    new, _ = faces(rng, 3_500, 1, 32, steep=False)
    every = np.concatenate([old, new])
    names = [f"s{i}" for i in range(len(every))]
    gallery = loaded(metric, old, names[: len(old)])
    gallery.add_many((SubjectId(names[i]), TemplateId(f"n{i}"), every[i]) for i in range(len(old), len(every)))
    gallery._retune()
    gallery._recode(gallery._segments[0])
    gallery._publish()
    assert len(gallery._snapshot) == 2
    for probe in (*old[:3], *new[:3], old[4] + new[4]):
        expected = oracle(metric, every, names, probe)
        assert gallery.search(probe, k=2) == expected[:2]
        gap = expected[0].score - expected[1].score
        for margin in (0.0, gap, float(np.nextafter(gap, 9.0))):
            answer = gallery.best_two(probe, threshold=expected[0].score, margin=margin)
            assert answer == decided(expected, expected[0].score, margin)


def test_a_sample_holds_live_rows_with_their_subjects() -> None:
    rng = np.random.default_rng(9)
    rows, subjects = faces(rng, 50, 1, 8, steep=False)
    gallery = loaded(Metric.COSINE, rows, subjects)
    gallery.remove(SubjectId(subjects[3]))
    drawn, names = gallery.sample(1000)
    assert len(drawn) == len(names) == 49
    assert all((drawn[i] == rows[subjects.index(name)]).all() for i, name in enumerate(names))


def test_an_allocator_that_returns_something_else_is_refused() -> None:
    gallery = VectorGallery(8, allocate=lambda shape: np.zeros(shape, np.float64))
    with pytest.raises(ValueError, match="allocator"):
        gallery.add(SubjectId("a"), TemplateId("1"), np.ones(8))
