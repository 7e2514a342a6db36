"""SQL through the application's own connection cannot store a template that nobody agreed to."""

from __future__ import annotations

import sqlite3
from datetime import timedelta

import pytest

from templates_store.sqlite import to_us
from templates_store.store import TemplateStore
from templates_store.template import Modality, Purpose, SubjectId
from tests.templates_store.site import START, Site, consent, enrol, gallery, switch_on

TEMPLATE = (
    "INSERT INTO template (template_id, subject_id, modality, purpose, pipeline, dimension, position, consent_id,"
    " created_us, sealed) VALUES (?, ?, ?, ?, 'yunet+sface/1', 8, 0, ?, 1, zeroblob(61))"
)
CONSENT = (
    "INSERT INTO consent (subject_id, modality, purpose, notice_version, given_us, expires_us, evidence_sha256, state)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


def refused(store: TemplateStore, statement: str, values: tuple[object, ...] = ()) -> str:
    """The statement does not go through, and neither does its transaction; what SQLite said."""
    sql = store.database.writer
    before = list(sql.execute("SELECT count(*), (SELECT count(*) FROM chunk) FROM template"))
    sql.execute("BEGIN IMMEDIATE")
    try:
        sql.execute(statement, values)
        sql.execute("COMMIT")  # deferred foreign keys speak here
    except sqlite3.Error as exc:
        sql.execute("ROLLBACK")
        assert list(sql.execute("SELECT count(*), (SELECT count(*) FROM chunk) FROM template")) == before
        return str(exc)
    pytest.fail(f"went through: {statement}")


@pytest.fixture
def enrolled(store: TemplateStore) -> TemplateStore:
    enrol(store, "anna")
    return store


def consent_of(store: TemplateStore, subject: str) -> int:
    return store.consents(SubjectId(subject))[-1].consent_id


def test_a_fresh_store_has_every_modality_off(site: Site) -> None:
    with site.open() as store:
        assert [store.enabled(modality) for modality in Modality] == [False] * 4


def test_no_template_without_a_consent(enrolled: TemplateStore) -> None:
    assert "consent_missing" in refused(enrolled, TEMPLATE, ("x", "anna", "face", "attendance", 999))


@pytest.mark.parametrize(
    ("subject", "modality", "purpose"),
    [("ben", "face", "attendance"), ("anna", "face", "access"), ("anna", "iris", "attendance")],
)
def test_no_template_on_somebody_elses_or_another_consent(
    enrolled: TemplateStore, subject: str, modality: str, purpose: str
) -> None:
    switch_on(enrolled, *Modality)
    enrol(enrolled, "ben")
    values = ("x", subject, modality, purpose, consent_of(enrolled, "anna"))
    assert "consent_missing" in refused(enrolled, TEMPLATE, values)


def test_no_template_while_the_switch_is_off(enrolled: TemplateStore) -> None:
    enrolled.set_modality(Modality.FACE, enabled=False, actor="admin")
    values = ("x", "anna", "face", "attendance", consent_of(enrolled, "anna"))
    assert "consent_missing" in refused(enrolled, TEMPLATE, values)


def test_no_template_from_the_moment_a_consent_expires(site: Site, enrolled: TemplateStore) -> None:
    values = ("x", "anna", "face", "attendance", consent_of(enrolled, "anna"))
    site.clock.pass_by(days=365)
    assert "consent_missing" in refused(enrolled, TEMPLATE, values)
    site.clock.pass_by(microseconds=-1)
    enrolled.database.writer.execute(TEMPLATE, values)


@pytest.mark.parametrize("state", ["stale", "withdrawn", "ended", "superseded"])
def test_no_template_on_a_consent_that_is_not_valid(enrolled: TemplateStore, state: str) -> None:
    number = consent_of(enrolled, "anna")
    ended = None if state == "stale" else 1
    enrolled.database.writer.execute(
        "UPDATE consent SET state = ?, ended_us = ? WHERE consent_id = ?", (state, ended, number)
    )
    assert "consent_missing" in refused(enrolled, TEMPLATE, ("x", "anna", "face", "attendance", number))
    assert "consent_missing" in refused(
        enrolled, "UPDATE consent SET state = 'valid', ended_us = NULL WHERE consent_id = ?", (number,)
    )


@pytest.mark.parametrize(
    ("changed", "value"),
    [
        ("expires_us", to_us(START)),
        ("given_us", to_us(START + timedelta(minutes=6))),
        ("evidence_sha256", "ab"),
        ("evidence_sha256", "g" * 64),
        ("notice_version", ""),
        ("modality", "gait"),
        ("purpose", "mood"),
        ("state", "stale"),
    ],
)
def test_a_consent_row_is_complete_or_refused(store: TemplateStore, changed: str, value: object) -> None:
    columns = ("modality", "purpose", "notice_version", "given_us", "expires_us", "evidence_sha256", "state")
    good = dict(
        zip(
            columns,
            ("face", "attendance", "1", to_us(START), to_us(START) + 10**9, "ab" * 32, "valid"),
            strict=True,
        )
    )
    sql = store.database.writer
    sql.execute("INSERT INTO subject VALUES ('x', zeroblob(32))")
    refused(store, CONSENT, ("x", *{**good, changed: value}.values()))
    sql.execute(CONSENT, ("x", *good.values()))


def test_a_legal_basis_other_than_consent_needs_its_reference(store: TemplateStore) -> None:
    enrol(store, "anna")
    statement = (
        "INSERT INTO consent (subject_id, modality, purpose, notice_version, given_us, expires_us, evidence_sha256,"
        " legal_basis, state) VALUES ('anna', 'face', 'access', '1', ?, ?, ?, 'public_safety', 'valid')"
    )
    assert "CHECK" in refused(store, statement, (to_us(START), to_us(START) + 10**9, "ab" * 32))


@pytest.mark.parametrize("column", ["expires_us", "purpose", "modality", "evidence_sha256", "notice_version"])
def test_what_a_person_agreed_to_never_changes(enrolled: TemplateStore, column: str) -> None:
    value: object = to_us(START) + 10**15 if column == "expires_us" else "access"
    assert refused(enrolled, f"UPDATE consent SET {column} = ?", (value,))  # noqa: S608


@pytest.mark.parametrize("column", ["subject_id", "modality", "purpose", "pipeline", "dimension", "position"])
def test_a_template_never_becomes_another(enrolled: TemplateStore, column: str) -> None:
    assert refused(enrolled, f"UPDATE template SET {column} = '7'")  # noqa: S608


def test_a_template_cannot_be_exchanged_once_consent_is_taken_back(enrolled: TemplateStore) -> None:
    sql = enrolled.database.writer
    sql.execute("UPDATE consent SET state = 'withdrawn', ended_us = 1")
    assert "consent_missing" in refused(enrolled, "UPDATE template SET sealed = zeroblob(length(sealed))")


def test_replacing_asks_for_consent_too(enrolled: TemplateStore) -> None:
    enrolled.set_modality(Modality.FACE, enabled=False, actor="admin")
    values = ("anna/face/attendance/0", "anna", "face", "attendance", consent_of(enrolled, "anna"))
    assert "consent_missing" in refused(enrolled, TEMPLATE.replace("INSERT", "INSERT OR REPLACE"), values)
    assert "consent_missing" in refused(enrolled, TEMPLATE.replace("INSERT", "INSERT OR IGNORE"), values)


def test_a_chunk_is_no_back_door(enrolled: TemplateStore) -> None:
    (kek_id,) = enrolled.database.writer.execute("SELECT kek_id FROM kek").fetchone()
    chunk = "INSERT INTO chunk VALUES (5, 'face', ?, 'yunet+sface/1', 8, ?, ?, zeroblob(69), zeroblob(99))"
    assert "consent_missing" in refused(enrolled, chunk, ("attendance", 1, kek_id))
    enrolled.pack(minimum=1)
    (chunk_id,) = enrolled.database.writer.execute("SELECT chunk_id FROM chunk").fetchone()
    enrol(enrolled, "ben")
    assert "consent_missing" in refused(
        enrolled, "UPDATE template SET chunk_id = ? WHERE chunk_id IS NULL", (chunk_id,)
    )
    assert "consent_missing" in refused(enrolled, "UPDATE chunk SET sealed = zeroblob(99)")
    with_chunk = TEMPLATE.replace("sealed) VALUES", "sealed, chunk_id) VALUES").replace(
        "zeroblob(61))", "zeroblob(61), 5)"
    )
    values = ("x", "anna", "face", "attendance", consent_of(enrolled, "anna"))
    assert "consent_missing" in refused(enrolled, with_chunk, values)


def test_a_chunk_cannot_take_in_a_template_whose_consent_lapsed(enrolled: TemplateStore) -> None:
    enrolled.mark_stale(accepted_versions=[])
    (kek_id,) = enrolled.database.writer.execute("SELECT kek_id FROM kek").fetchone()
    enrolled.database.writer.execute("BEGIN")
    enrolled.database.writer.execute("UPDATE template SET chunk_id = 5")
    with pytest.raises(sqlite3.IntegrityError, match="consent_missing"):
        enrolled.database.writer.execute(
            "INSERT INTO chunk VALUES (5, 'face', 'attendance', 'yunet+sface/1', 8, 1, ?, zeroblob(69), zeroblob(99))",
            (kek_id,),
        )
    enrolled.database.writer.execute("ROLLBACK")


def test_no_copy_on_a_device_without_consent(enrolled: TemplateStore) -> None:
    placement = (
        "INSERT INTO placement (subject_id, modality, purpose, device_serial, placed_us, state)"
        " VALUES ('anna', 'face', ?, 'ZK1', 1, 'placed')"
    )
    assert "consent_missing" in refused(enrolled, placement, ("access",))
    enrolled.database.writer.execute(placement, ("attendance",))


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TRIGGER template_needs_consent",
        "DROP TABLE consent",
        "ALTER TABLE template RENAME TO old",
        "PRAGMA writable_schema = ON",
        "PRAGMA foreign_keys = OFF",
        "PRAGMA ignore_check_constraints = ON",
        "PRAGMA recursive_triggers = OFF",
        "PRAGMA secure_delete = OFF",
        "ATTACH ':memory:' AS other",
        "DELETE FROM sqlite_master",
        "CREATE TEMP TRIGGER t BEFORE INSERT ON template BEGIN SELECT RAISE(IGNORE); END",
    ],
)
def test_the_rules_cannot_be_switched_off(store: TemplateStore, statement: str) -> None:
    with pytest.raises(sqlite3.DatabaseError):
        store.database.writer.execute(statement)


