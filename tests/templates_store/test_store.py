"""Enrolling, opening, switching, renewing."""

from __future__ import annotations

import base64
import logging
import threading
from dataclasses import replace

import numpy as np
import pytest

from templates_store.errors import BadTemplate, ConsentMissing, Duplicate, Sealed
from templates_store.keys.keyring import key_file
from templates_store.records import ConsentState
from templates_store.store import TemplateStore
from templates_store.template import Modality, Purpose, SubjectId, Template, TemplateFormat, TemplateId
from templates_store.validation import MAX_PAYLOAD
from tests.templates_store.site import FACE, Site, consent, enrol, gallery, switch_on, template, vector

ANNA, BEN = SubjectId("anna"), SubjectId("ben")


def test_gives_back_what_was_enrolled_also_after_a_restart(site: Site) -> None:
    with site.open() as store:
        switch_on(store)
        given = enrol(store, "anna", 3)
    with site.open() as store:
        assert store.templates_of(ANNA, purpose=Purpose.ATTENDANCE) == given
        assert store.templates_of(ANNA, purpose=Purpose.ATTENDANCE, modality=Modality.IRIS) == []
        assert store.templates_of(BEN, purpose=Purpose.ATTENDANCE) == []


def test_all_four_modalities_have_a_switch_of_their_own(store: TemplateStore) -> None:
    for modality in (Modality.FINGERPRINT, Modality.VOICE, Modality.IRIS):
        with pytest.raises(ConsentMissing):
            enrol(store, "anna", modality=modality)
        switch_on(store, modality)
        enrol(store, "anna", modality=modality)
    assert store.statistics().templates == {"fingerprint": 1, "voice": 1, "iris": 1}


def test_a_switch_can_be_for_one_purpose(store: TemplateStore) -> None:
    store.set_modality(Modality.FACE, purpose=Purpose.ACCESS, enabled=False, actor="admin")
    assert store.enabled(Modality.FACE)
    assert not store.enabled(Modality.FACE, Purpose.ACCESS)
    with pytest.raises(ConsentMissing):
        enrol(store, "anna", purpose=Purpose.ACCESS)


def test_a_template_for_attendance_is_not_there_for_doors(store: TemplateStore) -> None:
    enrol(store, "anna")
    assert store.templates_of(ANNA, purpose=Purpose.ACCESS) == []
    assert gallery(store, purpose=Purpose.ACCESS) == {}


def test_switching_off_stops_opening_and_loading_at_once(store: TemplateStore) -> None:
    given = enrol(store, "anna")
    store.set_modality(Modality.FACE, enabled=False, actor="admin")
    assert store.templates_of(ANNA, purpose=Purpose.ATTENDANCE) == []
    assert gallery(store) == {}
    switch_on(store)
    assert store.templates_of(ANNA, purpose=Purpose.ATTENDANCE) == given


def broken(**changes: object) -> Template:
    return replace(template("anna"), **changes)  # type: ignore[arg-type]


NOT_A_NUMBER = np.array([1, np.nan] + [0] * 6, "<f4").tobytes()
INFINITE = np.array([np.inf] + [0] * 7, "<f4").tobytes()


@pytest.mark.parametrize(
    "bad",
    [
        broken(payload=vector(1, 7)),
        broken(payload=vector(1) + b"\0"),
        broken(payload=NOT_A_NUMBER),
        broken(payload=INFINITE),
        broken(payload=bytes(32)),
        broken(payload=np.full(8, 3e38, "<f4").tobytes()),
        broken(payload=b""),
        broken(payload=bytes(MAX_PAYLOAD + 1), format=TemplateFormat("device:x")),
        broken(format=TemplateFormat("whatever", 8)),
        broken(format=TemplateFormat("Sface/1", 8)),
        broken(format=TemplateFormat("", 8)),
        broken(format=TemplateFormat("a/" + "1" * 200, 8)),
        broken(format=TemplateFormat("yunet+sface/1", -8)),
        broken(format=TemplateFormat("yunet+sface/1", 5000), payload=vector(1, 5000)),
        broken(position=-1),
        broken(position=70000),
        broken(template_id=TemplateId("")),
        broken(template_id=TemplateId("x" * 129)),
        broken(template_id=TemplateId("a\nb")),
    ],
)
def test_a_bad_template_is_refused_and_nothing_is_written(
    store: TemplateStore, bad: Template, caplog: pytest.LogCaptureFixture
) -> None:
    version = store.statistics().version
    with caplog.at_level(logging.DEBUG), pytest.raises(BadTemplate) as refused:
        store.enrol(consent("anna"), [template("anna", 5), bad])
    assert store.statistics().version == version
    assert store.consents(ANNA) == []
    assert bad.payload.hex() not in str(refused.value) + caplog.text or not bad.payload


