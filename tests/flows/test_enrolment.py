from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import UploadFile
from PIL import Image

from edge_agent.api import enrolments
from edge_agent.api.problems import Problem
from edge_agent.enrolment import LIFETIME_S, MAX_OPEN, EnrolmentFault, EnrolmentRefused, Step
from edge_agent.matching.images import BadImage
from edge_agent.matching.outcomes import CheckName, Refused, SampleFault
from edge_agent.policy.consent import Act, ConsentFault, ConsentRefused
from templates_store.template import Consent, Modality, Purpose, SubjectId, Template
from tests.flows.site import START, Site, site


def act(subject: str = "ann", modality: Modality = Modality.FACE, purpose: Purpose = Purpose.ACCESS) -> Act:
    return Act(SubjectId(subject), modality, purpose, "n1", START, "ab" * 32, of_age=True)


def frame(person: int) -> np.ndarray:
    return np.full((48, 64, 3), person, np.uint8)


async def enrol(s: Site, subject: str, person: int, *purposes: Purpose) -> None:
    acts = [act(subject, purpose=purpose) for purpose in purposes or (Purpose.ACCESS,)]
    step = await s.enrolment.start(acts, actor="li")
    while not step.ready:
        step = await s.enrolment.offer_frame(step.enrolment_id, frame(person))
    await s.enrolment.finish(step.enrolment_id)


