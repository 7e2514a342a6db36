"""KEKs in a small sealed file under one root key: for vaults that can hand out a secret but not keep new ones.

The root comes from a systemd credential, a key file or a passphrase. The ring is written whole, beside the old
one, and moved into place; the old bytes are overwritten first, which journalling file systems and flash may
defeat. A copy of an old ring together with the root opens what was erased: keep the ring out of backups, or use
a TPM or a token, where destroying a key leaves nothing to copy.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from templates_store.envelope import KEY_LEN, bind, open_sealed, seal
from templates_store.errors import KeyUnavailable, SealBroken
from templates_store.keys.files import read_private, replace_private
from templates_store.keys.provider import check_kek, is_kek_id

MAX_RING = 64 * 1024


class Keyring:
    """A provider over a ring file; `root` is asked each time and never kept."""

    def __init__(self, path: Path, *, name: str, root: Callable[[], bytes], warning: str = "") -> None:
        self._path = path
        self._name = name
        self._root = root
        self._warning = warning
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self._name

    @property
    def warning(self) -> str:
        return self._warning

    def keys(self) -> Mapping[str, bytes]:
        with self._lock:
            return self._read(self._root())

    def create(self, kek_id: str, key: bytes) -> None:
        check_kek(kek_id, key)
        with self._lock:
            root = self._root()
            keys = self._read(root)
            if kek_id in keys:
                raise ValueError(f"key {kek_id} exists")
            self._write(root, {**keys, kek_id: key})

    def destroy(self, kek_id: str) -> None:
        with self._lock:
            root = self._root()
            keys = self._read(root)
            if keys.pop(kek_id, None) is not None:
                self._write(root, keys)

    def _read(self, root: bytes) -> dict[str, bytes]:
        if not self._path.exists():
            return {}
        sealed = read_private(self._path, limit=MAX_RING)
        try:
            listed = json.loads(open_sealed(root, sealed, bound_to=bind("keyring", self._name)))
        except SealBroken as exc:
            raise KeyUnavailable(
                f"{self._path.name} does not open with this {self._name}: give the one it was made with"
            ) from exc
        return {kek_id: bytes.fromhex(key) for kek_id, key in listed.items() if is_kek_id(kek_id)}

    def _write(self, root: bytes, keys: Mapping[str, bytes]) -> None:
        plain = json.dumps({kek_id: key.hex() for kek_id, key in keys.items()}).encode()
        replace_private(self._path, seal(root, plain, bound_to=bind("keyring", self._name)))


def key_file(path: Path) -> Keyring:
    """The root in a file of mode 0600, made on first use; the ring lies beside it."""

    def root() -> bytes:
        if not path.exists():
            with contextlib.suppress(FileExistsError):
                replace_private(path, os.urandom(KEY_LEN))
        return _exactly(read_private(path, limit=KEY_LEN + 1), path.name)

    return Keyring(
        path.with_name(path.name + ".ring"),
        name="key-file",
        root=root,
        warning=f"the template key lies unprotected in {path}: whoever copies this disk opens every template; "
        "use a TPM, a PKCS#11 token or a systemd credential",
    )


def credential(name: str, *, ring: Path, directory: Path | None = None) -> Keyring:
    """The root from `LoadCredentialEncrypted=NAME`; systemd puts it into $CREDENTIALS_DIRECTORY for this unit only."""

    def root() -> bytes:
        found = directory or (Path(value) if (value := os.environ.get("CREDENTIALS_DIRECTORY")) else None)
        if found is None or not (found / name).is_file():
            raise KeyUnavailable(
                f"systemd gave no credential {name!r}: make one with `systemd-creds encrypt --name={name} - FILE` "
                f"from 32 random bytes and add LoadCredentialEncrypted={name}:FILE to the unit"
            )
        try:
            with (found / name).open("rb") as stream:
                return _exactly(stream.read(KEY_LEN + 1), name)
        except OSError as exc:
            raise KeyUnavailable(f"credential {name!r} cannot be read: {exc.strerror}") from exc

    return Keyring(ring, name="credential", root=root)


def _exactly(root: bytes, name: str) -> bytes:
    if len(root) != KEY_LEN:
        raise KeyUnavailable(f"{name} must hold exactly {KEY_LEN} random bytes")
    return root
