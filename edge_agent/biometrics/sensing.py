"""Opening a camera or a fingerprint sensor for one session, and making an outcome of what it sees.

Switch, terms and consent are asked before a sensor opens and again at every look through it: once they no longer hold,
it closes, and what it gave last is not looked at. Each opening is written down before it happens. Frames and images
live until they were looked at and are overwritten then; nothing is written anywhere.

Waiting for a face close to the camera detects faces and compares none: a session begins with somebody who stands there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_drivers.devices import Camera, FingerprintReader, VideoFrame
from device_drivers.errors import LinkTimeout
from edge_agent.audit import AuditLog
from edge_agent.audit import Entry as AuditEntry
from edge_agent.biometrics.identification import Identification, Sample, Subject, wipe
from edge_agent.database import Database
from edge_agent.matching.face import FaceSample
from edge_agent.matching.fingerprint import FingerSample
from edge_agent.matching.outcomes import Match, NoMatch, NoMatchReason, Outcome, PadState, Refused, SampleFault
from edge_agent.matching.pad import ChallengeState, Turn, TurnChallenge
from edge_agent.policy.consent import Terms, fault_of, terms_fault
from edge_agent.policy.rules import BIOMETRIC, Factor
from templates_store.template import Modality, Purpose, SubjectId

log = logging.getLogger(__name__)

LOOKS = 3  # good samples that may miss before it counts as one failed attempt
FINGER_TIMEOUT_S = 5.0
DEFAULT_DPI = 500.0
WATCH_EVERY_S = 0.3
CLOSE_EYES = 60.0  # pixels between the eyes of somebody who stands at the point
SEEN = 2  # detections in a row for coming and for going

Hint = Callable[[SampleFault | Turn], Awaitable[None]]


@dataclass(slots=True)
class Liveness:
    """Two turns drawn by lot; who stands there is asked before the first and again after the last."""

    started_at: float
    challenge: TurnChallenge = field(init=False)
    first: SubjectId | None = None

    def __post_init__(self) -> None:
        self.challenge = TurnChallenge([secrets.choice(list(Turn)) for _ in range(2)], started_at=self.started_at)

    @property
    def passed(self) -> bool:
        return self.challenge.state is ChallengeState.PASSED

    @property
    def failed(self) -> bool:
        return self.challenge.state is ChallengeState.FAILED


@dataclass(frozen=True, slots=True)
class Touch:
    """A finger's outcome, and which finger it was."""

    outcome: Outcome
    position: int = 0


