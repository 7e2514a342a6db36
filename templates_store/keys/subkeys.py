"""Keys of another database, under a KEK of its own in the same vault: identity and vectors never share one.

A small file holds a root secret wrapped under a KEK that nothing else uses. What the database needs (a key for card
digests, one for an audit chain) is derived from the root by label, so it stays the same when the KEK is rotated.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from templates_store.envelope import KEY_LEN, kek_id_of, subkey, unwrap, wrap
from templates_store.errors import KeyUnavailable, SealBroken
from templates_store.keys.files import read_private, replace_private
from templates_store.keys.provider import KeyProvider, require_kek
from templates_store.vault import new_kek

MAX_FILE = 4096


class DatabaseKeys:
    """Opened once per database; `subkey("cards")` and the like are 32 bytes each."""

    def __init__(self, path: Path, *, tenant: str, name: str, provider: KeyProvider, root: bytes) -> None:
        self._path = path
        self._tenant = tenant
        self._name = name
        self._provider = provider
        self._root = root

    @classmethod
    def open(cls, path: Path, *, tenant: str, name: str, provider: KeyProvider) -> DatabaseKeys:
        """Read the file, or make it with a fresh root. Raises KeyUnavailable."""
        if not path.exists():
            keys = cls(path, tenant=tenant, name=name, provider=provider, root=os.urandom(KEY_LEN))
            keys.rotate()
            return keys
        said = _parse(path)
        wrapped = bytes.fromhex(said["wrapped"])
        try:
            kek = require_kek(provider.keys(), kek_id_of(wrapped), provider=provider.name)
            root = unwrap(kek, wrapped, tenant=tenant, owner=name, kind="database-root")
        except SealBroken as exc:
            raise KeyUnavailable(f"{path.name} does not open with this {provider.name} provider") from exc
        keys = cls(path, tenant=tenant, name=name, provider=provider, root=root)
        keys._finish(said, kek_id_of(wrapped))
        return keys

    def subkey(self, label: str) -> bytes:
        return subkey(self._root, f"{self._name}/{label}")

    def rotate(self) -> None:
        """A new KEK for the same root; the old one is destroyed once the file no longer needs it."""
        old = kek_id_of(bytes.fromhex(_parse(self._path)["wrapped"])) if self._path.exists() else ""
        kek_id, kek = new_kek()
        if old:
            self._write(_parse(self._path)["wrapped"], other=kek_id)
        self._provider.create(kek_id, kek)
        wrapped = wrap(kek, kek_id, self._root, tenant=self._tenant, owner=self._name, kind="database-root")
        self._write(wrapped.hex(), other=old)
        if old:
            self._provider.destroy(old)
            self._write(wrapped.hex(), other="")

    def _finish(self, said: dict[str, str], current: str) -> None:
        """A rotation was cut off: the KEK that is not in use goes."""
        if said["other"] and said["other"] != current:
            self._provider.destroy(said["other"])
            self._write(said["wrapped"], other="")

    def _write(self, wrapped: str, *, other: str) -> None:
        replace_private(self._path, json.dumps({"wrapped": wrapped, "other": other}).encode())


def _parse(path: Path) -> dict[str, str]:
    try:
        said = json.loads(read_private(path, limit=MAX_FILE))
        return {"wrapped": str(bytes.fromhex(said["wrapped"]).hex()), "other": str(said["other"])}
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise KeyUnavailable(f"{path.name} is damaged: restore it from a backup") from exc
