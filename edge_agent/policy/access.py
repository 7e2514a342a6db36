"""Who may pass. The only module that makes a `Granted`, and only a `Granted` opens a door.

Pure: everything comes in, `now` included. The order of reasons is fixed, so that the same question is always
answered with the same reason, and so that nobody learns from an answer what an earlier check would have hidden:
door mode, attempts, unknown, not verified, validity, consent, privilege, schedule, factors, liveness, anti-passback,
occupancy, first card, interlock, second person.

A door that stands open to everybody refuses nobody, and the passage is a certain person's only if they have shown what
is asked of them at other times. Otherwise it is nobody's: somebody else's number and a wrong PIN move and clock nobody.

Python cannot make a value unforgeable. What is done: the constructor wants a key that never leaves this module, the
class cannot be extended, replaced, pickled or copied with other fields, and a seal over all fields is checked, with the
age, before a relay moves.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NoReturn, Protocol

from edge_agent.matching.outcomes import PadState
from edge_agent.policy.anti_passback import OUTSIDE, Passback, Whereabouts, judge
from edge_agent.policy.attempts import Stand
from edge_agent.policy.rules import BIOMETRIC, Direction, Door, DoorMode, Factor, Rules
from templates_store.template import SubjectId

GRANT_LIFETIME = timedelta(seconds=10)  # from decision to relay; a grant that was queued longer opens nothing
_KEY = object()
_SECRET = secrets.token_bytes(32)


class Reason(StrEnum):
    """Why not, in the order of checking."""

    NO_SUCH_DOOR = "no_such_door"
    LOCKDOWN = "lockdown"
    LOCKED = "locked"
    TRY_LATER = "try_later"
    FACTOR_DISABLED = "factor_disabled"
    UNKNOWN = "unknown"
    NOT_VERIFIED = "not_verified"
    SUSPENDED = "suspended"
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    CONSENT_LAPSED = "consent_lapsed"
    NO_PRIVILEGE = "no_privilege"
    OUTSIDE_SCHEDULE = "outside_schedule"
    FACTOR_NEEDED = "factor_needed"
    CHALLENGE_NEEDED = "challenge_needed"
    ANTI_PASSBACK = "anti_passback"
    ZONE_FULL = "zone_full"
    FIRST_CARD = "first_card"
    INTERLOCK = "interlock"
    SECOND_PERSON = "second_person"


class Basis(StrEnum):
    """What a grant rests on."""

    PRIVILEGE = "privilege"
    UNLOCKED = "unlocked"  # the door stands open to everybody
    EVACUATION = "evacuation"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Person:
    """What the rules need to know of a subject."""

    subject_id: SubjectId
    groups: frozenset[str] = frozenset()
    enabled: bool = True
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    opener: bool = False  # counts as first card, and switches a door in office mode
    passes_lockdown: bool = False
    anti_passback_exempt: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """Somebody asks at a door. `factors` are those proven for this very person."""

    door: str
    direction: Direction
    person: Person | None
    factors: frozenset[Factor]
    pad: PadState = PadState.NONE
    consented: frozenset[Factor] = frozenset()  # biometric factors whose consent and switch hold now
    stand: Stand = Stand.FREE
    refuted: bool = False  # something was shown that is not this person's: a wrong PIN, another face
    duress: bool = False


@dataclass(frozen=True, slots=True)
class FirstOfTwo:
    subject_id: SubjectId
    at: datetime
    direction: Direction


class Presence(Protocol):
    """What has happened at the doors until now."""

    def mode_ordered(self, door: str, now: datetime) -> DoorMode | None: ...
    def office_unlocked(self, door: str, now: datetime) -> bool: ...
    def whereabouts(self, subject_id: SubjectId) -> Whereabouts | None: ...
    def occupancy(self, zone: str, *, after: datetime) -> int: ...
    def open_or_released(self, door: str, now: datetime) -> bool: ...
    def last_opener(self, door: str) -> datetime | None: ...
    def first_of_two(self, door: str) -> FirstOfTwo | None: ...


@dataclass(frozen=True, slots=True)
class Granted:
    """Leave to open one door once, soon."""

    door: str
    direction: Direction
    subject_id: SubjectId | None
    at: datetime
    basis: Basis
    factors: frozenset[Factor]
    pad: PadState
    duress: bool
    warnings: tuple[Reason, ...]
    companion: SubjectId | None  # the first of two
    unlock_until: datetime | None  # office mode: keep unlocked
    actor: str  # the operator of a remote opening
    missing: tuple[frozenset[Factor], ...]  # at an unlocked door: what would make the passage this person's
    nonce: str
    key: InitVar[object]
    seal: bytes = field(init=False, repr=False)

    def __post_init__(self, key: object) -> None:
        if key is not _KEY:
            raise TypeError("only edge_agent.policy.access makes a Granted")
        object.__setattr__(self, "seal", _seal(self))

    def __init_subclass__(cls, **_: Any) -> NoReturn:
        raise TypeError("a Granted has no subclasses")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Granted is neither copied nor stored")

    __copy__ = __deepcopy__ = __replace__ = __reduce__


@dataclass(frozen=True, slots=True)
class Denied:
    """No, and why. `missing` are the factors that would still have to be shown, smallest sets first."""

    door: str
    reason: Reason
    subject_id: SubjectId | None = None
    missing: tuple[frozenset[Factor], ...] = ()
    duress: bool = False


Decision = Granted | Denied


def _seal(granted: Granted) -> bytes:
    said = "\x00".join(
        (
            granted.door,
            granted.direction,
            granted.subject_id or "",
            granted.at.isoformat(),
            granted.basis,
            ",".join(sorted(granted.factors)),
            granted.pad,
            str(granted.duress),
            ",".join(granted.warnings),
            granted.companion or "",
            granted.unlock_until.isoformat() if granted.unlock_until else "",
            granted.actor,
            "|".join(",".join(sorted(rest)) for rest in granted.missing),
            granted.nonce,
        )
    )
    return hmac.new(_SECRET, said.encode(), hashlib.sha256).digest()


def genuine(granted: object, now: datetime) -> bool:
    """Whether `granted` was made here, is unchanged, and is fresh."""
    if type(granted) is not Granted or not hmac.compare_digest(granted.seal, _seal(granted)):
        return False
    return timedelta(0) <= now - granted.at <= GRANT_LIFETIME


def mode_of(door: Door, rules: Rules, presence: Presence, now: datetime) -> DoorMode:
    """The mode in force: a person's order before the schedule; office becomes unlocked once switched."""
    mode = presence.mode_ordered(door.name, now) or rules.scheduled_mode(door, now)
    if mode is DoorMode.OFFICE and presence.office_unlocked(door.name, now):
        return DoorMode.UNLOCKED
    return mode


