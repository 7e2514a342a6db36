"""From a card, a number or a PIN to a person, and what the rules need to know of that person.

A PIN alone finds nobody: it rests as Argon2id and cannot be looked up. At a keypad a person enters their number and
then the PIN, or shows a card and then enters it. Under duress another PIN is entered; both are always compared, so
that the time taken tells nothing.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from edge_agent.database import Database
from edge_agent.people.roster import CARD, PIN, Roster, Taken
from edge_agent.policy.access import Person
from templates_store.template import SubjectId

MAX_KEYS = 32  # digits of one keypad entry that are looked at
MAX_GROUPS = 200


class PinCheck(StrEnum):
    RIGHT = "right"
    WRONG = "wrong"
    DURESS = "duress"


@dataclass(frozen=True, slots=True)
class Rights:
    """What an administrator sets for one person."""

    groups: tuple[str, ...] = ()
    enabled: bool = True
    opener: bool = False
    passes_lockdown: bool = False
    anti_passback_exempt: bool = False
    duress_finger: int | None = None


def rights_of(connection: sqlite3.Connection, subject: str) -> Rights:
    """Somebody nobody gave rights has none, and is not suspended."""
    groups = connection.execute(
        "SELECT group_name FROM access_members WHERE subject = ? ORDER BY group_name", (subject,)
    ).fetchall()
    row = connection.execute(
        "SELECT enabled, opener, passes_lockdown, anti_passback_exempt, duress_finger FROM access_people"
        " WHERE subject = ?",
        (subject,),
    ).fetchone() or (1, 0, 0, 0, None)
    return Rights(tuple(name for (name,) in groups), bool(row[0]), bool(row[1]), bool(row[2]), bool(row[3]), row[4])


def set_rights(connection: sqlite3.Connection, subject: str, rights: Rights) -> None:
    """Replaces them. Raises ValueError, KeyError if there is no such person."""
    if len(rights.groups) > MAX_GROUPS or any(not 0 < len(name) <= 64 for name in rights.groups):
        raise ValueError(f"groups: at most {MAX_GROUPS} names of 1 to 64 characters")
    if rights.duress_finger is not None and not 1 <= rights.duress_finger <= 10:
        raise ValueError(f"duress_finger: {rights.duress_finger}; allowed are 1 to 10")
    if not connection.execute("SELECT 1 FROM people WHERE subject = ?", (subject,)).fetchone():
        raise KeyError(subject)
    connection.execute(
        "INSERT INTO access_people"
        " (subject, enabled, opener, passes_lockdown, anti_passback_exempt, duress_finger) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (subject) DO UPDATE SET enabled = excluded.enabled, opener = excluded.opener,"
        " passes_lockdown = excluded.passes_lockdown, anti_passback_exempt = excluded.anti_passback_exempt,"
        " duress_finger = excluded.duress_finger",
        (
            subject,
            int(rights.enabled),
            int(rights.opener),
            int(rights.passes_lockdown),
            int(rights.anti_passback_exempt),
            rights.duress_finger,
        ),
    )
    connection.execute("DELETE FROM access_members WHERE subject = ?", (subject,))
    connection.executemany(
        "INSERT INTO access_members VALUES (?, ?)", [(subject, name) for name in dict.fromkeys(rights.groups)]
    )


def person_of(connection: sqlite3.Connection, subject: str) -> Person | None:
    row = connection.execute("SELECT valid_from, valid_until FROM people WHERE subject = ?", (subject,)).fetchone()
    if row is None:
        return None
    rights = rights_of(connection, subject)
    return Person(
        subject_id=SubjectId(subject),
        groups=frozenset(rights.groups),
        enabled=rights.enabled,
        valid_from=datetime.fromisoformat(row[0]) if row[0] else None,
        valid_until=datetime.fromisoformat(row[1]) if row[1] else None,
        opener=rights.opener,
        passes_lockdown=rights.passes_lockdown,
        anti_passback_exempt=rights.anti_passback_exempt,
    )


class Credentials:
    """Reads only what is durable; each look-up is one view of the database."""

    def __init__(self, database: Database, roster: Roster) -> None:
        self._database = database
        self._roster = roster

    async def by_card(self, number: str) -> Person | None:
        """None also for what can be no card: too long, other characters."""
        if not CARD.fullmatch(number.strip()):
            return None
        return await self._database.read(lambda c: self._found(c, self._roster.subject_of(c, card=number)))

    async def by_number(self, digits: str, *, device: str) -> Person | None:
        if not 0 < len(digits) <= MAX_KEYS or not digits.isdecimal():
            return None
        return await self._database.read(
            lambda c: self._found(c, self._roster.subject_of(c, device=device, user_id=digits))
        )

    async def person(self, subject: SubjectId) -> Person | None:
        return await self._database.read(lambda c: person_of(c, subject))

    async def duress_finger(self, subject: SubjectId) -> int | None:
        return await self._database.read(lambda c: rights_of(c, subject).duress_finger)

    async def check_pin(self, subject: SubjectId | None, digits: str) -> PinCheck:
        """As slow for nobody as for somebody, and for duress as for the ordinary PIN."""

        def hashes(connection: sqlite3.Connection) -> tuple[str | None, str | None]:
            row = connection.execute("SELECT duress_pin FROM access_people WHERE subject = ?", (subject,)).fetchone()
            return self._roster.pin_hash(connection, subject or ""), row[0] if row else None

        ordinary, duress = await self._database.read(hashes)
        plain = digits if PIN.fullmatch(digits) else ""
        right, forced = await asyncio.to_thread(
            lambda: (self._roster.verify_pin(ordinary, plain), self._roster.verify_pin(duress, plain))
        )
        if forced:
            return PinCheck.DURESS
        return PinCheck.RIGHT if right else PinCheck.WRONG

    async def set_duress_pin(self, subject: SubjectId, digits: str) -> None:
        """Raises Taken if it is the ordinary PIN, ValueError, KeyError."""
        if await self.check_pin(subject, digits) is PinCheck.RIGHT:
            raise Taken("the duress PIN must differ from the ordinary PIN")
        hashed = (await asyncio.to_thread(self._roster.hash_pin, digits)).hash  # no controller knows duress PINs

        def work(connection: sqlite3.Connection) -> None:
            set_rights(connection, subject, rights_of(connection, subject))
            connection.execute("UPDATE access_people SET duress_pin = ? WHERE subject = ?", (hashed, subject))

        await self._database.write(work)

    async def set_rights(self, subjects: Iterable[SubjectId], rights: Rights) -> None:
        """Raises ValueError, KeyError; then nobody's were changed."""
        chosen = list(subjects)

        def work(connection: sqlite3.Connection) -> None:
            for subject in chosen:
                set_rights(connection, subject, rights)

        await self._database.write(work)

    def _found(self, connection: sqlite3.Connection, subject: str | None) -> Person | None:
        return None if subject is None else person_of(connection, subject)
