"""Keys of agent.db's secrets, apart from the keys of the templates: losing one opens nothing of the other.

Kept outside the template store's key providers on purpose: an agent that starts sealed, waiting for a keeper's
passphrase, must still recognise cards and check PINs.

One 32-byte master beside the database, 0600; each use gets its own key derived from it (HKDF-SHA256), so a
key that is good for cards is good for nothing else.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

MASTER_LEN = 32
NONCE_LEN = 12
SECRET_AAD = b"edge-agent account secret v1"


class BadKeyFile(Exception):
    """The key file is damaged or readable by others; the message says what to do."""


class IdentityKeys:
    """Subkeys for cards, audit, configuration secrets, second factors and pseudonyms."""

    def __init__(self, master: bytes) -> None:
        if len(master) != MASTER_LEN:
            raise BadKeyFile(f"the identity key has {len(master)} bytes instead of {MASTER_LEN}")
        self._master = master
        self._accounts = AESGCM(self.derive("accounts"))

    @classmethod
    def load(cls, path: Path) -> IdentityKeys:
        """Read the key file; make it where there is none. Raises BadKeyFile."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            if path.stat().st_mode & 0o077:
                raise BadKeyFile(f"{path} is readable by others; run: chmod 600 {path}") from None
            return cls(path.read_bytes())
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(MASTER_LEN))
            file.flush()
            os.fsync(file.fileno())
        return cls(path.read_bytes())

    def derive(self, use: str) -> bytes:
        """32 bytes for one use alone."""
        return HKDF(hashes.SHA256(), 32, salt=None, info=b"edge-agent identity " + use.encode()).derive(self._master)

    def seal(self, secret: str) -> bytes:
        nonce = os.urandom(NONCE_LEN)
        return nonce + self._accounts.encrypt(nonce, secret.encode(), SECRET_AAD)

    def open(self, sealed: bytes) -> str:
        """Raises cryptography's InvalidTag if it was changed or sealed under another key."""
        return self._accounts.decrypt(sealed[:NONCE_LEN], sealed[NONCE_LEN:], SECRET_AAD).decode()
