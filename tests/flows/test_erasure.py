from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_drivers.devices import ItemResult
from device_drivers.events import Origin, Punch, VerifyMode
from edge_agent.agent import Agent
from edge_agent.attendance import Attendance, Source, recognised
from edge_agent.config import parse
from edge_agent.devices import copies
from edge_agent.enrolment import EnrolmentRefused
from edge_agent.erasure import EVENTS_DEADLINE
from edge_agent.people.roster import Taken
from edge_agent.policy.attempts import Attempts
from edge_agent.policy.consent import Act
from edge_agent.policy.requests import Verb
from edge_agent.policy.retention import Periods
from templates_store.backup import kek_id
from templates_store.errors import ConsentMissing, KeyUnavailable
from templates_store.keys.keyring import Keyring, key_file
from templates_store.keys.passphrase import passphrase
from templates_store.records import ConsentState
from templates_store.template import Modality, Purpose, SubjectId, Template, TemplateId
from tests.flows.agent_site import until
from tests.flows.site import FINGER_PIPELINE, LINK_GONE, PATIENCE_S, RULES, Site, Terminal, consent, minutiae_of, site

ANN, BOB = SubjectId("ann"), SubjectId("bob")


async def enrolled(s: Site) -> None:
    await s.add("ann", card="1111", number="42", pin="4711")
    s.enrol_face("ann", 7)
    s.enrol_finger("ann", 3)


def outcomes(s: Site, subject: SubjectId = ANN) -> dict[str, str]:
    return {place.name: place.outcome.value for place in s.store.receipts(subject)[-1].locations}


