"""The embedded upstream, as our own webhook and as a stranger see it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from edge_agent.delivery.collector import MAX_BODY, Collector
from edge_agent.delivery.sink import NotAdmitted
from edge_agent.delivery.webhook import CONTENT_TYPE, WebhookConfig, WebhookSink, signature
from tests.edge_agent.delivery.servers import serve

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
SECRET = b"shared"


def message(n: int) -> dict[str, Any]:
    return {"id": f"id-{n}", "source": "/acme/gw1", "sequence": f"{n:016d}", "type": "t", "time": "x", "data": {"n": n}}


@contextlib.asynccontextmanager
async def collecting(path: Path) -> AsyncIterator[tuple[Collector, str]]:
    collector = Collector(path / "collected.db", secret=SECRET, clock=lambda: NOW)
    try:
        async with serve(collector.app) as port:
            yield collector, f"http://127.0.0.1:{port}/events"
    finally:
        collector.close()


async def test_keeps_each_event_once_over_restarts(tmp_path: Path) -> None:
    for _ in range(2):
        async with collecting(tmp_path) as (collector, url):
            sink = WebhookSink(WebhookConfig(url, secret=SECRET), clock=lambda: NOW)
            await sink.send([message(1), message(2)])
            await sink.send([message(2), message(3)])
            await sink.close()
            assert (await collector.tally()).events == 3
            assert await collector.newest(1) == [message(3)]


@pytest.mark.parametrize(
    ("secret", "at"), [(b"another", NOW), (b"", NOW), (SECRET, NOW - timedelta(minutes=6))], ids=["key", "none", "old"]
)
async def test_takes_nothing_with_a_wrong_or_old_signature(tmp_path: Path, secret: bytes, at: datetime) -> None:
    async with collecting(tmp_path) as (collector, url):
        sink = WebhookSink(WebhookConfig(url, secret=secret), clock=lambda: at)
        with pytest.raises(NotAdmitted):
            await sink.send([message(1)])
        await sink.close()
        assert (await collector.tally()).events == 0


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"[]", CONTENT_TYPE, 204),
        (b"[]", "application/json", 415),
        (b"{", CONTENT_TYPE, 400),
        (b"5", CONTENT_TYPE, 400),
        (b'[{"id": "x"}]', CONTENT_TYPE, 400),
        (json.dumps([{**message(1), "id": ["x"]}]).encode(), CONTENT_TYPE, 400),
        (b"x" * (MAX_BODY + 1), CONTENT_TYPE, 413),
    ],
)
async def test_whatever_comes_gets_an_answer(tmp_path: Path, body: bytes, content_type: str, status: int) -> None:
    stamp = int(NOW.timestamp())
    headers = {
        "content-type": content_type,
        "webhook-id": "i",
        "webhook-timestamp": str(stamp),
        "webhook-signature": signature(SECRET, "i", stamp, body),
    }
    async with collecting(tmp_path) as (collector, url), httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(url, content=body, headers=headers)
        assert answer.status_code == status
        assert (await collector.tally()).events == 0
