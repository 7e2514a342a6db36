"""Disks that lose their power or run out of room, as SQLite VFSes.

A write that was not synced may be there after a power cut, or not, or half of it; in any combination.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import apsw


class PowerCut(apsw.IOError):
    """Everything after the cut fails; the process is about to end."""


@dataclass
class Image:
    """One file: what is certainly on the platter, and what was written since."""

    durable: bytearray = field(default_factory=bytearray)
    known: bool = False  # ever synced: its name is in the folder for certain
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # (offset, data), or (size, None)

    def sync(self) -> None:
        for write in self.pending:
            apply(self.durable, write)
        self.pending.clear()
        self.known = True


def apply(content: bytearray, write: tuple[int, bytes | None]) -> None:
    offset, data = write
    if data is None:
        del content[offset:]
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class Platter:
    """Counts write points and cuts the power at one of them."""

    def __init__(self, name: str, *, cut_at: int | None = None) -> None:
        self.files: dict[str, Image] = {}
        self.points = 0
        self.dead = False
        self._cut_at = cut_at
        self._vfs = _Vfs(name, self)

    def close(self) -> None:
        self._vfs.unregister()

    def point(self) -> None:
        self.points += 1
        if self.dead or self.points == self._cut_at:
            self.dead = True
            raise PowerCut("the power is gone")

    def after_the_cut(self, folder: Path, fate: Callable[[], str]) -> None:
        """What a restart finds; `fate` says "kept", "lost" or "torn" for each unsynced write."""
        for name, image in self.files.items():
            content = bytearray(image.durable)
            kept_any = image.known
            for write in image.pending:
                lot = fate()
                offset, data = write
                if lot == "torn" and data is not None:
                    write, lot = (offset, data[: len(data) // 2]), "kept"
                if lot == "kept":
                    kept_any = True
                    apply(content, write)
            if kept_any:
                (folder / Path(name).name).write_bytes(content)


class _Vfs(apsw.VFS):
    def __init__(self, name: str, platter: Platter) -> None:
        super().__init__(name, "")
        self._platter = platter

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802 - apsw's names
        return _File(self._platter, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        self._platter.point()
        super().xDelete(filename, syncdir)
        self._platter.files.pop(filename, None)


class _File(apsw.VFSFile):
    def __init__(self, platter: Platter, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._platter = platter
        self._image = platter.files.setdefault(str(path), Image()) if path else Image()

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._platter.point()
        self._image.pending.append((offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._platter.point()
        self._image.pending.append((size, None))
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._platter.point()
        super().xSync(flags)
        self._image.sync()


def fates(random: Random) -> Callable[[], str]:
    return lambda: random.choice(["kept", "lost", "torn"])


class Quota:
    """A disk of `size` bytes: what would go beyond fails as a full disk does."""

    def __init__(self, name: str, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self._vfs = _QuotaVfs(name, self)

    def close(self) -> None:
        self._vfs.unregister()

    def free(self, _path: Path | None = None) -> int:
        return self.size - sum(f.stat().st_blocks * 512 for f in self.folder.iterdir() if f.is_file())


class _QuotaVfs(apsw.VFS):
    def __init__(self, name: str, quota: Quota) -> None:
        super().__init__(name, "")
        self._quota = quota

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802
        return _QuotaFile(self._quota, name, flags)


class _QuotaFile(apsw.VFSFile):
    def __init__(self, quota: Quota, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._quota = quota

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if offset + len(data) > self.xFileSize() and self._quota.free() < len(data):
            raise apsw.FullError("no room")
        super().xWrite(data, offset)
