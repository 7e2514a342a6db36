from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from edge_agent.biometrics.galleries import Galleries
from edge_agent.biometrics.identification import Identification, Subject
from edge_agent.matching.decision import Targets
from edge_agent.matching.face import FaceSample
from edge_agent.matching.fingerprint import FingerSample
from edge_agent.matching.outcomes import Match, NoMatch, NoMatchReason
from templates_store.template import Modality, Purpose, SubjectId, Template, TemplateFormat, TemplateId
from tests.flows.site import (
    FACE_PIPELINE,
    FINGER_PIPELINE,
    QUALITY,
    NumberFaces,
    NumberFingers,
    Site,
    calibration,
    consent,
    face_of,
    face_vector,
    minutiae_of,
    site,
)

ANN, BOB = SubjectId("ann"), SubjectId("bob")
FACE, ACCESS = Modality.FACE, Purpose.ACCESS


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as running:
        yield running


def face(person: int) -> FaceSample:
    return FaceSample(face_vector(person), QUALITY, face_of(person))


def finger(person: int) -> FingerSample:
    return FingerSample(minutiae_of(person), FINGER_PIPELINE, 90.0)


def identification(galleries: Galleries) -> Identification:
    return Identification(
        galleries,
        face=NumberFaces(),
        finger=NumberFingers(),  # type: ignore[arg-type]
        calibration=calibration,
        targets=lambda _: Targets(),
    )


def test_they_are_filled_from_the_store_with_its_consents(s: Site) -> None:
    for n, subject in enumerate((ANN, BOB), 7):
        s.enrol_face(subject, n)
        s.enrol_finger(subject, n, position=n)
    galleries = Galleries()
    assert galleries.sealed
    assert galleries.load(s.store) == 4
    assert not galleries.sealed
    assert galleries.consent(ANN, FACE, ACCESS) is not None
    assert galleries.consent(ANN, FACE, Purpose.ATTENDANCE) is None
    who = identification(galleries)
    for sample, wanted in ((face(7), ANN), (face(8), BOB), (finger(7), ANN)):
        found = who.decide(sample, Subject(ACCESS))
        assert isinstance(found, Match)
        assert found.subject_id == wanted
    match = who.decide(finger(8), Subject(ACCESS))
    assert isinstance(match, Match)
    assert who.position(finger(8), match, ACCESS) == 8


def test_a_face_like_two_people_is_nobodys(s: Site) -> None:
    s.enrol_face(ANN, 7)
    s.enrol_face(BOB, 8)
    who, both = identification(s.galleries), (face_vector(7) + face_vector(8)) / np.float32(2**0.5)
    between = who.decide(FaceSample(both, QUALITY, face_of(7)), Subject(ACCESS))
    assert isinstance(between, NoMatch)
    assert between.reason is NoMatchReason.AMBIGUOUS
    assert who.decide(face(9), Subject(ACCESS)) == NoMatch(NoMatchReason.BELOW_THRESHOLD)
    alone = who.decide(face(7), Subject(ACCESS))
    assert isinstance(alone, Match)
    assert alone.margin is None  # nobody within it


def test_one_purpose_never_answers_for_another(s: Site) -> None:
    s.enrol_face(ANN, 7, purpose=Purpose.ATTENDANCE)
    found = identification(s.galleries).decide(face(7), Subject(ACCESS))
    assert found == NoMatch(NoMatchReason.EMPTY_GALLERY)


def test_one_to_one_compares_with_the_claimed_person_alone(s: Site) -> None:
    s.enrol_face(ANN, 7)
    s.enrol_face(BOB, 8)
    who = identification(s.galleries)
    assert isinstance(who.decide(face(7), Subject(ACCESS, ANN)), Match)
    assert isinstance(who.decide(face(7), Subject(ACCESS, BOB)), NoMatch)


@pytest.mark.parametrize(
    ("modality", "purpose", "left"),
    [(None, None, 0), (FACE, None, 1), (None, ACCESS, 1), (FACE, ACCESS, 2), (Modality.IRIS, None, 3)],
)
def test_removal_keeps_to_its_scope(s: Site, modality: Modality | None, purpose: Purpose | None, left: int) -> None:
    s.enrol_face(ANN, 7)
    s.enrol_face(ANN, 7, purpose=Purpose.ATTENDANCE)
    s.enrol_finger(ANN, 7)
    s.enrol_face(BOB, 8)
    assert s.galleries.remove(ANN, modality=modality, purpose=purpose) == 3 - left
    assert s.galleries.count() == left + 1
    consents = [each for each in s.galleries.consents() if each.subject_id == ANN]
    assert len(consents) == left


def test_an_erasure_while_loading_wins_over_what_was_read_before(s: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    s.enrol_face(ANN, 7)
    s.enrol_face(BOB, 8)
    read = s.store.load
    galleries = Galleries()

    def slowly(*scope: object) -> object:
        yield from read(*scope)  # type: ignore[arg-type]
        galleries.remove(ANN)
        late = Template(TemplateId("late"), BOB, FACE, ACCESS, FACE_PIPELINE, face_vector(9).tobytes())
        galleries.admit(consent(BOB, FACE, ACCESS), [late], since=galleries.moment, held=lambda: True)

    monkeypatch.setattr(s.store, "load", slowly)
    galleries.load(s.store)
    who = identification(galleries)
    assert isinstance(who.decide(face(7), Subject(ACCESS)), NoMatch)
    assert isinstance(who.decide(face(9), Subject(ACCESS)), Match)
    assert galleries.count() == 2


def test_what_was_erased_before_it_was_admitted_is_never_found(s: Site) -> None:
    template = Template(TemplateId("t"), ANN, FACE, ACCESS, FACE_PIPELINE, face_vector(7).tobytes())
    given = consent(ANN, FACE, ACCESS)
    since = s.galleries.moment
    s.store.enrol(given, [template])
    s.store.withdraw(ANN, reason="request", actor="li", modality=FACE, purpose=ACCESS)
    s.galleries.remove(ANN)
    assert not s.galleries.admit(given, [template], since=since, held=lambda: s.store.holds([template]))
    assert isinstance(identification(s.galleries).decide(face(7), Subject(ACCESS)), NoMatch)


def test_a_removal_that_left_the_template_stored_keeps_nobody_out(s: Site) -> None:
    template = Template(TemplateId("t"), ANN, FACE, ACCESS, FACE_PIPELINE, face_vector(7).tobytes())
    given = consent(ANN, FACE, ACCESS)
    since = s.galleries.moment
    s.galleries.remove(ANN)  # an order of before; the consent is a later one
    s.store.enrol(given, [template])
    assert s.galleries.admit(given, [template], since=since, held=lambda: s.store.holds([template]))
    assert isinstance(identification(s.galleries).decide(face(7), Subject(ACCESS)), Match)


def test_sealing_forgets_everything(s: Site) -> None:
    s.enrol_face(ANN, 7)
    s.galleries.seal()
    assert s.galleries.count() == 0
    assert identification(s.galleries).decide(face(7), Subject(ACCESS)) == NoMatch(NoMatchReason.SEALED)


def test_templates_of_terminals_are_not_searched(s: Site) -> None:
    opaque = TemplateFormat("device:zk-finger-10")
    template = Template(TemplateId("t"), ANN, Modality.FINGERPRINT, ACCESS, opaque, b"\x01\x02\x03")
    given = consent(ANN, Modality.FINGERPRINT, ACCESS)
    s.store.enrol(given, [template])
    s.galleries.admit(given, [template], since=s.galleries.moment, held=lambda: True)
    assert s.galleries.count() == 0
    assert Galleries().load(s.store) == 0
