"""Who may speak, and how much: push devices name themselves only by a serial number in the query.

Serial numbers on the list speak, from their pinned addresses where some are set. Others wait for a person in a bounded
list; nothing of theirs is read. Every table here has a stated size, so ten thousand invented numbers cost no more
than the first few hundred. No I/O: monotonic `now` and wall time come in.
"""

from __future__ import annotations

import ipaddress
import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

SERIAL = re.compile(r"[A-Za-z0-9_-]{1,32}")
MAX_PENDING = 256
MAX_BUCKETS = 4096

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Pending:
    """A device that called and is not on the list: what a person sees to approve it."""

    serial: str
    address: str
    first_seen: datetime
    last_seen: datetime
    calls: int
    push_version: str = ""


class Verdict(Enum):
    ALLOWED = "allowed"
    UNKNOWN = "unknown"
    WRONG_ADDRESS = "wrong_address"
    TOO_MANY = "too_many"
    MALFORMED = "malformed"


class Buckets:
    """Token buckets by key, the least recently used forgotten first (a forgotten one is full again)."""

    def __init__(self, *, rate: float, burst: float, size: int = MAX_BUCKETS) -> None:
        self._rate, self._burst, self._size = rate, burst, size
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, key: str, now: float) -> bool:
        level, since = self._levels.pop(key, (self._burst, now))
        level = min(self._burst, level + max(0.0, now - since) * self._rate)
        allowed = level >= 1.0
        self._levels[key] = (level - 1.0 if allowed else level, now)
        if len(self._levels) > self._size:
            self._levels.popitem(last=False)
        return allowed

    def empty(self, key: str, now: float) -> bool:
        """Whether `take` would refuse, without taking."""
        level, since = self._levels.get(key, (self._burst, now))
        return min(self._burst, level + max(0.0, now - since) * self._rate) < 1.0


class Gate:
    def __init__(self, *, rate: float = 20.0, burst: float = 200.0) -> None:
        self._known: dict[str, tuple[Network, ...]] = {}
        self._pending: OrderedDict[str, Pending] = OrderedDict()
        self._devices = Buckets(rate=rate, burst=burst)
        self._strangers = Buckets(rate=1.0, burst=20.0)  # by address: they have nothing to say
        self._good_sources: OrderedDict[str, None] = OrderedDict()  # listed devices spoke from there
        self.turned_away = 0

    def admit(self, serial: str, addresses: Iterable[str] = ()) -> None:
        """Put a serial number on the list. Raises ValueError for a number or network that is none."""
        if not SERIAL.fullmatch(serial):
            raise ValueError("a serial number is 1 to 32 letters, digits, - or _")
        self._known[serial] = tuple(ipaddress.ip_network(address, strict=False) for address in addresses)
        self._pending.pop(serial, None)

    def dismiss(self, serial: str) -> None:
        self._known.pop(serial, None)

    def pending(self) -> list[Pending]:
        return list(self._pending.values())

    def judge(self, serial: str, address: str, now: float) -> Verdict:
        """Order matters: a stranger's flood is counted against its address, never against a device's serial number."""
        networks = self._known.get(serial)
        if networks is None or not self._from(networks, address):
            if not self._strangers.take(address, now):
                self.turned_away += 1
                return Verdict.TOO_MANY
            if not SERIAL.fullmatch(serial):
                return Verdict.MALFORMED
            return Verdict.UNKNOWN if networks is None else Verdict.WRONG_ADDRESS
        self._good_sources[address] = None
        if len(self._good_sources) > MAX_BUCKETS:
            self._good_sources.popitem(last=False)
        return Verdict.ALLOWED if self._devices.take(serial, now) else Verdict.TOO_MANY

    def shut_out(self, address: str, now: float) -> bool:
        """A source that sent nothing but strangers, and too many of them: not worth an answer for the moment."""
        out = address not in self._good_sources and self._strangers.empty(address, now)
        self.turned_away += out
        return out

    @staticmethod
    def _from(networks: tuple[Network, ...], address: str) -> bool:
        if not networks:
            return True
        try:
            source = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(source, ipaddress.IPv6Address) and source.ipv4_mapped:
            source = source.ipv4_mapped
        return any(source in network for network in networks)

    def remember(self, serial: str, address: str, moment: datetime, *, push_version: str = "") -> None:
        """Put a stranger on the waiting list. A full list keeps who is on it: a flood pushes no real device out."""
        known = self._pending.get(serial)
        if known is not None:
            self._pending[serial] = replace(
                known, address=address, last_seen=moment, calls=known.calls + 1,
                push_version=push_version[:16] or known.push_version,
            )  # fmt: skip
        elif len(self._pending) < MAX_PENDING:
            self._pending[serial] = Pending(serial, address, moment, moment, 1, push_version[:16])
        else:
            self.turned_away += 1

    def forget_pending(self, serial: str) -> None:
        """A person said no: the place on the list is free; the device may ask again."""
        self._pending.pop(serial, None)
