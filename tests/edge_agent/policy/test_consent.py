from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from edge_agent.policy.consent import (
    WORDS,
    Act,
    ConsentFault,
    ConsentRefused,
    LegalBasis,
    Terms,
    age_on,
    fault_of,
    require,
)
from templates_store.template import Modality, Purpose, SubjectId

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
TERMS = Terms(
    switched_on=frozenset({Modality.FACE}), notice_version="n3", templates_days=365, assessment="pia-1", minor_age=14
)
ACT = Act(
    subject_id=SubjectId("s1"),
    modality=Modality.FACE,
    purpose=Purpose.ATTENDANCE,
    notice_version="n3",
    given_at=NOW - timedelta(hours=1),
    evidence_sha256="ab" * 32,
    of_age=True,
)


def test_a_valid_act_becomes_a_consent_that_ends_with_the_retention_period() -> None:
    consent = require(ACT, TERMS, now=NOW)
    assert (consent.subject_id, consent.modality, consent.purpose) == ("s1", Modality.FACE, Purpose.ATTENDANCE)
    assert consent.expires_at == ACT.given_at + timedelta(days=365)


@pytest.mark.parametrize(
    ("act", "terms", "fault"),
    [
        ({}, {"switched_on": frozenset()}, ConsentFault.SWITCH_OFF),
        ({"modality": Modality.FINGERPRINT}, {}, ConsentFault.SWITCH_OFF),
        ({}, {"notice_version": ""}, ConsentFault.NO_NOTICE),
        ({}, {"templates_days": None}, ConsentFault.NO_RETENTION),
        ({}, {"assessment": ""}, ConsentFault.NO_ASSESSMENT),
        ({}, {"high_risk": True}, ConsentFault.HIGH_RISK),
        ({"notice_version": "n2"}, {}, ConsentFault.NOTICE_OUTDATED),
        ({"notice_version": "n2"}, {"accepted_versions": frozenset({"n2"})}, ConsentFault.NOTICE_OUTDATED),
        ({"evidence_sha256": ""}, {}, ConsentFault.NO_EVIDENCE),
        ({"evidence_sha256": "AB" * 32}, {}, ConsentFault.NO_EVIDENCE),
        ({"of_age": False}, {}, ConsentFault.AGE_UNKNOWN),
        ({"born": date(2012, 11, 24)}, {}, ConsentFault.GUARDIAN_NEEDED),
        ({"born": date(2012, 11, 24), "guardian_evidence_sha256": "yes"}, {}, ConsentFault.GUARDIAN_NEEDED),
        ({"basis": LegalBasis.PUBLIC_SAFETY}, {}, ConsentFault.NO_BASIS_RECORD),
        ({"basis": LegalBasis.PUBLIC_SAFETY, "basis_reference": "Art. 4"}, {}, ConsentFault.NO_BASIS_RECORD),
        ({"basis": LegalBasis.PUBLIC_SAFETY, "recorded_by": "wang"}, {}, ConsentFault.NO_BASIS_RECORD),
        ({"given_at": NOW + timedelta(minutes=6)}, {}, ConsentFault.NOT_YET_GIVEN),
        ({"expires_at": ACT.given_at + timedelta(days=365, seconds=1)}, {}, ConsentFault.TOO_LONG),
        ({"expires_at": NOW}, {}, ConsentFault.EXPIRED),
        ({"given_at": NOW - timedelta(days=365)}, {}, ConsentFault.EXPIRED),
    ],
)
def test_each_missing_condition_refuses_with_its_own_reason(
    act: dict[str, object], terms: dict[str, object], fault: ConsentFault
) -> None:
    with pytest.raises(ConsentRefused) as refused:
        require(replace(ACT, **act), replace(TERMS, **terms), now=NOW)  # type: ignore[arg-type]
    assert refused.value.fault is fault
    assert str(refused.value) == WORDS[fault]


