"""What people may ask of us: consents, withdrawal, erasure with receipts, a copy of their data, deadlines."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from datetime import date, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from edge_agent.api.access import Caller, require
from edge_agent.api.context import Context, Gateway, Running
from edge_agent.api.enrolments import Consenting, problem_of
from edge_agent.api.idempotency import Once
from edge_agent.api.problems import Body, Problem, responses
from edge_agent.api.two_people import HELD, Act, Leave
from edge_agent.audit import Entry
from edge_agent.erasure import Carried
from edge_agent.policy.consent import ConsentRefused
from edge_agent.policy.consent import require as require_consent
from edge_agent.policy.requests import RightsRequest, Standing, Verb, due_date, standing, working_days_left
from edge_agent.policy.roles import Scope
from edge_agent.policy.two_people import ActKind
from templates_store.errors import Sealed, StoreError
from templates_store.records import Receipt, StoredConsent
from templates_store.template import Modality, Purpose, SubjectId

router = APIRouter(prefix="/api/v1", tags=["privacy"])
Reader = Annotated[Caller, Depends(require(Scope.PRIVACY_READ))]
Officer = Annotated[Caller, Depends(require(Scope.PRIVACY_WRITE))]
Eraser = Annotated[Caller, Depends(require(Scope.ERASE))]
Exporter = Annotated[Caller, Depends(require(Scope.EXPORT))]


class ConsentView(BaseModel):
    modality: Modality
    purpose: Purpose
    notice_version: str
    given_at: datetime
    expires_at: datetime
    evidence_sha256: str
    legal_basis: str
    state: str
    ended_at: datetime | None


class LocationView(BaseModel):
    location: str
    outcome: str
    at: datetime


class ReceiptView(BaseModel):
    """Signed with Ed25519 over the canonical JSON of everything but the signature."""

    receipt: str
    subject: str
    modality: Modality | None
    purpose: Purpose | None
    reason: str
    actor: str
    requested_at: datetime
    revision: int
    closed: bool
    locations: list[LocationView]
    signature: str
    public_key: str


class ErasureOrder(Body):
    verb: Verb = Field(examples=["withdraw"])
    modality: Modality | None = None
    purpose: Purpose | None = None
    reason: str = Field("", max_length=200)


class Ordered(BaseModel):
    order: str
    receipt: ReceiptView | None = Field(description="none while the template store is sealed; it follows")


class NewRequest(Body):
    subject: str = Field(max_length=64, examples=["p1001"])
    verb: Verb
    verified: bool = Field(False, description="identity was verified just now: the fifteen working days begin")


class RequestView(BaseModel):
    request: str
    subject: str
    verb: Verb
    received_at: datetime
    verified_at: datetime | None
    answered_at: datetime | None
    standing: Standing
    due: date | None
    working_days_left: int | None


class Answered(Body):
    outcome: str = Field("", max_length=200)


def consent_view(found: StoredConsent) -> ConsentView:
    return ConsentView(
        modality=found.modality,
        purpose=found.purpose,
        notice_version=found.notice_version,
        given_at=found.given_at,
        expires_at=found.expires_at,
        evidence_sha256=found.evidence_sha256,
        legal_basis=found.legal_basis,
        state=found.state.value,
        ended_at=found.ended_at,
    )


def receipt_view(receipt: Receipt, public_key: bytes) -> ReceiptView:
    return ReceiptView(
        receipt=receipt.receipt_id,
        subject=receipt.subject_id,
        modality=receipt.modality,
        purpose=receipt.purpose,
        reason=receipt.reason,
        actor=receipt.actor,
        requested_at=receipt.requested_at,
        revision=receipt.revision,
        closed=receipt.closed,
        locations=[
            LocationView(location=place.name, outcome=place.outcome.value, at=place.at) for place in receipt.locations
        ],
        signature=receipt.signature.hex(),
        public_key=public_key.hex(),
    )


async def receipts_of(running: Gateway, subject: str | None) -> list[ReceiptView]:
    store = running.biometrics.store
    if store.sealed:
        return []
    found = await asyncio.to_thread(store.receipts, SubjectId(subject) if subject else None)
    return [receipt_view(receipt, store.public_key) for receipt in found]


def requests_of(connection: sqlite3.Connection) -> list[RightsRequest]:
    return [
        RightsRequest(
            identity,
            SubjectId(subject),
            Verb(verb),
            datetime.fromisoformat(received),
            datetime.fromisoformat(verified) if verified else None,
            datetime.fromisoformat(answered) if answered else None,
        )
        for identity, subject, verb, received, verified, answered in connection.execute(
            "SELECT id, subject, verb, received_at, verified_at, answered_at FROM rights_requests"
            " ORDER BY answered_at IS NOT NULL, received_at DESC LIMIT 500"
        )
    ]


def request_view(running: Gateway, found: RightsRequest) -> RequestView:
    now = running.governance.now()
    zone = ZoneInfo(running.governance.configuration.site.timezone)
    calendar = running.rules().calendar
    due = due_date(found, calendar, zone=zone)
    left = working_days_left(now.astimezone(zone).date(), due, calendar) if due and not found.answered_at else None
    return RequestView(
        request=found.request_id,
        subject=found.subject_id,
        verb=found.verb,
        received_at=found.received_at,
        verified_at=found.verified_at,
        answered_at=found.answered_at,
        standing=standing(found, calendar, zone=zone, now=now),
        due=due,
        working_days_left=left,
    )


@router.get("/people/{subject}/consents")
async def list_consents(subject: str, caller: Reader, context: Context, running: Running) -> list[ConsentView]:
    found = await asyncio.to_thread(running.biometrics.store.consents, SubjectId(subject))
    await context.note(Entry(actor=caller.name, action="consents.read", object=subject[:64]))
    return [consent_view(consent) for consent in found]


@router.post("/people/{subject}/consents", status_code=201, responses=responses(404, 409, 422, 503))
async def record_consents(
    subject: str, body: Consenting, caller: Officer, context: Context, running: Running
) -> list[ConsentView]:
    """Write down what somebody agreed to. Templates that waited for a renewal match again; nothing is captured."""
    await _known(subject, context, running)
    biometrics, now = running.biometrics, context.now()
    try:
        terms = biometrics.terms()
        given = [require_consent(act, terms, now=now) for act in body.acts(SubjectId(subject), recorded_by=caller.name)]
        for consent in given:
            await asyncio.to_thread(biometrics.renew, consent)
    except (ConsentRefused, StoreError) as exc:
        raise problem_of(exc) from None
    details = {"modality": body.modality, "purposes": sorted(consent.purpose for consent in given), "basis": body.basis}
    await context.note(Entry(actor=caller.name, action="consents.record", object=subject[:64], details=details))
    return await list_consents(subject, caller, context, running)


async def _known(subject: str, context: Context, running: Gateway) -> None:
    """Raises Problem 404 for a pseudonym that nothing here belongs to."""
    known = await context.database.read(lambda c: running.roster.person(c, subject))
    if known is None and not await asyncio.to_thread(running.biometrics.store.consents, SubjectId(subject)):
        raise Problem(404, f"nobody here is {subject[:64]!r}", code="unknown")


class Erasing(ErasureOrder):
    subject: str


async def _erase(running: Gateway, asked: Erasing, actor: str) -> Ordered:
    try:
        carried: Carried = await running.erasure.erase(
            SubjectId(asked.subject),
            asked.verb,
            actor=actor,
            reason=asked.reason or asked.verb.value,
            modality=asked.modality,
            purpose=asked.purpose,
        )
    except ValueError as exc:
        raise Problem(422, str(exc), code="invalid") from None
    receipt = carried.receipt
    return Ordered(
        order=carried.order.order_id,
        receipt=receipt_view(receipt, running.biometrics.store.public_key) if receipt else None,
    )


ERASE = Act("person.erase", Scope.ERASE, Erasing, Ordered, _erase)
EXPORT = Leave("person.export", Scope.EXPORT)
DISCLOSE = Leave("person.disclose", Scope.EXPORT)


@router.post("/people/{subject}/erasures", status_code=201, responses=HELD | responses(404, 409, 422))
async def order_erasure(
    subject: str, body: ErasureOrder, caller: Eraser, context: Context, running: Running, once: Once
) -> Ordered:
    """Delete, withdraw, leave or cancel. When this answers 201, the person cannot match any more."""
    await _known(subject, context, running)
    kind = None if body.verb is Verb.WITHDRAW else ActKind.ERASURE  # a withdrawal works at once
    return await ERASE.ask(running, Erasing(subject=subject, **body.model_dump()), caller, kind, once)


class OnePerson(BaseModel):
    subject: str


@router.get("/people/{subject}/export", responses=HELD | responses(503))
async def export_person(subject: str, caller: Exporter, running: Running) -> dict[str, Any]:
    """Everything about one person, machine-readable, and nothing about others."""
    await EXPORT.require(running.governance, OnePerson(subject=subject[:64]), caller, ActKind.EXPORT)
    return await _exported(subject, caller, running)


class Disclosure(Body):
    """An authority's demand."""

    subject: str = Field(max_length=64, examples=["p1001"])
    authority: str = Field(min_length=2, max_length=200, examples=["市公安局网安支队"])
    reference: str = Field(min_length=2, max_length=200, examples=["调证字〔2026〕12号"])


