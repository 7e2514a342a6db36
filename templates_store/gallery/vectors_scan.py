"""Scanning kernels: integer scores of one probe against blocks of int8 codes.

A scan is bound by memory, so a row of 128 dimensions is read as 128 bytes instead of the 512 a float
matrix takes. `numkong` gives exact int32 products at the speed of memory on whatever the processor has;
where it is not installed, or disagrees with numpy, a block-transposed int16 layout in numpy stands in
(half the gain, no native code).
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int8]  # (rows, depth)
Scores = NDArray[np.integer[Any]]  # (rows,), owned by the calling thread until its next scan
DEPTH_STEP = 16  # numkong drops to a third of its speed on depths that are no multiple of 16


class Packed(Protocol):
    def scan(self, probe: Codes) -> Scores:
        """Inner products with `probe` (1, depth), in the order packed. Valid until this thread scans again."""
        ...


class Kernel(Protocol):
    name: str
    limit: int  # the largest magnitude an inner product may have
    largest: int  # the largest magnitude of one code

    def pack(self, codes: Codes) -> Packed: ...


class _Scratch(threading.local):
    """Output buffers by width, one set a thread: allocating per block would cost as much as a small scan."""

    KEPT = 4

    def __init__(self) -> None:
        self.by_width: dict[int, tuple[Any, NDArray[np.int32]]] = {}


class _NumkongBlock:
    __slots__ = ("_dots", "_make", "_packed", "_scratch", "_width")

    def __init__(self, numkong: Any, scratch: _Scratch, codes: Codes) -> None:
        self._packed = numkong.dots_pack(np.ascontiguousarray(codes))
        self._dots, self._make, self._scratch, self._width = numkong.dots_packed, numkong.zeros, scratch, len(codes)

    def scan(self, probe: Codes) -> Scores:
        kept = self._scratch.by_width
        pair = kept.get(self._width)
        if pair is None:
            tensor = self._make((1, self._width), dtype="int32")
            if len(kept) >= _Scratch.KEPT:
                kept.pop(next(iter(kept)))
            pair = kept[self._width] = (tensor, np.asarray(tensor)[0])
        self._dots(probe, self._packed, out=pair[0])
        return pair[1]


class NumkongKernel:
    name = "numkong int8"
    limit = 2**31 - 1
    largest = 127

    def __init__(self, numkong: Any) -> None:
        self._numkong = numkong
        self._scratch = _Scratch()

    def pack(self, codes: Codes) -> Packed:
        return _NumkongBlock(self._numkong, self._scratch, codes)


class _NumpyBlock:
    __slots__ = ("_columns", "_width")

    STRIPE = 4000  # values of an int16 accumulator that stay in the first-level cache; 8000 is twice as slow

    def __init__(self, codes: Codes) -> None:
        self._width = len(codes)
        self._columns = [
            np.ascontiguousarray(codes[start : start + self.STRIPE].T.astype(np.int16))
            for start in range(0, self._width, self.STRIPE)
        ]

    def scan(self, probe: Codes) -> Scores:
        wide = probe[0].astype(np.int16)
        scores = np.empty(self._width, np.int16)
        for i, columns in enumerate(self._columns):
            np.einsum("j,jb->b", wide, columns, out=scores[i * self.STRIPE : (i + 1) * self.STRIPE])
        return scores


class NumpyKernel:
    """int16 sums may wrap on the way; they are right at the end because the whole product fits `limit`."""

    name = "numpy int16"
    limit = 2**15 - 1
    largest = 127

    def pack(self, codes: Codes) -> Packed:
        return _NumpyBlock(codes)


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
        for probe in (codes[:1], codes[1:2], rng.integers(-127, 128, (1, depth), np.int8)):
            expected = codes.astype(np.int32) @ probe[0].astype(np.int32)
            if not np.array_equal(kernel.pack(codes).scan(np.ascontiguousarray(probe)), expected):
                return False
    return True