@pytest.mark.parametrize("subject", ["", "a b", "x" * 129, "tab\t", "line\n"])
def test_a_bad_subject_id_is_refused(store: TemplateStore, subject: str) -> None:
    with pytest.raises(BadTemplate):
        store.enrol(consent(subject), [template(subject)])


def test_one_dimension_per_pipeline(store: TemplateStore) -> None:
    enrol(store, "anna")
    other = replace(template("ben"), format=replace(FACE, dimension=4), payload=vector(1, 4))
    with pytest.raises(BadTemplate, match="8 dimensions"):
        store.enrol(consent("ben"), [other])


def test_a_template_id_is_used_once(store: TemplateStore) -> None:
    enrol(store, "anna")
    with pytest.raises(Duplicate):
        store.enrol(consent("anna"), [template("anna", 7), template("anna", 0)])
    with pytest.raises(Duplicate):
        store.enrol(consent("ben"), [replace(template("anna"), subject_id=BEN)])
    assert len(store.templates_of(ANNA, purpose=Purpose.ATTENDANCE)) == 1


def test_an_enrolment_has_templates_but_not_without_end(store: TemplateStore) -> None:
    for count in (0, 65):
        with pytest.raises(BadTemplate):
            store.enrol(consent("anna"), [template("anna", i) for i in range(count)])


def test_the_consent_must_cover_each_template(store: TemplateStore) -> None:
    for other in (
        template("ben"),
        template("anna", purpose=Purpose.ACCESS),
        template("anna", modality=Modality.IRIS),
    ):
        with pytest.raises(ConsentMissing):
            store.enrol(consent("anna"), [other])


def test_an_expired_consent_enrols_nobody(site: Site, store: TemplateStore) -> None:
    enrol(store, "anna")
    site.clock.pass_by(days=400)
    with pytest.raises(ConsentMissing):
        store.enrol(consent("anna"), [template("anna", 1)])
    with pytest.raises(ConsentMissing):
        store.enrol(consent("ben"), [template("ben")])


def test_sealed_it_tells_what_it_may_and_does_nothing_else(site: Site) -> None:
    with site.open() as store:
        switch_on(store)
        enrol(store, "anna")
    with site.open_sealed() as store:
        assert store.sealed
        assert store.enabled(Modality.FACE)
        assert store.statistics().templates == {"face": 1}
        assert store.consents(ANNA)[0].state is ConsentState.VALID
        for forbidden in (
            lambda: enrol(store, "ben"),
            lambda: store.templates_of(ANNA, purpose=Purpose.ATTENDANCE),
            lambda: store.load(Modality.FACE, Purpose.ATTENDANCE, FACE.pipeline),
            lambda: store.erase(ANNA, reason="x", actor="y"),
            lambda: store.export(ANNA),
            store.rotate,
            store.check_integrity,
        ):
            with pytest.raises(Sealed, match="keys unseal"):
                forbidden()
        store.unseal(site.keys())
        assert not store.sealed
        assert len(gallery(store)) == 1


def test_a_wrong_key_leaves_it_sealed_with_words_for_the_operator(site: Site) -> None:
    with site.open() as store:
        switch_on(store)
    other = key_file(site.folder / "other" / "kek")
    other.create("00" * 8, bytes(32))
    with site.open(keys=other) as store:
        assert store.sealed
        assert "attach the right key" in store.seal_reason
    (kek_id,) = site.keys().keys()
    other.create(kek_id, bytes(32))
    with site.open(keys=other) as store:
        assert store.sealed
        assert "does not fit this store" in store.seal_reason
    with site.open() as store:
        assert not store.sealed
        assert store.seal_reason == ""