def test_a_connection_that_is_not_the_applications_cannot_insert(site: Site, enrolled: TemplateStore) -> None:
    number = consent_of(enrolled, "anna")
    stranger = sqlite3.connect(site.path)
    try:
        with pytest.raises(sqlite3.OperationalError, match="now_us"):
            stranger.execute(TEMPLATE, ("x", "anna", "face", "attendance", number))
    finally:
        stranger.close()


def test_a_smuggled_row_is_neither_opened_nor_overlooked(enrolled: TemplateStore) -> None:
    values = ("smuggled", "anna", "face", "attendance", consent_of(enrolled, "anna"))
    enrolled.pack(minimum=1)
    enrolled.database.writer.execute("DELETE FROM template")
    assert gallery(enrolled) == {}
    assert not enrolled.check_integrity().ok
    enrolled.database.writer.execute(TEMPLATE, values)
    with pytest.raises(Exception, match="changed by somebody else"):
        enrolled.templates_of(SubjectId("anna"), purpose=Purpose.ATTENDANCE)


def test_a_consent_of_one_purpose_unlocks_no_other(enrolled: TemplateStore) -> None:
    agreed = consent("anna", purpose=Purpose.ACCESS)
    assert agreed.purpose is Purpose.ACCESS
    assert enrolled.templates_of(SubjectId("anna"), purpose=Purpose.ACCESS) == []
