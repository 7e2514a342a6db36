"""The opened templates in memory, one gallery for each modality, purpose and pipeline, with the consents they rest on.

Templates are added after `store.enrol` and taken out before an erasure returns: from then on no search finds the
person. A sealed store means empty galleries and says so; cards and PINs go on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from templates_store.gallery.finger_template import MinutiaeTemplate
from templates_store.gallery.minutiae import MinutiaeGallery, compare
from templates_store.gallery.vectors import VectorGallery
from templates_store.template import Candidate, Consent, Modality, Purpose, SubjectId, Template, TemplateId

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

    def __init__(self) -> None:
        self._vectors: dict[Key, VectorGallery] = {}
        self._fingers: dict[Key, _Fingers] = {}
        self._consents: dict[tuple[SubjectId, Modality, Purpose], Consent] = {}
        self._writing = threading.Lock()
        self.sealed = True

    def restore(self, templates: Iterable[Template], consents: Iterable[Consent]) -> int:
        """Fill empty galleries from an opened store. How many templates are searchable."""
        vectors: dict[Key, list[tuple[SubjectId, TemplateId, NDArray[np.float32]]]] = {}
        with self._writing:
            self._clear()
            self._consents = {(c.subject_id, c.modality, c.purpose): c for c in consents}
            for template in templates:
                key = _key(template)
                if template.format.pipeline.startswith(OPAQUE):
                    continue
                if template.format.dimension:
                    vectors.setdefault(key, []).append((template.subject_id, template.template_id, _vector(template)))
                else:
                    self._add_finger(key, template)
            for key, rows in vectors.items():
                gallery = VectorGallery(rows[0][2].shape[0])
                gallery.add_many(rows)
                self._vectors[key] = gallery
            self.sealed = False
        return self.count()

    def seal(self) -> None:
        """The keys are gone: forget everything that was opened."""
        with self._writing:
            self._clear()
            self.sealed = True

    def add(self, consent: Consent, templates: Iterable[Template]) -> None:
        """After `store.enrol`. Raises BadTemplate, Duplicate."""
        listed = list(templates)
        with self._writing:
            for template in listed:
                if template.format.pipeline.startswith(OPAQUE):
                    continue
                key = _key(template)
                if template.format.dimension:
                    gallery = self._vectors.get(key)
                    if gallery is None:
                        gallery = self._vectors[key] = VectorGallery(template.format.dimension)
                    gallery.add(template.subject_id, template.template_id, _vector(template))
                else:
                    self._add_finger(key, template)
            self._consents[consent.subject_id, consent.modality, consent.purpose] = consent

    def renew(self, consent: Consent) -> None:
        """A new consent for templates that are there already."""
        with self._writing:
            self._consents[consent.subject_id, consent.modality, consent.purpose] = consent

    def remove(self, subject_id: SubjectId, *, modality: Modality | None = None, purpose: Purpose | None = None) -> int:
        """Every template within the scope; no search that starts after the return finds them."""
        removed = 0
        with self._writing:
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

    def consent(self, subject_id: SubjectId, modality: Modality, purpose: Purpose) -> Consent | None:
        return self._consents.get((subject_id, modality, purpose))

    def consents(self) -> list[Consent]:
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

    def _add_finger(self, key: Key, template: Template) -> None:
        fingers = self._fingers.setdefault(key, _Fingers())
        minutiae = MinutiaeTemplate.decode(template.payload)
        fingers.gallery.add(template.subject_id, template.template_id, minutiae)
        known = fingers.by_subject.get(template.subject_id, ())
        fingers.by_subject[template.subject_id] = (*known, (template.position, minutiae))

    def _clear(self) -> None:
        self._vectors, self._fingers, self._consents = {}, {}, {}


def _key(template: Template) -> Key:
    return template.modality, template.purpose, template.format.pipeline


def _vector(template: Template) -> NDArray[np.float32]:
    return np.frombuffer(template.payload, "<f4").astype(np.float32)