async def test_three_good_samples_become_a_template_that_opens_the_door(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        step = await s.enrolment.start([act()], actor="li")
        shown = [frame(person) for person in (7, 0, 255, 7, 9, 7)]
        steps = [await s.enrolment.offer_frame(step.enrolment_id, picture) for picture in shown]
        assert [(x.accepted, x.have) for x in steps] == [
            (True, 1),
            (False, 1),
            (False, 1),
            (True, 2),
            (False, 2),
            (True, 3),
        ]
        faults = [x.refused.fault for x in steps if x.refused]
        assert faults == [SampleFault.NO_FACE, SampleFault.BLURRED, SampleFault.SAMPLES_DISAGREE]
        assert not any(picture.any() for picture in shown)
        [consent] = await s.enrolment.finish(step.enrolment_id)
        assert consent.purpose is Purpose.ACCESS
        assert len(s.store.templates_of(SubjectId("ann"), purpose=Purpose.ACCESS)) == 1
        s.camera.show(7)
        s.entry.look("gate")
        assert (await s.passage()).granted


async def test_the_newest_sample_is_told_with_its_figures_to_whoever_asks(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        begun = await s.enrolment.start([act()], actor="li")
        assert s.enrolment.state(begun.enrolment_id).checks == ()
        for person, accepted in ((7, True), (9, False), (7, True)):
            step = await s.enrolment.offer_frame(begun.enrolment_id, frame(person))
            assert s.enrolment.state(begun.enrolment_id) is step
            assert step.accepted is accepted
        made = {check.name: check for check in step.checks}
        agreement = made[CheckName.AGREEMENT]
        assert agreement.low is not None
        assert agreement.value > agreement.low


async def test_a_print_too_poor_for_a_reference_is_refused_with_its_reason(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        step = await s.enrolment.start([act(modality=Modality.FINGERPRINT)], actor="li", position=2)
        step = await s.enrolment.offer_finger(step.enrolment_id, np.full((64, 64), 254, np.uint8), dpi=500)
        assert (step.have, step.refused) == (0, Refused(SampleFault.FINGER_TOO_DRY, 20.0, 40.0))


async def test_a_withdrawal_between_storing_and_searching_leaves_nobody_who_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        store = s.store.enrol_many

        def stored_and_withdrawn(people: Sequence[tuple[Consent, Sequence[Template]]]) -> int:
            """Another thread comes to the store and to the galleries before the enrolment is told that it is done."""
            count = store(people)
            s.store.withdraw(SubjectId("ann"), reason="request", actor="ann")
            s.galleries.remove(SubjectId("ann"))
            return count

        monkeypatch.setattr(s.store, "enrol_many", stored_and_withdrawn)
        with pytest.raises(EnrolmentRefused):
            await enrol(s, "ann", 7)
        assert s.galleries.count() == 0
        assert await s.events("subject.enrolled") == []


async def test_the_event_upstream_holds_nothing_biometric(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        await enrol(s, "ann", 7)
        [told] = await s.events("subject.")
        assert told.event.type == "subject.enrolled"
        assert set(told.event.data) == {"modality", "purposes", "samples", "pipeline", "notice_version"}
        assert [action for action, _ in await s.audited()] == ["enrolment.start", "enrolment.finish"]


async def test_without_consent_no_sample_is_taken_and_nothing_is_kept(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        with pytest.raises(ConsentRefused) as refused:
            await s.enrolment.start([replace(act(), of_age=False)], actor="li")
        assert refused.value.fault is ConsentFault.AGE_UNKNOWN
        assert await s.audited() == []
        assert await s.events() == []
        assert s.store.consents(SubjectId("ann")) == []


async def test_terms_that_change_during_an_enrolment_stop_it(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        step = await s.enrolment.start([act()], actor="li")
        for _ in range(3):
            await s.enrolment.offer_frame(step.enrolment_id, frame(7))
        s.terms = replace(s.terms, notice_version="n2")
        with pytest.raises(ConsentRefused):
            await s.enrolment.finish(step.enrolment_id)
        assert s.galleries.count() == 0
        assert s.store.consents(SubjectId("ann")) == []


async def test_nobody_is_enrolled_under_two_names(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        await s.add("bob")
        await enrol(s, "ann", 7)
        step = await s.enrolment.start([act("bob")], actor="li")
        for _ in range(3):
            await s.enrolment.offer_frame(step.enrolment_id, frame(7))
        with pytest.raises(EnrolmentRefused) as refused:
            await s.enrolment.finish(step.enrolment_id)
        assert refused.value.fault is EnrolmentFault.SOMEBODY_ELSE
        assert s.galleries.count() == 1


async def test_each_purpose_is_stored_apart(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        await enrol(s, "ann", 7, Purpose.ACCESS, Purpose.ATTENDANCE)
        for purpose in Purpose:
            assert s.galleries.count(Modality.FACE, purpose) == 1
            assert len(s.store.templates_of(SubjectId("ann"), purpose=purpose)) == 1


async def test_fingers_come_from_a_reader_with_progress(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        step = await s.enrolment.start([act(modality=Modality.FINGERPRINT)], actor="li", position=2)
        s.sensor.fingers = [5, 255, 6, 5, 5]
        told: list[Step] = []

        async def progress(step: Step) -> None:
            told.append(step)

        step = await s.enrolment.capture(step.enrolment_id, "sensor", progress=progress)
        assert step.ready
        assert [x.refused.fault if x.refused else None for x in told] == [
            None,
            SampleFault.FINGER_TOO_DRY,
            SampleFault.SAMPLES_DISAGREE,
            None,
            None,
        ]
        await s.enrolment.finish(step.enrolment_id)
        await s.finger(5)
        assert (await s.passage()).granted
        assert not any(image.any() for image in s.sensor.captured)


async def test_between_two_samples_the_finger_leaves_the_sensor(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        step = await s.enrolment.start([act(modality=Modality.FINGERPRINT)], actor="li", position=2)
        s.sensor.fingers, s.sensor.rests = [5, 5, 5], 2
        waited: list[bool] = []
        lifted = s.sensor.lifted

        async def watched(*, timeout_s: float) -> None:
            waited.append(s.enrolment.state(step.enrolment_id).lift)
            await lifted(timeout_s=timeout_s)

        s.sensor.lifted = watched  # type: ignore[method-assign]
        step = await s.enrolment.capture(step.enrolment_id, "sensor")
        assert step.ready
        assert not step.lift
        assert s.sensor.lifts == 2, "after the last sample it may stay"
        assert waited == [True] * 4, "whoever asks is told to lift it, for as long as it rests"


async def test_a_camera_gives_the_samples_and_is_closed_again(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        step = await s.enrolment.start([act()], actor="li")
        s.camera.show(7, 7, 7, 7)
        assert (await s.enrolment.capture(step.enrolment_id, "camera")).ready
        assert not s.camera.open
        s.switched_off.add(("camera", Modality.FACE))
        with pytest.raises(EnrolmentRefused, match="switched off"):
            await s.enrolment.capture(step.enrolment_id, "camera")


async def test_samples_of_a_camera_are_not_frames_of_one_moment(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        step = await s.enrolment.start([act()], actor="li")
        s.camera.apart_s = 0.2
        s.camera.show(*[7] * 7)
        told: list[Step] = []

        async def progress(step: Step) -> None:
            told.append(step)

        assert (await s.enrolment.capture(step.enrolment_id, "camera", progress=progress)).ready
        assert [x.have for x in told] == [1, 2, 3], "of frames 0.2 s apart, each third"
        assert not any(pixels.any() for pixels in s.camera.given), "those left out are overwritten too"


async def test_an_uploaded_photo_is_looked_at_in_memory(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        step = await s.enrolment.start([act()], actor="li", samples=1)
        buffer = io.BytesIO()
        Image.new("RGB", (64, 48), (7, 7, 7)).save(buffer, "PNG")
        before = {path.name for path in tmp_path.iterdir()}
        assert (await s.enrolment.offer_photo(step.enrolment_id, buffer.getvalue())).ready
        with pytest.raises(BadImage):
            await s.enrolment.offer_photo(step.enrolment_id, b"\x00" * 100)
        assert {path.name for path in tmp_path.iterdir()} == before


async def test_enrolments_are_few_short_and_one_a_person(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        first = await s.enrolment.start([act("p0")], actor="li")
        with pytest.raises(EnrolmentRefused, match="open already"):
            await s.enrolment.start([act("p0")], actor="li")
        for n in range(1, MAX_OPEN):
            await s.enrolment.start([act(f"p{n}")], actor="li")
        with pytest.raises(EnrolmentRefused, match="finish or cancel one"):
            await s.enrolment.start([act("one-more")], actor="li")
        await s.enrolment.cancel(first.enrolment_id)
        await s.enrolment.start([act("one-more")], actor="li")
        s.clock.move(seconds=LIFETIME_S)
        with pytest.raises(EnrolmentRefused, match="no such enrolment"):
            s.enrolment.state(first.enrolment_id)
        await s.enrolment.start([act("p0")], actor="li")


async def test_too_few_samples_or_a_sealed_store_finish_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        step = await s.enrolment.start([act()], actor="li")
        with pytest.raises(EnrolmentRefused, match="more samples"):
            await s.enrolment.finish(step.enrolment_id)
        s.galleries.seal()
        with pytest.raises(EnrolmentRefused, match="sealed"):
            await s.enrolment.start([act("bob")], actor="li")


@pytest.mark.parametrize(
    ("acts", "position"),
    [
        ([], 0),
        ([act("ann"), act("bob")], 0),
        ([act(), act()], 0),
        ([act(modality=Modality.FINGERPRINT)], 0),
        ([act(modality=Modality.FINGERPRINT)], 11),
    ],
)
async def test_contradictory_wishes_are_refused(tmp_path: Path, acts: list[Act], position: int) -> None:
    async with site(tmp_path) as s:
        with pytest.raises(ValueError):
            await s.enrolment.start(acts, actor="li", position=position)


async def test_of_two_people_who_come_with_one_face_at_the_same_time_the_second_is_refused(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        begun = []
        for name in ("ann", "eve"):
            await s.add(name)
            begun.append(await s.enrolment.start([act(name)], actor="li"))
            for _ in range(3):
                await s.enrolment.offer_frame(begun[-1].enrolment_id, frame(7))
        ended = await asyncio.gather(*(s.enrolment.finish(b.enrolment_id) for b in begun), return_exceptions=True)
        [refused] = [each for each in ended if isinstance(each, EnrolmentRefused)]
        assert refused.fault is EnrolmentFault.SOMEBODY_ELSE
        assert s.galleries.count() == s.store.statistics().subjects == 1


async def test_capture_that_is_no_longer_allowed_opens_no_sensor_and_takes_no_sample(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        for change, fault in (
            ({"switched_on": frozenset()}, ConsentFault.SWITCH_OFF),
            ({"high_risk": True}, ConsentFault.HIGH_RISK),
        ):
            before = s.terms
            for take in (
                lambda begun: s.enrolment.capture(begun, "camera"),
                lambda begun: s.enrolment.offer_frame(begun, frame(7)),
            ):
                begun = await s.enrolment.start([act()], actor="li")
                s.terms = replace(before, **change)
                with pytest.raises(ConsentRefused) as refused:
                    await take(begun.enrolment_id)
                assert refused.value.fault is fault
                s.terms = before
                with pytest.raises(EnrolmentRefused, match="no such enrolment"):
                    s.enrolment.state(begun.enrolment_id)
        assert s.camera.openings == 0


async def test_a_sensor_at_work_closes_when_capture_is_no_longer_allowed(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        begun = await s.enrolment.start([act()], actor="li")

        def second_frame() -> None:
            if len(s.camera.given) == 2:
                s.terms = replace(s.terms, high_risk=True)

        s.camera.before_frame = second_frame
        s.camera.show(7, 7, 7)
        with pytest.raises(ConsentRefused):
            await s.enrolment.capture(begun.enrolment_id, "camera")
        assert (s.camera.open, len(s.camera.given)) == (False, 2)
        assert not any(picture.any() for picture in s.camera.given)
        assert ("sensor.close", "camera") in await s.audited()


async def test_nothing_is_stored_of_somebody_who_is_not_on_record(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        with pytest.raises(EnrolmentRefused) as refused:
            await enrol(s, "ann", 7)
        assert refused.value.fault is EnrolmentFault.UNKNOWN
        assert s.store.consents(SubjectId("ann")) == []


async def test_who_calls_is_told_why_capture_is_no_longer_allowed(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        caller: Any = None  # who it is was looked at before
        running: Any = s
        allowed = s.terms
        photo = UploadFile(io.BytesIO(b"no photograph"))
        for take in (
            lambda begun: enrolments.capture(begun, enrolments.FromDevice(device="camera"), caller, running),
            lambda begun: enrolments.offer_photo(begun, photo, caller, running),
        ):
            s.terms = allowed
            begun = await s.enrolment.start([act()], actor="li")
            s.terms = replace(allowed, high_risk=True)
            with pytest.raises(Problem) as told:
                await take(begun.enrolment_id)
            assert (told.value.status, told.value.code) == (409, "high_risk")
