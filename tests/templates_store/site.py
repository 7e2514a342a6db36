"""A store in a folder with a clock that is set by hand, and people to put into it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from templates_store.anchor import FileAnchor
from templates_store.keys.keyring import key_file
from templates_store.keys.provider import KeyProvider
from templates_store.sqlite import Connect, connect
from templates_store.store import TemplateStore
from templates_store.template import Consent, Modality, Purpose, SubjectId, Template, TemplateFormat, TemplateId

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
FACE = TemplateFormat("yunet+sface/1", 8)
FINGER = TemplateFormat("device:zk-finger-10")


@dataclass
class Clock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **delta: float) -> None:
        self.now += timedelta(**delta)


@dataclass
class Site:
    """Files of one gateway: database, anchor and keys in three places."""

    folder: Path
    tenant: str = "acme"
    clock: Clock = field(default_factory=Clock)

    @property
    def path(self) -> Path:
        return self.folder / "data" / "templates.db"

    @property
    def anchor(self) -> Path:
        return self.folder / "anchor" / "templates.anchor"

    def keys(self) -> KeyProvider:
        return key_file(self.folder / "keys" / "kek")

    def open(self, *, keys: KeyProvider | None = None, connect: Connect = connect) -> TemplateStore:
        return TemplateStore.open(
            self.path,
            tenant=self.tenant,
            keys=keys or self.keys(),
            anchor=FileAnchor(self.anchor),
            now=self.clock,
            connect=connect,
        )

    def open_sealed(self) -> TemplateStore:
        return TemplateStore.open(self.path, tenant=self.tenant, keys=None, anchor=self.anchor, now=self.clock)


def consent(
    subject: str,
    *,
    modality: Modality = Modality.FACE,
    purpose: Purpose = Purpose.ATTENDANCE,
    notice: str = "2026-1",
    given_at: datetime = START,
    days: float = 365,
) -> Consent:
    return Consent(
        subject_id=SubjectId(subject),
        modality=modality,
        purpose=purpose,
        notice_version=notice,
        given_at=given_at,
        expires_at=given_at + timedelta(days=days),
        evidence_sha256="ab" * 32,
    )


def vector(seed: int, dimension: int = FACE.dimension) -> bytes:
    found = np.random.default_rng(seed).normal(size=dimension)
    return (found / np.linalg.norm(found)).astype("<f4").tobytes()


def template(
    subject: str,
    number: int = 0,
    *,
    modality: Modality = Modality.FACE,
    purpose: Purpose = Purpose.ATTENDANCE,
    payload: bytes | None = None,
    form: TemplateFormat = FACE,
) -> Template:
    return Template(
        template_id=TemplateId(f"{subject}/{modality.value}/{purpose.value}/{number}"),
        subject_id=SubjectId(subject),
        modality=modality,
        purpose=purpose,
        format=form,
        payload=vector(hash_of(subject, number)) if payload is None else payload,
        position=number,
    )


def hash_of(subject: str, number: int) -> int:
    return int.from_bytes(subject.encode()[-6:], "big") * 100 + number


def enrol(store: TemplateStore, subject: str, count: int = 1, **kinds: object) -> list[Template]:
    """Enrol with a consent as good as can be; `modality` and `purpose` may be given."""
    modality = kinds.get("modality", Modality.FACE)
    purpose = kinds.get("purpose", Purpose.ATTENDANCE)
    assert isinstance(modality, Modality)
    assert isinstance(purpose, Purpose)
    given_at = store.ledger.now()
    finger = modality is Modality.FINGERPRINT
    templates = [
        template(
            subject,
            i,
            modality=modality,
            purpose=purpose,
            form=FINGER if finger else FACE,
            payload=f"minutiae of {subject} {i}".encode() if finger else None,
        )
        for i in range(count)
    ]
    store.enrol(consent(subject, modality=modality, purpose=purpose, given_at=given_at), templates)
    return templates


def switch_on(store: TemplateStore, *modalities: Modality) -> None:
    for modality in modalities or (Modality.FACE,):
        store.set_modality(modality, enabled=True, actor="admin")


def gallery(
    store: TemplateStore, modality: Modality = Modality.FACE, purpose: Purpose = Purpose.ATTENDANCE
) -> dict[str, bytes]:
    """Template id -> payload, as a gallery would be filled."""
    out: dict[str, bytes] = {}
    for pipeline in store.pipelines(modality, purpose):
        for chunk in store.load(modality, purpose, pipeline):
            for i, template_id in enumerate(chunk.template_ids):
                assert template_id not in out
                out[template_id] = chunk.payloads[i] if chunk.vectors is None else chunk.vectors[i].tobytes()
    return out
