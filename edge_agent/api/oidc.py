"""Signing in at the enterprise's identity provider: OpenID Connect, authorization code with PKCE.

What comes back is believed only if the provider's key signed it for this client, now, for the sign-in that this
browser began. Who the claims map to no role gets neither a session nor an account. Accounts belong to the provider's
subject, never to a name that somebody could choose there.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import sqlite3
import ssl
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode, urlsplit

import httpx
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, Field

from edge_agent.api import accounts
from edge_agent.api.access import address
from edge_agent.api.context import Context, Governance
from edge_agent.api.problems import Problem, responses
from edge_agent.api.session import limit, set_session_cookie
from edge_agent.audit import Entry
from edge_agent.config import Oidc
from edge_agent.policy.roles import Role

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

router = APIRouter(prefix="/api/v1/session", tags=["session"])
PUBLIC = ("/api/v1/session/ways", "/api/v1/session/oidc", "/api/v1/session/oidc/callback")
COOKIE = "__Host-edge-sign-on"
LIFETIME = timedelta(minutes=10)
FRESH = timedelta(minutes=10)  # how long discovery and keys are kept
ASK_AGAIN = timedelta(seconds=30)  # an unknown key id asks for the keys again, not more often
MAX_PENDING = 256
MAX_ANSWER = 256 * 1024
TIMEOUT_S = 10.0
LEEWAY_S = 60
# Asymmetric only: a client secret must not be able to sign, and "none" is not a signature.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]


class SignOnRefused(Exception):
    """`code` is what the sign-in page says; the reason is for the audit."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Pending:
    """One sign-in that a browser began."""

    browser: str = field(repr=False)
    nonce: str
    verifier: str = field(repr=False)
    redirect: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Person:
    """Who the provider says it is."""

    identity: str
    name: str
    role: Role | None


