from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.matching.outcomes import PadState
from edge_agent.policy.access import (
    GRANT_LIFETIME,
    Basis,
    Denied,
    FirstOfTwo,
    Granted,
    Person,
    Reason,
    Request,
    decide,
    decide_clock,
    genuine,
    mode_of,
    remote_open,
)
from edge_agent.policy.anti_passback import Whereabouts
from edge_agent.policy.attempts import Stand
from edge_agent.policy.rules import AccessRules, Direction, DoorMode, Factor, Rules
from templates_store.template import SubjectId

NOW = datetime(2026, 11, 23, 2, tzinfo=UTC)  # Monday 10:00 in Shanghai
NIGHT = datetime(2026, 11, 23, 15, tzinfo=UTC)
ANN, BOB = SubjectId("ann"), SubjectId("bob")
STAFF = frozenset({"staff"})


@dataclass
class Scene:
    """What happened at the doors, written down for one test."""

    ordered: dict[str, DoorMode] = field(default_factory=dict)
    office: set[str] = field(default_factory=set)
    where: dict[SubjectId, Whereabouts] = field(default_factory=dict)
    inside: dict[str, int] = field(default_factory=dict)
    open_doors: set[str] = field(default_factory=set)
    openers: dict[str, datetime] = field(default_factory=dict)
    first: dict[str, FirstOfTwo] = field(default_factory=dict)

    def mode_ordered(self, door: str, now: datetime) -> DoorMode | None:
        return self.ordered.get(door)

    def office_unlocked(self, door: str, now: datetime) -> bool:
        return door in self.office

    def whereabouts(self, subject_id: SubjectId) -> Whereabouts | None:
        return self.where.get(subject_id)

    def occupancy(self, zone: str, *, after: datetime) -> int:
        return self.inside.get(zone, 0)

    def open_or_released(self, door: str, now: datetime) -> bool:
        return door in self.open_doors

    def last_opener(self, door: str) -> datetime | None:
        return self.openers.get(door)

    def first_of_two(self, door: str) -> FirstOfTwo | None:
        return self.first.get(door)


def rules(**door: Any) -> Rules:
    document = {
        "schedules": {"hours": {"weekly": {"mon-fri": ["08:00-18:00"]}}, "never": {}},
        "zones": [
            {"name": "lab", "anti_passback": door.pop("passback", "off"), "capacity": door.pop("capacity", None)},
            {"name": "store"},
        ],
        "doors": [
            {"name": "front", "device": "panel", "zone_to": "lab", **door},
            {"name": "back", "device": "panel", "relay": 2},
        ],
        "groups": [{"name": "staff", "grants": [{"doors": ["front"], "schedule": "hours"}]}],
    }
    return Rules(AccessRules.model_validate(document), zone=ZoneInfo("Asia/Shanghai"))


ASK = Request(door="front", direction=Direction.IN, person=Person(ANN, groups=STAFF), factors=frozenset({Factor.CARD}))


def ask(**changes: Any) -> Request:
    person = {key: changes.pop(key) for key in list(changes) if key in Person.__dataclass_fields__}
    changed = replace(ASK, **changes)
    return replace(changed, person=replace(changed.person, **person)) if person and changed.person else changed


def reason_of(decision: Granted | Denied) -> Reason | None:
    return decision.reason if isinstance(decision, Denied) else None


