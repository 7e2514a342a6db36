"""What the store tells about consents, copies, chunks and erasures."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray

from templates_store.template import Modality, Purpose, SubjectId, TemplateId


class ConsentState(StrEnum):
    VALID = "valid"
    STALE = "stale"  # the terms changed: no capture, no matching until renewed
    WITHDRAWN = "withdrawn"
    ENDED = "ended"  # expired, left, erased on request
    SUPERSEDED = "superseded"  # renewed by a later one


@dataclass(frozen=True, slots=True)
class StoredConsent:
    consent_id: int
    subject_id: SubjectId
    modality: Modality
    purpose: Purpose
    notice_version: str
    given_at: datetime
    expires_at: datetime
    evidence_sha256: str
    legal_basis: str
    basis_reference: str
    state: ConsentState
    ended_at: datetime | None


class PlacementState(StrEnum):
    PLACED = "placed"
    ERASING = "erasing"  # owed to the device, offline or not
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Placement:
    """A copy in a device's own memory."""

    placement_id: int
    subject_id: SubjectId
    modality: Modality
    purpose: Purpose
    template_id: TemplateId | None
    device_serial: str
    slot: str  # the device's own number for it
    placed_at: datetime
    state: PlacementState
    attempts: int
    last_error: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some templates of one gallery, opened; row i of everything belongs together.

    `vectors` is (n, D) float32 for vectors, else None and `payloads` has the bytes.
    """

    subject_ids: list[SubjectId]
    template_ids: list[TemplateId]
    positions: NDArray[np.uint16]
    vectors: NDArray[np.float32] | None = field(repr=False)
    payloads: list[bytes] = field(repr=False)

    def __len__(self) -> int:
        return len(self.subject_ids)


class Outcome(StrEnum):
    GONE = "gone"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Location:
    """One place that held a copy, and what became of it."""

    name: str
    outcome: Outcome
    at: datetime


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof of an erasure; signed anew whenever a location changes."""

    receipt_id: str
    store_id: str
    tenant: str
    subject_id: SubjectId
    modality: Modality | None  # None: all of them
    purpose: Purpose | None
    reason: str
    actor: str
    requested_at: datetime
    revision: int
    locations: tuple[Location, ...]
    signature: bytes = b""

    @property
    def closed(self) -> bool:
        return all(location.outcome is Outcome.GONE for location in self.locations)

    def as_dict(self) -> dict[str, object]:
        return {
            "receipt_id": self.receipt_id,
            "store_id": self.store_id,
            "tenant": self.tenant,
            "subject_id": self.subject_id,
            "modality": self.modality,
            "purpose": self.purpose,
            "reason": self.reason,
            "actor": self.actor,
            "requested_at": self.requested_at.isoformat(),
            "revision": self.revision,
            "locations": [
                {"location": each.name, "outcome": each.outcome.value, "at": each.at.isoformat()}
                for each in self.locations
            ],
        }

    def signed_bytes(self) -> bytes:
        """What the signature covers: this JSON, keys sorted, no spaces, UTF-8."""
        return json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    def verify(self, public_key: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(self.signature, self.signed_bytes())
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Statistics:
    sealed: bool
    version: int
    subjects: int  # with at least one template
    templates: dict[str, int]  # by modality
    chunks: int
    journal: int  # templates that are in no chunk yet
    stale_consents: int
    open_placements: int
    pending_erasures: int
    provider: str
    warning: str
    foreign_keks: tuple[str, ...]  # retired, but in a provider that is not attached: destroy them there


@dataclass(frozen=True, slots=True)
class IntegrityReport:
    ok: bool
    templates: int
    chunks: int
    faults: tuple[str, ...]  # which row, never what it holds