def test_changed_terms_make_consents_stale_and_renewal_brings_templates_back(site: Site, store: TemplateStore) -> None:
    given = enrol(store, "anna")
    enrol(store, "ben", purpose=Purpose.ACCESS)
    store.pack(minimum=1)
    assert store.mark_stale(accepted_versions=["2026-1"]) == []
    assert store.mark_stale(accepted_versions=["2026-2"], purpose=Purpose.ATTENDANCE) == [ANNA]
    assert store.templates_of(ANNA, purpose=Purpose.ATTENDANCE) == []
    assert gallery(store) == {}
    assert len(gallery(store, purpose=Purpose.ACCESS)) == 1
    assert store.statistics().stale_consents == 1
    site.clock.pass_by(days=1)
    store.renew(consent("anna", notice="2026-2", given_at=site.clock.now))
    assert store.templates_of(ANNA, purpose=Purpose.ATTENDANCE) == given
    assert list(gallery(store)) == [given[0].template_id]
    assert [each.state for each in store.consents(ANNA)] == [ConsentState.SUPERSEDED, ConsentState.VALID]
    assert store.check_integrity().ok


def test_a_chunk_hands_out_only_those_of_its_members_who_still_agree(site: Site, store: TemplateStore) -> None:
    enrol(store, "anna")
    enrol(store, "ben")
    store.enrol(consent("carl", notice="old"), [template("carl")])
    store.enrol(consent("dora", days=10), [template("dora")])
    assert store.pack(minimum=4) == 4
    store.mark_stale(accepted_versions=["2026-1"])
    site.clock.pass_by(days=10)
    assert sorted(gallery(store)) == ["anna/face/attendance/0", "ben/face/attendance/0"]
    assert [gallery(store)[each] for each in sorted(gallery(store))] == [template(n).payload for n in ("anna", "ben")]


def test_enrolling_again_renews_the_consent_for_what_is_there(site: Site, store: TemplateStore) -> None:
    enrol(store, "anna")
    site.clock.pass_by(days=300)
    store.enrol(consent("anna", given_at=site.clock.now), [template("anna", 1)])
    site.clock.pass_by(days=300)
    assert len(store.templates_of(ANNA, purpose=Purpose.ATTENDANCE)) == 2


def test_consents_are_due_at_the_very_moment_they_end(site: Site, store: TemplateStore) -> None:
    enrol(store, "anna")
    end = store.consents(ANNA)[0].expires_at
    site.clock.now = end
    site.clock.pass_by(microseconds=-1)
    assert store.expired(site.clock.now) == []
    assert len(gallery(store)) == 1
    site.clock.now = end
    assert [each.subject_id for each in store.expired(site.clock.now)] == [ANNA]
    assert gallery(store) == {}
    store.erase(ANNA, reason="expired", actor="retention")
    assert store.expired(site.clock.now) == []
    assert store.consents(ANNA)[0].state is ConsentState.ENDED


def test_loads_chunks_and_journal_as_one(store: TemplateStore) -> None:
    given = {each.template_id: each.payload for i in range(10) for each in enrol(store, f"s{i}", 2)}
    assert store.pack(minimum=6, members=6) == 18
    assert store.pack(minimum=6, members=6) == 0
    assert (store.statistics().chunks, store.statistics().journal) == (3, 2)
    for i in range(10, 13):
        given |= {each.template_id: each.payload for each in enrol(store, f"s{i}")}
    assert gallery(store) == given
    chunk = next(store.load(Modality.FACE, Purpose.ATTENDANCE, FACE.pipeline))
    assert chunk.vectors is not None
    assert chunk.vectors.shape == (6, 8)
    assert chunk.vectors.dtype == np.float32
    assert [f"{s}/face/attendance/{p}" for s, p in zip(chunk.subject_ids, chunk.positions, strict=True)] == list(
        chunk.template_ids
    )


