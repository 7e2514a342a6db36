"""People who administer this gateway: accounts, sign-in, sessions.

Passwords are Argon2id; five failures lock a name for a while that doubles, whether it has an account or not;
a code of the second factor serves once; sessions are random cookies stored hashed, listed and revocable.
Verification takes the same time for unknown names.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta

import argon2
import pyotp

from edge_agent.policy.roles import Role

MIN_PASSWORD = 12
MAX_PASSWORD = 256  # Argon2 reads it all: a megabyte of password is an attack
FREE_FAILURES = 5
FIRST_LOCK = timedelta(seconds=30)
MAX_LOCK = timedelta(hours=1)
SESSION_LIFETIME = timedelta(hours=12)
IDLE_LIFETIME = timedelta(minutes=60)
TOTP_STEP_S = 30
MAX_UNKNOWN = 10_000  # names without an account whose failures are remembered

_hasher = argon2.PasswordHasher()  # RFC 9106 low-memory profile: 64 MiB, t=3, p=4
_DECOY = "$argon2id$v=19$m=65536,t=3,p=4$MTIzNDU2Nzg5MDEyMzQ1Ng$cGxlYXNlIGRvIG5vdCBtYXRjaCBhbnl0aGluZyEhISE"


class BadPassword(ValueError):
    """A new password that is not acceptable."""


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    role: Role
    has_totp: bool = False
    disabled: bool = False
    own_password: bool = True  # False: somebody else set it, and so knows it
    provided: bool = False  # signs in at the identity provider


@dataclass(frozen=True, slots=True)
class Session:
    """`id` is in clear only when it was just made."""

    account: Account
    csrf: str
    expires_at: datetime
    id: str = ""


@dataclass(frozen=True, slots=True)
class SignInRefused:
    """Never says whether the name, the password or the code was wrong."""

    tries_left: int | None = None
    locked_until: datetime | None = None


def check_new_password(password: str, *, name: str) -> None:
    """Raises BadPassword saying what is allowed."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise BadPassword(f"password: {len(password)} characters; allowed: {MIN_PASSWORD} to {MAX_PASSWORD}")
    if name.casefold() in password.casefold() or len(set(password)) < 5:
        raise BadPassword("password: must not contain the account's name and needs at least 5 different characters")


def hash_password(password: str) -> str:
    """Slow on purpose: call it in a thread, outside the database's writer."""
    return _hasher.hash(password)


def add(
    connection: sqlite3.Connection,
    name: str,
    *,
    role: Role,
    password_hash: str | None,
    now: datetime,
    password_by: str = "",
    identity: str | None = None,
) -> Account:
    """`password_by` is who set the password if it was not the person. Raises ValueError if the name is taken."""
    try:
        connection.execute(
            "INSERT INTO accounts (name, role, password, created_at, password_by, identity) VALUES (?,?,?,?,?,?)",
            (name, role, password_hash, now.isoformat(), password_by, identity),
        )
    except sqlite3.IntegrityError:
        raise ValueError(f"name: {name!r} is taken") from None
    return Account(name, role)


_COLUMNS = "name, role, totp_secret IS NOT NULL, disabled, password_by = '', identity IS NOT NULL"


def _account(row: tuple[str, str, int, int, int, int]) -> Account:
    name, role, totp, disabled, own, provided = row
    return Account(name, Role(role), bool(totp), bool(disabled), bool(own), bool(provided))


def find(connection: sqlite3.Connection, name: str) -> Account | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM accounts WHERE name = ?", (name,)).fetchone()  # noqa: S608
    return _account(row) if row else None


def find_identity(connection: sqlite3.Connection, identity: str) -> Account | None:
    """The account that belongs to somebody at the identity provider."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM accounts WHERE identity = ?", (identity,)).fetchone()  # noqa: S608
    return _account(row) if row else None


def listing(connection: sqlite3.Connection) -> list[Account]:
    rows = connection.execute(f"SELECT {_COLUMNS} FROM accounts ORDER BY name")  # noqa: S608 - our own columns
    return [_account(row) for row in rows]


def stored_hash(connection: sqlite3.Connection, name: str) -> tuple[str | None, bytes | None]:
    """(password hash, sealed TOTP secret); (None, None) for an unknown name."""
    row = connection.execute("SELECT password, totp_secret FROM accounts WHERE name = ?", (name,)).fetchone()
    return (row[0], row[1]) if row else (None, None)


def set_password(connection: sqlite3.Connection, name: str, password_hash: str, *, by: str = "") -> None:
    """`by` is who set it, if it was not the person."""
    connection.execute(
        "UPDATE accounts SET password = ?, password_by = ?, failures = 0, locked_until = NULL WHERE name = ?",
        (password_hash, by, name),
    )


def made_by(connection: sqlite3.Connection, name: str) -> frozenset[str]:
    """Whose hands the account has been in, other than the person's own."""
    row = connection.execute("SELECT made_by FROM accounts WHERE name = ?", (name,)).fetchone()
    return frozenset(row[0].split()) if row else frozenset()


