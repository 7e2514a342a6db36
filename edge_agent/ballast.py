"""Room kept back on the disk: SQLite needs some even to delete and to checkpoint.

A file beside the database holds it. Below the high-water mark ordinary writes wait; when SQLite itself runs
out of room the file is given up, and made again once there is room for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

BALLAST_BYTES = 32 * 1024 * 1024
HIGH_WATER_BYTES = 16 * 1024 * 1024

log = logging.getLogger(__name__)


def free_bytes(path: Path) -> int:
    return shutil.disk_usage(path).free


class Ballast:
    """Room kept back beside the database, given up when SQLite finds no more."""

    def __init__(self, path: Path, size: int, *, high_water: int, free: Callable[[Path], int]) -> None:
        self.path = path
        self.size = size
        self.high_water = high_water
        self._free = free
        self.short = False

    @property
    def held(self) -> bool:
        with contextlib.suppress(OSError):
            return self.path.stat().st_size >= self.size
        return False

    def free(self) -> int:
        try:
            return self._free(self.path.parent)
        except OSError:  # let SQLite say what is wrong
            return sys.maxsize

    def make(self) -> bool:
        """Take the room if twice the high-water mark stays free beside it."""
        if self.held:
            return True
        if self.free() < self.size + 2 * self.high_water:
            return False
        try:
            with self.path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self.size) if hasattr(os, "posix_fallocate") else file.truncate(
                    self.size
                )
                os.fsync(file.fileno())
        except OSError:
            self.drop()
            return False
        return True

    def drop(self) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def check(self, reusable: Callable[[], int]) -> bool:
        """Whether ordinary writes must wait. Logs the change once each way.

        `reusable` is what SQLite's free pages hold: after pruning there is room inside the file
        although the disk shows none.
        """
        room = self.free() - (0 if self.make() else self.size)
        short = room < self.high_water and reusable() < self.high_water
        if short and not self.short:
            log.error("disk_short free_bytes=%d high_water=%d", self.free(), self.high_water)
        elif self.short and not short:
            log.warning("disk_recovered free_bytes=%d", self.free())
        self.short = short
        return short
