"""Every route and page against every role: who may do what, and what a stranger gets."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from fastapi import APIRouter
from fastapi.dependencies.models import Dependant

from edge_agent.api.app import api_routes, create_app
from edge_agent.policy.roles import ROLES, Role, Scope
from edge_agent.server import ROUTERS
from tests.edge_agent.api.whole import PERSON, Whole, filled

PUBLIC = {
    "/healthz", "/readyz", "/api/v1/setup", "/api/v1/session", "/api/v1/session/ways", "/api/v1/session/oidc",
    "/api/v1/session/oidc/callback",
}  # fmt: skip
PAGES = {
    "/": Scope.STATUS_READ, "/more": Scope.STATUS_READ, "/health": Scope.STATUS_READ, "/live": Scope.STATUS_READ,
    "/devices": Scope.DEVICES_READ, "/devices/panel": Scope.DEVICES_READ, "/doors": Scope.DOORS_READ,
    "/doors/gate": Scope.DOORS_READ, "/people": Scope.PEOPLE_READ,
    "/people/p1001": Scope.PEOPLE_READ, "/privacy": Scope.PRIVACY_READ, "/events": Scope.EVENTS_READ,
    "/upstreams": Scope.UPSTREAMS_READ, "/quarantine": Scope.UPSTREAMS_READ, "/audit": Scope.AUDIT_READ,
    "/account": Scope.STATUS_READ,
    "/settings": Scope.CONFIG_READ, "/people/p1001/enrol": Scope.ENROL, "/enrol": Scope.ENROL,
    "/approvals": Scope.STATUS_READ, "/incidents": Scope.PRIVACY_READ,
    "/access": Scope.CONFIG_READ, "/privacy/receipts": Scope.PRIVACY_READ, "/settings/accounts": Scope.ACCOUNTS_WRITE,
    "/settings/configuration": Scope.CONFIG_READ, "/settings/configuration/1": Scope.CONFIG_READ,
}  # fmt: skip
# What ends something, or is one's own, has no earlier version that somebody else's change could be lost with.
NOTHING_TO_LOSE = {
    "/api/v1/session/me", "/api/v1/session/me/password", "/api/v1/session/me/totp", "/api/v1/sessions/{handle}",
    "/api/v1/tokens/{name}", "/api/v1/enrolments/{enrolment}",
}  # fmt: skip
SNAPSHOT = Path(__file__).with_name("routes.txt")


async def test_every_route_answers_exactly_the_roles_that_hold_its_scope(whole: Whole) -> None:
    wrong = []
    for method, path, scope in whole.routes():
        for role in Role:
            if scope is None:
                continue
            status = await whole.status(method, filled(path), token=whole.tokens[role])
            if (status == 403) != (scope not in ROLES[role]) or status in {401, 429} or status >= 500:
                wrong.append((method, path, role, status))
    assert not wrong


async def test_a_stranger_is_let_into_nothing_but_sign_in_and_probes(whole: Whole) -> None:
    for method, path, scope in whole.routes():
        status = await whole.status(method, filled(path))
        if scope is None:
            assert path in PUBLIC
        else:
            assert status == 401, (method, path)


async def test_a_stranger_finds_nothing_personal_anywhere(whole: Whole) -> None:
    paths = {filled(path) for _, path, _ in whole.routes()} - {"/api/v1/events/stream"}
    paths |= {*PAGES, "/login", "/setup", "/sealed", "/static/console.js", "/api/v1/openapi.json", "/people/p1001/x"}
    paths |= {"/static/../agent.db", "/static/%2e%2e/agent.db", "//people", "/people/", "/docs", "/redoc"}
    async with whole.client() as client:
        for path in sorted(paths):
            answer = await client.get(path)
            assert answer.status_code < 500, path
            for secret in (PERSON["name"], PERSON["user_id"], PERSON["card"], "the-admin", "of-admin"):
                assert secret not in answer.text, path


@pytest.mark.parametrize("role", Role)
async def test_pages_show_each_role_its_own(whole: Whole, role: Role) -> None:
    for path, scope in PAGES.items():
        status = await whole.status("GET", path, cookie=whole.cookies[role])
        assert status == (200 if scope in ROLES[role] else 403), path


async def test_pages_lead_a_stranger_to_the_sign_in(whole: Whole) -> None:
    for path in set(PAGES) - {"/live"}:
        assert await whole.status("GET", path) == 303, path
    assert await whole.status("GET", "/live") == 403


async def test_the_routes_and_their_scopes_are_the_agreed_ones(whole: Whole) -> None:
    lines = [f"{method} {path} {scope or 'public'}" for method, path, scope in whole.routes()]
    assert sorted(lines) == SNAPSHOT.read_text("utf-8").splitlines()


async def test_every_change_says_which_version_it_is_based_on(whole: Whole) -> None:
    document = whole.app.openapi()
    changing = {
        (method, path)
        for method, path, _ in whole.routes()
        if method in {"PUT", "PATCH", "DELETE"} and path not in NOTHING_TO_LOSE
    }
    assert len(changing) >= 10
    for method, path in sorted(changing | {("POST", "/api/v1/config/versions/{number}/restore")}):
        operation = document["paths"][path][method.lower()]
        assert "if-match" in {each["name"] for each in operation["parameters"]}, (method, path)
        assert {"412", "428"} <= operation["responses"].keys(), (method, path)
    async with whole.client(Role.ADMIN) as admin:
        for path in ("/api/v1/people/p1001", "/api/v1/accounts/the-auditor", "/api/v1/devices/panel"):
            assert (await admin.patch(path, json={})).status_code == 428, path


async def test_nothing_of_a_request_is_sent_to_a_thread_by_being_a_plain_function(whole: Whole) -> None:
    """FastAPI runs plain functions in a pool of threads; a dependency that awaits nothing then costs a hop each."""
    plain = set()

    def look(dependant: Dependant) -> None:
        if dependant.call is not None and not inspect.iscoroutinefunction(dependant.call):
            plain.add(dependant.call)
        for each in dependant.dependencies:
            look(each)

    for route in api_routes(module.router for module in ROUTERS):
        look(route.dependant)
    assert not plain


async def test_errors_are_problem_details_whatever_raised_them(
    whole: Whole, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with whole.client(Role.ADMIN) as client:

        async def fails(*_: object) -> None:
            raise RuntimeError("the secret is 4711")

        monkeypatch.setattr(whole.agent.database, "read", fails)
        broken = await client.get("/api/v1/people")
        monkeypatch.undo()
        answers = {
            404: await client.get("/api/v1/nothing"),
            405: await client.delete("/api/v1/people"),
            422: await client.get("/api/v1/people?limit=0"),
            428: await client.put("/api/v1/config", json={}),
            412: await client.put("/api/v1/config", json={}, headers={"If-Match": '"99"'}),
            413: await client.post("/api/v1/people", content=b"x" * (9 * 2**20)),
            500: broken,
        }
    for status, answer in answers.items():
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json", status
        body = answer.json()
        assert body["status"] == status
        assert body["title"]
        assert body["request_id"] == answer.headers["x-request-id"]
        assert answer.headers["x-frame-options"] == "DENY"
    assert "4711" not in broken.text
    assert "RuntimeError" in caplog.text  # the log tells what the answer does not
    assert answers[422].json()["errors"][0]["field"] == "query.limit"
    assert "GET" in answers[405].headers["allow"]
    assert answers[412].headers["etag"] == '"1"'


async def test_an_application_with_an_unguarded_route_is_not_served(whole: Whole) -> None:
    careless = APIRouter()

    @careless.get("/api/v1/leak")
    async def leak() -> str:
        return "everything"

    with pytest.raises(RuntimeError, match="declares no scope"):
        create_app(whole.app.state.access, [careless], public=[], state={})
