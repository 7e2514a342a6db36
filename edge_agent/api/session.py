"""First start, sign-in and sign-out; accounts and their sessions."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field, SecretStr

from edge_agent.api import access_tokens, accounts
from edge_agent.api.access import COOKIE, AccessControl, Caller, address, require
from edge_agent.api.context import Context, ExpectedVersion, Governance, etag, tag_of, unchanged
from edge_agent.api.problems import Body, Problem, responses
from edge_agent.api.two_people import hands
from edge_agent.audit import Entry
from edge_agent.policy.roles import ROLES, Role, Scope

router = APIRouter(prefix="/api/v1", tags=["session"])
PUBLIC = ("/api/v1/setup", "/api/v1/session")
AccountName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9._-]{1,31}$", examples=["linlan"])]


class Setup(Body):
    token: str = Field(max_length=100, examples=["7C1E-90B4-2D5A-F308-66C9-E14B-A277-0D93"])
    name: AccountName
    password: SecretStr = Field(max_length=accounts.MAX_PASSWORD, examples=["a long sentence of yours"])


class SignIn(Body):
    name: str = Field(max_length=64, examples=["linlan"])
    password: SecretStr = Field(max_length=accounts.MAX_PASSWORD, examples=["a long sentence of yours"])
    code: str = Field("", max_length=10, description="six digits, where the account has a second factor")


class SignedIn(BaseModel):
    name: str
    role: Role
    scopes: list[Scope]
    csrf: str


def set_session_cookie(response: Response, session: accounts.Session) -> None:
    response.set_cookie(
        COOKIE,
        session.id,
        max_age=int(accounts.SESSION_LIFETIME.total_seconds()),
        path="/",
        secure=True,
        httponly=True,
        samesite="strict",
    )


def _signed_in(response: Response, session: accounts.Session) -> SignedIn:
    set_session_cookie(response, session)
    role = session.account.role
    return SignedIn(name=session.account.name, role=role, scopes=sorted(ROLES[role]), csrf=session.csrf)


def limit(request: Request) -> None:
    control: AccessControl = request.app.state.access
    wait = control.sign_ins.wait_s(address(request))
    if wait:
        raise Problem(429, "too many attempts from this address", headers={"Retry-After": str(int(wait) + 1)})


@router.post("/setup", status_code=201, responses=responses(409, 422))
async def claim_gateway(body: Setup, request: Request, response: Response, context: Context) -> SignedIn:
    """Make the first administrator with the one-time token shown at first start."""
    limit(request)
    try:
        accounts.check_new_password(body.password.get_secret_value(), name=body.name)
    except accounts.BadPassword as exc:
        raise Problem(422, str(exc), code="password") from None
    password_hash = await asyncio.to_thread(accounts.hash_password, body.password.get_secret_value())
    now = context.now()

    def work(connection: sqlite3.Connection) -> accounts.Session:
        if not access_tokens.claim(connection, body.token, now=now):
            raise Problem(
                409,
                "token: wrong, used or expired; run `edge-agent token bootstrap` on the gateway for a new one",
                code="token",
            )
        account = accounts.add(connection, body.name, role=Role.ADMIN, password_hash=password_hash, now=now)
        return accounts.open_session(
            connection, account, address=address(request), agent=request.headers.get("user-agent", ""), now=now
        )

    entry = Entry(actor=body.name, action="gateway.claim", object=body.name, details={"from": address(request)})
    return _signed_in(response, await context.act(body.name, entry, work))


@router.post("/session", responses=responses(401, 422))
async def sign_in(body: SignIn, request: Request, response: Response, context: Context) -> SignedIn:
    """Open a session. The answer never says which of name, password or code was wrong."""
    limit(request)
    now = context.now()
    until = await context.database.read(lambda c: accounts.locked_until(c, body.name, now=now))
    stored, sealed_secret = await context.database.read(lambda c: accounts.stored_hash(c, body.name))
    right = await asyncio.to_thread(accounts.password_matches, stored, body.password.get_secret_value())
    account = await context.database.read(lambda c: accounts.find(c, body.name))
    if right and sealed_secret is not None and until is None:
        step = accounts.code_step(context.open_secret(sealed_secret), body.code, now=now)
        right = step is not None and await context.database.write(lambda c: accounts.use_code(c, body.name, step))
    if until is not None or not right or account is None or account.disabled:
        refused = accounts.SignInRefused(locked_until=until)
        if until is None:
            refused = await context.database.write(lambda c: accounts.count_failure(c, body.name, now=now))
        raise await _refused(request, context, body.name, refused)

    def work(connection: sqlite3.Connection) -> accounts.Session:
        changed = accounts.stored_hash(connection, account.name) != (stored, sealed_secret)
        until = accounts.locked_until(connection, account.name, now=now)
        if changed or until is not None or accounts.find(connection, account.name) != account:
            raise _Overtaken(accounts.SignInRefused(locked_until=until))
        return accounts.open_session(
            connection, account, address=address(request), agent=request.headers.get("user-agent", ""), now=now
        )

    entry = Entry(actor=account.name, action="session.open", details={"from": address(request)})
    try:
        return _signed_in(response, await context.act(account.name, entry, work))
    except _Overtaken as exc:
        raise await _refused(request, context, body.name, exc.refused) from None


class _Overtaken(Exception):
    """While the password was compared, which takes a while, the account was locked, shut or given another one."""

    def __init__(self, refused: accounts.SignInRefused) -> None:
        super().__init__("overtaken")
        self.refused = refused


async def _refused(request: Request, context: Governance, name: str, refused: accounts.SignInRefused) -> Problem:
    """Written down, and what is answered."""
    await context.note(
        Entry(
            actor=name[:64],
            action="session.refused",
            outcome="denied",
            details={"from": address(request), "locked": refused.locked_until is not None},
        )
    )
    if refused.locked_until is None:
        return Problem(401, "name, password or code is wrong", code="sign_in")
    wait = max(1, int((refused.locked_until - context.now()).total_seconds()))
    return Problem(401, f"this account is locked for {wait} s more", code="locked", headers={"Retry-After": str(wait)})


Me = Annotated[Caller, Depends(require(Scope.STATUS_READ))]


@router.get("/session/me")
async def who_am_i(caller: Me) -> SignedIn:
    """The caller, its scopes, and the CSRF token a page needs for its changes."""
    return SignedIn(
        name=caller.name, role=caller.role or Role.INTEGRATION, scopes=sorted(caller.scopes), csrf=caller.csrf
    )


@router.delete("/session/me", status_code=204)
async def sign_out(caller: Me, response: Response, context: Context) -> None:
    """End this session."""
    if caller.session_id:
        await context.act(
            caller.name,
            Entry(actor=caller.name, action="session.close"),
            lambda c: accounts.close_session(c, caller.session_id),
        )
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")


Administrator = Annotated[Caller, Depends(require(Scope.ACCOUNTS_WRITE))]


class NewAccount(Body):
    name: AccountName
    role: Role
    password: SecretStr = Field(max_length=accounts.MAX_PASSWORD, examples=["a long sentence of yours"])


class AccountView(BaseModel):
    name: str
    role: Role
    second_factor: bool
    disabled: bool


class SessionView(BaseModel):
    handle: str
    account: str
    created_at: str
    seen_at: str
    address: str
    agent: str


@router.get("/accounts")
async def list_accounts(caller: Administrator, context: Context) -> list[AccountView]:
    found = await context.database.read(accounts.listing)
    return [account_view(account) for account in found]


def account_etag(account: accounts.Account) -> str:
    return etag(tag_of(asdict(account)))


def account_view(account: accounts.Account) -> AccountView:
    return AccountView(name=account.name, role=account.role, second_factor=account.has_totp, disabled=account.disabled)


@router.post("/accounts", status_code=201, responses=responses(409, 422))
async def add_account(body: NewAccount, caller: Administrator, context: Context) -> AccountView:
    try:
        accounts.check_new_password(body.password.get_secret_value(), name=body.name)
    except accounts.BadPassword as exc:
        raise Problem(422, str(exc), code="password") from None
    password_hash = await asyncio.to_thread(accounts.hash_password, body.password.get_secret_value())

    def work(connection: sqlite3.Connection) -> accounts.Account:
        try:
            made = accounts.add(
                connection,
                body.name,
                role=body.role,
                password_hash=password_hash,
                now=context.now(),
                password_by=caller.name,
            )
        except ValueError as exc:
            raise Problem(409, str(exc), code="taken") from None
        accounts.set_made_by(connection, body.name, hands(connection, caller.name))
        return made

    entry = Entry(actor=caller.name, action="account.add", object=body.name, details={"role": body.role})
    made = await context.act(caller.name, entry, work)
    return account_view(made)


class AccountChange(Body):
    """What is left out stays. Any of them ends the account's sessions."""

    password: SecretStr | None = Field(None, max_length=accounts.MAX_PASSWORD)
    role: Role | None = None
    disabled: bool | None = None
    second_factor: Literal[False] | None = Field(None, description="false takes it off, for a lost telephone")


