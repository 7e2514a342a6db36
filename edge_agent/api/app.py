"""The local HTTPS application: API and console behind one gate, one set of headers, one shape of error."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_agent import __version__
from edge_agent.api import openapi, problems, two_people
from edge_agent.api.access import AccessControl
from edge_agent.api.openapi import route_scope
from edge_agent.database import StorageError

log = logging.getLogger(__name__)

MAX_BODY = 8 * 1024 * 1024  # an enrolment photo; everything else is far smaller
# Starlette would put uploads over a megabyte into a file in /tmp, as they came: photographs stay in memory.
MultiPartParser.spool_max_size = MAX_BODY + 1
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self';"
        " frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Strict-Transport-Security": "max-age=31536000",
}
RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


class Shell:
    """Around everything: a request id, the security headers, and an end to bodies that are too large."""

    def __init__(self, app: ASGIApp, *, max_body: int = MAX_BODY) -> None:
        self._app = app
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(4)
        scope.setdefault("state", {})["request_id"] = request_id
        seen = 0
        started = False

        async def bounded() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self._max_body:
                    raise HTTPException(413, f"the body is over {self._max_body} bytes")
            return message

        async def dressed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                given = list(message.get("headers", ()))
                present = {name for name, _ in given}
                given += [pair for pair in RAW_HEADERS if pair[0] not in present]
                given.append((b"x-request-id", request_id.encode()))
                if b"cache-control" not in present:
                    # Assets hold nothing of anybody: the browser may keep them if it asks whether they changed.
                    kept = b"no-cache" if scope["path"].startswith("/static/") else b"no-store"
                    given.append((b"cache-control", kept))
                message["headers"] = given
            await send(message)

        try:
            await self._app(scope, bounded, dressed)
        except Exception as exc:
            if started:
                raise
            full = isinstance(exc, StorageError)
            log.exception("request_failed request=%s path=%s", request_id, scope["path"])
            problem = problems.Problem(
                503 if full else 500,
                "the database takes no writes now" if full else "a fault of the gateway; its log tells more",
                code="storage" if full else "fault",
            )
            await problems.answer(Request(scope), problem)(scope, receive, dressed)


def api_routes(routers: Iterable[APIRouter]) -> list[APIRoute]:
    """The routers' own routes: once included, FastAPI keeps them out of sight of `app.routes`."""
    return [route for router in routers for route in router.routes if isinstance(route, APIRoute)]


def check_routes(app: FastAPI, routers: Iterable[APIRouter], public: Iterable[str]) -> None:
    """Refuse to serve an application in which any route forgot its scope, or which serves one not looked at."""
    open_routes, seen = set(public), set()
    for route in api_routes(routers):
        seen.add(route.path)
        if route.path not in open_routes and route_scope(route) is None:
            raise RuntimeError(f"{sorted(route.methods or [])} {route.path} declares no scope and is not public")
    unseen = set(app.openapi()["paths"]) - seen
    if unseen:
        raise RuntimeError(f"{sorted(unseen)} were not checked for a scope")


def create_app(
    access: AccessControl, routers: Iterable[APIRouter], *, public: Iterable[str], state: dict[str, object]
) -> FastAPI:
    """Assemble the application. `public` names the paths that answer without a caller."""
    app = FastAPI(
        title="Edge agent",
        version=__version__,
        summary="Local configuration API of the attendance and door gateway",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # the interactive page loads scripts from elsewhere
        redoc_url=None,
        responses=problems.responses(*openapi.ALWAYS),
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.access = access
    for name, value in state.items():
        setattr(app.state, name, value)
    routers = list(routers)
    for router in routers:
        app.include_router(router)
    app.add_exception_handler(problems.Problem, problems.on_problem)
    app.add_exception_handler(two_people.Held, two_people.on_held)
    app.add_exception_handler(RequestValidationError, problems.on_invalid)
    app.add_exception_handler(HTTPException, problems.on_http)
    app.add_middleware(Shell)

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = openapi.describe(app, api_routes(routers))
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
    check_routes(app, routers, public)
    return app
