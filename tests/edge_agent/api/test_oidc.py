"""Signing in at an identity provider: a whole flow against somebody else's provider, and answers that lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey
from pydantic import SecretStr

from edge_agent.api import accounts
from edge_agent.api.oidc import Person, SignOnRefused, SignOns, account_name, role_of
from edge_agent.config import Oidc, SignIn
from edge_agent.policy.roles import Role
from tests.edge_agent.api.whole import Whole
from tests.identity_provider import identity_provider

START, CALLBACK = "/api/v1/session/oidc", "/api/v1/session/oidc/callback"


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with identity_provider() as issuer:
        yield issuer


async def configured(whole: Whole, issuer: str, **roles: Role) -> None:
    settings = Oidc(
        issuer=issuer, client_id="gateway", secret=SecretStr("s3cret"), label="公司账号",
        scopes=("openid", "profile", "groups"), roles={"gate-ops": Role.OPERATOR} | roles,
    )  # fmt: skip
    site = whole.agent.site.model_copy(update={"sign_in": SignIn(oidc=settings)})
    await whole.agent.configuration.apply(site, actor="t", reason="t", now=whole.agent.clock())


async def signed_in(whole: Whole, sub: str) -> tuple[httpx.AsyncClient, httpx.Response]:
    """As a browser does it: to the provider, through its form, back."""
    client = whole.client()
    away = await client.get(START)
    assert away.status_code == 303, away.text
    async with httpx.AsyncClient(trust_env=False) as outside:
        back = await outside.post(away.headers["location"], data={"sub": sub})
    assert back.headers["location"].startswith("https://gw.example" + CALLBACK), back.text
    return client, await client.get(back.headers["location"])


async def test_a_person_of_the_company_gets_in_with_the_role_of_their_group(whole: Whole, provider: str) -> None:
    assert (await whole.client().get("/api/v1/session/ways")).json()["oidc"] is None
    assert (await whole.client().get(START)).status_code == 404
    await configured(whole, provider)
    assert (await whole.client().get("/api/v1/session/ways")).json()["oidc"] == "公司账号"
    client, landed = await signed_in(whole, "s-1")
    assert landed.status_code == 200
    assert "samesite=strict" in landed.headers["set-cookie"].lower()
    me = (await client.get("/api/v1/session/me")).json()
    assert (me["name"], me["role"]) == ("lin.lan", "operator")
    again, _ = await signed_in(whole, "s-1")
    assert (await again.get("/api/v1/session/me")).json()["name"] == "lin.lan"  # the same account
    assert (await whole.client().post("/api/v1/session", json={"name": "lin.lan", "password": "x"})).status_code == 401


async def test_without_a_mapped_role_there_is_no_account(whole: Whole, provider: str) -> None:
    await configured(whole, provider)
    client, landed = await signed_in(whole, "s-2")
    assert (landed.status_code, landed.headers["location"]) == (303, "/login?sso=role")
    assert (await client.get("/api/v1/session/me")).status_code == 401
    assert await whole.agent.database.read(lambda c: accounts.find(c, "guest")) is None


async def test_a_name_at_the_provider_never_leads_into_somebody_elses_account(whole: Whole, provider: str) -> None:
    await configured(whole, provider)
    client, _ = await signed_in(whole, "s-3")
    me = (await client.get("/api/v1/session/me")).json()
    assert me["name"].startswith("the-admin-")
    assert me["role"] == "operator"


async def test_losing_the_role_or_being_shut_out_ends_it(whole: Whole, provider: str) -> None:
    await configured(whole, provider)
    first, _ = await signed_in(whole, "s-1")
    await configured(whole, provider, staff=Role.AUDITOR)
    site = whole.agent.site
    oidc = site.sign_in.oidc
    assert oidc is not None
    gone = site.model_copy(update={"sign_in": SignIn(oidc=oidc.model_copy(update={"roles": {"x": Role.ADMIN}}))})
    await whole.agent.configuration.apply(gone, actor="t", reason="t", now=whole.agent.clock())
    _, landed = await signed_in(whole, "s-1")
    assert landed.headers["location"] == "/login?sso=role"
    assert (await first.get("/api/v1/session/me")).status_code == 401
    await configured(whole, provider)
    await whole.agent.database.write(lambda c: accounts.set_disabled(c, "lin.lan", disabled=True))
    _, landed = await signed_in(whole, "s-1")
    assert landed.headers["location"] == "/login?sso=disabled"


async def test_a_cookie_of_other_letters_is_refused_like_any_wrong_one(whole: Whole, provider: str) -> None:
    await configured(whole, provider)
    away = await whole.client().get(START)
    state = parse_qs(urlsplit(away.headers["location"]).query)["state"][0]
    cookie = {"Cookie": "__Host-edge-sign-on=\xe9t\xe9".encode("latin-1")}
    landed = await whole.client().get(CALLBACK, params={"state": state, "code": "x"}, headers=cookie)
    assert (landed.status_code, landed.headers["location"]) == (303, "/login?sso=state")


async def test_an_answer_serves_once_and_only_the_browser_that_asked(whole: Whole, provider: str) -> None:
    await configured(whole, provider)
    for thief in (True, False):
        client = whole.client()
        away = await client.get(START)
        async with httpx.AsyncClient(trust_env=False) as outside:
            back = (await outside.post(away.headers["location"], data={"sub": "s-1"})).headers["location"]
        first = await (whole.client() if thief else client).get(back)
        assert first.status_code == (303 if thief else 200)
        second = await client.get(back)
        assert second.headers["location"] == "/login?sso=state"


# A provider that lies

ISSUER = "https://id.example"
NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
KEY, OTHER = RSAKey.generate_key(2048, {"kid": "k1"}), RSAKey.generate_key(2048, {"kid": "k1"})
SETTINGS = Oidc(issuer=ISSUER, client_id="gateway", roles={"ops": Role.OPERATOR})
Claims = dict[str, Any]


def document(**changes: str) -> dict[str, str]:
    return {
        "issuer": ISSUER,
        "authorization_endpoint": f"{ISSUER}/authorize",
        "token_endpoint": f"{ISSUER}/token",
        "jwks_uri": f"{ISSUER}/keys",
    } | changes


async def told(
    token: Callable[[Claims], str], *, discovery: dict[str, str] | None = None, keys: Any = None, form: Any = None
) -> Person:
    """What becomes of a sign-in whose provider answers with this ID token."""
    asked: dict[str, str] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("openid-configuration"):
            return httpx.Response(200, json=discovery or document())
        if request.url.path == "/keys":
            return httpx.Response(200, json=keys or KeySet([KEY]).as_dict(private=False))
        if form is not None:
            form.update(parse_qs(request.content.decode()))
        claims = {
            "iss": ISSUER, "aud": "gateway", "sub": "s-1", "nonce": asked["nonce"], "groups": ["ops"],
            "preferred_username": "lin", "iat": int(NOW.timestamp()), "exp": int(NOW.timestamp()) + 300,
        }  # fmt: skip
        return httpx.Response(200, json={"id_token": token(claims), "access_token": "a"})

    under = SignOns(now=lambda: NOW, transport=httpx.MockTransport(answer))
    where, browser = await under.begin(SETTINGS, redirect="https://gw.example/back")
    asked.update({key: values[0] for key, values in parse_qs(urlsplit(where).query).items()})
    return await under.finish(SETTINGS, state=asked["state"], browser=browser, code="c", issuer="")


def signed(claims: Claims, *, key: Any = KEY, alg: str = "RS256", **changes: Any) -> str:
    return jwt.encode({"alg": alg, "kid": "k1"}, claims | changes, key, algorithms=[alg])


def unsigned(claims: Claims) -> str:
    _, body, _ = signed(claims).split(".")
    return f"eyJhbGciOiJub25lIn0.{body}."


async def test_an_honest_answer_is_believed_and_carries_the_verifier() -> None:
    form: dict[str, list[str]] = {}
    person = await told(signed, form=form)
    assert person == Person(f"{ISSUER} s-1", "lin", Role.OPERATOR)
    assert len(form["code_verifier"][0]) >= 43  # RFC 7636, 4.1


async def test_elliptic_keys_are_believed_too() -> None:
    key = ECKey.generate_key("P-256", {"kid": "k1"})
    assert (
        await told(lambda c: signed(c, key=key, alg="ES256"), keys=KeySet([key]).as_dict(private=False))
    ).role is Role.OPERATOR


@pytest.mark.parametrize(
    "lie",
    [
        lambda c: signed(c, iss="https://evil.example"),
        lambda c: signed(c, aud="another-client"),
        lambda c: signed(c, aud=["gateway", "another-client"]),
        lambda c: signed(c, azp="another-client"),
        lambda c: signed(c, nonce="of another sign-in"),
        lambda c: signed({k: v for k, v in c.items() if k != "nonce"}),
        lambda c: signed(c, exp=int(NOW.timestamp()) - 3600),
        lambda c: signed({k: v for k, v in c.items() if k != "exp"}),
        lambda c: signed(c, iat=int((NOW + timedelta(hours=1)).timestamp())),
        lambda c: signed(c, key=OTHER),
        lambda c: signed(c, key=OctKey.import_key(KEY.as_pem(private=False)), alg="HS256"),
        unsigned,
        lambda c: "not.a.token",
        lambda c: "",
    ],
    ids=["iss", "aud", "aud+", "azp", "nonce", "no nonce", "exp", "no exp", "iat", "key", "hmac", "none", "junk", "no"],
)
async def test_an_answer_that_does_not_hold_is_refused(lie: Callable[[Claims], str]) -> None:
    with pytest.raises(SignOnRefused):
        await told(lie)


@pytest.mark.parametrize(
    "discovery",
    [
        document(issuer="https://evil.example"),
        document(token_endpoint="http://id.example/token"),
        document(jwks_uri="file:///etc/passwd"),
    ],
)
async def test_a_provider_that_is_not_what_it_should_be_is_refused(discovery: dict[str, str]) -> None:
    with pytest.raises(SignOnRefused):
        await told(signed, discovery=discovery)


@pytest.mark.parametrize("issuer", ["http://id.example", "http://localhost.evil.example", "file:///etc", "https://"])
def test_plain_http_is_only_for_this_machine(issuer: str) -> None:
    with pytest.raises(ValueError, match="https"):
        Oidc(issuer=issuer, client_id="x")


@pytest.mark.parametrize(
    ("claimed", "role"),
    [("ops", Role.OPERATOR), (["x", "ops"], Role.OPERATOR), ([], None), (None, None), ([["ops"]], None), (7, None)],
)
def test_roles_come_from_strings_alone(claimed: object, role: Role | None) -> None:
    assert role_of(claimed, {"ops": Role.OPERATOR}) is role


@pytest.mark.parametrize("wanted", ["", "../x", "林岚", "A" * 200, "a@b", "7up", "x'; DROP TABLE accounts"])
def test_any_name_becomes_one_of_ours(wanted: str) -> None:
    import re

    for taken in (True, False):
        name = account_name(wanted, "i s", taken=lambda n, taken=taken: taken and "-" not in n)
        assert re.fullmatch(r"[a-z][a-z0-9._-]{1,31}", name), name
