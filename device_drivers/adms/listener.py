"""Serve the push application on a socket of its own, with a deadline for every request head.

uvicorn times an idle connection out only after its first answer, so a peer that sends its head one byte at a time
would hold a socket for ever. Connections are also bounded, in total and by source.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

HEAD_TIMEOUT_S = 15.0
KEEP_ALIVE_S = 90
MAX_HEAD = 16 * 1024
MAX_CONNECTIONS = 2000
MAX_CONNECTIONS_PER_SOURCE = 64
BACKLOG = 1024


class Admission:
    """Counts open connections; shared by all of one listener."""

    def __init__(self, *, total: int, per_source: int, head_timeout_s: float) -> None:
        self.total, self.per_source, self.head_timeout_s = total, per_source, head_timeout_s
        self.open: Counter[str] = Counter()
        self.refused = 0
        self.too_slow = 0

    def enter(self, source: str) -> bool:
        if self.open.total() >= self.total or self.open[source] >= self.per_source:
            self.refused += 1
            return False
        self.open[source] += 1
        return True

    def leave(self, source: str) -> None:
        self.open[source] -= 1
        if self.open[source] <= 0:
            del self.open[source]


class TimedProtocol(H11Protocol):
    def __init__(self, admission: Admission, config: Config, state: ServerState) -> None:
        super().__init__(config=config, server_state=state, app_state={})
        self._admission = admission
        self._source: str | None = None
        self._head_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        source = self.client[0] if self.client else ""
        if not self._admission.enter(source):
            transport.abort()
            return
        self._source = source
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._source is not None:
            self._admission.leave(self._source)
            self._source = None
        self._got_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._idle() and self._head_deadline is None:
            self._expect_head()
        super().data_received(data)
        if not self._idle():
            self._got_head()

    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_head(self) -> None:
        self._head_deadline = self.loop.call_later(self._admission.head_timeout_s, self._give_up)

    def _got_head(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _give_up(self) -> None:
        self._admission.too_slow += 1
        self.transport.abort()


@contextlib.asynccontextmanager
async def listen(
    app: Any,
    *,
    host: str,
    port: int,
    tls: ssl.SSLContext | None = None,
    max_connections: int = MAX_CONNECTIONS,
    max_connections_per_source: int = MAX_CONNECTIONS_PER_SOURCE,
    head_timeout_s: float = HEAD_TIMEOUT_S,
) -> AsyncIterator[asyncio.Server]:
    """The application is reachable inside the block; `server.sockets` tells the port when 0 was asked for."""
    config = Config(
        app, log_config=None, access_log=False, lifespan="off", ws="none", timeout_keep_alive=KEEP_ALIVE_S,
        h11_max_incomplete_event_size=MAX_HEAD, server_header=False, date_header=False,
    )  # fmt: skip
    config.load()
    state = ServerState()
    admission = Admission(total=max_connections, per_source=max_connections_per_source, head_timeout_s=head_timeout_s)
    server = await asyncio.get_running_loop().create_server(
        lambda: TimedProtocol(admission, config, state), host, port, ssl=tls, backlog=BACKLOG
    )
    try:
        yield server
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=5.0)
        for connection in list(state.connections):
            connection.transport.abort()
        await server.wait_closed()
