"""Rows of a gallery in segments: written in place past the end, published as immutable groups.

A segment never moves its rows, so growing costs no copy of what is there (doubling one array stalls
300 ms at a million rows). A writer appends behind the last published row, packs the segment's codes anew
and publishes; readers hold whatever they started with. A removed row is first marked, then wiped: a
reader that saw the wiped row looks at the mark afterwards and drops it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from templates_store.gallery.vectors_basis import Basis
from templates_store.gallery.vectors_scan import Codes, Kernel
from templates_store.template import SubjectId, TemplateId

SEGMENT_ROWS = 65_536  # packed anew at each enrolment: 2 ms; smaller ones slow the scan by their calls
SMALLEST = 1_024

Allocate = Callable[[tuple[int, int]], NDArray[np.float32]]
Rows = NDArray[np.intp]


class Segment:
    """Storage for up to `capacity` rows. One writer at a time; any number of readers through groups."""

    def __init__(self, capacity: int, dimension: int, allocate: Allocate) -> None:
        self.capacity = capacity
        self.rows = allocate((capacity, dimension))
        if self.rows.shape != (capacity, dimension) or self.rows.dtype != np.float32:
            raise ValueError("the allocator must return float32 of the shape asked for")
        self.norms = np.ones(capacity)
        self.subjects = np.empty(capacity, object)  # object arrays: the garbage collector does not walk them
        self.templates = np.empty(capacity, object)
        self.alive = np.zeros(capacity, bool)
        self.count = 0
        self.dead = 0
        self.version = 0  # rises with every change of what is stored
        self.basis: Basis | None = None
        self.pack: Any = None  # the codes as the kernel wants them
        self.outliers: Rows = np.empty(0, np.intp)  # rows that the basis' bound does not cover
        self._codes: Codes = np.empty((0, 0), np.int8)

    @property
    def room(self) -> int:
        return self.capacity - self.count

    def append(
        self,
        vectors: NDArray[np.float32],
        norms: NDArray[np.float64],
        subjects: list[SubjectId],
        templates: list[TemplateId],
        kernel: Kernel,
    ) -> None:
        first, last = self.count, self.count + len(vectors)
        self.rows[first:last] = vectors
        self.norms[first:last] = norms
        self.subjects[first:last] = subjects
        self.templates[first:last] = templates
        self.alive[first:last] = True
        self.count = last
        self.version += 1
        self._encode(first, kernel)

    def remove(self, row: int, kernel: Kernel) -> None:
        self.alive[row] = False  # before the wipe: see the module's docstring
        self.rows[row] = 0.0
        self.subjects[row] = self.templates[row] = None
        self.dead += 1
        self.version += 1
        if self.basis is not None:
            self._blank()
            self._repack(kernel)

    def encode(self, basis: Basis, kernel: Kernel) -> None:
        """Take up a basis: codes of all rows."""
        self.basis = basis
        self.outliers = np.empty(0, np.intp)
        self._codes = np.zeros((self.capacity, basis.depth), np.int8)
        self._encode(0, kernel)

    def shadow(self) -> Segment:
        """The same rows under another hand, to be encoded aside while this one serves."""
        return copy.copy(self)

    def adopt(self, twin: Segment, kernel: Kernel) -> None:
        """Take over what `twin`, a shadow of this segment, has encoded, and catch up with changes since."""
        self.basis, self._codes, self.pack, self.outliers = twin.basis, twin._codes, twin.pack, twin.outliers
        if self.version != twin.version:
            self._encode(twin.count, kernel)

    def compacted(self, dimension: int, allocate: Allocate, kernel: Kernel) -> Segment:
        """A segment with the live rows alone."""
        rows = np.flatnonzero(self.alive[: self.count])
        size = max(SMALLEST, 1 << max(0, len(rows) - 1).bit_length())
        smaller = Segment(size, dimension, allocate)
        if self.basis is not None:
            smaller.encode(self.basis, kernel)
        smaller.append(self.rows[rows], self.norms[rows], list(self.subjects[rows]), list(self.templates[rows]), kernel)
        return smaller

    def _encode(self, first: int, kernel: Kernel) -> None:
        """The rows from `first` on."""
        if self.basis is None:
            return
        for start in range(first, self.count, 4096):
            stop = min(start + 4096, self.count)
            self._codes[start:stop], outlying = self.basis.rows(self.rows[start:stop], self.norms[start:stop])
            self.outliers = np.concatenate([self.outliers, np.flatnonzero(outlying) + start])
        self._blank()
        self._repack(kernel)

    def _blank(self) -> None:
        """Nothing of a removed template stays in the codes."""
        if self.basis is not None and self.dead:
            self._codes[np.flatnonzero(~self.alive[: self.count])] = self.basis.blank()
            self.outliers = self.outliers[self.alive[self.outliers]]

    def _repack(self, kernel: Kernel) -> None:
        self.pack = kernel.pack(self._codes[: self.count]) if self.count else None


@dataclass(frozen=True, slots=True)
class Group:
    """What a reader may see of the segments that share a basis: of each its first rows."""

    basis: Basis | None
    parts: tuple[tuple[Segment, int], ...]  # with how many rows
    packs: tuple[Any, ...]
    starts: Rows  # where each part begins in a scan of all
    outliers: list[tuple[Segment, Rows]]

    def picked(self, rows: Rows) -> list[tuple[Segment, Rows]]:
        """Rows of the scan, ascending, as rows of their segments."""
        if len(self.parts) == 1:
            return [(self.parts[0][0], rows)]
        cuts = [*np.searchsorted(rows, self.starts).tolist(), len(rows)]
        return [
            (self.parts[i][0], rows[cuts[i] : cuts[i + 1]] - self.starts[i])
            for i in range(len(self.parts))
            if cuts[i] < cuts[i + 1]
        ]


def grouped(segments: Iterable[Segment]) -> tuple[Group, ...]:
    """One group; two while a new basis is being taken up."""
    together: dict[int, list[Segment]] = {}
    for segment in segments:
        if segment.count:
            together.setdefault(id(segment.basis), []).append(segment)
    return tuple(
        Group(
            basis=sharing[0].basis,
            parts=tuple((segment, segment.count) for segment in sharing),
            packs=tuple(segment.pack for segment in sharing),
            starts=np.cumsum([0] + [segment.count for segment in sharing[:-1]]),
            outliers=[(segment, segment.outliers) for segment in sharing if len(segment.outliers)],
        )
        for sharing in together.values()
    )