def set_made_by(connection: sqlite3.Connection, name: str, people: frozenset[str]) -> None:
    connection.execute("UPDATE accounts SET made_by = ? WHERE name = ?", (" ".join(sorted(people)), name))


def set_role(connection: sqlite3.Connection, name: str, role: Role) -> None:
    """Raises ValueError if no administrator who may sign in would be left."""
    connection.execute("UPDATE accounts SET role = ? WHERE name = ?", (role, name))
    _administrator_left(connection, "role")


def set_totp(connection: sqlite3.Connection, name: str, sealed: bytes | None, *, step: int = 0) -> None:
    """`step` is that of the code which confirmed the secret: it is used up."""
    connection.execute("UPDATE accounts SET totp_secret = ?, totp_step = ? WHERE name = ?", (sealed, step, name))


def use_code(connection: sqlite3.Connection, name: str, step: int) -> bool:
    """Accept the code of this time step once, and none before it (RFC 6238, 5.2)."""
    return (
        connection.execute(
            "UPDATE accounts SET totp_step = ?1 WHERE name = ?2 AND totp_step < ?1", (step, name)
        ).rowcount
        == 1
    )


def set_disabled(connection: sqlite3.Connection, name: str, *, disabled: bool) -> None:
    """Raises ValueError if no administrator who may sign in would be left."""
    connection.execute("UPDATE accounts SET disabled = ? WHERE name = ?", (int(disabled), name))
    _administrator_left(connection, "disabled")


def _administrator_left(connection: sqlite3.Connection, field: str) -> None:
    if not connection.execute("SELECT 1 FROM accounts WHERE role = ? AND NOT disabled", (Role.ADMIN,)).fetchone():
        raise ValueError(f"{field}: the last administrator stays")


def password_matches(password_hash: str | None, password: str) -> bool:
    """Takes as long for an unknown account as for a wrong password. Call it in a thread."""
    try:
        return _hasher.verify(password_hash or _DECOY, password[:MAX_PASSWORD]) and password_hash is not None
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


def code_step(secret: str, code: str, *, now: datetime) -> int | None:
    """The time step of a right code: TOTP of RFC 6238, one step of clock difference either way."""
    totp, this = pyotp.TOTP(secret, interval=TOTP_STEP_S), int(now.timestamp()) // TOTP_STEP_S
    right = [step for step in (this - 1, this, this + 1) if _same(totp.generate_otp(step), code)]
    return max(right, default=None)


def locked_until(connection: sqlite3.Connection, name: str, *, now: datetime) -> datetime | None:
    row = connection.execute(
        "SELECT locked_until FROM accounts WHERE name = ?1"
        " UNION ALL SELECT locked_until FROM unknown_sign_ins WHERE name_hash = ?2"
        " AND NOT EXISTS (SELECT 1 FROM accounts WHERE name = ?1)",
        (name, _hash(name)),
    ).fetchone()
    until = datetime.fromisoformat(row[0]) if row and row[0] else None
    return until if until and until > now else None


