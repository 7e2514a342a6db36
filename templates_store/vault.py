"""What only an unsealed store has: the KEKs, and the root secret from which its own keys are derived."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from templates_store import envelope
from templates_store.envelope import KEY_LEN, kek_id_of, subkey
from templates_store.errors import SealBroken
from templates_store.keys.provider import KeyProvider


@dataclass(slots=True)
class Vault:
    tenant: str
    store_id: str
    provider: KeyProvider = field(repr=False)
    keks: dict[str, bytes] = field(repr=False)
    current: str
    root: bytes = field(repr=False)
    digest_key: bytes = field(init=False, repr=False)
    head_key: bytes = field(init=False, repr=False)
    signer: Ed25519PrivateKey = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.digest_key = subkey(self.root, "subject-digest")
        self.head_key = subkey(self.root, "head")
        self.signer = Ed25519PrivateKey.from_private_bytes(subkey(self.root, "signing"))

    @property
    def public_key(self) -> bytes:
        return self.signer.public_key().public_bytes_raw()

    def new_key(self) -> bytes:
        return os.urandom(KEY_LEN)

    def wrap(self, key: bytes, *, owner: str, kind: str = "dek", kek_id: str | None = None) -> bytes:
        kek_id = kek_id or self.current
        return envelope.wrap(self.keks[kek_id], kek_id, key, tenant=self.tenant, owner=owner, kind=kind)

    def unwrap(self, wrapped: bytes, *, owner: str, kind: str = "dek") -> bytes:
        """Raises SealBroken, also when the KEK is gone."""
        kek = self.keks.get(kek_id_of(wrapped))
        if kek is None:
            raise SealBroken
        return envelope.unwrap(kek, wrapped, tenant=self.tenant, owner=owner, kind=kind)


def new_kek() -> tuple[str, bytes]:
    return os.urandom(envelope.KEK_ID_LEN).hex(), os.urandom(KEY_LEN)