# Every fault, in the order in which it is told. Row n must win over all rows below it.
ORDER: list[tuple[Reason, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (Reason.LOCKED, {}, {}, {"ordered": {"front": DoorMode.LOCKED}}),
    (Reason.TRY_LATER, {"stand": Stand.WAIT}, {}, {}),
    (Reason.UNKNOWN, {"person": None}, {}, {}),
    (Reason.NOT_VERIFIED, {"refuted": True}, {}, {}),
    (Reason.SUSPENDED, {"enabled": False}, {}, {}),
    (Reason.NOT_YET_VALID, {"valid_from": NIGHT + timedelta(days=1)}, {}, {}),
    (Reason.EXPIRED, {"valid_until": NOW}, {}, {}),
    (Reason.CONSENT_LAPSED, {"factors": frozenset({Factor.FACE})}, {}, {}),
    (Reason.NO_PRIVILEGE, {"groups": frozenset({"visitors"})}, {}, {}),
    (Reason.OUTSIDE_SCHEDULE, {"now": NIGHT}, {}, {}),
    (Reason.FACTOR_NEEDED, {}, {"verify": [["card", "pin"]]}, {}),
    (Reason.ANTI_PASSBACK, {}, {"passback": "hard"}, {"where": {ANN: Whereabouts("lab", NOW - timedelta(hours=1))}}),
    (Reason.ZONE_FULL, {}, {"capacity": 3}, {"inside": {"lab": 3}}),
    (Reason.FIRST_CARD, {}, {"first_card": "hours"}, {}),
    (Reason.INTERLOCK, {}, {"interlock": ["back"]}, {"open_doors": {"back"}}),
    (Reason.SECOND_PERSON, {}, {"two_person": True}, {}),
]


@pytest.mark.parametrize("position", range(len(ORDER)), ids=[row[0].value for row in ORDER])
def test_a_fault_is_told_before_every_fault_that_is_checked_later(position: int) -> None:
    for other in range(position, len(ORDER)):
        request, door, scene = ({**ORDER[other][n], **ORDER[position][n]} for n in (1, 2, 3))
        now = request.pop("now", NOW)
        if "person" in request:  # nobody: then there is no person to be at fault
            request = {key: value for key, value in request.items() if key not in Person.__dataclass_fields__}
        found = decide(ask(**request), rules(**door), Scene(**scene), now)
        assert reason_of(found) is ORDER[position][0], f"with {ORDER[other][0]} as well"


@given(st.sets(st.integers(0, len(ORDER) - 1), min_size=1))
def test_of_any_faults_together_the_first_in_order_is_told(chosen: set[int]) -> None:
    request: dict[str, Any] = {}
    door: dict[str, Any] = {}
    scene: dict[str, Any] = {}
    for position in sorted(chosen, reverse=True):
        _, asked, fitted, happened = ORDER[position]
        request, door, scene = request | asked, door | fitted, scene | happened
    if "person" in request:
        request = {key: value for key, value in request.items() if key not in Person.__dataclass_fields__}
    now = request.pop("now", NOW)
    assert reason_of(decide(ask(**request), rules(**door), Scene(**scene), now)) is ORDER[min(chosen)][0]


def test_without_a_fault_the_door_opens_for_this_person_through_this_door() -> None:
    granted = decide(ASK, rules(), Scene(), NOW)
    assert isinstance(granted, Granted)
    assert (granted.door, granted.subject_id, granted.basis, granted.at) == ("front", ANN, Basis.PRIVILEGE, NOW)
    assert granted.warnings == ()
    assert genuine(granted, NOW)


def test_a_door_nobody_configured_is_denied() -> None:
    assert reason_of(decide(ask(door="roof"), rules(), Scene(), NOW)) is Reason.NO_SUCH_DOOR


@pytest.mark.parametrize(
    ("mode", "person", "expected"),
    [
        (DoorMode.CONTROLLED, {}, None),
        (DoorMode.OFFICE, {}, None),
        (DoorMode.LOCKED, {}, Reason.LOCKED),
        (DoorMode.LOCKED, {"passes_lockdown": True}, Reason.LOCKED),
        (DoorMode.LOCKDOWN, {}, Reason.LOCKDOWN),
        (DoorMode.LOCKDOWN, {"opener": True}, Reason.LOCKDOWN),
        (DoorMode.LOCKDOWN, {"passes_lockdown": True}, None),
        (DoorMode.LOCKDOWN, {"passes_lockdown": True, "groups": frozenset()}, Reason.NO_PRIVILEGE),
        (DoorMode.UNLOCKED, {"groups": frozenset()}, None),
        (DoorMode.EVACUATION, {"enabled": False}, None),
    ],
)
def test_the_door_mode_comes_first(mode: DoorMode, person: dict[str, Any], expected: Reason | None) -> None:
    assert reason_of(decide(ask(**person), rules(), Scene(ordered={"front": mode}), NOW)) is expected


@pytest.mark.parametrize(
    ("mode", "basis"), [(DoorMode.UNLOCKED, Basis.UNLOCKED), (DoorMode.EVACUATION, Basis.EVACUATION)]
)
def test_an_open_door_opens_to_nobody_in_particular(mode: DoorMode, basis: Basis) -> None:
    granted = decide(ask(person=None), rules(), Scene(ordered={"front": mode}), NOW)
    assert isinstance(granted, Granted)
    assert (granted.basis, granted.subject_id) == (basis, None)


CARD_AND_PIN = frozenset({Factor.CARD, Factor.PIN})


@pytest.mark.parametrize(
    ("changes", "known", "missing"),
    [
        ({"factors": CARD_AND_PIN}, True, ()),
        ({"factors": CARD_AND_PIN, "groups": frozenset()}, True, ()),
        ({}, False, (frozenset({Factor.PIN}),)),
        ({"factors": CARD_AND_PIN, "refuted": True}, False, ()),
        ({"refuted": True}, False, ()),
        ({"factors": CARD_AND_PIN, "enabled": False}, False, ()),
        ({"factors": CARD_AND_PIN, "valid_until": NOW}, False, ()),
        ({"factors": CARD_AND_PIN | {Factor.FACE}}, False, ()),
        ({"factors": CARD_AND_PIN, "stand": Stand.WAIT}, False, ()),
    ],
)
@pytest.mark.parametrize("mode", [DoorMode.UNLOCKED, DoorMode.EVACUATION])
def test_the_passage_of_an_open_door_is_a_persons_only_if_they_have_shown_all_that_is_asked_at_other_times(
    mode: DoorMode, changes: dict[str, Any], known: bool, missing: tuple[frozenset[Factor], ...]
) -> None:
    granted = decide(ask(**changes), rules(verify=[["card", "pin"]]), Scene(ordered={"front": mode}), NOW)
    assert isinstance(granted, Granted)
    assert granted.subject_id == (ANN if known else None)
    assert granted.factors == (CARD_AND_PIN if known else frozenset())
    assert granted.missing == (missing if mode is DoorMode.UNLOCKED else ())


@pytest.mark.parametrize("pad", [PadState.NONE, PadState.ACTIVE])
def test_an_open_door_that_demands_a_challenge_knows_nobody_without_it(pad: PadState) -> None:
    face = frozenset({Factor.FACE})
    scene, demanding = Scene(ordered={"front": DoorMode.UNLOCKED}), rules(challenge=True, verify=[["face"]])
    granted = decide(ask(factors=face, consented=face, pad=pad), demanding, scene, NOW)
    assert isinstance(granted, Granted)
    assert granted.subject_id == (ANN if pad is PadState.ACTIVE else None)


@pytest.mark.parametrize(
    ("stand", "expected"),
    [(Stand.FREE, None), (Stand.WAIT, Reason.TRY_LATER), (Stand.DISABLED, Reason.FACTOR_DISABLED)],
)
def test_too_many_failures_deny_even_the_right_person(stand: Stand, expected: Reason | None) -> None:
    assert reason_of(decide(ask(stand=stand), rules(), Scene(), NOW)) is expected


@pytest.mark.parametrize(
    ("valid", "expected"),
    [
        ({"valid_from": NOW}, None),
        ({"valid_from": NOW + timedelta(microseconds=1)}, Reason.NOT_YET_VALID),
        ({"valid_until": NOW}, Reason.EXPIRED),
        ({"valid_until": NOW + timedelta(microseconds=1)}, None),
    ],
)
def test_validity_begins_with_its_first_moment_and_ends_before_its_last(
    valid: dict[str, datetime], expected: Reason | None
) -> None:
    assert reason_of(decide(ask(**valid), rules(), Scene(), NOW)) is expected


@pytest.mark.parametrize(
    ("utc", "expected"),
    [
        ("2026-11-22T23:59:59", Reason.OUTSIDE_SCHEDULE),  # Monday 07:59:59 in Shanghai
        ("2026-11-23T00:00:00", None),
        ("2026-11-23T09:59:59", None),
        ("2026-11-23T10:00:00", Reason.OUTSIDE_SCHEDULE),
        ("2026-11-21T02:00:00", Reason.OUTSIDE_SCHEDULE),  # Saturday
    ],
)
def test_the_schedule_follows_the_site_clock(utc: str, expected: Reason | None) -> None:
    now = datetime.fromisoformat(utc).replace(tzinfo=UTC)
    assert reason_of(decide(ASK, rules(), Scene(), now)) is expected


@pytest.mark.parametrize(
    ("verify", "shown", "missing"),
    [
        ([["card"]], {"card"}, None),
        ([["card"]], {"face"}, [{"card"}]),
        ([["card"], ["face"]], {"face"}, None),
        ([["card", "pin"]], {"card"}, [{"pin"}]),
        ([["card", "pin"]], {"card", "pin"}, None),
        ([["card", "face"], ["finger"]], {"card"}, [{"face"}, {"finger"}]),
        ([["card", "face", "pin"], ["finger"]], {"card"}, [{"finger"}, {"face", "pin"}]),
        ([["card"]], {"card", "pin", "face"}, None),
        ([["card", "face"]], set(), [{"card", "face"}]),
    ],
)
def test_every_factor_of_one_combination_must_be_shown(
    verify: list[list[str]], shown: set[str], missing: list[set[str]] | None
) -> None:
    factors = frozenset(Factor(name) for name in shown)
    found = decide(ask(factors=factors, consented=factors), rules(verify=verify), Scene(), NOW)
    if missing is None:
        assert isinstance(found, Granted)
    else:
        assert isinstance(found, Denied)
        assert found.reason is Reason.FACTOR_NEEDED
        assert [set(rest) for rest in found.missing] == missing


def test_another_combination_may_be_asked_at_other_times() -> None:
    strict = rules(verify_times=[{"schedule": "hours", "verify": [["card", "pin"]]}])
    assert reason_of(decide(ASK, strict, Scene(), NOW)) is Reason.FACTOR_NEEDED
    lax_by_day = rules(verify=[["card", "pin"]], verify_times=[{"schedule": "hours", "verify": [["card"]]}])
    assert isinstance(decide(ASK, lax_by_day, Scene(), NOW), Granted)


@pytest.mark.parametrize(
    ("pad", "expected"),
    [
        (PadState.NONE, Reason.CHALLENGE_NEEDED),
        (PadState.PASSIVE, Reason.CHALLENGE_NEEDED),
        (PadState.ACTIVE, None),
        (PadState.TERMINAL, None),
    ],
)
def test_a_door_may_demand_a_challenge_of_a_face(pad: PadState, expected: Reason | None) -> None:
    face = frozenset({Factor.FACE})
    demanding = rules(challenge=True, verify=[["face"], ["card"]])
    assert reason_of(decide(ask(factors=face, consented=face, pad=pad), demanding, Scene(), NOW)) is expected
    assert isinstance(decide(ASK, demanding, Scene(), NOW), Granted)


AN_HOUR, A_MOMENT = timedelta(hours=1), timedelta(minutes=14, seconds=59)


@pytest.mark.parametrize(
    ("passback", "direction", "zone", "ago", "expected"),
    [
        ("off", "in", "lab", AN_HOUR, "granted"),
        ("hard", "in", None, AN_HOUR, "granted"),
        ("hard", "in", "", AN_HOUR, "granted"),
        ("hard", "in", "lab", AN_HOUR, "denied"),
        ("hard", "in", "store", AN_HOUR, "denied"),
        ("hard", "in", "lab", timedelta(hours=16), "granted"),  # forgotten
        ("hard", "out", "lab", AN_HOUR, "granted"),
        ("hard", "out", "", AN_HOUR, "warned"),  # leaving is never denied
        ("soft", "in", "lab", AN_HOUR, "warned"),
        ("soft", "in", "", AN_HOUR, "granted"),
        ("timed", "in", "lab", A_MOMENT, "denied"),
        ("timed", "in", "lab", timedelta(minutes=15), "granted"),
        ("timed", "in", "store", A_MOMENT, "granted"),
    ],
)
def test_anti_passback(passback: str, direction: str, zone: str | None, ago: timedelta, expected: str) -> None:
    where = {} if zone is None else {ANN: Whereabouts(zone, NOW - ago)}
    found = decide(ask(direction=Direction(direction)), rules(passback=passback), Scene(where=where), NOW)
    if expected == "denied":
        assert reason_of(found) is Reason.ANTI_PASSBACK
    else:
        assert isinstance(found, Granted)
        assert found.warnings == ((Reason.ANTI_PASSBACK,) if expected == "warned" else ())


def test_anti_passback_spares_those_who_are_exempt() -> None:
    scene = Scene(where={ANN: Whereabouts("lab", NOW - AN_HOUR)})
    assert isinstance(decide(ask(anti_passback_exempt=True), rules(passback="hard"), scene, NOW), Granted)


@pytest.mark.parametrize(
    ("inside", "direction", "expected"), [(2, "in", None), (3, "in", Reason.ZONE_FULL), (4, "out", None)]
)
def test_a_full_zone_takes_nobody_in_and_lets_everybody_out(
    inside: int, direction: str, expected: Reason | None
) -> None:
    asked = ask(direction=Direction(direction))
    assert reason_of(decide(asked, rules(capacity=3), Scene(inside={"lab": inside}), NOW)) is expected


@pytest.mark.parametrize(
    ("opened", "person", "direction", "expected"),
    [
        (None, {}, "in", Reason.FIRST_CARD),
        (None, {"opener": True}, "in", None),
        (None, {}, "out", None),
        (NOW - timedelta(hours=2), {}, "in", None),  # 08:00, with the interval
        (NOW - timedelta(hours=2, seconds=1), {}, "in", Reason.FIRST_CARD),
    ],
)
def test_nobody_enters_before_an_opener_has_come_in_this_interval(
    opened: datetime | None, person: dict[str, Any], direction: str, expected: Reason | None
) -> None:
    scene = Scene(openers={} if opened is None else {"front": opened})
    asked = ask(direction=Direction(direction), **person)
    assert reason_of(decide(asked, rules(first_card="hours"), scene, NOW)) is expected


def test_an_interlock_binds_both_doors_whichever_names_the_other() -> None:
    both = Rules(
        AccessRules.model_validate(
            {
                "doors": [{"name": "a", "device": "p", "interlock": ["b"]}, {"name": "b", "device": "p", "relay": 2}],
                "groups": [{"name": "staff", "grants": [{"doors": ["a", "b"]}]}],
            }
        ),
        zone=ZoneInfo("UTC"),
    )
    for door, other in (("a", "b"), ("b", "a")):
        assert reason_of(decide(ask(door=door), both, Scene(open_doors={other}), NOW)) is Reason.INTERLOCK
        assert isinstance(decide(ask(door=door), both, Scene(open_doors={door}), NOW), Granted)


@pytest.mark.parametrize(
    ("first", "ago_s", "expected"),
    [
        (None, 0, Reason.SECOND_PERSON),
        (BOB, 0, None),
        (BOB, 15, None),
        (BOB, 15.001, Reason.SECOND_PERSON),
        (BOB, -1, Reason.SECOND_PERSON),  # a clock set back
        (ANN, 3, Reason.SECOND_PERSON),  # twice the same person is one person
    ],
)
def test_two_different_people_must_ask_within_the_window(
    first: SubjectId | None, ago_s: float, expected: Reason | None
) -> None:
    waiting = {} if first is None else {"front": FirstOfTwo(first, NOW - timedelta(seconds=ago_s), Direction.IN)}
    found = decide(ASK, rules(two_person=True), Scene(first=waiting), NOW)
    assert reason_of(found) is expected
    if isinstance(found, Granted):
        assert found.companion == BOB


def test_two_people_on_either_side_of_a_door_are_not_two_who_enter() -> None:
    inside = {"front": FirstOfTwo(BOB, NOW, Direction.OUT)}
    assert reason_of(decide(ASK, rules(two_person=True), Scene(first=inside), NOW)) is Reason.SECOND_PERSON


@pytest.mark.parametrize(("inside", "expected"), [(1, None), (2, Reason.ZONE_FULL)])
def test_two_people_need_room_for_both(inside: int, expected: Reason | None) -> None:
    scene = Scene(inside={"lab": inside}, first={"front": FirstOfTwo(BOB, NOW, Direction.IN)})
    assert reason_of(decide(ASK, rules(two_person=True, capacity=3), scene, NOW)) is expected


def test_who_left_unseen_does_not_fill_the_room_against_themselves() -> None:
    scene = Scene(inside={"lab": 1}, where={ANN: Whereabouts("lab", NOW - timedelta(minutes=5))})
    assert isinstance(decide(ASK, rules(capacity=1), scene, NOW), Granted)


def test_one_person_may_leave_a_two_person_room_alone() -> None:
    assert isinstance(decide(ask(direction=Direction.OUT), rules(two_person=True), Scene(), NOW), Granted)


def test_office_hours_open_with_an_entitled_person_and_end_with_the_schedule() -> None:
    office = rules(mode_times=[{"schedule": "hours", "mode": "office"}])
    front = office.doors["front"]
    ordinary = decide(ASK, office, Scene(), NOW)
    entitled = decide(ask(opener=True), office, Scene(), NOW)
    assert isinstance(ordinary, Granted)
    assert ordinary.unlock_until is None
    assert isinstance(entitled, Granted)
    assert entitled.unlock_until == datetime(2026, 11, 23, 10, tzinfo=UTC)
    assert mode_of(front, office, Scene(), NOW) is DoorMode.OFFICE
    assert mode_of(front, office, Scene(office={"front"}), NOW) is DoorMode.UNLOCKED
    assert mode_of(front, office, Scene(office={"front"}), NIGHT) is DoorMode.CONTROLLED


def test_an_order_stands_above_the_schedule() -> None:
    scheduled = rules(mode_times=[{"schedule": "hours", "mode": "unlocked"}])
    assert mode_of(scheduled.doors["front"], scheduled, Scene(), NOW) is DoorMode.UNLOCKED
    assert reason_of(decide(ASK, scheduled, Scene(ordered={"front": DoorMode.LOCKDOWN}), NOW)) is Reason.LOCKDOWN


@pytest.mark.parametrize("mode", list(DoorMode))
def test_duress_changes_no_answer_and_is_carried_by_every_answer(mode: DoorMode) -> None:
    scene = Scene(ordered={"front": mode})
    calm, forced = decide(ASK, rules(), scene, NOW), decide(ask(duress=True), rules(), scene, NOW)
    assert type(calm) is type(forced)
    assert (calm.duress, forced.duress) == (False, True)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (DoorMode.CONTROLLED, None),
        (DoorMode.LOCKED, Reason.LOCKED),
        (DoorMode.LOCKDOWN, Reason.LOCKDOWN),
        (DoorMode.EVACUATION, None),
    ],
)
def test_an_operator_opens_from_afar_but_lifts_a_lockdown_first(mode: DoorMode, expected: Reason | None) -> None:
    found = remote_open("front", "li", rules=rules(), presence=Scene(ordered={"front": mode}), now=NOW)
    assert reason_of(found) is expected
    if isinstance(found, Granted):
        assert (found.basis, found.actor, found.subject_id) == (Basis.OPERATOR, "li", None)


