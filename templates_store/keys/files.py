"""Small secret files: private, bounded, replaced as a whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from templates_store.errors import KeyUnavailable


def read_private(path: Path, *, limit: int) -> bytes:
    """Raises KeyUnavailable if the file is missing, larger than `limit`, or open to others."""
    try:
        with path.open("rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            data = stream.read(limit + 1)
    except OSError as exc:
        raise KeyUnavailable(f"{path} cannot be read: {exc.strerror}") from exc
    if mode & 0o077:
        raise KeyUnavailable(f"{path} is open to others (mode {mode:04o}): chmod 600 it, and consider its keys known")
    if len(data) > limit:
        raise KeyUnavailable(f"{path} is larger than {limit} bytes: it is not what this program wrote")
    return data


def replace_private(path: Path, data: bytes, *, wipe: bool = True) -> None:
    """Write beside, sync, move into place; then `wipe` what the old file held. Raises KeyUnavailable."""
    fresh = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        old = os.open(path, os.O_RDWR) if wipe and path.exists() else None
        try:
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            fresh.replace(path)
            sync_folder(path.parent)
            if old is not None:
                os.pwrite(old, os.urandom(os.fstat(old).st_size), 0)
                os.fsync(old)
        finally:
            if old is not None:
                os.close(old)
    except OSError as exc:
        raise KeyUnavailable(f"{path} cannot be written: {exc.strerror}") from exc


def sync_folder(path: Path) -> None:
    """Make a rename or an unlink in this folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
