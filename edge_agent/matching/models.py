"""Model files out of pinned wheels: found without importing the package, verified before use.

Packages that ship a model tend to download it when it is missing, and to pull in runtimes we do not
want. So their code is never imported: the file is located through the import system's own search and
its SHA-256 must be the one measured with. A site that swaps a model swaps every stored template's
meaning; the hash makes that impossible to do by accident.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

CHUNK = 1 << 20


class ModelError(RuntimeError):
    """A model file is absent or is not the one this version was measured with; says what to do."""


@cache
def model_path(package: str, relative: str, sha256: str) -> Path:
    """Path of `relative` inside the installed `package`, once its bytes have been verified.

    Verified once per process. Raises ModelError.
    """
    spec = importlib.util.find_spec(package)  # a top-level name: finds without executing it
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"package {package} is not installed; it carries the model {relative}")
    path = Path(next(iter(spec.submodule_search_locations))) / relative
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError as exc:
        raise ModelError(f"{package} is installed without {relative}; reinstall it from the lock file") from exc
    if digest.hexdigest() != sha256:
        raise ModelError(f"{relative} of {package} is not the file this version was measured with; reinstall it")
    return path