class Sensing:
    """Shared by every capture point; keeps nothing between sessions."""

    def __init__(
        self,
        *,
        database: Database,
        audit: AuditLog,
        identification: Identification,
        terms: Callable[[], Terms],
        sensor_on: Callable[[str, Modality], bool],
        driver: Callable[[str], object | None],
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._database = database
        self._audit = audit
        self.identification = identification
        self._terms = terms
        self._sensor_on = sensor_on  # the enterprise's switch for a modality on one device
        self._driver = driver
        self._now = now
        self._monotonic = monotonic
        self._notes: set[asyncio.Task[None]] = set()

    # Leave

    def allowed(self, device: str, factor: Factor, purpose: Purpose, person: SubjectId | None) -> bool:
        """May this sensor open? 1:1 asks for this person's consent, 1:N for that of at least one person."""
        modality, galleries = BIOMETRIC[factor], self.identification.galleries
        if not self._sensor_on(device, modality) or not self.identification.supports(modality) or galleries.sealed:
            return False
        wanted: type = Camera if factor is Factor.FACE else FingerprintReader
        if not isinstance(self._driver(device), wanted):
            return False
        if person is not None:
            return factor in self.consented(person, purpose, frozenset({factor}))
        terms, now = self._terms(), self._now()
        if terms_fault(modality, terms) is not None or not galleries.count(modality, purpose):
            return False
        # After a material change of the notice everybody's consent is stale: then nobody is looked at.
        return any(
            fault_of(given, terms, modality=modality, purpose=purpose, now=now) is None
            for given in galleries.consents()
        )

    def consented(self, person: SubjectId, purpose: Purpose, factors: frozenset[Factor]) -> frozenset[Factor]:
        """Those of the biometric `factors` that the person's consent covers now."""
        terms, now, galleries = self._terms(), self._now(), self.identification.galleries
        return frozenset(
            factor
            for factor in factors & BIOMETRIC.keys()
            if fault_of(
                galleries.consent(person, BIOMETRIC[factor], purpose),
                terms,
                modality=BIOMETRIC[factor],
                purpose=purpose,
                now=now,
            )
            is None
        )

    # Fingers

    async def touch(self, device: str, whom: Subject, *, started_by: str) -> Touch:
        """One finger. Raises DeviceError; no finger and no match are outcomes."""
        reader = self._driver(device)
        if not isinstance(reader, FingerprintReader):
            return Touch(NoMatch(NoMatchReason.SAMPLE, fault=SampleFault.BAD_IMAGE))
        async with self._open(device, Modality.FINGERPRINT, whom.purpose, started_by):
            try:
                image = await reader.capture(timeout_s=FINGER_TIMEOUT_S)
            except LinkTimeout:
                return Touch(NoMatch(NoMatchReason.SAMPLE, fault=SampleFault.SMALL_AREA))
        dpi = float(getattr(reader, "dpi", DEFAULT_DPI))
        try:
            if not self.allowed(device, Factor.FINGER, whom.purpose, whom.claimed):
                return Touch(NoMatch(NoMatchReason.NOT_ALLOWED))
            sample = await asyncio.to_thread(self.identification.finger_sample, image, dpi=dpi)
        finally:
            overwrite(image)
        if isinstance(sample, Refused):
            return Touch(NoMatch(NoMatchReason.SAMPLE, fault=sample.fault))
        return await asyncio.to_thread(self._touched, sample, whom)

    def _touched(self, sample: FingerSample, whom: Subject) -> Touch:
        outcome = self.identification.decide(sample, whom)
        if isinstance(outcome, Match):
            return Touch(outcome, self.identification.position(sample, outcome, whom.purpose))
        return Touch(outcome)

    # Faces

    async def look(
        self, device: str, whom: Subject, *, challenge: bool, ends_at: float, started_by: str, hint: Hint
    ) -> Outcome:
        """Watch until the face is known, has missed LOOKS times, or monotonic `ends_at`. Raises DeviceError."""
        camera = self._driver(device)
        if not isinstance(camera, Camera):
            return NoMatch(NoMatchReason.SAMPLE, fault=SampleFault.BAD_IMAGE)
        liveness = Liveness(self._monotonic()) if challenge else None
        async with self._open(device, Modality.FACE, whom.purpose, started_by), camera.frames() as frames:
            try:
                async with asyncio.timeout(max(0.0, ends_at - self._monotonic())):
                    return await self._watch(device, camera, frames, whom, liveness, hint)
            except TimeoutError:
                begun = liveness is not None and liveness.first is not None and not liveness.passed
                return NoMatch(
                    NoMatchReason.SAMPLE, fault=SampleFault.CHALLENGE_FAILED if begun else SampleFault.NO_FACE
                )

    async def _watch(
        self,
        device: str,
        camera: Camera,
        frames: AsyncIterator[VideoFrame],
        whom: Subject,
        liveness: Liveness | None,
        hint: Hint,
    ) -> Outcome:
        missed, fault = 0, SampleFault.NO_FACE
        async for frame in frames:
            pixels = own_pixels(camera, frame)
            try:
                if not self.allowed(device, Factor.FACE, whom.purpose, whom.claimed):
                    return NoMatch(NoMatchReason.NOT_ALLOWED)
                if liveness is not None and not liveness.passed:
                    await self._challenge(pixels, whom, liveness, hint)
                    if liveness.failed:
                        return NoMatch(NoMatchReason.SAMPLE, fault=SampleFault.CHALLENGE_FAILED)
                    continue
                sample = await asyncio.to_thread(self.identification.face_sample, pixels)
            finally:
                overwrite(pixels)
            if isinstance(sample, Refused):
                if sample.fault is not fault:
                    fault = sample.fault
                    await hint(fault)
                continue
            outcome = await self._decide(sample, whom, pad=PadState.ACTIVE if liveness else sample.pad.state)
            if isinstance(outcome, Match):
                if liveness is not None and liveness.first != outcome.subject_id:
                    return NoMatch(NoMatchReason.SAMPLE, fault=SampleFault.CHALLENGE_FAILED)
                return outcome
            missed += 1
            if missed >= LOOKS or outcome.reason in (NoMatchReason.SEALED, NoMatchReason.EMPTY_GALLERY):
                return outcome
        return NoMatch(NoMatchReason.SAMPLE, fault=fault)

    async def _challenge(self, pixels: NDArray[np.uint8], whom: Subject, liveness: Liveness, hint: Hint) -> None:
        engine = self.identification.face
        if engine is None:
            return
        if liveness.first is None:
            sample = await asyncio.to_thread(engine.sample, pixels)
            if isinstance(sample, FaceSample):
                outcome = await self._decide(sample, whom)
                liveness.first = outcome.subject_id if isinstance(outcome, Match) else None
            if self._monotonic() - liveness.started_at > liveness.challenge.timeout_s:
                liveness.challenge.state = ChallengeState.FAILED
            return
        faces = await asyncio.to_thread(engine.detect, pixels)
        before = liveness.challenge.turn
        liveness.challenge.observe([face.landmarks for face in faces], now=self._monotonic())
        turn = liveness.challenge.turn
        if turn is not None and turn is not before:
            await hint(turn)

    async def _decide(self, sample: Sample, whom: Subject, *, pad: PadState = PadState.NONE) -> Outcome:
        try:
            return await asyncio.to_thread(self.identification.decide, sample, whom, pad=pad)
        finally:
            if isinstance(sample, FaceSample):
                wipe(sample)

    async def close_face(self, device: str, purpose: Purpose, *, gone_first: bool) -> bool:
        """True when somebody stands before the camera; `gone_first`: somebody else, or again.

        Compares nobody. False if the camera has no more frames, or may no longer be open. Raises DeviceError.
        """
        camera, engine = self._driver(device), self.identification.face
        if engine is None or not isinstance(camera, Camera):
            raise ValueError(f"{device} is no camera, or there is no face engine")
        waiting_for, row = not gone_first, 0
        async with self._open(device, Modality.FACE, purpose, "presence"), camera.frames() as frames:
            looked = self._monotonic() - WATCH_EVERY_S
            async for frame in frames:
                pixels = own_pixels(camera, frame)
                try:
                    if self._monotonic() - looked < WATCH_EVERY_S:
                        continue
                    if not self.allowed(device, Factor.FACE, purpose, None):
                        return False
                    looked = self._monotonic()
                    faces = await asyncio.to_thread(engine.detect, pixels)
                finally:
                    overwrite(pixels)
                close = any(face.eye_distance >= CLOSE_EYES for face in faces)
                row = row + 1 if close is waiting_for else 0
                if row >= SEEN:
                    if waiting_for:
                        return True
                    waiting_for, row = True, 0
        return False

    @contextlib.asynccontextmanager
    async def _open(self, device: str, modality: Modality, purpose: Purpose, started_by: str) -> AsyncIterator[None]:
        details: dict[str, Any] = {"modality": modality, "purpose": purpose, "started_by": started_by}
        await self._note(AuditEntry("agent", "sensor.open", device, details=details))
        try:
            yield
        finally:
            # The sensor is closed already: nobody at the door waits until that is written down.
            task = asyncio.create_task(self._note(AuditEntry("agent", "sensor.close", device, details=details)))
            self._notes.add(task)
            task.add_done_callback(self._noted)

    def _noted(self, task: asyncio.Task[None]) -> None:
        self._notes.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("sensor_close_not_recorded", exc_info=error)

    async def close(self) -> None:
        """Wait for what is still being written."""
        await asyncio.gather(*self._notes, return_exceptions=True)

    async def _note(self, entry: AuditEntry) -> None:
        now = self._now()
        await self._database.write(lambda c: self._audit.append(c, entry, now=now))


def own_pixels(camera: Camera, frame: VideoFrame) -> NDArray[np.uint8]:
    """Pixels that may be overwritten: a copy while somebody else looks through the same camera."""
    return frame.pixels if getattr(camera, "sessions", 1) <= 1 else frame.pixels.copy()


def overwrite(pixels: NDArray[np.uint8]) -> None:
    """A view of somebody else's read-only buffer is left alone."""
    if pixels.flags.writeable:
        pixels.fill(0)