def decide(request: Request, rules: Rules, presence: Presence, now: datetime) -> Decision:
    """Answer one request. `now` is aware."""
    door = rules.doors.get(request.door)
    if door is None:
        return _denied(request, Reason.NO_SUCH_DOOR)
    person = request.person
    mode = mode_of(door, rules, presence, now)
    if mode is DoorMode.EVACUATION:
        return _open_to_all(request, door, rules, now, basis=Basis.EVACUATION)
    if mode is DoorMode.LOCKED:
        return _denied(request, Reason.LOCKED)
    if mode is DoorMode.LOCKDOWN and not (person and person.passes_lockdown):
        return _denied(request, Reason.LOCKDOWN)
    if mode is DoorMode.UNLOCKED:
        return _open_to_all(request, door, rules, now, basis=Basis.UNLOCKED)
    if request.stand is not Stand.FREE:
        return _denied(request, Reason.TRY_LATER if request.stand is Stand.WAIT else Reason.FACTOR_DISABLED)
    if person is None:
        return _denied(request, Reason.UNKNOWN)
    reason = _person_fault(person, request, now) or _privilege_fault(person, door, rules, now)
    if reason:
        return _denied(request, reason)
    missing = missing_factors(rules.verify(door, now), request.factors)
    if missing:
        return _denied(request, Reason.FACTOR_NEEDED, missing=missing)
    if _unchallenged(request, door):
        return _denied(request, Reason.CHALLENGE_NEEDED)
    return _door_state(request, person, door, rules, presence, now)


def _open_to_all(request: Request, door: Door, rules: Rules, now: datetime, *, basis: Basis) -> Granted:
    person, missing = request.person, missing_factors(rules.verify(door, now), request.factors)
    known = person is not None and request.stand is Stand.FREE and _person_fault(person, request, now) is None
    if known and not missing and not _unchallenged(request, door):
        return _granted(request, now, basis=basis)
    anonymous = replace(request, person=None, factors=frozenset(), pad=PadState.NONE)
    return _granted(anonymous, now, basis=basis, missing=missing if known and basis is Basis.UNLOCKED else ())


def _unchallenged(request: Request, door: Door) -> bool:
    alive = request.pad in (PadState.ACTIVE, PadState.TERMINAL)
    return door.challenge and Factor.FACE in request.factors and not alive