def count_failure(connection: sqlite3.Connection, name: str, *, now: datetime) -> SignInRefused:
    """One more; what it answers does not tell whether there is such an account."""
    table, column = "accounts", "name"
    key: str | bytes = name
    if not connection.execute("SELECT 1 FROM accounts WHERE name = ?", (name,)).fetchone():
        table, column, key = "unknown_sign_ins", "name_hash", _hash(name)
        connection.execute(
            "INSERT INTO unknown_sign_ins (name_hash, at) VALUES (?1, ?2)"
            " ON CONFLICT (name_hash) DO UPDATE SET at = ?2",
            (key, now.isoformat()),
        )
        connection.execute(
            "DELETE FROM unknown_sign_ins WHERE name_hash IN"
            " (SELECT name_hash FROM unknown_sign_ins ORDER BY at DESC LIMIT -1 OFFSET ?)",
            (MAX_UNKNOWN,),
        )
    (failures,) = connection.execute(
        f"UPDATE {table} SET failures = failures + 1 WHERE {column} = ? RETURNING failures",  # noqa: S608
        (key,),
    ).fetchone()
    over = failures - FREE_FAILURES
    if over < 0:
        return SignInRefused(tries_left=-over)
    until = now + min(FIRST_LOCK * 2 ** min(over, 10), MAX_LOCK)
    connection.execute(
        f"UPDATE {table} SET locked_until = ? WHERE {column} = ?",  # noqa: S608 - our own names
        (until.isoformat(), key),
    )
    return SignInRefused(locked_until=until)


def open_session(
    connection: sqlite3.Connection, account: Account, *, address: str, agent: str, now: datetime
) -> Session:
    """Sign in: a fresh session, failures forgotten, expired sessions swept."""
    session_id, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    connection.execute("UPDATE accounts SET failures = 0, locked_until = NULL WHERE name = ?", (account.name,))
    connection.execute("DELETE FROM sessions WHERE expires_at <= ?", (now.isoformat(),))
    expires = now + SESSION_LIFETIME
    connection.execute(
        "INSERT INTO sessions VALUES (?,?,?,?,?,?,?,?)",
        (
            _hash(session_id),
            account.name,
            csrf,
            now.isoformat(),
            expires.isoformat(),
            now.isoformat(),
            address[:64],
            agent[:200],
        ),
    )
    return Session(account, csrf, expires, session_id)


def find_session(connection: sqlite3.Connection, session_id: str, *, now: datetime) -> Session | None:
    """The session if it is valid now. Does not write; `touch` keeps it alive."""
    row = connection.execute(
        "SELECT a.name, a.role, a.totp_secret IS NOT NULL, a.disabled, s.csrf, s.expires_at, s.seen_at"
        " FROM sessions s JOIN accounts a ON a.name = s.account WHERE s.id_hash = ?",
        (_hash(session_id),),
    ).fetchone()
    if row is None:
        return None
    name, role, totp, disabled, csrf, expires, seen = row
    idle = now - datetime.fromisoformat(seen)
    if disabled or idle > IDLE_LIFETIME or now >= datetime.fromisoformat(expires):
        return None
    return Session(Account(name, Role(role), bool(totp)), csrf, datetime.fromisoformat(expires), session_id)


def touch(connection: sqlite3.Connection, session_id: str, *, now: datetime) -> None:
    connection.execute("UPDATE sessions SET seen_at = ? WHERE id_hash = ?", (now.isoformat(), _hash(session_id)))


def close_session(connection: sqlite3.Connection, session_id: str) -> None:
    connection.execute("DELETE FROM sessions WHERE id_hash = ?", (_hash(session_id),))


def close_provided_sessions(connection: sqlite3.Connection, *, but: str) -> int:
    """End every session of an identity that another issuer than this one vouched for; "": of every such identity."""
    return connection.execute(
        "DELETE FROM sessions WHERE account IN"
        " (SELECT name FROM accounts WHERE identity IS NOT NULL AND instr(identity, ? || ' ') != 1)",
        (but,),
    ).rowcount


def close_all_sessions(connection: sqlite3.Connection, account: str, *, but: str = "") -> int:
    """End every session of an account, except the one in clear that is named."""
    return connection.execute("DELETE FROM sessions WHERE account = ? AND id_hash != ?", (account, _hash(but))).rowcount


def sessions(connection: sqlite3.Connection) -> list[tuple[str, str, str, str, str, str]]:
    """(handle, account, created, seen, address, agent); the handle revokes and cannot sign in."""
    return connection.execute(
        "SELECT hex(substr(id_hash, 1, 8)), account, created_at, seen_at, address, agent FROM sessions"
        " ORDER BY seen_at DESC"
    ).fetchall()


def revoke_session(connection: sqlite3.Connection, handle: str) -> bool:
    return connection.execute("DELETE FROM sessions WHERE hex(substr(id_hash, 1, 8)) = ?", (handle,)).rowcount > 0


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _same(right: str, given: str) -> bool:
    return hmac.compare_digest(right.encode(), given.strip().encode())
