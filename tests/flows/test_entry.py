from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device_drivers import devices
from device_drivers.devices import Feedback
from device_drivers.errors import DeviceRefused
from device_drivers.events import KeysPressed
from edge_agent import entry
from edge_agent.biometrics import sensing
from edge_agent.doors.alarms import alarms
from edge_agent.doors.control import NotOpened
from edge_agent.doors.presence import Order, Presence
from edge_agent.matching.face import FaceSample
from edge_agent.matching.outcomes import PadState, Refused
from edge_agent.matching.pad import PadResult, Turn, TurnChallenge
from edge_agent.matching.quality import Face
from edge_agent.people.credentials import PinCheck, Rights
from edge_agent.policy.attempts import Attempts
from edge_agent.policy.rules import DoorMode, Factor
from templates_store.template import Modality, Purpose, SubjectId
from tests.flows.site import LINK_GONE, RULES, NumberFaces, face_of, site


async def test_a_card_opens_its_door_and_the_event_is_durable_before_the_relay_moves(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann", card="1234567")
        recorded: list[int] = []
        s.panel.before_open = lambda: recorded.append(s.database.commits)
        before = s.database.commits
        await s.card("1234567")
        passage = await s.passage()
        assert passage.granted
        assert s.panel.opened == [(1, 5.0)]
        assert recorded[0] > before
        assert await s.shown() is Feedback.GRANTED
        [event] = await s.events("access.")
        assert (event.event.type, event.event.subject) == ("access.granted", "ann")
        assert event.event.data["verify_mode"] == "card"
        assert event.event.data["location"]["latitude"] == 31.2
        assert "1234567" not in str(event.event)


async def test_an_unknown_card_opens_nothing_and_is_told_once(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.card("999")
        passage = await s.passage()
        assert (passage.granted, passage.reason) == (False, "unknown")
        assert s.panel.opened == []
        assert await s.shown() is Feedback.DENIED
        assert [e.event.type for e in await s.events("access.")] == ["access.denied"]


@pytest.mark.parametrize("number", ["1" * 128, "1; DROP TABLE people", "", "٣٤٥"])
async def test_a_card_that_can_be_none_is_denied(tmp_path: Path, number: str) -> None:
    async with site(tmp_path) as s:
        await s.card(number)
        assert (await s.passage()).reason == "unknown"
        assert s.panel.opened == []


async def test_a_face_opens_the_door_and_its_frames_are_overwritten(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        s.enrol_face("ann", 7)
        s.camera.show(0, 255, 7)
        assert s.entry.look("gate")
        passage = await s.passage()
        assert passage.granted
        assert passage.subject_id == "ann"
        assert s.panel.opened == [(1, 5.0)]
        assert not s.camera.open
        assert all(not frame.any() for frame in s.camera.given)
        assert [await s.shown() for _ in range(2)] == [Feedback.LOOK_AGAIN, Feedback.GRANTED]
        actions = [action for action, _ in await s.audited()]
        assert actions == ["sensor.open", "sensor.close"]


async def test_a_stranger_is_denied_after_three_looks(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        s.enrol_face("ann", 7)
        s.camera.show(9, 9, 9)
        s.entry.look("gate")
        passage = await s.passage()
        assert (passage.granted, passage.reason) == (False, "unknown")
        assert len(s.camera.given) == 3


async def test_a_finger_opens_the_door(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        s.enrol_finger("ann", 3)
        await s.finger(3)
        assert (await s.passage()).granted
        assert not s.sensor.captured[0].any()


async def test_a_switched_off_or_unconsented_modality_opens_no_sensor(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann", card="1234567")
        s.enrol_face("ann", 7, purpose=Purpose.ATTENDANCE)  # consent for the clock, not for the door
        s.camera.show(7)
        s.entry.look("gate")
        assert (await s.passage()).reason == "another_factor"
        s.enrol_face("ann", 7)
        s.switched_off.add(("camera", Modality.FACE))
        s.entry.look("gate")
        assert (await s.passage()).reason == "another_factor"
        assert s.camera.openings == 0
        await s.card("1234567")
        assert (await s.passage()).granted


async def test_a_sealed_store_leaves_cards_and_pins(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann", card="1234567")
        s.enrol_face("ann", 7)
        s.galleries.seal()
        s.camera.show(7)
        s.entry.look("gate")
        assert (await s.passage()).reason == "another_factor"
        await s.card("1234567")
        assert (await s.passage()).granted


async def test_a_grant_that_cannot_be_recorded_is_not_given(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann", card="1234567")
        room = s.database.ballast._free
        s.database.ballast._free = lambda _: 0
        await s.card("1234567")
        assert await s.shown() is Feedback.DENIED
        assert s.panel.opened == []
        assert s.presence.whereabouts("ann") is None  # type: ignore[arg-type]
        s.database.ballast._free = room
        await s.card("1234567")
        assert (await s.passage()).granted


def with_door(**changes: Any) -> dict[str, Any]:
    return {**RULES, "doors": [{**RULES["doors"][0], **changes}]}


async def test_card_and_face_are_one_session_and_the_face_is_compared_one_to_one(tmp_path: Path) -> None:
    async with site(tmp_path, with_door(verify=[["card", "face"]])) as s:
        for name, card, face in (("ann", "1111", 7), ("bob", "2222", 8)):
            await s.add(name, card=card)
            s.enrol_face(name, face)
        s.camera.show(7)
        await s.card("1111")
        passage = await s.passage()
        assert passage.granted
        assert len(passage.factors) == 2
        s.camera.show(7, 7, 7)
        await s.card("2222")  # Bob's card, Ann's face
        assert (await s.passage()).reason == "not_verified"
        assert len(s.panel.opened) == 1


async def test_number_and_pin_open_and_a_wrong_pin_does_not(tmp_path: Path) -> None:
    async with site(tmp_path, with_door(verify=[["pin"]])) as s:
        await s.add("ann", number="42", pin="4711")
        await s.keys("42")
        await s.keys("0000")
        assert (await s.passage()).reason == "not_verified"
        await s.keys("42")
        await s.keys("4711")
        assert (await s.passage()).granted
        await s.keys("42*4711")
        assert (await s.passage()).granted
        await s.keys("' OR 1=1 --")
        await s.keys("4711")
        assert (await s.passage()).reason == "unknown"


async def test_after_five_wrong_pins_the_right_one_waits_half_a_minute(tmp_path: Path) -> None:
    async with site(tmp_path, with_door(verify=[["pin"]])) as s:
        await s.add("ann", number="42", pin="4711")
        for _ in range(5):
            await s.keys("42*9999")
            assert (await s.passage()).reason == "not_verified"
        await s.keys("42*4711")
        assert (await s.passage()).reason == "try_later"
        [alarm] = await s.database.read(alarms)
        assert (alarm.kind, alarm.place, alarm.cleared_at) == ("attempts", "person:ann/pin", None)
        [told] = await s.events("access.attempts")
        assert (told.event.subject, told.event.data["count"], told.event.data["door"]) == ("ann", 5, "front")
        s.clock.move(seconds=30)
        await s.keys("42*4711")
        assert (await s.passage()).granted
        assert [a.cleared_at for a in await s.database.read(alarms)] == [s.clock.now()]


async def test_strangers_cards_make_the_reader_wait_half_a_minute_and_no_longer_however_many_follow(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as s:
        await s.add("ann", card="1111")
        reasons = []
        for n in range(12):
            await s.card(str(900000 + n))
            reasons.append((await s.passage()).reason)
        assert reasons == ["unknown"] * 5 + ["try_later"] * 7
        s.clock.move(seconds=29)
        await s.card("1111")
        assert (await s.passage()).reason == "try_later"
        assert s.panel.opened == []
        s.clock.move(seconds=1)
        await s.card("1111")
        assert (await s.passage()).granted


async def test_guesses_at_several_points_at_once_are_no_more_than_guesses_in_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**RULES["points"][0], "name": "side", "reader": "other", "camera": None, "fingerprint": None}
    rules = {**with_door(verify=[["pin"]]), "points": [RULES["points"][0], other]}
    async with site(tmp_path, rules) as s:
        ann = await s.add("ann", number="42", pin="4711")
        s.presence.set_attempts("person:ann/pin", Attempts(4, 4, s.clock.now()))
        compared, known = asyncio.Event(), asyncio.Event()
        check = s.credentials.check_pin

        async def slow(subject: SubjectId | None, digits: str) -> PinCheck:
            compared.set()
            await known.wait()
            return await check(subject, digits)

        monkeypatch.setattr(s.credentials, "check_pin", slow)
        await s.keys("42*9999")
        await compared.wait()
        await s.entry.take("other", [KeysPressed("other", 1, "42*4711")])
        assert (await s.passage()).reason == "try_later"
        known.set()
        assert (await s.passage()).reason == "not_verified"
        assert s.presence.attempts(f"person:{ann}/pin").in_a_row == 5


@pytest.mark.parametrize(
    "keys", ["42*' OR '1'='1", "' OR 1=1 --*4711", "42*" + "9" * 500, "42*4711; DROP TABLE pins", "*", "42*"]
)
async def test_a_pin_that_can_be_none_opens_nothing_and_is_one_refusal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, keys: str
) -> None:
    async with site(tmp_path, with_door(verify=[["pin"]])) as s:
        await s.add("ann", number="42", pin="4711")
        await s.keys(keys)
        assert (await s.passage()).reason in ("not_verified", "unknown")
        assert s.panel.opened == []
        assert [e.event.type for e in await s.events("access.")] == ["access.denied"]
        assert keys not in caplog.text
        await s.keys("42*4711")
        assert (await s.passage()).granted


async def test_duress_opens_as_always_and_raises_one_silent_alarm(tmp_path: Path) -> None:
    async with site(tmp_path, with_door(verify=[["card", "pin"]])) as s:
        ann = await s.add("ann", card="1111", pin="4711")
        await s.credentials.set_duress_pin(ann, "4712")
        for _ in range(2):
            await s.card("1111")
            assert await s.shown() is Feedback.WAIT
            await s.keys("4712")
            assert (await s.passage()).granted
            assert await s.shown() is Feedback.GRANTED
        assert len(await s.events("access.granted")) == 2
        assert len(await s.events("door.duress")) == 2, "each is told, while one alarm stands"
        rows = await s.database.read(lambda c: c.execute("SELECT kind, place, silent FROM alarms").fetchall())
        assert rows == [("duress", "front", 1)]


@pytest.mark.parametrize("other", ["", "2222", "999"])
async def test_a_duress_pin_raises_one_alarm_whoever_steps_up_before_the_session_ends(
    tmp_path: Path, other: str
) -> None:
    async with site(tmp_path, with_door(verify=[["card", "pin", "finger"]])) as s:
        ann = await s.add("ann", card="1111", pin="4711")
        await s.add("bob", card="2222")
        await s.credentials.set_duress_pin(ann, "4712")
        await s.card("1111")
        assert await s.shown() is Feedback.WAIT
        await s.keys("4712")
        assert await s.shown() is Feedback.WAIT
        [told] = await s.events("door.duress")
        assert (told.event.subject, told.event.data["door"]) == ("ann", "front")
        await s.card(other or "1111")
        assert await s.shown() is (Feedback.DENIED if other == "999" else Feedback.WAIT)
        assert [(alarm.kind, alarm.silent) for alarm in await s.database.read(alarms)] == [("duress", True)]
        assert len(await s.events("door.duress")) == 1


async def test_a_duress_finger_opens_silently(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann", rights=Rights(groups=("staff",), duress_finger=3))
        s.enrol_finger("ann", 3, position=2)
        s.enrol_finger("ann", 4, position=3)
        await s.finger(3)
        assert (await s.passage()).granted
        assert await s.events("door.duress") == []
        await s.finger(4)
        assert (await s.passage()).granted
        assert len(await s.events("door.duress")) == 1


async def test_a_lockdown_holds_at_once_and_lifting_it_opens_again(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann", card="1111")
        await s.doors.order("front", Order(DoorMode.LOCKDOWN, None, "li"), actor="li")
        await s.card("1111")
        assert (await s.passage()).reason == "lockdown"
        await s.doors.order("front", None, actor="li")
        await s.card("1111")
        assert (await s.passage()).granted


CLOCK: dict[str, Any] = {
    "points": [
        {
            "name": "clock",
            "reader": "reader",
            "fingerprint": "sensor",
            "camera": "camera",
            "close_face": False,
            "verify": [["card"], ["face"], ["finger"], ["pin"]],
        }
    ]
}


async def test_every_factor_at_a_clock_gives_the_same_class_of_punch(tmp_path: Path) -> None:
    async with site(tmp_path, CLOCK) as s:
        await s.add("ann", card="1111", number="42", pin="4711")
        s.enrol_face("ann", 7, purpose=Purpose.ATTENDANCE)
        s.enrol_finger("ann", 3, purpose=Purpose.ATTENDANCE)
        await s.card("1111")
        await s.passage()
        s.camera.show(7)
        s.entry.look("clock")
        await s.passage()
        await s.finger(3)
        await s.passage()
        await s.keys("42*4711")
        await s.passage()
        punches = [e.event for e in await s.events()]
        assert {p.type for p in punches} == {"attendance.punch"}
        assert {p.subject for p in punches} == {"ann"}
        assert [p.data["verify_mode"] for p in punches] == ["card", "face", "finger", "pin"]
        assert [p.data["state"] for p in punches] == ["in", "out", "in", "out"]
        assert len({frozenset(p.data) for p in punches}) == 1
        assert punches[0].data["user_id"] == "42"
        assert s.panel.opened == []


async def test_the_first_punch_of_a_day_is_in_whatever_the_last_one_was(tmp_path: Path) -> None:
    async with site(tmp_path, CLOCK) as s:
        await s.add("ann", card="1111")
        await s.card("1111")
        await s.passage()
        s.clock.move(hours=14)  # midnight in Shanghai
        await s.card("1111")
        await s.passage()
        assert [e.event.data["state"] for e in await s.events()] == ["in", "in"]


async def test_a_key_gives_the_direction_where_the_site_says_so(tmp_path: Path) -> None:
    rules = {"points": [{**CLOCK["points"][0], "punch": "key"}]}
    async with site(tmp_path, rules) as s:
        await s.add("ann", card="1111")
        await s.keys("2")
        await s.card("1111")
        await s.passage()
        [punch] = await s.events()
        assert punch.event.data["state"] == "out"


async def test_a_flood_of_cards_is_dropped_beyond_a_short_queue(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(tmp_path) as s:
        await s.add("ann", card="1111")
        for n in range(1000):
            await s.card(str(5000 + n))
        assert s.entry.dropped >= 980
        assert caplog.text.count("reader_floods") == 1
        for _ in range(1000 - s.entry.dropped):
            assert (await s.passage()).reason in ("unknown", "try_later")
        assert s.panel.opened == []


async def test_an_operator_opens_remotely_and_is_named(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.conclusion.open_remotely("front", actor="li")
        assert s.panel.opened == [(1, 5.0)]
        [event] = await s.events("access.granted")
        assert (event.event.data["actor"], event.event.data["basis"]) == ("li", "operator")
        assert await s.audited() == [("door.open", "front")]


async def test_a_remote_opening_that_moved_nothing_is_written_down_as_that(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        s.panel.fails = DeviceRefused("no")
        with pytest.raises(NotOpened):
            await s.conclusion.open_remotely("front", actor="li")
        [event] = await s.events("access.not_opened")
        assert event.event.data["reason"] == "device_refused"
        rows = await s.database.read(lambda c: c.execute("SELECT action, outcome FROM audit").fetchall())
        assert rows[-1] == ("door.open", "device_refused")
        assert not s.presence.open_or_released("front", s.clock.now() + timedelta(seconds=6))


async def test_two_people_open_together_and_one_alone_waits(tmp_path: Path) -> None:
    async with site(tmp_path, with_door(two_person=True)) as s:
        await s.add("ann", card="1111")
        await s.add("bob", card="2222")
        for card in ("1111", "1111"):
            await s.card(card)
            assert (await s.passage()).reason == "second_person"
            assert await s.shown() is Feedback.WAIT
        await s.card("2222")
        assert (await s.passage()).granted
        [event] = await s.events("access.granted")
        assert (event.event.subject, event.event.data["companion"]) == ("bob", "ann")
        assert s.presence.occupancy("hall", after=s.clock.now() - timedelta(hours=1)) == 2
        await s.card("2222")
        assert (await s.passage()).reason == "second_person"


async def test_anti_passback_survives_a_restart(tmp_path: Path) -> None:
    rules = {**RULES, "zones": [{"name": "hall", "anti_passback": "hard"}]}
    async with site(tmp_path, rules) as s:
        await s.add("ann", card="1111")
        await s.card("1111")
        assert (await s.passage()).granted
    async with site(tmp_path, rules) as s:
        await s.card("1111")
        assert (await s.passage()).reason == "anti_passback"
        s.clock.move(hours=16)
        s.set_rules({**rules, "schedules": {"hours": {"weekly": {"daily": ["00:00-24:00"]}}}})
        await s.card("1111")
        assert (await s.passage()).granted


async def test_a_relay_that_cannot_be_reached_is_told_and_shown(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann", card="1111")
        s.panel.fails = LINK_GONE
        await s.card("1111")
        assert (await s.passage()).reason == "device_offline"
        assert await s.shown() is Feedback.DENIED
        assert [e.event.type for e in await s.events("access.")] == ["access.granted", "access.not_opened"]


async def test_a_door_that_did_not_open_is_not_held_against_the_person(tmp_path: Path) -> None:
    rules = {**RULES, "zones": [{"name": "hall", "anti_passback": "hard"}]}
    async with site(tmp_path, rules) as s:
        await s.add("ann", card="1111")
        s.panel.fails = LINK_GONE
        await s.card("1111")
        assert (await s.passage()).reason == "device_offline"
        again = await s.database.read(Presence.load)
        assert again.whereabouts(SubjectId("ann")) is None
        s.panel.fails = None
        await s.card("1111")
        assert (await s.passage()).granted


async def test_office_hours_begin_with_an_opener_and_are_told_to_the_controller(tmp_path: Path) -> None:
    async with site(tmp_path, with_door(mode_times=[{"schedule": "hours", "mode": "office"}])) as s:
        await s.add("ann", card="1111", rights=Rights(groups=("staff",), opener=True))
        await s.card("1111")
        assert (await s.passage()).granted
        await s.shown()
        assert s.panel.modes == [(1, devices.DoorMode.UNLOCKED)]
        await s.card("999")  # the door stands open to everybody
        assert (await s.passage()).granted


async def test_a_wrong_pin_at_an_unlocked_door_passes_nobody_in_particular_and_punches_nobody(tmp_path: Path) -> None:
    async with site(tmp_path, with_door(attendance=True, verify=[["pin"]])) as s:
        ann = await s.add("ann", number="42", pin="4711", rights=Rights(groups=("staff",), opener=True))
        await s.doors.order("front", Order(DoorMode.UNLOCKED, None, "li"), actor="li")
        await s.keys("42*0000")
        passage = await s.passage()
        assert (passage.granted, passage.subject_id) == (True, None)
        [told] = await s.events("access.")
        assert (told.event.type, told.event.subject, told.event.data["known"]) == ("access.granted", None, False)
        assert await s.events("attendance.") == []
        assert (s.presence.whereabouts(ann), s.presence.last_punch(ann)) == (None, None)
        assert s.presence.last_opener("front") is None
        await s.keys("42*4711")
        assert (await s.passage()).subject_id == "ann"
        assert s.presence.last_punch(ann) is not None


async def test_an_unlocked_door_opens_at_once_and_asks_on_for_what_makes_it_a_punch(tmp_path: Path) -> None:
    async with site(tmp_path, with_door(attendance=True, verify=[["card", "pin"]])) as s:
        ann = await s.add("ann", card="1111", pin="4711")
        await s.doors.order("front", Order(DoorMode.UNLOCKED, None, "li"), actor="li")
        await s.card("1111")
        assert (await s.passage()).subject_id is None
        assert [await s.shown() for _ in range(2)] == [Feedback.GRANTED, Feedback.WAIT]
        assert s.presence.last_punch(ann) is None
        await s.keys("4711")
        assert (await s.passage()).subject_id == "ann"
        assert await s.shown() is Feedback.GRANTED
        [punch] = await s.events("attendance.punch")
        assert (punch.event.subject, punch.event.data["factors"]) == ("ann", ["card", "pin"])


async def test_a_camera_that_breaks_leaves_the_card(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann", card="1111")
        s.enrol_face("ann", 7)
        s.camera.fails = LINK_GONE
        s.entry.look("gate")
        assert await s.shown() is Feedback.DENIED
        await s.card("1111")
        assert (await s.passage()).granted


async def test_a_person_whose_consent_lapsed_is_told_to_use_something_else(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann", card="1111")
        s.enrol_face("ann", 7)
        s.enrol_face("bob", 8)
        s.terms = replace(s.terms, notice_version="n2")  # a material change of the notice
        s.camera.show(7)
        s.entry.look("gate")
        passage = await s.passage()
        assert (passage.reason, passage.subject_id) == ("another_factor", None)
        assert s.camera.openings == 0  # nobody's consent holds any more
        [event] = await s.events("access.denied")
        assert event.event.subject is None
        assert "consent" not in str(event.event.data)
        await s.card("1111")
        assert (await s.passage()).granted
        s.terms = replace(s.terms, accepted_versions=frozenset({"n1"}))
        s.entry.look("gate")
        assert (await s.passage()).granted


async def test_one_lapsed_consent_among_valid_ones_is_not_told_upstream(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        s.enrol_face("ann", 7)
        s.clock.move(days=364)
        s.enrol_face("bob", 8)
        s.clock.move(days=1, hours=1)
        s.camera.show(7)
        s.entry.look("gate")
        assert (await s.passage()).reason == "another_factor"
        assert s.camera.openings == 1
        [event] = await s.events("access.denied")
        assert event.event.subject is None
        assert "consent" not in str(event.event.data)


WATCHED = {**RULES, "points": [{**RULES["points"][0], "close_face": True}]}
BLIND = {**RULES, "points": [{**RULES["points"][0], "camera": None}]}


@pytest.mark.parametrize("before", [BLIND, {**RULES, "points": []}])
async def test_a_camera_that_a_new_configuration_gives_to_a_point_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: dict[str, Any]
) -> None:
    monkeypatch.setattr(entry, "CAMERA_RETRY_S", 0.05)
    async with site(tmp_path, rules=before) as s:
        await s.add("ann")
        s.enrol_face("ann", 7)
        s.camera.before_frame = lambda: s.clock.move(seconds=0.4)
        await asyncio.sleep(0)
        s.set_rules(WATCHED)
        s.entry.follow()
        s.camera.show(0, 7, 7, 7)
        async with asyncio.timeout(5):
            assert (await s.passage()).factors == {Factor.FACE}


async def test_somebody_close_to_the_camera_starts_a_session_and_must_step_away_before_the_next(tmp_path: Path) -> None:
    async with site(tmp_path, WATCHED) as s:
        await s.add("ann", card="1111")
        s.enrol_face("ann", 7)
        await s.card("1111")  # the first look-out begins after somebody is enrolled
        await s.passage()

        s.camera.before_frame = lambda: s.clock.move(seconds=0.4)
        s.camera.show(0, 7, 7, 7)
        assert (await s.passage()).factors == {Factor.FACE}
        s.camera.show(7, 7, 7, 7)  # stays: no second session
        await s.card("1111")
        assert (await s.passage()).factors == {Factor.CARD}
        s.camera.show(0, 0, 0, 7, 7, 7)
        assert (await s.passage()).factors == {Factor.FACE}
        assert len(s.panel.opened) == 4


async def test_nobody_is_compared_while_the_camera_waits_for_somebody_close(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        s.enrol_face("ann", 7)
        compared: list[object] = []
        face = s.sensing.identification.face
        assert face is not None
        face.sample = lambda frame: compared.append(frame)  # type: ignore[method-assign, assignment, return-value]
        s.camera.before_frame = lambda: s.clock.move(seconds=0.4)
        watching = asyncio.create_task(s.sensing.close_face("camera", Purpose.ACCESS, gone_first=False))
        s.camera.show(0, 0, 7, 7)
        assert await asyncio.wait_for(watching, 10)
        assert compared == []
        assert not any(frame.any() for frame in s.camera.given)


async def test_a_camera_that_waits_for_somebody_close_is_closed_at_the_enterprises_switch(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        s.enrol_face("ann", 7)
        seen: list[object] = []
        face = s.sensing.identification.face
        assert face is not None
        face.detect = lambda frame: seen.append(frame) or []  # type: ignore[func-returns-value, method-assign, assignment]
        watching = asyncio.create_task(s.sensing.close_face("camera", Purpose.ACCESS, gone_first=False))
        s.camera.before_frame = lambda: s.switched_off.add(("camera", Modality.FACE))
        s.camera.show(7)
        assert await asyncio.wait_for(watching, 10) is False
        assert not s.camera.open
        assert seen == []
        assert not s.camera.given[0].any()


async def test_the_camera_waits_for_somebody_close_again_once_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "CAMERA_RETRY_S", 0.01)
    async with site(tmp_path, WATCHED) as s:
        await s.add("ann", card="1111")
        s.enrol_face("ann", 7)
        s.switched_off.add(("camera", Modality.FACE))
        await s.card("1111")
        assert (await s.passage()).factors == {Factor.CARD}
        assert s.camera.openings == 0
        s.switched_off.clear()
        s.camera.before_frame = lambda: s.clock.move(seconds=0.4)
        s.camera.show(0, 7, 7, 7)
        assert (await s.passage()).factors == {Factor.FACE}


async def test_a_look_ends_at_the_enterprises_switch_and_another_factor_is_asked_for(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        s.enrol_face("ann", 7)
        s.camera.before_frame = lambda: s.switched_off.add(("camera", Modality.FACE))
        s.camera.show(7)
        s.entry.look("gate")
        assert (await s.passage()).reason == "another_factor"
        assert not s.camera.open
        assert not s.camera.given[0].any()
        assert s.presence.places_with_failures() == {}


async def test_a_finger_that_comes_after_the_enterprises_switch_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        s.enrol_finger("ann", 3)
        capture = s.sensor.capture

        async def late(*, timeout_s: float) -> NDArray[np.uint8]:
            s.switched_off.add(("sensor", Modality.FINGERPRINT))
            return await capture(timeout_s=timeout_s)

        monkeypatch.setattr(s.sensor, "capture", late)
        await s.finger(3)
        assert (await s.passage()).reason == "another_factor"
        assert not s.sensor.captured[0].any()


class Scored(NumberFaces):
    """Every face with a passive score."""

    def sample(self, frame: Any) -> FaceSample | Refused:
        sample = super().sample(frame)
        return replace(sample, pad=PadResult(PadState.PASSIVE, 0.4)) if isinstance(sample, FaceSample) else sample


async def test_a_passive_score_is_on_the_event_and_stays_advisory(tmp_path: Path) -> None:
    async with site(tmp_path, with_door(verify=[["face"]]), face=Scored()) as s:
        await s.add("ann")
        s.enrol_face("ann", 7)
        s.camera.show(7)
        s.entry.look("gate")
        assert (await s.passage()).pad is PadState.PASSIVE
        [told] = await s.events("access.granted")
        assert told.event.data["pad"] == "passive"


class Turning(NumberFaces):
    """Turns the head as the challenge of the running session says, or the other way."""

    def __init__(self, *, obeys: bool) -> None:
        self.obeys = obeys
        self.challenge: TurnChallenge | None = None

    def detect(self, frame: Any) -> list[Face]:
        person = int(frame[0, 0, 0])
        turn = self.challenge.turn if self.challenge else None
        shift = {None: 0.0, Turn.LEFT: 32.0, Turn.RIGHT: -32.0}[turn] * (1 if self.obeys else -1)
        face = face_of(person)
        landmarks = face.landmarks.copy()
        landmarks[2, 0] += shift
        return [Face(face.box, landmarks, face.score)]


@pytest.mark.parametrize(("obeys", "last", "granted"), [(True, 7, True), (False, 7, False), (True, 8, False)])
async def test_a_challenge_must_be_passed_by_the_one_who_began_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obeys: bool, last: int, granted: bool
) -> None:
    engine = Turning(obeys=obeys)
    made = sensing.Liveness

    def watched(started_at: float) -> sensing.Liveness:
        liveness = made(started_at)
        engine.challenge = liveness.challenge
        return liveness

    monkeypatch.setattr(sensing, "Liveness", watched)
    async with site(tmp_path, with_door(challenge=True, verify=[["face"]]), face=engine) as s:
        for name, face in (("ann", 7), ("bob", 8)):
            await s.add(name)
            s.enrol_face(name, face)
        s.camera.show(*[7] * 9, *[last] * 3)
        s.entry.look("gate")
        passage = await s.passage()
        assert passage.granted is granted
        [told] = await s.events("access.")
        assert told.event.data["pad"] == ("active" if granted else "none")
        assert await s.shown() in (Feedback.TURN_LEFT, Feedback.TURN_RIGHT)
        if granted:
            assert passage.pad is PadState.ACTIVE
        else:
            assert passage.reason == "unknown"
            assert s.panel.opened == []


async def test_a_sample_that_breaks_an_engine_leaves_the_point_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(image: object, *, dpi: float) -> None:
        raise RuntimeError("out of range")

    async with site(tmp_path) as s:
        await s.add("ann", card="1111")
        s.enrol_finger("ann", 3)
        monkeypatch.setattr(s.sensing.identification.finger, "sample", broken)
        await s.finger(3)
        assert await s.shown() is Feedback.DENIED
        assert "session_failed" in caplog.text
        await s.card("1111")
        assert (await s.passage()).granted


async def test_fifty_strangers_switch_a_factor_off_until_somebody_gives_it_back(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann", card="1111")
        s.enrol_finger("ann", 3)
        s.presence.set_attempts("point:gate/finger", Attempts(0, 50, s.clock.now()))
        await s.finger(3)
        assert (await s.passage()).reason == "another_factor"
        assert s.sensor.captured == []
        await s.card("1111")
        assert (await s.passage()).granted
        assert "point:gate/finger" in s.presence.places_with_failures()
        await s.conclusion.reset_attempts("point:gate/finger", actor="li")
        s.sensor.fingers.clear()
        await s.finger(3)
        assert (await s.passage()).granted
        assert ("attempts.reset", "point:gate/finger") in await s.audited()
