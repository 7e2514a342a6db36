"""Who receives events, how far each has come, and what it would not take."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field, SecretStr

from edge_agent.api.access import Caller, require
from edge_agent.api.context import Context, ExpectedVersion, etag, tag_of
from edge_agent.api.events import Events, EventView, view
from edge_agent.api.people import People
from edge_agent.api.problems import Body, Problem, responses
from edge_agent.api.site_changes import add_item, change_item, item_of, remove_item
from edge_agent.attendance import recognised
from edge_agent.audit import Entry
from edge_agent.delivery.outbox import Ledger, Outbox, UnknownSink
from edge_agent.delivery.upstreams import Upstreams
from edge_agent.policy.roles import Scope

router = APIRouter(prefix="/api/v1", tags=["upstreams"])
Reader = Annotated[Caller, Depends(require(Scope.UPSTREAMS_READ))]
Writer = Annotated[Caller, Depends(require(Scope.UPSTREAMS_WRITE))]
Judge = Annotated[Caller, Depends(require(Scope.QUARANTINE_WRITE))]


async def upstreams(request: Request) -> Upstreams:
    found: Upstreams = request.app.state.upstreams
    return found


Recipients = Annotated[Upstreams, Depends(upstreams)]


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


class UpstreamChange(Body):
    """What is left out stays, secrets too unless the URL is another one."""

    url: str | None = Field(None, max_length=2048, examples=["https://hr.example.com/v1/events"])
    kind: Literal["webhook", "nats", "mqtt"] | None = None
    mandatory: bool | None = Field(None, description="events are kept until this recipient has acknowledged them")
    enabled: bool | None = None
    fields: list[str] | None = Field(None, max_length=20, examples=[["user_id", "device", "verify"]])
    pseudonymous: bool | None = None
    batch: int | None = Field(None, ge=1, le=1000)
    timeout_s: float | None = Field(None, gt=0, le=120)
    username: str | None = Field(None, max_length=200)
    secret: SecretStr | None = Field(None, max_length=1000, description="signs what a webhook gets")
    password: SecretStr | None = Field(None, max_length=1000)
    options: dict[str, str] | None = None


class NewUpstream(UpstreamChange):
    name: str = Field(max_length=63, examples=["hr"])
    url: str = Field(max_length=2048, examples=["https://hr.example.com/v1/events"])
    mandatory: bool = True


class QuarantineView(BaseModel):
    upstream: str
    reason: str
    reply: str
    at: datetime
    event: EventView


class Judgement(Body):
    upstream: str = Field(max_length=64, examples=["hr"])
    action: Literal["release", "discard"]
    sequences: list[int] | None = Field(None, max_length=1000, description="which events; all of them if left out")
    recognise: bool = Field(
        False, description="look up again whose number an unknown user's is; the event's id and data stay"
    )


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


def _shown(context: Context, books: Ledger) -> UpstreamView:
    """A recipient that left the configuration keeps its books."""
    upstream = next((u for u in context.configuration.site.upstreams if u.name == books.sink), None)
    return UpstreamView(
        **ledger_view(books),
        kind=upstream.kind if upstream else "",
        url=upstream.url if upstream else "",
        fields=list(upstream.fields) if upstream else [],
    )


async def _one(context: Context, events: Outbox, name: str) -> UpstreamView:
    """A configured recipient, also before its loop has begun."""
    try:
        return _shown(context, await events.ledger(name))
    except UnknownSink:
        mandatory = next(u.mandatory for u in context.configuration.site.upstreams if u.name == name)
        await events.register(name, mandatory=mandatory)
        return _shown(context, await events.ledger(name))


@router.get("/upstreams")
async def list_upstreams(caller: Reader, context: Context, events: Events) -> list[UpstreamView]:
    """Every recipient with its books, and exactly which fields it gets."""
    return [_shown(context, books) for books in await events.stats()]


@router.post("/upstreams", status_code=201, responses=responses(409, 412, 422))
async def add_upstream(body: NewUpstream, caller: Writer, context: Context, events: Events) -> UpstreamView:
    """Add a recipient. It is owed everything stored, and gets what `fields` names, nothing else."""
    await add_item(context, caller.name, "upstreams", _plain(body), reason=f"add upstream {body.name[:64]}")
    return await _one(context, events, body.name)


@router.get("/upstreams/{name}", responses=responses(404))
async def read_upstream(
    name: str, caller: Reader, context: Context, events: Events, response: Response
) -> UpstreamView:
    """One recipient; the ETag is that of its configuration."""
    response.headers["ETag"] = etag(tag_of(item_of(context, "upstreams", name)))
    return await _one(context, events, name)


@router.patch("/upstreams/{name}", responses=responses(404, 409, 412, 422, 428))
async def change_upstream(
    name: str,
    body: UpstreamChange,
    caller: Writer,
    context: Context,
    events: Events,
    expected: ExpectedVersion,
    response: Response,
) -> UpstreamView:
    """Change where it is and what it gets; correct `fields` or `url` here, then release its quarantine."""
    await change_item(context, caller.name, "upstreams", name, _plain(body), expected)
    return await read_upstream(name, caller, context, events, response)


@router.delete("/upstreams/{name}", status_code=204, responses=responses(404, 412, 428))
async def remove_upstream(name: str, caller: Writer, context: Context, expected: ExpectedVersion) -> None:
    """Take it out of the configuration, which revokes it; its books stay."""
    await remove_item(context, caller.name, "upstreams", name, expected)


def _plain(body: BaseModel) -> dict[str, Any]:
    """What was given, with secrets in clear: the configuration seals them."""
    given = body.model_dump(exclude_unset=True, exclude_none=True)
    return {k: v.get_secret_value() if isinstance(v, SecretStr) else v for k, v in given.items()}


@router.post("/upstreams/{name}/revoke", status_code=204, responses=responses(404))
async def revoke_upstream(name: str, caller: Writer, context: Context, recipients: Recipients) -> None:
    """Stop a recipient: from this answer on not one byte goes there, restarts included."""
    try:
        await recipients.revoke(name)
    except UnknownSink:
        raise Problem(404, f"there is no upstream {name[:64]!r}", code="unknown") from None
    await context.note(Entry(actor=caller.name, action="upstream.revoke", object=name[:64]))


@router.post("/upstreams/{name}/reinstate", status_code=204, responses=responses(404))
async def reinstate_upstream(name: str, caller: Writer, context: Context, recipients: Recipients) -> None:
    """Take a revocation back: it is owed what happens from now on, not what it missed."""
    item_of(context, "upstreams", name)
    try:
        await recipients.reinstate(name)
    except UnknownSink:
        raise Problem(404, f"there is no upstream {name[:64]!r}", code="unknown") from None
    await context.note(Entry(actor=caller.name, action="upstream.reinstate", object=name[:64]))


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
async def judge_quarantine(body: Judgement, caller: Judge, context: Context, events: Events, people: People) -> Judged:
    """Send refused events again, or give them up."""
    try:
        if body.action == "release":
            reread = partial(recognised, people) if body.recognise else None
            count = await events.release(body.upstream, body.sequences, reread=reread)
        else:
            count = await events.discard(body.upstream, body.sequences)
    except UnknownSink:
        raise Problem(404, f"there is no upstream {body.upstream!r}", code="unknown") from None
    await context.note(
        Entry(
            actor=caller.name,
            action=f"quarantine.{body.action}",
            object=body.upstream,
            details={"count": count, "sequences": (body.sequences or [])[:100], "recognise": body.recognise},
        )
    )
    return Judged(count=count)
