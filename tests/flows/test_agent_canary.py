"""Biometric data of one enrolled person, looked for wherever the agent writes or speaks."""

from __future__ import annotations

import asyncio
import io
import logging
import ssl
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import pytest

from edge_agent.agent import Agent
from edge_agent.command_line.local_client import Invitation
from edge_agent.delivery.outbox import Stored
from edge_agent.policy.consent import require
from edge_agent.policy.requests import Verb
from templates_store.template import Modality, Purpose
from tests.canary import found_in, hits
from tests.flows.agent_site import (
    ANN,
    BOB,
    PATIENCE_S,
    AgentSite,
    acts,
    agent_site,
    delivered,
    enrol_finger,
    finger,
    happened,
    online,
    people,
    until,
)
from tests.shared_data import shared

NEEDLE = 48  # bytes; too long to be met by chance
GET_IMAGE = 0x01


def pieces(data: bytes) -> list[bytes]:
    """Some of it from its beginning, its middle and its end; what is all alike proves nothing."""
    starts = (0, len(data) // 3, len(data) // 2, max(0, len(data) - NEEDLE))
    found = [data[start : start + NEEDLE] for start in starts]
    return [piece for piece in found if len(set(piece)) > 8]


@asynccontextmanager
async def client(agent: Agent) -> AsyncIterator[httpx.AsyncClient]:
    invitation = Invitation.read(agent.config.gateway.data_dir)
    async with httpx.AsyncClient(
        base_url=invitation.address,
        verify=ssl.create_default_context(cafile=invitation.ca_file),
        headers={"Authorization": f"Bearer {invitation.token}"},
        timeout=PATIENCE_S,
        trust_env=False,
    ) as made:
        yield made


async def everything_the_api_says(http: httpx.AsyncClient) -> bytes:
    """Every page that can be read without knowing more; the person's own copy of their data apart."""
    known = {"subject": ANN, "name": "reader", "number": "1", "section": "devices", "document": "report"}
    said = []
    for path, verbs in (await http.get("/api/v1/openapi.json")).json()["paths"].items():
        if "get" not in verbs or path.endswith(("/stream", "/{subject}/export", "/capabilities")):
            continue
        answer = await http.get(path.format_map(defaultdict(lambda: "none", known)))
        assert answer.status_code < 500, path
        said.append(answer.content)
    assert len(said) > 20
    return b"\n".join(said)


async def assert_clean(agent: Agent, s: AgentSite, needles: list[bytes], logs: str) -> None:
    await delivered(agent)
    await agent.make_backup()
    await agent.anchors.drop()
    async with client(agent) as http:
        said = await everything_the_api_says(http)
    assert b"p1001" in said
    assert len(needles) >= 3
    for needle in needles:
        assert hits(needle, s.folder) == []
        assert not found_in(said, needle)
        assert not found_in(b"\n".join(s.receiver.bodies), needle)
        assert not found_in(logs.encode(), needle)


async def test_a_finger_is_in_no_file_no_reply_no_message_and_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with agent_site(tmp_path) as s, s.running(s.site("zk", "controller", "reader", "sensor")) as agent:
        await people(agent)
        await online(agent)
        await enrol_finger(agent, ANN, 1)
        stored = agent.biometrics.store.templates_of(ANN, purpose=Purpose.ACCESS)
        needles = [piece for template in stored for piece in pieces(template.payload)]
        needles += pieces(await asyncio.to_thread(lambda: finger(1).impression(7).tobytes()))
        before = agent.outbox.last_sequence

        def fresh(stored: Stored) -> bool:
            return stored.sequence > before

        async with asyncio.timeout(PATIENCE_S):
            await s.module.until(lambda: GET_IMAGE in s.module.commands)
        s.module.place(finger(1), 7)
        assert (await happened(agent, "access.", fresh)).event.type == "access.granted"
        s.module.lift()
        await assert_clean(agent, s, needles, caplog.text)
        async with client(agent) as http:
            own = (await http.get(f"/api/v1/people/{ANN}/export")).content
        assert found_in(own, stored[0].payload), "the person's own copy has it, so the search above can find it"
        await agent.erasure.erase(ANN, Verb.DELETE, actor="li", reason="request")
        await agent.erasure.rekey()
        await assert_clean(agent, s, needles, caplog.text)


def photograph() -> bytes:
    """A face of the public set, as large as a phone takes it: far over a megabyte."""
    for person in sorted(shared("faces", "lfw").iterdir()):
        for path in sorted(person.glob("*.jpg")):
            small = cv2.imread(str(path))
            if small is not None:
                large = cv2.resize(small, None, fx=10, fy=10, interpolation=cv2.INTER_CUBIC)
                return bytes(cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, 100])[1])
    raise AssertionError("the set is empty")


