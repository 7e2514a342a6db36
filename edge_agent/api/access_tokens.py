"""Scoped, expiring bearer tokens for machines. Only their SHA-256 rests here; a token is shown once.

A token can do no more than the account behind it can do now: it rests while that account is shut, and loses with
it what a lesser role takes away. Behind the command line's token, and those issued with it, stands the machine
itself: whoever may use that one could write the database as well.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from edge_agent.policy.roles import ROLES, Role, Scope

PREFIX = "eat_"  # so that secret scanners can find a token that leaked into a repository
MAX_LIFETIME = timedelta(days=366)
BOOTSTRAP_LIFETIME = timedelta(hours=24)
MACHINE = "@agent"  # issues the command line's token; no account can have this name
ACTOR = "token:"
MAX_CHAIN = 32  # tokens issued by tokens


@dataclass(frozen=True, slots=True)
class AccessToken:
    name: str
    scopes: frozenset[Scope]
    created_by: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None


def _hash(token: str) -> bytes:
    # 256 random bits need no slow hash: there is nothing to guess.
    return hashlib.sha256(token.encode()).digest()


def issue(
    connection: sqlite3.Connection,
    name: str,
    *,
    scopes: Iterable[Scope],
    lifetime: timedelta,
    created_by: str,
    now: datetime,
) -> str:
    """A new token, in clear this once. Raises ValueError for a taken name or a lifetime out of bounds."""
    if not timedelta() < lifetime <= MAX_LIFETIME:
        raise ValueError(f"lifetime: {lifetime.days} days; allowed: more than 0, at most {MAX_LIFETIME.days}")
    token = PREFIX + secrets.token_urlsafe(32)
    try:
        connection.execute(
            "INSERT INTO access_tokens VALUES (?,?,?,?,?,?,NULL,NULL)",
            (
                _hash(token),
                name,
                " ".join(sorted(scopes)),
                created_by,
                now.isoformat(),
                (now + lifetime).isoformat(),
            ),
        )
    except sqlite3.IntegrityError:
        raise ValueError(f"name: {name!r} is taken; revoked names are not given again") from None
    return token


def behind(connection: sqlite3.Connection, actor: str) -> str | None:
    """Who answers for a caller: the account, who issued the token, or who issued the token that issued it.

    MACHINE is the gateway itself; None is nobody. An account is not looked up.
    """
    for _ in range(MAX_CHAIN):
        if not actor.startswith(ACTOR):
            return actor
        row = connection.execute(
            "SELECT created_by FROM access_tokens WHERE name = ?", (actor.removeprefix(ACTOR),)
        ).fetchone()
        if row is None:
            return None
        actor = row[0]
    return None


def _held_now(connection: sqlite3.Connection, maker: str) -> frozenset[Scope]:
    person = behind(connection, maker)
    if person == MACHINE:
        return frozenset(Scope)
    row = connection.execute("SELECT role FROM accounts WHERE name = ? AND NOT disabled", (person,)).fetchone()
    return ROLES[Role(row[0])] if row else frozenset()


def find(connection: sqlite3.Connection, token: str, *, now: datetime) -> AccessToken | None:
    """The token's record if it is valid now, with the scopes that its maker still holds."""
    if not token.startswith(PREFIX):
        return None
    row = connection.execute(
        "SELECT name, scopes, created_by, created_at, expires_at, revoked_at FROM access_tokens WHERE token_hash = ?",
        (_hash(token),),
    ).fetchone()
    if row is None:
        return None
    found = _record(row)
    if found.revoked_at is not None or now >= found.expires_at:
        return None
    scopes = found.scopes & _held_now(connection, found.created_by)
    return replace(found, scopes=scopes) if scopes else None


def listing(connection: sqlite3.Connection) -> list[AccessToken]:
    rows = connection.execute(
        "SELECT name, scopes, created_by, created_at, expires_at, revoked_at FROM access_tokens ORDER BY created_at"
    )
    return [_record(row) for row in rows]


def revoke(connection: sqlite3.Connection, name: str, *, now: datetime) -> bool:
    return (
        connection.execute(
            "UPDATE access_tokens SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL", (now.isoformat(), name)
        ).rowcount
        > 0
    )


def _record(row: tuple[str, str, str, str, str, str | None]) -> AccessToken:
    name, scopes, created_by, created_at, expires_at, revoked_at = row
    return AccessToken(
        name,
        frozenset(Scope(s) for s in scopes.split()),
        created_by,
        datetime.fromisoformat(created_at),
        datetime.fromisoformat(expires_at),
        datetime.fromisoformat(revoked_at) if revoked_at else None,
    )


def bootstrap(connection: sqlite3.Connection, *, now: datetime) -> str | None:
    """The one-time token that makes the first account; None once an account exists. Replaces an unused one."""
    if connection.execute("SELECT 1 FROM accounts LIMIT 1").fetchone():
        return None
    token = "-".join(secrets.token_hex(2).upper() for _ in range(8))  # 128 bits, readable from a screen
    connection.execute(
        "INSERT INTO bootstrap VALUES (1, ?, ?, NULL) ON CONFLICT (id) DO UPDATE SET"
        " token_hash = excluded.token_hash, expires_at = excluded.expires_at, used_at = NULL",
        (_hash(token), (now + BOOTSTRAP_LIFETIME).isoformat()),
    )
    return token


def claim(connection: sqlite3.Connection, token: str, *, now: datetime) -> bool:
    """Use up the one-time token. True exactly once."""
    return (
        connection.execute(
            "UPDATE bootstrap SET used_at = ? WHERE id = 1 AND token_hash = ? AND used_at IS NULL AND expires_at > ?"
            " AND NOT EXISTS (SELECT 1 FROM accounts)",
            (now.isoformat(), _hash(token.strip().upper()), now.isoformat()),
        ).rowcount
        == 1
    )
