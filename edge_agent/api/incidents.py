"""Incidents: open, contain, list who is affected, write the papers, close."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Query
from fastapi.responses import PlainTextResponse
from pydantic import AwareDatetime, BaseModel, Field

from edge_agent.api.access import Caller, require
from edge_agent.api.context import Context, Gateway, Running
from edge_agent.api.problems import Body, Problem, responses
from edge_agent.api.two_people import HELD, Act
from edge_agent.audit import Entry
from edge_agent.incident_documents import Language, Paper, paper
from edge_agent.incidents import IncidentKind
from edge_agent.policy.roles import Scope
from edge_agent.policy.two_people import ActKind
from templates_store.errors import Sealed

router = APIRouter(prefix="/api/v1/incidents", tags=["incidents"])
Reader = Annotated[Caller, Depends(require(Scope.PRIVACY_READ))]
Officer = Annotated[Caller, Depends(require(Scope.PRIVACY_WRITE))]
Keeper = Annotated[Caller, Depends(require(Scope.KEYS_WRITE))]


class IncidentView(BaseModel):
    id: str = Field(examples=["I-5d20c1f3ab"])
    kind: IncidentKind
    note: str
    since: datetime
    until: datetime | None
    opened_at: datetime
    opened_by: str = Field(description="'agent' if a signal opened it")
    frozen: bool = Field(description="capture and matching of biometrics rest")
    keys_at: datetime | None = Field(description="when keys and credentials were exchanged")
    closed_at: datetime | None
    closed_by: str


class NewIncident(Body):
    kind: IncidentKind = Field(examples=["loss"])
    note: str = Field("", max_length=500)
    since: AwareDatetime | None = Field(None, description="from when data may be affected; a day ago if left out")
    until: AwareDatetime | None = None
    freeze: bool = Field(False, description="stop capture at once")


class AffectedView(BaseModel):
    since: datetime
    until: datetime
    classes: dict[str, int] = Field(examples=[{"identity": 120, "template:face": 44}])
    subjects: dict[str, list[str]] = Field(examples=[{"p1001": ["card", "identity"]}])
    templates_sealed: bool


@router.get("")
async def list_incidents(caller: Reader, running: Running) -> list[IncidentView]:
    return [IncidentView(**asdict(found)) for found in await running.incidents.all()]


@router.post("", status_code=201, responses=responses(422))
async def open_incident(body: NewIncident, caller: Officer, running: Running) -> IncidentView:
    """Open one; tampering, a broken audit chain and runs of refused sign-ins open one by themselves."""
    found = await running.incidents.open(
        body.kind, actor=caller.name, note=body.note, since=body.since, until=body.until
    )
    if body.freeze:
        found = await running.incidents.freeze(found.id, actor=caller.name)
    return IncidentView(**asdict(found))


@router.get("/{identity}", responses=responses(404))
async def read_incident(identity: str, caller: Reader, running: Running) -> IncidentView:
    with _words(identity):
        return IncidentView(**asdict(await running.incidents.get(identity)))


@router.post("/{identity}/freeze", responses=responses(404))
async def freeze_capture(identity: str, caller: Officer, running: Running) -> IncidentView:
    """No sensor opens, nothing biometric matches; cards, PINs and punches go on."""
    with _words(identity):
        return IncidentView(**asdict(await running.incidents.freeze(identity, actor=caller.name)))


@router.post("/{identity}/thaw", responses=responses(404, 409))
async def thaw_capture(identity: str, caller: Officer, running: Running) -> IncidentView:
    """The modality switches as they were before."""
    with _words(identity):
        return IncidentView(**asdict(await running.incidents.thaw(identity, actor=caller.name)))


class OneIncident(BaseModel):
    incident: str


async def _exchange(running: Gateway, asked: OneIncident, actor: str) -> IncidentView:
    with _words(asked.incident):
        return IncidentView(**asdict(await running.incidents.exchange(asked.incident, actor=actor)))


EXCHANGE = Act("incident.exchange", Scope.KEYS_WRITE, OneIncident, IncidentView, _exchange)


@router.post("/{identity}/exchange", responses=HELD | responses(404, 503))
async def exchange_credentials(identity: str, caller: Keeper, running: Running) -> IncidentView:
    """New template keys; every session and token ends, yours too. Change what devices and upstreams know by hand.

    It waits for a second person where rotating the key does: otherwise an incident would be the way around them.
    """
    await read_incident(identity, caller, running)
    return await EXCHANGE.ask(running, OneIncident(incident=identity), caller, ActKind.KEY_ROTATION)


@router.post("/{identity}/close", responses=responses(404))
async def close_incident(identity: str, caller: Officer, running: Running) -> IncidentView:
    """Dealt with."""
    with _words(identity):
        return IncidentView(**asdict(await running.incidents.close(identity, actor=caller.name)))


@router.get("/{identity}/affected", responses=responses(404))
async def list_affected(identity: str, caller: Officer, context: Context, running: Running) -> AffectedView:
    """Whose data of which classes rest here for the span; reading it is audited."""
    with _words(identity):
        found = await running.incidents.affected(identity)
    await context.note(
        Entry(actor=caller.name, action="incident.affected", object=identity, details={"rows": len(found.subjects)})
    )
    return AffectedView(**asdict(found), classes=found.classes)


@router.get(
    "/{identity}/{document}",
    response_class=PlainTextResponse,
    responses=responses(404) | {200: {"content": {"text/markdown": {}}}},
)
async def write_paper(
    identity: str,
    document: Paper,
    caller: Reader,
    context: Context,
    running: Running,
    lang: Annotated[Language, Query()] = "zh",
) -> PlainTextResponse:
    """A draft with the figures filled in: the notice to the people, or the report to the authority."""
    with _words(identity):
        incident, affected = await running.incidents.get(identity), await running.incidents.affected(identity)
    zone = ZoneInfo(context.configuration.site.timezone)
    text = paper(document, incident, affected, gateway=running.name, zone=zone, language=lang)
    await context.note(Entry(actor=caller.name, action=f"incident.{document}", object=identity))
    return PlainTextResponse(text, media_type="text/markdown; charset=utf-8")


@contextmanager
def _words(identity: str) -> Iterator[None]:
    """What an incident cannot do, as a problem."""
    try:
        yield
    except KeyError:
        raise Problem(404, f"there is no incident {identity[:32]!r}", code="unknown") from None
    except ValueError as exc:
        raise Problem(409, str(exc), code="not_frozen") from None
    except Sealed:
        raise Problem(503, "the template store is sealed; unseal it first", code="sealed") from None
