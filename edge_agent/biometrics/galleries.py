"""The opened templates in memory, one gallery for each modality, purpose and pipeline, with the consents they rest on.

Templates are admitted after `store.enrol` and taken out before an erasure returns: from then on no search finds the
person. What was stored may be erased again before it is admitted here, so an admission says since when it may have
been, and a removal in between sends it back to the store to look. A sealed store means empty galleries and says so;
cards and PINs go on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from edge_agent.policy.consent import Given
from templates_store.errors import Duplicate
from templates_store.gallery.finger_template import MinutiaeTemplate
from templates_store.gallery.minutiae import MinutiaeGallery, compare
from templates_store.gallery.vectors import Metric, VectorGallery
from templates_store.records import Chunk, ConsentState
from templates_store.store import TemplateStore
from templates_store.template import Candidate, Modality, Purpose, SubjectId, Template, TemplateId

Key = tuple[Modality, Purpose, str]  # the last is the pipeline
Probe = NDArray[np.float32] | MinutiaeTemplate
OPAQUE = "device:"  # templates of a terminal: stored and placed, never searched here


@dataclass(slots=True)
class _Fingers:
    """Minutiae with what 1:1 needs: whose, which finger."""

    gallery: MinutiaeGallery = field(default_factory=MinutiaeGallery)
    by_subject: dict[SubjectId, tuple[tuple[int, MinutiaeTemplate], ...]] = field(default_factory=dict, repr=False)


class Galleries:
    """Readers are never blocked; writers exclude one another. Safe from several threads."""

    def __init__(self, metrics: Mapping[str, Metric] | None = None) -> None:
        """`metrics` by pipeline, where it is not cosine."""
        self._metrics = dict(metrics or {})
        self._vectors: dict[Key, VectorGallery] = {}
        self._fingers: dict[Key, _Fingers] = {}
        self._consents: dict[tuple[SubjectId, Modality, Purpose], Given] = {}
        self.enrolling = threading.Lock()  # from asking whose a sample is until it is searchable; while a store erases
        self._writing = threading.Lock()
        self._removals = 0
        self._removed: dict[SubjectId, int] = {}  # the last removal of each
        self._meanwhile: list[Callable[[Galleries], object]] | None = None  # changes while loading
        self.sealed = True

    def load(self, store: TemplateStore) -> int:
        """Fill them from an unsealed store; searches go on meanwhile. How many templates are searchable.

        What was enrolled or erased while this ran is applied on top. Raises Sealed, SealBroken.
        """
        with self._writing:
            self._meanwhile = []
        fresh = Galleries(self._metrics)
        live = store.expired(datetime.max.replace(tzinfo=UTC))
        fresh._consents = {(c.subject_id, c.modality, c.purpose): c for c in live if c.state is ConsentState.VALID}
        for modality in Modality:
            for purpose in Purpose:
                for pipeline in store.pipelines(modality, purpose):
                    if pipeline.startswith(OPAQUE):
                        continue
                    for chunk in store.load(modality, purpose, pipeline):
                        fresh._take(chunk, (modality, purpose, pipeline))
        with self._writing:
            for change in self._meanwhile or ():
                change(fresh)
            self._meanwhile = None
            self._vectors, self._fingers, self._consents = fresh._vectors, fresh._fingers, fresh._consents
            self.sealed = False
        return self.count()

    def _take(self, chunk: Chunk, key: Key) -> None:
        if chunk.vectors is not None:
            gallery = self._gallery(key, chunk.vectors.shape[1])
            gallery.add_many(zip(chunk.subject_ids, chunk.template_ids, chunk.vectors, strict=True))
            return
        minutiae = [MinutiaeTemplate.decode(payload) for payload in chunk.payloads]
        fingers = self._fingers.setdefault(key, _Fingers())
        fingers.gallery.add_all(zip(chunk.subject_ids, chunk.template_ids, minutiae, strict=True))
        for subject, position, template in zip(chunk.subject_ids, chunk.positions, minutiae, strict=True):
            fingers.by_subject[subject] = (*fingers.by_subject.get(subject, ()), (int(position), template))

    def open_empty(self) -> None:
        """Nothing is stored yet: searches answer that the gallery is empty, not that it is sealed."""
        with self._writing:
            self._clear()
            self.sealed = False

    def seal(self) -> None:
        """The keys are gone: forget everything that was opened."""
        with self._writing:
            self._clear()
            self.sealed = True

    @property
    def moment(self) -> int:
        """How many removals there were: to be read before templates are stored, for `admit`."""
        return self._removals

    def admit(self, consent: Given, templates: Iterable[Template], *, since: int, held: Callable[[], bool]) -> bool:
        """Make stored templates searchable; False if they were erased meanwhile. Blocks. Raises BadTemplate.

        `since` is the `moment` before they were stored, `held` asks the store whether it has them still. A template
        that is there already stays.
        """
        listed = [template for template in templates if not template.format.pipeline.startswith(OPAQUE)]
        while True:
            with self._writing:
                if self._removed.get(consent.subject_id, 0) <= since:
                    self._add(consent, listed)
                    if self._meanwhile is not None:
                        self._meanwhile.append(lambda fresh: fresh._add(consent, listed))
                    return True
                since = self._removals
            if not held():
                return False

    def _add(self, consent: Given, templates: Iterable[Template]) -> None:
        for template in templates:
            key = (template.modality, template.purpose, template.format.pipeline)
            with contextlib.suppress(Duplicate):
                if template.format.dimension:
                    gallery = self._gallery(key, template.format.dimension)
                    gallery.add(template.subject_id, template.template_id, np.frombuffer(template.payload, "<f4"))
                else:
                    self._add_finger(
                        key, template.subject_id, template.template_id, template.position, template.payload
                    )
        self._consents[consent.subject_id, consent.modality, consent.purpose] = consent

    def remove(self, subject_id: SubjectId, *, modality: Modality | None = None, purpose: Purpose | None = None) -> int:
        """Every template within the scope; no search that starts after the return finds them."""
        with self._writing:
            self._removals += 1
            self._removed[subject_id] = self._removals
            if self._meanwhile is not None:
                self._meanwhile.append(lambda fresh: fresh._remove(subject_id, modality, purpose))
            return self._remove(subject_id, modality, purpose)

    def _remove(self, subject_id: SubjectId, modality: Modality | None, purpose: Purpose | None) -> int:
        removed = 0
        for key, gallery in self._vectors.items():
            if modality in (None, key[0]) and purpose in (None, key[1]):
                removed += gallery.remove(subject_id)
        for key, fingers in self._fingers.items():
            if modality in (None, key[0]) and purpose in (None, key[1]):
                fingers.by_subject.pop(subject_id, None)
                removed += fingers.gallery.remove(subject_id)
        for found in [k for k in self._consents if k[0] == subject_id]:
            if modality in (None, found[1]) and purpose in (None, found[2]):
                del self._consents[found]
        return removed

    def consent(self, subject_id: SubjectId, modality: Modality, purpose: Purpose) -> Given | None:
        return self._consents.get((subject_id, modality, purpose))

    def consents(self) -> list[Given]:
        with self._writing:
            return list(self._consents.values())

    def count(self, modality: Modality | None = None, purpose: Purpose | None = None, pipeline: str = "") -> int:
        """Templates that a search would look at."""
        galleries = {key: len(gallery) for key, gallery in list(self._vectors.items())}
        galleries |= {key: len(fingers.gallery) for key, fingers in list(self._fingers.items())}
        return sum(
            size
            for key, size in galleries.items()
            if modality in (None, key[0]) and purpose in (None, key[1]) and pipeline in ("", key[2])
        )

    def vectors(self, modality: Modality, purpose: Purpose, pipeline: str) -> VectorGallery | None:
        return self._vectors.get((modality, purpose, pipeline))

    def search(self, modality: Modality, purpose: Purpose, pipeline: str, probe: Probe, *, k: int) -> list[Candidate]:
        """Best subjects; empty where there is no such gallery."""
        key = (modality, purpose, pipeline)
        if isinstance(probe, MinutiaeTemplate):
            fingers = self._fingers.get(key)
            return fingers.gallery.search(probe, k=k) if fingers else []
        gallery = self._vectors.get(key)
        return gallery.search(probe, k=k) if gallery else []

    def leading(
        self, modality: Modality, purpose: Purpose, pipeline: str, probe: Probe, *, threshold: float, margin: float
    ) -> list[Candidate]:
        """What a decision needs: at most the best two. A face below `threshold`, and one that is further than `margin`
        behind the best, need not be in it: looking for them is what a search of a large gallery is spared.
        """
        if isinstance(probe, MinutiaeTemplate):
            return self.search(modality, purpose, pipeline, probe, k=2)
        gallery = self._vectors.get((modality, purpose, pipeline))
        return gallery.best_two(probe, threshold=threshold, margin=margin) if gallery else []

    def scores(
        self, subject_id: SubjectId, modality: Modality, purpose: Purpose, pipeline: str, probe: Probe
    ) -> list[tuple[int, float]]:
        """1:1: (position, score) for each of the subject's templates."""
        key = (modality, purpose, pipeline)
        if isinstance(probe, MinutiaeTemplate):
            fingers = self._fingers.get(key)
            stored = fingers.by_subject.get(subject_id, ()) if fingers else ()
            return [(position, compare(probe, template)) for position, template in stored]
        gallery = self._vectors.get(key)
        return [(0, score) for score in gallery.scores(probe, subject_id)] if gallery else []

    def _add_finger(
        self, key: Key, subject_id: SubjectId, template_id: TemplateId, position: int, payload: bytes
    ) -> None:
        fingers = self._fingers.setdefault(key, _Fingers())
        minutiae = MinutiaeTemplate.decode(payload)
        fingers.gallery.add(subject_id, template_id, minutiae)
        fingers.by_subject[subject_id] = (*fingers.by_subject.get(subject_id, ()), (position, minutiae))

    def _gallery(self, key: Key, dimension: int) -> VectorGallery:
        if key not in self._vectors:
            self._vectors[key] = VectorGallery(dimension, metric=self._metrics.get(key[2], Metric.COSINE))
        return self._vectors[key]

    def _clear(self) -> None:
        self._vectors, self._fingers, self._consents = {}, {}, {}
