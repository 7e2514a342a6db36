"""Sample to door: a session that a person starts, from a card, a PIN, a finger or a face to a relay or a punch.

Order: session -> switch and terms -> sensor -> quality and challenge -> 1:N or 1:1 -> rules -> outbox (durable) ->
relay -> feedback. A grant that cannot be recorded is not given. Frames and probes live in memory until the decision
and are overwritten after it. Leaving does not pass through here: exit buttons and escape routes are the
controller's own.

One worker for each capture point, one session at a time in it; points do not wait for each other. A reader that floods
fills its own short queue and no more. An attempt counts from the moment its comparison begins, so that guesses at
several points at once are no more than guesses one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from device_drivers.devices import Feedback
from device_drivers.errors import DeviceError
from device_drivers.events import CardRead, DeviceEvent, FingerPresented, KeysPressed, PunchState
from edge_agent.biometrics.identification import Subject
from edge_agent.biometrics.sensing import Sensing
from edge_agent.database import DiskFull, StorageError
from edge_agent.doors.conclusion import Conclusion, Session
from edge_agent.doors.passages import ANOTHER_FACTOR
from edge_agent.doors.presence import Presence
from edge_agent.matching.outcomes import Match, NoMatch, NoMatchReason, Outcome, PadState, SampleFault
from edge_agent.matching.pad import Turn
from edge_agent.people.credentials import Credentials, PinCheck
from edge_agent.policy.access import Denied, Granted, Reason, Request, decide, decide_clock
from edge_agent.policy.attempts import Attempts, Stand
from edge_agent.policy.rules import Factor, Point, Rules
from templates_store.template import Purpose, SubjectId

log = logging.getLogger(__name__)

QUEUE = 8  # stimuli that wait at one point; more is a flood
CAMERA_RETRY_S = 10.0  # until a camera that failed, may not be open or was not there is asked for again
TOLD: dict[SampleFault | Turn, Feedback] = {Turn.LEFT: Feedback.TURN_LEFT, Turn.RIGHT: Feedback.TURN_RIGHT}
UNUSABLE = (NoMatchReason.SEALED, NoMatchReason.EMPTY_GALLERY, NoMatchReason.NOT_ALLOWED)  # whoever stands there
IN_KEY, OUT_KEY = "1", "2"  # pressed before showing oneself, where the direction comes by key


@dataclass(frozen=True, slots=True)
class Look:
    """A person asks to be looked at: a button, a console, or a face close to the camera."""

    by: str = "button"
    key: PunchState | None = None


Stimulus = CardRead | KeysPressed | FingerPresented | Look


class Entry:
    """Runs every capture point of the site."""

    def __init__(
        self,
        *,
        conclusion: Conclusion,
        credentials: Credentials,
        sensing: Sensing,
        presence: Presence,
        rules: Callable[[], Rules],
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._conclusion = conclusion
        self._credentials = credentials
        self._sensing = sensing
        self._presence = presence
        self._rules = rules
        self._now = now
        self._monotonic = monotonic
        self._queues: dict[str, asyncio.Queue[Stimulus]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._flooding: set[str] = set()
        self._running: Counter[str] = Counter()  # comparisons at this moment, by place of their attempts
        self.dropped = 0

    async def run(self) -> None:
        """Until cancelled. A storage that breaks its promise ends it, and with it the agent."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                self.follow()
                await asyncio.Event().wait()
            finally:
                self._group = None

    def follow(self) -> None:
        """A worker for each point of the rules in force: a camera is watched before anybody asks at its point."""
        for point in self._rules().points.values():
            self._queue(point.name)

    # What starts a session

    async def take(self, device: str, events: Sequence[DeviceEvent]) -> None:
        """Cards, keys and fingers at the readers of `device`; returns at once."""
        for event in events:
            if isinstance(event, CardRead | KeysPressed | FingerPresented):
                point = self._point_of(device, event)
                if point is None:
                    log.debug("reader_without_point device=%s reader=%d", device, event.reader)
                else:
                    self._offer(point, event)

    def look(self, point: str, *, by: str = "button", key: PunchState | None = None) -> bool:
        """Start a face session. False if the point has no camera, or is busy."""
        found = self._rules().points.get(point)
        return found is not None and found.camera is not None and self._offer(point, Look(by, key))

    def _offer(self, point: str, stimulus: Stimulus) -> bool:
        queue = self._queue(point)
        if queue is None:
            return False
        try:
            queue.put_nowait(stimulus)
        except asyncio.QueueFull:
            self.dropped += 1
            if point not in self._flooding:
                self._flooding.add(point)
                log.warning("reader_floods point=%s", point)
            return False
        return True

    def _queue(self, point: str) -> asyncio.Queue[Stimulus] | None:
        if point not in self._queues:
            if self._group is None:
                return None
            self._queues[point] = asyncio.Queue(QUEUE)
            self._group.create_task(self._attend(point), name=f"point {point}")
        return self._queues[point]

    def _point_of(self, device: str, event: CardRead | KeysPressed | FingerPresented) -> str | None:
        for point in self._rules().points.values():
            if isinstance(event, FingerPresented):
                if point.fingerprint == device:
                    return point.name
            elif point.reader == device and point.reader_no == event.reader:
                return point.name
        return None

    # One point

    async def _attend(self, name: str) -> None:
        queue, gone_first = self._queues[name], False
        while True:
            point = self._rules().points.get(name)
            if point is None:
                await self._shown(queue)
                continue
            try:
                stimulus = await self._next(point, queue, gone_first=gone_first)
                if stimulus is None or name not in self._rules().points:
                    continue
                point = self._rules().points[name]  # as it is now: waiting may have taken hours
                gone_first = isinstance(stimulus, Look)  # who was just seen must step away before it counts again
                await self._session(point, stimulus, queue)
            except DiskFull:
                log.error("entry_not_recorded point=%s reason=disk_full", name)  # noqa: TRY400  # no fault of ours to trace
                await self._conclusion.show(point, Feedback.DENIED)
            except DeviceError as exc:
                log.warning("sensor_failed point=%s reason=%s", name, exc)
                await self._conclusion.show(point, Feedback.DENIED)
            except StorageError:
                raise  # the disk broke its promise: the agent stops
            except Exception:  # a sample that breaks an engine must not take the other doors with it
                log.exception("session_failed point=%s", name)
                await self._conclusion.show(point, Feedback.DENIED)
            if queue.empty():
                self._flooding.discard(name)

    async def _next(self, point: Point, queue: asyncio.Queue[Stimulus], *, gone_first: bool) -> Stimulus | None:
        """What comes first: something shown at a reader, or somebody close to the camera. None: ask again."""
        purpose = Purpose.ACCESS if point.door else Purpose.ATTENDANCE
        camera = point.camera if point.close_face else None
        if not queue.empty():
            return await queue.get()
        if camera is None or not self._sensing.allowed(camera, Factor.FACE, purpose, None):
            return await self._shown(queue)
        shown = asyncio.ensure_future(queue.get())
        close = asyncio.ensure_future(self._sensing.close_face(camera, purpose, gone_first=gone_first))
        try:
            await asyncio.wait({shown, close}, return_when=asyncio.FIRST_COMPLETED)
            if not shown.done() and await self._stands(point, close):
                return Look("presence")
            async with asyncio.timeout(CAMERA_RETRY_S):
                return await shown
        except TimeoutError:
            return None
        finally:
            shown.cancel()
            close.cancel()
            await asyncio.gather(shown, close, return_exceptions=True)

    async def _shown(self, queue: asyncio.Queue[Stimulus]) -> Stimulus | None:
        """What is shown at a reader; None after a while, because there may be a camera to watch by now."""
        try:
            async with asyncio.timeout(CAMERA_RETRY_S):
                return await queue.get()
        except TimeoutError:
            return None

    async def _stands(self, point: Point, close: asyncio.Future[bool]) -> bool:
        try:
            return await close
        except DeviceError as exc:
            log.debug("camera_unavailable point=%s reason=%s", point.name, exc)
            return False

    async def _session(self, point: Point, stimulus: Stimulus, queue: asyncio.Queue[Stimulus]) -> None:
        rules = self._rules()
        session = Session(
            point,
            rules.doors.get(point.door) if point.door else None,
            ends_at=self._monotonic() + point.session_s,
            started_by=stimulus.by if isinstance(stimulus, Look) else type(stimulus).__name__,
        )
        while not await self._step(session, stimulus):
            try:
                async with asyncio.timeout(max(0.0, session.ends_at - self._monotonic())):
                    stimulus = await queue.get()
            except TimeoutError:
                if session.open_question is not None:
                    await self._conclusion.deny(session, session.open_question)
                return

    async def _step(self, session: Session, stimulus: Stimulus) -> bool:
        """True when the session is over."""
        if isinstance(stimulus, CardRead):
            return await self._card(session, stimulus)
        if isinstance(stimulus, KeysPressed):
            return await self._keys(session, stimulus)
        if isinstance(stimulus, FingerPresented):
            return await self._finger(session)
        session.key = stimulus.key or session.key
        return await self._face(session)

    # Factors

    async def _card(self, session: Session, read: CardRead) -> bool:
        place = f"point:{session.point.name}/card"
        stand = self._stand(session, place)
        if stand is not Stand.FREE:
            return await self._ask(session, stand=stand)
        person = await self._credentials.by_card(read.number)
        self._tried(session, place, ok=person is not None, forgiving=True)
        if session.person is None or person is None or session.person.subject_id != person.subject_id:
            # Somebody else steps up: what the one before showed is not theirs.
            session.person, session.factors, session.number, session.duress = person, set(), False, False
            session.pad, session.open_question = PadState.NONE, None
        if person is not None:
            session.factors.add(Factor.CARD)
        return await self._ask(session)

    async def _keys(self, session: Session, pressed: KeysPressed) -> bool:
        digits = pressed.digits
        if session.person is None and not session.number and digits in (IN_KEY, OUT_KEY) and session.door is None:
            session.key = PunchState.IN if digits == IN_KEY else PunchState.OUT
            await self._conclusion.show(session.point, Feedback.WAIT)
            return False
        number, star, pin = digits.partition("*")
        if star or (session.person is None and not session.number):
            person = await self._credentials.by_number(number, device=session.point.reader or "")
            if session.person is not None and person != session.person:
                session.refuted = True
                return await self._ask(session)
            session.person, session.number = person, True
            if not star:
                await self._conclusion.show(session.point, Feedback.WAIT)
                return False
            digits = pin
        return await self._pin(session, digits)

    async def _pin(self, session: Session, digits: str) -> bool:
        subject = session.person.subject_id if session.person else None
        place = f"person:{subject}/pin" if subject else f"point:{session.point.name}/pin"
        stand = self._stand(session, place)
        if stand is not Stand.FREE:
            return await self._ask(session, stand=stand)
        with self._comparing(place):
            checked = await self._credentials.check_pin(subject, digits)
        self._tried(session, place, ok=checked is not PinCheck.WRONG)
        if checked is PinCheck.WRONG:
            session.refuted = session.person is not None
            return await self._ask(session)
        if checked is PinCheck.DURESS:
            await self._duress(session, subject)
        session.factors.add(Factor.PIN)
        return await self._ask(session)

    async def _finger(self, session: Session) -> bool:
        device, claimed = session.point.fingerprint, session.person.subject_id if session.person else None
        if device is None or not self._sensing.allowed(device, Factor.FINGER, session.purpose, claimed):
            return await self._unavailable(session)
        place = self._place(session, Factor.FINGER)
        stand = self._stand(session, place)
        if stand is not Stand.FREE:
            return await self._ask(session, stand=stand)
        with self._comparing(place):
            touch = await self._sensing.touch(device, Subject(session.purpose, claimed), started_by=session.started_by)
            if isinstance(touch.outcome, Match):
                duress = await self._credentials.duress_finger(touch.outcome.subject_id)
                if duress is not None and touch.position == duress:
                    await self._duress(session, touch.outcome.subject_id)
        return await self._identified(session, touch.outcome, Factor.FINGER)

    async def _face(self, session: Session) -> bool:
        device, claimed = session.point.camera, session.person.subject_id if session.person else None
        if device is None or not self._sensing.allowed(device, Factor.FACE, session.purpose, claimed):
            return await self._unavailable(session)
        place = self._place(session, Factor.FACE)
        stand = self._stand(session, place)
        if stand is not Stand.FREE:
            return await self._ask(session, stand=stand)

        async def hint(what: SampleFault | Turn) -> None:
            await self._conclusion.show(session.point, TOLD.get(what, Feedback.LOOK_AGAIN))

        with self._comparing(place):
            outcome = await self._sensing.look(
                device,
                Subject(session.purpose, claimed),
                challenge=session.door is not None and session.door.challenge,
                ends_at=session.ends_at,
                started_by=session.started_by,
                hint=hint,
            )
        return await self._identified(session, outcome, Factor.FACE)

    async def _identified(self, session: Session, outcome: Outcome, factor: Factor) -> bool:
        session.pad = outcome.pad if outcome.pad is not PadState.NONE else session.pad
        if isinstance(outcome, NoMatch) and outcome.reason in UNUSABLE:
            return await self._unavailable(session)
        if isinstance(outcome, NoMatch) and outcome.fault not in (None, SampleFault.CHALLENGE_FAILED):
            await self._conclusion.show(session.point, Feedback.LOOK_AGAIN)  # nobody was compared: no attempt
            return session.person is None
        ok = isinstance(outcome, Match)
        self._tried(session, self._place(session, factor), ok=ok)
        if isinstance(outcome, Match):
            if session.person is None:
                session.person = await self._credentials.person(outcome.subject_id)
            session.factors.add(factor)
        else:
            session.refuted = session.person is not None
        return await self._ask(session)

    async def _duress(self, session: Session, subject: SubjectId | None) -> None:
        if not session.duress:  # one alarm for one person under duress, by however many factors
            await self._conclusion.duress(session, subject)

    # Attempts

    def _place(self, session: Session, factor: Factor) -> str:
        who = f"person:{session.person.subject_id}" if session.person else f"point:{session.point.name}"
        return f"{who}/{factor}"

    def _tried(self, session: Session, place: str, *, ok: bool, forgiving: bool = False) -> None:
        """`forgiving`: strangers' cards make a reader wait, and never switch it off for everybody."""
        attempts = self._presence.attempts(place)
        after = attempts.succeeded() if ok else attempts.failed(self._now())
        session.places[place] = Attempts(after.in_a_row, 0, after.last) if forgiving else after
        self._presence.set_attempts(place, session.places[place])

    @contextlib.contextmanager
    def _comparing(self, place: str) -> Iterator[None]:
        """Until `_tried` counts the result, which follows without waiting for anything."""
        self._running[place] += 1
        try:
            yield
        finally:
            self._running[place] -= 1
            if not self._running[place]:
                del self._running[place]

    def _stand(self, session: Session, place: str) -> Stand:
        pad = session.door is not None and session.door.challenge
        return self._presence.attempts(place).stand(self._now(), pad=pad, running=self._running[place])

    # Decision

    async def _ask(self, session: Session, *, stand: Stand = Stand.FREE) -> bool:
        """Put the session before the rules. `stand` is what an attempt met that was not even made."""
        rules, now = self._rules(), self._now()
        factors = frozenset(session.factors)
        request = Request(
            door=session.door.name if session.door else "",
            direction=session.point.direction,
            person=session.person,
            factors=factors,
            pad=session.pad,
            consented=self._conclusion.consented(session.person, session.purpose, factors),
            stand=stand,
            refuted=session.refuted,
            duress=session.duress,
        )
        if session.door is None:
            refused = decide_clock(request, session.point.verify, now)
            if refused is None and session.person is not None:
                await self._conclusion.punch(session, session.person, rules, now)
                return True
            decision: Granted | Denied | None = refused
        else:
            decision = decide(request, rules, self._presence, now)
        if isinstance(decision, Granted):
            await self._conclusion.grant(session, decision, rules, now)
            if session.door is None or not session.door.attendance or not decision.missing:
                return True
            return await self._ask_for(session, decision.missing)  # the door is open, and the punch is still to come
        if decision is None:
            return True
        if decision.reason is Reason.FACTOR_NEEDED:
            session.open_question = decision
            return await self._ask_for(session, decision.missing)
        if decision.reason is Reason.SECOND_PERSON and session.person:
            self._presence.wait_for_second(decision.door, session.person.subject_id, now, request.direction)
            await self._conclusion.deny(session, decision, show=Feedback.WAIT)
            return True
        await self._conclusion.deny(session, decision)
        return True

    async def _ask_for(self, session: Session, missing: Sequence[frozenset[Factor]]) -> bool:
        await self._conclusion.show(session.point, Feedback.WAIT)
        return await self._face(session) if self._wants_face(session, missing) else False

    def _wants_face(self, session: Session, missing: Sequence[frozenset[Factor]]) -> bool:
        """Is a face what is missing, and may it be asked of this person?"""
        if session.point.camera is None or session.person is None:
            return False
        wanted = any(Factor.FACE in rest for rest in missing)
        subject = session.person.subject_id
        return wanted and self._sensing.allowed(session.point.camera, Factor.FACE, session.purpose, subject)

    async def _unavailable(self, session: Session) -> bool:
        """This factor cannot be used here and now, whatever the cause: another one can."""
        if session.person is not None:  # a card was shown: the door may take something else
            await self._conclusion.show(session.point, Feedback.DENIED)
            return False
        await self._conclusion.deny(session, ANOTHER_FACTOR)
        return True
