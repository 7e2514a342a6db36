"""Erased is erased: here, in the WAL, on devices, and said so under a signature."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from templates_store.errors import ConsentMissing, Duplicate, StoreError
from templates_store.records import ConsentState, Outcome, PlacementState, Receipt
from templates_store.store import TemplateStore
from templates_store.template import Modality, Purpose, SubjectId
from tests.canary import hits
from tests.templates_store.site import START, Site, consent, enrol, gallery, switch_on, template

ANNA = SubjectId("anna")


def outcomes(receipt: Receipt) -> dict[str, str]:
    return {each.name: each.outcome.value for each in receipt.locations}


def test_erasing_takes_templates_key_and_chunk_before_it_returns(store: TemplateStore) -> None:
    enrol(store, "anna", 2)
    kept = enrol(store, "ben")[0]
    store.pack(minimum=1)
    store.erase(ANNA, reason="left", actor="hr")
    assert list(gallery(store)) == [kept.template_id]
    assert store.templates_of(ANNA, purpose=Purpose.ATTENDANCE) == []
    sql = store.database.writer
    assert sql.execute("SELECT count(*) FROM dek WHERE subject_id = 'anna'").fetchone() == (0,)
    assert sql.execute("SELECT count(*) FROM chunk").fetchone() == (0,)
    assert store.pack(minimum=1) == 1
    assert list(gallery(store)) == [kept.template_id]
    assert store.check_integrity().ok


def test_no_byte_of_what_was_sealed_stays_in_any_file(site: Site, store: TemplateStore) -> None:
    for i in range(40):
        enrol(store, f"s{i}")
    store.pack(minimum=1)
    for i in range(5):
        enrol(store, f"late{i}")
    sql = store.database.writer
    rows = sql.execute("SELECT sealed FROM template WHERE subject_id IN ('s7', 'late3')")
    sealed = [row[0][13:] for row in rows]
    keys = [row[0][21:] for row in sql.execute("SELECT wrapped FROM dek WHERE subject_id IN ('s7', 'late3')")]
    chunk = [row[0][500:600] for row in sql.execute("SELECT sealed FROM chunk")]
    needles = [*sealed, *keys, *chunk]
    assert len(needles) == 5
    assert all(hits(each, site.folder) for each in needles)
    store.erase(SubjectId("s7"), reason="x", actor="y")
    store.erase(SubjectId("late3"), reason="x", actor="y")
    assert [hits(each, site.folder) for each in needles] == [[]] * 5


def test_withdrawing_one_purpose_keeps_the_other_under_a_new_key(store: TemplateStore) -> None:
    enrol(store, "anna")
    kept = enrol(store, "anna", purpose=Purpose.ACCESS)
    sql = store.database.writer
    store.pack(minimum=1)
    before = sql.execute("SELECT wrapped, (SELECT sealed FROM template WHERE purpose = 'access') FROM dek").fetchone()
    old = store.ledger.vault().unwrap(before[0], owner="anna")
    receipt = store.withdraw(ANNA, purpose=Purpose.ATTENDANCE, reason="withdrawn", actor="anna")
    after = sql.execute("SELECT wrapped, (SELECT sealed FROM template) FROM dek").fetchone()
    assert store.ledger.vault().unwrap(after[0], owner="anna") != old
    assert after[1] != before[1]
    assert store.templates_of(ANNA, purpose=Purpose.ATTENDANCE) == []
    assert store.templates_of(ANNA, purpose=Purpose.ACCESS) == kept
    assert (receipt.modality, receipt.purpose) == (None, Purpose.ATTENDANCE)
    assert {each.purpose: each.state for each in store.consents(ANNA)} == {
        Purpose.ATTENDANCE: ConsentState.WITHDRAWN,
        Purpose.ACCESS: ConsentState.VALID,
    }


def test_what_stays_is_sealed_anew_also_when_its_own_consent_is_stale_or_over(site: Site, store: TemplateStore) -> None:
    switch_on(store, *Modality)
    enrol(store, "anna")
    enrol(store, "anna", modality=Modality.IRIS)
    store.mark_stale(accepted_versions=[], modality=Modality.IRIS)
    site.clock.pass_by(days=366)
    store.erase(ANNA, modality=Modality.FACE, reason="expired", actor="retention")
    assert store.statistics().templates == {"iris": 1}


def test_after_withdrawal_nothing_enrols_without_a_new_consent(site: Site, store: TemplateStore) -> None:
    enrol(store, "anna")
    store.withdraw(ANNA, reason="withdrawn", actor="anna")
    sql = store.database.writer
    (old,) = sql.execute("SELECT consent_id FROM consent").fetchone()
    with pytest.raises(Exception, match="consent_missing"):
        sql.execute("UPDATE consent SET state = 'valid', ended_us = NULL WHERE consent_id = ?", (old,))
    site.clock.pass_by(days=1)
    enrol(store, "anna", 2)
    assert len(store.templates_of(ANNA, purpose=Purpose.ATTENDANCE)) == 2


@pytest.mark.parametrize("enrolled_before", [True, False])
@pytest.mark.parametrize(
    "scope", [{}, {"modality": Modality.FACE}, {"purpose": Purpose.ATTENDANCE}, {"modality": Modality.IRIS}]
)
def test_a_consent_given_before_a_withdrawal_begins_nothing_afterwards(
    site: Site, store: TemplateStore, enrolled_before: bool, scope: dict[str, Any]
) -> None:
    given = consent("anna")
    if enrolled_before:
        store.enrol(given, [template("anna")])
    site.clock.pass_by(seconds=20)
    store.withdraw(ANNA, reason="x", actor="anna", **scope)
    site.clock.pass_by(seconds=20)
    late = replace(given, evidence_sha256="cd" * 32)
    for begun in (lambda: store.enrol(late, [template("anna", 1)]), lambda: store.renew(late)):
        if scope.get("modality") is Modality.IRIS:  # somebody else's matter
            begun()
            continue
        with pytest.raises(ConsentMissing, match="a new consent"):
            begun()
        assert store.statistics().templates == {}
    store.renew(consent("anna", given_at=site.clock.now))


def test_a_clock_set_back_stops_no_new_consent_and_brings_no_old_one_back(site: Site, store: TemplateStore) -> None:
    site.clock.pass_by(days=1000)  # wrong, until somebody notices
    old = enrol(store, "anna")
    given = consent("anna", given_at=site.clock.now)
    site.clock.pass_by(minutes=1)
    store.withdraw(ANNA, reason="x", actor="anna")
    site.clock.now = given.given_at + timedelta(seconds=30)  # a small step: the withdrawal still came later
    with pytest.raises(ConsentMissing):
        store.renew(consent("anna", given_at=site.clock.now))
    site.clock.now = given.given_at - timedelta(minutes=4, seconds=30)
    with pytest.raises(ConsentMissing, match="a new consent"):
        store.enrol(given, old)
    site.clock.now = START
    store.renew(consent("anna"))


def test_a_receipt_lists_every_place_and_closes_when_the_last_is_clean(site: Site, store: TemplateStore) -> None:
    enrol(store, "anna")
    first = store.add_placement(ANNA, Modality.FACE, Purpose.ATTENDANCE, device_serial="ZK1", slot="1")
    second = store.add_placement(ANNA, Modality.FACE, Purpose.ATTENDANCE, device_serial="ZK1", slot="2")
    third = store.add_placement(ANNA, Modality.FACE, Purpose.ATTENDANCE, device_serial="ZK2")
    receipt = store.withdraw(ANNA, reason="withdrawn", actor="anna", elsewhere=["gallery"])
    assert outcomes(receipt) == {
        "templates.db": "gone",
        "templates.db-wal": "gone",
        "backups": "pending",
        "gallery": "pending",
        "device:ZK1": "pending",
        "device:ZK2": "pending",
    }
    seen = [receipt]

    def step(name: str) -> None:
        now = store.receipt(receipt.receipt_id)
        seen.append(now)
        assert outcomes(now)[name] == "gone"

    store.confirm_erased(receipt.receipt_id, "gallery")
    step("gallery")
    assert [each.placement_id for each in store.pending_erasures()] == [first, second, third]
    store.note_placement_failure(third, "offline")
    assert store.pending_erasures("ZK2")[0].last_error == "offline"
    assert store.pending_erasures("ZK2")[0].attempts == 1
    store.close_placement(first)
    assert outcomes(store.receipt(receipt.receipt_id))["device:ZK1"] == "pending"
    site.clock.pass_by(hours=1)
    store.close_placement(second)
    step("device:ZK1")
    store.rotate()
    step("backups")
    assert not store.receipt(receipt.receipt_id).closed
    assert store.receipts(only_open=True) != []
    store.close_placement(third)
    step("device:ZK2")
    store.close_placement(third)
    final = store.receipt(receipt.receipt_id)
    assert final.closed
    assert store.receipts(only_open=True) == []
    assert store.receipts(ANNA) == [final]
    assert [each.revision for each in seen] == sorted({each.revision for each in seen})
    assert all(each.verify(store.public_key) for each in seen)
    assert store.check_integrity().ok


def test_a_receipt_can_be_checked_with_other_means_and_not_be_changed(store: TemplateStore) -> None:
    enrol(store, "anna")
    receipt = store.erase(ANNA, reason="left", actor="hr")
    text = json.dumps(receipt.as_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    Ed25519PublicKey.from_public_bytes(store.public_key).verify(receipt.signature, text.encode())
    for changed in (
        replace(receipt, subject_id=SubjectId("ben")),
        replace(receipt, actor="somebody"),
        replace(receipt, revision=receipt.revision + 1),
        replace(receipt, locations=receipt.locations[1:]),
        replace(receipt, locations=tuple(replace(each, outcome=Outcome.GONE) for each in receipt.locations)),
        replace(receipt, tenant="rival"),
    ):
        assert not changed.verify(store.public_key)


def test_only_the_store_itself_says_that_its_own_places_are_clean(store: TemplateStore) -> None:
    receipt = store.erase(ANNA, reason="x", actor="y")
    for place in ("backups", "templates.db", "templates.db-wal", "device:ZK1"):
        with pytest.raises(ValueError, match="by the store itself"):
            store.confirm_erased(receipt.receipt_id, place)
    with pytest.raises(StoreError, match="no receipt"):
        store.confirm_erased("nothing", "gallery")


def test_a_reader_that_holds_the_wal_keeps_the_receipt_open_until_it_lets_go(store: TemplateStore) -> None:
    enrol(store, "anna")
    with store.database.read() as sql:
        sql.execute("SELECT count(*) FROM template").fetchone()
        receipt = store.erase(ANNA, reason="x", actor="y")
        assert outcomes(receipt)["templates.db-wal"] == "pending"
        assert not store.finish_erasures()
    assert store.finish_erasures()
    assert outcomes(store.receipt(receipt.receipt_id))["templates.db-wal"] == "gone"


def test_a_place_owed_an_erasure_takes_no_new_copy(site: Site, store: TemplateStore) -> None:
    enrol(store, "anna")
    place = {"device_serial": "ZK1", "slot": "1"}
    first = store.add_placement(ANNA, Modality.FACE, Purpose.ATTENDANCE, **place)
    assert store.add_placement(ANNA, Modality.FACE, Purpose.ATTENDANCE, **place) == first
    store.withdraw(ANNA, reason="x", actor="y")
    with pytest.raises(ConsentMissing):
        store.add_placement(ANNA, Modality.FACE, Purpose.ATTENDANCE, device_serial="ZK2")
    site.clock.pass_by(seconds=1)
    enrol(store, "anna", 3)
    with pytest.raises(Duplicate):
        store.add_placement(ANNA, Modality.FACE, Purpose.ATTENDANCE, **place)
    store.close_placement(first)
    second = store.add_placement(ANNA, Modality.FACE, Purpose.ATTENDANCE, **place)
    assert [(each.placement_id, each.state) for each in store.placements(ANNA)] == [(second, PlacementState.PLACED)]


def test_a_subject_nobody_knows_gets_a_receipt_too(store: TemplateStore) -> None:
    receipt = store.erase(SubjectId("nobody"), reason="asked", actor="dpo")
    assert receipt.verify(store.public_key)
    assert outcomes(receipt)["templates.db"] == "gone"


def test_erasing_goes_on_while_the_switch_is_off(store: TemplateStore) -> None:
    enrol(store, "anna")
    store.set_modality(Modality.FACE, enabled=False, actor="admin")
    store.erase(ANNA, reason="x", actor="y")
    assert store.statistics().templates == {}
    assert template("anna").template_id not in gallery(store)


def test_everybody_can_be_erased_at_once(site: Site, store: TemplateStore) -> None:
    for i in range(5):
        enrol(store, f"s{i}")
    store.pack(minimum=1)
    receipts = store.erase_all(reason="decommissioned", actor="admin")
    assert len(receipts) == 5
    assert all(each.closed and each.verify(store.public_key) for each in receipts)
    assert gallery(store) == {}
    assert store.statistics().subjects == 0
    assert store.check_integrity().ok


def test_evidence_is_forgotten_when_its_time_is_over_and_not_before(site: Site, store: TemplateStore) -> None:
    enrol(store, "ben")
    enrol(store, "anna")
    placed = store.add_placement(ANNA, Modality.FACE, Purpose.ATTENDANCE, device_serial="ZK1")
    receipt = store.withdraw(ANNA, reason="x", actor="y")
    store.close_placement(placed)
    site.clock.pass_by(days=1)
    assert store.forget(site.clock.now) == 2  # consent and copy; the receipt still waits for backups
    store.rotate()
    ended = site.clock.now
    assert store.forget(ended) == 0
    site.clock.pass_by(microseconds=1)
    assert store.forget(site.clock.now) == 1
    assert hits(receipt.receipt_id.encode(), site.folder) == []
    assert store.database.writer.execute("SELECT subject_id FROM subject").fetchall() == [("ben",)]
    assert store.check_integrity().ok
    assert len(gallery(store)) == 1
    store.close()
    with site.open() as again:
        assert not again.sealed
