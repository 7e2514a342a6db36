"""Looks for bytes in every file below a folder: as they are, as hex, as base64 in each of its three alignments.

Used wherever something must not have been written: databases, logs, core dumps, recorded traffic.
"""

from __future__ import annotations

import base64
import mmap
from collections.abc import Iterable
from pathlib import Path


def spellings(needle: bytes) -> list[bytes]:
    """Every way in which `needle` may lie in a file. Raises ValueError if it is too short to mean anything."""
    if len(needle) < 12:
        raise ValueError("a canary needs at least 12 bytes")
    out = [needle, needle.hex().encode(), needle.hex().upper().encode()]
    for skipped in range(3):
        whole = needle[skipped : skipped + (len(needle) - skipped) // 3 * 3]
        plain = base64.b64encode(whole)
        out += [plain, plain.replace(b"+", b"-").replace(b"/", b"_")]
    return out


def found_in(data: bytes | mmap.mmap, needle: bytes) -> bool:
    return any(data.find(each) >= 0 for each in spellings(needle))


def hits(needle: bytes, *folders: Path) -> list[Path]:
    """Files below the folders that hold `needle` in any spelling."""
    return [path for path in _files(folders) if _holds(path, needle)]


def _holds(path: Path, needle: bytes) -> bool:
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return found_in(data, needle)


def _files(folders: Iterable[Path]) -> Iterable[Path]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield path
