"""Acts for two people: where the enterprise asks for it, a request waits until somebody else has decided.

One mechanism for all. A route asks its `Act`: if it needs nobody else it is done at once; otherwise it is written
down and `Held` answers 202. An act with `work` is carried out by the approval itself; one without (an export) gives
its asker leave to send the same request once more, so that what it shows is seen by them alone and rests nowhere.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from edge_agent.api import access_tokens, accounts
from edge_agent.api.access import Caller
from edge_agent.api.context import Gateway, Governance
from edge_agent.api.idempotency import Keyed
from edge_agent.api.problems import Problem
from edge_agent.audit import Entry
from edge_agent.policy.roles import ROLES, Role, Scope
from edge_agent.policy.two_people import ActKind, Party, TwoPeople, WhyNot, undecidable

P = TypeVar("P", bound=BaseModel)
R = TypeVar("R", bound=BaseModel)
KEPT = timedelta(days=30)  # how long a decided act is listed; the audit log keeps it longer
MAX_WAITING = 100
PREFIX = "/api/v1/approvals"
REASONS = {
    WhyNot.MACHINE: "a machine's token decides nothing: sign in",
    WhyNot.OWN_ACT: "you asked for it: another person has to decide",
    WhyNot.PASSWORD: "whoever asks or decides must have set their own password: somebody else knows this one",
    WhyNot.PROVIDER: "one of you set up the identity provider that vouches for the other: a third person has to decide",
    WhyNot.HANDS: (
        "one of you made or reset the other's account, or the same person did so with both: somebody else has to"
        " decide, or one of the accounts has to be reset by another administrator or with"
        " `edge-agent accounts reset NAME` on the gateway"
    ),
}
COLUMNS = "id, name, asked, person, asked_at, expires_at, state, decided_by, decided_at, outcome"


class ActView(BaseModel):
    """Something that one person asked for and another has to decide."""

    id: str = Field(examples=["A-5d20c1f3ab"])
    name: str = Field(examples=["door.open"])
    asked: dict[str, Any] = Field(examples=[{"door": "gate"}])
    person: str
    asked_at: datetime
    expires_at: datetime
    state: str = Field(examples=["waiting"], description="waiting, approved, refused, done, failed, expired")
    decided_by: str
    decided_at: datetime | None
    outcome: str
    deciders: list[Role] = Field([], description="the roles that may decide it")
    why_not: WhyNot | None = Field(None, description="why the caller may not decide it, while it waits")


HELD: dict[int | str, dict[str, Any]] = {
    202: {
        "model": ActView,
        "description": "It waits for a second person; Location is where to look",
        "headers": {"Location": {"schema": {"type": "string"}, "description": "the waiting act"}},
    }
}


class Nothing(BaseModel):
    """An act that needs no telling what."""


class Held(Exception):
    """It waits for somebody else."""

    def __init__(self, view: ActView) -> None:
        super().__init__(view.id)
        self.view = view


async def on_held(request: Request, exc: Exception) -> JSONResponse:
    if not isinstance(exc, Held):
        raise exc
    return JSONResponse(
        exc.view.model_dump(mode="json"), status_code=202, headers={"Location": f"{PREFIX}/{exc.view.id}"}
    )


@dataclass(frozen=True, slots=True)
class Act(Generic[P, R]):
    """`asked` holds all it takes; `work` does it in the name of who asked."""

    name: str
    scope: Scope
    asked: type[P]
    answer: type[R]
    work: Callable[[Gateway, P, str], Awaitable[R]]

    async def ask(
        self, running: Gateway, asked: P, caller: Caller, kind: ActKind | None, once: Keyed | None = None
    ) -> R:
        """Do it, once where the request carries a key; raises Held if `kind` takes two people here."""
        if needed(running.governance, kind):  # before the key is used up
            raise Held(await hold(running.governance, self.name, self.scope, asked, caller))
        if once is None:
            return await self.work(running, asked, caller.name)
        return await once.answer(self.answer, lambda: self.work(running, asked, caller.name))

    async def carry_out(self, running: Gateway, asked: str, person: str) -> R:
        return await self.work(running, self.asked.model_validate_json(asked), person)


@dataclass(frozen=True, slots=True)
class Leave:
    """An act whose asker repeats the request once it is approved."""

    name: str
    scope: Scope

    async def require(self, governance: Governance, asked: BaseModel, caller: Caller, kind: ActKind) -> None:
        """Returns if it may go on, and uses the approval up. Raises Held."""
        if not needed(governance, kind):
            return
        person = await _person(governance, caller, self.scope)
        now = governance.now()

        def work(connection: sqlite3.Connection) -> bool:
            _sweep(connection, governance, now)
            return bool(
                connection.execute(
                    "UPDATE acts SET state = 'done' WHERE name = ? AND person = ? AND asked = ? AND state = 'approved'",
                    (self.name, person, _text(asked)),
                ).rowcount
            )

        if not await governance.database.write(work):
            raise Held(await hold(governance, self.name, self.scope, asked, caller))


AnyAct = Act[Any, Any] | Leave


def needed(governance: Governance, kind: ActKind | None) -> bool:
    return kind is not None and kind in governance.configuration.site.two_people.acts


def person_of(connection: sqlite3.Connection, actor: str) -> str | None:
    """The account behind a caller; None: nobody's."""
    account = accounts.find(connection, access_tokens.behind(connection, actor) or "")
    return account.name if account and not account.disabled else None


