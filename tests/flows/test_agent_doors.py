"""Cards, PINs and fingers at a door of the whole agent; withdrawal, a restart and a sealed store in between."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.agent import Agent
from edge_agent.delivery.outbox import Stored
from edge_agent.policy.requests import Verb
from templates_store.errors import KeyUnavailable
from templates_store.keys.passphrase import passphrase
from templates_store.template import Modality, SubjectId
from tests.flows.agent_site import (
    ANN,
    BOB,
    PATIENCE_S,
    PIN,
    AgentSite,
    agent_site,
    delivered,
    enrol_finger,
    finger,
    happened,
    online,
    people,
)

DEVICES = ("controller", "reader", "sensor")
STRANGER = 9
GET_IMAGE = 0x01


def since(agent: Agent) -> Callable[[Stored], bool]:
    """Events that are not here yet."""
    last = agent.outbox.last_sequence
    return lambda stored: stored.sequence > last


async def touch(agent: Agent, s: AgentSite, seed: int, impression: int) -> Stored:
    """Lay a finger on the sensor; the decision about it."""
    fresh = since(agent)
    s.module.lift()
    asked = s.module.commands.count(GET_IMAGE)
    async with asyncio.timeout(PATIENCE_S):  # until the sensor saw that the last finger went
        await s.module.until(lambda: s.module.commands.count(GET_IMAGE) >= asked + 2)
    s.module.place(finger(seed), impression)
    try:
        return await happened(agent, "access.", fresh)
    finally:
        s.module.lift()


async def card(agent: Agent, s: AgentSite, subject: SubjectId) -> Stored:
    fresh = since(agent)
    s.show_card(subject)
    return await happened(agent, "access.", fresh)


async def test_a_card_and_a_finger_open_until_consent_is_withdrawn_and_the_card_goes_on(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s:
        async with s.running(s.site("zk", *DEVICES)) as agent:
            await people(agent)
            await online(agent)
            assert (await card(agent, s, ANN)).event.type == "access.granted"
            async with asyncio.timeout(PATIENCE_S):
                await s.controller.until(lambda: s.controller.opened == [1])
            await enrol_finger(agent, ANN, 1)
            await enrol_finger(agent, BOB, 2)
            told = await touch(agent, s, 1, 7)
            assert (told.event.type, told.event.subject) == ("access.granted", ANN)
            assert (await touch(agent, s, STRANGER, 0)).event.type == "access.denied"
        # The same folder again: enrolled people match, the keys and galleries come back by themselves.
        async with s.running(s.site("zk", *DEVICES)) as agent:
            await online(agent)
            assert agent.biometrics.galleries.count() == 8  # two people, two purposes, two impressions
            told = await touch(agent, s, 2, 7)
            assert (told.event.type, told.event.subject) == ("access.granted", BOB)
            carried = await agent.erasure.erase(
                ANN, Verb.WITHDRAW, actor="ann", reason="", modality=Modality.FINGERPRINT
            )
            assert carried.receipt is not None
            assert carried.receipt.verify(agent.biometrics.store.public_key)
            told = await touch(agent, s, 1, 8)
            assert (told.event.type, told.event.subject) == ("access.denied", None)
            assert (await card(agent, s, ANN)).event.type == "access.granted"
            assert (await touch(agent, s, 2, 8)).event.type == "access.granted"
            await agent.erasure.rekey()
            [receipt] = agent.biometrics.store.receipts(ANN)
            assert {place.name: place.outcome for place in receipt.locations} == {
                "templates.db": "gone",
                "templates.db-wal": "gone",
                "gallery": "gone",
                "backups": "gone",
            }
            await delivered(agent)
            assert b"withdraw" not in b"".join(s.receiver.bodies)


async def test_a_sealed_store_leaves_punches_cards_and_pins_until_a_keeper_unseals_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = functools.partial(passphrase, memory_kib=1024)  # how hard a guess is, is tested with the key itself
    monkeypatch.setattr("edge_agent.biometrics.in_use.passphrase", quick)
    async with agent_site(tmp_path) as s:
        wanted, keys = s.site("zk", *DEVICES), {"provider": "passphrase"}
        async with s.running(wanted, keys=keys) as agent:
            await people(agent)
            assert agent.biometrics.sealed
            await agent.biometrics.unseal("correct horse battery staple")
            await enrol_finger(agent, ANN, 1)
        async with s.running(wanted, keys=keys) as agent:
            await online(agent)
            before = len(s.module.commands)
            assert agent.biometrics.sealed
            s.zk.swipe("1001")
            await happened(agent, "attendance.punch")
            assert (await card(agent, s, ANN)).event.type == "access.granted"
            fresh = since(agent)
            s.reader.press("1001#")
            s.reader.press(PIN + "#")
            told = await happened(agent, "access.", fresh)
            assert told.event.type == "access.granted", told.event.data
            assert GET_IMAGE not in s.module.commands[before:]  # nobody is asked for a finger that could not be used
            with pytest.raises(KeyUnavailable):
                await agent.biometrics.unseal("somebody else's words")
            assert agent.biometrics.sealed
            await agent.biometrics.unseal("correct horse battery staple")
            told = await touch(agent, s, 1, 7)
            assert (told.event.type, told.event.subject) == ("access.granted", ANN)


async def test_a_lost_key_seals_the_store_and_says_so(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s:
        wanted = s.site(*DEVICES)
        async with s.running(wanted) as agent:
            await people(agent)
            await enrol_finger(agent, ANN, 1)
        (s.data / "templates.key").unlink()
        async with s.running(wanted) as agent:
            await online(agent)
            assert agent.biometrics.sealed
            assert "key" in agent.biometrics.store.seal_reason
            assert agent.biometrics.galleries.count() == 0
            assert (await card(agent, s, ANN)).event.type == "access.granted"
