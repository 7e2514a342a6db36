"""The template store in use: its key, the galleries opened from it, the engines, the enterprise's switches.

Without a usable key the agent starts sealed: punches are recorded, cards and PINs open doors, nothing is
matched, and health says why. Erasures that waited for the key are carried out before the galleries open. Engines
are loaded when a modality is switched on, not before: a gateway without biometrics holds no model in memory.

What may not match here may not match on a terminal either: when a consent goes stale or a switch off, the copies that
terminals hold become owed, and the erasure flow takes them off.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.biometrics.galleries import OPAQUE, Galleries
from edge_agent.biometrics.identification import Identification
from edge_agent.config import Keys, SiteConfig
from edge_agent.matching.calibration import (
    Calibration,
    CalibrationError,
    impostor_scores,
    measured_on_site,
    read_table,
    recalibrated,
    shipped_calibration,
    shipped_table,
    write_table,
)
from edge_agent.matching.decision import Targets
from edge_agent.matching.face_engine import engine
from edge_agent.matching.fingerprint import FingerprintEngine
from edge_agent.matching.pipelines import METRICS
from edge_agent.policy.consent import Terms, terms_fault
from edge_agent.policy.retention import Periods
from templates_store.errors import KeyUnavailable
from templates_store.gallery.finger_template import MinutiaeTemplate
from templates_store.gallery.minutiae import MinutiaeGallery
from templates_store.gallery.vectors_basis import Metric
from templates_store.keys.keyring import credential, key_file
from templates_store.keys.passphrase import passphrase
from templates_store.keys.provider import KeyProvider
from templates_store.keys.token import Token
from templates_store.keys.tpm import Tpm
from templates_store.store import TemplateStore
from templates_store.template import Consent, Modality, Purpose

log = logging.getLogger(__name__)

CREDENTIAL = "edge-agent-templates"


def provider_of(keys: Keys, folder: Path) -> KeyProvider | None:
    """The configured key provider; None where a person has to bring the key. Raises KeyUnavailable."""
    match keys.provider:
        case "tpm":
            return Tpm(tcti=keys.options.get("tcti", "device:/dev/tpmrm0"))
        case "pkcs11":
            pin_file = keys.options.get("pin_file", "")
            if not pin_file or keys.path is None:
                raise KeyUnavailable("keys: pkcs11 needs path (the token's library) and options.pin_file")
            try:
                pin = Path(pin_file).read_text("utf-8").strip()
            except OSError as exc:
                raise KeyUnavailable(f"{pin_file} cannot be read: {exc.strerror}") from exc
            return Token(keys.path, label=keys.options.get("label", "edge-agent"), pin=pin)
        case "systemd":
            return credential(CREDENTIAL, ring=folder / "templates.ring")
        case "passphrase":
            return None
        case _:
            return key_file(keys.path or folder / "templates.key")


async def _nothing_waits() -> None: ...


class Biometrics:
    """Shared by entry, enrolment, erasure and the API."""

    def __init__(
        self,
        store: TemplateStore,
        keys: Keys,
        folder: Path,
        *,
        site: Callable[[], SiteConfig],
        now: Callable[[], datetime],
        device_of: Callable[[str], str | None],
    ) -> None:
        self.store = store
        self._now = now
        self.galleries = Galleries(METRICS)
        self.identification = Identification(
            self.galleries, face=None, finger=None, calibration=self._calibration, targets=self._targets
        )
        self.warning = ""
        self.before_opening: Callable[[], Awaitable[object]] = _nothing_waits  # `Erasure.resume`
        self._keys = keys
        self._folder = folder
        self._site = site
        self._device_of = device_of  # the configured device of a serial number
        self._changing = asyncio.Lock()
        self._face_engine = ""  # the name of the one in use
        self._measured: dict[str, Calibration] = {}  # by this site, `edge-agent calibrate`
        self._curves: dict[str, Calibration] = {}

    @classmethod
    def open(
        cls,
        keys: Keys,
        folder: Path,
        *,
        tenant: str,
        site: Callable[[], SiteConfig],
        now: Callable[[], datetime],
        device_of: Callable[[str], str | None] = lambda _serial: None,
    ) -> Biometrics:
        """Open the store, sealed if its key is not to be had. Blocks. Raises RolledBack, SchemaTooNew."""
        provider, reason = None, ""
        try:
            provider = provider_of(keys, folder)
        except KeyUnavailable as exc:
            reason = str(exc)
        store = TemplateStore.open(
            folder / "templates.db", tenant=tenant, keys=provider, anchor=folder / "templates.anchor", now=now
        )
        if reason:
            store.seal_reason = reason
        made = cls(store, keys, folder, site=site, now=now, device_of=device_of)
        made.warning = provider.warning if provider else ""
        return made

    @property
    def sealed(self) -> bool:
        return self.store.sealed

    @property
    def provider(self) -> str:
        return self._keys.provider

    def kek(self) -> str:
        """The name of the key-encryption key in force. Raises Sealed."""
        return self.store.ledger.vault().current

    def curves(self) -> list[Calibration]:
        """Of every pipeline, as they are in force."""
        return [self._calibration(pipeline) for pipeline in sorted(shipped_table())]

    def terms(self) -> Terms:
        """What the enterprise has in force now."""
        site = self._site()
        return Terms(
            switched_on=frozenset(m for m, switch in site.modalities.items() if switch.enabled),
            notice_version=site.privacy.notice_version,
            accepted_versions=frozenset(site.privacy.accepted_notices),
            templates_days=site.retention.templates_days,
            assessment=site.privacy.impact_assessment,
            high_risk=site.privacy.high_risk,
            minor_age=site.privacy.minor_age,
        )

    def sensor_on(self, device: str, modality: Modality) -> bool:
        """Whether the enterprise switched this modality on for this device."""
        found = next((d for d in self._site().devices if d.name == device), None)
        return found is not None and modality in found.biometrics

    async def follow(self) -> None:
        """Bring the configured switches into force, in the store as well, and load what they need."""
        async with self._changing:
            if self.store.sealed:
                log.warning("templates_sealed reason=%s", self.store.seal_reason)
                return
            await asyncio.to_thread(self._switch)
            await asyncio.to_thread(self._outdate)
            await asyncio.to_thread(self._read_measured)
            await self._load_engines()
            if self.galleries.sealed:
                await self.before_opening()
                count = await asyncio.to_thread(self.galleries.load, self.store)
                log.info("templates_open count=%d", count)

    async def unseal(self, words: str) -> None:
        """With a keeper's passphrase. Raises KeyUnavailable if it does not open this store, RolledBack."""
        provider = await asyncio.to_thread(partial(passphrase, words, ring=self._folder / "templates.ring"))
        await asyncio.to_thread(self.store.unseal, provider)
        await self.follow()

    def renew(self, consent: Consent) -> int:
        """A later consent on record; stale templates that it covers match again. How many. Blocks. Raises Sealed."""
        since = self.galleries.moment
        self.store.renew(consent)
        templates = self.store.templates_of(consent.subject_id, purpose=consent.purpose, modality=consent.modality)
        kept = self.galleries.admit(consent, templates, since=since, held=partial(self.store.holds, templates))
        return len(templates) if kept else 0

    async def keep_house(self, periods: Periods) -> None:
        """Chunks for the next start, erasures that a reader held up, copies that became known to be disallowed,
        receipts past their time."""
        if self.store.sealed:
            return
        await asyncio.to_thread(self._recall)
        await asyncio.to_thread(self.store.pack)
        await asyncio.to_thread(self.store.finish_erasures)
        await asyncio.to_thread(self.store.forget, self._now() - timedelta(days=periods.receipt))

    def calibrate(self) -> list[Calibration]:
        """Measure how alike this site's own people are; thresholds rise where they are more alike. Blocks.

        A pipeline with too few people to say anything stays as it was shipped. Raises Sealed.
        """
        found = {}
        for modality, purpose in itertools.product((Modality.FACE, Modality.FINGERPRINT), Purpose):
            for pipeline in self.store.pipelines(modality, purpose):
                if pipeline.startswith(OPAQUE) or pipeline in found:
                    continue
                scores, comparisons = self._strangers(modality, purpose, pipeline)
                try:
                    curve = measured_on_site(pipeline, scores, comparisons=comparisons)
                except CalibrationError as exc:
                    log.info("calibration_kept pipeline=%s reason=%s", pipeline, exc)
                else:
                    found[pipeline] = curve
        if found:
            write_table(self._folder / "calibration.json", found.values())
            self._read_measured()
        return list(found.values())

    def _strangers(self, modality: Modality, purpose: Purpose, pipeline: str) -> tuple[NDArray[np.float32], int]:
        """Scores between different people of one gallery, and how many comparisons they come from."""
        chunks = list(self.store.load(modality, purpose, pipeline))
        subjects = [subject for chunk in chunks for subject in chunk.subject_ids]
        vectors = [chunk.vectors for chunk in chunks if chunk.vectors is not None]
        if vectors:
            metric = METRICS.get(pipeline, Metric.COSINE)
            return impostor_scores(np.concatenate(vectors), subjects, metric=metric)
        gallery = MinutiaeGallery()
        gallery.add_all(
            (subject, template, MinutiaeTemplate.decode(payload))
            for chunk in chunks
            for subject, template, payload in zip(chunk.subject_ids, chunk.template_ids, chunk.payloads, strict=True)
        )
        scores = np.asarray(gallery.impostor_scores(), np.float32)
        return scores, len(scores)

    def close(self) -> None:
        self.galleries.seal()
        self.store.close()

    def _switch(self) -> None:
        configured = self._site().modalities
        for modality in Modality:
            wanted = modality in configured and configured[modality].enabled
            if self.store.enabled(modality) != wanted:
                self.store.set_modality(modality, enabled=wanted, actor="configuration")
                if wanted:
                    self.galleries.seal()  # loaded anew below: what was off when they were is not in them

    def _outdate(self) -> None:
        """Consents on notices that are no longer accepted become stale, at a change and after a restore.

        Copies on terminals that rest on them, or on a switch that went off, become owed.
        """
        terms = self.terms()
        if terms.notice_version:
            accepted = terms.accepted_versions | {terms.notice_version}
            if self.store.mark_stale(accepted_versions=accepted):
                self.galleries.seal()  # loaded anew below, without them
        self._recall()

    def _recall(self) -> None:
        """Copies that nothing allows any more become owed. Those of a device unknown here wait until it is known."""
        terms = self.terms()
        on = {modality for modality in Modality if terms_fault(modality, terms) is None}

        @cache
        def sensor_on(serial: str, modality: Modality) -> bool:
            device = self._device_of(serial)
            return device is None or self.sensor_on(device, modality)

        count = self.store.recall(lambda each: each.modality in on and sensor_on(each.device_serial, each.modality))
        if count:
            log.info("copies_recalled count=%d", count)

    async def _load_engines(self) -> None:
        configured = self._site().modalities
        face, finger = configured.get(Modality.FACE), configured.get(Modality.FINGERPRINT)
        if face is not None and face.enabled and self._face_engine != face.engine:
            self.identification.face = await asyncio.to_thread(engine, face.engine)
            self._face_engine = face.engine
        if finger is not None and finger.enabled and self.identification.finger is None:
            self.identification.finger = await asyncio.to_thread(FingerprintEngine)

    def _targets(self, modality: Modality) -> Targets:
        switch = self._site().modalities.get(modality)
        return Targets(fpir=switch.target_fpir) if switch else Targets()

    def _calibration(self, pipeline: str) -> Calibration:
        """Shipped, and where the site measured its own gallery, the stricter of both."""
        if pipeline not in self._curves:
            shipped, site = shipped_calibration(pipeline), self._measured.get(pipeline)
            self._curves[pipeline] = recalibrated(shipped, site) if site else shipped
        return self._curves[pipeline]

    def _read_measured(self) -> None:
        path = self._folder / "calibration.json"
        self._measured = read_table(path) if path.exists() else {}
        self._curves = {}
