"""What every kind of upstream is to the delivery loop: one method that returns when they have it.

UpstreamError
├ Unavailable      gone, slow, 5xx, 408, 429     -> the same batch again, later
│ └ NotAdmitted    401, 403, bad certificate     -> again, slowly: a person has to act
└ Refused          upstream will never take this -> bisect; the culprit goes to quarantine
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

Message = Mapping[str, Any]  # one CloudEvent, ready for JSON


class UpstreamError(Exception):
    """Root of what an upstream can do to us."""


class Unavailable(UpstreamError):
    """Nothing is known to have arrived; the batch stays due. `retry_after_s` is what upstream asked for."""

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class NotAdmitted(Unavailable):
    """Credentials or certificates are not accepted, by either side."""


class Refused(UpstreamError):
    """Upstream understood and will not have it. `reply` is its own words."""

    def __init__(self, reason: str, *, reply: str = "") -> None:
        super().__init__(reason)
        self.reply = reply


class EgressDenied(UpstreamError):
    """The enterprise's list of endpoints does not name this one: no connection is made."""


class Sink(Protocol):
    """One upstream. One batch is in flight at a time."""

    async def send(self, batch: Sequence[Message]) -> None:
        """Returns when upstream holds every message durably; repeating one it holds is harmless.

        Raises Unavailable, Refused.
        """
        ...

    async def close(self) -> None:
        """Cut the connection at once. Nothing is sent any more, no farewell either."""
        ...


class Barred:
    """Stands in for an upstream that may not, or cannot, be reached as configured: it says why, and nothing leaves."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def send(self, batch: Sequence[Message]) -> None:
        raise NotAdmitted(self._reason)

    async def close(self) -> None:
        return


def require_listed(url: str, allowed: frozenset[str]) -> None:
    """Raises EgressDenied unless host (or host:port) is on the list. `*.example.cn` names all below."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    names = {host, f"{host}:{parts.port}"} if parts.port else {host}
    for entry in allowed:
        entry = entry.lower()
        if entry in names or (entry.startswith("*.") and host.endswith(entry[1:])):
            return
    raise EgressDenied(f"{host or url[:60]} is not on the list of endpoints that events may go to")
