"""The chain against everything a person with the database file could try."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_agent.audit import Anchor, AuditLog, Entry

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
KEY = b"k" * 32


@pytest.fixture
def connection() -> sqlite3.Connection:
    schema = Path(__file__).resolve().parents[2] / "edge_agent" / "schema" / "0004_governance.sql"
    connection = sqlite3.connect(":memory:")
    connection.executescript(schema.read_text("utf-8"))
    return connection


def filled(connection: sqlite3.Connection, rows: int = 5) -> tuple[AuditLog, Anchor]:
    log = AuditLog(KEY)
    anchor = None
    for n in range(rows):
        entry = Entry(
            actor="lin",
            action="person.read",
            object=f"s{n}",
            personal={"name": f"人员 {n}"},
            subject=f"s{n}",
            details={"n": n},
        )
        anchor = log.append(connection, entry, now=NOW + timedelta(seconds=n))
    assert anchor is not None
    return log, anchor


def test_an_untouched_chain_verifies(connection: sqlite3.Connection) -> None:
    log, anchor = filled(connection)
    verdict = log.verify(connection, [anchor])
    assert verdict.intact
    assert verdict.rows == 5


@pytest.mark.parametrize("column", ["at", "actor", "action", "object", "outcome", "details", "personal"])
def test_an_edit_of_any_field_is_found(connection: sqlite3.Connection, column: str) -> None:
    log, anchor = filled(connection)
    connection.execute(f"UPDATE audit SET {column} = {column} || 'x' WHERE seq = 3")  # noqa: S608 - fixed names
    verdict = log.verify(connection, [anchor])
    assert not verdict.intact
    assert verdict.at_seq == 3


def test_a_removed_row_is_found(connection: sqlite3.Connection) -> None:
    log, _ = filled(connection)
    connection.execute("DELETE FROM audit WHERE seq = 2")
    assert log.verify(connection).at_seq == 2


def test_a_renumbered_insertion_is_found(connection: sqlite3.Connection) -> None:
    log, _ = filled(connection)
    connection.execute("UPDATE audit SET seq = seq + 100 WHERE seq > 2")
    connection.execute("UPDATE audit SET seq = seq - 99 WHERE seq > 100")
    connection.execute("INSERT INTO audit SELECT 3, at, actor, action, object, outcome, details, NULL, NULL, NULL,"
                       " NULL, mac FROM audit WHERE seq = 2")  # fmt: skip
    assert log.verify(connection).at_seq == 3


def test_two_rows_that_changed_places_are_found(connection: sqlite3.Connection) -> None:
    log, _ = filled(connection)
    connection.execute("UPDATE audit SET seq = 99 WHERE seq = 2")
    connection.execute("UPDATE audit SET seq = 2 WHERE seq = 3")
    connection.execute("UPDATE audit SET seq = 3 WHERE seq = 99")
    assert log.verify(connection).at_seq == 2


def test_a_cut_tail_is_found_by_its_anchor(connection: sqlite3.Connection) -> None:
    log, anchor = filled(connection)
    connection.execute("DELETE FROM audit WHERE seq > 3")
    assert log.verify(connection).intact  # the chain alone cannot know
    assert "cut" in log.verify(connection, [anchor]).fault


def test_another_file_with_a_valid_chain_is_found_by_the_anchor(connection: sqlite3.Connection) -> None:
    log, anchor = filled(connection)
    connection.execute("DELETE FROM audit")
    filled(connection)  # same key, same acts, other salts: a different chain
    assert "exchanged" in log.verify(connection, [anchor]).fault


def test_a_chain_under_another_key_is_refused(connection: sqlite3.Connection) -> None:
    filled(connection)
    assert AuditLog(b"x" * 32).verify(connection).at_seq == 1


def test_erasing_a_person_leaves_the_chain_valid(connection: sqlite3.Connection) -> None:
    log, anchor = filled(connection)
    assert log.erase_subject(connection, "s2") == 1
    assert log.verify(connection, [anchor]).intact
    left = connection.execute("SELECT count(*) FROM audit WHERE personal LIKE '%人员 2%' OR subject = 's2'").fetchone()
    assert left == (0,)
