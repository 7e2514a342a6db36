"""A small upstream of our own: what the demonstration and the fault tests deliver to.

Takes CloudEvents batches, checks the signature, and answers 204 once every event is on its disk; an event
told twice is kept once, by its id. It is also the shortest description of what we ask of a receiver.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge_agent.database import utc_now, utc_text
from edge_agent.delivery.webhook import CONTENT_TYPE, signature

MAX_BODY = 16 * 1024 * 1024
MAX_AGE_S = 300  # of a signature; older ones are somebody's recording

SCHEMA = """
CREATE TABLE IF NOT EXISTS collected (
    id        TEXT PRIMARY KEY,
    source    TEXT NOT NULL,
    sequence  TEXT NOT NULL,
    type      TEXT NOT NULL,
    time      TEXT NOT NULL,
    received  TEXT NOT NULL,
    event     TEXT NOT NULL
) STRICT
"""


@dataclass(frozen=True, slots=True)
class Tally:
    """What arrived: distinct events, and how often one came that was here already."""

    events: int
    repeats: int
    refused: int


def _texts(event: Any) -> list[str]:
    """What is kept beside the event itself. Raises KeyError, TypeError."""
    texts = [event[key] for key in ("id", "source", "sequence", "type", "time")]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("attributes are text")
    return texts


class Collector:
    """The receiver behind `app`. One connection, one lock: it is small on purpose."""

    def __init__(self, path: Path, *, secret: bytes = b"", clock: Callable[[], datetime] = utc_now) -> None:
        self._secret = secret
        self._clock = clock
        self._lock = asyncio.Lock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute(SCHEMA)
        self._repeats = 0
        self._refused = 0
        self.app = Starlette(routes=[Route("/events", self._receive, methods=["POST"])])

    def close(self) -> None:
        self._connection.close()

    async def tally(self) -> Tally:
        async with self._lock:
            (count,) = self._connection.execute("SELECT count(*) FROM collected").fetchone()
        return Tally(count, self._repeats, self._refused)

    async def newest(self, limit: int) -> list[dict[str, Any]]:
        async with self._lock:
            rows = self._connection.execute("SELECT event FROM collected ORDER BY rowid DESC LIMIT ?", (limit,))
            return [json.loads(event) for (event,) in rows]

    async def _receive(self, request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BODY:
                return self._refuse(413, "too large")
        if not self._signed(request, bytes(body)):
            return self._refuse(401, "signature")
        if request.headers.get("content-type") != CONTENT_TYPE:
            return self._refuse(415, f"expected {CONTENT_TYPE}")
        try:
            events = json.loads(body)
            received = utc_text(self._clock())
            rows = [(*_texts(event), received, json.dumps(event)) for event in events]
        except (ValueError, KeyError, TypeError) as exc:
            return self._refuse(400, f"not a CloudEvents batch: {type(exc).__name__} {exc}")
        async with self._lock:
            new = await asyncio.to_thread(self._store, rows)
        self._repeats += len(rows) - new
        return Response(status_code=204)

    def _store(self, rows: list[tuple[Any, ...]]) -> int:
        self._connection.execute("BEGIN IMMEDIATE")
        new = sum(
            self._connection.execute("INSERT OR IGNORE INTO collected VALUES (?, ?, ?, ?, ?, ?, ?)", row).rowcount
            for row in rows
        )
        self._connection.execute("COMMIT")
        return new

    def _signed(self, request: Request, body: bytes) -> bool:
        if not self._secret:
            return True
        headers = request.headers
        try:
            timestamp = int(headers.get("webhook-timestamp", ""))
        except ValueError:
            return False
        if abs(self._clock().timestamp() - timestamp) > MAX_AGE_S:
            return False
        expected = signature(self._secret, headers.get("webhook-id", ""), timestamp, body)
        return any(hmac.compare_digest(expected, given) for given in headers.get("webhook-signature", "").split(" "))

    def _refuse(self, status: int, reason: str) -> Response:
        self._refused += 1
        return JSONResponse({"error": reason}, status_code=status)