async def _person(governance: Governance, caller: Caller, scope: Scope) -> str:
    person = await governance.database.read(lambda c: person_of(c, caller.name))
    if person is None or not await governance.database.read(lambda c: _holds(c, person, scope)):
        raise Problem(
            403,
            "this takes two people, and no person stands behind this token; sign in at the console to ask for it",
            code="nobody",
        )
    return person


async def hold(governance: Governance, name: str, scope: Scope, asked: BaseModel, caller: Caller) -> ActView:
    """Write it down; the same question of the same person twice is one act."""
    person = await _person(governance, caller, scope)
    now, rules, text = governance.now(), governance.configuration.site.two_people, _text(asked)

    def work(connection: sqlite3.Connection) -> ActView:
        _sweep(connection, governance, now)
        known = connection.execute(
            f"SELECT {COLUMNS} FROM acts WHERE name = ? AND person = ? AND asked = ?"  # noqa: S608 - our own columns
            " AND state IN ('waiting', 'approved')",
            (name, person, text),
        ).fetchone()
        if known:
            return view(known)
        (waiting,) = connection.execute("SELECT count(*) FROM acts WHERE state = 'waiting'").fetchone()
        if waiting >= MAX_WAITING:
            raise Problem(429, f"{waiting} acts wait already; have them decided first", code="too_many")
        row = (f"A-{secrets.token_hex(5)}", name, text, person, now.isoformat(), (now + rules.lifetime).isoformat())
        connection.execute(
            "INSERT INTO acts (id, name, asked, person, asked_at, expires_at, state) VALUES (?,?,?,?,?,?,'waiting')",
            row,
        )
        governance.audit.append(
            connection, Entry(actor=caller.name, action="act.ask", object=row[0], details={"act": name}), now=now
        )
        return view((*row, "waiting", "", None, ""))

    return await governance.database.write(work)


async def listing(governance: Governance, acts: Mapping[str, AnyAct], caller: Caller) -> list[ActView]:
    """What the caller could ask for or decide: those that wait, then the newest of the decided."""
    now = governance.now()

    def shown(connection: sqlite3.Connection, found: ActView) -> ActView | None:
        act = acts.get(found.name)
        if act is None or not caller.may(act.scope):
            return None
        found.deciders = [role for role in Role if act.scope in ROLES[role]]
        if found.state == "waiting":
            found.why_not = _why_not(connection, found, caller)
        return found

    def work(connection: sqlite3.Connection) -> list[ActView]:
        _sweep(connection, governance, now)
        rows = connection.execute(
            f"SELECT {COLUMNS} FROM acts ORDER BY state != 'waiting', asked_at DESC LIMIT 200"  # noqa: S608
        )
        return [each for row in rows.fetchall() if (each := shown(connection, view(row))) is not None]

    return await governance.database.write(work)


def waiting(connection: sqlite3.Connection, *, now: datetime) -> list[tuple[str, str]]:
    """(act, who asked) of everything that waits."""
    return connection.execute(
        "SELECT name, person FROM acts WHERE state = 'waiting' AND expires_at > ?", (now.isoformat(),)
    ).fetchall()


async def decide(
    running: Gateway, acts: Mapping[str, AnyAct], identity: str, caller: Caller, *, approve: bool
) -> ActView:
    """Approve or refuse; who asked may only take it back. Raises Problem 403, 404, 409."""
    governance = running.governance
    now = governance.now()

    def work(connection: sqlite3.Connection) -> ActView:
        _sweep(connection, governance, now)
        found = _find(connection, identity)
        act = acts.get(found.name)
        if act is None or not caller.may(act.scope):
            raise Problem(404, f"there is no act {identity[:32]!r} for you to decide", code="unknown")
        if approve or caller.name != found.person:
            reason = _why_not(connection, found, caller)
            if reason:
                raise Problem(403, REASONS[reason], code="two_people")
        if found.state != "waiting":
            raise Problem(409, f"it does not wait any more: {found.state}", code=found.state)
        if approve and not _holds(connection, found.person, act.scope):
            raise Problem(409, f"{found.person} may not ask for this any more", code="forbidden")
        connection.execute(
            "UPDATE acts SET state = ?, decided_by = ?, decided_at = ? WHERE id = ?",
            ("approved" if approve else "refused", caller.name, now.isoformat(), found.id),
        )
        return _find(connection, identity)

    action = "act.approve" if approve else "act.refuse"
    try:
        decided = await governance.act(caller.name, Entry(actor=caller.name, action=action, object=identity[:32]), work)
    except Problem as exc:
        await governance.note(
            Entry(actor=caller.name, action=action, object=identity[:32], outcome="denied", details={"why": exc.code})
        )
        raise
    act = acts[decided.name]
    if not approve or isinstance(act, Leave):
        return decided

    async def ended(state: str, outcome: str) -> ActView:
        def work(connection: sqlite3.Connection) -> ActView:
            sql = "UPDATE acts SET state = ?, outcome = ? WHERE id = ?"
            connection.execute(sql, (state, outcome[:2000], decided.id))
            return _find(connection, identity)

        return await governance.database.write(work, essential=True)

    try:
        result = await act.carry_out(running, json.dumps(decided.asked), decided.person)
    except Problem as exc:
        return await ended("failed", exc.detail)
    except BaseException as exc:  # or it would stand in the way of the same question until its time is over
        await ended("failed", type(exc).__name__)
        raise
    return await ended("done", result.model_dump_json(exclude_none=True))


