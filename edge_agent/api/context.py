"""What the routes may use, handed over by the composition root."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request

from device_drivers.adms.server import AdmsServer
from edge_agent.api.access import Caller
from edge_agent.api.problems import Problem
from edge_agent.attendance import Attendance
from edge_agent.audit import Anchor, AuditLog, Entry
from edge_agent.biometrics.in_use import Biometrics
from edge_agent.configuration import Configuration
from edge_agent.database import Database
from edge_agent.delivery.outbox import Outbox
from edge_agent.delivery.upstreams import Upstreams
from edge_agent.devices.fleet import Fleet
from edge_agent.devices.log_clearing import LogClearing
from edge_agent.devices.reader_keys import ReaderKeys
from edge_agent.devices.sync_runs import SyncRuns
from edge_agent.doors.conclusion import Conclusion
from edge_agent.doors.control import Doors
from edge_agent.enrolment import Enrolment
from edge_agent.erasure import Erasure
from edge_agent.incidents import Incidents
from edge_agent.people.roster import Roster
from edge_agent.policy.rules import Rules

T = TypeVar("T")


@dataclass(slots=True)
class Governance:
    """Identity, configuration and accountability: what every noun of the API stands on."""

    database: Database
    configuration: Configuration
    audit: AuditLog
    now: Callable[[], datetime]
    anchors: Callable[[], Sequence[Anchor]]
    open_secret: Callable[[bytes], str]  # second-factor secrets rest sealed
    seal_secret: Callable[[str], bytes]

    async def act(self, caller: str, entry: Entry, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` and write its audit row in one transaction: neither is there without the other."""

        def both(connection: sqlite3.Connection) -> T:
            result = work(connection)
            self.audit.append(connection, entry, now=self.now())
            return result

        return await self.database.write(both)

    async def note(self, entry: Entry) -> None:
        """An audit row for something that writes nothing itself: reading personal data, a refusal."""
        await self.database.write(lambda c: self.audit.append(c, entry, now=self.now()))


@dataclass(slots=True)
class Gateway:
    """The running parts that routes and pages show and command."""

    name: str
    governance: Governance
    outbox: Outbox
    roster: Roster
    attendance: Attendance
    fleet: Fleet
    upstreams: Upstreams
    adms: AdmsServer
    doors: Doors
    rules: Callable[[], Rules]
    conclusion: Conclusion
    biometrics: Biometrics
    enrolment: Enrolment
    erasure: Erasure
    sync: SyncRuns
    incidents: Incidents
    log_clearing: LogClearing
    reader_keys: ReaderKeys
    make_backup: Callable[[], Awaitable[Path]]
    started_at: datetime
    data_dir: Path


# Dependencies are coroutines although they await nothing: FastAPI sends plain functions to a thread each time.
async def gateway(request: Request) -> Gateway:
    found: Gateway = request.app.state.gateway
    return found


async def governance(request: Request) -> Governance:
    context: Governance = request.app.state.governance
    return context


Context = Annotated[Governance, Depends(governance)]
Running = Annotated[Gateway, Depends(gateway)]


def caller_of(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


def etag(version: int | str) -> str:
    return f'"{version}"'


def tag_of(value: Any) -> int:
    """The same content has the same number: the ETag of what has no version of its own."""
    text = json.dumps(value, sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def unchanged(what: str, value: Any, expected: int) -> None:
    """Raises Problem 412 with the newer ETag if somebody changed `value` since `expected` was read."""
    current = tag_of(value)
    if expected != current:
        raise Problem(
            412,
            f"somebody changed {what} first; read it again",
            code="stale",
            headers={"ETag": etag(current)},
        )


async def expected_version(if_match: Annotated[str | None, Header()] = None) -> int:
    """The version a change is based on. A change without one could undo somebody else's."""
    if if_match is None:
        raise Problem(428, "send If-Match with the ETag you read, so that nobody's change is undone", code="if_match")
    text = if_match.strip().removeprefix("W/").strip('"')
    if not text.isdecimal() or len(text) > 18:
        raise Problem(412, f"If-Match: {if_match[:40]!r} is no ETag of ours", code="stale")
    return int(text)


ExpectedVersion = Annotated[int, Depends(expected_version)]
Json = dict[str, Any]