class SignOns:
    """Sign-ins under way, and what the provider published: in memory, bounded, for minutes."""

    def __init__(self, *, now: Callable[[], datetime], transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._now = now
        self._transport = transport
        self._pending: OrderedDict[str, Pending] = OrderedDict()
        self._known: dict[str, tuple[datetime, dict[str, Any]]] = {}

    async def begin(self, settings: Oidc, *, redirect: str) -> tuple[str, str]:
        """(where to send the browser, the cookie that ties it to this). Raises SignOnRefused."""
        found = await self._discovered(settings)
        state, browser, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(4))
        self._pending[state] = Pending(browser, nonce, verifier, redirect, self._now() + LIFETIME)
        while len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": settings.client_id,
            "redirect_uri": redirect,
            "scope": " ".join(settings.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        endpoint = _secured(found, "authorization_endpoint", settings)
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}", browser

    async def finish(self, settings: Oidc, *, state: str, browser: str, code: str, issuer: str) -> Person:
        """Exchange the code and judge what came. Raises SignOnRefused; a state serves once."""
        pending = self._pending.pop(state, None)
        if (
            pending is None
            or self._now() >= pending.until
            or not hmac.compare_digest(pending.browser.encode(), browser.encode())
        ):
            raise SignOnRefused("state", "this sign-in was not begun in this browser, or too long ago")
        if issuer and issuer != settings.issuer:  # RFC 9207
            raise SignOnRefused("provider", f"the answer names another issuer: {issuer[:100]}")
        found = await self._discovered(settings)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": pending.redirect,
            "client_id": settings.client_id,
            "code_verifier": pending.verifier,
        }
        secret = settings.secret.get_secret_value()
        auth = httpx.BasicAuth(settings.client_id, secret) if secret else None
        endpoint = _secured(found, "token_endpoint", settings)
        tokens = await self._ask(settings, "POST", endpoint, data=form, auth=auth)
        claims = await self._verified(settings, found, str(tokens.get("id_token", "")), pending.nonce)
        if settings.role_claim not in claims and found.get("userinfo_endpoint"):
            bearer = {"Authorization": f"Bearer {tokens.get('access_token', '')}"}
            more = await self._ask(settings, "GET", _secured(found, "userinfo_endpoint", settings), headers=bearer)
            if more.get("sub") != claims["sub"]:
                raise SignOnRefused("provider", "userinfo speaks of another subject than the ID token")
            claims = more | claims
        return Person(
            identity=f"{settings.issuer} {claims['sub']}",
            name=str(claims.get(settings.name_claim, "")),
            role=role_of(claims.get(settings.role_claim), settings.roles),
        )

    async def _verified(self, settings: Oidc, found: dict[str, Any], token: str, nonce: str) -> dict[str, Any]:
        from joserfc import jwt
        from joserfc.errors import InvalidKeyIdError, JoseError

        try:
            try:
                decoded = jwt.decode(token, await self._keys(settings, found), algorithms=ALGORITHMS)
            except InvalidKeyIdError:  # the provider may have new keys
                decoded = jwt.decode(token, await self._keys(settings, found, again=True), algorithms=ALGORITHMS)
            jwt.JWTClaimsRegistry(
                now=int(self._now().timestamp()),
                leeway=LEEWAY_S,
                iss={"essential": True, "value": settings.issuer},
                aud={"essential": True, "value": settings.client_id},
                sub={"essential": True},
                exp={"essential": True},
                iat={"essential": True},
                nonce={"essential": True, "value": nonce},
            ).validate(decoded.claims)
        except (JoseError, ValueError) as exc:
            raise SignOnRefused("provider", f"the ID token does not hold: {exc}") from exc
        claims: dict[str, Any] = decoded.claims
        audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        if (len(audiences) > 1 or "azp" in claims) and claims.get("azp") != settings.client_id:
            raise SignOnRefused("provider", "the ID token was made for another client (azp)")
        return claims

    async def _discovered(self, settings: Oidc) -> dict[str, Any]:
        where = settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
        found = await self._kept(settings, where, FRESH)
        if found.get("issuer") != settings.issuer:
            raise SignOnRefused("provider", f"the provider names itself {str(found.get('issuer'))[:100]!r}")
        return found

    async def _keys(self, settings: Oidc, found: dict[str, Any], *, again: bool = False) -> KeySet:
        from joserfc.jwk import KeySet

        where = _secured(found, "jwks_uri", settings)
        document: Any = await self._kept(settings, where, ASK_AGAIN if again else FRESH)
        return KeySet.import_key_set(document)

    async def _kept(self, settings: Oidc, where: str, fresh: timedelta) -> dict[str, Any]:
        at, known = self._known.get(where, (None, {}))
        if at is None or self._now() - at >= fresh:
            known = await self._ask(settings, "GET", where)
            self._known = {k: v for k, v in self._known.items() if self._now() - v[0] < FRESH}
            self._known[where] = (self._now(), known)
        return known

    async def _ask(self, settings: Oidc, method: str, url: str, **options: Any) -> dict[str, Any]:
        """A JSON object from the provider. Raises SignOnRefused."""
        verify: ssl.SSLContext | bool = (
            ssl.create_default_context(cafile=str(settings.ca_file)) if settings.ca_file else True
        )
        try:
            async with (
                httpx.AsyncClient(
                    verify=verify, timeout=TIMEOUT_S, trust_env=False, transport=self._transport
                ) as client,
                client.stream(method, url, **options) as answer,
            ):
                body = b""
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > MAX_ANSWER:
                        raise SignOnRefused("provider", f"{url}: the answer is over {MAX_ANSWER} bytes")
                if answer.status_code != 200:
                    raise SignOnRefused("provider", f"{url} answered {answer.status_code}")
                found = httpx.Response(200, content=body).json()
        except (httpx.HTTPError, ValueError, OSError) as exc:
            raise SignOnRefused("provider", f"{url}: {type(exc).__name__}") from exc
        if not isinstance(found, dict):
            raise SignOnRefused("provider", f"{url}: not a JSON object")
        return found


def role_of(claimed: object, roles: Mapping[str, Role]) -> Role | None:
    """The first role of the configuration that a claimed value has."""
    values = claimed if isinstance(claimed, list) else [claimed]
    return next((role for value, role in roles.items() if value in values), None)


def account_name(wanted: str, identity: str, *, taken: Callable[[str], bool]) -> str:
    """A name of our alphabet, free here; a name at the provider never leads to somebody else's account."""
    mark = hashlib.sha256(identity.encode()).hexdigest()[:6]
    plain = re.sub(r"[^a-z0-9._-]+", "-", wanted.partition("@")[0].lower()).strip("-._")[:24]
    name = plain if re.fullmatch(r"[a-z][a-z0-9._-]+", plain) else f"sso-{mark}"
    return f"{name}-{mark}" if taken(name) else name


def _secured(found: dict[str, Any], name: str, settings: Oidc) -> str:
    """An endpoint of the discovery document: on TLS wherever the issuer is."""
    url = str(found.get(name, ""))
    if urlsplit(url).scheme != "https" and not (
        urlsplit(settings.issuer).scheme == "http" and urlsplit(url).hostname == urlsplit(settings.issuer).hostname
    ):
        raise SignOnRefused("provider", f"{name}: {url[:100]!r} is not https")
    return url


class Ways(BaseModel):
    """How one can sign in here; the sign-in page asks before anybody is known."""

    password: bool = True
    oidc: str | None = Field(None, description="what the button says; null: no identity provider")
    start: str = Field("/api/v1/session/oidc", description="where that button leads")


