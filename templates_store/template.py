"""The store's vocabulary: whose template, of what, for which purpose, in which format."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType

SubjectId = NewType("SubjectId", str)  # pseudonymous; the name lives in another database
TemplateId = NewType("TemplateId", str)


class Modality(StrEnum):
    FACE = "face"
    FINGERPRINT = "fingerprint"
    VOICE = "voice"
    IRIS = "iris"


class Purpose(StrEnum):
    ATTENDANCE = "attendance"
    ACCESS = "access"


@dataclass(frozen=True, slots=True)
class TemplateFormat:
    """How a payload is to be read. Templates of different formats never compare.

    `pipeline` names detector, model and their versions, e.g. "yunet-2023mar+sface-2021dec/1", "leader+mcc16/1",
    or "device:zk-finger-10" for an opaque template of a terminal.
    """

    pipeline: str
    dimension: int = 0  # of a float32 vector; 0 for payloads that are no vector


@dataclass(frozen=True, slots=True)
class Template:
    """One stored reference. `payload` is little-endian float32 for vectors, else as `format` says."""

    template_id: TemplateId
    subject_id: SubjectId
    modality: Modality
    purpose: Purpose
    format: TemplateFormat
    payload: bytes = field(repr=False)
    position: int = 0  # finger 1..10 (ISO 19794-2), sample number of a face


@dataclass(frozen=True, slots=True)
class Consent:
    """A person's yes, for one modality and one purpose. Made only by `edge_agent.policy.consent`."""

    subject_id: SubjectId
    modality: Modality
    purpose: Purpose
    notice_version: str
    given_at: datetime  # aware, UTC
    expires_at: datetime
    evidence_sha256: str  # of the signed form or recorded act; the evidence itself lives elsewhere
    legal_basis: str = "consent"  # or a coded exception, which then has to have its reference
    basis_reference: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer of a 1:N search; `score` is similarity, higher is more alike."""

    subject_id: SubjectId
    score: float
