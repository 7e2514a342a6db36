from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_drivers.adms.link import Hooks
from device_drivers.adms.server import AdmsServer
from device_drivers.devices import Capabilities, DeviceTemplate, DeviceUser, Feature, ItemResult
from device_drivers.simulated.adms import SimulatedAdms
from edge_agent.config import SiteConfig
from edge_agent.devices.device_templates import DeviceTemplates, index_of, position_of, purposes_of
from edge_agent.policy.requests import Verb
from templates_store.records import ConsentState, PlacementState
from templates_store.template import Consent, Modality, Purpose, SubjectId, Template
from tests.device_drivers.adms.site import Recorder, client, config, on_a_socket, running
from tests.flows.site import Site, Terminal, consent, site

ANN = SubjectId("ann")
ALGORITHM = "biodata-9-39.3-0"
FACE = DeviceTemplate("42", "face", 0, ALGORITHM, b"an opaque face")
ROW = (
    "BIODATA Pin=42\tNo=0\tIndex=0\tValid=1\tDuress=0\tType=9\tMajorVer=39\tMinorVer=3\tFormat=0"
    "\tTmp=YW4gb3BhcXVlIGZhY2U="
)


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as opened:
        await opened.add("ann", number="42")
        await opened.add("bob", number="43")
        yield opened


def templates_of(s: Site, **more: Any) -> DeviceTemplates:
    settings: dict[str, Any] = {
        "database": s.database,
        "store": s.store,
        "roster": s.roster,
        "audit": s.audit,
        "terms": lambda: s.terms,
        "sensor_on": lambda device, modality: (device, modality) not in s.switched_off,
        "device_of": {"A1": "gate", "B2": "yard"}.get,
        "purposes": lambda _: frozenset({Purpose.ATTENDANCE}),
        "now": s.clock.now,
    }
    return DeviceTemplates(**settings | more)


def agree(s: Site, modality: Modality = Modality.FACE, purpose: Purpose = Purpose.ATTENDANCE) -> None:
    s.store.renew(consent("ann", modality, purpose, now=s.clock.now()))


