"""The OpenAPI 3.1 document: FastAPI's, with the errors, the credentials and the scope of each operation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from edge_agent.api.access import COOKIE, CSRF_HEADER, scope_of
from edge_agent.api.problems import ProblemDetails
from edge_agent.policy.roles import ROLES, Scope

ALWAYS = (400, 401, 403, 404, 405, 413, 422, 429, 500, 503)  # any operation may end so
SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "an access token with scopes; `POST /api/v1/tokens`"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": f"a browser's session; changes also need the header {CSRF_HEADER}",
    },
}


def route_scope(route: APIRoute) -> Scope | None:
    """The scope a route asks for; None if it asks for none."""
    return next((scope for each in route.dependant.dependencies if (scope := scope_of(each.call))), None)


def describe(app: FastAPI, routes: Iterable[APIRoute]) -> dict[str, Any]:
    """The whole document. Every operation says which scope and so which roles it is for."""
    document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    parts = document.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    problem = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs", {}))
    schemas["ProblemDetails"] = problem
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    parts["securitySchemes"] = SCHEMES
    for route in routes:
        scope = route_scope(route)
        for method in route.methods or ():
            operation = document["paths"][route.path][method.lower()]
            if scope is None:
                operation["security"] = []
                continue
            operation["security"] = [{"token": []}, {"session": []}]
            operation["x-scope"] = scope.value
            operation["x-roles"] = sorted(role.value for role, scopes in ROLES.items() if scope in scopes)
    return document
