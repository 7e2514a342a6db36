"""Consent rows: written once, ended once, renewed by a later row that takes the templates over."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from datetime import datetime
from typing import Any

from templates_store.errors import ConsentMissing
from templates_store.ledger import Transaction
from templates_store.records import ConsentState, StoredConsent
from templates_store.sqlite import from_us, to_us
from templates_store.template import Consent, Modality, Purpose, SubjectId
from templates_store.validation import check_id

_COLUMNS = (
    "consent_id, subject_id, modality, purpose, notice_version, given_us, expires_us, evidence_sha256,"
    " legal_basis, basis_reference, state, ended_us"
)
_SELECT = f"SELECT {_COLUMNS} FROM consent "  # noqa: S608


def _row(row: tuple[Any, ...]) -> StoredConsent:
    return StoredConsent(
        consent_id=row[0],
        subject_id=SubjectId(row[1]),
        modality=Modality(row[2]),
        purpose=Purpose(row[3]),
        notice_version=row[4],
        given_at=from_us(row[5]),
        expires_at=from_us(row[6]),
        evidence_sha256=row[7],
        legal_basis=row[8],
        basis_reference=row[9],
        state=ConsentState(row[10]),
        ended_at=None if row[11] is None else from_us(row[11]),
    )


def of_subject(sql: sqlite3.Connection, subject_id: SubjectId) -> list[StoredConsent]:
    rows = sql.execute(_SELECT + "WHERE subject_id = ? ORDER BY consent_id", (subject_id,))
    return [_row(row) for row in rows]


def lapsed(sql: sqlite3.Connection, now: datetime) -> list[StoredConsent]:
    """Live consents whose end has come: due at the very moment."""
    rows = sql.execute(
        _SELECT + "WHERE state IN ('valid', 'stale') AND expires_us <= ? ORDER BY expires_us",
        (to_us(now),),
    )
    return [_row(row) for row in rows]


def put(transaction: Transaction, consent: Consent) -> int:
    """The row id under which this consent is on record; a different one before it is superseded.

    Raises ConsentMissing if it is not valid now, or was given before what the person withdrew or had erased.
    """
    sql = transaction.sql
    check_id(consent.subject_id, "subject id")
    transaction.ensure_subject(consent.subject_id)
    values = (
        consent.subject_id,
        consent.modality.value,
        consent.purpose.value,
        consent.notice_version,
        to_us(consent.given_at),
        to_us(consent.expires_at),
        consent.evidence_sha256,
        consent.legal_basis,
        consent.basis_reference,
    )
    live = sql.execute(
        _SELECT + "WHERE subject_id = ? AND modality = ? AND purpose = ? AND state IN ('valid', 'stale')",
        values[:3],
    ).fetchone()
    if live is not None and live[1:10] == values and live[10] == "valid":
        if live[6] <= transaction.now_us:
            raise ConsentMissing("the consent has expired")
        return int(live[0])
    if live is not None:
        sql.execute(
            "UPDATE consent SET state = 'superseded', ended_us = ? WHERE consent_id = ?", (transaction.now_us, live[0])
        )
    consent_id = sql.execute(
        "INSERT INTO consent (subject_id, modality, purpose, notice_version, given_us, expires_us, evidence_sha256,"
        " legal_basis, basis_reference, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'valid')",
        values,
    ).lastrowid
    if consent_id is None:
        raise ConsentMissing("the consent was not recorded")
    if live is not None:
        sql.execute("UPDATE template SET consent_id = ? WHERE consent_id = ?", (consent_id, live[0]))
    return consent_id


def end(
    transaction: Transaction,
    subject_id: SubjectId,
    *,
    modality: Modality | None,
    purpose: Purpose | None,
    state: ConsentState,
) -> None:
    """Live consents of the subject, narrowed by modality and purpose, end now."""
    transaction.sql.execute(
        "UPDATE consent SET state = ?, ended_us = ? WHERE subject_id = ? AND state IN ('valid', 'stale')"
        " AND (? IS NULL OR modality = ?) AND (? IS NULL OR purpose = ?)",
        (state.value, transaction.now_us, subject_id, modality, modality, purpose, purpose),
    )
    transaction.touch(subject_id)


def mark_stale(
    transaction: Transaction,
    *,
    accepted_versions: Collection[str],
    modality: Modality | None,
    purpose: Purpose | None,
) -> list[SubjectId]:
    """Valid consents on any other notice become stale; whose they are."""
    values = (json.dumps(sorted(accepted_versions)), modality, modality, purpose, purpose)
    rows = transaction.sql.execute(
        "SELECT DISTINCT subject_id FROM consent WHERE state = 'valid'"
        " AND notice_version NOT IN (SELECT value FROM json_each(?))"
        " AND (? IS NULL OR modality = ?) AND (? IS NULL OR purpose = ?)",
        values,
    )
    subjects = [SubjectId(subject_id) for (subject_id,) in rows]
    transaction.sql.execute(
        "UPDATE consent SET state = 'stale' WHERE state = 'valid'"
        " AND notice_version NOT IN (SELECT value FROM json_each(?))"
        " AND (? IS NULL OR modality = ?) AND (? IS NULL OR purpose = ?)",
        values,
    )
    for subject_id in subjects:
        transaction.touch(subject_id)
    return subjects