def test_an_operator_without_a_name_opens_nothing() -> None:
    with pytest.raises(ValueError, match="who ordered it"):
        remote_open("front", "", rules=rules(), presence=Scene(), now=NOW)


def test_a_remote_opening_keeps_the_interlock_and_knows_its_doors() -> None:
    locked = rules(interlock=["back"])
    found = remote_open("front", "li", rules=locked, presence=Scene(open_doors={"back"}), now=NOW)
    assert reason_of(found) is Reason.INTERLOCK
    assert reason_of(remote_open("x", "li", rules=locked, presence=Scene(), now=NOW)) is Reason.NO_SUCH_DOOR


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"groups": frozenset()}, None),  # a clock asks who somebody is, not where they may go
        ({"stand": Stand.WAIT, "person": None}, Reason.TRY_LATER),
        ({"person": None}, Reason.UNKNOWN),
        ({"refuted": True}, Reason.NOT_VERIFIED),
        ({"enabled": False}, Reason.SUSPENDED),
        ({"factors": frozenset({Factor.FACE})}, Reason.CONSENT_LAPSED),
        ({"factors": frozenset({Factor.PIN})}, Reason.FACTOR_NEEDED),
    ],
)
def test_a_clock_without_a_door_asks_for_person_and_factors_only(
    changes: dict[str, Any], expected: Reason | None
) -> None:
    found = decide_clock(ask(**changes), [frozenset({Factor.CARD}), frozenset({Factor.FACE})], NOW)
    assert (found.reason if found else None) is expected


