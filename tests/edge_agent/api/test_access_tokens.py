from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

import pytest

from edge_agent.api import access_tokens, accounts
from edge_agent.policy.roles import Role, Scope

DAY = timedelta(days=1)


def issue(connection: sqlite3.Connection, now: datetime, name: str = "ci", lifetime: timedelta = DAY) -> str:
    return access_tokens.issue(
        connection, name, scopes=[Scope.EVENTS_READ], lifetime=lifetime, created_by=access_tokens.MACHINE, now=now
    )


def test_a_token_is_found_with_its_scopes(connection: sqlite3.Connection, now: datetime) -> None:
    found = access_tokens.find(connection, issue(connection, now), now=now)
    assert found is not None
    assert found.scopes == {Scope.EVENTS_READ}


def test_the_token_itself_is_not_stored(connection: sqlite3.Connection, now: datetime) -> None:
    token = issue(connection, now)
    dump = "\n".join(connection.iterdump())
    assert token not in dump
    assert token.removeprefix("eat_") not in dump


def test_a_token_ends_at_its_time_and_not_before(connection: sqlite3.Connection, now: datetime) -> None:
    token = issue(connection, now)
    assert access_tokens.find(connection, token, now=now + DAY - timedelta(microseconds=1))
    assert access_tokens.find(connection, token, now=now + DAY) is None


def test_a_revoked_token_is_refused_and_its_name_stays_taken(connection: sqlite3.Connection, now: datetime) -> None:
    token = issue(connection, now)
    assert access_tokens.revoke(connection, "ci", now=now)
    assert access_tokens.find(connection, token, now=now) is None
    assert not access_tokens.revoke(connection, "ci", now=now)
    with pytest.raises(ValueError, match="taken"):
        issue(connection, now)


def test_a_token_does_no_more_than_its_maker_may_do_now(connection: sqlite3.Connection, now: datetime) -> None:
    accounts.add(connection, "boss", role=Role.ADMIN, password_hash=None, now=now)
    accounts.add(connection, "lin", role=Role.ADMIN, password_hash=None, now=now)
    scopes = [Scope.ACCOUNTS_WRITE, Scope.STATUS_READ]
    own, by_it = (
        access_tokens.issue(connection, name, scopes=scopes, lifetime=DAY, created_by=by, now=now)
        for name, by in (("own", "lin"), ("second", "token:own"))
    )

    def held() -> list[set[Scope] | None]:
        both = [access_tokens.find(connection, token, now=now) for token in (own, by_it)]
        return [set(found.scopes) if found else None for found in both]

    assert held() == [set(scopes)] * 2
    accounts.set_role(connection, "lin", Role.OPERATOR)
    assert held() == [{Scope.STATUS_READ}] * 2
    accounts.set_disabled(connection, "lin", disabled=True)
    assert held() == [None, None]
    accounts.set_disabled(connection, "lin", disabled=False)
    assert held() == [{Scope.STATUS_READ}] * 2
    nobodys = access_tokens.issue(connection, "old", scopes=scopes, lifetime=DAY, created_by="gone", now=now)
    assert access_tokens.find(connection, nobodys, now=now) is None


@pytest.mark.parametrize("lifetime", [timedelta(0), -DAY, 367 * DAY])
def test_a_lifetime_out_of_bounds_is_refused(
    connection: sqlite3.Connection, now: datetime, lifetime: timedelta
) -> None:
    with pytest.raises(ValueError, match="allowed"):
        issue(connection, now, lifetime=lifetime)


def test_the_one_time_token_works_once(connection: sqlite3.Connection, now: datetime) -> None:
    token = access_tokens.bootstrap(connection, now=now)
    assert token is not None
    assert not access_tokens.claim(connection, "0000", now=now)
    assert access_tokens.claim(connection, f" {token.lower()} ", now=now)
    assert not access_tokens.claim(connection, token, now=now)


def test_a_new_one_time_token_replaces_the_old(connection: sqlite3.Connection, now: datetime) -> None:
    first = access_tokens.bootstrap(connection, now=now)
    second = access_tokens.bootstrap(connection, now=now)
    assert first
    assert second
    assert not access_tokens.claim(connection, first, now=now)
    assert access_tokens.claim(connection, second, now=now)


def test_no_one_time_token_once_somebody_has_an_account(connection: sqlite3.Connection, now: datetime) -> None:
    token = access_tokens.bootstrap(connection, now=now)
    assert token
    accounts.add(connection, "lin", role=Role.ADMIN, password_hash=None, now=now)
    assert access_tokens.bootstrap(connection, now=now) is None
    assert not access_tokens.claim(connection, token, now=now)