@router.post("/disclosures", responses=HELD | responses(404, 422, 503))
async def disclose(body: Disclosure, caller: Exporter, context: Context, running: Running) -> dict[str, Any]:
    """What is known of one person, for an authority: with the legal reference, and by two people unless taken off."""
    await _known(body.subject, context, running)
    await DISCLOSE.require(context, body, caller, ActKind.DISCLOSURE)
    details = body.model_dump(exclude={"subject"})
    await context.note(Entry(actor=caller.name, action="person.disclose", object=body.subject, details=details))
    return {"disclosed_to": body.authority, "reference": body.reference} | await _exported(
        body.subject, caller, running
    )


async def _exported(subject: str, caller: Caller, running: Gateway) -> dict[str, Any]:
    try:
        return await running.erasure.export(SubjectId(subject), actor=caller.name)
    except Sealed:
        raise Problem(503, "the template store is sealed; unseal it first", code="sealed") from None


@router.get("/receipts")
async def list_receipts(
    caller: Reader, context: Context, running: Running, subject: Annotated[str | None, Query(max_length=64)] = None
) -> list[ReceiptView]:
    """Erasure receipts, each naming every copy and what became of it."""
    found = await receipts_of(running, subject)
    await context.note(Entry(actor=caller.name, action="receipts.read", details={"rows": len(found)}))
    return found


