"""The OpenAPI document is the contract: requests made from it, right and wrong, are answered as it says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import argon2
import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.specs.openapi import checks as openapi_checks

from edge_agent.api.access import RateLimit
from edge_agent.policy.roles import Role, Scope
from tests.edge_agent.api.whole import Whole, whole_gateway

LEFT_OUT = {"/api/v1/events/stream", "/api/v1/devices/probe"}  # endless; asks hosts that a generator made up
EXAMPLES = 5
CHECKS = [
    schemathesis.checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.response_headers_conformance,
]


@dataclass
class Served:
    """The application and the loop it runs on; the tests here are not coroutines, because their generator is not."""

    runner: asyncio.Runner
    whole: Whole

    def ask(self, case: schemathesis.Case) -> httpx.Response:
        prepared = requests.Request(**case.as_transport_kwargs(base_url="https://gw.example")).prepare()
        body = prepared.body.encode() if isinstance(prepared.body, str) else prepared.body
        headers = {name: value for name, value in prepared.headers.items() if name.lower() != "authorization"}

        async def send() -> httpx.Response:
            async with self.whole.client(Role.ADMIN) as client:
                return await client.request(str(prepared.method), str(prepared.url), content=body, headers=headers)

        return self.runner.run(send())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with asyncio.Runner() as runner:
        context = whole_gateway(tmp_path)
        whole = runner.run(context.__aenter__())
        whole.app.state.access.requests = RateLimit(per_s=1e9, burst=1e9)
        whole.app.state.access.sign_ins = RateLimit(per_s=1e9, burst=1e9)
        whole.agent.roster._hasher = argon2.PasswordHasher(1, 8, 1)
        try:
            yield Served(runner, whole)
        finally:
            runner.run(context.__aexit__(None, None, None))


@pytest.mark.timeout(600)  # a few hundred requests; seconds alone, minutes beside others
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_generated_requests_are_answered_as_the_document_says(
    served: Served, mode: schemathesis.GenerationMode
) -> None:
    schema = schemathesis.openapi.from_dict(served.whole.app.openapi())
    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path in LEFT_OUT:
            continue

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def meets_the_contract(case: schemathesis.Case) -> None:
            nonlocal asked
            asked += 1
            case.validate_response(served.ask(case), checks=CHECKS)

        with contextlib.suppress(Unsatisfiable):  # nothing wrong can be sent where nothing is taken
            meets_the_contract()
    assert asked > 100


def shown(schema: dict[str, Any], schemas: dict[str, Any]) -> bool:
    """Whether a reader sees what goes here: an example, a default, a choice, or all of its parts."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rsplit("/", 1)[1]]
    if schema.keys() & {"examples", "example", "enum", "const", "default"} or schema.get("type") in {"boolean", "null"}:
        return True
    if any(shown(each, schemas) for key in ("anyOf", "allOf", "oneOf") for each in schema.get(key, ())):
        return True
    if "properties" in schema:
        return all(shown(each, schemas) for each in schema["properties"].values())
    return "items" in schema and shown(schema["items"], schemas)


def test_every_body_shows_an_example(served: Served) -> None:
    document: dict[str, Any] = served.whole.app.openapi()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is not None and "examples" not in body:
                assert shown(body["schema"], document["components"]["schemas"]), (method, path)


def test_every_operation_says_who_may_call_it_and_how_it_fails(served: Served) -> None:
    document: dict[str, Any] = served.whole.app.openapi()
    assert document["openapi"].startswith("3.1")
    scopes = {scope.value for scope in Scope}
    seen = set()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            seen.add(operation["operationId"])
            assert operation["security"] == [] or operation["x-scope"] in scopes, (method, path)
            for status, answer in operation["responses"].items():
                if status.startswith(("4", "5")) and path != "/readyz":
                    assert "application/problem+json" in answer["content"], (method, path, status)
    assert len(seen) == sum(len(item) for item in document["paths"].values())
    assert "HTTPValidationError" not in str(document)
