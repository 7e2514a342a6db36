"""Keeping templates out of core dumps, swap and other processes' eyes, as far as the system allows.

Python copies and frees bytes as it likes and cannot wipe them: only what lies in a `Buffer` is locked, left out of
core dumps and wiped. `harden()` covers the rest by having no core dumps at all.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PR_SET_DUMPABLE = 4
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Hygiene:
    """What was achieved, for health; each shortfall in words."""

    undumpable: bool
    no_core: bool
    shortfalls: tuple[str, ...]


def harden() -> Hygiene:
    """No core dumps, no ptrace by others of the same user. Call it once, first thing."""
    shortfalls = []
    undumpable = _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
    if not undumpable:
        shortfalls.append(f"PR_SET_DUMPABLE refused: {os.strerror(ctypes.get_errno())}")
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        no_core = True
    except (OSError, ValueError) as exc:
        no_core = False
        shortfalls.append(f"RLIMIT_CORE refused: {exc}")
    return Hygiene(undumpable, no_core, tuple(shortfalls))


class Buffer:
    """Anonymous memory: never in a core dump, locked if the limit allows, wiped when closed."""

    def __init__(self, size: int) -> None:
        self._map = mmap.mmap(-1, max(size, 1))
        self._size = size
        self._map.madvise(mmap.MADV_DONTDUMP)
        self._map.madvise(mmap.MADV_DONTFORK)
        hold = ctypes.c_char.from_buffer(self._map)
        self.locked = _libc.mlock(ctypes.c_void_p(ctypes.addressof(hold)), ctypes.c_size_t(len(self._map))) == 0
        del hold

    @property
    def shortfall(self) -> str:
        """What health has to say; empty if all is well."""
        return "" if self.locked else "gallery memory is not locked and may reach swap: raise LimitMEMLOCK of the unit"

    def view(self) -> memoryview:
        return memoryview(self._map)[: self._size]

    def array(self, shape: tuple[int, ...], *, offset: int = 0) -> NDArray[np.float32]:
        """A float32 array over this memory; it keeps the memory alive."""
        count = int(np.prod(shape))
        return np.frombuffer(self._map, np.float32, count, offset).reshape(shape)

    def wipe(self) -> None:
        np.frombuffer(self._map, np.uint8)[:] = 0


def float_array(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A zeroed float32 array for a gallery, in memory of the kind above."""
    return Buffer(int(np.prod(shape)) * 4).array(shape)
