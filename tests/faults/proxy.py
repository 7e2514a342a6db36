"""Between gateway and upstream: requests answered 503, dropped unread, or stored while the answer is lost."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from random import Random

REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


@dataclass
class FaultProxy:
    """Shares in 0..1; `random` decides each request."""

    upstream: int
    random: Random
    unavailable: float = 0.15
    dropped_before: float = 0.05
    ack_dropped: float = 0.10
    lines: set[asyncio.Task[None]] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=lambda: {"503": 0, "dropped": 0, "ack lost": 0, "passed": 0})

    @contextlib.asynccontextmanager
    async def serve(self):  # type: ignore[no-untyped-def]
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for line in list(self.lines):
                line.cancel()
            await asyncio.gather(*self.lines, return_exceptions=True)
            await server.wait_closed()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = asyncio.current_task()
        if line is None:
            return
        self.lines.add(line)
        try:
            # Cancelled, it ends quietly: asyncio's stream server asks a handler for its error.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    body = await reader.readexactly(_length(head))
                    if not await self._request(head + body, writer):
                        break
        finally:
            self.lines.discard(line)
            writer.transport.abort()
            await asyncio.sleep(0)  # the transport closes its socket in the loop's next turn

    async def _request(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        """Whether the client's connection goes on."""
        lot = self.random.random()
        if lot < self.unavailable:
            self.counts["503"] += 1
            writer.write(REFUSAL)
            return True
        lot -= self.unavailable
        if lot < self.dropped_before:
            self.counts["dropped"] += 1
            return False
        answer = await self._forward(request)
        if lot - self.dropped_before < self.ack_dropped:
            self.counts["ack lost"] += 1
            return False
        self.counts["passed"] += 1
        writer.write(answer)
        return bool(answer)

    async def _forward(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            return head + await reader.readexactly(_length(head))
        finally:
            writer.close()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
