"""Who is who: subjects, the numbers devices know them by, cards and PINs.

Names and departments rest here and nowhere else; every other table, and every event, knows the
pseudonymous subject alone. Cards rest as keyed hashes (a card number is short enough to try them all
without the key), PINs as Argon2id. Functions take the caller's connection, so a flow can ask inside
its own transaction.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import re
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from edge_agent.database import utc_text

EVERY_DEVICE = ""
SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CARD = re.compile(r"[0-9A-Fa-f]{1,40}")
PIN = re.compile(r"[0-9]{4,12}")
MAX_NAME = 200
MAX_USER_ID = 64
MAX_IMPORT = 100_000
MAX_YEAR = 9999  # none in it: it is over earlier or later elsewhere
LINE, FAULT = "#", "!"  # beside a row's columns: where it ends in the file, why it cannot be taken ("column: reason")
COLUMNS = ("subject", "name", "department", "user_id", "card", "pin", "valid_from", "valid_until")


@dataclass(frozen=True, slots=True)
class Person:
    subject: str
    name: str = field(repr=False)
    department: str = field(default="", repr=False)
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    user_ids: tuple[tuple[str, str], ...] = ()  # (device, user_id); device "" is every device
    cards: tuple[str, ...] = ()  # hints: the last digits
    has_pin: bool = False


@dataclass(frozen=True, slots=True)
class RowError:
    """One line of an import that was not taken."""

    line: int  # from 1, the heading being line 1 of a CSV
    column: str
    reason: str


@dataclass(frozen=True, slots=True)
class Imported:
    added: int
    changed: int
    errors: tuple[RowError, ...]


@dataclass(frozen=True, slots=True)
class HashedPin:
    """A PIN as it may rest: hashed, and sealed besides where a controller has to be told it."""

    hash: str = field(repr=False)
    sealed: bytes | None = field(default=None, repr=False)


class Taken(ValueError):
    """A card or a device's number belongs to somebody else."""


def begins(said: date, zone: tzinfo) -> datetime:
    """A moment, or the first one of a day in `zone`. Raises ValueError."""
    return _checked(said) if isinstance(said, datetime) else _checked(datetime.combine(said, time(), zone))


def ends(said: date, zone: tzinfo) -> datetime:
    """A moment, or the end of a day in `zone`: whoever is valid until that day still is on it. Raises ValueError."""
    if isinstance(said, datetime):
        return _checked(said)
    _checked(datetime.combine(said, time(), zone))
    return datetime.combine(said + timedelta(days=1), time(), zone).astimezone(UTC)


def _checked(moment: datetime) -> datetime:
    """One that every zone's calendar has. Raises ValueError."""
    if moment.tzinfo is None:
        raise ValueError("a moment needs its offset from UTC, as in 2027-01-31T18:00:00+08:00")
    if not 1 < moment.year < MAX_YEAR:
        raise ValueError(f"valid_from, valid_until: years 2 to {MAX_YEAR - 1}; leave it out for no limit")
    return moment.astimezone(UTC)


