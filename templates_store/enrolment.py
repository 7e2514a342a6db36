"""Templates into rows and back: sealed under the subject's DEK, each in its place."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from templates_store import consents, integrity, validation
from templates_store.envelope import Binding, open_sealed, seal
from templates_store.errors import BadTemplate, ConsentMissing, Duplicate
from templates_store.ledger import Transaction
from templates_store.template import Consent, Modality, Purpose, SubjectId, Template, TemplateFormat, TemplateId
from templates_store.vault import Vault


def check(consent: Consent, templates: Sequence[Template]) -> None:
    """Raises BadTemplate, ConsentMissing; before anything is written."""
    if not 1 <= len(templates) <= validation.MAX_TEMPLATES:
        raise BadTemplate(f"an enrolment has 1 to {validation.MAX_TEMPLATES} templates")
    covered = (consent.subject_id, consent.modality, consent.purpose)
    for template in templates:
        validation.check(template)
        if (template.subject_id, template.modality, template.purpose) != covered:
            raise ConsentMissing("the consent does not cover this subject, modality and purpose")


def insert(transaction: Transaction, consent: Consent, templates: Sequence[Template]) -> None:
    """Raises ConsentMissing, BadTemplate, Duplicate."""
    sql, vault = transaction.sql, transaction.vault
    subject_id = consent.subject_id
    consent_id = consents.put(transaction, consent)
    row = sql.execute("SELECT wrapped FROM dek WHERE subject_id = ?", (subject_id,)).fetchone()
    if row is None:
        dek = vault.new_key()
        sql.execute("INSERT INTO dek VALUES (?, ?, ?)", (subject_id, vault.current, vault.wrap(dek, owner=subject_id)))
    else:
        dek = vault.unwrap(row[0], owner=subject_id)
    for template in templates:
        known = sql.execute(
            "SELECT dimension FROM template WHERE modality = ? AND purpose = ? AND pipeline = ? LIMIT 1",
            (template.modality.value, template.purpose.value, template.format.pipeline),
        ).fetchone()
        if known is not None and known[0] != template.format.dimension:
            raise BadTemplate(f"this pipeline has {known[0]} dimensions here, not {template.format.dimension}")
        bound_to = Binding.of(template, tenant=vault.tenant).associated_data()
        try:
            sql.execute(
                "INSERT INTO template (template_id, subject_id, modality, purpose, pipeline, dimension, position,"
                " consent_id, created_us, sealed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    template.template_id,
                    subject_id,
                    template.modality.value,
                    template.purpose.value,
                    template.format.pipeline,
                    template.format.dimension,
                    template.position,
                    consent_id,
                    transaction.now_us,
                    seal(dek, template.payload, bound_to=bound_to),
                ),
            )
        except sqlite3.IntegrityError as exc:
            if "UNIQUE" in str(exc):
                raise Duplicate(f"template id {template.template_id} exists") from exc
            raise


def held(sql: sqlite3.Connection, template_ids: Sequence[TemplateId]) -> bool:
    wanted = "SELECT 1 FROM template WHERE template_id = ?"
    return all(sql.execute(wanted, (template_id,)).fetchone() for template_id in template_ids)


def templates_of(
    sql: sqlite3.Connection, vault: Vault, subject_id: SubjectId, *, purpose: Purpose, modality: Modality | None
) -> list[Template]:
    """What may be opened now. Raises SealBroken, RolledBack."""
    rows = sql.execute(
        "SELECT u.template_id, u.modality, u.pipeline, u.dimension, u.position, u.sealed, d.wrapped"
        " FROM usable u JOIN dek d ON d.subject_id = u.subject_id"
        " WHERE u.subject_id = ? AND u.purpose = ? AND (? IS NULL OR u.modality = ?) ORDER BY u.rowid",
        (subject_id, purpose.value, modality, modality),
    ).fetchall()
    if rows:
        integrity.require_subject(sql, vault, subject_id)
    out = []
    for template_id, of, pipeline, dimension, position, sealed, wrapped in rows:
        form = TemplateFormat(pipeline, dimension)
        binding = Binding(vault.tenant, subject_id, TemplateId(template_id), Modality(of), purpose, form, position)
        dek = vault.unwrap(wrapped, owner=subject_id)
        payload = open_sealed(dek, sealed, bound_to=binding.associated_data())
        out.append(
            Template(binding.template_id, subject_id, binding.modality, purpose, form, payload, position=position)
        )
    return out