@router.get("/requests")
async def list_requests(caller: Reader, context: Context, running: Running) -> list[RequestView]:
    found = await context.database.read(requests_of)
    await context.note(Entry(actor=caller.name, action="requests.read", details={"rows": len(found)}))
    return [request_view(running, request) for request in found]


@router.post("/requests", status_code=201, responses=responses(422))
async def log_request(body: NewRequest, caller: Officer, context: Context, running: Running) -> RequestView:
    """Write a request down. The fifteen working days run from the verification of identity."""
    now, identity = context.now(), "R-" + secrets.token_hex(5)
    verified = now if body.verified else None
    request = RightsRequest(identity, SubjectId(body.subject), body.verb, now, verified)

    def work(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO rights_requests (id, subject, verb, received_at, verified_at, verified_by)"
            " VALUES (?,?,?,?,?,?)",
            (
                identity,
                body.subject,
                body.verb.value,
                now.isoformat(),
                verified.isoformat() if verified else None,
                caller.name if verified else None,
            ),
        )

    entry = Entry(actor=caller.name, action="request.log", object=identity, details={"verb": body.verb.value})
    await context.act(caller.name, entry, work)
    return request_view(running, request)


@router.post("/requests/{identity}/verify", status_code=204, responses=responses(404))
async def verify_identity(identity: str, caller: Officer, context: Context) -> None:
    """The person is who they say: the deadline begins."""
    await _step(identity, caller, context, "verified_at = ?1, verified_by = ?2", "verified_at IS NULL", "verify")


@router.post("/requests/{identity}/answer", status_code=204, responses=responses(404, 422))
async def answer_request(identity: str, body: Answered, caller: Officer, context: Context) -> None:
    await _step(
        identity, caller, context, "answered_at = ?1, outcome = ?4", "answered_at IS NULL", "answer", body.outcome
    )


async def _step(
    identity: str, caller: Caller, context: Context, change: str, open_while: str, action: str, outcome: str = ""
) -> None:
    now = context.now().isoformat()

    def work(connection: sqlite3.Connection) -> None:
        sql = f"UPDATE rights_requests SET {change} WHERE id = ?3 AND ?4 IS NOT NULL AND {open_while}"  # noqa: S608 - fixed words
        if not connection.execute(sql, (now, caller.name, identity, outcome)).rowcount:
            raise Problem(404, f"no open request {identity[:32]!r}", code="unknown")

    await context.act(caller.name, Entry(actor=caller.name, action=f"request.{action}", object=identity[:32]), work)
