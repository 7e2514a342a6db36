"""Requests to one terminal: digest authentication, bounded answers, refusals as errors.

A terminal has a handful of connections: past them it answers 403, the same as for a function it lacks. The body tells
the two apart; the busy one is asked again after a pause, except where doing it twice would matter.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx

from device_drivers.errors import (
    AuthenticationFailed,
    DeviceRefused,
    LinkError,
    LinkTimeout,
    ProtocolError,
    Unsupported,
)
from device_drivers.isapi.messages import MAX_DOCUMENT, Json, parse, status

CONNECT_TIMEOUT_S = 8.0
REQUEST_TIMEOUT_S = 15.0
STREAM_SILENCE_S = 45.0  # heartbeats come every 10 to 30 s; streams are known to hang without closing
PAUSES_S = (0.5, 1.5, 4.0)  # before asking a busy terminal again
MAX_CONNECTIONS = 3

Sleep = Callable[[float], Awaitable[None]]


class Busy(LinkError):
    """The terminal has no connection left for us."""


class IsapiClient:
    def __init__(
        self,
        base_url: str,
        *,
        username: str,
        password: str,
        verify: Any = True,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.base_url = base_url
        self.local = ""  # our address and the terminal's, as of the last exchange
        self.peer = ""
        self._sleep = sleep
        self._timeout_s = request_timeout_s
        self._http = httpx.AsyncClient(
            base_url=base_url,
            auth=httpx.DigestAuth(username, password),
            verify=verify,
            timeout=httpx.Timeout(request_timeout_s, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=1),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def pause(self, seconds: float) -> None:
        """Between two looks at something the terminal is still at."""
        await self._sleep(seconds)

    async def get(self, path: str) -> Json:
        return parse(await self.request("GET", path))

    async def json(self, method: str, path: str, body: Json, *, again_if_busy: bool = True) -> Json:
        joint = "&" if "?" in path else "?"
        answer = await self.request(method, f"{path}{joint}format=json", json=body, again_if_busy=again_if_busy)
        return parse(answer) if answer.strip() else {}

    async def xml(self, method: str, path: str, body: bytes, *, again_if_busy: bool = True) -> Json:
        answer = await self.request(
            method, path, content=body, headers={"content-type": "application/xml"}, again_if_busy=again_if_busy
        )
        return parse(answer) if answer.strip() else {}

    async def request(self, method: str, path: str, *, again_if_busy: bool = True, **content: Any) -> bytes:
        """The body of a good answer.

        Raises Unsupported, AuthenticationFailed, DeviceRefused, Busy, LinkTimeout, LinkError or ProtocolError.
        """
        pauses = PAUSES_S if again_if_busy else ()
        for pause in pauses:
            try:
                return await self._once(method, path, content)
            except Busy:
                await self._sleep(pause)
        return await self._once(method, path, content)

    async def _once(self, method: str, path: str, content: dict[str, Any]) -> bytes:
        async with self._exchange(method, path, content, timeout_s=self._timeout_s) as response:
            body = await self._bounded(response)
            self._judge(response.status_code, body, path)
            return body

    @contextlib.asynccontextmanager
    async def _exchange(
        self, method: str, path: str, content: dict[str, Any], *, timeout_s: float
    ) -> AsyncIterator[httpx.Response]:
        try:
            async with self._http.stream(method, path, **content) as response:
                if (line := response.extensions.get("network_stream")) is not None:
                    self.local = _host(line.get_extra_info("client_addr")) or self.local
                    self.peer = _host(line.get_extra_info("server_addr")) or self.peer
                yield response
        except httpx.TimeoutException as exc:
            raise LinkTimeout(self.base_url, timeout_s) from exc
        except (httpx.TransportError, httpx.StreamError) as exc:
            raise LinkError(f"{self.base_url}: {type(exc).__name__}") from exc

    @staticmethod
    async def _bounded(response: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_DOCUMENT:
                raise ProtocolError(f"an answer of more than {MAX_DOCUMENT} bytes")
        return bytes(body)

    def _judge(self, code: int, body: bytes, path: str) -> None:
        if 200 <= code < 300:
            return
        said = status(body)
        where = path.partition("?")[0]
        if code == 401:
            raise AuthenticationFailed(f"{self.base_url}: user name or password refused", code=code)
        if code in {404, 405, 501} or said.not_supported:
            raise Unsupported(f"{where}: not on this model")
        if code in {403, 503}:
            raise Busy(f"{self.base_url}: no connection free ({said.sub_code or code})")
        why = said.sub_code or said.words or code
        raise DeviceRefused(f"{where}: {why}", code=said.code or code, sub_code=said.sub_code)

    @contextlib.asynccontextmanager
    async def stream(self, path: str, *, silence_s: float = STREAM_SILENCE_S) -> AsyncIterator[httpx.Response]:
        """An answer without an end. Reading raises LinkTimeout after `silence_s` without a byte."""
        timeout = httpx.Timeout(silence_s, connect=CONNECT_TIMEOUT_S)
        async with self._exchange("GET", path, {"timeout": timeout}, timeout_s=silence_s) as response:
            if response.status_code != 200:
                self._judge(response.status_code, await self._bounded(response), path)
            yield response


def _host(address: object) -> str:
    return str(address[0]) if isinstance(address, tuple) and address else ""
