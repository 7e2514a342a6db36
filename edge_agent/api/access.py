"""The gate in front of every route: who is calling, with which scopes, and not too often.

Deny by default: a route without a declared scope cannot be mounted (`app.check_routes`). Browsers use a
session cookie and repeat its CSRF token in a header on every change; machines use a bearer token.
"""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fastapi import Request

from edge_agent.api import access_tokens, accounts
from edge_agent.api.problems import Problem
from edge_agent.database import Database
from edge_agent.policy.roles import ROLES, Role, Scope

COOKIE = "__Host-edge-session"
CSRF_HEADER = "x-csrf-token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends this request."""

    name: str
    scopes: frozenset[Scope]
    role: Role | None = None
    csrf: str = field(default="", repr=False)
    session_id: str = field(default="", repr=False)

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes


class RateLimit:
    """Token buckets per key, at most `max_keys` of them: a flood of addresses costs bounded memory."""

    def __init__(
        self, *, per_s: float, burst: float, max_keys: int = 4096, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s = per_s
        self._burst = burst
        self._max_keys = max_keys
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """0 if this call is within the limit, else how long to wait."""
        now = self._clock()
        level, then = self._buckets.pop(key, (self._burst, now))
        level = min(self._burst, level + (now - then) * self._per_s)
        allowed = level >= 1
        self._buckets[key] = (level - 1 if allowed else level, now)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - level) / self._per_s


class AccessControl:
    """Turns a request into a Caller, or into the right refusal."""

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now
        self.requests = RateLimit(per_s=100, burst=400)
        self.sign_ins = RateLimit(per_s=0.2, burst=10)

    async def authenticate(self, request: Request) -> Caller | None:
        """None if the request carries no valid credential. Raises Problem on a missing CSRF token."""
        now = self._now()
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            found = await self._database.read(lambda c: access_tokens.find(c, token.strip(), now=now))
            return Caller(f"token:{found.name}", found.scopes) if found else None
        session_id = request.cookies.get(COOKIE, "")
        if not session_id:
            return None
        session = await self._database.read(lambda c: accounts.find_session(c, session_id, now=now))
        if session is None:
            return None
        if request.method not in SAFE_METHODS and not hmac.compare_digest(
            request.headers.get(CSRF_HEADER, "").encode(), session.csrf.encode()
        ):
            raise Problem(403, f"a change from a browser needs the {CSRF_HEADER} header", code="csrf")
        role = session.account.role
        return Caller(session.account.name, ROLES[role], role, session.csrf, session_id)

    async def touch(self, caller: Caller) -> None:
        """Keep a session alive; the request itself is what proves presence."""
        if caller.session_id:
            now = self._now()
            await self._database.write(lambda c: accounts.touch(c, caller.session_id, now=now))


def address(request: Request) -> str:
    return request.client.host if request.client else "?"


Check = Callable[[Request], Awaitable[Caller]]


def require(scope: Scope) -> Check:
    """The dependency every route declares; it also says its scope to `check_routes` and the OpenAPI."""

    async def check(request: Request) -> Caller:
        control: AccessControl = request.app.state.access
        caller = await control.authenticate(request)
        if caller is None:
            raise Problem(
                401,
                "sign in, or send a bearer token",
                code="unauthenticated",
                headers={"WWW-Authenticate": 'Bearer realm="edge-agent"'},
            )
        wait = control.requests.wait_s(caller.name)
        if wait:
            raise Problem(429, "too many requests", code="rate_limited", headers={"Retry-After": str(int(wait) + 1)})
        if not caller.may(scope):
            raise Problem(403, f"this needs the scope {scope}", code="forbidden")
        request.state.caller = caller
        return caller

    check.scope = scope  # type: ignore[attr-defined]
    return check


def scope_of(dependency: Any) -> Scope | None:
    """The scope a dependency made by `require` asks for."""
    return getattr(dependency, "scope", None)
