"""Panels of the local network that answer the maker's call. They answer by broadcast, before any password."""

from __future__ import annotations

from device_drivers.c3.frame import DISCOVER, REPLY_OK, Frame, FrameDecoder
from device_drivers.c3.messages import DISCOVERY, DISCOVERY_PORT, text_pairs
from device_drivers.devices import Identity
from device_drivers.errors import FrameError
from device_drivers.links import broadcast


def read(datagrams: list[bytes]) -> list[tuple[str, Identity]]:
    """Address and identity, once a serial number; what is no answer is passed over."""
    found: dict[str, tuple[str, Identity]] = {}
    for datagram in datagrams:
        try:
            frames = FrameDecoder().feed(datagram)
        except FrameError:
            continue
        for frame in frames:
            pairs = text_pairs(frame.data) if frame.command == REPLY_OK else {}
            if pairs.get("SN") and pairs.get("IP"):
                identity = Identity("ZKTeco", pairs.get("Device", ""), pairs["SN"], pairs.get("Ver", ""))
                found[pairs["SN"]] = (pairs["IP"], identity)
    return list(found.values())


async def discover(
    *, address: str = "255.255.255.255", port: int = DISCOVERY_PORT, wait_s: float = 2.0
) -> list[tuple[str, Identity]]:
    """Every panel that answers within `wait_s`. Raises LinkError where the network takes no broadcast."""
    return read(await broadcast(Frame(DISCOVER, DISCOVERY).encode(), port, address=address, wait_s=wait_s))
