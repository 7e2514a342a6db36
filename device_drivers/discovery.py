"""Where devices are on the local network: who answers the maker's call, and who lives beside a lost address.

Kinds whose makers know a broadcast (UHPPOTE, C3) are asked by it. The others are looked for in the /24 of
the address they had: TCP by connecting to the device's port; ZKTeco over UDP, where nothing connects, by the
first packet of a session. A name is not searched for: whoever resolves it follows the move. What is found is
a candidate; it is the device once it has said the right serial number.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from importlib import import_module
from typing import cast

from device_drivers.devices import DeviceConfig, Identity
from device_drivers.errors import LinkError
from device_drivers.links import knock, split_address

KNOCK_TIMEOUT_S = 0.5
KNOCKS_AT_ONCE = 32
PORTS = {"zkteco": 4370, "c3": 4370, "isapi": 80}  # kinds worth looking for beside their last address
BROADCASTS = {
    "uhppote": "device_drivers.uhppote.exchange:discover",
    "c3": "device_drivers.c3.discovery:discover",
}
ZK_UDP = "device_drivers.zkteco.connection:answers"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FoundDevice:
    """A device that answered a broadcast."""

    kind: str
    address: str
    identity: Identity


async def scan() -> list[FoundDevice]:
    """Everybody who answers a broadcast now, by kind and serial number; takes about two seconds."""
    kinds = sorted(BROADCASTS)
    answers = await asyncio.gather(*(_call(kind) for kind in kinds))
    found = [
        FoundDevice(kind, address, identity)
        for kind, answered in zip(kinds, answers, strict=True)
        for address, identity in answered
    ]
    return sorted(found, key=lambda device: (device.kind, device.identity.serial))


async def candidates(config: DeviceConfig) -> AsyncGenerator[str, None]:
    """Addresses at which the device may be now, as they are found."""
    if config.kind in BROADCASTS:
        for address, identity in await _call(config.kind):
            if identity.serial == config.serial:
                yield address
    async for address in neighbours(config):
        yield address


async def neighbours(config: DeviceConfig) -> AsyncGenerator[str, None]:
    """Addresses of the same /24 that answer on the device's port."""
    default = PORTS.get(config.kind)
    if default is None:
        return
    host, port = split_address(config.address, default)
    try:
        network = ipaddress.ip_network(f"{host}/24", strict=False)
    except ValueError:
        return
    answers = cast("Callable[[str, int, float], Awaitable[bool]]", _load(ZK_UDP) if _over_udp(config) else knock)
    gate = asyncio.Semaphore(KNOCKS_AT_ONCE)

    async def ask(address: str) -> str | None:
        async with gate:
            return f"{address}:{port}" if await answers(address, port, KNOCK_TIMEOUT_S) else None

    asking = [asyncio.create_task(ask(str(address))) for address in network.hosts() if str(address) != host]
    try:
        for task in asyncio.as_completed(asking):
            if found := await task:
                yield found
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


def _over_udp(config: DeviceConfig) -> bool:
    return config.kind == "zkteco" and config.options.get("transport") == "udp"


async def _call(kind: str) -> list[tuple[str, Identity]]:
    """Who answers the broadcast of a kind; nobody where the network takes no broadcast."""
    discover = cast("Callable[[], Awaitable[list[tuple[str, Identity]]]]", _load(BROADCASTS[kind]))
    try:
        return await discover()
    except LinkError as exc:
        log.info("no broadcast", extra={"kind": kind, "reason": str(exc)})
        return []


def _load(where: str) -> object:
    """Protocols import their libraries only when asked for."""
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)
