"""Putting an archive back without bringing anybody back.

An archive knows nothing of what was decided after it was made. So before agent.db is replaced, the file that is there
hands over: orders to erase, which become open again and are carried out before the galleries open; what devices have
to delete for them; access tokens that were revoked and accounts that were shut. Cards and PINs of people who left go
at once, and whoever was signed in signs in again. A file that does not tell stops the restore, unless the operator
says that it is lost.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from edge_agent.database import SCHEMA, connect, migrate
from edge_agent.erasure import LEAVING
from edge_agent.policy.roles import Role
from templates_store import backup
from templates_store.anchor import Anchor
from templates_store.errors import ErasuresUnknown
from templates_store.keys.provider import KeyProvider
from templates_store.records import Receipt

AGENT = "agent.db"


@dataclass(frozen=True, slots=True)
class Restored:
    members: tuple[str, ...]
    made_at: datetime
    erased_again: int  # in the template store, already
    ordered_again: int  # at the next start
    shut_again: int  # access tokens and accounts
    erasures_known: bool  # whether both files that were replaced told everything


@dataclass(frozen=True, slots=True)
class _Decided:
    """What an agent.db says that one put in its place must not forget."""

    orders: Sequence[tuple[Any, ...]] = ()  # id, subject, kind, modality, purpose, reason, actor, ordered_at
    removals: Sequence[tuple[str, str, str]] = ()  # device, user_id, order
    revoked: Sequence[tuple[str, bytes]] = ()  # when, token hash
    shut: frozenset[str] = frozenset()


def restore(
    archive: Path,
    folder: Path,
    *,
    tenant: str,
    keys: KeyProvider,
    anchor: Anchor,
    now: Callable[[], datetime],
    erasures_unknown: bool = False,
    progress: backup.Progress = backup.silent,
) -> Restored:
    """While no agent runs in `folder`. Blocks.

    Raises ErasuresUnknown unless `erasures_unknown`, KeyUnavailable, SealBroken, StoreError, SchemaTooNew.
    """
    known, ordered, shut = True, 0, 0

    def carry(fresh: Mapping[str, Path], receipts: Sequence[Receipt]) -> None:
        nonlocal known, ordered, shut
        if AGENT not in fresh:
            return
        decided, known = _decided(folder / AGENT, receipts, anyway=erasures_unknown)
        ordered, shut = _take_over(fresh[AGENT], decided, now=now())

    report = backup.restore(
        archive,
        folder,
        tenant=tenant,
        keys=keys,
        anchor=anchor,
        now=now,
        carry=carry,
        erasures_unknown=erasures_unknown,
        progress=progress,
    )
    return Restored(report.members, report.made_at, report.erased_again, ordered, shut, known and report.erasures_known)


def _decided(path: Path, receipts: Sequence[Receipt], *, anyway: bool) -> tuple[_Decided, bool]:
    """And whether that is all. Raises ErasuresUnknown if it is not, unless `anyway`."""
    if not path.exists():
        return _Decided(), False
    whose = {receipt.receipt_id: receipt.subject_id for receipt in receipts}
    try:
        with contextlib.closing(connect(path)) as sql:
            orders = [
                (order_id, subject or whose.get(receipt, ""), *rest)  # an order loses its subject with their events
                for order_id, subject, receipt, *rest in sql.execute(
                    "SELECT id, subject, receipt, kind, modality, purpose, reason, actor, ordered_at"
                    " FROM erasure_orders ORDER BY ordered_at"
                )
            ]
            found = _Decided(
                [order for order in orders if order[1]],
                sql.execute("SELECT device, user_id, erasure FROM device_removals").fetchall(),
                sql.execute("SELECT revoked_at, token_hash FROM access_tokens WHERE revoked_at IS NOT NULL").fetchall(),
                frozenset(name for (name,) in sql.execute("SELECT name FROM accounts WHERE disabled")),
            )
    except sqlite3.Error as exc:
        if not anyway:
            raise ErasuresUnknown(f"the {path.name} that is here does not tell what was erased since: {exc}") from exc
        return _Decided(), False
    return found, True


def _take_over(path: Path, decided: _Decided, *, now: datetime) -> tuple[int, int]:
    """How many orders are to be carried out again, how many tokens and accounts are shut again."""
    with contextlib.closing(connect(path)) as sql:
        sql.execute("PRAGMA foreign_keys=ON")
        sql.execute("PRAGMA secure_delete=ON")
        migrate(sql, path, schema=SCHEMA, now=now)
        sql.execute("BEGIN IMMEDIATE")
        held = {order_id for (order_id,) in sql.execute("SELECT id FROM erasure_orders")}
        again = {order[0]: order for order in decided.orders if order[0] not in held}
        sql.executemany(
            "INSERT INTO erasure_orders (id, subject, kind, modality, purpose, reason, actor, ordered_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            again.values(),
        )
        sql.executemany(
            "INSERT INTO device_removals (device, user_id, erasure) VALUES (?, ?, ?)",
            (removal for removal in decided.removals if removal[2] in again),
        )
        left = [(subject,) for _, subject, kind, *_ in again.values() if kind in LEAVING]
        sql.executemany("DELETE FROM cards WHERE subject = ?", left)
        sql.executemany("DELETE FROM pins WHERE subject = ?", left)
        shut = sum(
            sql.execute(
                "UPDATE access_tokens SET revoked_at = ? WHERE token_hash = ? AND revoked_at IS NULL", token
            ).rowcount
            for token in decided.revoked
        ) + _shut(sql, decided.shut)
        sql.execute("DELETE FROM sessions")
        sql.execute("COMMIT")
    return len(again), shut


def _shut(sql: sqlite3.Connection, names: frozenset[str]) -> int:
    """These accounts, as far as they are in the archive; all administrators only if another one is left."""
    rows = sql.execute("SELECT name FROM accounts WHERE role = ? AND NOT disabled", (Role.ADMIN,))
    administrators = {name for (name,) in rows}
    if administrators <= names:
        names -= administrators
    return sum(
        sql.execute("UPDATE accounts SET disabled = 1 WHERE name = ? AND NOT disabled", (name,)).rowcount
        for name in names
    )
