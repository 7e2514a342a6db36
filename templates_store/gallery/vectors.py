"""Exact 1:N over float embeddings, several times faster than reading them.

One thread reads int8 codes instead of floats (`vectors_scan`), excludes every row a proven bound allows
to exclude (`vectors_basis`) and compares the few that are left in float64. So scores, order and ties are
those of a float64 comparison with every row. Enrolling and removing touch one segment; readers work on
immutable snapshots and wait for nobody (`vectors_segment`). The basis is chosen for the data by trial and
renewed in the background as the gallery grows.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from templates_store.errors import BadTemplate, Duplicate
from templates_store.gallery.vectors_basis import Basis, Metric, tune
from templates_store.gallery.vectors_scan import Kernel, best_kernel
from templates_store.gallery.vectors_search import Search
from templates_store.gallery.vectors_segment import SEGMENT_ROWS, SMALLEST, Allocate, Group, Segment, grouped
from templates_store.template import Candidate, SubjectId, TemplateId

__all__ = ["Metric", "VectorGallery"]

FIRST_TUNING = 256  # rows; below it comparing all of them in float64 is as fast
RETUNE_GROWTH = 4  # times
SAMPLE_ROWS = 8_192
SPARSE = 0.5  # a segment with more dead rows than this share is compacted
LARGEST_DIMENSION = 4_096
SHARDS = 1_024  # a dictionary of a million entries stalls for tens of ms when it grows; these never do
Key = TypeVar("Key", bound=str)
Value = TypeVar("Value")


class VectorGallery:
    """Templates of one pipeline, searchable. Writers exclude one another; readers are never blocked."""

    def __init__(
        self,
        dimension: int,
        *,
        metric: Metric = Metric.COSINE,
        allocate: Allocate | None = None,
        kernel: Kernel | None = None,
        background: bool = True,
    ) -> None:
        """`allocate(shape)` provides the float32 rows, e.g. locked in memory; `background=False` leaves
        renewing the basis and compaction to calls of `maintain`."""
        if not 1 <= dimension <= LARGEST_DIMENSION:
            raise ValueError(f"dimension must be within 1..{LARGEST_DIMENSION}")
        self.dimension = dimension
        self.metric = Metric(metric)
        self._allocate: Allocate = allocate or (lambda shape: np.zeros(shape, np.float32))
        self._kernel = kernel or best_kernel()
        self._background = background
        self._write = threading.Lock()
        self._upkeep = threading.Lock()
        self._worker: threading.Thread | None = None
        self._segments: list[Segment] = []
        self._spare: Segment | None = None
        self._snapshot: tuple[Group, ...] = ()
        self._basis: Basis | None = None
        self._tuned_at = 0
        self._rows = 0
        self._number = 0
        self._by_number: dict[int, Segment] = {}
        self._numbers: dict[int, int] = {}
        self._places: list[dict[TemplateId, int]] = [{} for _ in range(SHARDS)]  # number * SEGMENT_ROWS + row
        self._subjects: list[dict[SubjectId, tuple[TemplateId, ...]]] = [{} for _ in range(SHARDS)]

    def __len__(self) -> int:
        """Templates."""
        return self._rows

    @property
    def subjects(self) -> set[SubjectId]:
        with self._write:
            return {subject for shard in self._subjects for subject in shard}

    def add(self, subject_id: SubjectId, template_id: TemplateId, vector: ArrayLike) -> None:
        """Raises BadTemplate for a wrong shape, NaN, infinity or (cosine) no length; Duplicate for a known id."""
        self.add_many([(subject_id, template_id, vector)])

    def add_many(self, entries: Iterable[tuple[SubjectId, TemplateId, ArrayLike]]) -> None:
        """All or none. Found by every search that starts after the return."""
        listed = list(entries)
        if not listed:
            return
        matrix, norms = self._checked([vector for _, _, vector in listed])
        subjects = [subject for subject, _, _ in listed]
        templates = [template for _, template, _ in listed]
        with self._write:
            if len(set(templates)) < len(templates) or any(t in self._shard(self._places, t) for t in templates):
                raise Duplicate("template id exists")
            self._append(matrix, norms, subjects, templates)
            if self._basis is None and self._rows >= FIRST_TUNING and len(listed) >= FIRST_TUNING:
                self._renew_all()
            self._publish()
        self._care()

    def remove(self, subject_id: SubjectId) -> int:
        """Every template of a subject; how many there were. No search that starts after the return finds them."""
        with self._write:
            templates = self._shard(self._subjects, subject_id).pop(subject_id, ())
            for template in templates:
                self._wipe(template)
            self._publish()
        self._care()
        return len(templates)

    def remove_template(self, template_id: TemplateId) -> bool:
        with self._write:
            if template_id not in self._shard(self._places, template_id):
                return False
            segment, row = self._place(template_id)
            subject: SubjectId = segment.subjects[row]
            shard = self._shard(self._subjects, subject)
            left = tuple(template for template in shard[subject] if template != template_id)
            if left:
                shard[subject] = left
            else:
                del shard[subject]
            self._wipe(template_id)
            self._publish()
        self._care()
        return True

    def search(self, probe: ArrayLike, *, k: int) -> list[Candidate]:
        """The best `k` subjects, highest score first, equal scores by subject id.

        `probe` has shape (D,). Score: the float64 cosine, or minus the Euclidean distance; the maximum over
        a subject's templates. Raises ValueError for another shape, NaN, or a length of zero under cosine.
        """
        if k < 1:
            raise ValueError("k must be at least 1")
        return self._search(probe).best(k)

    def best_two(self, probe: ArrayLike, *, threshold: float, margin: float) -> list[Candidate]:
        """What a decision needs: the best subject if it reaches `threshold`, and the second if it is less than
        `margin` behind; decided as a float64 comparison with every row would.
        """
        if math.isnan(threshold) or not margin >= 0.0:
            raise ValueError("threshold must be a number, margin not negative")
        return self._search(probe).decide(float(threshold), float(margin))

    def scores(self, probe: ArrayLike, subject_id: SubjectId) -> list[float]:
        """1:1: the scores of one subject's templates; empty for an unknown subject."""
        search = self._search(probe)
        with self._write:
            templates = self._shard(self._subjects, subject_id).get(subject_id, ())
            places = [self._place(template) for template in templates]
        return [score for segment, row in places for score in search.score(segment, np.array([row]))]

    def sample(self, count: int, *, seed: int = 0) -> tuple[NDArray[np.float32], list[SubjectId]]:
        """Up to `count` rows drawn at random with their subjects, for calibration and tuning."""
        parts = [part for group in self._snapshot for part in group.parts]
        total = sum(count for _, count in parts)
        chosen = np.sort(np.random.default_rng(seed).permutation(total)[:count])
        rows: list[NDArray[np.float32]] = [np.empty((0, self.dimension), np.float32)]
        subjects: list[SubjectId] = []
        start = 0
        for segment, count in parts:
            local = chosen[(chosen >= start) & (chosen < start + count)] - start
            start += count
            taken, names = segment.rows[local], segment.subjects[local]
            live = segment.alive[local]  # asked last: a row wiped meanwhile is no sample
            rows.append(taken[live])
            subjects.extend(names[live])
        return np.concatenate(rows), subjects

    def maintain(self) -> None:
        """Renew the basis if the gallery has outgrown it, compact what is mostly removed. Blocks for seconds at
        a million rows; searches go on, writers wait a few milliseconds at most."""
        with self._upkeep:
            if self._outgrown():
                self._retune()
            for segment in list(self._segments):
                if segment.basis is not self._basis:
                    self._recode(segment)
            for segment in list(self._segments):
                if segment.dead > SPARSE * segment.count:
                    self._compact(segment)
            self._provide_spare()

    def settle(self) -> None:
        """Wait for maintenance that is under way."""
        worker = self._worker
        if worker is not None:
            worker.join()

    def _search(self, probe: ArrayLike) -> Search:
        wide = np.asarray(probe, np.float64)
        norm = math.sqrt(np.add.reduce(wide * wide)) if wide.shape == (self.dimension,) else math.nan
        if not math.isfinite(norm):
            raise ValueError(f"a probe is {self.dimension} finite numbers")
        if self.metric is Metric.COSINE and norm == 0.0:
            raise ValueError("a probe of length zero has no direction to compare")
        return Search(self.metric, self._snapshot, self._kernel, probe=wide, norm=norm)

    # writers, all under self._write

    def _checked(self, vectors: Sequence[ArrayLike]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        try:
            matrix = np.stack([np.asarray(vector, np.float32) for vector in vectors])
        except (ValueError, TypeError) as exc:
            raise BadTemplate(f"a vector of {self.dimension} numbers is wanted") from exc
        if matrix.shape[1:] != (self.dimension,):
            raise BadTemplate(f"a vector of {self.dimension} numbers is wanted")
        if not np.isfinite(matrix).all():
            raise BadTemplate("a vector holds NaN or infinity")
        norms = np.sqrt(np.square(matrix, dtype=np.float64).sum(axis=1))
        if self.metric is Metric.COSINE and not norms.all():
            raise BadTemplate("a vector of length zero has no direction to compare")
        return matrix, norms

    def _append(
        self,
        matrix: NDArray[np.float32],
        norms: NDArray[np.float64],
        subjects: list[SubjectId],
        templates: list[TemplateId],
    ) -> None:
        done = 0
        while done < len(matrix):
            segment = self._open(len(matrix) - done)
            part = slice(done, done + min(segment.room, len(matrix) - done))
            first = segment.count
            segment.append(matrix[part], norms[part], subjects[part], templates[part], self._kernel)
            self._settle_in(segment, first)
            for subject, template in zip(subjects[part], templates[part], strict=True):
                shard = self._shard(self._subjects, subject)
                shard[subject] = (*shard.get(subject, ()), template)
            done = part.stop
        self._rows += len(matrix)

    def _open(self, wanted: int) -> Segment:
        """The segment to append to; a new one as large as the gallery so far, within limits."""
        if self._segments and self._segments[-1].room:
            return self._segments[-1]
        size = min(SEGMENT_ROWS, max(SMALLEST, 1 << (max(wanted, self._rows) - 1).bit_length()))
        segment = self._spare if self._spare is not None else Segment(size, self.dimension, self._allocate)
        self._spare = None
        if self._basis is not None:
            segment.encode(self._basis, self._kernel)
        self._enlist(segment)
        self._segments.append(segment)
        return segment

    def _wipe(self, template: TemplateId) -> None:
        segment, row = self._place(template)
        del self._shard(self._places, template)[template]
        segment.remove(row, self._kernel)
        self._rows -= 1

    def _publish(self) -> None:
        self._snapshot = grouped(self._segments)

    def _place(self, template: TemplateId) -> tuple[Segment, int]:
        number, row = divmod(self._shard(self._places, template)[template], SEGMENT_ROWS)
        return self._by_number[number], row

    def _settle_in(self, segment: Segment, first: int) -> None:
        """Note where the rows from `first` on are. Plain ints: a million tuples would slow every collection."""
        base = self._numbers[id(segment)] * SEGMENT_ROWS
        for row, template in enumerate(segment.templates[first : segment.count], first):
            self._shard(self._places, template)[template] = base + row

    def _enlist(self, segment: Segment) -> None:
        self._number += 1
        self._by_number[self._number] = segment
        self._numbers[id(segment)] = self._number

    def _strike(self, segment: Segment) -> None:
        del self._by_number[self._numbers.pop(id(segment))]

    @staticmethod
    def _shard(shards: list[dict[Key, Value]], key: Key) -> dict[Key, Value]:
        return shards[hash(key) % SHARDS]

    # upkeep

    def _care(self) -> None:
        """Start maintenance if some is due and none is under way."""
        if not self._background or not self._due() or (self._worker is not None and self._worker.is_alive()):
            return
        self._worker = threading.Thread(target=self.maintain, name="gallery-upkeep", daemon=True)
        self._worker.start()

    def _due(self) -> bool:
        return (
            self._outgrown()
            or self._crowded()
            or any(s.basis is not self._basis or s.dead > SPARSE * s.count for s in list(self._segments))
        )

    def _outgrown(self) -> bool:
        return self._rows >= max(FIRST_TUNING, RETUNE_GROWTH * self._tuned_at)

    def _crowded(self) -> bool:
        """Will the open segment be full soon? Locking 32 MB in memory takes longer than an enrolment may."""
        return self._spare is None and self._rows >= SEGMENT_ROWS // 2 and self._segments[-1].room < SEGMENT_ROWS // 8

    def _tuned(self) -> Basis:
        rows, subjects = self.sample(SAMPLE_ROWS, seed=self._rows)
        _, one_each = np.unique(np.asarray(subjects, object).astype(str), return_index=True)
        alone = rows[one_each] if len(one_each) >= FIRST_TUNING // 2 else rows
        return tune(self.metric, alone, self._kernel, rows=self._rows)

    def _renew_all(self) -> None:
        """At the first bulk load, under the writer's lock: there is nobody to wait for it yet."""
        self._publish()
        self._basis = self._tuned()
        self._tuned_at = self._rows
        for segment in self._segments:
            segment.encode(self._basis, self._kernel)

    def _retune(self) -> None:
        rows = self._rows
        basis = self._tuned()
        with self._write:
            self._basis, self._tuned_at = basis, rows
            if self._spare is not None:
                self._spare.basis = None  # encoded when it is taken up

    def _recode(self, segment: Segment) -> None:
        with self._write:
            basis, twin = self._basis, segment.shadow()
        if basis is None:
            return
        twin.encode(basis, self._kernel)
        with self._write:
            segment.adopt(twin, self._kernel)
            self._publish()

    def _compact(self, segment: Segment) -> None:
        version = segment.version
        smaller = segment.compacted(self.dimension, self._allocate, self._kernel)
        with self._write:
            if segment.version != version or segment not in self._segments:
                return  # changed meanwhile; there will be another time
            place = self._segments.index(segment)
            self._strike(segment)
            if smaller.count:
                self._enlist(smaller)
                self._segments[place] = smaller
                self._settle_in(smaller, 0)
            else:
                del self._segments[place]
            self._publish()

    def _provide_spare(self) -> None:
        if self._crowded():
            spare = Segment(SEGMENT_ROWS, self.dimension, self._allocate)
            with self._write:
                self._spare = spare
