"""One's own account: the password and the second factor. A machine's token has neither."""

from __future__ import annotations

import asyncio
import io
import sqlite3
from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Annotated

import pyotp
import segno
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field, SecretStr

from edge_agent.api import accounts
from edge_agent.api.access import AccessControl, Caller, require
from edge_agent.api.context import Context, Governance
from edge_agent.api.problems import Body, Problem, responses
from edge_agent.audit import Entry
from edge_agent.policy.roles import Scope

router = APIRouter(prefix="/api/v1/session/me", tags=["session"])
Me = Annotated[Caller, Depends(require(Scope.STATUS_READ))]
OFFER_LIFETIME = timedelta(minutes=10)
MAX_OFFERS = 64


class NewPassword(Body):
    current: SecretStr = Field(max_length=accounts.MAX_PASSWORD, examples=["a long sentence of yours"])
    new: SecretStr = Field(
        max_length=accounts.MAX_PASSWORD,
        examples=["another long sentence of yours"],
        description=f"at least {accounts.MIN_PASSWORD} characters",
    )


class Confirmation(Body):
    password: SecretStr = Field(max_length=accounts.MAX_PASSWORD, examples=["a long sentence of yours"])


class Code(Body):
    code: str = Field(max_length=10, examples=["492039"])


class Offer(BaseModel):
    """A secret to put into an authenticator. It is in force once a code made from it was sent."""

    secret: str
    uri: str = Field(examples=["otpauth://totp/gateway:linlan?secret=...&issuer=gateway"])
    svg: str = Field(description="the same as a QR code")


class Offers:
    """Secrets that nobody confirmed yet: a few, in memory, for minutes."""

    def __init__(self) -> None:
        self._offers: OrderedDict[str, tuple[str, datetime]] = OrderedDict()

    def make(self, account: str, now: datetime) -> str:
        secret = pyotp.random_base32()
        self._offers.pop(account, None)
        self._offers[account] = (secret, now + OFFER_LIFETIME)
        while len(self._offers) > MAX_OFFERS:
            self._offers.popitem(last=False)
        return secret

    def of(self, account: str, now: datetime) -> str | None:
        secret, until = self._offers.get(account, ("", now))
        return secret if now < until else None

    def forget(self, account: str) -> None:
        self._offers.pop(account, None)


async def offers(request: Request) -> Offers:
    state = request.app.state
    if not hasattr(state, "totp_offers"):
        state.totp_offers = Offers()
    found: Offers = state.totp_offers
    return found


Pending = Annotated[Offers, Depends(offers)]


async def _proven(caller: Caller, password: SecretStr, request: Request, context: Governance) -> None:
    """The person before the screen is the account's: a session left open must not be enough."""
    if not caller.session_id:
        raise Problem(409, "a token has no password and no second factor", code="no_account")
    control: AccessControl = request.app.state.access
    wait = control.sign_ins.wait_s(f"account:{caller.name}")
    if wait:
        raise Problem(429, "too many attempts", code="rate_limited", headers={"Retry-After": str(int(wait) + 1)})
    stored, _ = await context.database.read(lambda c: accounts.stored_hash(c, caller.name))
    if not await asyncio.to_thread(accounts.password_matches, stored, password.get_secret_value()):
        await context.note(Entry(actor=caller.name, action="account.confirm", object=caller.name, outcome="denied"))
        raise Problem(403, "password: it is not this account's", code="password")


@router.put("/password", status_code=204, responses=responses(403, 409, 422))
async def change_password(body: NewPassword, caller: Me, request: Request, context: Context) -> None:
    """Every other session of the account ends."""
    await _proven(caller, body.current, request, context)
    new = body.new.get_secret_value()
    try:
        accounts.check_new_password(new, name=caller.name)
    except accounts.BadPassword as exc:
        raise Problem(422, str(exc), code="password") from None
    hashed = await asyncio.to_thread(accounts.hash_password, new)

    def work(connection: sqlite3.Connection) -> None:
        accounts.set_password(connection, caller.name, hashed)
        accounts.close_all_sessions(connection, caller.name, but=caller.session_id)

    await context.act(caller.name, Entry(actor=caller.name, action="account.password", object=caller.name), work)


@router.post("/totp", status_code=201, responses=responses(403, 409))
async def offer_second_factor(
    body: Confirmation, caller: Me, request: Request, context: Context, pending: Pending
) -> Offer:
    """A new secret for an authenticator (RFC 6238). Nothing changes until a code confirms it."""
    await _proven(caller, body.password, request, context)
    secret = pending.make(caller.name, context.now())
    issuer = request.app.state.name if hasattr(request.app.state, "name") else "edge-agent"
    uri = pyotp.TOTP(secret).provisioning_uri(name=caller.name, issuer_name=issuer)
    picture = io.BytesIO()
    segno.make(uri, error="m").save(picture, kind="svg", scale=4, xmldecl=False, svgns=True)
    return Offer(secret=secret, uri=uri, svg=picture.getvalue().decode())


@router.put("/totp", status_code=204, responses=responses(409, 422))
async def confirm_second_factor(body: Code, caller: Me, context: Context, pending: Pending) -> None:
    """From now on signing in needs a code."""
    now = context.now()
    secret = pending.of(caller.name, now)
    if secret is None:
        raise Problem(409, "no second factor waits to be confirmed; begin again", code="no_offer")
    step = accounts.code_step(secret, body.code, now=now)
    if step is None:
        raise Problem(422, "code: not the one of this moment; check the clock of the telephone", code="code")
    sealed = context.seal_secret(secret)
    await context.act(
        caller.name,
        Entry(actor=caller.name, action="account.totp.on", object=caller.name),
        lambda c: accounts.set_totp(c, caller.name, sealed, step=step),
    )
    pending.forget(caller.name)


@router.post("/totp/remove", status_code=204, responses=responses(403, 409))
async def remove_second_factor(body: Confirmation, caller: Me, request: Request, context: Context) -> None:
    """Signing in needs the password alone again."""
    await _proven(caller, body.password, request, context)
    await context.act(
        caller.name,
        Entry(actor=caller.name, action="account.totp.off", object=caller.name),
        lambda c: accounts.set_totp(c, caller.name, None),
    )
