"""Panels of the local network that answer the maker's call. They answer by broadcast, before any password."""

from __future__ import annotations

from dataclasses import dataclass

from device_drivers.c3.frame import DISCOVER, REPLY_OK, Frame, FrameDecoder
from device_drivers.c3.messages import DISCOVERY, DISCOVERY_PORT, text_pairs
from device_drivers.errors import FrameError
from device_drivers.links import broadcast


@dataclass(frozen=True, slots=True)
class FoundPanel:
    address: str
    serial: str
    model: str
    firmware: str
    mac: str


def read(datagrams: list[bytes]) -> list[FoundPanel]:
    """One entry a serial number; what is no answer is passed over."""
    found: dict[str, FoundPanel] = {}
    for datagram in datagrams:
        try:
            frames = FrameDecoder().feed(datagram)
        except FrameError:
            continue
        for frame in frames:
            pairs = text_pairs(frame.data) if frame.command == REPLY_OK else {}
            if pairs.get("SN") and pairs.get("IP"):
                found[pairs["SN"]] = FoundPanel(
                    pairs["IP"], pairs["SN"], pairs.get("Device", ""), pairs.get("Ver", ""), pairs.get("MAC", "")
                )
    return list(found.values())


async def discover(
    *, address: str = "255.255.255.255", port: int = DISCOVERY_PORT, wait_s: float = 2.0
) -> list[FoundPanel]:
    return read(await broadcast(Frame(DISCOVER, DISCOVERY).encode(), port, address=address, wait_s=wait_s))
