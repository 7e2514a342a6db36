"""One request straight into an ASGI application, for targets that fuzz whole requests."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp


async def status_of(app: ASGIApp, path: str, body: bytes, *, query: bytes = b"", **headers: bytes) -> int:
    scope = {
        "type": "http", "method": "POST", "path": path, "query_string": query, "client": ("192.0.2.1", 1),
        "headers": [(name.replace("_", "-").encode(), value) for name, value in headers.items()],
    }  # fmt: skip
    statuses: list[int] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        if "status" in message:
            statuses.append(message["status"])

    await app(scope, receive, send)
    return statuses[0]
