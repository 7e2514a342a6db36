"""What waits for a second person: list, approve, refuse; and the list of acts that need one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from edge_agent.api import doors, events, incidents, keys, privacy, two_people
from edge_agent.api.access import Caller, require
from edge_agent.api.context import Context, ExpectedVersion, Gateway, Running, etag, tag_of, unchanged
from edge_agent.api.problems import Problem, responses
from edge_agent.api.site_changes import LOOSEN, apply_site
from edge_agent.api.two_people import HELD, Act, ActView, AnyAct, Leave
from edge_agent.policy.roles import Scope
from edge_agent.policy.two_people import ActKind, TwoPeople

router = APIRouter(prefix="/api/v1", tags=["two people"])
Anybody = Annotated[Caller, Depends(require(Scope.STATUS_READ))]
Reader = Annotated[Caller, Depends(require(Scope.CONFIG_READ))]
Writer = Annotated[Caller, Depends(require(Scope.CONFIG_WRITE))]
Keeper = Annotated[Caller, Depends(require(Scope.KEYS_WRITE))]


@router.get("/approvals")
async def list_acts(caller: Anybody, context: Context) -> list[ActView]:
    """Those the caller could ask for or decide."""
    return await two_people.listing(context, ACTS, caller)


@router.get("/approvals/{identity}", responses=responses(404))
async def read_act(identity: str, caller: Anybody, context: Context) -> ActView:
    for each in await list_acts(caller, context):
        if each.id == identity:
            return each
    raise Problem(404, f"there is no act {identity[:32]!r} for you to decide", code="unknown")


@router.post("/approvals/{identity}/approve", responses=responses(403, 404, 409))
async def approve_act(identity: str, caller: Anybody, running: Running) -> ActView:
    """Another person than who asked; it is carried out now, or its asker may send the request again."""
    return await two_people.decide(running, ACTS, identity, caller, approve=True)


@router.post("/approvals/{identity}/refuse", responses=responses(403, 404, 409))
async def refuse_act(identity: str, caller: Anybody, running: Running) -> ActView:
    """Say no; who asked takes it back this way."""
    return await two_people.decide(running, ACTS, identity, caller, approve=False)


async def _set(running: Gateway, asked: TwoPeople, actor: str) -> TwoPeople:
    context = running.governance
    site = context.configuration.site.model_copy(update={"two_people": asked})
    await apply_site(context, actor, site, "which acts need two people", None, decided=True)
    return asked


CHANGE = Act("two_people.change", Scope.CONFIG_WRITE, TwoPeople, TwoPeople, _set)
END = Leave("gateway.decommission", Scope.KEYS_WRITE)
ACTS: Mapping[str, AnyAct] = {
    act.name: act
    for act in (
        doors.OPEN, doors.ORDER, doors.EVERYWHERE, privacy.ERASE, privacy.EXPORT, privacy.DISCLOSE, events.EXPORT,
        keys.ROTATE, incidents.EXCHANGE, CHANGE, LOOSEN, END,
    )
}  # fmt: skip


def rules_etag(rules: TwoPeople) -> str:
    return etag(tag_of(rules.model_dump(mode="json")))


@router.get("/two-people")
async def read_two_people(caller: Reader, context: Context, response: Response) -> TwoPeople:
    """Which acts take two people here, and for how long an act waits."""
    rules = context.configuration.site.two_people
    response.headers["ETag"] = rules_etag(rules)
    return rules


@router.put("/two-people", responses=HELD | responses(409, 412, 422, 428))
async def set_two_people(
    body: TwoPeople, caller: Writer, running: Running, expected: ExpectedVersion, response: Response
) -> TwoPeople:
    """One person may add acts; taking any off needs a second one."""
    rules = running.governance.configuration.site.two_people
    unchanged("which acts need two people", rules.model_dump(mode="json"), expected)
    applied = await CHANGE.ask(running, body, caller, min(rules.weakened_by(body), default=None))
    response.headers["ETag"] = rules_etag(applied)
    return applied


@router.post("/decommission/permit", status_code=204, response_class=Response, responses=HELD | responses(403))
async def permit_decommission(caller: Keeper, context: Context) -> None:
    """Where ending this gateway takes two people: ask here, then run `edge-agent decommission` in time."""
    if not two_people.needed(context, ActKind.DECOMMISSION):
        return
    now = context.now()
    if not await context.database.read(lambda c: two_people.approved(c, END.name, now=now)):
        raise two_people.Held(await two_people.hold(context, END.name, END.scope, two_people.Nothing(), caller))