async def test_after_a_withdrawal_the_face_does_not_match_and_the_card_goes_on(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await enrolled(s)
        carried = await s.erasure.erase(ANN, Verb.WITHDRAW, actor="ann", reason="", modality=Modality.FACE)
        assert carried.receipt is not None
        assert carried.receipt.verify(s.store.public_key)
        s.camera.show(7, 7, 7)
        s.entry.look("gate")
        assert not (await s.passage()).granted
        await s.finger(3)  # another modality is another consent
        assert (await s.passage()).granted
        await s.card("1111")
        assert (await s.passage()).granted
        assert {c.modality: c.state for c in s.store.consents(ANN)} == {
            Modality.FACE: ConsentState.WITHDRAWN,
            Modality.FINGERPRINT: ConsentState.VALID,
        }


async def sampled(s: Site, *purposes: Purpose, given_at: datetime) -> str:
    """An enrolment that lacks nothing but its end."""
    acts = [Act(ANN, Modality.FACE, each, "n1", given_at, "cd" * 32, of_age=True) for each in purposes]
    step = await s.enrolment.start(acts, actor="li")
    while not step.ready:
        step = await s.enrolment.offer_frame(step.enrolment_id, np.full((48, 64, 3), 7, np.uint8))
    return step.enrolment_id


@pytest.mark.parametrize(
    ("verb", "scope"),
    [
        (Verb.WITHDRAW, {}),
        (Verb.WITHDRAW, {"modality": Modality.FACE}),
        (Verb.DELETE, {"purpose": Purpose.ATTENDANCE}),
        (Verb.LEAVE, {}),
    ],
)
async def test_an_order_ends_what_is_being_enrolled_and_only_a_new_consent_begins_again(
    tmp_path: Path, verb: Verb, scope: dict[str, Any]
) -> None:
    async with site(tmp_path) as s:
        await s.add("ann", card="1111")
        given = s.clock.now()
        begun = await sampled(s, Purpose.ACCESS, Purpose.ATTENDANCE, given_at=given)
        s.clock.move(seconds=20)
        carried = await s.erasure.erase(ANN, verb, actor="ann", reason="", **scope)
        assert carried.receipt is not None
        s.clock.move(seconds=20)
        with pytest.raises(EnrolmentRefused, match="no such enrolment"):
            await s.enrolment.finish(begun)
        await s.add("ann")
        again = await sampled(s, Purpose.ATTENDANCE, given_at=given)
        with pytest.raises(ConsentMissing, match="a new consent"):
            await s.enrolment.finish(again)
        assert (s.galleries.count(), s.store.statistics().templates, s.store.consents(ANN)) == (0, {}, [])
        await s.enrolment.finish(await sampled(s, Purpose.ATTENDANCE, given_at=s.clock.now()))
        assert s.galleries.count() == 1


async def test_an_order_in_another_scope_leaves_an_enrolment_alone(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        begun = await sampled(s, Purpose.ACCESS, given_at=s.clock.now())
        await s.erasure.erase(ANN, Verb.WITHDRAW, actor="ann", reason="", modality=Modality.FINGERPRINT)
        await s.erasure.erase(ANN, Verb.WITHDRAW, actor="ann", reason="", purpose=Purpose.ATTENDANCE)
        await s.erasure.erase(SubjectId("bob"), Verb.LEAVE, actor="li", reason="")
        await s.enrolment.finish(begun)
        assert s.galleries.count() == 1


class Queue:
    """A lock that says when somebody waits for it."""

    def __init__(self) -> None:
        self.lock, self.waiting = threading.Lock(), threading.Event()

    def __enter__(self) -> None:
        if not self.lock.acquire(blocking=False):
            self.waiting.set()
            self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


async def test_an_order_that_comes_while_an_enrolment_is_being_stored_leaves_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        ahead = s.clock.now() + timedelta(minutes=4)  # signed on a tablet whose clock runs ahead
        begun = await sampled(s, Purpose.ACCESS, given_at=ahead)
        store, loop, storing = s.store.enrol_many, asyncio.get_running_loop(), asyncio.Event()
        queue: Any = Queue()
        s.galleries.enrolling = queue

        def slow(people: Any) -> int:
            loop.call_soon_threadsafe(storing.set)
            queue.waiting.wait(PATIENCE_S)
            return store(people)

        s.store.enrol_many = slow  # type: ignore[method-assign]
        finishing = asyncio.create_task(s.enrolment.finish(begun))
        await storing.wait()
        erasing = asyncio.create_task(s.erasure.erase(ANN, Verb.WITHDRAW, actor="ann", reason=""))
        await asyncio.gather(finishing, erasing, return_exceptions=True)
        assert (s.galleries.count(), s.store.statistics().templates) == (0, {})
        assert [consent.state for consent in s.store.consents(ANN)] == [ConsentState.WITHDRAWN]


async def test_what_goes_upstream_does_not_say_that_somebody_withdrew(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await enrolled(s)
        await s.erasure.erase(ANN, Verb.WITHDRAW, actor="ann", reason="my wish")
        [told] = await s.events("subject.")
        assert told.event.type == "subject.erased"
        assert "withdr" not in str(told.event)
        assert "my wish" not in str(told.event.data)


async def test_an_offline_terminal_owes_the_erasure_until_it_returns(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await enrolled(s)
        s.store.add_placement(ANN, Modality.FINGERPRINT, Purpose.ACCESS, device_serial="ZK1", slot="42/6")
        await s.erasure.erase(ANN, Verb.DELETE, actor="li", reason="request")
        assert outcomes(s)["device:ZK1"] == "pending"
        terminal = s.terminals["ZK1"] = Terminal("zk-1")
        terminal.stored = {("42", "fingerprint"), ("43", "fingerprint")}
        terminal.fails = LINK_GONE
        assert await s.erasure.retry() == 0
        terminal.fails, terminal.refuses = None, "busy"
        assert await s.erasure.retry() == 0
        [owed] = s.store.pending_erasures()
        assert (owed.attempts, owed.last_error) == (2, "busy")
        terminal.refuses = ""
        assert await s.erasure.retry() == 1
        assert terminal.stored == {("43", "fingerprint")}
        assert outcomes(s)["device:ZK1"] == "gone"


class SilentTerminal(Terminal):
    """Answers a deletion once it is let."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.waits, self.answers = asyncio.Event(), asyncio.Event()
        self.deletions = 0

    async def delete_templates(self, user_id: str, *, modality: str | None = None) -> list[ItemResult]:
        self.deletions += 1
        self.waits.set()
        await self.answers.wait()
        return await super().delete_templates(user_id, modality=modality)


async def test_a_silent_terminal_keeps_neither_the_others_nor_the_person_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "PATIENCE_S", 0.0)
    async with site(tmp_path) as s:
        await enrolled(s)
        await s.add("bob", number="43")
        s.enrol_finger("bob", 4)
        silent, other = SilentTerminal("zk-1"), Terminal("zk-2")
        s.terminals |= {"ZK1": silent, "ZK2": other}
        for subject, user_id in ((ANN, "42"), (BOB, "43")):
            for terminal in (silent, other):
                slot = {"device_serial": terminal.config.name.replace("zk-", "ZK"), "slot": f"{user_id}/6"}
                s.store.add_placement(subject, Modality.FINGERPRINT, Purpose.ACCESS, **slot)
                terminal.stored.add((user_id, "fingerprint"))
        await s.erasure.erase(ANN, Verb.DELETE, actor="li", reason="request")
        await silent.waits.wait()
        await until(lambda: outcomes(s)["device:ZK2"] == "gone")
        await s.erasure.erase(BOB, Verb.DELETE, actor="li", reason="request")
        await until(lambda: outcomes(s, BOB)["device:ZK2"] == "gone")
        assert (outcomes(s)["device:ZK1"], outcomes(s, BOB)["device:ZK1"]) == ("pending", "pending")
        assert silent.deletions == 1  # one order at a time
        silent.answers.set()
        assert await s.erasure.retry() == 2  # what came meanwhile is not forgotten
        assert (silent.stored, silent.deletions) == (set(), 2)


async def test_a_terminal_that_comes_back_is_asked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "LOOK_S", 0.001)
    async with site(tmp_path) as s:
        await enrolled(s)
        s.store.add_placement(ANN, Modality.FINGERPRINT, Purpose.ACCESS, device_serial="ZK1", slot="42/6")
        await s.erasure.erase(ANN, Verb.DELETE, actor="li", reason="request")
        turned = asyncio.Event()

        async def wait(_: float) -> None:
            turned.set()
            await asyncio.Event().wait()

        working = asyncio.create_task(s.erasure.run(periods=lambda: Periods(template=365), wait=wait))
        try:
            await turned.wait()
            terminal = s.terminals["ZK1"] = SilentTerminal("zk-1")
            terminal.stored = {("42", "fingerprint")}
            async with asyncio.timeout(PATIENCE_S):
                await terminal.waits.wait()
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        assert outcomes(s)["device:ZK1"] == "pending"  # nobody is asked once it has ended


async def test_a_new_key_and_a_fresh_backup_close_the_receipt(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await enrolled(s)
        await s.erasure.erase(ANN, Verb.DELETE, actor="li", reason="request")
        assert outcomes(s)["backups"] == "pending"
        await s.erasure.rekey()
        assert len(s.backups) == 1
        assert set(outcomes(s).values()) == {"gone"}
        assert s.store.receipts(ANN)[-1].closed


async def test_a_late_punch_of_somebody_who_left_is_nobody_elses(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await enrolled(s)
        await s.erasure.erase(ANN, Verb.LEAVE, actor="li", reason="left")  # the terminals are away
        with pytest.raises(Taken, match="zk-1"):
            await s.add("bob", number="42")
        s.clock.move(hours=1)
        s.terminals |= {name: Terminal(name) for name in ("zk-1", "zk-2")}
        await s.erasure.retry()
        await s.add("bob", number="42")
        attendance = Attendance(s.database, s.roster, clock=s.clock.now, monotonic=s.clock.monotonic)
        attendance.configure([Source("zk-1", timezone="UTC")])
        now = s.clock.now().replace(tzinfo=None)
        for n, at in enumerate((now - timedelta(minutes=30), now)):
            heard = Punch("ZK1", "42", at, VerifyMode.FINGER, record_no=n, origin=Origin.BACKLOG)
            await attendance.recorder("zk-1")([heard])
        told = [each.event for each in await s.events("attendance.")]
        assert [event.subject for event in told] == [None, "bob"]
        assert await s.database.read(lambda c: [recognised(s.roster, c, event) for event in told]) == [None, None]


async def test_leaving_takes_name_card_pin_and_whereabouts_and_keeps_the_counts(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await enrolled(s)
        await s.card("1111")
        await s.passage()
        terminal = s.terminals["zk-1"] = Terminal("zk-1")
        await s.erasure.erase(ANN, Verb.LEAVE, actor="li", reason="left")
        assert await s.credentials.by_card("1111") is None
        assert await s.credentials.person(ANN) is None
        assert s.presence.whereabouts(ANN) is None
        assert outcomes(s)["users@zk-1"] == "gone"
        assert outcomes(s)["users@zk-2"] == "pending"
        assert terminal.people == {}
        before = len(await s.events())
        s.delivered = False
        assert await s.erasure.anonymise() == 0  # upstream still waits for them
        s.clock.move(seconds=EVENTS_DEADLINE.total_seconds())
        assert await s.erasure.anonymise() == 2
        after = await s.events()
        assert len(after) == before
        assert {e.event.subject for e in after} == {None}
        assert "ann" not in str([(e.event.data, e.event.subject) for e in after])
        raw = await s.database.read(lambda c: list(c.iterdump()))
        assert "1111" not in "\n".join(raw)


async def test_failures_and_their_alarm_leave_with_the_person(tmp_path: Path) -> None:
    rules = {**RULES, "doors": [{**RULES["doors"][0], "verify": [["pin"], ["card"]]}]}
    async with site(tmp_path, rules) as s:
        for subject in ("1_3", "123"):  # '_' stands for any letter where patterns are compared
            await s.add(subject, number=subject.replace("_", "0"), pin="4711")
            s.presence.set_attempts(f"person:{subject}/pin", Attempts(4, 49, s.clock.now() - timedelta(minutes=5)))
            await s.keys(f"{subject.replace('_', '0')}*0000")
            await s.passage()
        left = SubjectId("1_3")
        kept = await s.erasure.export(left, actor="ann")
        assert [row["place"] for row in kept["attempts"] + kept["alarms"]] == ["person:1_3/pin"] * 2
        await s.erasure.erase(left, Verb.LEAVE, actor="ann", reason="left")
        rows = await s.database.read(
            lambda c: c.execute(
                "SELECT place, NULL FROM attempts UNION ALL SELECT place, cleared_at IS NULL FROM alarms"
            ).fetchall()
        )
        assert sorted(rows, key=str) == [("person:/pin", 0), ("person:123/pin", 1), ("person:123/pin", None)]
    async with site(tmp_path, rules) as s:
        await s.add(left, number="203", pin="8888")  # the old number stays until devices deleted it
        await s.keys("203*8888")
        assert (await s.passage()).granted


async def test_delivered_events_are_made_anonymous_at_once(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await enrolled(s)
        await s.card("1111")
        await s.passage()
        await s.erasure.erase(ANN, Verb.CANCEL, actor="ann", reason="cancelled")
        assert await s.erasure.anonymise() == 2
        assert await s.erasure.anonymise() == 0


async def test_a_sealed_store_delays_the_erasure_and_nothing_matches_meanwhile(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await enrolled(s)
    async with site(tmp_path, unsealed=False) as s:
        carried = await s.erasure.erase(ANN, Verb.LEAVE, actor="li", reason="left")
        assert carried.receipt is None
        assert await s.credentials.by_card("1111") is None
        s.store.unseal(key_file(tmp_path / "kek"))
        s.galleries.load(s.store)
        assert await s.erasure.resume() == 1
        assert await s.erasure.resume() == 0
        assert s.galleries.count() == 0
        assert s.store.templates_of(ANN, purpose=Purpose.ACCESS) == []
        assert await s.credentials.person(ANN) is None


@pytest.mark.parametrize(
    ("days", "seen_days_ago", "reason"),
    [(364, None, None), (365, None, "expired"), (31, None, "retention"), (31, 29, None), (60, 30, "retention")],
)
async def test_consents_end_and_templates_go_when_their_time_is_over(
    tmp_path: Path, days: int, seen_days_ago: int | None, reason: str | None
) -> None:
    async with site(tmp_path) as s:
        await enrolled(s)
        if seen_days_ago is not None:
            s.clock.move(days=days - seen_days_ago)
            await s.card("1111")
            await s.passage()
            s.clock.move(days=seen_days_ago)
        else:
            s.clock.move(days=days)
        periods = Periods(template=30 if days < 100 else 365)
        carried = await s.erasure.expire(periods)
        assert {c.order.reason for c in carried} == ({reason} if reason else set())
        assert s.galleries.count() == (0 if reason else 2)


async def test_a_retention_period_of_today_counts_from_the_last_passage(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await enrolled(s)
        s.clock.move(days=30, seconds=-1)
        assert await s.erasure.expire(Periods(template=30)) == []
        s.clock.move(seconds=1)
        assert len(await s.erasure.expire(Periods(template=30))) == 2


async def test_the_right_of_access_gives_everything_about_one_person_only(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await enrolled(s)
        await s.add("bob", card="2222", number="43")
        s.enrol_face("bob", 8)
        for card in ("1111", "2222"):
            await s.card(card)
            await s.passage()
        export = await s.erasure.export(ANN, actor="ann")
        assert export["people"][0]["name"] == "Ann"
        assert [event["type"] for event in export["events"]] == ["access.granted"]
        assert len(export["biometrics"]["templates"]) == 2
        assert "bob" not in str(export).lower()
        assert ("subject.access", "ann") in await s.audited()
        subjects = await s.database.read(lambda c: _tables_with_a(c, "subject"))
        assert subjects <= set(export) | {"erasure_orders"}
        assert await s.database.read(lambda c: _tables_with_a(c, "place")) <= set(export)


def _tables_with_a(connection: sqlite3.Connection, name: str) -> set[str]:
    tables = [table for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        table
        for table in tables
        if any(column[1] == name for column in connection.execute(f"PRAGMA table_info({table})"))
    }


@pytest.mark.parametrize("verb", [Verb.ACCESS, Verb.CORRECT])
async def test_verbs_that_erase_nothing_are_refused(tmp_path: Path, verb: Verb) -> None:
    async with site(tmp_path) as s:
        with pytest.raises(ValueError, match="erases nothing"):
            await s.erasure.erase(ANN, verb, actor="li", reason="")
        with pytest.raises(ValueError, match="everything"):
            await s.erasure.erase(ANN, Verb.LEAVE, actor="li", reason="", modality=Modality.FACE)


async def test_somebody_without_templates_gets_a_receipt_too(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await s.add("ann")
        carried = await s.erasure.erase(ANN, Verb.DELETE, actor="li", reason="request")
        assert carried.receipt is not None
        assert timedelta(0) <= s.clock.now() - carried.receipt.requested_at < timedelta(seconds=1)


async def test_keeps_going_until_cancelled_and_does_each_duty(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await enrolled(s)
        await s.erasure.erase(ANN, Verb.DELETE, actor="li", reason="request")
        waited: list[float] = []

        async def wait(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) > 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            await s.erasure.run(periods=lambda: Periods(template=365), wait=wait)
        assert len(s.backups) == 1
        assert s.store.receipts(ANN)[-1].closed


class Stopped(Exception):
    """The agent was told to stop."""


async def go_on(s: Site, *, waits: int = 3) -> None:
    """Let erasure work until it has waited so often."""
    waited = iter(range(waits))

    async def wait(seconds: float) -> None:
        if next(waited, None) is None:
            raise Stopped
        s.clock.move(seconds=seconds)

    with contextlib.suppress(Stopped):
        await s.erasure.run(periods=lambda: Periods(template=365), wait=wait)


async def test_a_restart_right_after_an_erasure_still_leads_to_a_new_key_and_a_fresh_backup(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await enrolled(s)
        s.store.backup(tmp_path / "old.backup")
        await s.erasure.erase(ANN, Verb.DELETE, actor="ann", reason="")
        assert kek_id(tmp_path / "old.backup") in set(key_file(tmp_path / "kek").keys())
    async with site(tmp_path) as s:
        await go_on(s)
        assert outcomes(s)["backups"] == "gone"
        assert len(s.backups) == 1
        assert kek_id(tmp_path / "old.backup") not in set(key_file(tmp_path / "kek").keys())


async def test_an_unsealing_after_the_start_leads_to_the_new_key_that_is_owed(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await enrolled(s)
        await s.erasure.erase(ANN, Verb.DELETE, actor="ann", reason="")
    async with site(tmp_path, unsealed=False) as s:
        await go_on(s)
        assert outcomes(s)["backups"] == "pending"
        s.store.unseal(key_file(tmp_path / "kek"))
        await go_on(s)
        assert outcomes(s)["backups"] == "gone"


class Faulty(Keyring):
    """A key provider that refuses new keys for a while."""

    refuses = True

    def __init__(self, base: Path) -> None:
        good = key_file(base)
        super().__init__(good._path, name=good.name, root=good._root)

    def create(self, kek_id: str, key: bytes) -> None:
        if self.refuses:
            raise KeyUnavailable("the TPM does not answer")
        super().create(kek_id, key)


async def test_a_key_provider_that_fails_delays_the_new_key_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with site(tmp_path, unsealed=False) as s:
        keys = Faulty(tmp_path / "kek")
        keys.refuses = False
        s.store.unseal(keys)
        s.store.set_modality(Modality.FACE, enabled=True, actor="li")
        s.galleries.load(s.store)
        s.enrol_face("ann", 7)
        await s.erasure.erase(ANN, Verb.DELETE, actor="ann", reason="")
        keys.refuses = True
        await go_on(s, waits=8)
        assert outcomes(s)["backups"] == "pending"
        assert [r.levelname for r in caplog.records if r.message.startswith("rekey_fails")] == ["WARNING"]
        keys.refuses = False
        await go_on(s)
        assert outcomes(s)["backups"] == "gone"
        assert len(s.backups) == 1
        assert len(keys.keys()) == 1


async def test_a_backup_for_which_the_disk_has_no_room_is_made_later(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await enrolled(s)
        await s.erasure.erase(ANN, Verb.DELETE, actor="ann", reason="")
        s.disk_full = True
        await go_on(s)
        assert s.backups == []
        s.disk_full = False
        await go_on(s)
        assert len(s.backups) == 1


async def test_nothing_owed_changes_no_key(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await enrolled(s)
        before = key_file(tmp_path / "kek").keys()
        await go_on(s)
        assert key_file(tmp_path / "kek").keys() == before


async def test_a_withdrawal_ordered_while_sealed_is_carried_out_before_the_galleries_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.biometrics.in_use.passphrase", partial(passphrase, memory_kib=1024))
    words = "correct horse battery staple"
    document = {
        "gateway": {"name": "gw", "tenant": "t1", "data_dir": str(tmp_path), "ballast_mb": 1},
        "keys": {"provider": "passphrase"},
        "site": {
            "privacy": {"notice_version": "n1", "impact_assessment": "pia-1"},
            "retention": {"templates_days": 365},
            "modalities": {"fingerprint": {"enabled": True}},
        },
    }
    agent = await Agent.open(parse(document, source="test"))
    await agent.biometrics.unseal(words)
    for person, subject in ((3, "ann"), (4, "bob")):
        template = Template(
            TemplateId(subject),
            SubjectId(subject),
            Modality.FINGERPRINT,
            Purpose.ACCESS,
            FINGER_PIPELINE,
            minutiae_of(person).encode(),
            2,
        )
        agent.biometrics.store.enrol(consent(subject, Modality.FINGERPRINT, Purpose.ACCESS), [template])
    await agent.close()
    agent = await Agent.open(parse(document, source="test"))
    assert (await agent.erasure.erase(ANN, Verb.WITHDRAW, actor="ann", reason="")).receipt is None
    await agent.biometrics.unseal(words)
    assert {given.subject_id for given in agent.biometrics.galleries.consents()} == {"bob"}
    assert agent.biometrics.galleries.count() == 1
    assert [c.state for c in agent.biometrics.store.consents(ANN)] == [ConsentState.WITHDRAWN]
    await agent.close()


async def test_an_order_taken_up_twice_gives_one_receipt(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        await enrolled(s)
    async with site(tmp_path, unsealed=False) as s:
        await s.erasure.erase(ANN, Verb.LEAVE, actor="li", reason="left")
        s.store.unseal(key_file(tmp_path / "kek"))
        await asyncio.gather(s.erasure.resume(), s.erasure.resume())
        assert len(s.store.receipts(ANN)) == 1


async def test_the_standing_archive_is_written_anew_when_the_key_in_force_does_not_open_it(tmp_path: Path) -> None:
    document = {"gateway": {"name": "gw", "tenant": "t1", "data_dir": str(tmp_path), "ballast_mb": 1}}
    agent = await Agent.open(parse(document, source="test"))
    await agent.refresh_backup()
    assert not (tmp_path / "backup").exists()  # nobody wanted one
    archive = await agent.make_backup()
    first = archive.read_bytes()
    await agent.refresh_backup()
    assert archive.read_bytes() == first
    agent.biometrics.store.rotate()
    await agent.refresh_backup()
    assert kek_id(archive) == agent.biometrics.kek()
    archive.write_bytes(first[:40])
    await agent.refresh_backup()
    assert kek_id(archive) == agent.biometrics.kek()
    await agent.close()
