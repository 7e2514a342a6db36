"""Whether a person's biometric may be taken. The only module that makes a `Consent`.

`require` answers when somebody enrols; `fault_of` answers, with the terms in force at that moment, whether a
consent given earlier still holds: a material change of the notice, a new assessment of high risk or a switched-off
modality makes it stale at once. A "no" leaves nothing behind: neither it nor its reason is stored or sent anywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Protocol

from templates_store.records import ConsentState, StoredConsent
from templates_store.template import Consent, Modality, Purpose, SubjectId

LONGEST = timedelta(days=1095)  # BIPA 15(a): three years since the last interaction, the strictest cap known
CLOCK_SKEW = timedelta(minutes=5)  # a form signed on a tablet whose clock runs ahead
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


class ConsentFault(StrEnum):
    """Why a biometric may not be taken or used, in the order of checking."""

    SWITCH_OFF = "switch_off"
    NO_NOTICE = "no_notice"
    NO_RETENTION = "no_retention"
    NO_ASSESSMENT = "no_assessment"
    HIGH_RISK = "high_risk"
    MISSING = "missing"
    NOTICE_OUTDATED = "notice_outdated"
    NO_EVIDENCE = "no_evidence"
    AGE_UNKNOWN = "age_unknown"
    GUARDIAN_NEEDED = "guardian_needed"
    NO_BASIS_RECORD = "no_basis_record"
    NOT_YET_GIVEN = "not_yet_given"
    TOO_LONG = "too_long"
    EXPIRED = "expired"


WORDS = {
    ConsentFault.SWITCH_OFF: "this modality is switched off by the enterprise",
    ConsentFault.NO_NOTICE: "no notice is in force; publish one first (privacy.notice_version)",
    ConsentFault.NO_RETENTION: "no retention period for templates is published (retention.templates_days)",
    ConsentFault.NO_ASSESSMENT: "no impact assessment is on file (privacy.impact_assessment)",
    ConsentFault.HIGH_RISK: "the impact assessment shows a high risk; capture is stopped until it is dealt with",
    ConsentFault.MISSING: "there is no consent for this modality and purpose",
    ConsentFault.NOTICE_OUTDATED: "the consent was given on a notice that is no longer in force",
    ConsentFault.NO_EVIDENCE: "evidence_sha256 must be the SHA-256 of the signed form, 64 lower-case hex digits",
    ConsentFault.AGE_UNKNOWN: "give the date of birth, or a statement that the person is of age",
    ConsentFault.GUARDIAN_NEEDED: "the person is under age: a guardian's consent with its own evidence is needed",
    ConsentFault.NO_BASIS_RECORD: "a legal basis other than consent needs its reference and who recorded it",
    ConsentFault.NOT_YET_GIVEN: "the consent is dated in the future",
    ConsentFault.TOO_LONG: "the consent would outlast the published retention period",
    ConsentFault.EXPIRED: "the consent has expired",
}


class ConsentRefused(Exception):
    """A biometric may not be taken; card and PIN work as before."""

    def __init__(self, fault: ConsentFault) -> None:
        super().__init__(WORDS[fault])
        self.fault = fault


class LegalBasis(StrEnum):
    """On what the processing rests. Anything but consent has to be recorded with its reference; never the default."""

    CONSENT = "consent"
    NATIONAL_SECURITY = "national_security"
    PUBLIC_SAFETY = "public_safety"
    CRIMINAL_PROCEEDINGS = "criminal_proceedings"
    VITAL_INTERESTS = "vital_interests"
    STATUTORY_DUTY = "statutory_duty"


@dataclass(frozen=True, slots=True)
class Terms:
    """What the enterprise has in force now."""

    switched_on: frozenset[Modality] = frozenset()
    notice_version: str = ""
    accepted_versions: frozenset[str] = frozenset()  # earlier notices that differ in nothing material
    templates_days: int | None = None
    assessment: str = ""
    high_risk: bool = False
    minor_age: int = 14

    def accepts(self, version: str) -> bool:
        return bool(version) and (version == self.notice_version or version in self.accepted_versions)


@dataclass(frozen=True, slots=True)
class Act:
    """A person's (or guardian's) act of saying yes, as recorded."""

    subject_id: SubjectId
    modality: Modality
    purpose: Purpose
    notice_version: str
    given_at: datetime
    evidence_sha256: str
    expires_at: datetime | None = None
    born: date | None = field(default=None, repr=False)
    of_age: bool = False  # stated instead of a date of birth
    guardian_evidence_sha256: str = ""
    basis: LegalBasis = LegalBasis.CONSENT
    basis_reference: str = ""
    recorded_by: str = ""


class Given(Protocol):
    """A consent on record, however it was read."""

    @property
    def subject_id(self) -> SubjectId: ...
    @property
    def modality(self) -> Modality: ...
    @property
    def purpose(self) -> Purpose: ...
    @property
    def notice_version(self) -> str: ...
    @property
    def given_at(self) -> datetime: ...
    @property
    def expires_at(self) -> datetime: ...


def age_on(born: date, day: date) -> int:
    """Completed years; somebody born on 29 February grows older on 1 March of ordinary years."""
    return day.year - born.year - ((day.month, day.day) < (born.month, born.day))


def terms_fault(modality: Modality, terms: Terms) -> ConsentFault | None:
    """What keeps this modality off for everybody."""
    if modality not in terms.switched_on:
        return ConsentFault.SWITCH_OFF
    if not terms.notice_version:
        return ConsentFault.NO_NOTICE
    if terms.templates_days is None:
        return ConsentFault.NO_RETENTION
    if not terms.assessment:
        return ConsentFault.NO_ASSESSMENT
    return ConsentFault.HIGH_RISK if terms.high_risk else None


def require(act: Act, terms: Terms, *, now: datetime) -> Consent:
    """The consent that `templates_store` asks for. Raises ConsentRefused; then nothing may be captured."""
    fault = terms_fault(act.modality, terms) or _act_fault(act, terms, now)
    if fault is not None or terms.templates_days is None:
        raise ConsentRefused(fault or ConsentFault.NO_RETENTION)
    longest = act.given_at + min(timedelta(days=terms.templates_days), LONGEST)
    expires_at = act.expires_at or longest
    if expires_at > longest:
        raise ConsentRefused(ConsentFault.TOO_LONG)
    if expires_at <= now:
        raise ConsentRefused(ConsentFault.EXPIRED)
    return Consent(
        subject_id=act.subject_id,
        modality=act.modality,
        purpose=act.purpose,
        notice_version=act.notice_version,
        given_at=act.given_at,
        expires_at=expires_at,
        evidence_sha256=act.evidence_sha256,
        legal_basis=act.basis.value,
        basis_reference=act.basis_reference.strip(),
    )


def _act_fault(act: Act, terms: Terms, now: datetime) -> ConsentFault | None:
    if act.notice_version != terms.notice_version:
        return ConsentFault.NOTICE_OUTDATED
    if not _SHA256.fullmatch(act.evidence_sha256):
        return ConsentFault.NO_EVIDENCE
    if act.basis is not LegalBasis.CONSENT and not (act.basis_reference.strip() and act.recorded_by.strip()):
        return ConsentFault.NO_BASIS_RECORD
    if act.born is None and not act.of_age:
        return ConsentFault.AGE_UNKNOWN
    minor = act.born is not None and age_on(act.born, now.date()) < terms.minor_age
    if minor and not _SHA256.fullmatch(act.guardian_evidence_sha256):
        return ConsentFault.GUARDIAN_NEEDED
    return ConsentFault.NOT_YET_GIVEN if act.given_at > now + CLOCK_SKEW else None


def fault_of(
    consent: Given | None, terms: Terms, *, modality: Modality, purpose: Purpose, now: datetime
) -> ConsentFault | None:
    """Why `consent` does not cover this use now; None if it does."""
    fault = terms_fault(modality, terms)
    if fault is not None:
        return fault
    if consent is None or (consent.modality, consent.purpose) != (modality, purpose):
        return ConsentFault.MISSING
    if not terms.accepts(consent.notice_version):
        return ConsentFault.NOTICE_OUTDATED
    return ConsentFault.EXPIRED if now >= consent.expires_at else None


def on_record(stored: StoredConsent, terms: Terms, *, now: datetime) -> Consent:
    """The consent on record, for further templates that it covers. Raises ConsentRefused if it does not hold now."""
    fault = fault_of(stored, terms, modality=stored.modality, purpose=stored.purpose, now=now)
    if fault is None and stored.state is not ConsentState.VALID:
        fault = ConsentFault.MISSING
    if fault is not None:
        raise ConsentRefused(fault)
    return Consent(
        subject_id=stored.subject_id,
        modality=stored.modality,
        purpose=stored.purpose,
        notice_version=stored.notice_version,
        given_at=stored.given_at,
        expires_at=stored.expires_at,
        evidence_sha256=stored.evidence_sha256,
        legal_basis=stored.legal_basis,
        basis_reference=stored.basis_reference,
    )
