"""A TCP server whose open connections end with it, handlers and sockets alike."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serve(handler: Handler) -> AsyncIterator[int]:
    """`handler` has each connection; the port. Broken lines are the handler's normal end."""
    lines: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = asyncio.current_task()
        assert line is not None
        lines.add(line)
        try:
            # Cancelled, it ends quietly: asyncio's stream server asks a handler for its error.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError, asyncio.CancelledError):
                await handler(reader, writer)
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)  # the transport closes its socket in the loop's next turn
            lines.discard(line)

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for _ in range(3):  # a connection accepted a moment ago has its handler in the loop's next turn
            await asyncio.sleep(0)
            for line in list(lines):
                line.cancel()
            await asyncio.gather(*lines, return_exceptions=True)
