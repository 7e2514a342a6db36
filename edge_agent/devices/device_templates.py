"""Templates that terminals make by themselves: kept only with switch and consent, given only to their like.

A terminal's template is opaque here. It is stored sealed under the person's own key, as `device:<algorithm>`, with
the place it came from; a withdrawal then knows where to delete. Another terminal gets it only if it names the same
algorithm and version, and only of people who agreed to everything that a match there is used for: attendance, access,
or both. Whatever comes without the modality switched on for that device, or without a valid consent, is
dropped and counted; the terminal keeps its own copy, which nobody here put there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, runtime_checkable

from device_drivers.devices import Capabilities, DeviceTemplate, ItemResult
from device_drivers.errors import DeviceRefused, Unsupported
from edge_agent.audit import AuditLog, Entry
from edge_agent.biometrics.galleries import OPAQUE
from edge_agent.config import SiteConfig
from edge_agent.database import Database
from edge_agent.people.roster import Roster
from edge_agent.policy.consent import ConsentRefused, Terms, on_record
from templates_store.errors import BadTemplate, ConsentMissing, Duplicate, Sealed
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

MODALITIES = {modality.value: modality for modality in (Modality.FACE, Modality.FINGERPRINT)}
MAX_HELD = 32  # of one person, modality and purpose
DURESS = 0x8000  # added to the position of a duress finger

log = logging.getLogger(__name__)


@runtime_checkable
class TemplateKeeper(Protocol):
    """A driver of a terminal that gives and takes templates."""

    async def templates(self, user_id: str) -> list[DeviceTemplate]: ...
    async def put_templates(self, templates: Sequence[DeviceTemplate]) -> list[ItemResult]: ...


@dataclass(frozen=True, slots=True)
class Gift:
    """One template that a terminal lacks, and the consents it rests on."""

    template: DeviceTemplate
    template_id: TemplateId
    consents: tuple[Consent, ...] = field(repr=False)

    @property
    def key(self) -> str:
        return slot_of(self.template)


class DeviceTemplates:
    """`device_of` names the configured device of a serial number, `purposes` tells what a match on one is used for."""

    def __init__(
        self,
        *,
        database: Database,
        store: TemplateStore,
        roster: Roster,
        audit: AuditLog,
        terms: Callable[[], Terms],
        sensor_on: Callable[[str, Modality], bool],
        device_of: Callable[[str], str | None],
        purposes: Callable[[str], frozenset[Purpose]],
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._store = store
        self._roster = roster
        self._audit = audit
        self._terms = terms
        self._sensor_on = sensor_on
        self._device_of = device_of
        self._purposes = purposes
        self._now = now
        self.dropped: Counter[str] = Counter()  # by device, since the last audit row
        self.pictures_dropped: Counter[str] = Counter()
        self.taking = asyncio.Lock()  # one push at a time: the same template may come from two terminals

    # From a terminal

    async def pushed(self, serial: str, templates: Sequence[DeviceTemplate]) -> None:
        """Keep what may be kept; the rest is dropped and counted."""
        device = self._device_of(serial) or ""
        people: dict[tuple[str, str], list[DeviceTemplate]] = defaultdict(list)
        for template in templates:
            people[template.user_id, template.modality].append(template)
        for (user_id, kind), found in people.items():
            kept = 0
            modality = MODALITIES.get(kind)
            if device and modality is not None and self._sensor_on(device, modality):
                subject = await self.person(device, user_id)
                if subject is not None:
                    async with self.taking:
                        kept, new = await asyncio.to_thread(self._take, subject, modality, serial, found)
                    if new:
                        await self.note(device, subject, modality, new)
            if kept < len(found):
                self.dropped[device or serial] += len(found) - kept

    async def audit_drops(self) -> None:
        """One row a device for what was dropped since the last call."""
        counts = {"templates.dropped": self.dropped.copy(), "pictures.dropped": self.pictures_dropped.copy()}
        if not any(counts.values()):
            return
        now = self._now()

        def work(connection: sqlite3.Connection) -> None:
            for action, dropped in counts.items():
                for device, count in dropped.items():
                    self._audit.append(connection, Entry("agent", action, device, details={"count": count}), now=now)

        await self._database.write(work)
        self.dropped -= counts["templates.dropped"]
        self.pictures_dropped -= counts["pictures.dropped"]

    def _take(
        self, subject: SubjectId, modality: Modality, serial: str, found: Sequence[DeviceTemplate]
    ) -> tuple[int, int]:
        """(kept or held already, newly kept). Blocks."""
        kept: set[int] = set()
        new: set[int] = set()
        for consent in self.consents(subject, modality):
            try:
                held = self._store.templates_of(subject, purpose=consent.purpose, modality=modality)
            except Sealed:
                return 0, 0
            known = {(t.format.pipeline, t.position, t.payload) for t in held if t.format.pipeline.startswith(OPAQUE)}
            for number, template in enumerate(found):
                made = _stored(template, consent)
                fresh = (made.format.pipeline, made.position, made.payload) not in known
                if fresh and len(known) >= MAX_HELD:
                    continue
                # Not kept: the terminal still owes the erasure of an earlier copy, or the bytes are no template.
                with contextlib.suppress(Sealed, ConsentMissing, BadTemplate, Duplicate):
                    self.place(consent, serial, slot_of(template))
                    if fresh:
                        self._store.enrol(consent, [made])
                        known.add((made.format.pipeline, made.position, made.payload))
                        new.add(number)
                    kept.add(number)
        return len(kept), len(new)

    # To a terminal

    async def lacking(
        self, device: str, keeper: TemplateKeeper, able: Capabilities, numbers: Mapping[str, SubjectId], *, serial: str
    ) -> tuple[list[Gift], list[ItemResult]]:
        """What `device` should get, and what does not fit. `numbers`: who is on it, by the device's own number.

        What the terminal has of people who consented is kept on the way. Raises DeviceError.
        """
        algorithms = {a for a in (able.finger_algorithm, able.face_algorithm) if a}
        switched_on = [m for m in MODALITIES.values() if self._sensor_on(device, m)]
        purposes = self._purposes(device)
        gifts: list[Gift] = []
        there_of: Counter[str] = Counter()
        if not algorithms or not switched_on or self._store.sealed:
            return [], []
        for user_id, subject in numbers.items():
            consents = {m: await asyncio.to_thread(self.consents, subject, m) for m in switched_on}
            if not any(consents.values()):
                continue
            try:
                there = await keeper.templates(user_id)
            except (DeviceRefused, Unsupported):
                there = []
            there_of.update(template.modality for template in there)
            await self.pushed(serial, [t for t in there if consents.get(MODALITIES.get(t.modality, Modality.IRIS))])
            present = {(t.modality, t.index, t.algorithm) for t in there}
            for modality, found in consents.items():
                given = [consent for consent in found if consent.purpose in purposes]
                if {consent.purpose for consent in given} != purposes:
                    continue
                for gift in await asyncio.to_thread(self._gifts, user_id, modality, given, algorithms):
                    at = gift.template
                    if (at.modality, at.index, at.algorithm) not in present:
                        gifts.append(gift)
        return _fitting(gifts, there_of, able)

    async def give(self, serial: str, keeper: TemplateKeeper, gift: Gift) -> ItemResult:
        """The place is written down first and stays whatever comes of it: a needless deletion harms nobody.

        Raises DeviceError.
        """
        try:
            for consent in gift.consents:
                await asyncio.to_thread(self.place, consent, serial, gift.key, gift.template_id)
        except (Sealed, ConsentMissing, Duplicate) as exc:
            return ItemResult(gift.key, ok=False, reason=str(exc))
        results = await keeper.put_templates([gift.template])
        fault = next((result.reason or "refused" for result in results if not result.ok), "")
        return ItemResult(gift.key, ok=not fault, reason=fault)

    def _gifts(self, user_id: str, modality: Modality, consents: Sequence[Consent], algorithms: set[str]) -> list[Gift]:
        """The newest template of each place, of algorithms the terminal names. Blocks."""
        found: dict[tuple[str, int], Gift] = {}
        for consent in consents:
            try:
                held = self._store.templates_of(consent.subject_id, purpose=consent.purpose, modality=modality)
            except Sealed:
                return []
            for template in held:
                algorithm = template.format.pipeline.removeprefix(OPAQUE)
                if template.format.pipeline.startswith(OPAQUE) and algorithm in algorithms:
                    sent = _sent(template, user_id, algorithm)
                    found[algorithm, sent.index] = Gift(sent, template.template_id, tuple(consents))
        return list(found.values())

    def consents(self, subject: SubjectId, modality: Modality) -> list[Consent]:
        """Those that hold now. Blocks."""
        found = []
        for stored in self._store.consents(subject):
            if stored.modality is modality:
                with contextlib.suppress(ConsentRefused):
                    found.append(on_record(stored, self._terms(), now=self._now()))
        return found

    def place(self, consent: Consent, serial: str, slot: str, template_id: TemplateId | None = None) -> int:
        """Write down that a terminal holds something of the person: a withdrawal deletes it there. Blocks.

        Raises Sealed, ConsentMissing, Duplicate.
        """
        return self._store.add_placement(
            consent.subject_id,
            consent.modality,
            consent.purpose,
            device_serial=serial,
            slot=slot,
            template_id=template_id,
        )

    async def person(self, device: str, user_id: str) -> SubjectId | None:
        found = await self._database.read(lambda c: self._roster.subject_of(c, device=device, user_id=user_id))
        return SubjectId(found) if found else None

    async def note(self, device: str, subject: SubjectId, modality: Modality, count: int) -> None:
        details = {"modality": modality.value, "count": count, "device": device}
        entry = Entry("agent", "templates.stored", subject, details=details, subject=subject)
        await self._database.write(lambda c: self._audit.append(c, entry, now=self._now()))
        log.info("device_templates_stored device=%s modality=%s count=%d", device, modality.value, count)


def _fitting(gifts: list[Gift], there: Counter[str], able: Capabilities) -> tuple[list[Gift], list[ItemResult]]:
    """As many as the terminal's limits leave room for, beside what it holds of the same people."""
    limits = {"fingerprint": able.max_finger_templates, "face": able.max_face_templates}
    taken, fits, refused = Counter(there), [], []
    for gift in gifts:
        modality = gift.template.modality
        limit = limits.get(modality)
        if limit is not None and taken[modality] >= limit:
            refused.append(ItemResult(gift.key, ok=False, reason=f"the device is full: it holds {limit} templates"))
            continue
        taken[modality] += 1
        fits.append(gift)
    return fits, refused


