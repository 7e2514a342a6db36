"""Receipts of erasures: every location that held a copy, signed anew whenever one of them changes."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from templates_store.errors import StoreError
from templates_store.ledger import Transaction
from templates_store.records import Location, Outcome, Receipt
from templates_store.sqlite import from_us
from templates_store.template import Modality, Purpose, SubjectId

DATABASE = "templates.db"
WAL = "templates.db-wal"
BACKUPS = "backups"  # copies made earlier, anywhere: noise once the KEK of their time is destroyed
_COLUMNS = "receipt_id, subject_id, modality, purpose, reason, actor, requested_us, revision, signature"
_SELECT = f"SELECT {_COLUMNS} FROM receipt "  # noqa: S608


def device(serial: str) -> str:
    return f"device:{serial}"


def write(
    transaction: Transaction,
    subject_id: SubjectId,
    *,
    modality: Modality | None,
    purpose: Purpose | None,
    reason: str,
    actor: str,
    gone: Iterable[str],
    pending: Iterable[str],
) -> str:
    """A new receipt; its id."""
    receipt_id = os.urandom(16).hex()
    sql = transaction.sql
    sql.execute(
        "INSERT INTO receipt VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, NULL, zeroblob(64))",
        (
            receipt_id,
            subject_id,
            modality or "",
            purpose or "",
            reason[:500],
            actor[:200],
            transaction.now_us,
            transaction.vault.current,
        ),
    )
    sql.executemany(
        "INSERT OR IGNORE INTO receipt_location VALUES (?, ?, ?, ?)",
        [
            (receipt_id, name, outcome.value, transaction.now_us)
            for names, outcome in ((gone, Outcome.GONE), (pending, Outcome.PENDING))
            for name in names
        ],
    )
    _sign(transaction, receipt_id)
    return receipt_id


def waiting_for(sql: sqlite3.Connection, location: str) -> bool:
    row = sql.execute("SELECT 1 FROM receipt_location WHERE location = ? AND outcome = 'pending' LIMIT 1", (location,))
    return row.fetchone() is not None


def waiting_for_rotation(sql: sqlite3.Connection, *, provider: str) -> bool:
    """Whether a receipt waits for the end of a KEK that is still in this provider."""
    row = sql.execute(
        "SELECT 1 FROM receipt r JOIN receipt_location l ON l.receipt_id = r.receipt_id"
        " JOIN kek k ON k.kek_id = r.kek_id WHERE r.closed_us IS NULL AND l.location = ? AND l.outcome = 'pending'"
        " AND k.provider = ? LIMIT 1",
        (BACKUPS, provider),
    )
    return row.fetchone() is not None


def settle(transaction: Transaction, location: str, *, receipt_id: str | None = None) -> list[str]:
    """A location is clean now: of one receipt, or of every one that waits for it. Which receipts changed."""
    rows = transaction.sql.execute(
        "SELECT receipt_id FROM receipt_location WHERE location = ? AND outcome = 'pending'"
        " AND (? IS NULL OR receipt_id = ?)",
        (location, receipt_id, receipt_id),
    )
    changed = [found for (found,) in rows]
    for found in changed:
        transaction.sql.execute(
            "UPDATE receipt_location SET outcome = 'gone', at_us = ? WHERE receipt_id = ? AND location = ?",
            (transaction.now_us, found, location),
        )
        _sign(transaction, found)
    return changed


def settle_backups(transaction: Transaction) -> None:
    """Once the current KEK is the only one left, copies made under any other are noise."""
    rows = transaction.sql.execute(
        "SELECT r.receipt_id FROM receipt r JOIN receipt_location l ON l.receipt_id = r.receipt_id"
        " WHERE l.location = ? AND l.outcome = 'pending' AND r.kek_id NOT IN (SELECT kek_id FROM kek)"
        " AND (SELECT count(*) FROM kek) = 1",
        (BACKUPS,),
    ).fetchall()
    for (receipt_id,) in rows:
        settle(transaction, BACKUPS, receipt_id=receipt_id)


def settle_device(transaction: Transaction, subject_id: SubjectId, serial: str) -> None:
    """Receipts of this subject whose copies on a device are all gone."""
    rows = transaction.sql.execute(
        "SELECT r.receipt_id FROM receipt r JOIN receipt_location l ON l.receipt_id = r.receipt_id"
        " WHERE r.subject_id = ? AND l.location = ? AND l.outcome = 'pending' AND NOT EXISTS ("
        "  SELECT 1 FROM placement p WHERE p.subject_id = r.subject_id AND p.device_serial = ? AND p.state = 'erasing'"
        "  AND (r.modality = '' OR p.modality = r.modality) AND (r.purpose = '' OR p.purpose = r.purpose))",
        (subject_id, device(serial), serial),
    ).fetchall()
    for (receipt_id,) in rows:
        settle(transaction, device(serial), receipt_id=receipt_id)


def _sign(transaction: Transaction, receipt_id: str) -> None:
    sql = transaction.sql
    sql.execute("UPDATE receipt SET revision = revision + 1 WHERE receipt_id = ?", (receipt_id,))
    unsigned = read(sql, receipt_id, store_id=transaction.vault.store_id, tenant=transaction.vault.tenant)
    signed = replace(unsigned, signature=transaction.vault.signer.sign(unsigned.signed_bytes()))
    sql.execute(
        "UPDATE receipt SET signature = ?, closed_us = ? WHERE receipt_id = ?",
        (signed.signature, transaction.now_us if signed.closed else None, receipt_id),
    )
    transaction.touch(signed.subject_id)


def read(sql: sqlite3.Connection, receipt_id: str, *, store_id: str, tenant: str) -> Receipt:
    row = sql.execute(_SELECT + "WHERE receipt_id = ?", (receipt_id,)).fetchone()
    if row is None:
        raise StoreError(f"there is no receipt {receipt_id}")
    return _receipt(sql, row, store_id=store_id, tenant=tenant)


def select(
    sql: sqlite3.Connection, *, subject_id: SubjectId | None, only_open: bool, store_id: str, tenant: str
) -> list[Receipt]:
    rows = sql.execute(
        _SELECT + "WHERE (? IS NULL OR subject_id = ?) AND (? = 0 OR closed_us IS NULL)"
        " ORDER BY requested_us, receipt_id",
        (subject_id, subject_id, int(only_open)),
    ).fetchall()
    return [_receipt(sql, row, store_id=store_id, tenant=tenant) for row in rows]


def _receipt(sql: sqlite3.Connection, row: tuple[Any, ...], *, store_id: str, tenant: str) -> Receipt:
    locations = sql.execute(
        "SELECT location, outcome, at_us FROM receipt_location WHERE receipt_id = ? ORDER BY location", (row[0],)
    )
    return Receipt(
        receipt_id=row[0],
        store_id=store_id,
        tenant=tenant,
        subject_id=SubjectId(row[1]),
        modality=Modality(row[2]) if row[2] else None,
        purpose=Purpose(row[3]) if row[3] else None,
        reason=row[4],
        actor=row[5],
        requested_at=from_us(row[6]),
        revision=row[7],
        locations=tuple(Location(name, Outcome(outcome), from_us(at)) for name, outcome, at in locations),
        signature=row[8],
    )
