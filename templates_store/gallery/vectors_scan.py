"""Scanning kernels: integer scores of one probe against blocks of int8 codes.

A scan is bound by memory, so a row of 128 dimensions is read as 128 bytes instead of the 512 a float
matrix takes. `numkong` gives exact int32 products at the speed of memory on whatever the processor has;
where it is not installed, or disagrees with numpy, a block-transposed int16 layout in numpy stands in
(half the gain, no native code).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int8]  # (rows, depth)
Scores = NDArray[np.integer[Any]]  # (rows,), owned by the calling thread until its next scan
DEPTH_STEP = 16  # numkong drops to a third of its speed on depths that are no multiple of 16
NORM_BYTES = 4  # of a packed row that no scan reads


class Kernel(Protocol):
    name: str
    limit: int  # the largest magnitude an inner product may have
    largest: int  # the largest magnitude of one code

    def pack(self, codes: Codes) -> Any:
        """A block of rows as `scan` wants it."""
        ...

    def scan(self, packs: Sequence[Any], probe: Codes) -> Scores:
        """Inner products of all rows with `probe` (1, depth), in order. Valid until this thread scans again."""
        ...

    def row_bytes(self, depth: int) -> int:
        """What a scan reads of a row."""
        ...


class _Scratch(threading.local):
    """Scores, one array a thread: allocating them anew would cost as much as a small scan."""

    def __init__(self) -> None:
        self.scores = np.empty(0, np.int32)
        self.address = 0

    def reserve(self, count: int) -> NDArray[np.int32]:
        if len(self.scores) < count:
            self.scores = np.empty(1 << (count - 1).bit_length(), np.int32)
            self.address = self.scores.ctypes.data
        return self.scores[:count]


class NumkongKernel:
    name = "numkong int8"
    limit = 2**31 - 1
    largest = 127

    def __init__(self, numkong: Any) -> None:
        self._numkong = numkong
        self._scratch = _Scratch()

    def pack(self, codes: Codes) -> Any:
        return self._numkong.dots_pack(np.ascontiguousarray(codes))

    def scan(self, packs: Sequence[Any], probe: Codes) -> Scores:
        dots, tensor = self._numkong.dots_packed, self._numkong.from_pointer
        widths = [pack.width for pack in packs]
        scores = self._scratch.reserve(sum(widths))
        address = self._scratch.address
        for pack, width in zip(packs, widths, strict=True):
            dots(probe, pack, out=tensor(address, (1, width), "int32"))
            address += 4 * width
        return scores

    def row_bytes(self, depth: int) -> int:
        """More than `depth` where numkong pads: rows of 64 or 128 bytes would crowd one part of the cache."""
        rows = 1_024
        return int(self._numkong.PackedMatrix.packed_size(rows, depth, "int8")) // rows - NORM_BYTES


class NumpyKernel:
    """int16 sums may wrap on the way; they are right at the end because the whole product fits `limit`."""

    name = "numpy int16"
    limit = 2**15 - 1
    largest = 127

    STRIPE = 4000  # values of an int16 accumulator that stay in the first-level cache; 8000 is twice as slow

    def pack(self, codes: Codes) -> list[NDArray[np.int16]]:
        return [
            np.ascontiguousarray(codes[start : start + self.STRIPE].T.astype(np.int16))
            for start in range(0, len(codes), self.STRIPE)
        ]

    def scan(self, packs: Sequence[list[NDArray[np.int16]]], probe: Codes) -> Scores:
        wide = probe[0].astype(np.int16)
        stripes = [columns for pack in packs for columns in pack]
        scores = np.empty(sum(columns.shape[1] for columns in stripes), np.int16)
        start = 0
        for columns in stripes:
            stop = start + columns.shape[1]
            np.einsum("j,jb->b", wide, columns, out=scores[start:stop])
            start = stop
        return scores

    def row_bytes(self, depth: int) -> int:
        return 2 * depth


@cache
def best_kernel() -> Kernel:
    """numkong if it is there and exact on this processor, else numpy."""
    try:
        import numkong
    except ImportError:
        return NumpyKernel()
    kernel = NumkongKernel(numkong)
    return kernel if _exact(kernel) else NumpyKernel()


def _exact(kernel: Kernel) -> bool:
    """Extremes and random codes against numpy: each processor runs another branch of somebody else's code."""
    rng = np.random.default_rng(1)
    for depth in (16, 48, 128, 512):
        codes = rng.integers(-127, 128, (97, depth), np.int8)
        codes[0], codes[1] = 127, -127
        packs = [kernel.pack(codes[:70]), kernel.pack(codes[70:])]
        for probe in (codes[:1], codes[1:2], codes[2:3]):
            if not np.array_equal(kernel.scan(packs, probe), codes.astype(np.int32) @ probe[0].astype(np.int32)):
                return False
    return True
