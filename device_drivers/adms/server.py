"""The ASGI application push devices call: `/iclock/...`, with and without a trailing slash.

`OK: n` is said only after `record` returned; anything else answers 500 and the device sends again. Bodies are
capped, read under a deadline, and counted together, so that no device and no stranger decides our memory.
Run it with `listener.listen`, which also closes connections that never finish a request.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

from device_drivers.adms import uploads
from device_drivers.adms.commands import Dialect
from device_drivers.adms.driver import AdmsTerminal
from device_drivers.adms.gate import Gate, Verdict
from device_drivers.adms.link import Clock, CommandJournal, DeviceLink, Hooks, MemoryJournal
from device_drivers.adms.messages import confirmations
from device_drivers.adms.rows import parse_options
from device_drivers.adms.session import Info, Session, http_date
from device_drivers.devices import DeviceConfig
from device_drivers.errors import LinkError, ProtocolError
from device_drivers.listener import vouch

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Reply = tuple[int, bytes]

MAX_BODY = 4 * 1024 * 1024  # devices announce MaxPackageSize=2048000
MAX_BODIES_TOGETHER = 64 * 1024 * 1024
MAX_QUERY = 4096
BODY_TIMEOUT_S = 30.0


def utc_now() -> datetime:
    return datetime.now(UTC)


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class AdmsServer:
    def __init__(
        self,
        *,
        gate: Gate | None = None,
        hooks: Hooks | None = None,
        journal: CommandJournal | None = None,
        clock: Clock = utc_now,
        max_body: int = MAX_BODY,
        body_timeout_s: float = BODY_TIMEOUT_S,
    ) -> None:
        self.gate = gate or Gate()
        self.counters: Counter[str] = Counter()
        self._hooks = hooks or Hooks()
        self._clock = clock
        self._journal = journal or MemoryJournal(clock)
        self._max_body = max_body
        self._body_timeout_s = body_timeout_s
        self._bytes_in_flight = 0
        self._links: dict[str, DeviceLink] = {}

    def terminal(self, config: DeviceConfig, *, cursor: bytes | None = None) -> AdmsTerminal:
        """A driver for one terminal that calls here; its serial number is on the list from now on.

        Raises ValueError without a serial number: it is the only name such a device has.
        """
        if not config.serial:
            raise ValueError(f"{config.name}: a terminal that calls us needs its serial number in the configuration")
        link = self._links.get(config.serial)
        if link is None:
            session = Session(config.serial, ZoneInfo(config.timezone), config.encoding)
            link = DeviceLink(session, journal=self._journal, hooks=self._hooks, clock=self._clock)
        self.gate.admit(config.serial, config.options.get("addresses", ()))
        link.session.zone = ZoneInfo(config.timezone)
        link.session.encoding = config.encoding
        self._links[config.serial] = link
        return AdmsTerminal(config, cursor=cursor, link=link)

    def forget(self, serial: str) -> None:
        """Off the list: it may ask again and waits for a person."""
        self.gate.dismiss(serial)
        self._links.pop(serial, None)

    def shut_out(self, address: str) -> bool:
        """For the listener: whether this source is sent away unheard."""
        return self.gate.shut_out(address, asyncio.get_running_loop().time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            status, body = await self._answer(scope, receive)
        except _Refused as exc:
            status, body = exc.status, exc.text.encode()
            self.counters[f"refused_{status}"] += 1
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            (b"date", http_date(self._clock()).encode()),
        ]
        if status >= 400:  # what is left of the body is not read: the connection ends here
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        query_string: bytes = scope.get("query_string", b"")
        if len(query_string) > MAX_QUERY:
            raise _Refused(414, "query too long")
        try:
            query = dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=32))
        except ValueError:
            raise _Refused(400, "query not readable") from None
        link = self._admitted(query, (scope.get("client") or ("",))[0])
        vouch(scope)
        link.heard()
        path = str(scope["path"]).strip("/").lower()
        service = path.removeprefix("iclock/")
        if service == path or "/" in service:
            raise _Refused(404, "no such service")
        body = await self._body(scope, receive) if scope["method"] == "POST" else b""
        try:
            return await self._served(link, service, query, body)
        finally:
            self._bytes_in_flight -= len(body)

    async def _served(self, link: DeviceLink, service: str, query: dict[str, str], body: bytes) -> Reply:
        try:
            return 200, await self._serve(link, service, query, body)
        except ProtocolError as exc:
            log.warning("adms_unreadable", extra={"serial": link.serial, "service": service, "why": str(exc)})
            raise _Refused(400, "not readable") from exc
        except LinkError:
            raise _Refused(503, "not receiving") from None
        except _Refused:
            raise
        except Exception:  # the server outlives a failing store: the device keeps its records and sends again
            log.exception("adms_not_recorded", extra={"serial": link.serial, "service": service})
            raise _Refused(500, "not recorded") from None

    def _admitted(self, query: dict[str, str], address: str) -> DeviceLink:
        serial = query.get("SN") or query.get("sn") or ""
        verdict = self.gate.judge(serial, address, asyncio.get_running_loop().time())
        if verdict is Verdict.ALLOWED:
            return self._links[serial]
        if verdict is Verdict.UNKNOWN:
            self.gate.remember(serial, address, self._clock(), push_version=query.get("pushver", ""))
            raise _Refused(403, "waiting for approval")
        if verdict is Verdict.WRONG_ADDRESS:
            log.warning("adms_wrong_address", extra={"serial": serial, "address": address})
            raise _Refused(403, "not from this address")
        if verdict is Verdict.TOO_MANY:
            raise _Refused(429, "too many requests")
        raise _Refused(400, "no serial number")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """At most `max_body`, within the deadline; all bodies share one budget, this one until it is served."""
        stated = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not stated.isdigit() or int(stated) > self._max_body:
            raise _Refused(413, "body too large")
        chunks, whole = bytearray(), False
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Refused(400, "body ended early")
                    chunk = message.get("body", b"")
                    if len(chunks) + len(chunk) > self._max_body:
                        raise _Refused(413, "body too large")
                    if self._bytes_in_flight + len(chunk) > MAX_BODIES_TOGETHER:
                        raise _Refused(503, "busy")
                    self._bytes_in_flight += len(chunk)
                    chunks += chunk
                    if not message.get("more_body", False):
                        whole = True
                        return bytes(chunks)
        except TimeoutError:
            raise _Refused(408, "body too slow") from None
        finally:
            if not whole:
                self._bytes_in_flight -= len(chunks)

    async def _serve(self, link: DeviceLink, service: str, query: dict[str, str], body: bytes) -> bytes:
        session = link.session
        match service:
            case "cdata" if not body and "table" not in query:
                return session.greet(query, self._clock()).encode()
            case "cdata":
                async with link.uploading():
                    return await uploads.receive(link, query, body)
            case "querydata":
                async with link.uploading():
                    return await uploads.receive_query(link, query, body)
            case "fdata":
                async with link.uploading():
                    return await uploads.receive(link, {"table": "ATTPHOTO", **query}, body)
            case "registry":
                session.dialect = Dialect.SECURITY
                session.learn(parse_options(body, session.encoding))
                session.registry_code = session.registry_code or token_hex(8)
                return f"RegistryCode={session.registry_code}".encode()
            case "push":
                session.dialect = Dialect.SECURITY
                session.registry_code = session.registry_code or token_hex(8)
                return session.access_options().encode()
            case "rtdata" if query.get("type") == "time":
                session.dialect = Dialect.SECURITY
                return session.server_time(self._clock()).encode()
            case "getrequest":
                session.info = Info.parse(query.get("INFO", "")) or session.info
                return await link.next_commands() or b"OK"
            case "devicecmd":
                await link.confirmed(confirmations(body, session.encoding))
                return b"OK"
            case "ping":
                return b"OK"
        if service.startswith("filename="):  # PutFile makes the device fetch a file; none is offered
            self.counters["files_asked_for"] += 1
        raise _Refused(404, "no such service")
