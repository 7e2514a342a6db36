"""Enrolment, guided: consent -> samples with reasons -> they agree -> nobody else has them -> stored -> searchable.

Consent is required before it begins, before a sensor opens, at every sample and again before anything is stored.
Samples live in memory until the enrolment ends, at the latest after `LIFETIME_S`; images are overwritten as soon as
they were looked at. There is one enrolment at a time for a person and modality, and few in all. An erasure ends those
that it concerns (`stop`).

Whether somebody else has the face is asked and answered by storing it under one lock: of two people who come with one
face at the same time, the second is refused.

The same samples may serve several purposes if the person agreed to each; they are stored apart, each under its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_drivers.devices import Camera, FingerprintReader
from device_drivers.errors import LinkTimeout
from edge_agent.audit import AuditLog
from edge_agent.audit import Entry as AuditEntry
from edge_agent.biometrics.galleries import Galleries
from edge_agent.biometrics.identification import Identification, Sample, wipe
from edge_agent.biometrics.sensing import DEFAULT_DPI, FINGER_TIMEOUT_S, overwrite, own_pixels
from edge_agent.database import Database
from edge_agent.delivery.event import Event, append
from edge_agent.matching.agreement import agreed
from edge_agent.matching.face import FaceSample
from edge_agent.matching.fingerprint import FingerSample
from edge_agent.matching.images import decode_image
from edge_agent.matching.outcomes import Check, CheckName, Refused
from edge_agent.policy.consent import Act, ConsentRefused, Terms, require
from templates_store.errors import Sealed
from templates_store.store import TemplateStore
from templates_store.template import (
    Consent,
    Modality,
    Purpose,
    SubjectId,
    Template,
    TemplateFormat,
    TemplateId,
)

MAX_OPEN = 8
LIFETIME_S = 300.0
FACE_SAMPLES = 3
FINGER_SAMPLES = 3
FACE_APART_S = 0.5  # between samples of one camera: neighbouring frames show the same moment
CAPTURE_S = 60.0


class EnrolmentFault(StrEnum):
    """Why an enrolment cannot begin or end."""

    TOO_MANY = "too_many_enrolments"
    UNDER_WAY = "already_under_way"
    NOT_FOUND = "no_such_enrolment"
    UNSUPPORTED = "modality_not_supported"
    NOT_READY = "more_samples_needed"
    SAMPLES_DISAGREE = "samples_disagree"
    SOMEBODY_ELSE = "already_somebody_else"
    SEALED = "sealed"
    NO_SENSOR = "no_sensor"
    UNKNOWN = "unknown"


WORDS = {
    EnrolmentFault.TOO_MANY: f"{MAX_OPEN} enrolments are open; finish or cancel one",
    EnrolmentFault.UNDER_WAY: "an enrolment of this person and modality is open already",
    EnrolmentFault.NOT_FOUND: "there is no such enrolment; it may have run out of time",
    EnrolmentFault.UNSUPPORTED: "no engine for this modality is installed",
    EnrolmentFault.NOT_READY: "more samples are needed before it can be finished",
    EnrolmentFault.SAMPLES_DISAGREE: "the samples do not show one person or one finger; begin again",
    EnrolmentFault.SOMEBODY_ELSE: "these samples belong to somebody who is enrolled already",
    EnrolmentFault.SEALED: "the template store is sealed; unseal it first",
    EnrolmentFault.NO_SENSOR: "the sensor is not connected, or switched off for this modality",
    EnrolmentFault.UNKNOWN: "this person is not on record any more",
}


class EnrolmentRefused(Exception):
    """Nothing was stored."""

    def __init__(self, fault: EnrolmentFault) -> None:
        super().__init__(WORDS[fault])
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Step:
    """What one sample came to, and how far the enrolment is."""

    enrolment_id: str
    accepted: bool
    have: int
    need: int
    refused: Refused | None = None
    checks: tuple[Check, ...] = ()  # every figure of this sample beside its limit
    lift: bool = False  # the finger has to leave the sensor before the next sample

    @property
    def ready(self) -> bool:
        return self.have >= self.need


@dataclass(slots=True)
class _Open:
    enrolment_id: str
    acts: tuple[Act, ...]  # one a purpose
    need: int
    position: int
    actor: str
    ends_at: float  # monotonic
    samples: list[Sample] = field(default_factory=list, repr=False)
    busy: bool = False  # a sensor works for it
    finishing: bool = False  # its samples are being compared and stored
    latest: Step | None = None  # what the newest sample came to

    @property
    def subject_id(self) -> SubjectId:
        return self.acts[0].subject_id

    @property
    def modality(self) -> Modality:
        return self.acts[0].modality

    def step(self, *, accepted: bool, refused: Refused | None = None, checks: Sequence[Check] = ()) -> Step:
        return Step(self.enrolment_id, accepted, len(self.samples), self.need, refused, tuple(checks))


class Enrolment:
    """The flow, for the API and the command line alike."""

    def __init__(
        self,
        *,
        database: Database,
        store: TemplateStore,
        galleries: Galleries,
        identification: Identification,
        audit: AuditLog,
        terms: Callable[[], Terms],
        sensor_on: Callable[[str, Modality], bool],
        driver: Callable[[str], object | None],
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        enrolled: Callable[[SubjectId], Awaitable[None]],
    ) -> None:
        self._database = database
        self._store = store
        self._galleries = galleries
        self._identification = identification
        self._audit = audit
        self._terms = terms
        self._sensor_on = sensor_on
        self._driver = driver
        self._now = now
        self._monotonic = monotonic
        self._enrolled = enrolled  # devices that match by themselves may want copies
        self._open: dict[str, _Open] = {}

    # Steps

    async def start(self, acts: Sequence[Act], *, actor: str, position: int = 0, samples: int | None = None) -> Step:
        """One person, one modality, one act for each purpose. Raises ConsentRefused, EnrolmentRefused, ValueError."""
        if not acts or len({(act.subject_id, act.modality) for act in acts}) > 1:
            raise ValueError("acts: one person and one modality")
        if len({act.purpose for act in acts}) < len(acts):
            raise ValueError("acts: each purpose once")
        first = acts[0]
        if first.modality is Modality.FINGERPRINT and not 1 <= position <= 10:
            raise ValueError(
                f"position: {position}; allowed are the fingers 1 (right thumb) to 10 (left little finger)"
            )
        for act in acts:
            require(act, self._terms(), now=self._now())
        if self._store.sealed or self._galleries.sealed:
            raise EnrolmentRefused(EnrolmentFault.SEALED)
        if not self._identification.supports(first.modality):
            raise EnrolmentRefused(EnrolmentFault.UNSUPPORTED)
        self._forget_old()
        for other in self._open.values():
            if (other.subject_id, other.modality) == (first.subject_id, first.modality):
                raise EnrolmentRefused(EnrolmentFault.UNDER_WAY)
        if len(self._open) >= MAX_OPEN:
            raise EnrolmentRefused(EnrolmentFault.TOO_MANY)
        usual = FACE_SAMPLES if first.modality is Modality.FACE else FINGER_SAMPLES
        need = usual if samples is None else samples
        if not 1 <= need <= 10:
            raise ValueError(f"samples: {need}; allowed are 1 to 10")
        found = _Open(secrets.token_hex(8), tuple(acts), need, position, actor, ends_at=self._monotonic() + LIFETIME_S)
        self._open[found.enrolment_id] = found
        await self._note(actor, "enrolment.start", found)
        return found.step(accepted=True)

    async def offer_frame(self, enrolment_id: str, frame: NDArray[np.uint8]) -> Step:
        """One camera frame, BGR; overwritten here. Raises ConsentRefused, EnrolmentRefused."""
        try:
            found = self._agreed(enrolment_id)
            engine = self._identification.face
            if found.modality is not Modality.FACE or engine is None:
                raise EnrolmentRefused(EnrolmentFault.UNSUPPORTED)
            sample = await asyncio.to_thread(engine.reference, frame)
        finally:
            overwrite(frame)
        return self._take(found, sample)

    async def offer_photo(self, enrolment_id: str, data: bytes) -> Step:
        """An uploaded photograph, in memory alone. Raises BadImage, ConsentRefused, EnrolmentRefused."""
        self._agreed(enrolment_id)
        return await self.offer_frame(enrolment_id, await asyncio.to_thread(decode_image, data))

    async def offer_finger(self, enrolment_id: str, image: NDArray[np.uint8], *, dpi: float) -> Step:
        """One grey impression; overwritten here. Raises ConsentRefused, EnrolmentRefused."""
        try:
            found = self._agreed(enrolment_id)
            if found.modality is not Modality.FINGERPRINT:
                raise EnrolmentRefused(EnrolmentFault.UNSUPPORTED)
            sample = await asyncio.to_thread(self._identification.finger_sample, image, dpi=dpi)
        finally:
            overwrite(image)
        return self._take(found, sample)

    async def capture(
        self, enrolment_id: str, device: str, *, progress: Callable[[Step], Awaitable[None]] | None = None
    ) -> Step:
        """Let a camera or a fingerprint sensor give the samples. Raises ConsentRefused, EnrolmentRefused, DeviceError.

        Ends when there are enough, or after CAPTURE_S with what there is.
        """
        found = self._agreed(enrolment_id)
        sensor = self._driver(device)
        wanted: type = Camera if found.modality is Modality.FACE else FingerprintReader
        if not self._sensor_on(device, found.modality) or not isinstance(sensor, wanted):
            raise EnrolmentRefused(EnrolmentFault.NO_SENSOR)
        if found.busy:
            raise EnrolmentRefused(EnrolmentFault.UNDER_WAY)
        found.busy = True
        await self._note(found.actor, "sensor.open", found, place=device)
        try:
            async with asyncio.timeout(CAPTURE_S):
                if isinstance(sensor, Camera):
                    await self._from_camera(found, sensor, progress)
                elif isinstance(sensor, FingerprintReader):
                    await self._from_reader(found, sensor, progress)
        except TimeoutError:
            pass
        finally:
            found.busy = False
            await asyncio.shield(self._note(found.actor, "sensor.close", found, place=device))
        return found.latest or found.step(accepted=False)

    async def _from_camera(
        self, found: _Open, camera: Camera, progress: Callable[[Step], Awaitable[None]] | None
    ) -> None:
        taken_at = -math.inf
        async with camera.frames() as frames:
            async for frame in frames:
                pixels = own_pixels(camera, frame)
                if frame.taken_at < taken_at + FACE_APART_S:
                    overwrite(pixels)
                    self._agreed(found.enrolment_id)
                    continue
                step = await self.offer_frame(found.enrolment_id, pixels)
                taken_at = frame.taken_at if step.accepted else taken_at
                if progress is not None:
                    await progress(step)
                if step.ready:
                    return

    async def _from_reader(
        self, found: _Open, reader: FingerprintReader, progress: Callable[[Step], Awaitable[None]] | None
    ) -> None:
        dpi = float(getattr(reader, "dpi", DEFAULT_DPI))
        while len(found.samples) < found.need:
            self._agreed(found.enrolment_id)
            try:
                image = await reader.capture(timeout_s=FINGER_TIMEOUT_S)
            except LinkTimeout:
                continue
            step = await self.offer_finger(found.enrolment_id, image, dpi=dpi)
            if progress is not None:
                await progress(step)
            if not step.ready:
                await self._lifted(found, reader, step)

    async def _lifted(self, found: _Open, reader: FingerprintReader, step: Step) -> None:
        """Wait for the finger to leave: a resting one would give the same impression again, and nothing to compare."""
        found.latest = replace(step, lift=True)
        while found.latest.lift:
            with contextlib.suppress(LinkTimeout):
                await reader.lifted(timeout_s=FINGER_TIMEOUT_S)
                found.latest = step

    async def finish(self, enrolment_id: str) -> list[Consent]:
        """Compare, store, make searchable, tell upstream. Raises ConsentRefused, EnrolmentRefused, StoreError.

        Whatever it ends in, the samples are gone afterwards.
        """
        found = self._find(enrolment_id)
        if len(found.samples) < found.need:
            raise EnrolmentRefused(EnrolmentFault.NOT_READY)
        if found.finishing:
            raise EnrolmentRefused(EnrolmentFault.UNDER_WAY)
        found.finishing = True
        try:
            payloads, kind = await asyncio.to_thread(self._payloads, found)
            now = self._now()
            consents = [require(act, self._terms(), now=now) for act in found.acts]
            if not await self._database.read(lambda c: _on_record(c, found.subject_id)):
                raise EnrolmentRefused(EnrolmentFault.UNKNOWN)
            people = [(consent, _templates(consent, payloads, kind, found.position)) for consent in consents]
            if not await asyncio.to_thread(self._stored, found, people):
                raise EnrolmentRefused(EnrolmentFault.NOT_FOUND)
        except Sealed:
            raise EnrolmentRefused(EnrolmentFault.SEALED) from None
        finally:
            found.finishing = False
            self._drop(found)
        await self._tell(found, consents, kind, now)
        await self._enrolled(found.subject_id)
        return consents

    def _stored(self, found: _Open, people: Sequence[tuple[Consent, Sequence[Template]]]) -> bool:
        """In one transaction, then searchable; False if an erasure came first or took it back in between. Blocks."""
        with self._galleries.enrolling:
            if self._open.get(found.enrolment_id) is not found:
                return False
            if any(self._somebody_else(found, consent.purpose) for consent, _ in people):
                raise EnrolmentRefused(EnrolmentFault.SOMEBODY_ELSE)
            since = self._galleries.moment
            self._store.enrol_many(people)
            admitted = [
                self._galleries.admit(consent, templates, since=since, held=partial(self._store.holds, templates))
                for consent, templates in people
            ]
            return all(admitted)

    async def cancel(self, enrolment_id: str) -> None:
        """Nothing was stored, and nothing says that somebody changed their mind."""
        found = self._open.get(enrolment_id)
        if found is not None:
            self._drop(found)

    def stop(self, subject: SubjectId, *, modality: Modality | None = None, purpose: Purpose | None = None) -> None:
        """The person's enrolments that an erasure concerns end here, with every purpose of theirs."""
        for found in [f for f in self._open.values() if f.subject_id == subject]:
            if modality in (None, found.modality) and any(purpose in (None, act.purpose) for act in found.acts):
                self._drop(found)

    def state(self, enrolment_id: str) -> Step:
        """How far it is, and what the newest sample came to, whoever gave it: a sensor of the gateway too."""
        found = self._find(enrolment_id)
        return found.latest or found.step(accepted=True)

    # Samples

    def _take(self, found: _Open, sample: Sample | Refused) -> Step:
        if self._open.get(found.enrolment_id) is not found:  # cancelled meanwhile
            raise EnrolmentRefused(EnrolmentFault.NOT_FOUND)
        found.latest = self._judged(found, sample)
        return found.latest

    def _judged(self, found: _Open, sample: Sample | Refused) -> Step:
        if isinstance(sample, FingerSample) and sample.doubt is not None:
            sample = sample.doubt
        if isinstance(sample, Refused):
            return found.step(accepted=False, refused=sample, checks=sample.checks)
        made = list(sample.checks)
        if len(found.samples) < found.need:
            if (agreement := self._agreement(found, sample)) is not None:
                made.append(agreement)
                if not agreement.ok:
                    return found.step(accepted=False, refused=agreement.refused(made), checks=made)
            found.samples.append(sample)
        return found.step(accepted=True, checks=made)

    def _agreement(self, found: _Open, sample: Sample) -> Check | None:
        """A sample of somebody else is refused when it comes, not at the end."""
        if not found.samples:
            return None
        threshold = self._identification.thresholds_of(sample).verify
        scores = [self._identification.similarity(sample, earlier) for earlier in found.samples]
        worst = min(scores) if found.modality is Modality.FACE else max(scores)
        return Check(CheckName.AGREEMENT, worst, threshold)

    def _payloads(self, found: _Open) -> tuple[list[bytes], TemplateFormat]:
        """Faces: one reference, the mean of samples that agree. Fingers: each impression is kept."""
        fingers = [sample for sample in found.samples if isinstance(sample, FingerSample)]
        if fingers:
            return [sample.template.encode() for sample in fingers], fingers[0].format
        engine = self._identification.face
        if engine is None:
            raise EnrolmentRefused(EnrolmentFault.UNSUPPORTED)
        vectors = [sample.vector for sample in found.samples if isinstance(sample, FaceSample)]
        threshold = self._identification.thresholds_of(found.samples[0]).verify
        reference = agreed(vectors, metric=engine.metric, threshold=threshold)
        if isinstance(reference, Refused):
            raise EnrolmentRefused(EnrolmentFault.SAMPLES_DISAGREE)
        return [reference.astype("<f4").tobytes()], engine.format

    def _somebody_else(self, found: _Open, purpose: Purpose) -> bool:
        """Would any sample be taken for another person of this gallery?"""
        return any(self._identification.is_somebody_else(s, purpose, found.subject_id) for s in found.samples)

    # Records

    async def _tell(self, found: _Open, consents: list[Consent], kind: TemplateFormat, now: datetime) -> None:
        data: dict[str, Any] = {
            "modality": found.modality,
            "purposes": sorted(consent.purpose for consent in consents),
            "samples": found.need,
            "pipeline": kind.pipeline,
            "notice_version": consents[0].notice_version,
        }
        event = Event(f"enrolled:{found.enrolment_id}", "subject.enrolled", now, "", found.subject_id, data)
        audit = AuditEntry(found.actor, "enrolment.finish", found.subject_id, details={"modality": found.modality})

        def work(connection: sqlite3.Connection) -> None:
            append(connection, [event], now=now)
            self._audit.append(connection, audit, now=now)

        await self._database.write(work)

    async def _note(self, actor: str, action: str, found: _Open, *, place: str = "") -> None:
        entry = AuditEntry(actor, action, place or found.subject_id, details={"modality": found.modality})
        now = self._now()
        await self._database.write(lambda c: self._audit.append(c, entry, now=now))

    def _find(self, enrolment_id: str) -> _Open:
        self._forget_old()
        try:
            return self._open[enrolment_id]
        except KeyError:
            raise EnrolmentRefused(EnrolmentFault.NOT_FOUND) from None

    def _agreed(self, enrolment_id: str) -> _Open:
        """What the person agreed to is allowed still; otherwise the enrolment ends. Raises ConsentRefused as well."""
        found = self._find(enrolment_id)
        try:
            for act in found.acts:
                require(act, self._terms(), now=self._now())
        except ConsentRefused:
            self._drop(found)
            raise
        return found

    def _forget_old(self) -> None:
        for found in [f for f in self._open.values() if self._monotonic() >= f.ends_at and not (f.busy or f.finishing)]:
            self._drop(found)

    def _drop(self, found: _Open) -> None:
        self._open.pop(found.enrolment_id, None)
        if found.finishing:
            return  # a thread reads the samples; they go when it is done, whatever it finds
        for sample in found.samples:
            if isinstance(sample, FaceSample):
                wipe(sample)
        found.samples.clear()


def _on_record(connection: sqlite3.Connection, subject: SubjectId) -> bool:
    return connection.execute("SELECT 1 FROM people WHERE subject = ?", (subject,)).fetchone() is not None


def _templates(consent: Consent, payloads: list[bytes], kind: TemplateFormat, position: int) -> list[Template]:
    return [
        Template(
            TemplateId(secrets.token_hex(16)),
            consent.subject_id,
            consent.modality,
            consent.purpose,
            kind,
            payload,
            position,
        )
        for payload in payloads
    ]
