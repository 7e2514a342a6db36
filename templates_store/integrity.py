"""Looking at the store as a whole: is every row what the application wrote, does every seal hold."""

from __future__ import annotations

import sqlite3

from templates_store.chunks import Group, open_chunk
from templates_store.envelope import Binding, open_sealed
from templates_store.errors import RolledBack, SealBroken
from templates_store.ledger import Ledger, subject_digest
from templates_store.records import IntegrityReport, Statistics
from templates_store.sqlite import Database
from templates_store.template import Modality, Purpose, SubjectId, TemplateFormat, TemplateId
from templates_store.vault import Vault


def require_subject(sql: sqlite3.Connection, vault: Vault, subject_id: str) -> None:
    """Raises RolledBack if a row that names the subject is not the one last written."""
    row = sql.execute("SELECT digest FROM subject WHERE subject_id = ?", (subject_id,)).fetchone()
    if row is None or row[0] != subject_digest(sql, vault.digest_key, subject_id):
        raise RolledBack(f"rows of subject {subject_id} were changed by somebody else")


def check(database: Database, ledger: Ledger) -> IntegrityReport:
    """Reads everything in one view of the database. Raises Sealed."""
    vault = ledger.vault()
    faults: list[str] = []
    templates = members = 0
    with database.read() as sql:
        faults += [f"sqlite: {text}" for (text,) in sql.execute("PRAGMA integrity_check") if text != "ok"]
        faults += [f"foreign key: table {row[0]}" for row in sql.execute("PRAGMA foreign_key_check")]
        (mac,) = sql.execute("SELECT mac FROM head").fetchone()
        if mac != ledger.head_mac(sql, vault):
            faults.append("head: changed by somebody else")
        total = 0
        subject_ids = [row[0] for row in sql.execute("SELECT subject_id FROM subject")]
        for subject_id in subject_ids:
            (stored,) = sql.execute("SELECT digest FROM subject WHERE subject_id = ?", (subject_id,)).fetchone()
            total += int.from_bytes(stored, "big")
            if stored != subject_digest(sql, vault.digest_key, subject_id):
                faults.append(f"subject {subject_id}: rows changed by somebody else")
            count, broken = _templates_hold(sql, vault, subject_id)
            templates += count
            faults += broken
        (said,) = sql.execute("SELECT total FROM head").fetchone()
        if total % (1 << 256) != int.from_bytes(said, "big"):
            faults.append("subjects: removed or put back by somebody else")
        listed = sql.execute("SELECT chunk_id, modality, purpose, pipeline FROM chunk").fetchall()
        for chunk_id, modality, purpose, pipeline in listed:
            try:
                chunk = open_chunk(sql, vault, chunk_id, Group(Modality(modality), Purpose(purpose), pipeline))
            except SealBroken:
                faults.append(f"chunk {chunk_id}: seal broken")
                continue
            rows = sql.execute("SELECT template_id FROM template WHERE chunk_id = ?", (chunk_id,))
            if chunk is not None and set(chunk.template_ids) != {template_id for (template_id,) in rows}:
                faults.append(f"chunk {chunk_id}: not the templates that name it")
            members += 1
    return IntegrityReport(not faults, templates, members, tuple(faults))


def _templates_hold(sql: sqlite3.Connection, vault: Vault, subject_id: str) -> tuple[int, list[str]]:
    row = sql.execute("SELECT wrapped FROM dek WHERE subject_id = ?", (subject_id,)).fetchone()
    if row is None:
        return 0, []
    try:
        dek = vault.unwrap(row[0], owner=subject_id)
    except SealBroken:
        return 0, [f"subject {subject_id}: key broken"]
    count, faults = 0, []
    for template_id, modality, purpose, pipeline, dimension, position, sealed in sql.execute(
        "SELECT template_id, modality, purpose, pipeline, dimension, position, sealed FROM template"
        " WHERE subject_id = ?",
        (subject_id,),
    ):
        binding = Binding(
            vault.tenant,
            SubjectId(subject_id),
            TemplateId(template_id),
            Modality(modality),
            Purpose(purpose),
            TemplateFormat(pipeline, dimension),
            position,
        )
        count += 1
        try:
            open_sealed(dek, sealed, bound_to=binding.associated_data())
        except SealBroken:
            faults.append(f"template {template_id}: seal broken")
    return count, faults


def statistics(database: Database, ledger: Ledger) -> Statistics:
    """Counts alone; works sealed too."""
    provider = None if ledger.sealed else ledger.vault().provider
    with database.read() as sql:

        def count(query: str) -> int:
            return int(sql.execute(query).fetchone()[0])

        foreign = sql.execute(
            "SELECT kek_id FROM kek WHERE state = 'retired' AND provider <> ?", (provider.name if provider else "",)
        )
        return Statistics(
            sealed=ledger.sealed,
            version=count("SELECT version FROM head"),
            subjects=count("SELECT count(*) FROM dek"),
            templates=dict(sql.execute("SELECT modality, count(*) FROM template GROUP BY modality")),
            chunks=count("SELECT count(*) FROM chunk"),
            journal=count("SELECT count(*) FROM template WHERE chunk_id IS NULL"),
            stale_consents=count("SELECT count(*) FROM consent WHERE state = 'stale'"),
            open_placements=count("SELECT count(*) FROM placement WHERE state = 'placed'"),
            pending_erasures=count("SELECT count(*) FROM receipt WHERE closed_us IS NULL"),
            provider=provider.name if provider else "",
            warning=provider.warning if provider else "",
            foreign_keks=tuple(kek_id for (kek_id,) in foreign) if provider else (),
        )
