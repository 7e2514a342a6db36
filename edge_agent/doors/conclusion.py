"""How a session ends: in one transaction what happened, then the relay, then what the person is shown.

Nothing opens before its event is durable; what the rules remember is taken back if the event could not be written.
A duress alarm alone does not wait for the end: it is raised when duress is recognised, whatever follows.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from device_drivers.devices import Feedback, Reader
from device_drivers.errors import DeviceError
from device_drivers.events import PunchState
from edge_agent.attendance import Source
from edge_agent.audit import AuditLog
from edge_agent.audit import Entry as AuditEntry
from edge_agent.biometrics.sensing import Sensing
from edge_agent.database import Database
from edge_agent.delivery.event import Event, append
from edge_agent.doors.alarms import Alarm, AlarmKind, clear_alarms, raise_alarm
from edge_agent.doors.control import Doors, NotOpened
from edge_agent.doors.passages import (
    ANOTHER_FACTOR,
    Passage,
    attempts_event,
    denied_event,
    door_state,
    duress_event,
    granted_event,
    not_opened_event,
    punch_event,
    punch_state,
    told_reason,
    with_user_id,
)
from edge_agent.doors.presence import Write
from edge_agent.matching.outcomes import PadState
from edge_agent.policy.access import Denied, Granted, Person, remote_open
from edge_agent.policy.attempts import LIMITS, Attempts
from edge_agent.policy.rules import BIOMETRIC, Door, Factor, Point, Rules
from templates_store.template import Purpose, SubjectId

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Session:
    """One person at one point, until granted, denied or gone."""

    point: Point
    door: Door | None
    ends_at: float  # monotonic
    started_by: str
    person: Person | None = None
    factors: set[Factor] = field(default_factory=set)
    pad: PadState = PadState.NONE
    duress: bool = False
    refuted: bool = False
    key: PunchState | None = None
    number: bool = False  # a number was entered and a PIN is awaited
    open_question: Denied | None = None  # what is still missing
    places: dict[str, Attempts] = field(default_factory=dict)  # attempts as its own left them

    @property
    def purpose(self) -> Purpose:
        return Purpose.ACCESS if self.door else Purpose.ATTENDANCE


class Conclusion:
    """Shared by every capture point."""

    def __init__(
        self,
        *,
        database: Database,
        doors: Doors,
        sensing: Sensing,
        audit: AuditLog,
        rules: Callable[[], Rules],
        source: Callable[[str], Source],
        driver: Callable[[str], object | None],
        now: Callable[[], datetime],
        watch: Callable[[Passage], None] | None = None,
    ) -> None:
        self._database = database
        self._doors = doors
        self._presence = doors.presence
        self._sensing = sensing
        self._audit = audit
        self._rules = rules
        self._source = source
        self._driver = driver
        self._now = now
        self._watch = watch

    async def grant(self, session: Session, granted: Granted, rules: Rules, now: datetime) -> None:
        door = rules.doors[granted.door]
        source = self._source(door.device)
        person = session.person if granted.subject_id is not None else None  # else the door let anybody in
        undo = [self._presence.reserve(granted, rules, opener=person is not None and person.opener)]
        events = [granted_event(granted, session.point, source, now)]
        rows = [self._presence.grant_rows(granted)]
        if door.attendance and person and self._may_punch(session, person):
            state = door_state(granted.direction)
            events.append(self._punched(session, person, state, source, now))
            undo.append(self._presence.punched(person.subject_id, state, now))
            rows.append(self._presence.punch_rows(person.subject_id))
        try:
            await self._store(session, events, rows, source, now)
        except BaseException:
            for step in reversed(undo):
                step()
            raise
        try:
            await self._doors.open(granted)
        except NotOpened as exc:
            log.warning("door_not_opened door=%s code=%s", exc.door, exc.code)
            undo[0]()  # nobody went in: anti-passback must not hold it against them
            await self._not_opened(not_opened_event(granted, exc.code, source, self._now()), granted)
            await self._end(session, Feedback.DENIED, exc.code, person=person)
            return
        if granted.unlock_until is not None:
            await self._doors.modes.tell([granted.door])
        await self._end(session, Feedback.GRANTED, "", person=person)

    async def _not_opened(self, event: Event, granted: Granted, entry: AuditEntry | None = None) -> None:
        rows, now = self._presence.grant_rows(granted), self._now()

        def work(connection: sqlite3.Connection) -> None:
            append(connection, [event], now=now)
            rows(connection)
            if entry is not None:
                self._audit.append(connection, entry, now=now)

        await self._database.write(work)

    def _may_punch(self, session: Session, person: Person) -> bool:
        """An entry by face or finger is a punch only where the person consented to that too."""
        shown = frozenset(session.factors) & BIOMETRIC.keys()
        return self.consented(person, Purpose.ATTENDANCE, shown) == shown

    def consented(self, person: Person | None, purpose: Purpose, factors: frozenset[Factor]) -> frozenset[Factor]:
        return self._sensing.consented(person.subject_id, purpose, factors) if person else frozenset()

    async def punch(self, session: Session, person: Person, rules: Rules, now: datetime) -> None:
        device = session.point.reader or session.point.fingerprint or session.point.camera or ""
        source = self._source(device)
        state = punch_state(
            session.point.punch,
            key=session.key,
            last=self._presence.last_punch(person.subject_id),
            now=now,
            zone=rules.zone,
        )
        event = self._punched(session, person, state, source, now)
        undo = self._presence.punched(person.subject_id, state, now)
        try:
            rows = [self._presence.punch_rows(person.subject_id)]
            await self._store(session, [event], rows, source, now)
        except BaseException:
            undo()
            raise
        await self._end(session, Feedback.GRANTED, "", person=person)

    def _punched(self, session: Session, person: Person, state: PunchState, source: Source, now: datetime) -> Event:
        return punch_event(
            person.subject_id, state, session.point, source, now, factors=frozenset(session.factors), pad=session.pad
        )

    async def deny(self, session: Session, denied: Denied | str, *, show: Feedback = Feedback.DENIED) -> None:
        now = self._now()
        source = self._source_of(session)
        event = denied_event(denied, session.point, source, now, pad=session.pad, factors=frozenset(session.factors))
        await self._store(session, [event], [], source, now)
        reason = told_reason(denied.reason if isinstance(denied, Denied) else denied)
        await self._end(session, show, reason, person=session.person if reason != ANOTHER_FACTOR else None)

    async def duress(self, session: Session, subject: SubjectId | None) -> None:
        """The silent alarm, before anybody at the door can end the session or step in between."""
        session.duress = True
        now, door = self._now(), session.door.name if session.door else None
        event = duress_event(secrets.token_hex(8), door, self._source_of(session), subject, now)
        alarm = Alarm(AlarmKind.DURESS, door or session.point.name, now, event.id, silent=True)
        await self._database.write(lambda c: raise_alarm(c, alarm, event, now=now))

    def _source_of(self, session: Session) -> Source:
        device = session.point.reader or session.point.fingerprint or session.point.camera or ""
        return self._source(session.door.device if session.door else device)

    async def _store(
        self,
        session: Session,
        events: list[Event],
        rows: list[Write],
        source: Source,
        now: datetime,
    ) -> None:
        """Everything a session leaves behind, in one transaction."""
        rows = rows + [self._presence.attempts_row(place) for place in session.places]
        alarms, calmed = self._too_many(session, source, now)
        session.places = {}

        def work(connection: sqlite3.Connection) -> None:
            append(connection, [with_user_id(connection, event) for event in events], now=now)
            for row in rows:
                row(connection)
            for alarm, event in alarms:
                raise_alarm(connection, alarm, event, now=now)
            for place in calmed:
                clear_alarms(connection, {AlarmKind.ATTEMPTS}, place, now)

        await self._database.write(work)

    def _too_many(self, session: Session, source: Source, now: datetime) -> tuple[list[tuple[Alarm, Event]], list[str]]:
        """An alarm for each place where a row of failures is full, and the places where somebody succeeded."""
        row = LIMITS.in_a_row_with_pad if session.door is not None and session.door.challenge else LIMITS.in_a_row
        raised = []
        for place, attempts in session.places.items():
            if attempts.in_a_row and attempts.in_a_row % row == 0:
                subject = session.person.subject_id if session.person and place.startswith("person:") else None
                event = attempts_event(place, attempts.in_a_row, session.point, source, subject, now)
                raised.append((Alarm(AlarmKind.ATTEMPTS, place, now, event.id), event))
        return raised, [place for place, attempts in session.places.items() if attempts == Attempts()]

    async def _end(self, session: Session, show: Feedback, reason: str, *, person: Person | None) -> None:
        await self.show(session.point, show)
        if self._watch is not None:
            self._watch(
                Passage(
                    session.point.name,
                    session.door.name if session.door else None,
                    self._now(),
                    show is Feedback.GRANTED,
                    person.subject_id if person else None,
                    reason,
                    frozenset(session.factors),
                    session.pad,
                )
            )

    async def show(self, point: Point, what: Feedback) -> None:
        reader = self._driver(point.reader) if point.reader else None
        if isinstance(reader, Reader):
            with contextlib.suppress(DeviceError):
                await reader.feedback(point.reader_no, what)

    async def open_remotely(self, door: str, *, actor: str) -> Granted | Denied:
        """An operator opens a door: decided, recorded, then opened. Raises NotOpened, StorageError."""
        rules, now = self._rules(), self._now()
        decision = remote_open(door, actor, rules=rules, presence=self._presence, now=now)
        entry = AuditEntry(actor, "door.open", door, decision.reason if isinstance(decision, Denied) else "ok")
        if isinstance(decision, Denied):
            await self._database.write(lambda c: self._audit.append(c, entry, now=now))
            return decision
        source = self._source(rules.doors[door].device)
        undo = self._presence.reserve(decision, rules, opener=False)
        event, rows = granted_event(decision, None, source, now), self._presence.grant_rows(decision)

        def work(connection: sqlite3.Connection) -> None:
            append(connection, [event], now=now)
            rows(connection)
            self._audit.append(connection, entry, now=now)

        try:
            await self._database.write(work)
        except BaseException:
            undo()
            raise
        try:
            await self._doors.open(decision)
        except NotOpened as exc:
            undo()
            refused = AuditEntry(actor, "door.open", door, exc.code)
            await self._not_opened(not_opened_event(decision, exc.code, source, self._now()), decision, refused)
            raise
        return decision

    async def reset_attempts(self, place: str, *, actor: str) -> None:
        """A person gives a factor back that too many failures switched off, at a point or for somebody."""
        now = self._now()
        self._presence.set_attempts(place, Attempts())
        row, entry = self._presence.attempts_row(place), AuditEntry(actor, "attempts.reset", place)

        def work(connection: sqlite3.Connection) -> None:
            row(connection)
            clear_alarms(connection, {AlarmKind.ATTEMPTS}, place, now)
            self._audit.append(connection, entry, now=now)

        await self._database.write(work)
