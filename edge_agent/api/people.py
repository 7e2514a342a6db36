"""People, their cards, PINs and device numbers. Reading is audited; a card or a PIN is never given back."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, File, Query, Request, Response, UploadFile
from pydantic import AwareDatetime, BaseModel, Field, SecretStr

from edge_agent.api.access import Caller, require
from edge_agent.api.context import Context, ExpectedVersion, Governance, etag, tag_of, unchanged
from edge_agent.api.problems import Body, Problem, responses
from edge_agent.audit import Entry
from edge_agent.people.roster import (
    MAX_NAME,
    MAX_USER_ID,
    HashedPin,
    Imported,
    Person,
    Roster,
    Taken,
    begins,
    ends,
    new_subject,
    read_csv,
)
from edge_agent.policy.roles import Scope

router = APIRouter(prefix="/api/v1/people", tags=["people"])
Reader = Annotated[Caller, Depends(require(Scope.PEOPLE_READ))]
Writer = Annotated[Caller, Depends(require(Scope.PEOPLE_WRITE))]
MAX_CSV = 4 * 1024 * 1024
IMPORT_STEP = 200  # rows a transaction: a large file must not keep punches waiting


async def roster(request: Request) -> Roster:
    found: Roster = request.app.state.roster
    return found


People = Annotated[Roster, Depends(roster)]


Begins = Annotated[
    AwareDatetime | date | None,
    Field(
        union_mode="left_to_right",
        description="from when; a date is the beginning of that day on the site's clock, null no limit",
        examples=["2026-12-01", "2026-12-01T08:00:00+08:00"],
    ),
]
Ends = Annotated[
    AwareDatetime | date | None,
    Field(
        union_mode="left_to_right",
        description="until when; a date is the end of that day on the site's clock, null no limit",
        examples=["2027-11-30", "2027-11-30T18:00:00+08:00"],
    ),
]


class NewPerson(Body):
    name: str = Field(min_length=1, max_length=MAX_NAME, examples=["陈雨桐"])
    department: str = Field("", max_length=MAX_NAME)
    user_id: str = Field("", max_length=MAX_USER_ID, description="their number on every terminal", examples=["10482"])
    card: SecretStr = Field(SecretStr(""), max_length=40)
    pin: SecretStr = Field(SecretStr(""), max_length=12)
    valid_from: Begins = None
    valid_until: Ends = None


class PersonChange(Body):
    """What is left out stays."""

    name: str | None = Field(None, min_length=1, max_length=MAX_NAME)
    department: str | None = Field(None, max_length=MAX_NAME)
    user_id: str | None = Field(None, max_length=MAX_USER_ID)
    add_card: SecretStr | None = Field(None, max_length=40)
    remove_card: SecretStr | None = Field(None, max_length=40)
    pin: SecretStr | None = Field(None, max_length=12)
    valid_from: Begins = None
    valid_until: Ends = None


def _validity(body: NewPerson | PersonChange, zone: ZoneInfo) -> tuple[datetime | None, datetime | None]:
    """Raises ValueError."""
    since, until = body.valid_from, body.valid_until
    return begins(since, zone) if since else None, ends(until, zone) if until else None


class UserNumber(BaseModel):
    device: str
    user_id: str


class PersonView(BaseModel):
    subject: str
    name: str
    department: str
    user_ids: list[UserNumber]
    cards: list[str] = Field(description="the last digits, to tell cards apart")
    has_pin: bool
    valid_from: datetime | None
    valid_until: datetime | None


class PeoplePage(BaseModel):
    people: list[PersonView]
    next_after: str | None


class RowFault(BaseModel):
    line: int
    column: str
    problem: str


class ImportReport(BaseModel):
    added: int
    changed: int
    refused: list[RowFault]


def person_view(person: Person) -> PersonView:
    return PersonView(
        subject=person.subject,
        name=person.name,
        department=person.department,
        user_ids=[UserNumber(device=device, user_id=user_id) for device, user_id in person.user_ids],
        cards=list(person.cards),
        has_pin=person.has_pin,
        valid_from=person.valid_from,
        valid_until=person.valid_until,
    )


def person_etag(person: Person) -> str:
    return etag(tag_of(asdict(person)))


@router.get("")
async def list_people(
    caller: Reader,
    context: Context,
    people: People,
    search: Annotated[str, Query(max_length=100)] = "",
    after: Annotated[str, Query(max_length=64)] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> PeoplePage:
    """In the order of their pseudonyms; `next_after` leads on."""
    found = await context.database.read(lambda c: people.people(c, after=after, limit=limit, search=search))
    await context.note(Entry(actor=caller.name, action="people.read", details={"rows": len(found)}))
    return PeoplePage(
        people=[person_view(person) for person in found],
        next_after=found[-1].subject if len(found) == limit else None,
    )


@router.post("", status_code=201, responses=responses(409, 422))
async def add_person(body: NewPerson, caller: Writer, context: Context, people: People) -> PersonView:
    """Add somebody. Card and PIN work at once, without any biometric."""
    pin = body.pin.get_secret_value()
    pin_hash = await _hashed(people, pin) if pin else None
    subject, now, zone = new_subject(), context.now(), ZoneInfo(context.configuration.site.timezone)

    def work(connection: sqlite3.Connection) -> Person:
        with _words():
            person = Person(subject, body.name, body.department, *_validity(body, zone))
            people.put(connection, person, now=now)
            if body.user_id:
                people.link(connection, subject, body.user_id)
            if body.card.get_secret_value():
                people.add_card(connection, subject, body.card.get_secret_value(), now=now)
        if pin_hash:
            people.set_pin(connection, subject, pin_hash, now=now)
        return _present(people.person(connection, subject), subject)

    return person_view(await context.act(caller.name, _entry(caller, "person.add", subject, body.name), work))


@router.get("/{subject}", responses=responses(404))
async def read_person(subject: str, caller: Reader, context: Context, people: People, response: Response) -> PersonView:
    person = _present(await context.database.read(lambda c: people.person(c, subject)), subject)
    await context.note(_entry(caller, "person.read", subject))
    response.headers["ETag"] = person_etag(person)
    return person_view(person)


@router.patch("/{subject}", responses=responses(404, 409, 412, 422, 428))
async def change_person(
    subject: str,
    body: PersonChange,
    caller: Writer,
    context: Context,
    people: People,
    expected: ExpectedVersion,
    response: Response,
) -> PersonView:
    """Correct what is wrong; cards and the PIN are replaced, never shown."""
    pin = body.pin.get_secret_value() if body.pin else ""
    pin_hash = await _hashed(people, pin) if pin else None
    now, zone = context.now(), ZoneInfo(context.configuration.site.timezone)

    def work(connection: sqlite3.Connection) -> Person:
        old = _present(people.person(connection, subject), subject)
        unchanged("this person", asdict(old), expected)
        with _words():
            since, until = _validity(body, zone)
            people.put(
                connection,
                Person(
                    subject,
                    body.name if body.name is not None else old.name,
                    body.department if body.department is not None else old.department,
                    valid_from=since if "valid_from" in body.model_fields_set else old.valid_from,
                    valid_until=until if "valid_until" in body.model_fields_set else old.valid_until,
                ),
                now=now,
            )
            if body.user_id:
                people.link(connection, subject, body.user_id)
            if body.add_card:
                people.add_card(connection, subject, body.add_card.get_secret_value(), now=now)
            if body.remove_card and not people.remove_card(connection, body.remove_card.get_secret_value()):
                raise Problem(404, "remove_card: nobody has this card", code="unknown")
        if pin_hash:
            people.set_pin(connection, subject, pin_hash, now=now)
        return _present(people.person(connection, subject), subject)

    person = await context.act(caller.name, _entry(caller, "person.change", subject), work)
    response.headers["ETag"] = person_etag(person)
    return person_view(person)


@router.post("/import", responses=responses(413, 422))
async def import_people(
    file: Annotated[
        UploadFile, File(description="CSV: subject, name, department, user_id, card, pin, valid_from, valid_until")
    ],
    caller: Writer,
    context: Context,
    people: People,
) -> ImportReport:
    """Take a CSV. A bad row is reported with its line and column; the others are taken."""
    raw = await file.read(MAX_CSV + 1)
    if len(raw) > MAX_CSV:
        raise Problem(413, f"file: over {MAX_CSV} bytes; split it", code="too_large")
    try:
        rows = read_csv(_decoded(raw))
    except ValueError as exc:
        raise Problem(422, f"file: {exc}", code="invalid") from None
    return await _import(rows, caller, context, people)


async def _import(rows: list[dict[str, str]], caller: Caller, context: Governance, people: Roster) -> ImportReport:
    added = changed = 0
    refused: list[RowFault] = []
    zone = ZoneInfo(context.configuration.site.timezone)
    for start in range(0, len(rows), IMPORT_STEP):
        part = rows[start : start + IMPORT_STEP]
        hashes = await asyncio.to_thread(_hash_pins, people, part)

        def work(
            connection: sqlite3.Connection,
            part: list[dict[str, str]] = part,
            hashes: dict[str, HashedPin] = hashes,
            start: int = start,
        ) -> Imported:
            return people.take(connection, part, now=context.now(), first_line=start + 2, pin_hashes=hashes, zone=zone)

        taken = await context.database.write(work)
        added, changed = added + taken.added, changed + taken.changed
        refused += [RowFault(line=e.line, column=e.column, problem=e.reason) for e in taken.errors]
    await context.note(
        Entry(
            actor=caller.name,
            action="people.import",
            details={"added": added, "changed": changed, "refused": len(refused)},
        )
    )
    return ImportReport(added=added, changed=changed, refused=refused[:1000])


def _hash_pins(people: Roster, rows: list[dict[str, str]]) -> dict[str, HashedPin]:
    hashes: dict[str, HashedPin] = {}
    for pin in {(row.get("pin") or "").strip() for row in rows} - {""}:
        try:
            hashes[pin] = people.hash_pin(pin)
        except ValueError:
            continue  # `take` refuses the row and names its line
    return hashes


def _decoded(raw: bytes) -> str:
    """UTF-8, else GB 18030: what spreadsheets on Chinese desktops save."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            return raw.decode("gb18030")
        except UnicodeDecodeError:
            raise ValueError("neither UTF-8 nor GB 18030; save it as CSV UTF-8") from None


async def _hashed(people: Roster, pin: str) -> HashedPin:
    try:
        return await asyncio.to_thread(people.hash_pin, pin)
    except ValueError as exc:
        raise Problem(422, str(exc), code="invalid") from None


@contextmanager
def _words() -> Iterator[None]:
    """The roster's refusals as problems."""
    try:
        yield
    except Taken as exc:
        raise Problem(409, str(exc), code="taken") from None
    except ValueError as exc:
        raise Problem(422, str(exc), code="invalid") from None


def _present(person: Person | None, subject: str) -> Person:
    if person is None:
        raise Problem(404, f"nobody here is {subject[:64]!r}", code="unknown")
    return person


def _entry(caller: Caller, action: str, subject: str, name: str = "") -> Entry:
    personal = {"name": name} if name else None
    return Entry(actor=caller.name, action=action, object=subject[:64], personal=personal, subject=subject[:64])
