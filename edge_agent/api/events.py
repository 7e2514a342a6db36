"""What happened: pages with a cursor, whole exports, and a live stream. Reading is audited."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel

from edge_agent.api.access import Caller, require
from edge_agent.api.context import Context
from edge_agent.api.two_people import HELD, Leave
from edge_agent.audit import Entry
from edge_agent.delivery.outbox import Outbox, Stored
from edge_agent.policy.roles import Scope
from edge_agent.policy.two_people import ActKind

router = APIRouter(prefix="/api/v1/events", tags=["events"])
Reader = Annotated[Caller, Depends(require(Scope.EVENTS_READ))]
EXPORT_PAGE = 1000
KEEP_ALIVE_S = 15.0
MAX_STREAM_PAGE = 200
COLUMNS = ("sequence", "id", "type", "occurred_at", "recorded_at", "device", "subject")


class EventView(BaseModel):
    sequence: int
    id: str
    type: str
    occurred_at: datetime
    recorded_at: datetime
    device: str
    subject: str | None
    data: dict[str, Any]


class EventPage(BaseModel):
    events: list[EventView]
    next_after: int | None
    next_before: int | None


def view(found: Stored) -> EventView:
    event = found.event
    return EventView(
        sequence=found.sequence,
        id=event.id,
        type=event.type,
        occurred_at=event.occurred_at,
        recorded_at=found.recorded_at,
        device=event.device,
        subject=event.subject,
        data=dict(event.data),
    )


class Filters(BaseModel):
    type: str = ""
    device: str | None = None
    subject: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def arguments(self) -> dict[str, Any]:
        return {
            "type_prefix": self.type or None,
            "device": self.device,
            "subject": self.subject,
            "since": self.since,
            "until": self.until,
        }


async def filtered(
    type: Annotated[str, Query(max_length=64)] = "",  # noqa: A002 - the parameter's public name
    device: Annotated[str | None, Query(max_length=64)] = None,
    subject: Annotated[str | None, Query(max_length=64)] = None,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
) -> Filters:
    return Filters(type=type, device=device, subject=subject, since=since, until=until)


Filter = Annotated[Filters, Depends(filtered)]
Cursor = Annotated[int | None, Query(ge=0, le=2**62)]


async def outbox(request: Request) -> Outbox:
    found: Outbox = request.app.state.outbox
    return found


Events = Annotated[Outbox, Depends(outbox)]


@router.get("")
async def list_events(
    caller: Reader,
    context: Context,
    events: Events,
    filters: Filter,
    after: Cursor = None,
    before: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> EventPage:
    """With `after`, oldest first from there on; otherwise newest first, `before` leads further back."""
    forwards = after is not None
    found = await events.events(
        after=after or 0, before=before, limit=limit, newest_first=not forwards, **filters.arguments()
    )
    await context.note(Entry(actor=caller.name, action="events.read", details={"rows": len(found)}))
    full = len(found) == limit
    last = found[-1].sequence if found else None
    return EventPage(
        events=[view(item) for item in found],
        next_after=last if forwards else None,
        next_before=last if full and not forwards else None,
    )


class Exporting(Filters):
    format: str


EXPORT = Leave("events.export", Scope.EXPORT)


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses=HELD | {200: {"content": {"text/csv": {}, "application/x-ndjson": {}}}},
)
async def export_events(
    caller: Annotated[Caller, Depends(require(Scope.EXPORT))],
    context: Context,
    events: Events,
    filters: Filter,
    format: Annotated[Literal["csv", "ndjson"], Query()] = "csv",  # noqa: A002 - the parameter's public name
) -> StreamingResponse:
    """Everything that matches, streamed page by page."""
    await EXPORT.require(context, Exporting(format=format, **filters.model_dump()), caller, ActKind.EXPORT)
    await context.note(
        Entry(
            actor=caller.name,
            action="events.export",
            details={"format": format, **filters.model_dump(mode="json", exclude_none=True)},
        )
    )
    media = "text/csv; charset=utf-8" if format == "csv" else "application/x-ndjson"
    headers = {"Content-Disposition": f'attachment; filename="events.{format}"'}
    return StreamingResponse(_export(events, filters, format), media_type=media, headers=headers)


async def _export(events: Outbox, filters: Filters, kind: str) -> AsyncIterator[str]:
    after = 0
    if kind == "csv":
        yield "\ufeff" + ",".join((*COLUMNS, "data")) + "\r\n"  # the mark makes spreadsheets read UTF-8
    while True:
        found = await events.events(after=after, limit=EXPORT_PAGE, **filters.arguments())
        if not found:
            return
        after = found[-1].sequence
        if kind == "ndjson":
            yield "".join(view(item).model_dump_json() + "\n" for item in found)
            continue
        text = io.StringIO()
        writer = csv.writer(text)
        for item in found:
            row = view(item).model_dump(mode="json")
            cells = [row[name] for name in COLUMNS] + [json.dumps(row["data"], ensure_ascii=False)]
            writer.writerow([_cell(value) for value in cells])
        yield text.getvalue()


def _cell(value: Any) -> Any:
    """A device's text must not become a formula in somebody's spreadsheet."""
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value


@router.get("/stream", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
async def stream_events(
    caller: Reader, request: Request, context: Context, events: Events, filters: Filter, after: Cursor = None
) -> StreamingResponse:
    """Server-sent events from `after` (or `Last-Event-ID`, or now) on."""
    given = request.headers.get("last-event-id", "")
    start = int(given) if given.isdecimal() and len(given) < 19 else after
    if start is None:
        newest = await events.events(limit=1, newest_first=True)
        start = newest[0].sequence if newest else 0
    await context.note(Entry(actor=caller.name, action="events.stream", details={"after": start}))
    return StreamingResponse(
        _stream(events, filters, start), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )


async def _stream(events: Outbox, filters: Filters, after: int) -> AsyncIterator[str]:
    yield "retry: 2000\n\n"
    seen = after  # what the filters passed over is not asked for again
    while True:
        found = await events.events(after=after, limit=MAX_STREAM_PAGE, **filters.arguments())
        for item in found:
            yield f"id: {item.sequence}\nevent: event\ndata: {view(item).model_dump_json()}\n\n"
        if found:
            after = found[-1].sequence
            seen = max(seen, after)
            continue
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                seen = await events.changed(seen)
        except TimeoutError:
            yield ": still here\n\n"
