"""What a request says is taken whole or refused; and no form of the console says what its route does not know."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from edge_agent.policy.roles import Role
from tests.edge_agent.api.test_routes import PAGES
from tests.edge_agent.api.whole import Whole

PARAMETER = re.compile(r"\{(\w+)\}")


class Forms(HTMLParser):
    """(METHOD /path, names it sends) of each form on a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, set[str]]] = []
        self._inside = False
        self._leads: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            what = given.get("data-form") or given.get("data-save")
            self._inside = what is not None and "data-whole" not in given and "enctype" not in given
            if what and self._inside:
                self.found.append((what, set()))
                self._leads = set((given.get("data-path") or "").split())
        elif self._inside and tag in {"input", "select", "textarea"}:
            self.found[-1][1].update({given.get("name") or ""} - self._leads - {""})

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "form"


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/api/v1/people", {"name": "A", "valid_to": "2026-12-31"}, "valid_to"),
        ("PATCH", "/api/v1/people/p1001", {"card": "77"}, "card"),
        ("PUT", "/api/v1/people/p1001/access", {"groups": [], "enable": False}, "enable"),
        ("POST", "/api/v1/people/p1001/erasures", {"verb": "withdraw", "modalities": ["face"]}, "modalities"),
        ("PUT", "/api/v1/doors/gate/mode", {"mode": "unlocked", "minute": 5}, "minute"),
        ("POST", "/api/v1/quarantine", {"upstream": "hr", "action": "discard", "sequence": [1]}, "sequence"),
        ("POST", "/api/v1/tokens", {"name": "hr", "scopes": ["events:read"], "expires_days": 7}, "expires_days"),
        ("POST", "/api/v1/devices", {"name": "d", "kind": "adms", "serial": "C1", "attendence": False}, "attendence"),
        ("PATCH", "/api/v1/devices/panel", {"time_zone": "UTC"}, "time_zone"),
    ],
)
async def test_a_field_that_is_none_is_refused_with_those_there_are(
    whole: Whole, method: str, path: str, body: dict[str, Any], field: str
) -> None:
    async with whole.client(Role.ADMIN, **{"If-Match": '"1"', "Idempotency-Key": "4f2f"}) as admin:
        answer = await admin.request(method, path, json=body)
    assert answer.status_code == 422, answer.text
    assert f"'{field}' is no field; allowed are " in answer.json()["detail"]


async def test_forms_send_what_their_routes_take(whole: Whole) -> None:
    document = whole.app.openapi()
    known = {
        f"{method.upper()} {PARAMETER.sub('*', path)}": operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }

    def fields(operation: dict[str, Any]) -> set[str]:
        content = operation["requestBody"]["content"]["application/json"]["schema"]
        schema = document["components"]["schemas"][content["$ref"].rsplit("/", 1)[1]]
        assert schema["additionalProperties"] is False, content
        return set(schema["properties"])

    checked = 0
    browser = await whole.browser("admin")
    for page in set(PAGES) - {"/live"}:
        forms = Forms()
        forms.feed((await browser.get(page)).text)
        for what, names in forms.found:
            steps = PARAMETER.sub("*", what).split("/")
            fitting = [
                operation
                for route, operation in known.items()
                if len(route.split("/")) == len(steps)
                and all(one in ("*", other) for one, other in zip(route.split("/"), steps, strict=True))
            ]
            assert fitting, (page, what)
            if names:
                assert any(names <= fields(operation) for operation in fitting), (page, what, names)
                checked += 1
    assert checked > 8