def _door_state(
    request: Request, person: Person, door: Door, rules: Rules, presence: Presence, now: datetime
) -> Decision:
    origin, target = door.zones(request.direction)
    warnings: list[Reason] = []
    zone = rules.zones.get(target) or rules.zones.get(origin)
    if zone and not person.anti_passback_exempt:
        verdict = judge(
            zone.anti_passback,
            origin=origin,
            target=target,
            last=presence.whereabouts(person.subject_id),
            now=now,
            timed=zone.timed,
            memory=zone.memory,
        )
        if verdict is Passback.VIOLATION:
            return _denied(request, Reason.ANTI_PASSBACK)
        if verdict is Passback.WARNING:
            warnings.append(Reason.ANTI_PASSBACK)
    entered = rules.zones.get(target) if target != origin else None
    if entered and entered.capacity is not None:
        since = now - entered.memory
        there = presence.whereabouts(person.subject_id)
        counted = there is not None and there.zone == target and there.since > since  # left by the exit button
        others = presence.occupancy(target, after=since) - counted
        if others + (2 if door.two_person else 1) > entered.capacity:
            return _denied(request, Reason.ZONE_FULL)
    if door.first_card is not None and not person.opener and target != OUTSIDE:
        running = rules.interval(door.first_card, now)
        opened = presence.last_opener(door.name)
        if running and (opened is None or opened < running[0]):
            return _denied(request, Reason.FIRST_CARD)
    if any(presence.open_or_released(other, now) for other in rules.interlocks[door.name]):
        return _denied(request, Reason.INTERLOCK)
    companion = None
    if door.two_person and target != OUTSIDE:
        first = presence.first_of_two(door.name)
        fresh = first is not None and first.at <= now <= first.at + timedelta(seconds=door.two_person_s)
        if (
            first is None
            or not fresh
            or first.subject_id == person.subject_id
            or first.direction is not request.direction
        ):
            return _denied(request, Reason.SECOND_PERSON)
        companion = first.subject_id
    office = rules.office_until(door, now) if person.opener else None
    in_office = office and rules.scheduled_mode(door, now) is DoorMode.OFFICE
    return _granted(
        request,
        now,
        basis=Basis.PRIVILEGE,
        warnings=tuple(warnings),
        companion=companion,
        unlock_until=office if in_office and presence.mode_ordered(door.name, now) is None else None,
    )


def _person_fault(person: Person, request: Request, now: datetime) -> Reason | None:
    if request.refuted:
        return Reason.NOT_VERIFIED
    if not person.enabled:
        return Reason.SUSPENDED
    if person.valid_from is not None and now < person.valid_from:
        return Reason.NOT_YET_VALID
    if person.valid_until is not None and now >= person.valid_until:
        return Reason.EXPIRED
    if (request.factors & BIOMETRIC.keys()) - request.consented:
        return Reason.CONSENT_LAPSED
    return None


def _privilege_fault(person: Person, door: Door, rules: Rules, now: datetime) -> Reason | None:
    schedules = rules.privileges(person.groups, door.name)
    if not schedules:
        return Reason.NO_PRIVILEGE
    return None if any(rules.during(name, now) for name in schedules) else Reason.OUTSIDE_SCHEDULE


def missing_factors(verify: Sequence[frozenset[Factor]], shown: frozenset[Factor]) -> tuple[frozenset[Factor], ...]:
    """What would complete each combination, smallest first; empty if one is complete."""
    if any(combination <= shown for combination in verify):
        return ()
    return tuple(sorted({c - shown for c in verify}, key=lambda rest: (len(rest), sorted(rest))))


def decide_clock(request: Request, verify: Sequence[frozenset[Factor]], now: datetime) -> Denied | None:
    """A punch at a capture point without a door: who it is, and by enough factors. None: yes."""
    if request.stand is not Stand.FREE:
        return _denied(request, Reason.TRY_LATER if request.stand is Stand.WAIT else Reason.FACTOR_DISABLED)
    if request.person is None:
        return _denied(request, Reason.UNKNOWN)
    reason = _person_fault(request.person, request, now)
    if reason:
        return _denied(request, reason)
    missing = missing_factors(verify, request.factors)
    return _denied(request, Reason.FACTOR_NEEDED, missing=missing) if missing else None


def remote_open(door_name: str, actor: str, *, rules: Rules, presence: Presence, now: datetime) -> Decision:
    """An operator opens a door from afar. A lockdown or a locked door has to be lifted first."""
    request = Request(door=door_name, direction=Direction.IN, person=None, factors=frozenset())
    door = rules.doors.get(door_name)
    if door is None:
        return _denied(request, Reason.NO_SUCH_DOOR)
    if not actor:
        raise ValueError("a remote opening needs the name of who ordered it")
    mode = mode_of(door, rules, presence, now)
    if mode in (DoorMode.LOCKED, DoorMode.LOCKDOWN):
        return _denied(request, Reason.LOCKED if mode is DoorMode.LOCKED else Reason.LOCKDOWN)
    if any(presence.open_or_released(other, now) for other in rules.interlocks[door_name]):
        return _denied(request, Reason.INTERLOCK)
    return _granted(request, now, basis=Basis.OPERATOR, actor=actor)


def _denied(request: Request, reason: Reason, *, missing: tuple[frozenset[Factor], ...] = ()) -> Denied:
    subject = request.person.subject_id if request.person else None
    return Denied(request.door, reason, subject, missing, request.duress)


def _granted(
    request: Request,
    now: datetime,
    *,
    basis: Basis,
    warnings: tuple[Reason, ...] = (),
    companion: SubjectId | None = None,
    unlock_until: datetime | None = None,
    actor: str = "",
    missing: tuple[frozenset[Factor], ...] = (),
) -> Granted:
    return Granted(
        door=request.door,
        direction=request.direction,
        subject_id=request.person.subject_id if request.person else None,
        at=now,
        basis=basis,
        factors=request.factors,
        pad=request.pad,
        duress=request.duress,
        warnings=warnings,
        companion=companion,
        unlock_until=unlock_until,
        actor=actor,
        missing=missing,
        nonce=secrets.token_hex(8),
        key=_KEY,
    )
