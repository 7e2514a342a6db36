"""Real servers for these tests: an ASGI app behind uvicorn, and a recorder of raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
import uvicorn


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority with a server and a client certificate, as files."""

    ca: trustme.CA
    ca_file: Path
    client_certificate: Path
    client_key: Path

    @classmethod
    def make(cls, folder: Path) -> Authority:
        ca = trustme.CA()
        client = ca.issue_cert("gateway-1")
        made = cls(ca, folder / "ca.pem", folder / "client.pem", folder / "client.key")
        ca.cert_pem.write_to_path(made.ca_file)
        client.cert_chain_pems[0].write_to_path(made.client_certificate)
        client.private_key_pem.write_to_path(made.client_key)
        return made

    def server(self, host: str, *, require_client: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.ca.issue_cert(host).configure_cert(context)
        if require_client:
            context.verify_mode = ssl.CERT_REQUIRED
            self.ca.configure_trust(context)
        return context


@contextlib.asynccontextmanager
async def serve(app: Any, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Yields the port on 127.0.0.1."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", timeout_graceful_shutdown=1
    )
    config.load()
    config.ssl = tls
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    server.config.loaded = True
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.wait({task}, timeout=0.01)
        if task.done():
            task.result()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


@dataclass
class RawRecorder:
    """Counts every byte that reaches it; answers with `reply` (if any) once a whole request seems to be in."""

    reply: bytes = b"HTTP/1.1 204 No Content\r\n\r\n"
    received: int = 0
    connections: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.gone.clear()
        try:
            while data := await reader.read(65536):
                self.received += len(data)
                self.arrived.set()
                if self.reply:
                    writer.write(self.reply)
        except ConnectionError:
            pass
        finally:
            self.gone.set()
            writer.close()

    @contextlib.asynccontextmanager
    async def serve(self, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
        server = await asyncio.start_server(self.handle, "127.0.0.1", 0, ssl=tls)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
