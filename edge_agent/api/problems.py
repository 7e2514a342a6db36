"""Errors on the wire: RFC 9457 problem details, with one entry per faulty field."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"


class FieldFault(BaseModel):
    field: str = Field(examples=["body.serial"])
    problem: str = Field(examples=["String should have at most 64 characters"])


class Body(BaseModel):
    """What a request may say. A misspelled field would be as good as none, and nobody would hear of it."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _only_known(cls, said: Any) -> Any:
        if isinstance(said, dict) and (unknown := said.keys() - cls.model_fields.keys()):
            raise ValueError(f"{min(unknown)[:64]!r} is no field; allowed are {', '.join(cls.model_fields)}")
        return said


class ProblemDetails(BaseModel):
    """What went wrong, where, and what is allowed."""

    type: str = Field("about:blank", examples=["about:blank"])
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field("", examples=["serial: 80 characters; allowed: 64"])
    code: str = Field("", examples=["invalid"])
    request_id: str = Field("", examples=["6f1d0a52"])
    errors: list[FieldFault] = []


class Problem(Exception):
    """Raise it anywhere below a route; it becomes the answer."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str = "",
        errors: list[FieldFault] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code
        self.errors = errors or []
        self.headers = headers


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declares problem answers in a route's OpenAPI."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
        }
        for status in statuses
    }


def answer(request: Request, problem: Problem) -> JSONResponse:
    body = ProblemDetails(
        title=HTTPStatus(problem.status).phrase,
        status=problem.status,
        detail=problem.detail,
        code=problem.code,
        request_id=getattr(request.state, "request_id", ""),
        errors=problem.errors,
    )
    return JSONResponse(body.model_dump(), status_code=problem.status, media_type=MEDIA_TYPE, headers=problem.headers)


async def on_problem(request: Request, exc: Exception) -> JSONResponse:
    if not isinstance(exc, Problem):
        raise exc
    return answer(request, exc)


async def on_invalid(request: Request, exc: Exception) -> JSONResponse:
    """FastAPI's own validation, in the same words and shape. The input is not echoed: it may be a secret."""
    if not isinstance(exc, RequestValidationError):
        raise exc
    faults = [
        FieldFault(
            field=".".join(str(part) for part in fault["loc"]), problem=fault["msg"].removeprefix("Value error, ")
        )
        for fault in exc.errors()
    ]
    detail = "; ".join(f"{fault.field}: {fault.problem}" for fault in faults[:3])
    return answer(request, Problem(422, detail, code="invalid", errors=faults))


async def on_http(request: Request, exc: Exception) -> JSONResponse:
    if not isinstance(exc, HTTPException):
        raise exc
    headers = dict(exc.headers) if exc.headers else None
    return answer(request, Problem(exc.status_code, str(exc.detail), headers=headers))