def test_opaque_templates_of_terminals_load_as_bytes(store: TemplateStore) -> None:
    switch_on(store, Modality.FINGERPRINT)
    given = {
        each.template_id: each.payload
        for i in range(5)
        for each in enrol(store, f"s{i}", i + 1, modality=Modality.FINGERPRINT)
    }
    store.pack(minimum=4, members=10)
    assert gallery(store, Modality.FINGERPRINT) == given


def test_templates_that_move_into_a_chunk_while_loading_are_handed_out_once(store: TemplateStore) -> None:
    given = {each.template_id for i in range(30) for each in enrol(store, f"s{i}")}
    store.pack(minimum=1, members=10)
    enrol(store, "late")
    seen = []
    for chunk in store.load(Modality.FACE, Purpose.ATTENDANCE, FACE.pipeline):
        if not seen:
            store.erase(SubjectId("s29"), reason="x", actor="y")  # its chunk falls back into the journal
            store.pack(minimum=1, members=50)  # and all of that into a new chunk
        seen += chunk.template_ids
    assert len(seen) == len(set(seen))
    assert given - {"s29/face/attendance/0"} <= set(seen)


def test_readers_see_whole_enrolments_while_one_writes(store: TemplateStore) -> None:
    enrol(store, "anna", 2)
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            chunk_of = gallery(store)
            people = {template_id.split("/")[0] for template_id in chunk_of}
            if len(chunk_of) != 2 * len(people) or len(store.templates_of(ANNA, purpose=Purpose.ATTENDANCE)) != 2:
                wrong.append(sorted(chunk_of))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for i in range(15):
        enrol(store, f"s{i}", 2)
        if i % 5 == 4:
            store.rotate()
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_nothing_printable_shows_a_template(store: TemplateStore) -> None:
    given = enrol(store, "anna")[0]
    chunk = next(store.load(Modality.FACE, Purpose.ATTENDANCE, FACE.pipeline))
    vault = store.ledger.vault()
    shown = repr((given, chunk, vault, store))
    values = np.frombuffer(given.payload, "<f4")
    assert str(values[0])[:6] not in shown
    assert not any(secret.hex() in shown or repr(secret) in shown for secret in (given.payload, vault.root))


def test_exports_one_subject_completely_and_nobody_else(store: TemplateStore) -> None:
    given = enrol(store, "anna", 2)
    enrol(store, "ben")
    store.add_placement(ANNA, Modality.FACE, Purpose.ATTENDANCE, device_serial="ZK1", slot="7")
    store.set_modality(Modality.FACE, enabled=False, actor="admin")  # her data stay hers
    told = store.export(ANNA)
    assert "ben" not in str(told)
    rows = {
        table: store.database.writer.execute(f"SELECT count(*) FROM {table} WHERE subject_id = 'anna'").fetchone()[0]  # noqa: S608
        for table in ("template", "consent", "placement", "receipt")
    }
    assert {name: len(told[name + "s"]) for name in rows} == rows  # type: ignore[arg-type]

    templates = told["templates"]
    assert isinstance(templates, list)
    assert [base64.b64decode(each["payload_base64"]) for each in templates] == [each.payload for each in given]


def test_one_tenants_file_is_not_anothers(site: Site) -> None:
    site.open().close()
    with pytest.raises(ValueError, match="another tenant"):
        Site(site.folder, tenant="rival").open()


def test_the_same_person_enrolled_anew_rests_as_different_bytes(site: Site, store: TemplateStore) -> None:
    enrol(store, "anna")
    (first,) = store.database.writer.execute("SELECT sealed FROM template").fetchone()
    store.erase(ANNA, reason="again", actor="x")
    site.clock.pass_by(seconds=1)
    enrol(store, "anna")
    (second,) = store.database.writer.execute("SELECT sealed FROM template").fetchone()
    alike = sum(a == b for a, b in zip(first[13:], second[13:], strict=True))
    assert alike < 12  # of 48; chance is 0.2
