from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest

from edge_agent.api import accounts
from edge_agent.api.access import COOKIE, CSRF_HEADER, RateLimit
from tests.edge_agent.api.client import PASSWORD, Site


async def test_a_fresh_gateway_is_claimed_once(site: Site) -> None:
    await site.administrator()
    again = await site.client().post("/api/v1/setup", json={"token": "0000", "name": "mallory", "password": PASSWORD})
    assert again.status_code == 409
    assert again.headers["content-type"] == "application/problem+json"
    assert "edge-agent token bootstrap" in again.json()["detail"]


async def test_the_cookie_is_host_only_secure_and_out_of_scripts(site: Site) -> None:
    await site.administrator()
    answer = await site.client().post("/api/v1/session", json={"name": "linlan", "password": PASSWORD})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    for attribute in ("HttpOnly", "Secure", "SameSite=strict", "Path=/"):
        assert attribute in cookie
    assert "Domain" not in cookie


async def test_a_wrong_password_and_an_unknown_name_get_the_same_answer(site: Site) -> None:
    await site.administrator()
    wrong = await site.client().post("/api/v1/session", json={"name": "linlan", "password": "x" * 12})
    unknown = await site.client().post("/api/v1/session", json={"name": "nobody", "password": "x" * 12})
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json()["detail"] == unknown.json()["detail"]


async def test_five_failures_lock_even_the_right_password_for_a_while(site: Site) -> None:
    await site.administrator()
    client = site.client()
    for _ in range(5):
        await client.post("/api/v1/session", json={"name": "linlan", "password": "x" * 12})
    locked = await client.post("/api/v1/session", json={"name": "linlan", "password": PASSWORD})
    assert locked.status_code == 401
    assert locked.json()["code"] == "locked"
    site.clock.pass_by(timedelta(seconds=31))
    assert (await client.post("/api/v1/session", json={"name": "linlan", "password": PASSWORD})).status_code == 200


@contextlib.asynccontextmanager
async def while_compared(site: Site, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncio.Task[httpx.Response]]:
    """The right password is on its way: it has been handed over, and is compared until the end of the block."""
    arrived, compared, matches = threading.Event(), threading.Event(), accounts.password_matches

    def slow(stored: str | None, password: str) -> bool:
        if password == PASSWORD:
            arrived.set()
            compared.wait(30)
        return matches(stored, password)

    monkeypatch.setattr(accounts, "password_matches", slow)
    body = {"name": "linlan", "password": PASSWORD}
    signing_in = asyncio.create_task(site.client().post("/api/v1/session", json=body))
    try:
        await asyncio.to_thread(arrived.wait, 30)
        yield signing_in
    finally:
        compared.set()


async def test_the_right_password_among_many_guesses_of_one_moment_meets_the_lock(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.administrator()
    async with while_compared(site, monkeypatch) as signing_in:
        for _ in range(5):
            await site.client().post("/api/v1/session", json={"name": "linlan", "password": "x" * 12})
    answer = await signing_in
    assert (answer.status_code, answer.json()["code"], "set-cookie" in answer.headers) == (401, "locked", False)
    assert int(answer.headers["retry-after"]) <= 30


async def test_a_password_that_is_reset_while_it_is_compared_opens_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.administrator()
    async with while_compared(site, monkeypatch) as signing_in:
        await site.governance.database.write(lambda c: accounts.set_password(c, "linlan", "another", by="an"))
    answer = await signing_in
    assert (answer.status_code, answer.json()["code"]) == (401, "sign_in")


async def test_the_lock_does_not_tell_which_accounts_exist(site: Site) -> None:
    await site.administrator()
    answers: dict[str, list[str]] = {"linlan": [], "nobody": []}
    for _ in range(7):
        for name, codes in answers.items():
            site.app.state.access.sign_ins = RateLimit(per_s=1, burst=1)  # as from another address
            refused = await site.client().post("/api/v1/session", json={"name": name, "password": "x" * 12})
            codes.append(refused.json()["code"])
    assert answers["linlan"] == answers["nobody"]
    assert answers["nobody"][-1] == "locked"


async def test_one_address_cannot_try_for_ever(site: Site) -> None:
    client = site.client()
    statuses = [
        (await client.post("/api/v1/setup", json={"token": "x", "name": "mallory", "password": "short"})).status_code
        for _ in range(12)
    ]
    assert statuses[0] == 422
    assert statuses[-1] == 429


async def test_a_change_without_the_csrf_token_is_refused(site: Site) -> None:
    client = await site.administrator()
    del client.headers[CSRF_HEADER]
    refused = await client.post("/api/v1/tokens", json={"name": "ci", "scopes": ["events:read"]})
    assert refused.status_code == 403
    assert refused.json()["code"] == "csrf"


async def test_signing_out_ends_the_session(site: Site) -> None:
    client = await site.administrator()
    assert (await client.get("/api/v1/session/me")).json()["name"] == "linlan"
    cookie = client.cookies[COOKIE]
    assert (await client.delete("/api/v1/session/me")).status_code == 204
    client.cookies.set(COOKIE, cookie)
    assert (await client.get("/api/v1/session/me")).status_code == 401


async def test_a_token_holds_no_more_than_its_maker(site: Site) -> None:
    client = await site.administrator()
    beyond = await client.post("/api/v1/tokens", json={"name": "x", "scopes": ["people:export"]})
    assert beyond.status_code == 403
    made = (await client.post("/api/v1/tokens", json={"name": "ci", "scopes": ["audit:read"]})).json()
    machine = site.client(Authorization=f"Bearer {made['token']}")
    assert (await machine.get("/api/v1/audit")).status_code == 200
    assert (await machine.get("/api/v1/config")).status_code == 403
    assert (await client.delete("/api/v1/tokens/ci")).status_code == 204
    assert (await machine.get("/api/v1/audit")).status_code == 401


async def test_another_browser_can_be_thrown_out(site: Site) -> None:
    client = await site.administrator()
    other = site.client()
    await other.post("/api/v1/session", json={"name": "linlan", "password": PASSWORD}, headers={"User-Agent": "other"})
    handles = {s["agent"]: s["handle"] for s in (await client.get("/api/v1/sessions")).json()}
    assert (await client.delete(f"/api/v1/sessions/{handles['other']}")).status_code == 204
    assert (await other.get("/api/v1/session/me")).status_code == 401
    assert (await client.get("/api/v1/session/me")).status_code == 200


async def test_every_answer_carries_the_security_headers(site: Site) -> None:
    answer = await site.client().get("/api/v1/session/me")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"


async def test_a_body_over_the_limit_is_refused(site: Site) -> None:
    answer = await site.client().post("/api/v1/session", content=b"x" * (9 * 1024 * 1024))
    assert answer.status_code == 413
