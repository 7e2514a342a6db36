"""Names apart, cards as keyed hashes, PINs as Argon2id, imports row by row."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from argon2 import PasswordHasher

from edge_agent.database import SCHEMA, utc_text
from edge_agent.people.roster import Person, Roster, RowError, Taken, new_subject, read_csv

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

S1_IS_LEAVING = """
    INSERT INTO erasure_orders (id, subject, kind, reason, actor, ordered_at) VALUES ('o', 's1', 'leave', '', '', '');
    INSERT INTO device_removals (device, user_id, erasure) VALUES ('yard', '7', 'o');
"""


@pytest.fixture
def roster() -> Roster:
    return Roster(b"k" * 32, hasher=QUICK)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("PRAGMA foreign_keys=ON")
    for script in sorted(SCHEMA.glob("*.sql")):
        connection.executescript(script.read_text("utf-8"))
    yield connection
    connection.close()


def test_a_person_comes_back_whole(roster: Roster, connection: sqlite3.Connection) -> None:
    person = Person("s1", "林小雨", "装配", valid_from=NOW)
    assert roster.put(connection, person, now=NOW)
    roster.link(connection, "s1", "7")
    roster.link(connection, "s1", "1007", device="yard")
    roster.add_card(connection, "s1", "0012345678", now=NOW)
    roster.set_pin(connection, "s1", roster.hash_pin("4711"), now=NOW)
    found = roster.person(connection, "s1")
    assert found == Person("s1", "林小雨", "装配", NOW, None, (("", "7"), ("yard", "1007")), ("5678",), True)
    assert "林" not in repr(found)
    assert not roster.put(connection, Person("s1", "林雨"), now=NOW)


def test_a_device_with_its_own_numbers_goes_first(roster: Roster, connection: sqlite3.Connection) -> None:
    for subject, device in (("s1", ""), ("s2", "yard")):
        roster.put(connection, Person(subject, "x"), now=NOW)
        roster.link(connection, subject, "7", device=device)
    assert roster.subject_of(connection, device="gate", user_id="7") == "s1"
    assert roster.subject_of(connection, device="yard", user_id="7") == "s2"
    assert roster.subject_of(connection, device="yard", user_id="8") is None
    assert roster.unlink(connection, "7", device="yard")
    assert roster.subject_of(connection, device="yard", user_id="7") == "s1"


@pytest.mark.parametrize("shown", ["0012abCD", "12ABCD", " 0012abcd "])
def test_a_card_is_known_however_a_reader_writes_it(roster: Roster, connection: sqlite3.Connection, shown: str) -> None:
    roster.put(connection, Person("s1", "x"), now=NOW)
    roster.add_card(connection, "s1", "12abcd", now=NOW)
    assert roster.subject_of(connection, card=shown) == "s1"
    assert roster.remove_card(connection, shown)
    assert roster.subject_of(connection, card=shown) is None


def test_card_numbers_and_pins_rest_nowhere(roster: Roster, connection: sqlite3.Connection) -> None:
    roster.put(connection, Person("s1", "x"), now=NOW)
    roster.add_card(connection, "s1", "99887766", now=NOW)
    roster.set_pin(connection, "s1", roster.hash_pin("471147"), now=NOW)
    dump = "\n".join(connection.iterdump())
    assert "99887766" not in dump
    assert "471147" not in dump
    assert Roster(b"another key, 32 bytes long......").card_digest("99887766") != roster.card_digest("99887766")


def test_a_card_or_number_belongs_to_one_person(roster: Roster, connection: sqlite3.Connection) -> None:
    for subject in ("s1", "s2"):
        roster.put(connection, Person(subject, "x"), now=NOW)
    roster.link(connection, "s1", "7")
    roster.link(connection, "s1", "7")
    roster.add_card(connection, "s1", "123", now=NOW)
    with pytest.raises(Taken):
        roster.link(connection, "s2", "7")
    with pytest.raises(Taken):
        roster.add_card(connection, "s2", "00123", now=NOW)


def test_a_number_is_free_once_the_devices_deleted_its_earlier_holder(
    roster: Roster, connection: sqlite3.Connection
) -> None:
    connection.executescript(S1_IS_LEAVING)
    roster.put(connection, Person("s2", "x"), now=NOW)
    for device in ("", "yard"):
        with pytest.raises(Taken, match="yard still has to delete its earlier holder"):
            roster.link(connection, "s2", "7", device=device)
    roster.link(connection, "s2", "7", device="gate")
    roster.link(connection, "s2", "8")
    connection.execute("UPDATE device_removals SET done_at = ?", (utc_text(NOW),))
    roster.link(connection, "s2", "7")

    def holder(device: str, at: datetime) -> str | None:
        return roster.subject_of(connection, device=device, user_id="7", at=at)

    assert holder("yard", NOW - timedelta(hours=1)) is None  # the earlier holder's, told late
    assert holder("gate", NOW - timedelta(hours=1)) == "s2"
    assert holder("yard", NOW) == "s2"


def test_until_a_leaver_is_gone_everything_of_theirs_stays_theirs(
    roster: Roster, connection: sqlite3.Connection
) -> None:
    roster.put(connection, Person("s1", "x"), now=NOW)
    roster.link(connection, "s1", "7")
    connection.executescript(S1_IS_LEAVING)
    assert roster.subject_of(connection, device="yard", user_id="7", at=NOW) == "s1"


def test_removing_a_person_removes_everything_of_theirs(roster: Roster, connection: sqlite3.Connection) -> None:
    roster.put(connection, Person("s1", "x"), now=NOW)
    roster.link(connection, "s1", "7")
    roster.add_card(connection, "s1", "123", now=NOW)
    roster.set_pin(connection, "s1", roster.hash_pin("4711"), now=NOW)
    assert roster.remove(connection, "s1")
    for table in ("people", "device_users", "cards", "pins"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)  # noqa: S608
    assert not roster.remove(connection, "s1")


def test_pins_are_verified_and_a_missing_one_never_is(roster: Roster, connection: sqlite3.Connection) -> None:
    roster.put(connection, Person("s1", "x"), now=NOW)
    roster.set_pin(connection, "s1", roster.hash_pin("4711"), now=NOW)
    kept = roster.pin_hash(connection, "s1")
    assert kept is not None
    assert kept.startswith("$argon2id$")
    assert roster.verify_pin(kept, "4711")
    assert not roster.verify_pin(kept, "4712")
    assert not roster.verify_pin(None, "4711")
    assert not roster.verify_pin("not a hash", "4711")
    with pytest.raises(ValueError):
        roster.hash_pin("12")


def test_people_are_listed_by_page_and_found_by_name_or_number(roster: Roster, connection: sqlite3.Connection) -> None:
    for n, name in enumerate(["林小雨", "王强", "Anna Lin"]):
        roster.put(connection, Person(f"s{n}", name, "仓库" if n == 1 else ""), now=NOW)
        roster.link(connection, f"s{n}", str(100 + n))
    assert [p.subject for p in roster.people(connection, limit=2)] == ["s0", "s1"]
    assert [p.subject for p in roster.people(connection, after="s1")] == ["s2"]
    assert [p.subject for p in roster.people(connection, search="lin")] == ["s2"]
    assert [p.subject for p in roster.people(connection, search="仓")] == ["s1"]
    assert [p.subject for p in roster.people(connection, search="100")] == ["s0"]
    assert roster.people(connection, search="%") == []
    assert roster.names(connection, ["s1", "nobody"]) == {"s1": "王强"}
    assert roster.count(connection) == 3


# Imports

CSV = """\ufeffname,department,user_id,card,pin
林小雨,装配,1001,0012345678,4711
王强,仓库,1002,,
,仓库,1003,,
李雷,仓库,1004,not-a-card,
韩梅梅,仓库,1005,12345678,
赵六,仓库,1006,,12
"""


def test_a_file_is_taken_row_by_row(roster: Roster, connection: sqlite3.Connection) -> None:
    done = roster.take(connection, read_csv(CSV), now=NOW, first_line=2)
    assert (done.added, done.changed) == (2, 0)
    assert [(error.line, error.column) for error in done.errors] == [(4, "name"), (5, "card"), (6, "card"), (7, "pin")]
    assert all(isinstance(error, RowError) and error.reason for error in done.errors)
    assert {p.name for p in roster.people(connection)} == {"林小雨", "王强"}


def test_the_same_file_again_changes_and_adds_nobody(roster: Roster, connection: sqlite3.Connection) -> None:
    roster.take(connection, read_csv(CSV), now=NOW)
    before = [p.subject for p in roster.people(connection)]
    done = roster.take(connection, read_csv(CSV.replace("装配", "质检")), now=NOW)
    assert (done.added, done.changed) == (0, 2)
    assert [p.subject for p in roster.people(connection)] == before
    assert {p.department for p in roster.people(connection)} == {"质检", "仓库"}


def test_pins_hashed_beforehand_are_used(roster: Roster, connection: sqlite3.Connection) -> None:
    ready = roster.hash_pin("4711")
    rows = [{"name": "x", "subject": "s1", "pin": "4711"}]
    roster.take(connection, rows, now=NOW, pin_hashes={"4711": ready})
    assert roster.pin_hash(connection, "s1") == ready.hash


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_are_read(delimiter: str) -> None:
    assert read_csv(CSV.replace(",", delimiter))[1]["department"] == "仓库"


@pytest.mark.parametrize("text", ["", "surname\nx\n", "name,salary\nx,1\n"])
def test_a_heading_without_the_right_columns_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="first line"):
        read_csv(text)


def test_a_row_with_more_cells_than_the_heading_is_refused() -> None:
    [shifted] = read_csv("name,user_id\nSmith, John,5\n")
    assert shifted["!"].startswith("user_id: more cells than the 2 columns")
    [padded] = read_csv("name\nx,,\n")  # as spreadsheets write
    assert "!" not in padded


@pytest.mark.parametrize("subject", ["", "../x", "a b", "-x", "x" * 65, "s'; DROP TABLE people"])
def test_a_subject_is_a_plain_word(roster: Roster, connection: sqlite3.Connection, subject: str) -> None:
    with pytest.raises(ValueError):
        roster.put(connection, Person(subject, "x"), now=NOW)


def test_new_subjects_say_nothing() -> None:
    assert len({new_subject() for _ in range(100)}) == 100


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError):
        Roster(b"short")