@router.get("/accounts/{name}", responses=responses(404))
async def read_account(name: str, caller: Administrator, context: Context, response: Response) -> AccountView:
    account = await context.database.read(lambda c: _account(c, name))
    response.headers["ETag"] = account_etag(account)
    return account_view(account)


def _account(connection: sqlite3.Connection, name: str) -> accounts.Account:
    found = accounts.find(connection, name)
    if found is None:
        raise Problem(404, f"there is no account {name[:32]!r}", code="unknown")
    return found


@router.patch("/accounts/{name}", responses=responses(404, 409, 412, 422, 428))
async def change_account(
    name: str,
    body: AccountChange,
    caller: Administrator,
    context: Context,
    expected: ExpectedVersion,
    response: Response,
) -> AccountView:
    """Reset somebody's password or second factor, give another role, or shut the account."""
    hashed = ""
    if body.password is not None:
        try:
            accounts.check_new_password(body.password.get_secret_value(), name=name)
        except accounts.BadPassword as exc:
            raise Problem(422, str(exc), code="password") from None
        hashed = await asyncio.to_thread(accounts.hash_password, body.password.get_secret_value())

    def work(connection: sqlite3.Connection) -> accounts.Account:
        unchanged("this account", asdict(_account(connection, name)), expected)
        by_other = name != caller.name
        if hashed:
            accounts.set_password(connection, name, hashed, by=caller.name if by_other else "")
        if body.second_factor is False:
            accounts.set_totp(connection, name, None)
        if by_other and (hashed or body.second_factor is False):
            known = frozenset() if hashed else accounts.made_by(connection, name)  # a new password ends what they knew
            accounts.set_made_by(connection, name, known | hands(connection, caller.name))
        try:
            if body.disabled is not None:
                accounts.set_disabled(connection, name, disabled=body.disabled)
            if body.role is not None:
                accounts.set_role(connection, name, body.role)
        except ValueError as exc:
            raise Problem(409, str(exc), code="last_administrator") from None
        accounts.close_all_sessions(connection, name, but=caller.session_id)
        return _account(connection, name)

    details = {"fields": sorted(body.model_fields_set)}
    entry = Entry(actor=caller.name, action="account.change", object=name[:32], details=details)
    made = await context.act(caller.name, entry, work)
    response.headers["ETag"] = account_etag(made)
    return account_view(made)


@router.get("/sessions")
async def list_sessions(caller: Administrator, context: Context) -> list[SessionView]:
    rows = await context.database.read(accounts.sessions)
    names = ("handle", "account", "created_at", "seen_at", "address", "agent")
    return [SessionView(**dict(zip(names, row, strict=True))) for row in rows]


@router.delete("/sessions/{handle}", status_code=204, responses=responses(404))
async def revoke_session(handle: str, caller: Administrator, context: Context) -> None:
    def work(connection: sqlite3.Connection) -> None:
        if not accounts.revoke_session(connection, handle):
            raise Problem(404, f"no session {handle[:20]!r}", code="unknown")

    await context.act(caller.name, Entry(actor=caller.name, action="session.revoke", object=handle[:20]), work)
