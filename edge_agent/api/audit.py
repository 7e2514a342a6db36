"""The audit log: read it (which is audited), verify it."""

from __future__ import annotations

import json
import sqlite3
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from edge_agent.api.access import Caller, require
from edge_agent.api.context import Context
from edge_agent.audit import Entry
from edge_agent.policy.roles import Scope

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])
Auditor = Annotated[Caller, Depends(require(Scope.AUDIT_READ))]
MAX_PAGE = 500


class AuditRow(BaseModel):
    seq: int
    at: str
    actor: str
    action: str
    object: str
    outcome: str
    details: dict[str, Any]
    personal: dict[str, Any] | None


class AuditPage(BaseModel):
    rows: list[AuditRow]
    next_before: int | None


class VerdictView(BaseModel):
    intact: bool
    rows: int
    fault: str
    at_seq: int | None


@router.get("")
async def read_audit(
    caller: Auditor,
    context: Context,
    before: Annotated[int | None, Query(ge=1, le=2**62)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    action: Annotated[str, Query(max_length=64)] = "",
    actor: Annotated[str, Query(max_length=64)] = "",
) -> AuditPage:
    """Newest first; `next_before` leads to the next page. Reading is itself a row."""

    def rows(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
        return connection.execute(
            "SELECT seq, at, actor, action, object, outcome, details, personal FROM audit"
            " WHERE (?1 IS NULL OR seq < ?1) AND (?2 = '' OR action = ?2) AND (?3 = '' OR actor = ?3)"
            " ORDER BY seq DESC LIMIT ?4",
            (before, action, actor, limit),
        ).fetchall()

    found = await context.database.read(rows)
    await context.note(
        Entry(actor=caller.name, action="audit.read", details={"before": before, "limit": limit, "rows": len(found)})
    )
    return AuditPage(
        rows=[
            AuditRow(
                seq=seq,
                at=at,
                actor=who,
                action=act,
                object=thing,
                outcome=outcome,
                details=json.loads(details),
                personal=json.loads(personal) if personal else None,
            )
            for seq, at, who, act, thing, outcome, details, personal in found
        ],
        next_before=found[-1][0] if len(found) == limit else None,
    )


@router.get("/verify")
async def verify_audit(caller: Auditor, context: Context) -> VerdictView:
    """Walk the chain and hold it against its anchors."""
    anchors = context.anchors()
    verdict = await context.database.read(lambda c: context.audit.verify(c, anchors))
    await context.note(Entry(actor=caller.name, action="audit.verify", outcome="ok" if verdict.intact else "broken"))
    return VerdictView(intact=verdict.intact, rows=verdict.rows, fault=verdict.fault, at_seq=verdict.at_seq)
