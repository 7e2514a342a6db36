"""Card numbers and PINs for devices that decide alone, sealed; kept only while the configuration has such a device.

Everything else looks a card up by its keyed hash and checks a PIN against its Argon2id hash. A controller has to be
told the number itself, so what is entered while some device needs it is kept a second time: AES-256-GCM under a key of
its own, derived from the identity key outside the database. When the last such device goes, so do they.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_LEN = 12


class SealedNumbers:
    """One kind of them, in one table. `needed` says whether any device has to be told."""

    def __init__(self, key: bytes, *, kind: str, table: str, needed: Callable[[], bool]) -> None:
        self._cipher = AESGCM(key)
        self._bound_to = f"{kind} v1".encode()
        self._table = table
        self._needed = needed

    def seal(self, number: str) -> bytes | None:
        if not self._needed():
            return None
        nonce = os.urandom(NONCE_LEN)
        return nonce + self._cipher.encrypt(nonce, number.encode(), self._bound_to)

    def open(self, sealed: bytes) -> str:
        """Raises cryptography's InvalidTag if it was changed or sealed under another key."""
        return self._cipher.decrypt(sealed[:NONCE_LEN], sealed[NONCE_LEN:], self._bound_to).decode()

    def forget_unneeded(self, connection: sqlite3.Connection) -> None:
        if not self._needed():
            connection.execute(f"DELETE FROM {self._table}")  # noqa: S608 - the caller's own constant
