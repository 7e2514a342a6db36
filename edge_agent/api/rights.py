"""What one person may enter: access groups and the exceptions an administrator makes."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from edge_agent.api.access import Caller, require
from edge_agent.api.context import Context, ExpectedVersion, Running, etag, tag_of, unchanged
from edge_agent.api.problems import Body, Problem, responses
from edge_agent.audit import Entry
from edge_agent.people.credentials import MAX_GROUPS, Rights, rights_of, set_rights
from edge_agent.policy.roles import Scope

router = APIRouter(prefix="/api/v1/people", tags=["people"])
Reader = Annotated[Caller, Depends(require(Scope.PEOPLE_READ))]
Writer = Annotated[Caller, Depends(require(Scope.PEOPLE_WRITE))]
GroupName = Annotated[str, Field(min_length=1, max_length=64)]


class RightsView(Body):
    groups: list[GroupName] = Field([], max_length=MAX_GROUPS, examples=[["staff", "it"]])
    enabled: bool = Field(True, description="false suspends every way in")
    opener: bool = Field(False, description="their entry counts as the first person's")
    passes_lockdown: bool = False
    anti_passback_exempt: bool = False
    duress_finger: int | None = Field(None, ge=1, le=10)


def _read(connection: sqlite3.Connection, subject: str) -> Rights:
    if not connection.execute("SELECT 1 FROM people WHERE subject = ?", (subject,)).fetchone():
        raise Problem(404, f"nobody here is {subject[:64]!r}", code="unknown")
    return rights_of(connection, subject)


def _view(rights: Rights) -> RightsView:
    return RightsView.model_validate(asdict(rights) | {"groups": list(rights.groups)})


@router.get("/{subject}/access", responses=responses(404))
async def read_rights(subject: str, caller: Reader, context: Context, response: Response) -> RightsView:
    rights = await context.database.read(lambda c: _read(c, subject))
    await context.note(Entry(actor=caller.name, action="person.access.read", object=subject[:64]))
    response.headers["ETag"] = etag(tag_of(asdict(rights)))
    return _view(rights)


@router.put("/{subject}/access", responses=responses(404, 412, 422, 428))
async def replace_rights(
    subject: str,
    body: RightsView,
    caller: Writer,
    context: Context,
    running: Running,
    expected: ExpectedVersion,
    response: Response,
) -> RightsView:
    """Replace them, based on the ETag that was read. Groups must exist in the configuration."""
    known = {group.name for group in running.governance.configuration.site.access.groups}
    unknown = [name for name in body.groups if name not in known]
    if unknown:
        raise Problem(
            422, f"groups: there is no {unknown[0]!r}; there are {', '.join(sorted(known)) or 'none'}", code="invalid"
        )
    rights = Rights(**body.model_dump() | {"groups": tuple(sorted(set(body.groups)))})

    def work(connection: sqlite3.Connection) -> None:
        unchanged("these rights", asdict(_read(connection, subject)), expected)
        set_rights(connection, subject, rights)

    entry = Entry(
        actor=caller.name,
        action="person.access",
        object=subject[:64],
        details={"groups": list(rights.groups), "enabled": rights.enabled},
    )
    await context.act(caller.name, entry, work)
    response.headers["ETag"] = etag(tag_of(asdict(rights)))
    return _view(rights)
