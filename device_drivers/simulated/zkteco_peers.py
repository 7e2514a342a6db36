"""Clients of a simulated ZKTeco terminal: TCP connections and UDP addresses."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, cast

from device_drivers.simulated.zkteco_wire import MAX_REQUEST, with_top
from device_drivers.zkteco.codes import TCP_MAGIC


class Peer(Protocol):
    """Where answers go: one TCP connection, or one UDP address."""

    session: int
    authorised: bool

    def send(self, body: bytes) -> None: ...


class Terminal(Protocol):
    """What a client's packets are handed to."""

    tcp_peers: set[TcpPeer]

    def receive(self, peer: Peer, body: bytes) -> None: ...
    def forget(self, peer: Peer) -> None: ...


class TcpPeer(asyncio.Protocol):
    def __init__(self, terminal: Terminal) -> None:
        self.session = 0
        self.authorised = False
        self._terminal = terminal
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._terminal.tcp_peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._terminal.tcp_peers.discard(self)
        self._terminal.forget(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 8:
            length = int.from_bytes(self._buffer[4:8], "little")
            if self._buffer[:4] != TCP_MAGIC or length > MAX_REQUEST:
                self.abort()
                return
            if len(self._buffer) < 8 + length:
                return
            body = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            self._terminal.receive(self, body)

    def send(self, body: bytes) -> None:
        if self._transport is not None:
            self._transport.write(with_top(body))

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class UdpPeer:
    def __init__(self, transport: asyncio.DatagramTransport, address: Any) -> None:
        self.session = 0
        self.authorised = False
        self._transport = transport
        self._address = address

    def send(self, body: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.sendto(body, self._address)


class UdpDoor(asyncio.DatagramProtocol):
    """Only the newest UDP client is served: there is no other way to notice that one has gone."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._transport: asyncio.DatagramTransport | None = None
        self._peers: dict[Any, UdpPeer] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self._transport is None:
            return
        if addr not in self._peers:
            for peer in self._peers.values():
                self._terminal.forget(peer)
            self._peers = {addr: UdpPeer(self._transport, addr)}
        self._terminal.receive(self._peers[addr], data)
