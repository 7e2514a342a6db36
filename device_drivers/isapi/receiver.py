"""The ASGI application terminals push to (`httpHosts`). 200 is said only after the event is durable.

A push names no sender that could be trusted: `push.Inbox` says what proves it. Bodies are capped, read under a
deadline, and counted together. Pictures in them are dropped and counted by the driver; no byte of them is kept.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from device_drivers.devices import DeviceConfig
from device_drivers.errors import DeviceError, FrameError
from device_drivers.isapi.driver import IsapiTerminal
from device_drivers.isapi.frame import MAX_PART, Part, split
from device_drivers.isapi.push import PREFIX, Inbox, inbox_maker
from device_drivers.listener import vouch

log = logging.getLogger(__name__)

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
BODY_TIMEOUT_S = 20.0
MAX_BODIES_TOGETHER = 16 * 1024 * 1024


class IsapiReceiver:
    """One for the agent; `listening` once there is a port to push to."""

    def __init__(self, *, derive: Callable[[str], bytes], body_timeout_s: float = BODY_TIMEOUT_S) -> None:
        self.counters: Counter[str] = Counter()
        self._inbox = inbox_maker(derive)
        self._body_timeout_s = body_timeout_s
        self._bytes_in_flight = 0
        self._terminals: dict[str, IsapiTerminal] = {}  # by secret, while their drivers run
        self._port: int | None = None
        self._tls = False

    def listening(self, port: int, *, tls: bool) -> None:
        """Drivers made from now on tell their terminals this port."""
        self._port, self._tls = port, tls

    def terminal(self, config: DeviceConfig, *, cursor: bytes | None = None) -> IsapiTerminal:
        """A driver that can be pushed to, where the configuration wants that and there is a port."""
        inbox = None if self._port is None else self._inbox(config.name, self._port, self._tls)
        return IsapiTerminal(config, cursor=cursor, inbox=inbox, receiver=self)

    def knows(self, address: str) -> bool:
        """Whether a terminal that pushes is at this address."""
        return any(terminal.pushes_from(address) for terminal in self._terminals.values())

    def opened(self, inbox: Inbox, terminal: IsapiTerminal) -> None:
        """By a driver: from now on it is pushed to."""
        self._terminals[inbox.secret] = terminal

    def closed(self, inbox: Inbox, terminal: IsapiTerminal) -> None:
        if self._terminals.get(inbox.secret) is terminal:
            del self._terminals[inbox.secret]

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        status, challenge = await self._answer(scope, receive)
        self.counters[f"answered_{status}"] += 1
        headers = [(b"content-length", b"0")]
        if challenge:
            headers.append((b"www-authenticate", challenge.encode()))
        elif status >= 400:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive) -> tuple[int, str]:
        path = str(scope["path"])
        terminal = self._terminals.get(path.removeprefix(PREFIX).rstrip("/")) if path.startswith(PREFIX) else None
        inbox = terminal.inbox if terminal is not None else None
        if terminal is None or inbox is None:
            return 404, ""
        source = str((scope.get("client") or ("",))[0])
        if not terminal.pushes_from(_plain(source)):
            log.warning("isapi_wrong_address", extra={"device": terminal.config.name, "address": source})
            return 404, ""
        if scope["method"] != "POST":
            return 405, ""
        headers = dict(scope["headers"])
        stated = headers.get(b"content-length", b"0")
        if not stated.isdigit() or len(stated) > 9 or int(stated) > MAX_PART:
            return 413, ""
        body = await self._body(receive)
        if isinstance(body, int):
            return body, ""
        try:
            if inbox.asks_digest:
                said = headers.get(b"authorization", b"").decode("latin-1")
                if not inbox.digest.passes(said, method="POST", path=path):
                    return 401, inbox.digest.challenge()
            vouch(scope)
            return await self._pass_on(terminal, headers.get(b"content-type", b"").decode("latin-1"), body), ""
        finally:
            self._bytes_in_flight -= len(body)

    async def _pass_on(self, terminal: IsapiTerminal, content_type: str, body: bytes) -> int:
        try:
            parts = split(content_type, body) if "multipart" in content_type.lower() else [Part(content_type, body)]
            for part in parts:
                await terminal.pushed(part.content_type, part.body)
        except FrameError:
            return 400
        except DeviceError:
            return 503
        except Exception:  # the receiver outlives a failing store: the terminal keeps its record
            log.exception("isapi_not_recorded", extra={"device": terminal.config.name})
            return 500
        return 200

    async def _body(self, receive: Receive) -> bytes | int:
        """The body, which counts against the budget until it is served, or the status that says why there is none."""
        body, whole = bytearray(), False
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return 400
                    chunk = message.get("body", b"")
                    if len(body) + len(chunk) > MAX_PART:
                        return 413
                    if self._bytes_in_flight + len(chunk) > MAX_BODIES_TOGETHER:
                        return 503
                    self._bytes_in_flight += len(chunk)
                    body += chunk
                    if not message.get("more_body", False):
                        whole = True
                        return bytes(body)
        except TimeoutError:
            return 408
        finally:
            if not whole:
                self._bytes_in_flight -= len(body)


def _plain(address: str) -> str:
    """An IPv4 address that came through an IPv6 socket, as IPv4."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)
