"""Where the store's version rests outside its own file, so that an old file put back is noticed.

The anchor is written after each commit and signed with the store's Ed25519 key. A file that is ahead of its anchor
comes from a crash between the two and is fine: its head carries a keyed digest. A file behind its anchor, or level
with it but different, was put back. Keep the anchor on another medium than the database; somebody who puts back
both at once is stopped by the destroyed KEK alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from templates_store.envelope import bind
from templates_store.errors import KeyUnavailable, RolledBack
from templates_store.keys.files import read_private, replace_private

MAX_ANCHOR = 4096


@dataclass(frozen=True, slots=True)
class Mark:
    """A version of one store, and the keyed digest of everything in it."""

    store_id: str
    version: int
    mac: bytes

    def signed(self, key: Ed25519PrivateKey) -> bytes:
        return json.dumps(
            {
                "store_id": self.store_id,
                "version": self.version,
                "mac": self.mac.hex(),
                "signature": key.sign(self._bound()).hex(),
            },
            indent=1,
        ).encode()

    def _bound(self) -> bytes:
        return bind("anchor", self.store_id, self.version, self.mac)

    @classmethod
    def read(cls, data: bytes, public_key: Ed25519PublicKey | None = None) -> Mark:
        """Raises RolledBack if these are no anchor's bytes, or not signed by this key."""
        try:
            said = json.loads(data)
            mark = cls(str(said["store_id"]), int(said["version"]), bytes.fromhex(said["mac"]))
            if public_key is not None:
                public_key.verify(bytes.fromhex(said["signature"]), mark._bound())
        except (ValueError, KeyError, TypeError, RecursionError, InvalidSignature) as exc:
            raise RolledBack("the anchor is damaged or was not signed by this store") from exc
        return mark


class Anchor(Protocol):
    def read(self) -> bytes | None:
        """What was written last; None if nothing ever was."""

    def write(self, data: bytes) -> None:
        """Durable when it returns."""


class FileAnchor:
    """A small file, best on another medium than the database."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> bytes | None:
        if not self.path.exists():
            return None
        try:
            return read_private(self.path, limit=MAX_ANCHOR)
        except KeyUnavailable as exc:
            raise RolledBack(str(exc)) from exc

    def write(self, data: bytes) -> None:
        replace_private(self.path, data, wipe=False)
