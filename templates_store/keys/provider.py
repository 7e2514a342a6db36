"""What every vault for key-encryption keys (KEK) offers.

Ids are 8 random bytes in hex and never used twice. `destroy` is what makes erasure true: once it returned,
whatever that KEK wrapped, also in old backups, is noise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

from templates_store.envelope import KEK_ID_LEN, KEY_LEN
from templates_store.errors import KeyUnavailable

_KEK_ID = re.compile(rf"[0-9a-f]{{{KEK_ID_LEN * 2}}}", re.ASCII)


class KeyProvider(Protocol):
    """Blocking; every method raises KeyUnavailable with words for the operator."""

    @property
    def name(self) -> str:
        """The kind, for health: tpm2, pkcs11, credential, key-file, passphrase."""

    @property
    def warning(self) -> str:
        """What health has to say loudly about this provider; empty if nothing."""

    def keys(self) -> Mapping[str, bytes]:
        """Every KEK by id."""

    def create(self, kek_id: str, key: bytes) -> None:
        """Keep a new KEK; durable when it returns."""

    def destroy(self, kek_id: str) -> None:
        """Forget a KEK for good; nothing happens if it is not there."""


def check_kek(kek_id: str, key: bytes) -> None:
    if not _KEK_ID.fullmatch(kek_id) or len(key) != KEY_LEN:
        raise ValueError("a KEK has an id of 16 hex digits and 32 bytes")


def is_kek_id(text: str) -> bool:
    return _KEK_ID.fullmatch(text) is not None


def require_kek(keys: Mapping[str, bytes], kek_id: str, *, provider: str) -> bytes:
    found = keys.get(kek_id)
    if found is None:
        raise KeyUnavailable(
            f"the {provider} provider does not hold key {kek_id}, which sealed this store: "
            "attach the right key, or restore a backup made under a key that is still there"
        )
    return found
