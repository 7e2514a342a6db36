from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pyotp

from edge_agent.policy.roles import Role
from tests.edge_agent.api.client import PASSWORD, Site
from tests.edge_agent.api.whole import Whole

NEW = "another sentence of mine"
ME = "/api/v1/session/me"


@contextlib.asynccontextmanager
async def signed_in(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    client = await site.administrator()
    try:
        yield client
    finally:
        await client.aclose()


async def sign_in(site: Site, password: str, code: str = "") -> httpx.Response:
    async with site.client() as client:
        return await client.post("/api/v1/session", json={"name": "linlan", "password": password, "code": code})


async def test_a_changed_password_is_the_only_one_and_ends_the_other_sessions(site: Site) -> None:
    async with signed_in(site) as client:
        other = await sign_in(site, PASSWORD)
        assert (await client.put(f"{ME}/password", json={"current": "wrong", "new": NEW})).status_code == 403
        assert (await client.put(f"{ME}/password", json={"current": PASSWORD, "new": "short"})).status_code == 422
        assert (await client.put(f"{ME}/password", json={"current": PASSWORD, "new": NEW})).status_code == 204
        assert (await client.get(ME)).status_code == 200
        async with site.client() as old:
            old.cookies = other.cookies
            assert (await old.get(ME)).status_code == 401
    assert (await sign_in(site, PASSWORD)).status_code == 401
    assert (await sign_in(site, NEW)).status_code == 200


async def test_a_second_factor_is_in_force_once_a_code_confirmed_it(site: Site) -> None:
    async with signed_in(site) as client:
        assert (await client.post(f"{ME}/totp", json={"password": "wrong"})).status_code == 403
        offer = (await client.post(f"{ME}/totp", json={"password": PASSWORD})).json()
        assert offer["svg"].startswith("<svg")
        assert offer["secret"] in offer["uri"]
        assert (await sign_in(site, PASSWORD)).status_code == 200  # not yet
        authenticator = pyotp.TOTP(offer["secret"])
        wrong = await client.put(f"{ME}/totp", json={"code": authenticator.at(site.clock() + timedelta(hours=1))})
        assert wrong.status_code == 422
        assert (await client.put(f"{ME}/totp", json={"code": authenticator.at(site.clock())})).status_code == 204
        assert (await sign_in(site, PASSWORD)).status_code == 401
        assert (await sign_in(site, PASSWORD, authenticator.at(site.clock()))).status_code == 401  # it has served
        site.clock.pass_by(timedelta(seconds=30))
        code = authenticator.at(site.clock())
        assert [(await sign_in(site, PASSWORD, code)).status_code for _ in range(2)] == [200, 401]
        assert (await client.post(f"{ME}/totp/remove", json={"password": PASSWORD})).status_code == 204
    assert (await sign_in(site, PASSWORD)).status_code == 200


async def test_an_offered_secret_ages(site: Site) -> None:
    async with signed_in(site) as client:
        offer = (await client.post(f"{ME}/totp", json={"password": PASSWORD})).json()
        site.clock.pass_by(timedelta(minutes=11))
        code = pyotp.TOTP(offer["secret"]).at(site.clock())
        assert (await client.put(f"{ME}/totp", json={"code": code})).status_code == 409


async def test_a_token_has_no_password(whole: Whole) -> None:
    async with whole.client(Role.ADMIN) as client:
        assert (await client.post(f"{ME}/totp", json={"password": PASSWORD})).json()["code"] == "no_account"


async def change(client: httpx.AsyncClient, name: str, body: dict[str, object]) -> httpx.Response:
    path = f"/api/v1/accounts/{name}"
    return await client.patch(path, json=body, headers={"If-Match": (await client.get(path)).headers["etag"]})


async def test_an_administrator_resets_others_and_is_never_the_last_to_go(site: Site) -> None:
    async with signed_in(site) as client:
        await client.post("/api/v1/accounts", json={"name": "wang", "role": "operator", "password": PASSWORD})
        reset = await change(client, "wang", {"password": NEW, "disabled": True})
        assert reset.json()["disabled"] is True
        last = await change(client, "linlan", {"disabled": True})
        assert (last.status_code, last.json()["code"]) == (409, "last_administrator")
        nobody = await client.patch("/api/v1/accounts/nobody", json={}, headers={"If-Match": '"1"'})
        assert nobody.status_code == 404
        assert (await client.get(ME)).status_code == 200
