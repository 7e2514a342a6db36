"""Copies in devices' own memories: known, and owed an erasure until the device says it is done.

What begins an erasure: the subject's own (`start_erasing`), or that nothing allows the copy any more (`recall`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection
from typing import Any

from templates_store.errors import Duplicate
from templates_store.ledger import Transaction
from templates_store.records import Placement, PlacementState
from templates_store.sqlite import from_us
from templates_store.template import Modality, Purpose, SubjectId, TemplateId

_COLUMNS = (
    "placement_id, subject_id, modality, purpose, template_id, device_serial, slot, placed_us, state, attempts,"
    " last_error"
)
_SELECT = f"SELECT {_COLUMNS} FROM placement "  # noqa: S608
_COVERED = (
    "EXISTS (SELECT 1 FROM consent c JOIN switch s ON s.modality = c.modality AND s.purpose = c.purpose"
    " WHERE c.subject_id = p.subject_id AND c.modality = p.modality AND c.purpose = p.purpose"
    " AND c.state = 'valid' AND s.enabled = 1)"
)


def _row(row: tuple[Any, ...]) -> Placement:
    return Placement(
        placement_id=row[0],
        subject_id=SubjectId(row[1]),
        modality=Modality(row[2]),
        purpose=Purpose(row[3]),
        template_id=None if row[4] is None else TemplateId(row[4]),
        device_serial=row[5],
        slot=row[6],
        placed_at=from_us(row[7]),
        state=PlacementState(row[8]),
        attempts=row[9],
        last_error=row[10],
    )


def add(
    transaction: Transaction,
    subject_id: SubjectId,
    modality: Modality,
    purpose: Purpose,
    *,
    device_serial: str,
    slot: str,
    template_id: TemplateId | None,
) -> int:
    """Record a copy before it is sent; the same place again is the same row.

    Raises ConsentMissing; Duplicate while the device still owes the erasure of what was there before.
    """
    sql = transaction.sql
    where = (subject_id, modality.value, purpose.value, device_serial, slot)
    old = sql.execute(
        "SELECT placement_id, state FROM placement"
        " WHERE subject_id = ? AND modality = ? AND purpose = ? AND device_serial = ? AND slot = ?",
        where,
    ).fetchone()
    if old is not None and old[1] == "placed":
        return int(old[0])
    if old is not None and old[1] == "erasing":
        raise Duplicate(f"device {device_serial} still has to delete the earlier copy in that place")
    if old is not None:
        sql.execute("DELETE FROM placement WHERE placement_id = ?", (old[0],))
    placement_id = sql.execute(
        "INSERT INTO placement (subject_id, modality, purpose, device_serial, slot, template_id, placed_us, state)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 'placed')",
        (*where, template_id, transaction.now_us),
    ).lastrowid
    transaction.touch(subject_id)
    return placement_id or 0


def of_subject(sql: sqlite3.Connection, subject_id: SubjectId) -> list[Placement]:
    rows = sql.execute(_SELECT + "WHERE subject_id = ? ORDER BY placement_id", (subject_id,))
    return [_row(row) for row in rows]


def owed(sql: sqlite3.Connection, device_serial: str | None) -> list[Placement]:
    """What devices still have to delete, oldest first."""
    rows = sql.execute(
        _SELECT + "WHERE state = 'erasing' AND (? IS NULL OR device_serial = ?) ORDER BY placement_id",
        (device_serial, device_serial),
    )
    return [_row(row) for row in rows]


def start_erasing(
    transaction: Transaction, subject_id: SubjectId, *, modality: Modality | None, purpose: Purpose | None
) -> list[str]:
    """Mark the copies as owed; the serials of their devices, also those owed since earlier."""
    values = (subject_id, modality, modality, purpose, purpose)
    rows = transaction.sql.execute(
        "SELECT DISTINCT device_serial FROM placement WHERE subject_id = ? AND state <> 'gone'"
        " AND (? IS NULL OR modality = ?) AND (? IS NULL OR purpose = ?)",
        values,
    )
    serials = sorted(serial for (serial,) in rows)
    transaction.sql.execute(
        "UPDATE placement SET state = 'erasing' WHERE subject_id = ? AND state <> 'gone'"
        " AND (? IS NULL OR modality = ?) AND (? IS NULL OR purpose = ?)",
        values,
    )
    return serials


def disallowed(sql: sqlite3.Connection, allowed: Callable[[Placement], bool]) -> list[int]:
    """Copies without a valid consent, switched off, or not `allowed`; those owed already are not among them."""
    rows = sql.execute(f"SELECT {_COLUMNS}, {_COVERED} FROM placement p WHERE state = 'placed'")  # noqa: S608
    return [row[0] for row in rows if not row[-1] or not allowed(_row(row))]


def recall(transaction: Transaction, placement_ids: Collection[int]) -> None:
    """Mark these copies as owed. The consent may come back; the copy is given anew then."""
    sql, listed = transaction.sql, json.dumps(sorted(placement_ids))
    where = "WHERE state = 'placed' AND placement_id IN (SELECT value FROM json_each(?))"
    subjects = sql.execute(f"SELECT DISTINCT subject_id FROM placement {where}", (listed,)).fetchall()  # noqa: S608
    sql.execute(f"UPDATE placement SET state = 'erasing' {where}", (listed,))  # noqa: S608
    for (subject_id,) in subjects:
        transaction.touch(subject_id)


def close(transaction: Transaction, placement_id: int) -> Placement | None:
    """The device deleted its copy; None if that is known already."""
    row = transaction.sql.execute(
        _SELECT + "WHERE placement_id = ? AND state <> 'gone'",
        (placement_id,),
    ).fetchone()
    if row is None:
        return None
    transaction.sql.execute(
        "UPDATE placement SET state = 'gone', ended_us = ?, last_error = '' WHERE placement_id = ?",
        (transaction.now_us, placement_id),
    )
    found = _row(row)
    transaction.touch(found.subject_id)
    return found


def note_failure(transaction: Transaction, placement_id: int, error: str) -> None:
    transaction.sql.execute(
        "UPDATE placement SET attempts = attempts + 1, last_error = ? WHERE placement_id = ?",
        (error[:200], placement_id),
    )
