"""One request, one reply with a UHPPOTE controller, and the broadcast that finds them all.

Uses the codec and the transports of `uhppoted`; its errors become ours here and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from uhppoted import decode, encode, tcp_async, udp_async

from device_drivers.devices import Identity
from device_drivers.errors import DeviceRefused, LinkError, LinkTimeout, ProtocolError, WrongDevice

PORT = 60000
ANY = "0.0.0.0"  # noqa: S104 - the source address of requests, not a service
DISCOVERY_S = 1.5
ATTEMPTS = 3  # UDP loses packets; everything but opening a door may be asked again


async def discover(
    *,
    broadcast: str = "255.255.255.255:60000",
    bind: str = ANY,
    wait_s: float = DISCOVERY_S,
) -> list[tuple[str, Identity]]:
    """Address and identity of every controller that answers within `wait_s`; garbage answers are left out.

    Raises LinkError where the network takes no broadcast.
    """
    transport = udp_async.UDPAsync(bind, broadcast, f"{ANY}:0")
    try:
        replies = await transport.broadcast(encode.get_controller_request(0), timeout=wait_s)
    except OSError as exc:
        raise LinkError(f"{broadcast}: {exc.strerror or exc}") from exc
    found: dict[int, tuple[str, Identity]] = {}
    for packet in replies:
        with contextlib.suppress(ValueError):
            reply = decode.get_controller_response(packet)
            found[reply.controller] = (f"{reply.ip_address}:{PORT}", identity_of(reply))
    return list(found.values())


def identity_of(reply: Any) -> Identity:
    """From the library's GetControllerResponse."""
    return Identity("UHPPOTE", f"UT0311-L0{door_count(reply.controller)}", str(reply.controller), reply.version)


def door_count(serial: int) -> int:
    """The first digit of a nine-digit serial number is the number of doors."""
    first = serial // 100_000_000
    return first if first in {1, 2, 4} else 4


def require_door(serial: int, door: int) -> None:
    """Raises DeviceRefused for a door this controller does not have."""
    if not 1 <= door <= door_count(serial):
        raise DeviceRefused(f"no door {door} on this controller: it has {door_count(serial)}")


class Exchange:
    """Asks one controller, one question at a time. `serial` 0 means: not known yet."""

    def __init__(self, address: str, *, protocol: str, bind: str, timeout_s: float, serial: int) -> None:
        if protocol not in {"udp", "tcp"}:
            raise ValueError("protocol is udp or tcp")
        self.address = address
        self.serial = serial
        self._timeout_s = timeout_s
        self._lock = asyncio.Lock()
        self._transport: Any = (
            tcp_async.TCPAsync(bind) if protocol == "tcp" else udp_async.UDPAsync(bind, address, f"{ANY}:0")
        )

    async def ask(self, request: bytes, read: Callable[[bytes], Any], *, attempts: int = ATTEMPTS) -> tuple[Any, bytes]:
        """The decoded reply and its bytes. Raises LinkTimeout, LinkError, ProtocolError or WrongDevice."""
        packet = await self._send(request, attempts)
        try:
            reply = read(packet)
        except (ValueError, IndexError) as exc:
            raise ProtocolError(f"{self.address}: {exc}") from exc
        if self.serial and reply.controller != self.serial:
            raise WrongDevice(self.address, expected=str(self.serial), found=str(reply.controller))
        return reply, bytes(packet)

    async def _send(self, request: bytes, attempts: int) -> bytes:
        async with self._lock:
            for _ in range(attempts):
                try:
                    packet = bytes(await self._transport.send(request, self.address, timeout=self._timeout_s))
                except TimeoutError:
                    continue
                except (OSError, EOFError, RuntimeError) as exc:
                    raise LinkError(f"{self.address}: {getattr(exc, 'strerror', None) or exc}") from exc
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    # Python 3.11's wait_for, inside the library, forgets a cancellation that meets the reply.
                    raise asyncio.CancelledError
                return packet
        raise LinkTimeout(self.address, self._timeout_s * attempts)

    async def order(self, request: bytes, read: Callable[[bytes], Any], *, done: str, what: str) -> None:
        """A request whose reply says yes or no in its field `done`. Raises DeviceRefused."""
        reply, _ = await self.ask(request, read)
        if not getattr(reply, done):
            raise DeviceRefused(f"{self.address}: the controller refused: {what}")
