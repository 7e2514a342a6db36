"""TemplateStore: what the rest of the product may do with templates. Synchronous; many readers, one writer.

Erasure, step by step:
    `erase` / `withdraw`    before they return: wrapped DEK, rows and chunks gone, WAL cut, copies on devices owed
    the flow                then removes the subject from galleries and calls `confirm_erased(receipt, place)`
    `rotate`                soon after (several erasures may share one): destroys the KEK under which earlier copies
                            of the file still opened
    `backup`                after that, because backups made before no longer open
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from templates_store import (
    backup,
    chunks,
    consents,
    enrolment,
    erasure,
    integrity,
    placements,
    receipts,
    rotation,
    subject_export,
)
from templates_store.anchor import Anchor, FileAnchor
from templates_store.chunks import Group
from templates_store.errors import KeyUnavailable
from templates_store.keys.provider import KeyProvider
from templates_store.ledger import Ledger
from templates_store.records import (
    Chunk,
    ConsentState,
    IntegrityReport,
    Placement,
    Receipt,
    Statistics,
    StoredConsent,
)
from templates_store.sqlite import SCHEMA, Clock, Connect, Database, connect, to_us
from templates_store.template import Consent, Modality, Purpose, SubjectId, Template, TemplateId


class TemplateStore:
    """Opened once by the agent; every flow shares it. `seal_reason` says why it is sealed, for the operator."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self.database = database
        self.ledger = ledger
        self.seal_reason = "no key was given yet"
        self.unfinished = ""  # why a rotation could not be finished, for health; tried again at the next one
        self._rotating = threading.Lock()  # see `rotation`

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        tenant: str,
        keys: KeyProvider | None,
        anchor: Anchor | Path,
        now: Clock,
        connect: Connect = connect,
        schema: Path = SCHEMA,
    ) -> TemplateStore:
        """Open or make the file. Without a usable key it opens sealed: `sealed`, `seal_reason`.

        Raises RolledBack, SchemaTooNew, sqlite3.DatabaseError for a file that is none.
        """
        database = Database(path, now=now, connect=connect, schema=schema)
        try:
            where = FileAnchor(anchor) if isinstance(anchor, Path) else anchor
            store = cls(database, Ledger(database, tenant=tenant, anchor=where, now=now))
            if keys is not None:
                try:
                    store.unseal(keys)
                except KeyUnavailable as exc:
                    store.seal_reason = str(exc)
        except BaseException:
            database.close()
            raise
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.ledger.seal()
        self.database.close()

    # Keys

    @property
    def sealed(self) -> bool:
        return self.ledger.sealed

    @property
    def public_key(self) -> bytes:
        """Ed25519; checks receipts. Raises Sealed."""
        return self.ledger.vault().public_key

    def unseal(self, keys: KeyProvider) -> None:
        """Verify that nothing was put back, finish an interrupted rotation. Raises KeyUnavailable, RolledBack."""
        self.ledger.unseal(keys)
        self.seal_reason = self.unfinished = ""
        try:
            with self._rotating:
                rotation.settle(self.ledger)
        except KeyUnavailable as exc:
            self.unfinished = str(exc)

    def rotate(self) -> str:
        """New KEK, rewrap, old KEK destroyed; the new id. Readers and writers go on."""
        with self._rotating:
            kek_id = rotation.rotate(self.ledger)
            self.unfinished = ""
            return kek_id

    def rotation_owed(self) -> bool:
        """Whether copies made before an erasure still open, and `rotate` would end that. Raises Sealed."""
        return rotation.owed(self.ledger)

    def rewrap(self, keys: KeyProvider) -> str:
        """The same, into another provider."""
        with self._rotating:
            return rotation.move(self.ledger, keys)

    # The enterprise's switches

    def set_modality(self, modality: Modality, *, enabled: bool, actor: str, purpose: Purpose | None = None) -> None:
        """Switch a modality for one purpose, or for both. Off: nothing enrols, opens or matches; erasing goes on."""
        with self.ledger.write() as transaction:
            transaction.sql.execute(
                "UPDATE switch SET enabled = ?, changed_us = ?, changed_by = ?"
                " WHERE modality = ? AND (? IS NULL OR purpose = ?)",
                (int(enabled), transaction.now_us, actor[:200], modality.value, purpose, purpose),
            )

    def enabled(self, modality: Modality, purpose: Purpose | None = None) -> bool:
        """For this purpose, or for any."""
        with self.database.read() as sql:
            row = sql.execute(
                "SELECT max(enabled) FROM switch WHERE modality = ? AND (? IS NULL OR purpose = ?)",
                (modality.value, purpose, purpose),
            ).fetchone()
        return bool(row[0])

    # Templates

    def enrol(self, consent: Consent, templates: Sequence[Template]) -> None:
        """All of them or nothing. Raises Sealed, ConsentMissing, BadTemplate, Duplicate."""
        self.enrol_many([(consent, templates)])

    def enrol_many(self, people: Iterable[tuple[Consent, Sequence[Template]]]) -> int:
        """Many enrolments in one transaction, for imports; how many templates."""
        count = 0
        with self.ledger.write() as transaction:
            for consent, templates in people:
                enrolment.check(consent, templates)
                enrolment.insert(transaction, consent, templates)
                count += len(templates)
        return count

    def renew(self, consent: Consent) -> None:
        """A later consent takes over the templates of the stale or ending one. Raises Sealed, ConsentMissing."""
        with self.ledger.write() as transaction:
            consents.put(transaction, consent)

    def holds(self, templates: Sequence[Template]) -> bool:
        """Whether every one of them is stored still."""
        with self.database.read() as sql:
            return enrolment.held(sql, [template.template_id for template in templates])

    def templates_of(
        self, subject_id: SubjectId, *, purpose: Purpose, modality: Modality | None = None
    ) -> list[Template]:
        """The subject's usable templates for this purpose; none while the consent is stale or the switch off.

        Raises Sealed, SealBroken.
        """
        vault = self.ledger.vault()
        with self.database.read() as sql:
            return enrolment.templates_of(sql, vault, subject_id, purpose=purpose, modality=modality)

    def load(self, modality: Modality, purpose: Purpose, pipeline: str) -> Iterator[Chunk]:
        """Every usable template of one gallery, in chunks, without holding a transaction while the caller works.

        What is erased while this runs may already have been handed out: apply such erasures to the gallery after it.
        Raises Sealed, SealBroken.
        """
        return chunks.load(self.database, self.ledger.vault(), Group(modality, purpose, pipeline))

    def pipelines(self, modality: Modality, purpose: Purpose) -> list[str]:
        """Which pipelines have usable templates."""
        with self.database.read() as sql:
            rows = sql.execute(
                "SELECT DISTINCT pipeline FROM usable WHERE modality = ? AND purpose = ? ORDER BY 1",
                (modality.value, purpose.value),
            )
            return [pipeline for (pipeline,) in rows]

    def pack(self, *, minimum: int = chunks.MIN_MEMBERS, members: int = chunks.MEMBERS) -> int:
        """Seal what waits in the journal into search chunks; how many templates moved. Cheap if little waits."""
        if not 1 <= minimum <= members <= 4096:
            raise ValueError("1 <= minimum <= members <= 4096")
        moved = 0
        with self.database.read() as sql:
            groups = chunks.groups_to_pack(sql, minimum)
        for group in groups:
            more = True
            while more:
                with self.ledger.write() as transaction:
                    count = chunks.pack_one(transaction, group, minimum=minimum, members=members)
                moved += count
                more = count == members
        return moved

    # Consents

    def consents(self, subject_id: SubjectId) -> list[StoredConsent]:
        """Every consent on record, ended ones too, oldest first."""
        with self.database.read() as sql:
            return consents.of_subject(sql, subject_id)

    def mark_stale(
        self,
        *,
        accepted_versions: Collection[str],
        modality: Modality | None = None,
        purpose: Purpose | None = None,
    ) -> list[SubjectId]:
        """The terms changed materially: consents on other notices are stale until renewed; whose they are.

        Remove these subjects from the galleries. Templates stay sealed; `renew` brings them back.
        """
        with self.ledger.write() as transaction:
            return consents.mark_stale(
                transaction, accepted_versions=accepted_versions, modality=modality, purpose=purpose
            )

    def expired(self, now: datetime) -> list[StoredConsent]:
        """Live consents whose end has come; erase each with reason "expired"."""
        with self.database.read() as sql:
            return consents.lapsed(sql, now)

    # Copies on devices

    def add_placement(
        self,
        subject_id: SubjectId,
        modality: Modality,
        purpose: Purpose,
        *,
        device_serial: str,
        slot: str = "",
        template_id: TemplateId | None = None,
    ) -> int:
        """Record a copy before it is sent to a device; its id. Raises ConsentMissing, Duplicate, Sealed."""
        with self.ledger.write() as transaction:
            return placements.add(
                transaction,
                subject_id,
                modality,
                purpose,
                device_serial=device_serial,
                slot=slot,
                template_id=template_id,
            )

    def placements(self, subject_id: SubjectId) -> list[Placement]:
        with self.database.read() as sql:
            return placements.of_subject(sql, subject_id)

    def recall(self, allowed: Callable[[Placement], bool]) -> int:
        """Copies that no valid consent and switch cover, or that are not `allowed`, become owed. How many.

        Raises Sealed.
        """
        with self.database.read() as sql:
            found = placements.disallowed(sql, allowed)
        if found:
            with self.ledger.write() as transaction:
                placements.recall(transaction, found)
        return len(found)

    def pending_erasures(self, device_serial: str | None = None) -> list[Placement]:
        """Copies that devices still have to delete, oldest first. Retry until `close_placement`."""
        with self.database.read() as sql:
            return placements.owed(sql, device_serial)

    def close_placement(self, placement_id: int) -> None:
        """The device deleted its copy; receipts that waited for it are signed anew."""
        with self.ledger.write() as transaction:
            found = placements.close(transaction, placement_id)
            if found is not None:
                receipts.settle_device(transaction, found.subject_id, found.device_serial)

    def note_placement_failure(self, placement_id: int, error: str) -> None:
        """An attempt to delete on the device failed; counted, shown, tried again later."""
        with self.ledger.write() as transaction:
            placements.note_failure(transaction, placement_id, error)

    # Erasure

    def withdraw(
        self,
        subject_id: SubjectId,
        *,
        reason: str,
        actor: str,
        modality: Modality | None = None,
        purpose: Purpose | None = None,
        elsewhere: Collection[str] = (),
    ) -> Receipt:
        """Consent is taken back: it ends as withdrawn and what it covered is erased. See `erase`."""
        return self._erase(
            subject_id, ConsentState.WITHDRAWN, reason, actor, modality=modality, purpose=purpose, elsewhere=elsewhere
        )

    def erase(
        self,
        subject_id: SubjectId,
        *,
        reason: str,
        actor: str,
        modality: Modality | None = None,
        purpose: Purpose | None = None,
        elsewhere: Collection[str] = (),
    ) -> Receipt:
        """Gone before this returns; what cannot be gone yet is `pending` in the signed receipt.

        `elsewhere` names further places that hold a copy, such as "gallery"; `confirm_erased` closes each.
        """
        return self._erase(
            subject_id, ConsentState.ENDED, reason, actor, modality=modality, purpose=purpose, elsewhere=elsewhere
        )

    def _erase(
        self,
        subject_id: SubjectId,
        state: ConsentState,
        reason: str,
        actor: str,
        *,
        modality: Modality | None,
        purpose: Purpose | None,
        elsewhere: Collection[str],
    ) -> Receipt:
        with self.ledger.write() as transaction:
            receipt_id = erasure.erase(
                transaction,
                subject_id,
                modality=modality,
                purpose=purpose,
                state=state,
                reason=reason,
                actor=actor,
                elsewhere=elsewhere,
            )
        self.finish_erasures()
        return self.receipt(receipt_id)

    def erase_all(self, *, reason: str, actor: str, elsewhere: Collection[str] = ()) -> list[Receipt]:
        """Everybody, in one transaction, then a rotation: nothing and no earlier copy opens any more."""
        with self.ledger.write() as transaction:
            subject_ids = [SubjectId(each) for (each,) in transaction.sql.execute("SELECT subject_id FROM dek")]
            receipt_ids = [
                erasure.erase(
                    transaction,
                    subject_id,
                    modality=None,
                    purpose=None,
                    state=ConsentState.ENDED,
                    reason=reason,
                    actor=actor,
                    elsewhere=elsewhere,
                )
                for subject_id in subject_ids
            ]
        self.finish_erasures()
        self.rotate()
        return [self.receipt(each) for each in receipt_ids]

    def forget(self, before: datetime) -> int:
        """Delete evidence of what ended before a moment (retention of receipts and consents); how many rows."""
        with self.ledger.write() as transaction:
            count = erasure.forget(transaction, to_us(before))
        self.finish_erasures()
        return count

    def finish_erasures(self) -> bool:
        """Cut the WAL and say so in the receipts that wait for it; False while a reader still holds it."""
        if not self.database.checkpoint():
            return False
        with self.database.read() as sql:
            waiting = receipts.waiting_for(sql, receipts.WAL)
        if waiting:
            with self.ledger.write() as transaction:
                receipts.settle(transaction, receipts.WAL)
        return True

    def confirm_erased(self, receipt_id: str, location: str) -> Receipt:
        """A place named in `elsewhere` is clean."""
        if location in {receipts.DATABASE, receipts.WAL, receipts.BACKUPS} or location.startswith("device:"):
            raise ValueError(f"{location} is settled by the store itself")
        with self.ledger.write() as transaction:
            receipts.settle(transaction, location, receipt_id=receipt_id)
        return self.receipt(receipt_id)

    def receipt(self, receipt_id: str) -> Receipt:
        with self.database.read() as sql:
            return receipts.read(sql, receipt_id, store_id=self.ledger.store_id, tenant=self.ledger.tenant)

    def receipts(self, subject_id: SubjectId | None = None, *, only_open: bool = False) -> list[Receipt]:
        with self.database.read() as sql:
            return receipts.select(
                sql,
                subject_id=subject_id,
                only_open=only_open,
                store_id=self.ledger.store_id,
                tenant=self.ledger.tenant,
            )

    # Backup

    def backup(
        self,
        target: Path,
        *,
        others: Mapping[str, Path] | None = None,
        progress: backup.Progress = backup.silent,
    ) -> backup.BackupReport:
        """An encrypted, verified archive; `others` are further SQLite files by name. See `backup.restore`."""
        return backup.write(self.ledger, target, others=others, progress=progress)

    # Looking at it

    def export(self, subject_id: SubjectId) -> dict[str, object]:
        """Everything that rests here about one subject, as JSON; templates base64, for the subject alone."""
        return subject_export.export(self.database, self.ledger, subject_id)

    def check_integrity(self) -> IntegrityReport:
        """Every row against its digest, every sealed byte against its tag. Slow on purpose; run it beside."""
        return integrity.check(self.database, self.ledger)

    def statistics(self) -> Statistics:
        return integrity.statistics(self.database, self.ledger)
