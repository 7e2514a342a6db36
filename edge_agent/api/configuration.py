"""Configuration as code: the whole document, what a change would do, its history, the way back.

A change that lets happen what takes two people as an act waits like the act: once another person approved it, the
same request is sent again.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Query, Response
from pydantic import BaseModel

from edge_agent.api.access import Caller, require
from edge_agent.api.context import Context, ExpectedVersion, etag, tag_of, unchanged
from edge_agent.api.problems import Problem, responses
from edge_agent.api.site_changes import apply_site, completed, number, stale
from edge_agent.api.two_people import HELD
from edge_agent.config import SiteConfig
from edge_agent.configuration import differences, public
from edge_agent.policy.roles import Scope

router = APIRouter(prefix="/api/v1/config", tags=["configuration"])
Reader = Annotated[Caller, Depends(require(Scope.CONFIG_READ))]
Writer = Annotated[Caller, Depends(require(Scope.CONFIG_WRITE))]
Section = Literal[
    "site",
    "timezone",
    "devices",
    "upstreams",
    "modalities",
    "privacy",
    "retention",
    "access",
    "two_people",
    "sign_in",
]
DryRun = Annotated[bool, Query(description="only say what would change")]
Reason = Annotated[str, Query(max_length=200)]
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
    response.headers["ETag"] = etag(number(context))
    return public(context.configuration.site)


@router.put("", responses=HELD | responses(409, 412, 422, 428))
async def replace_configuration(
    body: Document,
    caller: Writer,
    response: Response,
    context: Context,
    expected: ExpectedVersion,
    dry_run: DryRun = False,
    reason: Reason = "",
) -> Applied:
    """Apply a whole document, all or nothing. Secrets that it leaves out stay as they are."""
    if expected != number(context):
        raise stale(number(context))
    return await _applied(context, caller, completed(context, body), response, dry_run=dry_run, reason=reason)


async def _applied(
    context: Context, caller: Caller, site: SiteConfig, response: Response, *, dry_run: bool, reason: str
) -> Applied:
    """Make `site` the configuration in force; what makes no difference makes no version."""
    changes = _changes(context, site)
    version = number(context)
    if changes and not dry_run:
        version = await apply_site(context, caller.name, site, reason or "api", version)
    response.headers["ETag"] = etag(version)
    return Applied(version=version, dry_run=dry_run, changes=changes)


def _changes(context: Context, site: SiteConfig) -> list[ChangeView]:
    found = differences(context.configuration.site, site)
    return [ChangeView(path=c.path, before=c.before, after=c.after) for c in found]


@router.get("/versions")
async def list_versions(caller: Reader, context: Context) -> list[VersionView]:
    return [
        VersionView(version=number, at=datetime.fromisoformat(at), actor=actor, reason=reason)
        for number, at, actor, reason in await context.configuration.history()
    ]


@router.get("/versions/{number}", responses=responses(404))
async def read_version(number: int, caller: Reader, context: Context) -> dict[str, Any]:
    return public(await _version(context, number))


@router.post("/versions/{number}/restore", responses=HELD | responses(404, 409, 412, 428))
async def restore_version(
    number: int, caller: Writer, context: Context, expected: ExpectedVersion, response: Response
) -> Applied:
    """Make an old version the newest one."""
    site = await _version(context, number)
    changes = _changes(context, site)
    version = await apply_site(context, caller.name, site, f"back to version {number}", expected)
    response.headers["ETag"] = etag(version)
    return Applied(version=version, dry_run=False, changes=changes)


@router.get("/{section}")
async def read_section(section: Section, caller: Reader, response: Response, context: Context) -> Any:
    """One part of the configuration with an ETag of its own, so that two people can change different parts."""
    found = public(context.configuration.site)[section]
    response.headers["ETag"] = etag(tag_of(found))
    return found


@router.put("/{section}", responses=HELD | responses(409, 412, 422, 428))
async def replace_section(
    section: Section,
    body: Annotated[Any, Body(examples=[{"face": {"enabled": True}}])],
    caller: Writer,
    response: Response,
    context: Context,
    expected: ExpectedVersion,
    dry_run: DryRun = False,
    reason: Reason = "",
) -> Applied:
    """Replace one part, all or nothing: schedules, groups and holidays (`access`), modalities, retention and so on."""
    document = public(context.configuration.site)
    unchanged(section, document[section], expected)
    site = completed(context, document | {section: body})
    applied = await _applied(context, caller, site, response, dry_run=dry_run, reason=reason or f"change {section}")
    response.headers["ETag"] = etag(tag_of(public(context.configuration.site)[section]))
    return applied


async def _version(context: Context, number: int) -> SiteConfig:
    try:
        return (await context.configuration.at(number)).site
    except (KeyError, OverflowError):
        raise Problem(404, f"there is no version {number}", code="unknown") from None
