"""What terminals of four protocols record, through the whole agent, to the upstreams that the configuration names."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from secrets import token_bytes

from device_drivers.isapi.driver import IsapiTerminal
from edge_agent.attendance import recognised
from edge_agent.delivery.outbox import Stored
from edge_agent.devices.supervise import LinkState
from tests.canary import hits
from tests.flows.agent_site import agent_site, apply, delivered, happened, people, receiver, until, upstream

TYPES = ("edge-agent.attendance.punch", "edge-agent.door.granted")  # a panel tells of doors, a terminal of punches


def by(device: str, user_id: str) -> Callable[[Stored], bool]:
    return lambda stored: (stored.event.device, stored.event.data.get("user_id")) == (device, user_id)


async def test_each_record_of_four_protocols_arrives_once_also_across_a_restart(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s:
        wanted = s.site("zk", "adms", "isapi", "c3")
        async with s.running(wanted) as agent:
            assert s.adms is not None
            await people(agent)
            s.zk.swipe("1001")
            s.adms.swipe("1001")
            s.isapi.swipe("1001")
            s.c3.swipe(655380001, pin=1001)
            for device in ("zk", "adms", "isapi"):
                stored = await happened(agent, "attendance.punch", by(device, "1001"))
                assert stored.event.subject == "p1001"
            assert (await happened(agent, "door.granted", by("c3", "1001"))).event.subject == "p1001"
            await delivered(agent)
        # While no agent runs the devices keep their records.
        s.zk.swipe("1002")
        s.isapi.swipe("1002")
        s.c3.swipe(655380002, pin=1002)
        async with s.running(wanted) as agent:
            await happened(agent, "attendance.punch", by("zk", "1002"))
            await happened(agent, "attendance.punch", by("isapi", "1002"))
            await happened(agent, "door.granted", by("c3", "1002"))
            await delivered(agent)
            verdict = await agent.database.read(lambda c: agent.audit.verify(c, agent.anchors.known()))
            assert verdict.intact
        told = Counter(
            (event["data"]["device"], event["data"]["user_id"])
            for event in await s.receiver.told("")
            if event["type"] in TYPES
        )
        assert told == Counter(
            {(device, "1001"): 1 for device in ("zk", "adms", "isapi", "c3")}
            | {(device, "1002"): 1 for device in ("zk", "isapi", "c3")}
        )
        sequences = [int(event["sequence"]) for event in await s.receiver.told("")]
        assert sorted(sequences) == list(range(1, len(sequences) + 1))


async def test_a_number_that_was_nobodys_is_somebodys_when_its_refused_punch_is_released(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s:
        dead = upstream("hr", s.receiver) | {"url": "http://127.0.0.1:9/events"}
        async with s.running(s.site("zk", upstreams=[dead])) as agent:
            await people(agent)
            s.zk.add_user("1777")
            s.zk.swipe("1777")
            unknown = await happened(agent, "attendance.punch", by("zk", "1777"))
            assert (unknown.event.subject, unknown.event.data["known"]) == (None, False)
            await agent.outbox.quarantine("hr", unknown.sequence, reason="HTTP 422", reply="unknown user")
            await agent.database.write(lambda c: agent.roster.link(c, "p1001", "1777"))
            again = partial(recognised, agent.roster)
            assert await agent.outbox.release("hr", [unknown.sequence], reread=again) == 1
            [owed] = [item for item in await agent.outbox.pending("hr", 100) if item.sequence == unknown.sequence]
            assert (owed.event.id, owed.recorded_at) == (unknown.event.id, unknown.recorded_at)
            assert owed.event.subject == "p1001"
            assert owed.event.data == {**unknown.event.data, "known": True}  # what the device said stays
            assert (await agent.outbox.ledger("hr")).balanced
            # The terminal tells of it once more: still the same punch.
            before = agent.outbox.last_sequence
            await agent.outbox.append([unknown.event])
            assert agent.outbox.last_sequence == before


async def test_devices_and_upstreams_come_and_go_with_the_configuration(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s, receiver(tmp_path / "second.db") as second, s.running(s.site("zk")) as agent:
        await people(agent)
        s.zk.swipe("1001")
        await happened(agent, "attendance.punch", by("zk", "1001"))
        await delivered(agent)
        both = [upstream("collector", s.receiver), upstream("second", second)]
        version = await apply(agent, s.site("zk", "isapi", upstreams=both))
        assert version.number == 2
        s.isapi.swipe("1002")
        await happened(agent, "attendance.punch", by("isapi", "1002"))
        await delivered(agent)
        await delivered(agent, "second")
        assert len(await second.told()) == 2  # a new one is owed everything that is still here
        before = list(s.receiver.bodies)
        await apply(agent, s.site("zk", upstreams=both[1:]))
        s.isapi.swipe("1001")  # nobody listens to this terminal any more
        s.zk.swipe("1002")
        await happened(agent, "attendance.punch", by("zk", "1002"))
        await delivered(agent, "second")
        assert s.receiver.bodies == before
        assert [event["data"]["user_id"] for event in await second.told()] == ["1001", "1002", "1002"]
        assert set(agent.fleet.health) == {"zk"}
        assert agent.fleet.health["zk"].state is LinkState.ONLINE
        revoked = {books.sink: books.revoked for books in await agent.outbox.stats()}
        assert revoked == {"collector": True, "second": False}


async def test_an_event_carries_what_its_recipient_may_have_and_nothing_else(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s:
        frugal = upstream("collector", s.receiver, fields=["subject"], pseudonymous=True)
        async with s.running(s.site("zk", upstreams=[frugal])) as agent:
            await people(agent)
            s.zk.swipe("1001")
            await happened(agent, "attendance.punch", by("zk", "1001"))
            await delivered(agent)
        bodies = b"".join(s.receiver.bodies)
        assert b"attendance.punch" in bodies
        for kept in (b"1001", b"Ann", b'"zk"', b"CJDE193560303"):
            assert kept not in bodies


async def test_a_terminal_that_pushes_is_armed_again_after_its_restart_and_each_event_arrives_once(
    tmp_path: Path,
) -> None:
    picture = b"\xff\xd8\xff\xe0" + token_bytes(64)

    def armed() -> bool:
        return any(s.isapi.hosts.values())

    async with agent_site(tmp_path) as s:
        async with s.running(s.site("pushing")) as agent:
            await people(agent)
            await until(armed)
            s.isapi.swipe_with_picture("1001", picture)
            await happened(agent, "attendance.punch", by("pushing", "1001"))
            s.isapi.hosts = dict.fromkeys(s.isapi.hosts, "")  # as after its restart
            s.isapi.swipe("1002")  # pushed to nobody
            await happened(agent, "attendance.punch", by("pushing", "1002"))
            await until(armed)
            s.isapi.swipe("1001")
            await delivered(agent)
            driver = agent.fleet.driver("pushing")
            assert isinstance(driver, IsapiTerminal)
            await until(lambda: agent.isapi.counters["answered_200"] >= 2)
            assert driver.counters["photos_dropped"] == 1
        s.isapi.swipe("1002")  # while no agent runs
        async with s.running(s.site("pushing")) as agent:
            await until(lambda: len(s.receiver.bodies) and agent.in_force.is_set())
            async with asyncio.timeout(20):
                while len(await s.receiver.told()) < 4:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        assert Counter(event["data"]["user_id"] for event in await s.receiver.told()) == {"1001": 2, "1002": 2}
        assert hits(picture, tmp_path) == []
