"""A gallery through any order of enrolments, removals and upkeep, beside a plain list compared in float64."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from templates_store.gallery.vectors import Metric, VectorGallery
from templates_store.gallery.vectors_scan import NumpyKernel, best_kernel
from templates_store.template import SubjectId, TemplateId
from tests.templates_store.gallery.vectors_oracle import decided, oracle

DIMENSION = 12
PEOPLE = 40
SEEDS = st.integers(0, 2**32 - 1)


class ChangingGallery(RuleBasedStateMachine):
    @initialize(metric=st.sampled_from(list(Metric)), numpy=st.booleans(), seed=SEEDS)
    def begin(self, metric: Metric, numpy: bool, seed: int) -> None:
        self.metric = metric
        self.centres = np.random.default_rng(seed).standard_normal((PEOPLE, DIMENSION)).astype(np.float32)
        self.gallery = VectorGallery(
            DIMENSION, metric=metric, kernel=NumpyKernel() if numpy else best_kernel(), background=False
        )
        self.held: dict[str, tuple[str, np.ndarray]] = {}  # template -> subject, vector
        self.made = 0

    def _drawn(self, seed: int, count: int) -> list[tuple[SubjectId, TemplateId, np.ndarray]]:
        """Samples of random people; every fifth a duplicate of a centre, every fortieth far off."""
        rng = np.random.default_rng(seed)
        entries = []
        for person in rng.integers(0, PEOPLE, count):
            kind = rng.integers(40)
            noise = 0.0 if kind % 5 == 0 else 0.3
            vector = self.centres[person] + noise * rng.standard_normal(DIMENSION)
            self.made += 1
            far = np.float32(30.0 if kind == 1 else 1.0)
            entries.append((SubjectId(f"s{person}"), TemplateId(f"t{self.made}"), vector.astype(np.float32) * far))
        return entries

    @rule(seed=SEEDS)
    def enrol(self, seed: int) -> None:
        for subject, template, vector in self._drawn(seed, 3):
            self.gallery.add(subject, template, vector)
            self.held[template] = (subject, vector)

    @rule(seed=SEEDS, count=st.sampled_from([10, 300, 1_500]))
    def load(self, seed: int, count: int) -> None:
        entries = self._drawn(seed, count)
        self.gallery.add_many(entries)
        self.held |= {template: (subject, vector) for subject, template, vector in entries}

    @rule(person=st.integers(0, PEOPLE - 1))
    def withdraw(self, person: int) -> None:
        subject = f"s{person}"
        gone = [template for template, (whose, _) in self.held.items() if whose == subject]
        assert self.gallery.remove(SubjectId(subject)) == len(gone)
        for template in gone:
            del self.held[template]

    @precondition(lambda self: self.held)
    @rule(seed=SEEDS)
    def remove_one(self, seed: int) -> None:
        template = sorted(self.held)[seed % len(self.held)]
        assert self.gallery.remove_template(TemplateId(template))
        del self.held[template]

    @rule()
    def maintain(self) -> None:
        self.gallery.maintain()

    @rule(seed=SEEDS, margin=st.sampled_from([0.0, 0.02, 0.5]))
    def compare(self, seed: int, margin: float) -> None:
        rng = np.random.default_rng(seed)
        probe = self.centres[rng.integers(PEOPLE)] + 0.2 * rng.standard_normal(DIMENSION) * rng.integers(2)
        vectors = np.array([vector for _, vector in self.held.values()], np.float32).reshape(-1, DIMENSION)
        ranked = oracle(self.metric, vectors, [subject for subject, _ in self.held.values()], probe)
        for k in (1, 2, 5):
            assert self.gallery.search(probe, k=k) == ranked[:k]
        best = ranked[0].score if ranked else 0.0
        gap = best - ranked[1].score if len(ranked) > 1 else 0.0
        for threshold in (best, float(np.nextafter(best, 9.0)), float(np.nextafter(best, -9e9)), -0.4):
            for near in (margin, gap, float(np.nextafter(gap, 9.0))):
                answer = self.gallery.best_two(probe, threshold=threshold, margin=near)
                assert answer == decided(ranked, threshold, near)

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "gallery"):
            assert len(self.gallery) == len(self.held)
            assert self.gallery.subjects == {subject for subject, _ in self.held.values()}


TestChangingGallery = ChangingGallery.TestCase
TestChangingGallery.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