def withdraw_before_storing(s: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The person takes the consent back after it was looked up and before anything rests on it."""
    store = s.store.enrol

    def withdrawn(consent: Consent, templates: Sequence[Template]) -> None:
        s.store.withdraw(ANN, reason="x", actor="ann")
        s.galleries.remove(ANN)
        store(consent, templates)

    monkeypatch.setattr(s.store, "enrol", withdrawn)


def held(s: Site, purpose: Purpose = Purpose.ATTENDANCE) -> list[tuple[str, bytes]]:
    return [(t.format.pipeline, t.payload) for t in s.store.templates_of(ANN, purpose=purpose)]


async def push(server: AdmsServer, row: str = ROW) -> str:
    async with client(server) as http:
        answer = await http.post("/iclock/cdata?SN=A1&table=OPERLOG&OpStamp=1", content=row.encode() + b"\n")
    assert answer.status_code == 200
    return answer.text


async def test_a_pushed_template_is_sealed_with_its_place_when_switch_and_consent_hold(s: Site, tmp_path: Path) -> None:
    kept = templates_of(s)
    agree(s)
    agree(s, purpose=Purpose.ACCESS)
    server = AdmsServer(hooks=Hooks(template=kept.pushed))
    async with running(server.terminal(config()), Recorder()):
        assert await push(server) == "OK: 1"
        await push(server)  # again: terminals do
    for purpose in Purpose:
        assert held(s, purpose) == [(f"device:{ALGORITHM}", b"an opaque face")]
    assert {(p.device_serial, p.slot, p.state) for p in s.store.placements(ANN)} == {
        ("A1", "42/face/0", PlacementState.PLACED)
    }
    assert kept.dropped == {}
    assert s.galleries.count() == 0
    assert ("templates.stored", "ann") in await s.audited()
    assert all(b"an opaque face" not in path.read_bytes() for path in tmp_path.iterdir() if path.is_file())


@pytest.mark.parametrize(
    "why", ["no consent", "other modality", "device off", "enterprise off", "withdrawn", "stranger", "palm", "unknown"]
)
async def test_anything_else_is_dropped_and_counted(s: Site, why: str) -> None:
    kept = templates_of(s)
    template, serial, device = FACE, "A1", "gate"
    if why != "no consent":
        agree(s, Modality.FINGERPRINT if why == "other modality" else Modality.FACE)
    if why == "device off":
        s.switched_off.add(("gate", Modality.FACE))
    if why == "enterprise off":
        s.terms = replace(s.terms, switched_on=frozenset({Modality.FINGERPRINT}))
    if why == "withdrawn":
        await s.erasure.erase(ANN, Verb.WITHDRAW, actor="ann", reason="")
    if why == "stranger":
        template = replace(FACE, user_id="99")
    if why == "palm":
        template = replace(FACE, modality="palm")
    if why == "unknown":
        serial = device = "Z9"
    await kept.pushed(serial, [template, replace(template, index=1)])
    assert held(s) == []
    assert [p for p in s.store.placements(ANN) if p.state is PlacementState.PLACED] == []
    assert kept.dropped == {device: 2}
    await kept.audit_drops()
    assert [entry for entry in await s.audited() if entry[0] == "templates.dropped"] == [("templates.dropped", device)]
    assert kept.dropped == {}


def able(**limits: int) -> Capabilities:
    return Capabilities(frozenset({Feature.FACE_TEMPLATES}), face_algorithm=ALGORITHM, **limits)  # type: ignore[arg-type]


async def test_a_template_goes_to_terminals_of_the_same_algorithm_and_version_only(s: Site) -> None:
    kept, other = templates_of(s), Terminal("yard")
    agree(s)
    await kept.pushed("A1", [FACE])
    numbers = {"1042": ANN, "43": SubjectId("bob")}
    older = replace(able(), face_algorithm="biodata-9-38.0-0")
    assert await kept.lacking("yard", other, older, numbers, serial="B2") == ([], [])
    ([gift], refused) = await kept.lacking("yard", other, able(), numbers, serial="B2")
    assert refused == []
    assert (await kept.give("B2", other, gift)).ok
    assert other.fed == [replace(FACE, user_id="1042")]
    assert {p.device_serial: p.slot for p in s.store.placements(ANN)} == {"A1": "42/face/0", "B2": "1042/face/0"}
    assert await kept.lacking("yard", other, able(), numbers, serial="B2") == ([], [])
    other.fed.clear()  # it was reset
    assert len((await kept.lacking("yard", other, able(), numbers, serial="B2"))[0]) == 1


@pytest.mark.parametrize("agreed", [{Purpose.ATTENDANCE}, {Purpose.ACCESS}, set(Purpose)])
@pytest.mark.parametrize("used", [{Purpose.ATTENDANCE}, {Purpose.ACCESS}, set(Purpose), set()])
async def test_a_terminal_gets_templates_of_people_who_agreed_to_all_it_uses_them_for(
    s: Site, agreed: set[Purpose], used: set[Purpose]
) -> None:
    kept, other = templates_of(s, purposes=lambda _: frozenset(used)), Terminal("yard")
    for purpose in agreed:
        agree(s, purpose=purpose)
    await kept.pushed("A1", [FACE])
    gifts, _ = await kept.lacking("yard", other, able(), {"42": ANN}, serial="B2")
    assert bool(gifts) is bool(used and used <= agreed)
    for gift in gifts:
        assert (await kept.give("B2", other, gift)).ok
    placed = {each.purpose for each in s.store.placements(ANN) if each.device_serial == "B2"}
    assert placed == (used if gifts else set())


def test_a_terminal_at_a_door_is_used_for_access_and_one_whose_punches_count_for_attendance() -> None:
    site = SiteConfig.model_validate(
        {
            "devices": [
                {"name": "gate", "kind": "adms", "serial": "A1", "attendance": False},
                {"name": "clock", "kind": "adms", "serial": "A2"},
                {"name": "both", "kind": "adms", "serial": "A3"},
                {"name": "neither", "kind": "adms", "serial": "A4", "attendance": False},
            ],
            "access": {"doors": [{"name": "front", "device": "gate"}, {"name": "back", "device": "both"}]},
        }
    )
    found = {device.name: set(purposes_of(device.name, site)) for device in site.devices}
    assert found == {
        "gate": {Purpose.ACCESS},
        "clock": {Purpose.ATTENDANCE},
        "both": {Purpose.ACCESS, Purpose.ATTENDANCE},
        "neither": set(),
    }


async def test_a_full_terminal_and_a_refusal_are_named(s: Site) -> None:
    kept, other = templates_of(s), Terminal("yard")
    agree(s)
    await kept.pushed("A1", [FACE])
    gifts, refused = await kept.lacking("yard", other, able(max_face_templates=0), {"42": ANN}, serial="B2")
    assert (gifts, refused) == (
        [],
        [ItemResult("42/face/0", ok=False, reason="the device is full: it holds 0 templates")],
    )


async def test_after_a_withdrawal_nothing_is_given_and_what_waited_is_refused(s: Site) -> None:
    kept, other = templates_of(s), Terminal("yard")
    agree(s)
    await kept.pushed("A1", [FACE])
    ([gift], _) = await kept.lacking("yard", other, able(), {"42": ANN}, serial="B2")
    await s.erasure.erase(ANN, Verb.WITHDRAW, actor="ann", reason="")
    assert not (await kept.give("B2", other, gift)).ok
    assert other.fed == []
    assert await kept.lacking("yard", other, able(), {"42": ANN}, serial="B2") == ([], [])


async def test_a_copy_that_was_recalled_is_given_back_when_it_is_allowed_again(s: Site) -> None:
    kept, terminal = templates_of(s), Terminal("yard")
    s.terminals["B2"] = terminal
    agree(s, Modality.FINGERPRINT)
    finger = DeviceTemplate("42", "fingerprint", 6, "zk-finger-10", b"an opaque finger")
    await kept.pushed("A1", [finger])
    able = await terminal.capabilities()

    async def give() -> list[bool]:
        gifts, _ = await kept.lacking("yard", terminal, able, {"42": ANN}, serial="B2")
        return [(await kept.give("B2", terminal, gift)).ok for gift in gifts]

    await terminal.upsert_users([DeviceUser("42", card="1234")])
    assert await give() == [True]
    s.store.set_modality(Modality.FINGERPRINT, enabled=False, actor="li")
    assert s.store.recall(lambda _: True) == 2
    terminal.fed.clear()
    assert await s.erasure.retry() == 1
    assert terminal.stored == set()
    assert terminal.people["42"].card == "1234"
    s.store.set_modality(Modality.FINGERPRINT, enabled=True, actor="li")
    assert s.store.recall(lambda _: True) == 0
    assert await give() == [True]
    assert terminal.stored == {("42", "fingerprint")}


async def test_a_withdrawal_in_the_middle_of_a_push_stays_one(s: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = templates_of(s)
    agree(s)
    withdraw_before_storing(s, monkeypatch)
    await kept.pushed("A1", [FACE])
    assert (s.store.statistics().templates, kept.dropped) == ({}, {"gate": 1})
    assert [consent.state for consent in s.store.consents(ANN)] == [ConsentState.WITHDRAWN]
    assert [place.slot for place in s.store.pending_erasures("A1")] == ["42/face/0"]


async def test_a_withdrawal_reaches_a_push_terminal_when_it_returns_and_closes_the_receipt(s: Site) -> None:
    kept = templates_of(s)
    agree(s)
    server = AdmsServer(hooks=Hooks(template=kept.pushed))
    terminal = server.terminal(config())
    await kept.pushed("A1", [FACE])
    await s.erasure.erase(ANN, Verb.WITHDRAW, actor="ann", reason="", modality=Modality.FACE)
    assert [p.state for p in s.store.placements(ANN)] == [PlacementState.ERASING]
    await s.erasure.rekey()
    assert not s.store.receipts(ANN)[-1].closed
    async with on_a_socket(server) as url, running(terminal, Recorder()):
        simulated = SimulatedAdms(url, "A1", poll_s=0.02)
        simulated.enrol("42", "Ann", template=FACE.payload)
        simulated.enrol("43", "Bob", template=b"another")
        calling = asyncio.create_task(simulated.run())
        try:
            s.terminals["A1"] = terminal  # type: ignore[assignment]
            async with asyncio.timeout(20):
                await terminal.probe()
                assert await s.erasure.retry() == 1
        finally:
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
    assert [pin for pin, *_ in simulated.templates] == ["43"]
    assert s.store.receipts(ANN)[-1].closed


@pytest.mark.parametrize("index", range(16))
def test_places_of_fingers_come_back_as_they_were(index: int) -> None:
    assert index_of(position_of(index, Modality.FINGERPRINT), Modality.FINGERPRINT) == index
    assert position_of(index, Modality.FACE) == index


def test_the_right_thumb_is_finger_one_and_the_left_little_finger_ten() -> None:
    assert [position_of(index, Modality.FINGERPRINT) for index in range(10)] == [10, 9, 8, 7, 6, 1, 2, 3, 4, 5]


async def test_a_duress_finger_stays_one(s: Site) -> None:
    kept, other = templates_of(s), Terminal("yard")
    agree(s, Modality.FINGERPRINT)
    finger = DeviceTemplate("42", "fingerprint", 6, "zk-finger-10", b"an opaque finger", duress=True)
    await kept.pushed("A1", [finger])
    ([gift], _) = await kept.lacking("yard", other, await other.capabilities(), {"42": ANN}, serial="B2")
    assert gift.template == finger


async def test_a_sealed_store_keeps_and_gives_nothing(tmp_path: Path) -> None:
    async with site(tmp_path, unsealed=False) as s:
        await s.add("ann", number="42")
        kept = templates_of(s)
        await kept.pushed("A1", [FACE])
        assert kept.dropped == {"gate": 1}
        assert await kept.lacking("yard", Terminal("yard"), able(), {"42": ANN}, serial="B2") == ([], [])