def approved(connection: sqlite3.Connection, name: str, *, now: datetime) -> bool:
    """Whether somebody's leave for this stands now; for the command line, which acts without the API."""
    return (
        connection.execute(
            "SELECT 1 FROM acts WHERE name = ? AND state = 'approved' AND expires_at > ?", (name, now.isoformat())
        ).fetchone()
        is not None
    )


def guard(before: TwoPeople, after: TwoPeople) -> None:
    """A configuration may not take acts off the list: that would be one person's way around the second."""
    lost = before.weakened_by(after)
    if lost:
        raise Problem(
            409,
            f"two_people.acts: {', '.join(sorted(lost))} would need one person only; "
            "ask with PUT /api/v1/two-people and let another person approve",
            code="two_people",
        )


def view(row: tuple[Any, ...]) -> ActView:
    values = dict(zip(COLUMNS.split(", "), row, strict=True))
    return ActView.model_validate(values | {"asked": json.loads(values["asked"])})


def _text(asked: BaseModel) -> str:
    return json.dumps(asked.model_dump(mode="json"), ensure_ascii=False, sort_keys=True)


def _find(connection: sqlite3.Connection, identity: str) -> ActView:
    row = connection.execute(f"SELECT {COLUMNS} FROM acts WHERE id = ?", (identity,)).fetchone()  # noqa: S608
    if row is None:
        raise Problem(404, f"there is no act {identity[:32]!r} for you to decide", code="unknown")
    return view(row)


def _holds(connection: sqlite3.Connection, person: str, scope: Scope) -> bool:
    account = accounts.find(connection, person)
    return account is not None and not account.disabled and scope in ROLES[account.role]


def _why_not(connection: sqlite3.Connection, found: ActView, caller: Caller) -> WhyNot | None:
    return undecidable(
        _party(connection, found.person), _party(connection, caller.name), decider_is_person=bool(caller.session_id)
    )


def _party(connection: sqlite3.Connection, name: str) -> Party:
    account = accounts.find(connection, name)
    return Party(
        name,
        own_password=account is not None and account.own_password,
        hands=hands(connection, name),
        vouchers=_vouchers(connection, name) if account is not None and account.provided else frozenset(),
    )


def hands(connection: sqlite3.Connection, actor: str) -> frozenset[str]:
    """Who could act as this account: it, who made or last reset it, who did so to them, and so on."""
    found: set[str] = set()
    waiting = [actor]
    while waiting:
        person = access_tokens.behind(connection, waiting.pop())
        if person and person != access_tokens.MACHINE and person not in found:
            found.add(person)
            waiting += accounts.made_by(connection, person)
    return frozenset(found)


def _vouchers(connection: sqlite3.Connection, name: str) -> frozenset[str]:
    """Everybody who ever set up or changed the issuer of this account's identity, whatever is configured since."""
    rows = connection.execute(
        "SELECT DISTINCT actor FROM (SELECT actor, json_extract(document, '$.sign_in') AS ways,"
        " lag(json_extract(document, '$.sign_in')) OVER (ORDER BY version) AS before FROM config_versions)"
        " WHERE ways IS NOT before AND instr((SELECT identity FROM accounts WHERE name = ?),"
        " json_extract(ways, '$.oidc.issuer') || ' ') = 1",
        (name,),
    ).fetchall()
    return frozenset().union(*(hands(connection, actor) for (actor,) in rows))


def _sweep(connection: sqlite3.Connection, governance: Governance, now: datetime) -> None:
    """What nobody decided or used in time falls away, and says so in the audit."""
    rows = connection.execute(
        "UPDATE acts SET state = 'expired' WHERE state IN ('waiting', 'approved') AND expires_at <= ? RETURNING id",
        (now.isoformat(),),
    ).fetchall()
    for (identity,) in rows:
        governance.audit.append(connection, Entry(actor="agent", action="act.expire", object=identity), now=now)
    connection.execute(
        "DELETE FROM acts WHERE state NOT IN ('waiting', 'approved') AND asked_at < ?", ((now - KEPT).isoformat(),)
    )
