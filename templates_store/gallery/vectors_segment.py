"""Rows of a gallery in segments: written in place past the end, published as immutable views.

A segment never moves its rows, so growing costs no copy of what is there (doubling one array stalls
300 ms at a million rows). A writer appends behind the last published row, packs the open block anew and
publishes a new view; readers hold whatever view they started with. A removed row is first marked, then
wiped: a reader that saw the wiped row looks at the mark afterwards and drops it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from templates_store.gallery.vectors_basis import Basis
from templates_store.gallery.vectors_scan import Codes, Kernel, Packed
from templates_store.template import SubjectId, TemplateId

SEGMENT_ROWS = 65_536
BLOCK_ROWS = 65_536  # packed anew at each enrolment: 2 ms; smaller blocks slow the scan by their calls
SMALLEST = 1_024

Allocate = Callable[[tuple[int, int]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Block:
    packed: Packed
    start: int
    width: int
    slip: float  # maxima over the block's rows, see vectors_basis.RowCodes
    length: float
    own: float


class Segment:
    """Storage for up to `capacity` rows. One writer at a time; any number of readers through views."""

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
        self.blocks: tuple[Block, ...] = ()
        self._codes: Codes = np.empty((0, 0), np.int8)
        self._slip = np.zeros(0)
        self._length = np.zeros(0)
        self._own = np.zeros(0)

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
        if self.basis is not None:
            self._encode(first, last)
            self._pack(first // BLOCK_ROWS, kernel)

    def remove(self, row: int, kernel: Kernel) -> None:
        self.alive[row] = False  # before the wipe: see the module's docstring
        self.rows[row] = 0.0
        self.subjects[row] = self.templates[row] = None
        self.dead += 1
        self.version += 1
        if self.basis is not None:
            self._blank(np.array([row]))
            number = row // BLOCK_ROWS
            self.blocks = (*self.blocks[:number], self._block(number, kernel), *self.blocks[number + 1 :])

    def encode(self, basis: Basis, kernel: Kernel) -> None:
        """Take up a basis: codes and blocks for all rows."""
        self.basis = basis
        self._codes = np.zeros((self.capacity, basis.depth), np.int8)
        self._slip, self._length, self._own = (np.zeros(self.capacity) for _ in range(3))
        self._encode(0, self.count)
        self.blocks = ()
        self._pack(0, kernel)

    def shadow(self) -> Segment:
        """The same rows under another hand, to be encoded aside while this one serves."""
        twin = copy.copy(self)
        twin.blocks = ()
        return twin

    def adopt(self, twin: Segment, kernel: Kernel) -> None:
        """Take over what `twin`, a shadow of this segment, has encoded, and catch up with changes since."""
        self.basis, self._codes = twin.basis, twin._codes
        self._slip, self._length, self._own = twin._slip, twin._length, twin._own
        self.blocks = twin.blocks
        if self.version != twin.version:
            self._encode(twin.count, self.count)
            self._blank(np.flatnonzero(~self.alive[: self.count]))
            self._pack(0, kernel)

    def compacted(self, dimension: int, allocate: Allocate, kernel: Kernel) -> Segment:
        """A segment with the live rows alone."""
        rows = np.flatnonzero(self.alive[: self.count])
        size = max(SMALLEST, 1 << max(0, len(rows) - 1).bit_length())
        smaller = Segment(size, dimension, allocate)
        if self.basis is not None:
            smaller.encode(self.basis, kernel)
        smaller.append(self.rows[rows], self.norms[rows], list(self.subjects[rows]), list(self.templates[rows]), kernel)
        return smaller

    def _encode(self, first: int, last: int) -> None:
        if self.basis is None:
            return
        for start in range(first, last, 4096):
            stop = min(start + 4096, last)
            codes = self.basis.rows(self.rows[start:stop], self.norms[start:stop])
            self._codes[start:stop] = codes.codes
            self._slip[start:stop] = codes.slip
            self._length[start:stop] = codes.length
            self._own[start:stop] = codes.own
        self._blank(np.flatnonzero(~self.alive[first:last]) + first)

    def _blank(self, rows: NDArray[np.intp]) -> None:
        """Codes of removed rows: nothing of the template, and a score that hardly any search looks at."""
        if self.basis is not None:
            self._codes[rows] = self.basis.blank()
            self._slip[rows] = self._length[rows] = self._own[rows] = 0.0

    def _pack(self, first: int, kernel: Kernel) -> None:
        last = -(-self.count // BLOCK_ROWS)
        self.blocks = (*self.blocks[:first], *(self._block(number, kernel) for number in range(first, last)))

    def _block(self, number: int, kernel: Kernel) -> Block:
        start = number * BLOCK_ROWS
        stop = min(start + BLOCK_ROWS, self.count)
        return Block(
            packed=kernel.pack(self._codes[start:stop]),
            start=start,
            width=stop - start,
            slip=float(self._slip[start:stop].max()),
            length=float(self._length[start:stop].max()),
            own=float(self._own[start:stop].max()),
        )

    def view(self) -> View:
        return View(self, self.basis, self.blocks, self.count)


@dataclass(frozen=True, slots=True)
class View:
    """What a reader may see of a segment: rows before `count`. `blocks` cover them all if there is a basis."""

    segment: Segment
    basis: Basis | None
    blocks: tuple[Block, ...]
    count: int