def test_several_faults_are_told_in_a_fixed_order() -> None:
    hopeless = replace(ACT, notice_version="", evidence_sha256="", of_age=False)
    with pytest.raises(ConsentRefused) as refused:
        require(hopeless, Terms(), now=NOW)
    assert refused.value.fault is ConsentFault.SWITCH_OFF


@pytest.mark.parametrize(
    ("act", "terms"),
    [
        ({"born": date(2012, 11, 23)}, {}),  # fourteen today
        ({"born": date(2015, 1, 1), "guardian_evidence_sha256": "cd" * 32}, {}),
        ({"born": date(2012, 11, 24)}, {"minor_age": 13}),
        ({"basis": LegalBasis.PUBLIC_SAFETY, "basis_reference": "Art. 4", "recorded_by": "wang"}, {}),
        ({"given_at": NOW + timedelta(minutes=5)}, {}),
        ({"expires_at": NOW + timedelta(days=1)}, {}),
    ],
)
def test_the_other_side_of_each_boundary_is_accepted(act: dict[str, object], terms: dict[str, object]) -> None:
    changed = replace(ACT, **act)  # type: ignore[arg-type]
    assert require(changed, replace(TERMS, **terms), now=NOW).evidence_sha256 == "ab" * 32  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("born", "day", "age"),
    [
        (date(2012, 2, 29), date(2026, 2, 28), 13),
        (date(2012, 2, 29), date(2026, 3, 1), 14),
        (date(2012, 2, 29), date(2028, 2, 29), 16),
        (date(2012, 12, 31), date(2026, 12, 30), 13),
        (date(2012, 12, 31), date(2026, 12, 31), 14),
    ],
)
def test_age_grows_on_the_birthday(born: date, day: date, age: int) -> None:
    assert age_on(born, day) == age


@pytest.mark.parametrize(
    ("terms", "modality", "purpose", "later", "fault"),
    [
        ({}, Modality.FACE, Purpose.ATTENDANCE, timedelta(0), None),
        ({}, Modality.FACE, Purpose.ACCESS, timedelta(0), ConsentFault.MISSING),
        ({}, Modality.FINGERPRINT, Purpose.ATTENDANCE, timedelta(0), ConsentFault.SWITCH_OFF),
        ({"notice_version": "n4"}, Modality.FACE, Purpose.ATTENDANCE, timedelta(0), ConsentFault.NOTICE_OUTDATED),
        (
            {"notice_version": "n4", "accepted_versions": frozenset({"n3"})},
            Modality.FACE,
            Purpose.ATTENDANCE,
            timedelta(0),
            None,
        ),
        ({"high_risk": True}, Modality.FACE, Purpose.ATTENDANCE, timedelta(0), ConsentFault.HIGH_RISK),
        ({"switched_on": frozenset()}, Modality.FACE, Purpose.ATTENDANCE, timedelta(0), ConsentFault.SWITCH_OFF),
        ({}, Modality.FACE, Purpose.ATTENDANCE, timedelta(days=365, hours=-1, seconds=-1), None),
        ({}, Modality.FACE, Purpose.ATTENDANCE, timedelta(days=365, hours=-1), ConsentFault.EXPIRED),
    ],
)
def test_a_given_consent_is_judged_by_the_terms_in_force_now(
    terms: dict[str, object], modality: Modality, purpose: Purpose, later: timedelta, fault: ConsentFault | None
) -> None:
    consent = require(ACT, TERMS, now=NOW)
    now_in_force = replace(TERMS, **terms)  # type: ignore[arg-type]
    assert fault_of(consent, now_in_force, modality=modality, purpose=purpose, now=NOW + later) is fault


def test_no_consent_at_all_is_missing() -> None:
    assert fault_of(None, TERMS, modality=Modality.FACE, purpose=Purpose.ACCESS, now=NOW) is ConsentFault.MISSING


def test_a_date_of_birth_is_not_shown() -> None:
    assert "2012" not in repr(replace(ACT, born=date(2012, 1, 1)))
