"""What a page shows as it happens: one stream a page, for the rows, the figures and the lamps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi.responses import Response, StreamingResponse

from edge_agent.api.context import Gateway
from edge_agent.console import views
from edge_agent.console.day import today
from edge_agent.console.page import Visit, number
from edge_agent.policy.roles import Scope

BURST_S = 0.25  # a burst becomes one flush
STATE_S = 2.0  # how often lamps, devices and doors are looked at
CHECK_S = 10.0  # how often the session is looked at, and the line kept open
LIVE_PAGE = 50


class Live:
    def __init__(self, gateway: Gateway, look: Callable[[], Awaitable[str]]) -> None:
        self._gateway = gateway
        self._look = look

    async def live(self, visit: Visit) -> Response:
        """From where the page ends, or where a broken stream ended: nothing in between is passed over."""
        after = number(visit.request.headers.get("last-event-id", "") or visit.query("after"))
        if after is None:
            newest = await self._gateway.outbox.events(limit=1, newest_first=True)
            after = newest[0].sequence if newest else 0
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(self._stream(visit, after), media_type="text/event-stream", headers=headers)

    async def _stream(self, visit: Visit, after: int) -> AsyncIterator[str]:
        outbox, clock = self._gateway.outbox, asyncio.get_running_loop().time
        rows_too = visit.may(Scope.EVENTS_READ)
        looked, checked, shown = 0.0, clock(), ""
        yield "retry: 2000\n\n"
        while True:
            found = await outbox.events(after=after, limit=LIVE_PAGE) if rows_too else []
            if found:
                after = found[-1].sequence
            for row in await views.shown_rows(self._gateway, found, visit.t):
                yield f"id: {row['sequence']}\n" + _event("row", row)
            if clock() - looked >= STATE_S:
                digest = await self._look()
                light = visit.pages.light(visit.t, visit.caller) | {"digest": digest}
                if (text := _event("state", light)) != shown:
                    yield text
                    shown = text
                if rows_too:
                    yield _event("figure", await self._figures(visit))
                looked = clock()
            if clock() - checked >= CHECK_S:
                if not await visit.pages.still(visit):
                    return
                yield ": still here\n\n"
                checked = clock()
            try:
                async with asyncio.timeout(STATE_S):
                    await outbox.changed(after if rows_too else outbox.last_sequence)
                    await asyncio.sleep(BURST_S)
            except TimeoutError:
                continue

    async def _figures(self, visit: Visit) -> dict[str, str]:
        books = views.total(await self._gateway.outbox.stats())
        figures = {name: f"{getattr(books, name):,}" for name in ("received", "delivered", "pending", "quarantined")}
        return figures | {key: f"{value:,}" for _, key, value in (await today(self._gateway, visit.t))["kpi"]}


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
