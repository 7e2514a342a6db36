"""Between gateway and upstream: requests answered 503, dropped unread, or stored while the answer is lost."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from random import Random

from tests.faults import lines

REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


@dataclass
class FaultProxy:
    """Shares in 0..1; `random` decides each request."""

    upstream: int
    random: Random
    unavailable: float = 0.15
    dropped_before: float = 0.05
    ack_dropped: float = 0.10
    counts: dict[str, int] = field(default_factory=lambda: {"503": 0, "dropped": 0, "ack lost": 0, "passed": 0})

    def serve(self) -> AbstractAsyncContextManager[int]:
        return lines.serve(self._client)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(_length(head))
            if not await self._request(head + body, writer):
                return

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
