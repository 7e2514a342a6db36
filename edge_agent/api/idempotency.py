"""A command with an Idempotency-Key is carried out once: the same key gives the same answer again.

The key is written down before the command is sent. A repeat that arrives while it is under way, or after a
restart in between, is told that the outcome is not known: a door is never opened twice to be sure.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Request
from pydantic import BaseModel

from edge_agent.api.context import Context, Governance, caller_of
from edge_agent.api.problems import Problem

REMEMBERED = timedelta(hours=24)
Answer = TypeVar("Answer", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Keyed:
    """One command of one caller."""

    governance: Governance
    actor: str
    key: str
    request: bytes

    async def answer(self, kind: type[Answer], work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Carry out `work`, or repeat what it answered. Raises Problem 409 or 422 for a key in use."""
        if not self.key:
            return await work()
        known = await self.governance.database.write(self._begin)
        if known is not None:
            return kind.model_validate_json(known)
        try:
            result = await work()
        except Problem:  # refused or not reached: the same key may try again
            await self.governance.database.write(self._forget)
            raise
        body = result.model_dump_json()
        await self.governance.database.write(
            lambda c: c.execute(
                "UPDATE idempotency SET status = 200, body = ? WHERE actor = ? AND key = ?",
                (body, self.actor, self.key),
            )
        )
        return result

    def _forget(self, connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM idempotency WHERE actor = ? AND key = ?", (self.actor, self.key))

    def _begin(self, connection: sqlite3.Connection) -> str | None:
        now = self.governance.now()
        connection.execute("DELETE FROM idempotency WHERE at < ?", ((now - REMEMBERED).isoformat(),))
        row = connection.execute(
            "SELECT request, body FROM idempotency WHERE actor = ? AND key = ?", (self.actor, self.key)
        ).fetchone()
        if row is None:
            connection.execute(
                "INSERT INTO idempotency (actor, key, request, at) VALUES (?,?,?,?)",
                (self.actor, self.key, self.request, now.isoformat()),
            )
            return None
        if row[0] != self.request:
            raise Problem(422, "Idempotency-Key: this key was used for another request", code="key_reused")
        if row[1] is None:
            raise Problem(409, "this command was sent already and its outcome is not known yet", code="unknown_outcome")
        return str(row[1])


async def keyed(
    request: Request, context: Context, idempotency_key: Annotated[str, Header(max_length=64)] = ""
) -> Keyed:
    body = await request.body()
    digest = hashlib.sha256(f"{request.method} {request.url.path}\n".encode() + body).digest()
    return Keyed(context, caller_of(request).name, idempotency_key, digest)


Once = Annotated[Keyed, Depends(keyed)]
