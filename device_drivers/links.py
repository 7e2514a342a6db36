"""TCP streams, UDP sockets and serial lines: the only raw sockets and serial ports of this package.

A link moves bytes and reports loss as LinkError; it knows no protocol and keeps no more than
`MAX_READ` bytes (streams) or `MAX_DATAGRAMS` packets (UDP) of a peer that talks faster than we read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Protocol

import serial
import serial_asyncio_fast

from device_drivers.errors import LinkError, LinkTimeout

MAX_READ = 64 * 1024
MAX_DATAGRAMS = 1024
CONNECT_TIMEOUT_S = 10.0


def split_address(address: str, default_port: int) -> tuple[str, int]:
    """`host`, `host:port` or `[v6]:port` -> (host, port). Raises ValueError with the faulty text."""
    if address.startswith("["):
        host, bracket, rest = address[1:].partition("]")
        if not bracket:
            raise ValueError(f"{address!r}: an IPv6 address needs a closing bracket")
        port_text = rest.removeprefix(":")
    elif address.count(":") > 1:
        host, port_text = address, ""
    else:
        host, _, port_text = address.partition(":")
    if not host:
        raise ValueError(f"{address!r}: no host")
    if not port_text:
        return host, default_port
    if not port_text.isdecimal() or not 0 < int(port_text) < 65536:
        raise ValueError(f"{address!r}: the port must be a number from 1 to 65535")
    return host, int(port_text)


class Link(Protocol):
    """Bytes to and from one peer."""

    address: str

    async def send(self, data: bytes) -> None: ...
    async def receive(self, *, timeout_s: float | None) -> bytes: ...
    async def close(self) -> None: ...


@dataclass(slots=True)
class StreamLink:
    """A TCP connection or an open serial line."""

    address: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        *,
        timeout_s: float = CONNECT_TIMEOUT_S,
        tls: ssl.SSLContext | None = None,
    ) -> StreamLink:
        """Open TCP. Raises LinkTimeout or LinkError."""
        address = f"{host}:{port}"
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=MAX_READ)
        except TimeoutError as exc:
            raise LinkTimeout(address, timeout_s) from exc
        except OSError as exc:
            raise LinkError(f"{address}: {exc.strerror or exc}") from exc
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return cls(address, reader, writer)

    @classmethod
    async def open_serial(cls, path: str, *, baud: int, **settings: Any) -> StreamLink:
        """Open a serial line, 8N1 unless `settings` (pyserial's names) say otherwise. Raises LinkError."""
        try:
            reader, writer = await serial_asyncio_fast.open_serial_connection(
                url=path, baudrate=baud, limit=MAX_READ, **settings
            )
        except (OSError, serial.SerialException) as exc:
            raise LinkError(f"{path}: {exc}") from exc
        return cls(path, reader, writer)

    async def send(self, data: bytes) -> None:
        try:
            self.writer.write(data)
            await self.writer.drain()
        except (OSError, serial.SerialException) as exc:
            raise LinkError(f"{self.address}: {exc}") from exc

    async def receive(self, *, timeout_s: float | None) -> bytes:
        """At least one byte, at most MAX_READ. Raises LinkTimeout, or LinkError at the end of stream."""
        try:
            async with asyncio.timeout(timeout_s):
                data = await self.reader.read(MAX_READ)
        except TimeoutError as exc:
            raise LinkTimeout(self.address, timeout_s or 0.0) from exc
        except (OSError, serial.SerialException) as exc:
            raise LinkError(f"{self.address}: {exc}") from exc
        if not data:
            raise LinkError(f"{self.address}: the peer closed the connection")
        return data

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, serial.SerialException, TimeoutError):
            async with asyncio.timeout(2.0):
                await self.writer.wait_closed()


async def knock(host: str, port: int, timeout_s: float) -> bool:
    """Whether somebody accepts a TCP connection there."""
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes | OSError] = asyncio.Queue(MAX_DATAGRAMS)
        self.dropped = 0

    def _put(self, item: bytes | OSError) -> None:
        try:
            self.queue.put_nowait(item)
        except asyncio.QueueFull:
            self.dropped += 1

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._put(data)

    def error_received(self, exc: Exception) -> None:
        self._put(exc if isinstance(exc, OSError) else OSError(str(exc)))


async def broadcast(data: bytes, port: int, *, address: str = "255.255.255.255", wait_s: float = 2.0) -> list[bytes]:
    """Ask everyone on the local network; the answers that came within `wait_s`, at most MAX_DATAGRAMS of them."""
    inbox = _Datagrams()
    try:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: inbox,
            local_addr=("0.0.0.0", 0),  # noqa: S104 answers come to any interface
            allow_broadcast=True,
        )
    except OSError as exc:
        raise LinkError(f"broadcast: {exc.strerror or exc}") from exc
    try:
        transport.sendto(data, (address, port))
        await asyncio.sleep(wait_s)
    finally:
        transport.close()
    items = [inbox.queue.get_nowait() for _ in range(inbox.queue.qsize())]
    return [item for item in items if isinstance(item, bytes)]


class DatagramLink:
    """A UDP socket connected to one peer: packets from anyone else are dropped by the kernel."""

    def __init__(self, address: str, transport: asyncio.DatagramTransport, inbox: _Datagrams) -> None:
        self.address = address
        self._transport = transport
        self._inbox = inbox

    @classmethod
    async def connect(cls, host: str, port: int) -> DatagramLink:
        """Open the socket. UDP has no handshake: an absent peer shows on `receive`. Raises LinkError."""
        address = f"{host}:{port}"
        try:
            transport, inbox = await asyncio.get_running_loop().create_datagram_endpoint(
                _Datagrams, remote_addr=(host, port)
            )
        except OSError as exc:
            raise LinkError(f"{address}: {exc.strerror or exc}") from exc
        return cls(address, transport, inbox)

    async def send(self, data: bytes) -> None:
        self._transport.sendto(data)

    async def receive(self, *, timeout_s: float | None) -> bytes:
        """One packet. Raises LinkTimeout, or LinkError if the peer's host refused."""
        try:
            async with asyncio.timeout(timeout_s):
                item = await self._inbox.queue.get()
        except TimeoutError as exc:
            raise LinkTimeout(self.address, timeout_s or 0.0) from exc
        if isinstance(item, OSError):
            raise LinkError(f"{self.address}: {item.strerror or item}") from item
        return item

    async def close(self) -> None:
        self._transport.close()
