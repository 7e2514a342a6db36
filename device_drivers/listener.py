"""Serve an ASGI application on a socket of its own, with a deadline for every request head.

uvicorn times an idle connection out only after its first answer, so a peer that sends its head one byte at a time
would hold a socket for ever. Connections are also bounded, in total and by source. A whole site may come from one
address, so a source may have few that the application has not vouched for (`vouch`), and half of all that it has. One
the application has shut out is sent away before anything is made for it: answering a flood of strangers would starve
the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, MutableMapping
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

HEAD_TIMEOUT_S = 15.0
KEEP_ALIVE_S = 90
CLOSE_S = 5.0  # for requests under way when we stop
MAX_HEAD = 16 * 1024
MAX_CONNECTIONS = 2000
MAX_STRANGE_PER_SOURCE = 64  # connections nobody vouched for yet
BACKLOG = 128  # asyncio takes as many off the queue in one turn: a flood must not hold the loop

ShutOut = Callable[[str], bool]
VOUCH = "listener.vouch"


def vouch(scope: MutableMapping[str, Any]) -> None:
    """For the application: who sent this request is known, its connection counts no more against its source."""
    if (vouched := scope.get("state", {}).get(VOUCH)) is not None:
        vouched()


class Admission:
    """Counts open connections; shared by all of one listener."""

    def __init__(self, *, total: int, per_source: int, head_timeout_s: float, shut_out: ShutOut | None) -> None:
        self.total, self.per_source, self.head_timeout_s = total, per_source, head_timeout_s
        self.shut_out = shut_out
        self.strange: Counter[str] = Counter()  # open and not vouched for, by source
        self.known: Counter[str] = Counter()
        self.refused = 0
        self.too_slow = 0
        self._all = 0

    def enter(self, source: str) -> bool:
        crowded = (
            self._all >= self.total
            or self.strange.get(source, 0) >= self.per_source
            or self.known.get(source, 0) >= self.total // 2
        )
        if crowded or (self.shut_out is not None and self.shut_out(source)):
            self.refused += 1
            return False
        self.strange[source] += 1
        self._all += 1
        return True

    def vouched(self, source: str) -> None:
        _one_less(self.strange, source)
        self.known[source] += 1

    def leave(self, source: str, *, vouched: bool) -> None:
        self._all -= 1
        _one_less(self.known if vouched else self.strange, source)


def _one_less(counts: Counter[str], source: str) -> None:
    counts[source] -= 1
    if counts[source] <= 0:
        del counts[source]


class Doorkeeper(asyncio.Protocol):
    """What a connection meets first; an HTTP protocol is made only for one that may stay."""

    def __init__(self, admission: Admission, config: Config, state: ServerState) -> None:
        self._admission, self._config, self._state = admission, config, state

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            return
        peer = transport.get_extra_info("peername")
        source = str(peer[0]) if isinstance(peer, tuple) and peer else ""
        if not self._admission.enter(source):
            transport.abort()
            return
        protocol = TimedProtocol(self._admission, self._config, self._state, source=source)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


class TimedProtocol(H11Protocol):
    def __init__(self, admission: Admission, config: Config, state: ServerState, *, source: str) -> None:
        super().__init__(config=config, server_state=state, app_state={VOUCH: self._vouch})
        self._admission = admission
        self._source = source
        self._vouched = False
        self._head_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._admission.leave(self._source, vouched=self._vouched)
        self._got_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._idle() and self._head_deadline is None:
            self._expect_head()
        super().data_received(data)
        if not self._idle():
            self._got_head()

    def _vouch(self) -> None:
        if not self._vouched:
            self._vouched = True
            self._admission.vouched(self._source)

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
    max_strange_per_source: int = MAX_STRANGE_PER_SOURCE,
    head_timeout_s: float = HEAD_TIMEOUT_S,
    shut_out: ShutOut | None = None,
) -> AsyncIterator[asyncio.Server]:
    """The application is reachable inside the block; `server.sockets` tells the port when 0 was asked for.

    `shut_out` says of a source address whether it is sent away unheard: `AdmsServer.shut_out`.
    """
    config = Config(
        app, interface="asgi3", log_config=None, access_log=False, lifespan="off", ws="none",
        timeout_keep_alive=KEEP_ALIVE_S, h11_max_incomplete_event_size=MAX_HEAD, server_header=False,
        date_header=False,
        proxy_headers=False,  # a source address is what the socket says, never what a header claims
    )  # fmt: skip
    config.load()
    state = ServerState()
    admission = Admission(
        total=max_connections, per_source=max_strange_per_source, head_timeout_s=head_timeout_s, shut_out=shut_out
    )
    server = await asyncio.get_running_loop().create_server(
        lambda: Doorkeeper(admission, config, state),
        host,
        port,
        ssl=tls,
        ssl_handshake_timeout=head_timeout_s if tls else None,
        backlog=BACKLOG,
    )
    try:
        yield server
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=CLOSE_S)
        for connection in list(state.connections):
            connection.transport.abort()
        with contextlib.suppress(TimeoutError):  # from Python 3.12 this also waits for unfinished TLS handshakes
            async with asyncio.timeout(CLOSE_S):
                await server.wait_closed()
