from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from device_drivers.adms.link import Hooks
from device_drivers.adms.messages import PushedPhoto
from device_drivers.adms.server import AdmsServer
from edge_agent.devices.pushed_pictures import PushedPictures
from edge_agent.policy.requests import Verb
from templates_store.records import ConsentState, PlacementState
from templates_store.template import Modality, Purpose, SubjectId
from tests.device_drivers.adms.site import Recorder, client, config, running
from tests.edge_agent.devices.test_device_templates import agree, templates_of, withdraw_before_storing
from tests.flows.site import FACE_PIPELINE, Site, face_vector, site

ANN = SubjectId("ann")


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as opened:
        await opened.add("ann", number="42")
        await opened.add("bob", number="43")
        yield opened


def pictures_of(s: Site) -> PushedPictures:
    return PushedPictures(
        templates=templates_of(s),
        store=s.store,
        galleries=s.galleries,
        identification=s.sensing.identification,
        sensor_on=lambda device, modality: (device, modality) not in s.switched_off,
        device_of={"A1": "gate"}.get,
    )


def picture(person: int) -> bytes:
    """A picture that the doubles' engine sees this person in; without loss, so the number survives."""
    return bytes(cv2.imencode(".png", np.full((64, 64, 3), person, np.uint8))[1])


def photo(person: int = 7, kind: str = "biophoto", name: str = "42") -> PushedPhoto:
    return PushedPhoto("A1", kind, name, picture(person))


def held(s: Site, purpose: Purpose = Purpose.ATTENDANCE) -> list[bytes]:
    return [t.payload for t in s.store.templates_of(ANN, purpose=purpose)]


async def test_a_picture_becomes_a_template_under_the_persons_consent_and_is_gone(s: Site, tmp_path: Path) -> None:
    pictures = pictures_of(s)
    agree(s)
    server = AdmsServer(hooks=Hooks(photo=pictures.pushed, wants_photo=pictures.wanted))
    terminal = server.terminal(config())
    line = b"BIOPHOTO PIN=42\tFileName=42.jpg\tType=9\tContent=" + base64.b64encode(picture(7)) + b"\n"
    async with running(terminal, Recorder()), client(server) as http:
        for _ in range(2):  # terminals push the same picture again and again
            assert (await http.post("/iclock/cdata?SN=A1&table=BIOPHOTO", content=line)).text == "OK: 1"
    assert (terminal.counters["photos_captured"], terminal.counters["photos_dropped"]) == (1, 1)
    assert held(s) == [face_vector(7).astype("<f4").tobytes()]
    assert held(s, Purpose.ACCESS) == []  # agreed for the clock, not for doors
    assert s.galleries.count(Modality.FACE, Purpose.ATTENDANCE, FACE_PIPELINE.pipeline) == 1
    assert ("templates.stored", "ann") in await s.audited()
    assert [(p.device_serial, p.slot) for p in s.store.placements(ANN)] == [("A1", "42/face/0")]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            found = path.read_bytes()
            assert picture(7)[16:] not in found
            assert base64.b64encode(picture(7))[24:-4] not in found


@pytest.mark.parametrize(
    "why",
    [
        "no consent", "device off", "enterprise off", "withdrawn", "stranger", "snapshot", "poor", "no face",
        "no picture", "somebody else", "sealed", "unknown terminal",
    ],
)  # fmt: skip
async def test_anything_else_is_dropped_and_counted(s: Site, why: str) -> None:
    pictures, given = pictures_of(s), photo()
    if why != "no consent":
        agree(s)
    match why:
        case "device off":
            s.switched_off.add(("gate", Modality.FACE))
        case "enterprise off":
            s.terms = replace(s.terms, switched_on=frozenset())
        case "withdrawn":
            await s.erasure.erase(ANN, Verb.WITHDRAW, actor="ann", reason="")
        case "stranger":
            given = photo(name="99")
        case "snapshot":
            given = photo(kind="attphoto")
        case "poor":
            given = photo(255)
        case "no face":
            given = photo(0)
        case "no picture":
            given = replace(given, jpeg=b"\xff\xd8 not really")
        case "somebody else":
            s.enrol_face("bob", 7, purpose=Purpose.ATTENDANCE)
        case "sealed":
            s.galleries.seal()
        case "unknown terminal":
            given = replace(given, serial="Z9")
    assert not await pictures.pushed(given)
    assert held(s) == []
    assert [p for p in s.store.placements(ANN) if p.state is PlacementState.PLACED] == []
    dropped = pictures.templates.pictures_dropped
    assert sum(dropped.values()) == 1
    await pictures.templates.audit_drops()
    assert [action for action, _ in await s.audited()].count("pictures.dropped") == 1


async def test_nothing_is_looked_at_where_faces_are_switched_off(s: Site) -> None:
    pictures = pictures_of(s)
    assert pictures.wanted("A1")
    s.switched_off.add(("gate", Modality.FACE))
    assert not pictures.wanted("A1")
    assert not pictures.wanted("Z9")


async def test_a_withdrawal_in_the_middle_of_a_push_stays_one(s: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = pictures_of(s)
    agree(s)
    withdraw_before_storing(s, monkeypatch)
    assert not await pictures.pushed(photo())
    assert (s.store.statistics().templates, s.galleries.count()) == ({}, 0)
    assert [consent.state for consent in s.store.consents(ANN)] == [ConsentState.WITHDRAWN]
    assert [place.slot for place in s.store.pending_erasures("A1")] == ["42/face/0"]
