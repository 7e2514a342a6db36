"""Everything the store holds about one subject, machine-readable: the right of access."""

from __future__ import annotations

import base64
from typing import Any

from templates_store import consents, placements, receipts
from templates_store.envelope import Binding, open_sealed
from templates_store.ledger import Ledger
from templates_store.sqlite import Database, from_us
from templates_store.template import Modality, Purpose, SubjectId, TemplateFormat, TemplateId


def export(database: Database, ledger: Ledger, subject_id: SubjectId) -> dict[str, object]:
    """JSON-ready. Templates whose consent is stale or whose switch is off are the subject's too. Raises Sealed."""
    vault = ledger.vault()
    with database.read() as sql:
        rows = sql.execute(
            "SELECT t.template_id, t.modality, t.purpose, t.pipeline, t.dimension, t.position, t.created_us, t.sealed,"
            " d.wrapped FROM template t JOIN dek d ON d.subject_id = t.subject_id WHERE t.subject_id = ?"
            " ORDER BY t.template_id",
            (subject_id,),
        ).fetchall()
        agreed = consents.of_subject(sql, subject_id)
        copies = placements.of_subject(sql, subject_id)
        proofs = receipts.select(
            sql, subject_id=subject_id, only_open=False, store_id=ledger.store_id, tenant=ledger.tenant
        )
    templates: list[dict[str, Any]] = []
    for template_id, modality, purpose, pipeline, dimension, position, created_us, sealed, wrapped in rows:
        binding = Binding(
            vault.tenant,
            subject_id,
            TemplateId(template_id),
            Modality(modality),
            Purpose(purpose),
            TemplateFormat(pipeline, dimension),
            position,
        )
        payload = open_sealed(vault.unwrap(wrapped, owner=subject_id), sealed, bound_to=binding.associated_data())
        templates.append(
            {
                "template_id": template_id,
                "modality": modality,
                "purpose": purpose,
                "pipeline": pipeline,
                "dimension": dimension,
                "position": position,
                "created_at": from_us(created_us).isoformat(),
                "payload_base64": base64.b64encode(payload).decode(),
            }
        )
    return {
        "subject_id": subject_id,
        "tenant": ledger.tenant,
        "templates": templates,
        "consents": [
            {
                "modality": each.modality.value,
                "purpose": each.purpose.value,
                "notice_version": each.notice_version,
                "given_at": each.given_at.isoformat(),
                "expires_at": each.expires_at.isoformat(),
                "evidence_sha256": each.evidence_sha256,
                "legal_basis": each.legal_basis,
                "basis_reference": each.basis_reference,
                "state": each.state.value,
                "ended_at": None if each.ended_at is None else each.ended_at.isoformat(),
            }
            for each in agreed
        ],
        "placements": [
            {
                "modality": each.modality.value,
                "purpose": each.purpose.value,
                "device_serial": each.device_serial,
                "slot": each.slot,
                "placed_at": each.placed_at.isoformat(),
                "state": each.state.value,
            }
            for each in copies
        ],
        "receipts": [{**each.as_dict(), "signature": each.signature.hex()} for each in proofs],
    }
