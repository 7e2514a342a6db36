from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

import pyotp
import pytest

from edge_agent.api import accounts
from edge_agent.database import SCHEMA
from edge_agent.policy.roles import Role


@pytest.fixture
def lin(connection: sqlite3.Connection, now: datetime) -> accounts.Account:
    return accounts.add(connection, "lin", role=Role.OPERATOR, password_hash=None, now=now)


def open_session(connection: sqlite3.Connection, account: accounts.Account, now: datetime) -> accounts.Session:
    return accounts.open_session(connection, account, address="192.0.2.7", agent="test", now=now)


def test_a_password_matches_its_own_hash_alone() -> None:
    stored = accounts.hash_password("correct horse battery")
    assert accounts.password_matches(stored, "correct horse battery")
    assert not accounts.password_matches(stored, "correct horse batterz")


def test_an_account_without_password_never_matches() -> None:
    assert not accounts.password_matches(None, "please do not match anything!!!!")


@pytest.mark.parametrize("password", ["short", "x" * 300, "aaaaaaaaaaaaaaaa", "this is lin's password"])
def test_weak_passwords_are_refused_with_what_is_allowed(password: str) -> None:
    with pytest.raises(accounts.BadPassword):
        accounts.check_new_password(password, name="lin")


def test_the_fifth_failure_locks_and_each_further_one_doubles(
    connection: sqlite3.Connection, lin: accounts.Account, now: datetime
) -> None:
    results = [accounts.count_failure(connection, "lin", now=now) for _ in range(6)]
    assert [r.tries_left for r in results[:4]] == [4, 3, 2, 1]
    assert results[4].locked_until == now + timedelta(seconds=30)
    assert results[5].locked_until == now + timedelta(seconds=60)
    assert accounts.locked_until(connection, "lin", now=now + timedelta(seconds=59))
    assert accounts.locked_until(connection, "lin", now=now + timedelta(seconds=60)) is None


def test_an_unknown_name_is_locked_like_a_known_one(
    connection: sqlite3.Connection, lin: accounts.Account, now: datetime
) -> None:
    for moment in (now + timedelta(minutes=minute) for minute in range(12)):
        known, unknown = (accounts.count_failure(connection, name, now=moment) for name in ("lin", "nobody"))
        assert known == unknown
        assert accounts.locked_until(connection, "nobody", now=moment) == known.locked_until
    assert "nobody" not in "\n".join(connection.iterdump())


def test_unknown_names_cost_bounded_room(
    connection: sqlite3.Connection, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "MAX_UNKNOWN", 3)
    for n in range(9):
        accounts.count_failure(connection, f"n{n}", now=now + timedelta(seconds=n))
    assert connection.execute("SELECT count(*) FROM unknown_sign_ins").fetchone() == (3,)
    assert accounts.count_failure(connection, "n8", now=now + timedelta(seconds=9)).tries_left == 3


def test_signing_in_forgets_failures(connection: sqlite3.Connection, lin: accounts.Account, now: datetime) -> None:
    for _ in range(4):
        accounts.count_failure(connection, "lin", now=now)
    open_session(connection, lin, now)
    assert accounts.count_failure(connection, "lin", now=now).tries_left == 4


def test_a_session_ends_idle_and_at_its_limit(
    connection: sqlite3.Connection, lin: accounts.Account, now: datetime
) -> None:
    session = open_session(connection, lin, now)
    assert accounts.find_session(connection, session.id, now=now + timedelta(minutes=60))
    assert accounts.find_session(connection, session.id, now=now + timedelta(minutes=61)) is None
    for hour in range(1, 13):
        accounts.touch(connection, session.id, now=now + timedelta(hours=hour) - timedelta(minutes=1))
    assert accounts.find_session(connection, session.id, now=now + timedelta(hours=12)) is None


def test_the_cookie_is_not_stored(connection: sqlite3.Connection, lin: accounts.Account, now: datetime) -> None:
    session = open_session(connection, lin, now)
    assert session.id not in "\n".join(connection.iterdump())


def test_a_listed_session_can_be_revoked_by_its_handle(
    connection: sqlite3.Connection, lin: accounts.Account, now: datetime
) -> None:
    session = open_session(connection, lin, now)
    [(handle, name, *_)] = accounts.sessions(connection)
    assert name == "lin"
    assert accounts.revoke_session(connection, handle)
    assert accounts.find_session(connection, session.id, now=now) is None


def test_a_disabled_account_has_no_session(
    connection: sqlite3.Connection, lin: accounts.Account, now: datetime
) -> None:
    session = open_session(connection, lin, now)
    connection.execute("UPDATE accounts SET disabled = 1")
    assert accounts.find_session(connection, session.id, now=now) is None


def test_a_one_time_code_is_right_for_one_step_either_way(now: datetime) -> None:
    secret = pyotp.random_base32()
    code, step = pyotp.TOTP(secret).at(now), int(now.timestamp()) // 30
    for seconds, found in ((-60, None), (-30, step), (0, step), (30, step), (120, None)):
        assert accounts.code_step(secret, f" {code}", now=now + timedelta(seconds=seconds)) == found
    assert accounts.code_step(secret, "\u0661" * 6, now=now) is None


def test_a_one_time_code_serves_once_and_none_before_it_afterwards(
    connection: sqlite3.Connection, lin: accounts.Account
) -> None:
    assert [accounts.use_code(connection, "lin", step) for step in (7, 7, 6, 8)] == [True, False, False, True]


def test_an_older_database_learns_from_its_audit_who_made_each_account(now: datetime) -> None:
    old = sqlite3.connect(":memory:")
    for script in ("0004_governance.sql", "0009_accountability.sql"):
        old.executescript((SCHEMA / script).read_text("utf-8"))
    rows = [
        ("claimer", "gateway.claim", "claimer", "{}"),
        ("claimer", "account.add", "wang", "{}"),
        ("sso", "account.add", "sso", '{"by": "oidc"}'),
        ("claimer", "account.add", "zhao", "{}"),
        ("wang", "account.change", "zhao", '{"fields": ["password"]}'),
        ("claimer", "account.change", "zhao", '{"fields": ["role"]}'),
    ]
    for actor, action, name, details in rows:
        old.execute("INSERT OR IGNORE INTO accounts (name, role, created_at) VALUES (?, 'admin', '')", (name,))
        old.execute(
            "INSERT INTO audit (at, actor, action, object, outcome, details, mac) VALUES ('', ?, ?, ?, 'ok', ?, x'00')",
            (actor, action, name, details),
        )
    old.executescript((SCHEMA / "0013_whose_accounts.sql").read_text("utf-8"))
    found = dict(old.execute("SELECT name, made_by FROM accounts").fetchall())
    assert found == {"claimer": "", "wang": "claimer", "sso": "", "zhao": "wang"}
