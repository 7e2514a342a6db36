"""The ASGI application terminals push to (`httpHosts`). 200 is said only after the event is durable.

A push names no sender that could be trusted, so each terminal gets a path of its own that is hard to guess, and
its source address where one is known. Bodies are capped and read under a deadline.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from device_drivers.errors import DeviceError, FrameError
from device_drivers.isapi.driver import IsapiTerminal
from device_drivers.isapi.frame import MAX_PART, Part, split

log = logging.getLogger(__name__)

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
BODY_TIMEOUT_S = 20.0
MIN_SECRET = 16


class IsapiReceiver:
    def __init__(self, *, prefix: str = "/isapi/", body_timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._prefix = prefix
        self._body_timeout_s = body_timeout_s
        self._terminals: dict[str, tuple[IsapiTerminal, str]] = {}

    def attach(self, secret: str, terminal: IsapiTerminal, *, address: str = "") -> str:
        """The path for this terminal's `push_url`; a terminal's next driver takes over the same secret."""
        if len(secret) < MIN_SECRET or not secret.isalnum():
            raise ValueError(f"the secret part of the path needs at least {MIN_SECRET} letters and digits")
        self._terminals[secret] = (terminal, address)
        return f"{self._prefix}{secret}"

    def detach(self, secret: str) -> None:
        self._terminals.pop(secret, None)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        status = await self._answer(scope, receive)
        headers = [(b"content-length", b"0")] + ([(b"connection", b"close")] if status >= 400 else [])
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive) -> int:
        path = str(scope["path"])
        known = self._terminals.get(path.removeprefix(self._prefix).rstrip("/"))
        source = (scope.get("client") or ("",))[0]
        if known is None or not path.startswith(self._prefix) or (known[1] and known[1] != source):
            return 404
        if scope["method"] != "POST":
            return 405
        body = await self._body(receive)
        if body is None:
            return 413
        content_type = next((v.decode("latin-1") for n, v in scope["headers"] if n == b"content-type"), "")
        try:
            parts = split(content_type, body) if "multipart" in content_type else [Part(content_type, body)]
            for part in parts:
                await known[0].receive(part.content_type, part.body)
        except FrameError:
            return 400
        except DeviceError:
            return 503
        except Exception:  # the receiver outlives a failing store: the terminal keeps its record
            log.exception("isapi_not_recorded")
            return 500
        return 200

    async def _body(self, receive: Receive) -> bytes | None:
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > MAX_PART:
                        return None
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            return None