class TestForgery:
    def granted(self) -> Granted:
        found = decide(ASK, rules(), Scene(), NOW)
        assert isinstance(found, Granted)
        return found

    def test_nobody_else_constructs_one(self) -> None:
        fields = {
            name: getattr(self.granted(), name) for name in Granted.__dataclass_fields__ if name not in ("key", "seal")
        }
        with pytest.raises(TypeError, match=r"only edge_agent\.policy\.access"):
            Granted(**fields, key=object())

    def test_one_cannot_be_replaced_copied_or_pickled(self) -> None:
        granted = self.granted()
        with pytest.raises((TypeError, ValueError)):
            replace(granted, door="back")  # type: ignore[call-arg]
        for act in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                act(granted)

    def test_fields_cannot_be_set(self) -> None:
        with pytest.raises(AttributeError):
            self.granted().door = "back"  # type: ignore[misc]

    def test_there_are_no_subclasses(self) -> None:
        with pytest.raises(TypeError):
            type("Mine", (Granted,), {})

    @pytest.mark.parametrize(
        ("name", "value"),
        [("door", "back"), ("subject_id", BOB), ("duress", True), ("at", NOW + timedelta(hours=1)), ("actor", "li")],
    )
    def test_a_field_changed_by_force_breaks_the_seal(self, name: str, value: object) -> None:
        granted = self.granted()
        object.__setattr__(granted, name, value)
        assert not genuine(granted, NOW + timedelta(hours=1))
        assert not genuine(granted, NOW)

    def test_only_a_fresh_one_is_genuine(self) -> None:
        granted = self.granted()
        assert genuine(granted, NOW + GRANT_LIFETIME)
        assert not genuine(granted, NOW + GRANT_LIFETIME + timedelta(microseconds=1))
        assert not genuine(granted, NOW - timedelta(microseconds=1))

    @pytest.mark.parametrize("thing", [None, True, "granted", object()])
    def test_other_things_are_not_genuine(self, thing: object) -> None:
        assert not genuine(thing, NOW)
