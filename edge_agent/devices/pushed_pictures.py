"""Pictures that terminals push unasked: a template made in memory, or nothing; the picture is gone either way.

A terminal tells of a person enrolled at it with the picture it compares faces with (BIOPHOTO) or the one it shows
(USERPIC). Where the enterprise switched faces on for that terminal and the person's consent holds, it becomes a
reference like one taken here: the same gates of quality, nobody else's face, stored and searchable under that consent.
A person who has such a reference keeps it: terminals push the same picture again and again.

A snapshot of a punch (ATTPHOTO) is never enrolled. It shows whoever stood there, and would turn one false acceptance
at a terminal into many here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from functools import partial

from device_drivers.adms.messages import PushedPhoto
from edge_agent.biometrics.galleries import Galleries
from edge_agent.biometrics.identification import Identification, wipe
from edge_agent.biometrics.sensing import overwrite
from edge_agent.devices.device_templates import DeviceTemplates
from edge_agent.matching.face import FaceEngine, FaceSample
from edge_agent.matching.images import BadImage, decode_image
from edge_agent.matching.outcomes import Refused
from templates_store.errors import BadTemplate, ConsentMissing, Duplicate, Sealed
from templates_store.store import TemplateStore
from templates_store.template import Consent, Modality, SubjectId, Template, TemplateId

ENROLLED_FROM = frozenset({"biophoto", "userpic"})

log = logging.getLogger(__name__)


class PushedPictures:
    def __init__(
        self,
        *,
        templates: DeviceTemplates,
        store: TemplateStore,
        galleries: Galleries,
        identification: Identification,
        sensor_on: Callable[[str, Modality], bool],
        device_of: Callable[[str], str | None],
    ) -> None:
        self.templates = templates
        self._store = store
        self._galleries = galleries
        self._identification = identification
        self._sensor_on = sensor_on
        self._device_of = device_of

    def wanted(self, serial: str) -> bool:
        """Whether a picture of this terminal is looked at at all."""
        device = self._device_of(serial)
        return (
            device is not None
            and self._sensor_on(device, Modality.FACE)
            and self._identification.face is not None
            and not (self._store.sealed or self._galleries.sealed)
        )

    async def pushed(self, photo: PushedPhoto) -> bool:
        """True if a template was made of it. What was dropped is counted."""
        device = self._device_of(photo.serial) or ""
        made = 0
        if photo.kind in ENROLLED_FROM and self.wanted(photo.serial):
            subject = await self.templates.person(device, photo.name)
            if subject is not None:
                async with self.templates.taking:
                    made = await asyncio.to_thread(self._take, subject, photo)
                if made:
                    await self.templates.note(device, subject, Modality.FACE, made)
        if not made:
            self.templates.pictures_dropped[device or photo.serial] += 1
        return made > 0

    def _take(self, subject: SubjectId, photo: PushedPhoto) -> int:
        """How many templates were stored, one a purpose. Blocks."""
        engine = self._identification.face
        if engine is None:
            return 0
        try:
            consents = [c for c in self.templates.consents(subject, Modality.FACE) if self._lacks(c, engine)]
            sample = self._sample(engine, photo.jpeg) if consents else None
        except (Sealed, BadImage):
            return 0
        if sample is None:
            return 0
        try:
            with self._galleries.enrolling:
                return sum(self._store_one(consent, engine, sample, photo) for consent in consents)
        finally:
            wipe(sample)

    def _lacks(self, consent: Consent, engine: FaceEngine) -> bool:
        held = self._store.templates_of(consent.subject_id, purpose=consent.purpose, modality=Modality.FACE)
        return all(template.format != engine.format for template in held)

    @staticmethod
    def _sample(engine: FaceEngine, picture: bytes) -> FaceSample | None:
        frame = decode_image(picture)
        try:
            sample = engine.reference(frame)
        finally:
            overwrite(frame)
        return None if isinstance(sample, Refused) else sample

    def _store_one(self, consent: Consent, engine: FaceEngine, sample: FaceSample, photo: PushedPhoto) -> bool:
        if self._identification.is_somebody_else(sample, consent.purpose, consent.subject_id):
            log.warning("picture_of_somebody_else subject=%s", consent.subject_id)
            return False
        template = Template(
            TemplateId(secrets.token_hex(16)),
            consent.subject_id,
            Modality.FACE,
            consent.purpose,
            engine.format,
            sample.vector.astype("<f4").tobytes(),
            0,
        )
        with contextlib.suppress(Sealed, ConsentMissing, BadTemplate, Duplicate):
            self.templates.place(consent, photo.serial, f"{photo.name}/face/0")  # it keeps the picture
            since = self._galleries.moment
            self._store.enrol(consent, [template])
            return self._galleries.admit(consent, [template], since=since, held=partial(self._store.holds, [template]))
        return False
