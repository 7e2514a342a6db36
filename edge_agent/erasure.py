"""Erasure: on request, on withdrawal, on leaving, on expiry, and when retention is over.

An order is written down first and carried out then, so that a crash or a sealed store delays it and never loses it.
From the moment it is given the person cannot match: galleries forget before the store does, and an enrolment that is
open ends. Then: store (wrapped key, rows, chunks, WAL) -> identity and whereabouts, when the person leaves -> every
copy on a device, offline ones retried until they answer -> new key for what stays, so that earlier copies of the file
no longer open -> fresh backup. The signed receipt names every place and what became of it. Whether a new key is owed
is asked of the receipts, so that neither a restart nor a key provider or disk that fails forgets it.

When a person leaves, their events lose the pseudonym, numbers and companions. It happens once every mandatory
recipient has them, at the latest after `EVENTS_DEADLINE`; nothing on this machine can link them again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import sqlite3
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from edge_agent.audit import AuditLog
from edge_agent.audit import Entry as AuditEntry
from edge_agent.biometrics.galleries import Galleries
from edge_agent.database import Database, DiskFull, utc_text
from edge_agent.delivery.event import Event, append
from edge_agent.devices.copies import DeviceCopies
from edge_agent.doors.presence import Presence
from edge_agent.enrolment import Enrolment
from edge_agent.people.roster import Roster
from edge_agent.people.what_is_kept import about, anonymise, leave_places
from edge_agent.policy.requests import Verb
from edge_agent.policy.retention import Kept, Periods, is_due
from templates_store.errors import Sealed, StoreError
from templates_store.records import Receipt
from templates_store.store import TemplateStore
from templates_store.template import Modality, Purpose, SubjectId

log = logging.getLogger(__name__)

GALLERY = "gallery"
REKEY_AFTER_S = 30.0  # erasures that come together share one new key
RETRY_EVERY_S = 60.0
SWEEP_EVERY = 60  # turns; everybody's retention is looked at hourly
EVENTS_DEADLINE = timedelta(days=15)
LEAVING = frozenset({Verb.LEAVE, Verb.CANCEL})


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody ordered. `verb` DELETE, WITHDRAW, LEAVE or CANCEL."""

    order_id: str
    subject_id: SubjectId
    verb: Verb
    modality: Modality | None
    purpose: Purpose | None
    reason: str
    actor: str
    ordered_at: datetime
    receipt_id: str | None = None


@dataclass(frozen=True, slots=True)
class Carried:
    """How an order stands; `receipt` is None while the store is sealed."""

    order: Order
    receipt: Receipt | None


