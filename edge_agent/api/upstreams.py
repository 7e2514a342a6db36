"""Who receives events, how far each has come, and what it would not take."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from edge_agent.api.access import Caller, require
from edge_agent.api.context import Context
from edge_agent.api.events import Events, EventView, view
from edge_agent.api.problems import Problem, responses
from edge_agent.api.roles import Scope
from edge_agent.audit import Entry
from edge_agent.delivery.outbox import Ledger, UnknownSink

router = APIRouter(prefix="/api/v1", tags=["upstreams"])
Reader = Annotated[Caller, Depends(require(Scope.UPSTREAMS_READ))]
Writer = Annotated[Caller, Depends(require(Scope.UPSTREAMS_WRITE))]
Judge = Annotated[Caller, Depends(require(Scope.QUARANTINE_WRITE))]


class LedgerView(BaseModel):
    """received = delivered + pending + quarantined + discarded."""

    name: str
    mandatory: bool
    revoked: bool
    received: int
    delivered: int
    pending: int
    quarantined: int
    discarded: int
    balanced: bool


class UpstreamView(LedgerView):
    kind: str = ""
    url: str = ""
    fields: list[str] = []


class QuarantineView(BaseModel):
    upstream: str
    reason: str
    reply: str
    at: datetime
    event: EventView


class Judgement(BaseModel):
    upstream: str = Field(max_length=64, examples=["hr"])
    action: Literal["release", "discard"]
    sequences: list[int] | None = Field(None, max_length=1000, description="which events; all of them if left out")


class Judged(BaseModel):
    count: int


def ledger_view(books: Ledger) -> dict[str, Any]:
    return {
        "name": books.sink,
        "mandatory": books.mandatory,
        "revoked": books.revoked,
        "received": books.received,
        "delivered": books.delivered,
        "pending": books.pending,
        "quarantined": books.quarantined,
        "discarded": books.discarded,
        "balanced": books.balanced,
    }


@router.get("/upstreams")
async def list_upstreams(caller: Reader, context: Context, events: Events) -> list[UpstreamView]:
    """Every recipient with its books, and exactly which fields it gets."""
    configured = {upstream.name: upstream for upstream in context.configuration.site.upstreams}
    found = []
    for books in await events.stats():
        upstream = configured.get(books.sink)
        found.append(
            UpstreamView(
                **ledger_view(books),
                kind=upstream.kind if upstream else "",
                url=upstream.url if upstream else "",
                fields=list(upstream.fields) if upstream else [],
            )
        )
    return found


@router.post("/upstreams/{name}/revoke", status_code=204, responses=responses(404))
async def revoke_upstream(name: str, caller: Writer, context: Context, events: Events) -> None:
    """Stop a recipient for good: from this answer on not one byte goes there."""
    try:
        await events.revoke(name)
    except UnknownSink:
        raise Problem(404, f"there is no upstream {name[:64]!r}", code="unknown") from None
    await context.note(Entry(actor=caller.name, action="upstream.revoke", object=name[:64]))


@router.get("/quarantine")
async def list_quarantine(
    caller: Annotated[Caller, Depends(require(Scope.EVENTS_READ))],
    context: Context,
    events: Events,
    upstream: Annotated[str | None, Query(max_length=64)] = None,
    after: Annotated[int, Query(ge=0, le=2**62)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> list[QuarantineView]:
    """What an upstream refused, with its own words; kept until a person releases or discards it."""
    found = await events.quarantined(upstream, limit=limit, after=after)
    await context.note(Entry(actor=caller.name, action="quarantine.read", details={"rows": len(found)}))
    return [
        QuarantineView(upstream=item.sink, reason=item.reason, reply=item.reply, at=item.at, event=view(item.stored))
        for item in found
    ]


@router.post("/quarantine", responses=responses(404, 422))
async def judge_quarantine(body: Judgement, caller: Judge, context: Context, events: Events) -> Judged:
    """Send refused events again, or give them up."""
    try:
        if body.action == "release":
            count = await events.release(body.upstream, body.sequences)
        else:
            count = await events.discard(body.upstream, body.sequences)
    except UnknownSink:
        raise Problem(404, f"there is no upstream {body.upstream!r}", code="unknown") from None
    await context.note(
        Entry(
            actor=caller.name,
            action=f"quarantine.{body.action}",
            object=body.upstream,
            details={"count": count, "sequences": (body.sequences or [])[:100]},
        )
    )
    return Judged(count=count)