async def sign_ons(request: Request) -> SignOns:
    found: SignOns = request.app.state.sign_ons
    return found


Under = Annotated[SignOns, Depends(sign_ons)]


def _settings(context: Governance) -> Oidc:
    found = context.configuration.site.sign_in.oidc
    if found is None:
        raise Problem(404, "no identity provider is configured (sign_in.oidc)", code="no_provider")
    return found


_REDIRECT: dict[int | str, dict[str, Any]] = {303: {"description": "where the browser goes next"}}


@router.get("/ways")
async def ways_in(context: Context) -> Ways:
    found = context.configuration.site.sign_in.oidc
    return Ways(oidc=found.label if found else None)


@router.get("/oidc", status_code=303, response_class=RedirectResponse, responses=_REDIRECT | responses(404, 429))
async def begin_sign_on(request: Request, context: Context, under: Under) -> RedirectResponse:
    """Off to the identity provider; if that fails, back to the sign-in page with `sso` saying why."""
    limit(request)
    settings = _settings(context)
    redirect = f"https://{request.headers.get('host', '')}/api/v1/session/oidc/callback"
    try:
        where, browser = await under.begin(settings, redirect=redirect)
    except SignOnRefused as exc:
        return await _refused(request, context, exc)
    answer = RedirectResponse(where, status_code=303)
    # Lax, not Strict: the browser comes back from another site.
    answer.set_cookie(
        COOKIE, browser, max_age=int(LIFETIME.total_seconds()), path="/", secure=True, httponly=True, samesite="lax"
    )
    return answer


@router.get(
    "/oidc/callback",
    response_class=HTMLResponse,
    responses=_REDIRECT | responses(404, 429),
)
async def finish_sign_on(
    request: Request,
    context: Context,
    under: Under,
    state: Annotated[str, Query(max_length=200)] = "",
    code: Annotated[str, Query(max_length=4000)] = "",
    iss: Annotated[str, Query(max_length=500)] = "",
) -> Response:
    """Where the provider sends the browser back to."""
    limit(request)
    settings, now = _settings(context), context.now()
    try:
        person = await under.finish(
            settings, state=state, browser=request.cookies.get(COOKIE, ""), code=code, issuer=iss
        )
        opened = await _open(context, person, address(request), request.headers.get("user-agent", ""), now)
    except SignOnRefused as exc:
        return await _refused(request, context, exc)
    # A page of our own leads on: a redirect would still count as coming from the provider's site, and the browser
    # would hold back the strict session cookie.
    answer = HTMLResponse('<!doctype html><meta http-equiv="refresh" content="0;url=/"><a href="/">→</a>')
    set_session_cookie(answer, opened)
    answer.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="lax")
    return answer


async def _open(context: Governance, person: Person, where: str, agent: str, now: datetime) -> accounts.Session:
    """A session on the account of this identity, which is made at the first sign-in. Raises SignOnRefused."""

    def work(connection: sqlite3.Connection) -> accounts.Session | SignOnRefused:
        current = context.configuration.site.sign_in.oidc
        if current is None or not person.identity.startswith(f"{current.issuer} "):
            return SignOnRefused("provider", "the provider was taken off while this sign-in was under way")
        known = accounts.find_identity(connection, person.identity)
        if person.role is None:
            if known:
                accounts.close_all_sessions(connection, known.name)
            return SignOnRefused("role", "no claim maps to a role here")
        if known is None:
            name = account_name(person.name, person.identity, taken=lambda n: accounts.find(connection, n) is not None)
            known = accounts.add(
                connection, name, role=person.role, password_hash=None, now=now, identity=person.identity
            )
            context.audit.append(
                connection,
                Entry(actor=name, action="account.add", object=name, details={"role": person.role, "by": "oidc"}),
                now=now,
            )
        elif known.disabled:
            return SignOnRefused("disabled", f"the account {known.name} is shut")
        elif known.role is not person.role:
            accounts.set_role(connection, known.name, person.role)
            accounts.close_all_sessions(connection, known.name)
            known = accounts.Account(known.name, person.role)
        context.audit.append(
            connection, Entry(actor=known.name, action="session.open", details={"from": where, "by": "oidc"}), now=now
        )
        return accounts.open_session(connection, known, address=where, agent=agent, now=now)

    found = await context.database.write(work)
    if isinstance(found, SignOnRefused):
        raise found
    return found


async def _refused(request: Request, context: Governance, exc: SignOnRefused) -> RedirectResponse:
    details = {"from": address(request), "by": "oidc", "why": str(exc)[:300]}
    await context.note(Entry(actor="oidc", action="session.refused", outcome="denied", details=details))
    return RedirectResponse(f"/login?sso={exc.code}", status_code=303)
