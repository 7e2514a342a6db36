"""An incident: stop the spread, exchange what may be known, say who is affected, tell them and the authority.

A person opens one, or a signal does: a tampered device, a broken audit chain, a run of locked sign-ins. What is
reported is counted from what rests here for the span in question, never written from memory.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from edge_agent.audit import AuditLog, Entry
from edge_agent.biometrics.in_use import Biometrics
from edge_agent.config import SiteConfig
from edge_agent.configuration import Configuration
from edge_agent.database import Database, DiskFull, utc_text
from edge_agent.delivery.event import Event, append
from edge_agent.doors.alarms import AlarmKind

WATCH_EVERY_S = 15.0
VERIFY_EVERY = timedelta(hours=6)  # the walk over the whole audit chain
LOOK_BACK = timedelta(days=1)  # how far before a signal data may already have been affected
LOCKED_AN_HOUR = 20  # refused sign-ins on locked accounts that are no forgotten password any more

log = logging.getLogger(__name__)


class IncidentKind(StrEnum):
    TAMPER = "tamper"
    INTRUSION = "intrusion"
    AUDIT = "audit"
    LOSS = "loss"
    DISCLOSURE = "disclosure"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Incident:
    id: str
    kind: IncidentKind
    signal: str
    note: str
    since: datetime
    until: datetime | None
    opened_at: datetime
    opened_by: str
    frozen: bool
    keys_at: datetime | None
    closed_at: datetime | None
    closed_by: str


@dataclass(frozen=True, slots=True)
class Affected:
    """Whose data of which classes rest here for the span: pseudonyms, never names."""

    since: datetime
    until: datetime
    subjects: dict[str, list[str]]
    templates_sealed: bool  # then which templates there are is not known

    @property
    def classes(self) -> dict[str, int]:
        """How many people each class concerns."""
        return dict(sorted(Counter(name for names in self.subjects.values() for name in names).items()))


COLUMNS = (
    "id, kind, signal, note, since, until, opened_at, opened_by, switches IS NOT NULL, keys_at, closed_at, closed_by"
)


class Incidents:
    def __init__(
        self,
        *,
        database: Database,
        audit: AuditLog,
        configuration: Configuration,
        biometrics: Biometrics,
        invite: Callable[[], Awaitable[None]],
        anchors: Callable[[], Any],
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._audit = audit
        self._configuration = configuration
        self._biometrics = biometrics
        self._invite = invite
        self._anchors = anchors
        self._now = now
        self._verified: datetime | None = None
        self.open_count = 0  # as of the last change or watch

    async def open(
        self,
        kind: IncidentKind,
        *,
        actor: str,
        note: str = "",
        signal: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Incident:
        """The same signal opens one incident, however often it is seen."""
        now, identity = self._now(), f"I-{secrets.token_hex(5)}"
        row = (
            identity, kind, signal or identity, note, utc_text(since or now - LOOK_BACK),
            utc_text(until) if until else None, utc_text(now), actor,
        )  # fmt: skip

        def work(connection: sqlite3.Connection) -> Incident:
            fresh = connection.execute(
                "INSERT OR IGNORE INTO incidents (id, kind, signal, note, since, until, opened_at, opened_by)"
                " VALUES (?,?,?,?,?,?,?,?)",
                row,
            ).rowcount
            if fresh:
                append(connection, [Event(identity, "incident.opened", now, "", None, {})], now=now)
                entry = Entry(actor=actor, action="incident.open", object=identity, details={"kind": kind})
                self._audit.append(connection, entry, now=now)
            self._count(connection)
            return _read(connection, "signal", row[2])

        found = await self._database.write(work)
        if found.id == identity:
            log.warning("incident_opened id=%s kind=%s", found.id, kind)
        return found

    async def all(self) -> list[Incident]:
        def work(connection: sqlite3.Connection) -> list[Incident]:
            rows = connection.execute(f"SELECT {COLUMNS} FROM incidents ORDER BY opened_at DESC LIMIT 200")  # noqa: S608
            return [_incident(row) for row in rows]

        return await self._database.read(work)

    async def get(self, identity: str) -> Incident:
        """Raises KeyError."""
        return await self._database.read(lambda c: _read(c, "id", identity))

    async def freeze(self, identity: str, *, actor: str) -> Incident:
        """No sensor opens and nothing biometric matches until `thaw`; card and PIN go on. Raises KeyError.

        Terminals that match by themselves lose their copies within minutes, those that are away when they return.
        """
        await self.get(identity)
        site = self._configuration.site
        switches = {name.value: switch.model_dump(mode="json") for name, switch in site.modalities.items()}
        for other, kept in (await self._frozen()).items():
            for name in await self._switched_off_by(other, kept):
                if other != identity and name in switches:
                    switches[name]["enabled"] = True

        def all_off(site: SiteConfig) -> SiteConfig:
            off = {name: switch.model_copy(update={"enabled": False}) for name, switch in site.modalities.items()}
            return site.model_copy(update={"modalities": off})

        # Written down first: a crash in between leaves switches that `thaw` can put back, never ones nobody knows.
        frozen = await self._step(identity, actor, "freeze", "switches = coalesce(switches, ?)", json.dumps(switches))
        await self._change(all_off, actor, _frozen_for(identity))
        return frozen

    async def thaw(self, identity: str, *, actor: str) -> Incident:
        """What this incident switched off is on again, unless the enterprise has moved that switch since.

        While another incident wants it off it stays so, and comes back with that one. Raises KeyError, ValueError if
        this one froze nothing.
        """
        await self.get(identity)
        kept = await self._database.read(lambda c: _switches(c, identity))
        if kept is None:
            raise ValueError("this incident froze nothing")
        others = (await self._frozen()).keys() - {identity}
        on = set() if others else await self._switched_off_by(identity, kept)

        def back_on(site: SiteConfig) -> SiteConfig:
            switches = {
                name: switch.model_copy(update={"enabled": True}) if name in on else switch
                for name, switch in site.modalities.items()
            }
            return site.model_copy(update={"modalities": switches})

        await self._change(back_on, actor, _back_for(identity))
        return await self._step(identity, actor, "thaw", "switches = ?", None)

    async def _frozen(self) -> dict[str, str]:
        """The switches that each open incident found when it froze them."""
        sql = "SELECT id, switches FROM incidents WHERE switches IS NOT NULL AND closed_at IS NULL"
        return dict(await self._database.read(lambda c: c.execute(sql).fetchall()))

    async def _switched_off_by(self, identity: str, kept: str) -> set[str]:
        """Those of `kept` that were on, and that nobody has moved since this incident switched them off."""
        documents = await self._configuration.documents_since(_frozen_for(identity), after=_back_for(identity))
        since = [document["modalities"] for document in documents]
        return {
            name
            for name, switch in json.loads(kept).items()
            if switch["enabled"] and since and all(name in then and not then[name]["enabled"] for then in since)
        }

    async def exchange(self, identity: str, *, actor: str) -> Incident:
        """A new key for the templates; every session and token ends, the command line's is made anew.

        Raises KeyError; Sealed if the template store has no key to exchange.
        """
        await self.get(identity)
        kek = await asyncio.to_thread(self._biometrics.store.rotate)
        now = self._now()

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM sessions")
            connection.execute("UPDATE access_tokens SET revoked_at = ? WHERE revoked_at IS NULL", (now.isoformat(),))
            self._audit.append(connection, Entry(actor=actor, action="keys.rotate", object=kek), now=now)

        await self._database.write(work)
        await self._invite()
        return await self._step(identity, actor, "exchange", "keys_at = ?", utc_text(now))

    async def close(self, identity: str, *, actor: str) -> Incident:
        """Dealt with. Raises KeyError."""
        return await self._step(identity, actor, "close", "closed_by = ?, closed_at = ?", actor, utc_text(self._now()))

    async def affected(self, identity: str) -> Affected:
        """Raises KeyError."""
        incident = await self.get(identity)
        since, until = incident.since, incident.until or self._now()

        in_span = (
            "SELECT DISTINCT subject FROM events WHERE subject IS NOT NULL AND occurred_at >= ? AND occurred_at < ?"
        )

        def work(connection: sqlite3.Connection) -> dict[str, set[str]]:
            found: dict[str, set[str]] = {}
            for name, sql, values in (
                ("identity", "SELECT subject FROM people", ()),
                ("card", "SELECT DISTINCT subject FROM cards", ()),
                ("pin", "SELECT subject FROM pins", ()),
                ("events", in_span, (utc_text(since), utc_text(until))),
            ):
                for (subject,) in connection.execute(sql, values):
                    found.setdefault(subject, set()).add(name)
            return found

        found = await self._database.read(work)
        for given in self._biometrics.galleries.consents():
            found.setdefault(given.subject_id, set()).add(f"template:{given.modality}")
        subjects = {subject: sorted(names) for subject, names in sorted(found.items())}
        return Affected(since, until, subjects, self._biometrics.sealed)

    # Signals

    async def run(self, *, wait: Callable[[float], Awaitable[None]]) -> None:
        """Watch until cancelled; not at once, because a start has templates to open first."""
        while True:
            await wait(WATCH_EVERY_S)
            try:
                await self.watch()
            except DiskFull as exc:  # a signal is still there when there is room again
                log.warning("incident_not_opened reason=%s", exc)

    async def watch(self) -> None:
        """Look once at everything that opens an incident by itself."""
        now = self._now()

        def signals(connection: sqlite3.Connection) -> list[tuple[IncidentKind, str, str]]:
            found = [
                (IncidentKind.TAMPER, f"alarm:{event}", place)
                for place, event in connection.execute(
                    "SELECT place, event FROM alarms WHERE kind = ? AND raised_at >= ?",
                    (AlarmKind.TAMPER, utc_text(now - LOOK_BACK)),
                )
            ]
            (locked,) = connection.execute(
                "SELECT count(*) FROM (SELECT action, details, at FROM audit ORDER BY seq DESC LIMIT 2000)"
                " WHERE action = 'session.refused' AND at >= ? AND json_extract(details, '$.locked')",
                ((now - timedelta(hours=1)).isoformat(timespec="milliseconds"),),
            ).fetchone()
            if locked >= LOCKED_AN_HOUR:
                found.append((IncidentKind.INTRUSION, f"sign-in:{now:%Y-%m-%dT%H}", f"{locked} refused sign-ins"))
            self._count(connection)
            return found

        for kind, signal, note in await self._database.read(signals):
            await self.open(kind, actor="agent", signal=signal, note=note)
        if self._verified is None or now - self._verified >= VERIFY_EVERY:
            self._verified = now
            anchors = self._anchors()
            verdict = await self._database.read(lambda c: self._audit.verify(c, anchors))
            if not verdict.intact:
                signal = f"audit:{verdict.at_seq}:{verdict.fault}"
                await self.open(IncidentKind.AUDIT, actor="agent", signal=signal, note=verdict.fault)

    async def _step(self, identity: str, actor: str, action: str, change: str, *values: str | None) -> Incident:
        now = self._now()

        def work(connection: sqlite3.Connection) -> Incident:
            _read(connection, "id", identity)
            connection.execute(f"UPDATE incidents SET {change} WHERE id = ?", (*values, identity))  # noqa: S608
            entry = Entry(actor=actor, action=f"incident.{action}", object=identity)
            self._audit.append(connection, entry, now=now)
            self._count(connection)
            return _read(connection, "id", identity)

        return await self._database.write(work)

    async def _change(self, update: Callable[[SiteConfig], SiteConfig], actor: str, reason: str) -> None:
        version = await self._configuration.change(update, actor=actor, reason=reason, now=self._now())
        entry = Entry(actor=actor, action="config.apply", object=str(version.number), details={"reason": reason})
        await self._database.write(lambda c: self._audit.append(c, entry, now=self._now()))
        await self._biometrics.follow()

    def _count(self, connection: sqlite3.Connection) -> None:
        (self.open_count,) = connection.execute("SELECT count(*) FROM incidents WHERE closed_at IS NULL").fetchone()


def _frozen_for(identity: str) -> str:
    """The reason of the configuration version that froze capture, by which `thaw` finds it."""
    return f"incident {identity}: capture frozen"


def _back_for(identity: str) -> str:
    return f"incident {identity}: capture back"


def _switches(connection: sqlite3.Connection, identity: str) -> str | None:
    found: tuple[str | None] = connection.execute("SELECT switches FROM incidents WHERE id = ?", (identity,)).fetchone()
    return found[0]


def _read(connection: sqlite3.Connection, column: str, value: str) -> Incident:
    row = connection.execute(f"SELECT {COLUMNS} FROM incidents WHERE {column} = ?", (value,)).fetchone()  # noqa: S608
    if row is None:
        raise KeyError(value)
    return _incident(row)


def _incident(row: tuple[Any, ...]) -> Incident:
    def moment(text: str | None) -> datetime | None:
        return datetime.fromisoformat(text) if text else None

    return Incident(
        id=row[0],
        kind=IncidentKind(row[1]),
        signal=row[2],
        note=row[3],
        since=datetime.fromisoformat(row[4]),
        until=moment(row[5]),
        opened_at=datetime.fromisoformat(row[6]),
        opened_by=row[7],
        frozen=bool(row[8]),
        keys_at=moment(row[9]),
        closed_at=moment(row[10]),
        closed_by=row[11],
    )
