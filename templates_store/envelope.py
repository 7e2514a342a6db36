"""Sealing bytes: AES-256-GCM with associated data that says where the bytes belong. Field by field in FORMAT.md.

KEK (from a key provider) -> one DEK per subject, one key per search chunk, one root secret -> what they seal.
Every failed opening is the same `SealBroken`: telling the causes apart would help only somebody who probes.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from templates_store.errors import SealBroken
from templates_store.template import Modality, Purpose, SubjectId, Template, TemplateFormat, TemplateId

VERSION = 1
KEY_LEN = 32
NONCE_LEN = 12
TAG_LEN = 16
KEK_ID_LEN = 8
OVERHEAD = 1 + NONCE_LEN + TAG_LEN
WRAPPED_LEN = 1 + KEK_ID_LEN + NONCE_LEN + KEY_LEN + TAG_LEN
MAX_SEALED = 256 * 1024 * 1024  # a search chunk of the largest vectors, with room

Random = Callable[[int], bytes]


def bind(label: str, *fields: str | bytes | int) -> bytes:
    """Associated data: every field behind its length, so that no two lists of fields give the same bytes."""
    raws = [field if isinstance(field, bytes) else str(field).encode() for field in (label, VERSION, *fields)]
    return b"".join([part for raw in raws for part in (len(raw).to_bytes(4, "big"), raw)])


@dataclass(frozen=True, slots=True)
class Binding:
    """Everything a sealed template is tied to; change one and it does not open."""

    tenant: str
    subject_id: SubjectId
    template_id: TemplateId
    modality: Modality
    purpose: Purpose
    format: TemplateFormat
    position: int

    @classmethod
    def of(cls, template: Template, *, tenant: str) -> Binding:
        return cls(
            tenant,
            template.subject_id,
            template.template_id,
            template.modality,
            template.purpose,
            template.format,
            template.position,
        )

    def associated_data(self) -> bytes:
        return bind(
            "template",
            self.tenant,
            self.subject_id,
            self.template_id,
            self.modality.value,
            self.purpose.value,
            self.format.pipeline,
            self.format.dimension,
            self.position,
        )


def seal(key: bytes, plaintext: bytes, *, bound_to: bytes, random: Random = os.urandom) -> bytes:
    """version | nonce | ciphertext and tag."""
    nonce = random(NONCE_LEN)
    return bytes((VERSION,)) + nonce + AESGCM(key).encrypt(nonce, plaintext, bound_to)


def open_sealed(key: bytes, sealed: bytes, *, bound_to: bytes) -> bytes:
    """Raises SealBroken."""
    if not OVERHEAD <= len(sealed) <= MAX_SEALED or sealed[0] != VERSION:
        raise SealBroken
    try:
        return AESGCM(key).decrypt(sealed[1 : 1 + NONCE_LEN], sealed[1 + NONCE_LEN :], bound_to)
    except InvalidTag:
        raise SealBroken from None


def open_into(key: bytes, sealed: bytes, *, bound_to: bytes, target: memoryview) -> None:
    """Like `open_sealed`, straight into memory that never reaches a core dump. Raises SealBroken."""
    if len(sealed) != OVERHEAD + len(target) or sealed[0] != VERSION:
        raise SealBroken
    try:
        AESGCM(key).decrypt_into(sealed[1 : 1 + NONCE_LEN], memoryview(sealed)[1 + NONCE_LEN :], bound_to, target)
    except InvalidTag:
        raise SealBroken from None


def kek_id_of(wrapped: bytes) -> str:
    """Which KEK wrapped this key. Raises SealBroken."""
    if len(wrapped) != WRAPPED_LEN or wrapped[0] != VERSION:
        raise SealBroken
    return wrapped[1 : 1 + KEK_ID_LEN].hex()


def wrap(
    kek: bytes, kek_id: str, key: bytes, *, tenant: str, owner: str, kind: str = "dek", random: Random = os.urandom
) -> bytes:
    """version | kek id | nonce | ciphertext and tag, bound to tenant, owner and kek id."""
    nonce = random(NONCE_LEN)
    bound_to = bind(kind, tenant, owner, kek_id)
    return bytes((VERSION,)) + bytes.fromhex(kek_id) + nonce + AESGCM(kek).encrypt(nonce, key, bound_to)


def unwrap(kek: bytes, wrapped: bytes, *, tenant: str, owner: str, kind: str = "dek") -> bytes:
    """Raises SealBroken."""
    kek_id = kek_id_of(wrapped)
    start = 1 + KEK_ID_LEN
    try:
        return AESGCM(kek).decrypt(
            wrapped[start : start + NONCE_LEN], wrapped[start + NONCE_LEN :], bind(kind, tenant, owner, kek_id)
        )
    except InvalidTag:
        raise SealBroken from None


def subkey(root: bytes, label: str) -> bytes:
    """An independent key for one use, from a uniformly random root (RFC 5869, expand only)."""
    return HKDFExpand(SHA256(), KEY_LEN, b"edge-agent/" + label.encode()).derive(root)


def keyed_digest(key: bytes, label: str, *fields: str | bytes | int) -> bytes:
    return hmac.digest(key, bind(label, *fields), hashlib.sha256)
