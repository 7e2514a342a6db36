"""The audit chain's end, kept where the database's writer cannot change it: a file beside it, and upstream.

A shortened or exchanged database no longer meets its newest anchor (`AuditLog.verify`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from edge_agent.audit import Anchor, AuditLog
from edge_agent.database import Database
from edge_agent.delivery.outbox import Event, Outbox


class AuditAnchors:
    """One line per anchor: `SEQ MAC`, the newest last."""

    def __init__(
        self,
        path: Path,
        *,
        database: Database,
        audit: AuditLog,
        outbox: Outbox,
        gateway: str,
        now: Callable[[], datetime],
    ) -> None:
        self._path = path
        self._database = database
        self._audit = audit
        self._outbox = outbox
        self._gateway = gateway
        self._now = now

    def known(self) -> list[Anchor]:
        """Every anchor so far, the newest last."""
        try:
            lines = self._path.read_text("ascii").splitlines()
        except FileNotFoundError:
            return []
        return [Anchor(int(seq), bytes.fromhex(mac)) for seq, mac in (line.split() for line in lines)]

    async def drop(self) -> Anchor | None:
        """Anchor the chain as it ends now, if it grew; the end, or None for an empty chain. Raises StorageError."""
        end = await self._database.read(self._audit.anchor)
        if end is None:
            return None
        known = self.known()
        if not known or known[-1].seq < end.seq:
            await asyncio.to_thread(self._append, end)
            told = {"seq": end.seq, "mac": end.mac.hex()}
            event = Event(f"audit-{self._gateway}-{end.seq}", "audit.anchored", self._now(), "", None, told)
            await self._outbox.append([event])
        return end

    def _append(self, anchor: Anchor) -> None:
        with self._path.open("a", encoding="ascii") as file:
            file.write(f"{anchor.seq} {anchor.mac.hex()}\n")