def day_or_moment(text: str) -> date:
    """2027-01-31, or with a time and an offset. Raises ValueError."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return datetime.fromisoformat(text)


def new_subject() -> str:
    """A pseudonym that says nothing about the person."""
    return "s" + secrets.token_hex(8)


class Roster:
    """`key` is 32 secret bytes from the key provider; without it card hashes cannot be tried out.

    `seal_number` and `seal_pin` give a number sealed, for devices that need it, or None where no device does.
    """

    def __init__(
        self,
        key: bytes,
        *,
        hasher: PasswordHasher | None = None,
        seal_number: Callable[[str], bytes | None] = lambda _number: None,
        seal_pin: Callable[[str], bytes | None] = lambda _pin: None,
    ) -> None:
        if len(key) < 16:
            raise ValueError("the card key needs 16 bytes or more")
        self._key = key
        self._hasher = hasher or PasswordHasher()
        self._seal_number = seal_number
        self._seal_pin = seal_pin

    def card_digest(self, number: str) -> bytes:
        """Readers write one number in many ways: case and leading zeros do not count."""
        plain = number.strip().upper().lstrip("0") or "0"
        return hmac.new(self._key, b"card\0" + plain.encode(), hashlib.sha256).digest()

    # Asking

    def subject_of(
        self,
        connection: sqlite3.Connection,
        *,
        device: str = EVERY_DEVICE,
        user_id: str = "",
        card: str = "",
        at: datetime | None = None,
    ) -> str | None:
        """Whom a device means: its own entry for the number first, then everybody's, then the card.

        A number means nobody in what happened before the device deleted an earlier holder of it.
        """
        if user_id:
            row = connection.execute(
                "SELECT subject FROM device_users WHERE user_id = ? AND device IN (?, '') ORDER BY device DESC LIMIT 1",
                (user_id, device),
            ).fetchone()
            if row and not (at is not None and self._was_anothers(connection, row[0], device, user_id, at)):
                return str(row[0])
        if card:
            row = connection.execute("SELECT subject FROM cards WHERE digest = ?", (self.card_digest(card),)).fetchone()
            if row:
                return str(row[0])
        return None

    def _was_anothers(
        self, connection: sqlite3.Connection, subject: str, device: str, user_id: str, at: datetime
    ) -> bool:
        row = connection.execute(
            "SELECT 1 FROM device_removals r JOIN erasure_orders o ON o.id = r.erasure"
            " WHERE r.device = ? AND r.user_id = ? AND (r.done_at IS NULL OR r.done_at > ?) AND o.subject <> ?",
            (device, user_id, utc_text(at), subject),
        ).fetchone()
        return row is not None

    def names(self, connection: sqlite3.Connection, subjects: Iterable[str]) -> dict[str, str]:
        """Names of those known; an explicit join, for recipients that may have names."""
        found = {}
        for subject in set(subjects):
            row = connection.execute("SELECT name FROM people WHERE subject = ?", (subject,)).fetchone()
            if row:
                found[subject] = str(row[0])
        return found

    def person(self, connection: sqlite3.Connection, subject: str) -> Person | None:
        row = connection.execute(
            "SELECT subject, name, department, valid_from, valid_until FROM people WHERE subject = ?", (subject,)
        ).fetchone()
        if row is None:
            return None
        users = connection.execute(
            "SELECT device, user_id FROM device_users WHERE subject = ? ORDER BY device, user_id", (subject,)
        ).fetchall()
        cards = connection.execute("SELECT hint FROM cards WHERE subject = ? ORDER BY added_at", (subject,)).fetchall()
        pin = connection.execute("SELECT 1 FROM pins WHERE subject = ?", (subject,)).fetchone()
        return Person(
            row[0],
            row[1],
            row[2],
            datetime.fromisoformat(row[3]) if row[3] else None,
            datetime.fromisoformat(row[4]) if row[4] else None,
            tuple(users),
            tuple(hint for (hint,) in cards),
            pin is not None,
        )

    def people(
        self, connection: sqlite3.Connection, *, after: str = "", limit: int = 100, search: str = ""
    ) -> list[Person]:
        """A page in order of subject; `search` looks into names, departments and device numbers."""
        rows = connection.execute(
            "SELECT subject FROM people p WHERE subject > ?1 AND (?2 = '' OR instr(lower(name), lower(?2))"
            " OR instr(lower(department), lower(?2)) OR subject = ?2"
            " OR EXISTS (SELECT 1 FROM device_users d WHERE d.subject = p.subject AND d.user_id = ?2))"
            " ORDER BY subject LIMIT ?3",
            (after, search, limit),
        ).fetchall()
        return [person for (subject,) in rows if (person := self.person(connection, subject))]

    def count(self, connection: sqlite3.Connection) -> int:
        return int(connection.execute("SELECT count(*) FROM people").fetchone()[0])

    # Changing

    def put(self, connection: sqlite3.Connection, person: Person, *, now: datetime) -> bool:
        """Add or change name, department and validity (not numbers, cards, PIN). True if added.

        Raises ValueError.
        """
        if not SUBJECT.fullmatch(person.subject):
            raise ValueError("subject: letters, digits, '.', '_' and '-', up to 64")
        if not person.name.strip() or len(person.name) > MAX_NAME or len(person.department) > MAX_NAME:
            raise ValueError(f"name: 1 to {MAX_NAME} characters")
        if person.valid_from and person.valid_until and person.valid_from >= person.valid_until:
            raise ValueError("valid_until: must be after valid_from")
        at = utc_text(now)
        known = connection.execute("SELECT 1 FROM people WHERE subject = ?", (person.subject,)).fetchone()
        connection.execute(
            "INSERT INTO people VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (subject) DO UPDATE SET name = excluded.name,"
            " department = excluded.department, valid_from = excluded.valid_from,"
            " valid_until = excluded.valid_until, updated_at = excluded.updated_at",
            (
                person.subject,
                person.name.strip(),
                person.department.strip(),
                utc_text(person.valid_from) if person.valid_from else None,
                utc_text(person.valid_until) if person.valid_until else None,
                at,
                at,
            ),
        )
        return known is None

    def remove(self, connection: sqlite3.Connection, subject: str) -> bool:
        """Name, numbers, cards and PIN go together."""
        return bool(connection.execute("DELETE FROM people WHERE subject = ?", (subject,)).rowcount)

    def link(self, connection: sqlite3.Connection, subject: str, user_id: str, *, device: str = EVERY_DEVICE) -> None:
        """On `device` the number `user_id` means `subject`.

        Raises ValueError; Taken also while a device still has to delete whoever had the number before, because until
        then it tells that person's finger by it.
        """
        if not 0 < len(user_id) <= MAX_USER_ID:
            raise ValueError(f"user_id: 1 to {MAX_USER_ID} characters")
        row = connection.execute(
            "SELECT subject FROM device_users WHERE device = ? AND user_id = ?", (device, user_id)
        ).fetchone()
        if row and row[0] != subject:
            raise Taken(f"user_id {user_id} belongs to somebody else")
        if not row:
            holds = connection.execute(
                "SELECT device FROM device_removals WHERE user_id = ? AND done_at IS NULL AND ? IN ('', device) "
                " LIMIT 1",
                (user_id, device),
            ).fetchone()
            if holds:
                raise Taken(
                    f"user_id {user_id}: {holds[0]} still has to delete its earlier holder;"
                    " connect that device, or take another number"
                )
            connection.execute("INSERT INTO device_users VALUES (?, ?, ?)", (device, user_id, subject))

    def unlink(self, connection: sqlite3.Connection, user_id: str, *, device: str = EVERY_DEVICE) -> bool:
        return bool(
            connection.execute("DELETE FROM device_users WHERE device = ? AND user_id = ?", (device, user_id)).rowcount
        )

    def add_card(self, connection: sqlite3.Connection, subject: str, number: str, *, now: datetime) -> None:
        """Raises Taken, ValueError."""
        if not CARD.fullmatch(number.strip()):
            raise ValueError("card: up to 40 digits, decimal or hexadecimal")
        digest = self.card_digest(number)
        row = connection.execute("SELECT subject FROM cards WHERE digest = ?", (digest,)).fetchone()
        if row and row[0] != subject:
            raise Taken("this card belongs to somebody else")
        if not row:
            connection.execute(
                "INSERT INTO cards VALUES (?, ?, ?, ?)", (digest, subject, number.strip()[-4:], utc_text(now))
            )
        if (sealed := self._seal_number(number.strip())) is not None:
            connection.execute("INSERT OR REPLACE INTO sealed_cards VALUES (?, ?)", (digest, sealed))

    def remove_card(self, connection: sqlite3.Connection, number: str) -> bool:
        return bool(connection.execute("DELETE FROM cards WHERE digest = ?", (self.card_digest(number),)).rowcount)

    def hash_pin(self, pin: str) -> HashedPin:
        """Slow on purpose: outside any transaction. Raises ValueError."""
        if not PIN.fullmatch(pin):
            raise ValueError("pin: 4 to 12 digits")
        return HashedPin(self._hasher.hash(pin), self._seal_pin(pin))

    def set_pin(self, connection: sqlite3.Connection, subject: str, pin: HashedPin, *, now: datetime) -> None:
        connection.execute("DELETE FROM sealed_pins WHERE subject = ?", (subject,))
        connection.execute("INSERT OR REPLACE INTO pins VALUES (?, ?, ?)", (subject, pin.hash, utc_text(now)))
        if pin.sealed is not None:
            connection.execute("INSERT INTO sealed_pins VALUES (?, ?)", (subject, pin.sealed))

    def pin_hash(self, connection: sqlite3.Connection, subject: str) -> str | None:
        row = connection.execute("SELECT hash FROM pins WHERE subject = ?", (subject,)).fetchone()
        return str(row[0]) if row else None

    def verify_pin(self, pin_hash: str | None, pin: str) -> bool:
        """Slow on purpose, also where there is no PIN: the time tells nothing."""
        try:
            self._hasher.verify(pin_hash or self._hasher.hash(secrets.token_hex(4)), pin)
        except (VerificationError, InvalidHashError):
            return False
        return pin_hash is not None

    # Importing

    def take(
        self,
        connection: sqlite3.Connection,
        rows: Iterable[Mapping[str, str]],
        *,
        now: datetime,
        first_line: int = 1,
        pin_hashes: Mapping[str, HashedPin] | None = None,
        zone: tzinfo = UTC,
    ) -> Imported:
        """Rows with the keys of COLUMNS; only `name` must be there. A bad row is reported, the rest is taken.

        `zone` is where a day of `valid_from` or `valid_until` begins and ends; an empty one keeps what is known.

        A row without `subject` means whoever has its `user_id`, or somebody new. PINs come hashed
        beforehand in `pin_hashes` (by PIN), because hashing thousands would hold the transaction for minutes.
        """
        added = changed = 0
        errors: list[RowError] = []
        for line, row in enumerate(rows, first_line):
            if row.get(FAULT):
                column, _, reason = row[FAULT].partition(": ")
                errors.append(RowError(int(row.get(LINE, line)), column, reason))
                continue
            cells = {column: (row.get(column) or "").strip() for column in COLUMNS}
            column = "name"
            connection.execute("SAVEPOINT person")
            try:
                user_id, subject = cells["user_id"], cells["subject"]
                subject = subject or self.subject_of(connection, user_id=user_id) or new_subject()
                known = self.person(connection, subject)
                since, until = (known.valid_from, known.valid_until) if known else (None, None)
                column = "valid_from"
                if cells[column]:
                    since = begins(day_or_moment(cells[column]), zone)
                column = "valid_until"
                if cells[column]:
                    until = ends(day_or_moment(cells[column]), zone)
                if not since or not until or since < until:
                    column = "subject" if not SUBJECT.fullmatch(subject) else "name"
                department = known.department if known and "department" not in row else cells["department"]
                person = Person(subject, cells["name"], department, since, until)
                is_new = self.put(connection, person, now=now)
                if user_id:
                    column = "user_id"
                    self.link(connection, subject, user_id)
                if cells["card"]:
                    column = "card"
                    self.add_card(connection, subject, cells["card"], now=now)
                if cells["pin"]:
                    column = "pin"
                    pin_hash = (pin_hashes or {}).get(cells["pin"])
                    self.set_pin(connection, subject, pin_hash or self.hash_pin(cells["pin"]), now=now)
            except ValueError as exc:
                connection.execute("ROLLBACK TO person")
                errors.append(RowError(int(row.get(LINE, line)), column, str(exc)))
            else:
                added, changed = added + is_new, changed + (not is_new)
            connection.execute("RELEASE person")
        return Imported(added, changed, tuple(errors))


def read_csv(text: str) -> list[dict[str, str]]:
    """Rows of a CSV with a heading; comma, semicolon or tab. Each says its LINE, and its FAULT if it has one.

    Raises ValueError for a heading without `name`, a column unknown or there twice, or too many rows.
    """
    text = text.removeprefix("\ufeff")
    heading = text.partition("\n")[0]
    delimiter = max(",;\t", key=heading.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restval="", restkey="")
    try:
        columns = [(name or "").strip().lower() for name in reader.fieldnames or []]
        unknown = [name for name in columns if name not in COLUMNS]
        if "name" not in columns or unknown:
            raise ValueError(f"the first line names columns out of {', '.join(COLUMNS)}; name must be among them")
        if twice := sorted({name for name in columns if columns.count(name) > 1}):
            raise ValueError(f"the first line names {twice[0]} twice; a second card is a second row with the same name")
        reader.fieldnames = columns
        rows: list[dict[str, str]] = []
        names: dict[tuple[str, str], str] = {}
        for cells in reader:
            more: Sequence[str] = cells.pop("", None) or ()
            row = {key: value or "" for key, value in cells.items()} | {LINE: str(reader.line_num)}
            if any(cell.strip() for cell in more):
                row[FAULT] = (
                    f"{columns[-1]}: more cells than the {len(columns)} columns; quote a value with a separator"
                )
            for column in ("subject", "user_id"):
                known = (column, row.get(column, "").strip())
                if known[1] and names.setdefault(known, row["name"].strip()) != row["name"].strip():
                    row[FAULT] = f"{column}: {known[1]} stands under another name further up; each person has their own"
            rows.append(row)
            if len(rows) > MAX_IMPORT:
                raise ValueError(f"more than {MAX_IMPORT} rows; split the file")
    except csv.Error as exc:
        raise ValueError(f"line {reader.line_num}: {exc}") from exc
    return rows
