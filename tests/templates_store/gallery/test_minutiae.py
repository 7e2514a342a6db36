"""1:N search over fingers: right person, several impressions, removal, snapshots, the prefilter."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from templates_store.errors import Duplicate
from templates_store.gallery import minutiae
from templates_store.gallery.finger_code import prepare
from templates_store.gallery.finger_template import MinutiaeTemplate
from templates_store.gallery.minutiae import MinutiaeGallery, compare
from templates_store.template import SubjectId, TemplateId
from tests.templates_store.gallery.fingers import again, finger, nothing

Row = tuple[SubjectId, TemplateId, MinutiaeTemplate]


def row(seed: int) -> Row:
    return SubjectId(f"s{seed}"), TemplateId(f"t{seed}"), finger(seed)


def filled(count: int) -> MinutiaeGallery:
    gallery = MinutiaeGallery()
    gallery.add_all([row(seed) for seed in range(count)])
    return gallery


def test_finds_the_person_with_the_score_of_a_comparison() -> None:
    gallery = filled(40)
    probe = again(finger(17), 1)
    best, second = gallery.search(probe, k=2)
    assert best.subject_id == "s17"
    assert best.score == pytest.approx(compare(probe, finger(17)), abs=1e-4)
    assert second.score < best.score - 0.1


def test_a_subject_is_as_alike_as_its_best_impression_and_listed_once() -> None:
    gallery = filled(10)
    gallery.add(SubjectId("s3"), TemplateId("other finger"), finger(100))
    gallery.add(SubjectId("s3"), TemplateId("again"), again(finger(3), 7))
    found = gallery.search(again(finger(100), 2), k=5)
    assert found[0].subject_id == "s3"
    assert found[0].score == pytest.approx(compare(again(finger(100), 2), finger(100)), abs=1e-4)
    assert len({candidate.subject_id for candidate in found}) == len(found)


def test_refuses_an_id_twice_and_then_holds_nothing_of_the_batch() -> None:
    gallery = filled(2)
    with pytest.raises(Duplicate):
        gallery.add(*row(1))
    with pytest.raises(Duplicate):
        gallery.add_all([row(5), row(6), row(5)])
    assert len(gallery) == 2


def test_a_removed_subject_is_in_no_array_and_may_enrol_again() -> None:
    gallery = filled(20)
    gallery.add(SubjectId("s4"), TemplateId("second"), finger(60))
    assert gallery.remove(SubjectId("s4")) == 2
    assert gallery.remove(SubjectId("s4")) == 0
    assert len(gallery) == 19
    assert all(found.subject_id != "s4" for found in gallery.search(finger(4), k=19))
    gone = prepare(finger(4)).cylinders.bits[0].tobytes()
    assert not any(gone in block.segment.bits.tobytes() for block in gallery._blocks)
    gallery.add(*row(4))
    assert gallery.search(finger(4), k=1)[0].subject_id == "s4"


def test_an_empty_gallery_and_an_empty_probe_find_nobody() -> None:
    assert MinutiaeGallery().search(finger(1), k=1) == []
    assert filled(3).search(nothing(), k=1) == []
    gallery = MinutiaeGallery()
    gallery.add(SubjectId("s"), TemplateId("t"), nothing())
    assert gallery.search(finger(1), k=1) == []
    assert gallery.remove(SubjectId("s")) == 1
    assert gallery.search(finger(1), k=1) == []


def test_asks_for_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least one"):
        filled(1).search(finger(0), k=0)


def test_segments_fill_up_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minutiae, "SEGMENT", 8)
    gallery = filled(5)
    for seed in range(5, 30):
        gallery.add(*row(seed))
    assert [len(block.ids) for block in gallery._blocks] == [8, 8, 8, 6]
    for seed in (0, 11, 29):
        assert gallery.search(again(finger(seed), 1), k=1)[0].subject_id == f"s{seed}"


def test_the_prefilter_keeps_the_person_in(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = filled(120)
    probes = {seed: again(finger(seed), 3) for seed in range(0, 120, 12)}
    everything = {seed: gallery.search(probe, k=1) for seed, probe in probes.items()}
    monkeypatch.setattr(minutiae, "EXHAUSTIVE", 50)
    monkeypatch.setattr(minutiae, "RELAXED", 12)
    for seed, probe in probes.items():
        found = gallery.search(probe, k=1)
        assert found[0].subject_id == everything[seed][0].subject_id == f"s{seed}"
        assert found[0].score == pytest.approx(everything[seed][0].score, abs=1e-5)


def test_searches_never_see_half_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minutiae, "SEGMENT", 8)
    gallery = filled(16)
    done = threading.Event()

    def churn() -> int:
        try:
            for number in range(15):
                gallery.add(SubjectId("guest"), TemplateId(f"guest {number}"), finger(200 + number))
                gallery.remove(SubjectId("guest"))
        finally:
            done.set()
        return len(gallery)

    probe = again(finger(9), 1)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(churn)
        while True:
            assert gallery.search(probe, k=1)[0].subject_id == "s9"
            if done.is_set():
                break
        assert writing.result() == 16


def test_equal_scores_are_ordered_by_subject() -> None:
    gallery = MinutiaeGallery()
    for name in ("b", "a", "c"):
        gallery.add(SubjectId(name), TemplateId(name), finger(1))
    found = gallery.search(again(finger(1), 2), k=3)
    assert [candidate.subject_id for candidate in found] == ["a", "b", "c"]
    assert np.ptp([candidate.score for candidate in found]) == 0.0


def test_strangers_inside_the_gallery_are_scored_for_calibration() -> None:
    gallery = filled(30)
    gallery.add(SubjectId("s3"), TemplateId("again"), again(finger(3), 7))
    scores = gallery.impostor_scores(comparisons=200, seed=1)
    assert 100 <= len(scores) <= 200
    assert scores.max() < 0.4  # the two impressions of s3 are not among them
    assert scores.tolist() == gallery.impostor_scores(comparisons=200, seed=1).tolist()
    assert len(filled(1).impostor_scores()) == 0
    assert len(MinutiaeGallery().impostor_scores()) == 0


def test_a_finger_with_too_many_minutiae_is_compared_by_its_best() -> None:
    crowded = finger(1, 200)
    assert len(prepare(crowded).position) == 128
    assert compare(crowded, again(crowded, 2, lost=0)) > 0.4
