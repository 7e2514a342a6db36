"""The HTTP side of a simulated terminal: digest authentication, few connections, answers that may hang.

Written on plain sockets, because a proper web server would not hang or break off as real terminals do.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

REALM = "IP Camera(A1234)"
NONCE = "4e6d4d774d7a41354e5445364d6a55784d6a67314d673d3d"


@dataclass(slots=True)
class Request:
    method: str
    path: str
    query: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Answer:
    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    stream: asyncio.Queue[bytes | None] | None = None  # sent as it comes; None ends it


Handle = Callable[[Request], Awaitable[Answer]]


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def digest_ok(header: str, request: Request, username: str, password: str) -> bool:
    """RFC 7616 with MD5 and qop=auth, as the firmware asks for."""
    said = dict(re.findall(r'(\w+)="?([^",]*)"?', header))
    a1 = _md5(f"{username}:{REALM}:{password}")
    a2 = _md5(f"{request.method}:{said.get('uri', '')}")
    parts = (a1, NONCE, said.get("nc", ""), said.get("cnonce", ""), said.get("qop", ""), a2)
    return said.get("username") == username and said.get("response") == _md5(":".join(parts))


class DigestServer:
    def __init__(self, handle: Handle, *, username: str, password: str, max_connections: int) -> None:
        self._handle = handle
        self._username, self._password = username, password
        self.max_connections = max_connections
        self.address = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Listening ends and every open connection breaks, as when the cable is pulled."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 always inside one
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            # A cancelled handler is how `stop` breaks connections: asyncio's stream server wants it to end quietly.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError, asyncio.CancelledError):
                while (request := await self._read(reader)) is not None:
                    if not await self._reply(writer, request):
                        break
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> Request | None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:]) if k}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        path, _, query = target.partition("?")
        return Request(method, path, query, body, headers)

    async def _reply(self, writer: asyncio.StreamWriter, request: Request) -> bool:
        """False: the connection is over."""
        if len(self._writers) > self.max_connections:
            answer = Answer(403, b'{"statusCode":2,"statusString":"Device Busy","subStatusCode":"maxSessionNum"}')
        elif not digest_ok(request.headers.get("authorization", ""), request, self._username, self._password):
            writer.write(
                b'HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: Digest qop="auth", '
                + f'realm="{REALM}", nonce="{NONCE}", algorithm="MD5"\r\n\r\n'.encode()
            )
            await writer.drain()
            return True
        else:
            answer = await self._handle(request)
        head = f"HTTP/1.1 {answer.status} X\r\nContent-Type: {answer.content_type}\r\n"
        if answer.stream is None:
            writer.write(f"{head}Content-Length: {len(answer.body)}\r\n\r\n".encode() + answer.body)
            await writer.drain()
            return True
        writer.write(f"{head}Connection: close\r\n\r\n".encode())
        await writer.drain()
        while (data := await answer.stream.get()) is not None:
            writer.write(data)
            await writer.drain()
        return False
