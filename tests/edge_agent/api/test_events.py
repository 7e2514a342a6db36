from __future__ import annotations

import asyncio
import json
from datetime import timedelta

from edge_agent.delivery.outbox import Event
from tests.edge_agent.api.client import Site


def punch(site: Site, n: int, **data: object) -> Event:
    at = site.clock() + timedelta(seconds=n)
    return Event(f"id-{n}", "attendance.punch", at, "lobby", None, {"user_id": str(n), **data})


async def test_pages_lead_back_to_the_first_event(site: Site) -> None:
    await site.outbox.append([punch(site, n) for n in range(7)])
    client = await site.administrator()
    seen: list[str] = []
    query: dict[str, int] = {"limit": 3}
    while True:
        page = (await client.get("/api/v1/events", params=query)).json()
        seen += [event["id"] for event in page["events"]]
        if page["next_before"] is None:
            break
        query["before"] = page["next_before"]
    assert seen == [f"id-{n}" for n in reversed(range(7))]


async def test_a_cursor_leads_forward_over_what_is_new(site: Site) -> None:
    await site.outbox.append([punch(site, n) for n in range(3)])
    client = await site.administrator()
    first = (await client.get("/api/v1/events", params={"after": 0})).json()
    await site.outbox.append([punch(site, 9)])
    second = (await client.get("/api/v1/events", params={"after": first["next_after"]})).json()
    assert [event["id"] for event in second["events"]] == ["id-9"]


async def test_filters_and_their_faults(site: Site) -> None:
    await site.outbox.append([punch(site, n) for n in range(3)])
    client = await site.administrator()
    since = (site.clock() + timedelta(seconds=2)).isoformat()
    found = (await client.get("/api/v1/events", params={"since": since, "type": "attendance."})).json()
    assert [event["id"] for event in found["events"]] == ["id-2"]
    naive = await client.get("/api/v1/events", params={"since": "2026-11-23T08:00:00"})
    assert naive.status_code == 422


async def test_an_export_is_complete_and_no_spreadsheet_formula(site: Site) -> None:
    await site.outbox.append([punch(site, n) for n in range(1500)])
    await site.outbox.append([Event("=cmd()", "attendance.punch", site.clock(), "lobby", None, {})])
    made = await site.governance.database.write(lambda c: _exporter(c, site))
    client = site.client(Authorization=f"Bearer {made}")
    lines = (await client.get("/api/v1/events/export", params={"format": "ndjson"})).text.splitlines()
    assert len(lines) == 1501
    assert json.loads(lines[0])["sequence"] == 1
    text = (await client.get("/api/v1/events/export")).text
    assert "'=cmd()" in text
    admin = await site.administrator()
    assert (await admin.get("/api/v1/events/export")).status_code == 403  # exporting is a scope of its own


def _exporter(connection: object, site: Site) -> str:
    import sqlite3

    from edge_agent.api import access_tokens
    from edge_agent.policy.roles import Scope

    assert isinstance(connection, sqlite3.Connection)
    return access_tokens.issue(
        connection, "exporter", scopes=[Scope.EXPORT], lifetime=timedelta(days=1), now=site.clock(),
        created_by=access_tokens.MACHINE,
    )  # fmt: skip


async def test_the_stream_gives_what_was_missed_and_then_what_happens(site: Site) -> None:
    from edge_agent.api.events import Filters, _stream

    await site.outbox.append([punch(site, n) for n in range(2)])
    stream = _stream(site.outbox, Filters(), 1)
    assert (await anext(stream)).startswith("retry:")
    assert "id: 2\n" in await anext(stream)
    waiting = asyncio.create_task(anext(stream))
    await site.outbox.append([punch(site, 5)])
    async with asyncio.timeout(5):
        assert '"id":"id-5"' in await waiting


async def test_quarantine_is_shown_with_upstreams_words_and_judged_by_a_person(site: Site) -> None:
    await site.outbox.register("hr")
    await site.outbox.append([punch(site, 1), punch(site, 2)])
    await site.outbox.quarantine("hr", 1, reason="HTTP 422", reply='{"code":"USER_NOT_FOUND"}')
    client = await site.administrator()
    [held] = (await client.get("/api/v1/quarantine")).json()
    assert (held["reason"], held["event"]["id"]) == ("HTTP 422", "id-1")
    [books] = (await client.get("/api/v1/upstreams")).json()
    assert (books["pending"], books["quarantined"], books["balanced"]) == (1, 1, True)
    assert (await client.post("/api/v1/quarantine", json={"upstream": "hr", "action": "release"})).json() == {
        "count": 1
    }
    unknown = await client.post("/api/v1/quarantine", json={"upstream": "x", "action": "discard"})
    assert unknown.status_code == 404


async def test_a_revoked_upstream_is_owed_nothing_more(site: Site) -> None:
    await site.outbox.register("hr")
    client = await site.administrator()
    assert (await client.post("/api/v1/upstreams/hr/revoke")).status_code == 204
    [books] = (await client.get("/api/v1/upstreams")).json()
    assert books["revoked"] is True
    assert (await client.post("/api/v1/upstreams/none/revoke")).status_code == 404