def purposes_of(device: str, site: SiteConfig) -> frozenset[Purpose]:
    """What a terminal uses a match for: it opens a door by itself, its punches are working time, or both."""
    access = any(door.device == device for door in site.access.doors)
    attendance = any(found.name == device and found.attendance for found in site.devices)
    return frozenset(purpose for purpose, used in ((Purpose.ACCESS, access), (Purpose.ATTENDANCE, attendance)) if used)


def slot_of(template: DeviceTemplate) -> str:
    return f"{template.user_id}/{template.modality}/{template.index}"


def _stored(template: DeviceTemplate, consent: Consent) -> Template:
    return Template(
        TemplateId(secrets.token_hex(16)),
        consent.subject_id,
        consent.modality,
        consent.purpose,
        TemplateFormat(OPAQUE + template.algorithm),
        template.payload,
        position_of(template.index, consent.modality) + (DURESS if template.duress else 0),
    )


def _sent(template: Template, user_id: str, algorithm: str) -> DeviceTemplate:
    place = template.position & ~DURESS
    return DeviceTemplate(
        user_id,
        template.modality.value,
        index_of(place, template.modality),
        algorithm,
        template.payload,
        duress=bool(template.position & DURESS),
    )


def position_of(index: int, modality: Modality) -> int:
    """ZK counts fingers from the left little finger (0) to the right one (9); ISO 19794-2 from the right thumb (1)
    to the little finger (5), then from the left thumb (6). Other slots keep their number above the fingers."""
    if modality is not Modality.FINGERPRINT:
        return index
    if index > 9:
        return index + 1
    return 10 - index if index < 5 else index - 4


def index_of(position: int, modality: Modality) -> int:
    if modality is not Modality.FINGERPRINT:
        return position
    if position > 10:
        return position - 1
    return 10 - position if position > 5 else position + 4