class Erasure:
    """`terminal` gives the running driver of a device by serial number, `device` by configured name."""

    def __init__(
        self,
        *,
        database: Database,
        store: TemplateStore,
        galleries: Galleries,
        enrolment: Enrolment,
        presence: Presence,
        roster: Roster,
        audit: AuditLog,
        terminal: Callable[[str], object | None],
        device: Callable[[str], object | None],
        terminals: Callable[[], Collection[str]],
        backup: Callable[[], Awaitable[None]],
        delivered: Callable[[], Awaitable[bool]],
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._store = store
        self._galleries = galleries
        self._enrolment = enrolment
        self._presence = presence
        self._roster = roster
        self._audit = audit
        self._copies = DeviceCopies(database=database, store=store, terminal=terminal, device=device, now=now)
        self._terminals = terminals  # configured names of devices that keep people in their own memory
        self._backup = backup
        self._delivered = delivered  # whether every mandatory recipient has every event
        self._now = now
        self._one_at_a_time = asyncio.Lock()
        self._backup_owed = True  # a stop between rotation and backup leaves one that does not open
        self._rekey_fails = False

    # Orders

    async def erase(
        self,
        subject: SubjectId,
        verb: Verb,
        *,
        actor: str,
        reason: str,
        modality: Modality | None = None,
        purpose: Purpose | None = None,
    ) -> Carried:
        """Carry out DELETE, WITHDRAW, LEAVE or CANCEL. When this returns the person cannot match."""
        if verb not in (Verb.DELETE, Verb.WITHDRAW, *LEAVING):
            raise ValueError(f"{verb} erases nothing; allowed are delete, withdraw, leave, cancel")
        if verb in LEAVING and (modality or purpose):
            raise ValueError("leaving concerns everything; allowed are no modality and no purpose")
        order = Order(secrets.token_hex(8), subject, verb, modality, purpose, reason, actor, self._now())
        carried = await self._begin(order)
        if carried.receipt is None:
            return carried
        await self._copies.ask_with_patience()
        return Carried(order, await asyncio.to_thread(self._store.receipt, carried.receipt.receipt_id))

    async def _begin(self, order: Order) -> Carried:
        """All that needs no device."""
        self._forget(order)
        await self._database.write(lambda c: self._ordered(c, order), essential=True)
        return await self._carry_out(order)

    def _forget(self, order: Order) -> None:
        self._galleries.remove(order.subject_id, modality=order.modality, purpose=order.purpose)
        self._enrolment.stop(order.subject_id, modality=order.modality, purpose=order.purpose)

    def _ordered(self, connection: sqlite3.Connection, order: Order) -> None:
        connection.execute(
            "INSERT INTO erasure_orders (id, subject, kind, modality, purpose, reason, actor, ordered_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                order.order_id,
                order.subject_id,
                order.verb,
                order.modality,
                order.purpose,
                order.reason,
                order.actor,
                utc_text(order.ordered_at),
            ),
        )
        if order.verb in LEAVING:
            for device, user_id in self._numbers(connection, order.subject_id):
                connection.execute(
                    "INSERT INTO device_removals (device, user_id, erasure) VALUES (?, ?, ?)",
                    (device, user_id, order.order_id),
                )
            # Even while a sealed store delays the rest, cards and PINs open nothing from now on.
            connection.execute("DELETE FROM cards WHERE subject = ?", (order.subject_id,))
            connection.execute("DELETE FROM pins WHERE subject = ?", (order.subject_id,))
        self._audit.append(
            connection,
            AuditEntry(
                order.actor,
                f"subject.{order.verb}",
                order.subject_id,
                details={"modality": order.modality, "purpose": order.purpose},
            ),
            now=order.ordered_at,
        )

    def _numbers(self, connection: sqlite3.Connection, subject: SubjectId) -> set[tuple[str, str]]:
        """Where devices know the person: a number for every device is on every terminal."""
        rows = connection.execute("SELECT device, user_id FROM device_users WHERE subject = ?", (subject,)).fetchall()
        everywhere = {user_id for device, user_id in rows if not device}
        return {pair for pair in rows if pair[0]} | {(name, n) for name in self._terminals() for n in everywhere}

    async def _carry_out(self, order: Order) -> Carried:
        """Store and identity; copies on devices are for `retry`."""
        async with self._one_at_a_time:
            if (done := await self._database.read(lambda c: _receipt_of(c, order.order_id))) is not None:
                return Carried(order, await asyncio.to_thread(self._store.receipt, done))
            receipt = await self._from_store(order)
            if receipt is None:
                return Carried(order, None)
            if order.verb in LEAVING:
                self._presence.forget(order.subject_id)
            await self._database.write(lambda c: self._finish(c, order, receipt), essential=True)
            await self._database.checkpoint()
        return Carried(order, receipt)

    async def _from_store(self, order: Order) -> Receipt | None:
        """None while the store is sealed: nothing matches then, and the order waits."""
        places = await self._database.read(lambda c: _removal_places(c, order.order_id))
        act = self._store.withdraw if order.verb is Verb.WITHDRAW else self._store.erase

        def work() -> Receipt:
            if order.receipt_id is not None:
                return self._store.receipt(order.receipt_id)
            with self._galleries.enrolling:  # what is being stored is stored before, and goes too
                return act(
                    order.subject_id,
                    reason=order.reason or order.verb,
                    actor=order.actor,
                    modality=order.modality,
                    purpose=order.purpose,
                    elsewhere=[GALLERY, *places],
                )

        try:
            receipt = await asyncio.to_thread(work)
        except Sealed:
            log.warning("erasure_waits_for_unsealing order=%s", order.order_id)
            return None
        # Again: an enrolment may have been under way when the order came.
        self._galleries.remove(order.subject_id, modality=order.modality, purpose=order.purpose)
        return await asyncio.to_thread(self._store.confirm_erased, receipt.receipt_id, GALLERY)

    def _finish(self, connection: sqlite3.Connection, order: Order, receipt: Receipt) -> None:
        now = self._now()
        leaving = order.verb in LEAVING
        if leaving:
            self._roster.remove(connection, order.subject_id)
            leave_places(connection, order.subject_id, now=now)
            self._audit.erase_subject(connection, order.subject_id)
        connection.execute(
            "UPDATE erasure_orders SET receipt = ?, done_at = ?, events_by = ? WHERE id = ?",
            (
                receipt.receipt_id,
                utc_text(now),
                utc_text(order.ordered_at + EVENTS_DEADLINE) if leaving else None,
                order.order_id,
            ),
        )
        kind = "subject.left" if leaving else "subject.erased"
        data = {"modality": order.modality, "purpose": order.purpose, "receipt": receipt.receipt_id}
        append(connection, [Event(f"erasure:{order.order_id}", kind, now, "", order.subject_id, data)], now=now)

    # What waits

    async def resume(self) -> int:
        """Carry out what a crash or a sealed store left, before galleries open. How many orders were finished."""
        rows = await self._database.read(
            lambda c: c.execute(
                "SELECT id, subject, kind, modality, purpose, reason, actor, ordered_at, receipt FROM erasure_orders"
                " WHERE done_at IS NULL ORDER BY ordered_at"
            ).fetchall()
        )
        finished = 0
        for row in rows:
            order = Order(
                row[0],
                SubjectId(row[1]),
                Verb(row[2]),
                Modality(row[3]) if row[3] else None,
                Purpose(row[4]) if row[4] else None,
                row[5],
                row[6],
                datetime.fromisoformat(row[7]),
                row[8],
            )
            self._forget(order)
            finished += (await self._carry_out(order)).receipt is not None
        return finished

    async def retry(self) -> int:
        """Ask every device that still holds a copy, and is here, to delete it. How many copies went."""
        return await self._copies.ask()

    async def rekey(self) -> None:
        """New key for what stays, then a fresh backup: earlier copies no longer open what was erased.

        Nothing happens while neither is owed. What the key provider or the disk refuses is owed still.
        """
        if self._store.sealed:
            return
        try:
            if await asyncio.to_thread(self._store.rotation_owed):
                self._backup_owed = True
                await asyncio.to_thread(self._store.rotate)
            if self._backup_owed:
                await self._backup()
        except (StoreError, OSError, sqlite3.OperationalError) as exc:
            log.log(logging.DEBUG if self._rekey_fails else logging.WARNING, "rekey_fails error=%r", exc)
            self._rekey_fails = True
            return
        if self._rekey_fails:
            log.info("rekey_works_again")
        self._backup_owed = self._rekey_fails = False

    async def _rotation_owed(self) -> bool:
        return not self._store.sealed and await asyncio.to_thread(self._store.rotation_owed)

    async def anonymise(self) -> int:
        """Events of people who left lose everything that names them, if delivered or due. How many events."""
        delivered, now = await self._delivered(), utc_text(self._now())

        def work(connection: sqlite3.Connection) -> int:
            rows = connection.execute(
                "SELECT id, subject FROM erasure_orders WHERE events_by IS NOT NULL AND (? OR events_by <= ?)",
                (delivered, now),
            ).fetchall()
            changed = 0
            for order_id, subject in rows:
                changed += anonymise(connection, subject)
                connection.execute("UPDATE erasure_orders SET events_by = NULL, subject = '' WHERE id = ?", (order_id,))
            return changed

        changed = await self._database.write(work, essential=True)
        if changed:
            await self._database.checkpoint()
        return changed

    # Time

    async def expire(self, periods: Periods | None) -> list[Carried]:
        """Consents that ended and, with `periods`, people whose last interaction is longer ago than published."""
        if self._store.sealed:
            return []
        now, carried = self._now(), []
        # Retention asks about everybody; what merely ended is found by its date.
        until = now if periods is None else datetime.max.replace(tzinfo=UTC)
        for consent in await asyncio.to_thread(self._store.expired, until):
            if consent.expires_at <= now:
                reason = "expired"
            elif periods is not None and is_due(
                Kept.TEMPLATE, periods, since=self._last_seen(consent.subject_id, consent.given_at), now=now
            ):
                reason = "retention"
            else:
                continue
            scope = (consent.modality, consent.purpose)
            order = Order(secrets.token_hex(8), consent.subject_id, Verb.DELETE, *scope, reason, "agent", self._now())
            carried.append(await self._begin(order))
        if carried:
            await self._copies.ask_with_patience()
        return carried

    def _last_seen(self, subject: SubjectId, given_at: datetime) -> datetime:
        where, punch = self._presence.whereabouts(subject), self._presence.last_punch(subject)
        return max(given_at, *([where.since] if where else []), *([punch.at] if punch else []), given_at)

    async def run(self, *, periods: Callable[[], Periods], wait: Callable[[float], Awaitable[None]]) -> None:
        """Finish what is open, then keep going until cancelled. `wait` is asyncio.sleep, or a test's."""
        await self.resume()
        async with self._copies.following():
            for turn in itertools.count():
                try:
                    if await self._rotation_owed():
                        await wait(REKEY_AFTER_S)
                    await self.rekey()
                    await self.resume()
                    await self._copies.ask_with_patience()
                    await self.anonymise()
                    await self.expire(periods() if turn % SWEEP_EVERY == 0 else None)
                except (DiskFull, OSError, sqlite3.OperationalError) as exc:  # what is owed stays written down
                    log.warning("erasure_put_off reason=%s", exc)
                await wait(RETRY_EVERY_S)

    # The right of access

    async def export(self, subject: SubjectId, *, actor: str) -> dict[str, Any]:
        """Everything on this machine about one person, and nothing about others. Raises Sealed."""
        biometric = await asyncio.to_thread(self._store.export, subject)
        now = self._now()

        def work(connection: sqlite3.Connection) -> dict[str, Any]:
            self._audit.append(connection, AuditEntry(actor, "subject.access", subject), now=now)
            return about(connection, subject)

        return {"exported_at": utc_text(now), **await self._database.write(work), "biometrics": biometric}


def _removal_places(connection: sqlite3.Connection, order_id: str) -> list[str]:
    rows = connection.execute("SELECT DISTINCT device FROM device_removals WHERE erasure = ?", (order_id,))
    return [f"users@{device}" for (device,) in rows]


def _receipt_of(connection: sqlite3.Connection, order_id: str) -> str | None:
    """Of an order that was carried out."""
    row = connection.execute(
        "SELECT receipt FROM erasure_orders WHERE id = ? AND done_at IS NOT NULL", (order_id,)
    ).fetchone()
    return row[0] if row else None
