"""Anything an enterprise may do, in any order, against a model that is nothing but dictionaries."""

from __future__ import annotations

import copy
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from templates_store.anchor import FileAnchor
from templates_store.backup import restore
from templates_store.errors import ConsentMissing, KeyUnavailable
from templates_store.template import Modality, Purpose, SubjectId
from tests.templates_store.site import Site, consent, gallery, switch_on, template

SUBJECTS = st.sampled_from(["anna", "ben", "carl"])
MODALITIES = st.sampled_from([Modality.FACE, Modality.IRIS])
PURPOSES = st.sampled_from(list(Purpose))
NOTICES = st.sampled_from(["2026-1", "2026-2"])
TERM = timedelta(days=10)
Key = tuple[str, Modality, Purpose]


@dataclass
class Model:
    templates: dict[str, tuple[Key, bytes]] = field(default_factory=dict)
    consents: dict[Key, tuple[bool, datetime, str]] = field(default_factory=dict)  # not stale; until; on which notice
    enabled: set[Modality] = field(default_factory=set)

    def visible(self, modality: Modality, purpose: Purpose, now: datetime) -> dict[str, bytes]:
        return {
            template_id: payload
            for template_id, (key, payload) in self.templates.items()
            if key[1:] == (modality, purpose)
            and modality in self.enabled
            and self.consents[key][0]
            and now < self.consents[key][1]
        }

    def erase(self, subject: str, modality: Modality | None, purpose: Purpose | None) -> None:
        def hit(key: Key) -> bool:
            return key[0] == subject and modality in {None, key[1]} and purpose in {None, key[2]}

        self.templates = {name: kept for name, kept in self.templates.items() if not hit(kept[0])}
        self.consents = {key: kept for key, kept in self.consents.items() if not hit(key)}


class Enterprise(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.site = Site(self.folder)
        self.store = self.site.open()
        self.model = Model()
        self.kept: Model | None = None
        self.rotated_since = False
        self.erased_since: list[tuple[str, Modality | None, Purpose | None]] = []
        self.number = 0
        switch_on(self.store, Modality.FACE)
        self.model.enabled.add(Modality.FACE)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)

    @property
    def now(self) -> datetime:
        return self.site.clock.now

    @rule(subject=SUBJECTS, modality=MODALITIES, purpose=PURPOSES, notice=NOTICES, count=st.integers(1, 3))
    def enrol(self, subject: str, modality: Modality, purpose: Purpose, notice: str, count: int) -> None:
        self.site.clock.pass_by(seconds=1)
        given = []
        for _ in range(count):
            self.number += 1
            given.append(template(subject, self.number, modality=modality, purpose=purpose))
        agreed = consent(subject, modality=modality, purpose=purpose, notice=notice, given_at=self.now, days=TERM.days)
        if modality not in self.model.enabled:
            with pytest.raises(ConsentMissing):
                self.store.enrol(agreed, given)
            return
        self.store.enrol(agreed, given)
        key = (subject, modality, purpose)
        self.model.consents[key] = (True, self.now + TERM, notice)
        self.model.templates |= {each.template_id: (key, each.payload) for each in given}

    @rule(subject=SUBJECTS, modality=MODALITIES, purpose=PURPOSES, notice=NOTICES)
    def renew(self, subject: str, modality: Modality, purpose: Purpose, notice: str) -> None:
        self.site.clock.pass_by(seconds=1)
        self.store.renew(
            consent(subject, modality=modality, purpose=purpose, notice=notice, given_at=self.now, days=TERM.days)
        )
        self.model.consents[subject, modality, purpose] = (True, self.now + TERM, notice)

    @rule(accepted=st.sets(NOTICES))
    def change_the_terms(self, accepted: set[str]) -> None:
        self.store.mark_stale(accepted_versions=accepted)
        self.model.consents = {
            key: (valid and notice in accepted, until, notice)
            for key, (valid, until, notice) in self.model.consents.items()
        }

    @rule(modality=MODALITIES, on=st.booleans())
    def switch(self, modality: Modality, on: bool) -> None:
        self.store.set_modality(modality, enabled=on, actor="admin")
        (self.model.enabled.add if on else self.model.enabled.discard)(modality)

    @rule(subject=SUBJECTS, modality=st.none() | MODALITIES, purpose=st.none() | PURPOSES, withdrawn=st.booleans())
    def erase(self, subject: str, modality: Modality | None, purpose: Purpose | None, withdrawn: bool) -> None:
        act = self.store.withdraw if withdrawn else self.store.erase
        receipt = act(SubjectId(subject), modality=modality, purpose=purpose, reason="x", actor="y")
        assert receipt.verify(self.store.public_key)
        self.model.erase(subject, modality, purpose)
        self.erased_since.append((subject, modality, purpose))

    @rule(days=st.integers(1, 11))
    def time_passes_and_what_expired_is_erased(self, days: int) -> None:
        self.site.clock.pass_by(days=days)
        due = {(each.subject_id, each.modality, each.purpose) for each in self.store.expired(self.now)}
        assert due == {key for key, (_, until, _) in self.model.consents.items() if until <= self.now}
        for subject, modality, purpose in due:
            self.store.erase(subject, modality=modality, purpose=purpose, reason="expired", actor="retention")
            self.model.erase(subject, modality, purpose)
            self.erased_since.append((subject, modality, purpose))

    @rule()
    def pack(self) -> None:
        self.store.pack(minimum=2, members=4)

    @rule()
    def rotate(self) -> None:
        self.store.rotate()
        self.rotated_since = True
        assert all(each.outcome == "gone" for receipt in self.store.receipts() for each in receipt.locations)

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = self.site.open()

    @rule()
    def back_up(self) -> None:
        self.store.backup(self.folder / "backup")
        self.kept = copy.deepcopy(self.model)
        self.rotated_since = False
        self.erased_since = []

    @precondition(lambda self: self.kept is not None)
    @rule()
    def bring_back(self) -> None:
        assert self.kept is not None
        self.store.close()
        try:
            restore(
                self.folder / "backup",
                self.site.path.parent,
                tenant=self.site.tenant,
                keys=self.site.keys(),
                anchor=FileAnchor(self.site.anchor),
                now=self.site.clock,
            )
        except KeyUnavailable:
            assert self.rotated_since
        else:
            assert not self.rotated_since
            self.model = copy.deepcopy(self.kept)
            for each in self.erased_since:
                self.model.erase(*each)
        self.store = self.site.open()

    @invariant()
    def galleries_hold_what_the_model_says(self) -> None:
        if not hasattr(self, "store"):
            return
        for modality in (Modality.FACE, Modality.IRIS):
            for purpose in Purpose:
                assert gallery(self.store, modality, purpose) == self.model.visible(modality, purpose, self.now)

    @invariant()
    def everything_is_whole(self) -> None:
        if hasattr(self, "store"):
            assert self.store.check_integrity().faults == ()


TestEnterprise = Enterprise.TestCase
TestEnterprise.settings = settings(
    max_examples=10, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
)
