"""Card numbers for devices that decide alone, sealed; kept only while the configuration has such a device.

Everything else looks a card up by its keyed hash. A controller has to be told the number itself, so numbers that are
entered while some device has `options.sync = true` are kept a second time: AES-256-GCM under a key of their own,
derived from the identity key outside the database. When the last such device goes, so do they.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE_LEN = 12
BOUND_TO = b"card number v1"


class CardNumbers:
    """`needed` says whether any device has to be told numbers."""

    def __init__(self, key: bytes, *, needed: Callable[[], bool]) -> None:
        self._cipher = AESGCM(key)
        self._needed = needed

    def seal(self, number: str) -> bytes | None:
        if not self._needed():
            return None
        nonce = os.urandom(NONCE_LEN)
        return nonce + self._cipher.encrypt(nonce, number.encode(), BOUND_TO)

    def open(self, sealed: bytes) -> str:
        """Raises cryptography's InvalidTag if it was changed or sealed under another key."""
        return self._cipher.decrypt(sealed[:NONCE_LEN], sealed[NONCE_LEN:], BOUND_TO).decode()

    def forget_unneeded(self, connection: sqlite3.Connection) -> None:
        if not self._needed():
            connection.execute("DELETE FROM sealed_cards")
