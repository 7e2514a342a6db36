"""Bearer tokens for machines: issue, list, revoke."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from edge_agent.api import access_tokens
from edge_agent.api.access import Caller, require
from edge_agent.api.context import Context
from edge_agent.api.problems import Body, Problem, responses
from edge_agent.audit import Entry
from edge_agent.policy.roles import Scope

router = APIRouter(prefix="/api/v1/tokens", tags=["tokens"])
Administrator = Annotated[Caller, Depends(require(Scope.ACCOUNTS_WRITE))]


class NewToken(Body):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", examples=["payroll"])
    scopes: list[Scope] = Field(min_length=1, examples=[["events:read"]])
    days: int = Field(90, ge=1, le=366)


class TokenView(BaseModel):
    name: str
    scopes: list[Scope]
    created_by: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


class IssuedToken(BaseModel):
    """Shown once; only its hash is kept."""

    token: str
    expires_at: datetime


@router.get("")
async def list_tokens(caller: Administrator, context: Context) -> list[TokenView]:
    found = await context.database.read(access_tokens.listing)
    return [
        TokenView(
            name=t.name,
            scopes=sorted(t.scopes),
            created_by=t.created_by,
            created_at=t.created_at,
            expires_at=t.expires_at,
            revoked_at=t.revoked_at,
        )
        for t in found
    ]


@router.post("", status_code=201, responses=responses(403, 409, 422))
async def issue_token(body: NewToken, caller: Administrator, context: Context) -> IssuedToken:
    """A token can hold no scope that its maker does not hold."""
    beyond = set(body.scopes) - caller.scopes
    if beyond:
        raise Problem(403, f"scopes: {', '.join(sorted(beyond))} are not yours to give", code="forbidden")
    lifetime, now = timedelta(days=body.days), context.now()

    def work(connection: sqlite3.Connection) -> str:
        try:
            return access_tokens.issue(
                connection, body.name, scopes=body.scopes, lifetime=lifetime, created_by=caller.name, now=now
            )
        except ValueError as exc:
            raise Problem(409, str(exc), code="taken") from None

    entry = Entry(actor=caller.name, action="token.issue", object=body.name, details={"scopes": sorted(body.scopes)})
    return IssuedToken(token=await context.act(caller.name, entry, work), expires_at=now + lifetime)


@router.delete("/{name}", status_code=204, responses=responses(404))
async def revoke_token(name: str, caller: Administrator, context: Context) -> None:
    def work(connection: sqlite3.Connection) -> None:
        if not access_tokens.revoke(connection, name, now=context.now()):
            raise Problem(404, f"no valid token {name[:64]!r}", code="unknown")

    await context.act(caller.name, Entry(actor=caller.name, action="token.revoke", object=name[:64]), work)
