"""Configuration as code: the whole document, what a change would do, its history, the way back."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Response
from pydantic import BaseModel

from edge_agent.api.access import Caller, require
from edge_agent.api.context import Context, ExpectedVersion, etag
from edge_agent.api.problems import FieldFault, Problem, responses
from edge_agent.api.roles import Scope
from edge_agent.audit import Entry
from edge_agent.config import ConfigError, SiteConfig
from edge_agent.configuration import StaleVersion, differences, public

router = APIRouter(prefix="/api/v1/config", tags=["configuration"])
Reader = Annotated[Caller, Depends(require(Scope.CONFIG_READ))]
Writer = Annotated[Caller, Depends(require(Scope.CONFIG_WRITE))]
Document = Annotated[dict[str, Any], Body(examples=[{"site": "HQ", "timezone": "Asia/Shanghai", "devices": []}])]


class ChangeView(BaseModel):
    path: str
    before: Any
    after: Any


class Applied(BaseModel):
    version: int
    dry_run: bool
    changes: list[ChangeView]


class VersionView(BaseModel):
    version: int
    at: datetime
    actor: str
    reason: str


@router.get("")
async def read_configuration(caller: Reader, response: Response, context: Context) -> dict[str, Any]:
    """The whole declarative configuration without secrets; the ETag is its version."""
    version = context.configuration.version
    response.headers["ETag"] = etag(version.number if version else 0)
    return public(context.configuration.site)


@router.put("", responses=responses(412, 422, 428))
async def replace_configuration(
    body: Document,
    caller: Writer,
    response: Response,
    context: Context,
    expected: ExpectedVersion,
    dry_run: Annotated[bool, Query(description="only say what would change")] = False,
    reason: Annotated[str, Query(max_length=200)] = "",
) -> Applied:
    """Apply a whole document, all or nothing. Secrets that it leaves out stay as they are."""
    try:
        site = context.configuration.complete(body)
    except ConfigError as exc:
        raise _invalid(exc) from None
    before = context.configuration.site
    changes = [ChangeView(path=c.path, before=c.before, after=c.after) for c in differences(before, site)]
    current = context.configuration.version
    number = current.number if current else 0
    if dry_run or not changes:
        if expected != number:
            raise _stale(number)
        response.headers["ETag"] = etag(number)
        return Applied(version=number, dry_run=dry_run, changes=changes)
    version = await _apply(context, caller, site, reason or "api", expected)
    response.headers["ETag"] = etag(version)
    return Applied(version=version, dry_run=False, changes=changes)


@router.get("/versions")
async def list_versions(caller: Reader, context: Context) -> list[VersionView]:
    return [
        VersionView(version=number, at=datetime.fromisoformat(at), actor=actor, reason=reason)
        for number, at, actor, reason in await context.configuration.history()
    ]


@router.get("/versions/{number}", responses=responses(404))
async def read_version(number: int, caller: Reader, context: Context) -> dict[str, Any]:
    return public(await _version(context, number))


@router.post("/versions/{number}/restore", responses=responses(404, 412, 428))
async def restore_version(number: int, caller: Writer, context: Context, expected: ExpectedVersion) -> Applied:
    """Make an old version the newest one."""
    site = await _version(context, number)
    changes = [
        ChangeView(path=c.path, before=c.before, after=c.after) for c in differences(context.configuration.site, site)
    ]
    version = await _apply(context, caller, site, f"back to version {number}", expected)
    return Applied(version=version, dry_run=False, changes=changes)


async def _version(context: Context, number: int) -> SiteConfig:
    try:
        return (await context.configuration.at(number)).site
    except (KeyError, OverflowError):
        raise Problem(404, f"there is no version {number}", code="unknown") from None


async def _apply(context: Context, caller: Caller, site: SiteConfig, reason: str, expected: int) -> int:
    try:
        version = await context.configuration.apply(
            site, actor=caller.name, reason=reason, now=context.now(), expected=expected
        )
    except StaleVersion as exc:
        raise _stale(exc.current) from None
    await context.note(
        Entry(actor=caller.name, action="config.apply", object=str(version.number), details={"reason": reason})
    )
    return version.number


def _stale(current: int) -> Problem:
    return Problem(
        412,
        f"somebody changed the configuration first: it is at version {current} now",
        code="stale",
        headers={"ETag": etag(current)},
    )


def _invalid(exc: ConfigError) -> Problem:
    faults = []
    for problem in exc.problems:
        field, _, rest = problem.partition(": ")
        faults.append(FieldFault(field=field, problem=rest))
    return Problem(422, "; ".join(exc.problems[:3]), code="invalid", errors=faults)
