"""Taking templates out for good.

In one transaction: the subject's wrapped DEK and template rows go, chunks that held a copy go, copies on devices
become owed, and a signed receipt lists every location. Then the WAL is cut, so that neither file keeps the old
bytes (`secure_delete` zeroes freed pages). What stays of the subject after a partial erasure is sealed anew under
a fresh DEK. Copies of the file made earlier still open until the KEK is rotated: `rotation.rotate` closes that line.
"""

from __future__ import annotations

from collections.abc import Iterable

from templates_store import chunks, consents, placements, receipts
from templates_store.envelope import Binding, open_sealed, seal
from templates_store.ledger import Transaction
from templates_store.records import ConsentState
from templates_store.template import Modality, Purpose, SubjectId, TemplateFormat, TemplateId

_FORGET = (
    (
        "SELECT DISTINCT subject_id FROM receipt WHERE closed_us < ?",
        "DELETE FROM receipt WHERE closed_us < ?",
    ),
    (
        "SELECT DISTINCT subject_id FROM placement WHERE state = 'gone' AND ended_us < ?",
        "DELETE FROM placement WHERE state = 'gone' AND ended_us < ?",
    ),
    (
        "SELECT subject_id FROM consent WHERE ended_us < ? AND consent_id NOT IN (SELECT consent_id FROM template)",
        "DELETE FROM consent WHERE ended_us < ? AND consent_id NOT IN (SELECT consent_id FROM template)",
    ),
)
_NOTHING_LEFT = (
    "SELECT subject_id FROM subject s WHERE NOT EXISTS (SELECT 1 FROM consent WHERE subject_id = s.subject_id)"
    " AND NOT EXISTS (SELECT 1 FROM receipt WHERE subject_id = s.subject_id)"
    " AND NOT EXISTS (SELECT 1 FROM placement WHERE subject_id = s.subject_id)"
    " AND NOT EXISTS (SELECT 1 FROM dek WHERE subject_id = s.subject_id)"
)


def erase(
    transaction: Transaction,
    subject_id: SubjectId,
    *,
    modality: Modality | None,
    purpose: Purpose | None,
    state: ConsentState,
    reason: str,
    actor: str,
    elsewhere: Iterable[str],
) -> str:
    """Everything of the subject that matches; the receipt's id. A subject without templates gets a receipt too."""
    sql = transaction.sql
    transaction.ensure_subject(subject_id)
    rows = sql.execute(
        "SELECT template_id FROM template WHERE subject_id = ? AND (? IS NULL OR modality = ?)"
        " AND (? IS NULL OR purpose = ?)",
        (subject_id, modality, modality, purpose, purpose),
    )
    template_ids = [template_id for (template_id,) in rows]
    if template_ids:
        kept = [
            template_id
            for (template_id,) in sql.execute("SELECT template_id FROM template WHERE subject_id = ?", (subject_id,))
            if template_id not in set(template_ids)
        ]
        chunks.drop_with(transaction, [*template_ids, *kept])
        sql.executemany("DELETE FROM template WHERE template_id = ?", ((each,) for each in template_ids))
        if kept:
            _seal_anew(transaction, subject_id)
        else:
            sql.execute("DELETE FROM dek WHERE subject_id = ?", (subject_id,))
    serials = placements.start_erasing(transaction, subject_id, modality=modality, purpose=purpose)
    consents.end(transaction, subject_id, modality=modality, purpose=purpose, state=state)
    return receipts.write(
        transaction,
        subject_id,
        modality=modality,
        purpose=purpose,
        reason=reason,
        actor=actor,
        gone=[receipts.DATABASE],
        pending=[receipts.WAL, receipts.BACKUPS, *map(receipts.device, serials), *elsewhere],
    )


def forget(transaction: Transaction, before_us: int) -> int:
    """Delete evidence that ended before a moment: consents, closed receipts, copies that are gone. How many rows.

    Subjects of whom nothing is left go too.
    """
    sql, count = transaction.sql, 0
    for find, delete in _FORGET:
        for (subject_id,) in sql.execute(find, (before_us,)).fetchall():
            transaction.touch(subject_id)
        count += sql.execute(delete, (before_us,)).rowcount
    for (subject_id,) in sql.execute(_NOTHING_LEFT).fetchall():
        transaction.forget(subject_id)
    return count


def _seal_anew(transaction: Transaction, subject_id: SubjectId) -> None:
    """A fresh DEK for what stays, so that the old one takes the erased templates with it."""
    sql, vault = transaction.sql, transaction.vault
    (wrapped,) = sql.execute("SELECT wrapped FROM dek WHERE subject_id = ?", (subject_id,)).fetchone()
    old, fresh = vault.unwrap(wrapped, owner=subject_id), vault.new_key()
    rows = sql.execute(
        "SELECT template_id, modality, purpose, pipeline, dimension, position, sealed FROM template"
        " WHERE subject_id = ?",
        (subject_id,),
    ).fetchall()
    for template_id, modality, purpose, pipeline, dimension, position, sealed in rows:
        bound_to = Binding(
            vault.tenant,
            subject_id,
            TemplateId(template_id),
            Modality(modality),
            Purpose(purpose),
            TemplateFormat(pipeline, dimension),
            position,
        ).associated_data()
        again = seal(fresh, open_sealed(old, sealed, bound_to=bound_to), bound_to=bound_to)
        sql.execute("UPDATE template SET sealed = ? WHERE template_id = ?", (again, template_id))
    sql.execute(
        "UPDATE dek SET kek_id = ?, wrapped = ? WHERE subject_id = ?",
        (vault.current, vault.wrap(fresh, owner=subject_id), subject_id),
    )