async def test_an_uploaded_photograph_becomes_a_vector_and_neither_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = await asyncio.to_thread(photograph)
    assert len(photo) > 1 << 20
    caplog.set_level(logging.DEBUG)
    spooled: list[Any] = []

    def on_disk(*args: Any, **kwargs: Any) -> Any:
        spooled.append(args)
        return io.BytesIO()

    async with agent_site(tmp_path) as s:
        wanted = s.site("zk") | {
            "modalities": {"face": {"enabled": True}},
            "privacy": {"notice_version": "n1", "impact_assessment": "pia-1"},
            "retention": {"templates_days": 365},
        }
        async with s.running(wanted) as agent:
            await people(agent)
            monkeypatch.setattr(tempfile, "TemporaryFile", on_disk)
            async with client(agent) as http:
                consent = {
                    "purpose": "attendance",
                    "notice_version": "n1",
                    "given_at": agent.clock().isoformat(),
                    "evidence_sha256": "ab" * 32,
                }
                body = {"subject": ANN, "modality": "face", "consents": [consent], "samples": 1, "of_age": True}
                begun = await http.post("/api/v1/enrolments", json=body)
                assert begun.status_code in {200, 201}, begun.text
                path = f"/api/v1/enrolments/{begun.json()['enrolment']}"
                step = await http.post(f"{path}/photo", files={"file": ("ann.jpg", photo, "image/jpeg")})
                assert step.json()["ready"], step.text
                done = await http.post(f"{path}/finish")
                assert done.status_code == 200, done.text
            assert spooled == []  # a large upload is not put into a file either
            [template] = agent.biometrics.store.templates_of(ANN, purpose=Purpose.ATTENDANCE)
            needles = [*pieces(template.payload), *pieces(photo[1000:])]
            await assert_clean(agent, s, needles, caplog.text)
            await agent.erasure.erase(ANN, Verb.WITHDRAW, actor="li", reason="", modality=Modality.FACE)
            await agent.erasure.rekey()
            await assert_clean(agent, s, needles, caplog.text)


async def test_a_picture_pushed_by_a_terminal_becomes_a_vector_and_neither_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photo = await asyncio.to_thread(photograph)
    caplog.set_level(logging.DEBUG)
    async with agent_site(tmp_path) as s:
        wanted = s.site("zk", "adms") | {
            "modalities": {"face": {"enabled": True}},
            "privacy": {"notice_version": "n1", "impact_assessment": "pia-1"},
            "retention": {"templates_days": 365},
        }
        wanted["devices"][1]["biometrics"] = ["face"]
        async with s.running(wanted) as agent:
            assert s.adms is not None
            await people(agent)
            await online(agent)
            store = agent.biometrics.store
            store.renew(require(acts(ANN, Modality.FACE)[0], agent.biometrics.terms(), now=agent.clock()))
            for number in ("1002", "1001"):  # Bob agreed to nothing
                s.adms.push_photo(number, photo)
            await until(lambda: store.consents(ANN) and store.placements(ANN))
            await until(lambda: agent.device_templates.pictures_dropped["adms"] and not s.adms.photos)
            [template] = store.templates_of(ANN, purpose=acts(ANN)[0].purpose)
            assert store.placements(BOB) == []
            needles = [*pieces(template.payload), *pieces(photo[1000:])]
            await assert_clean(agent, s, needles, caplog.text)
            await agent.erasure.erase(ANN, Verb.WITHDRAW, actor="li", reason="", modality=Modality.FACE)
            await until(lambda: s.adms.pictures == {"1002"})  # the terminal's own copy of hers went too
            await agent.erasure.rekey()
            await assert_clean(agent, s, needles, caplog.text)
