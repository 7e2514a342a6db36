"""Devices that match or decide by themselves, kept in step by the whole agent over real sockets."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from device_drivers.devices import Terminal
from edge_agent.agent import Agent
from edge_agent.command_line.device_commands import app
from edge_agent.people.credentials import Rights
from edge_agent.policy.consent import require
from edge_agent.policy.requests import Verb
from templates_store.records import PlacementState
from templates_store.template import Modality, Purpose
from tests.flows.agent_site import (
    ADMS_SERIAL,
    ANN,
    BOB,
    CARDS,
    FACILITY,
    PIN,
    AgentSite,
    acts,
    agent_site,
    apply,
    online,
    people,
    until,
)

SHOWN = {subject: FACILITY * 100_000 + number for subject, number in CARDS.items()}  # as the controller counts


def kept(site: dict[str, Any], *names: str, **more: Any) -> dict[str, Any]:
    """The same site, with the people of these devices kept from here."""
    for device in site["devices"]:
        if device["name"] in names:
            device["options"] = {**device.get("options", {}), "sync": True}
            device |= more
    return site


def on_terminal(s: AgentSite) -> set[str]:
    return set(s.zk.memory.uids)


async def settled(agent: Agent, device: str) -> None:
    await until(lambda: (found := agent.sync.standing(device)).report is not None and not found.running)


async def test_a_terminal_follows_the_roster_on_connecting_and_after_each_change(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s:
        s.zk.add_user("9999", name="somebody else's")
        async with s.running(kept(s.site("zk"), "zk")) as agent:
            await people(agent)
            await until(lambda: on_terminal(s) == {"1001", "1002", "9999"})
            await settled(agent, "zk")
            driver = agent.fleet.driver("zk")
            assert isinstance(driver, Terminal)
            await until(lambda: agent.sync.standing("zk").report and agent.sync.standing("zk").done)
            assert {u.user_id: u.name for u in await driver.users()}["1001"] == "Ann"
            await agent.credentials.set_rights([BOB], Rights(groups=("staff",), enabled=False))
            await until(lambda: on_terminal(s) == {"1001", "9999"})
            actions = await agent.database.read(lambda c: c.execute("SELECT action FROM audit").fetchall())
            assert ("device.sync",) in actions


async def test_a_device_that_is_not_kept_from_here_is_looked_at_and_never_changed(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s, s.running(s.site("zk")) as agent:
        await people(agent)
        await online(agent)
        agent.sync.changed()
        s.zk.memory.users.clear()
        s.zk.memory.uids.clear()
        assert [u.user_id for u in (await agent.sync.preview("zk")).plan.add] == ["1001", "1002"]
        runner = CliRunner()
        told = await _command(runner, s, "zk")
        assert told.exit_code == 0
        assert "options.sync" in told.output
        refused = await _command(runner, s, "zk", "--apply")
        assert refused.exit_code == 1
        assert on_terminal(s) == set()


async def _command(runner: CliRunner, s: AgentSite, *words: str) -> Any:
    return await asyncio.to_thread(runner.invoke, app, ["sync", *words, "--data", str(s.data)])


async def test_the_command_line_shows_what_would_change_and_carries_it_out(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s, s.running(kept(s.site("controller", "reader"), "controller")) as agent:
        await online(agent)
        await people(agent)
        await until(lambda: set(s.controller.cards) == set(SHOWN.values()))
        s.controller.cards.pop(SHOWN[BOB])  # by hand
        runner = CliRunner()
        shown = json.loads((await _command(runner, s, "controller", "--json")).output)
        assert shown["add"] == [f"…{str(FACILITY << 16 | CARDS[BOB])[-4:]}"]
        assert str(FACILITY << 16 | CARDS[BOB]) not in json.dumps(shown)
        assert (await _command(runner, s, "controller", "--apply")).exit_code == 0
        assert set(s.controller.cards) == set(SHOWN.values())


async def test_a_controller_decides_alone_with_the_cards_it_was_given(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s:
        async with s.running(kept(s.site("controller", "reader"), "controller")) as agent:
            await online(agent)
            await people(agent)
            await until(lambda: set(s.controller.cards) == set(SHOWN.values()))
            await agent.credentials.set_rights([BOB], Rights())
            await until(lambda: set(s.controller.cards) == {SHOWN[ANN]})
        assert s.controller.swipe(SHOWN[ANN], 1).granted  # nobody else is there
        assert not s.controller.swipe(SHOWN[ANN], 2).granted
        assert not s.controller.swipe(SHOWN[BOB], 1).granted


async def test_a_controller_goes_on_alone_with_times_pins_and_modes(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s:
        site = kept(s.site("controller", "reader"), "controller")
        access = site["access"]
        access["calendar"] = {"holidays": {"2027-01-01": "public"}}
        access["schedules"] = {
            "hours": {"weekly": {"mon-fri": ["08:00-18:00"]}},
            "lunch": {"weekly": {"mon-fri": ["12:00-13:00"]}},
        }
        door = next(door for door in access["doors"] if door["device"] == "controller")
        door |= {"verify": [["card", "pin"]], "mode_times": [{"schedule": "lunch", "mode": "unlocked"}]}
        access["groups"] = [{"name": "staff", "grants": [{"doors": [door["name"]], "schedule": "hours"}]}]
        async with s.running(site) as agent:
            await online(agent)
            await people(agent)
            await until(lambda: set(s.controller.cards) == {SHOWN[ANN]})
            await settled(agent, "controller")
            failed = agent.sync.standing("controller").report
            assert failed is not None
            assert [(r.key, "has none" in r.reason) for r in failed.failed] == [(BOB, True)]

        def swiped_at(day: int, hour: int, pin: str = PIN) -> tuple[bool, int]:
            moment = datetime(2026, 12, 28, hour, 30) + timedelta(days=day)  # a Monday  # noqa: DTZ001
            s.controller.drift += moment - s.controller.now()
            entry = s.controller.swipe(SHOWN[ANN], door["relay"], pin=int(pin))
            return entry.granted, entry.reason

        assert swiped_at(0, 9) == (True, 1)  # nobody else is there
        assert swiped_at(0, 9, pin="1111") == (False, 7)
        assert swiped_at(0, 19) == (False, 15)
        assert swiped_at(3, 9) == (True, 1)
        assert swiped_at(4, 9) == (False, 15)  # the holiday
        assert swiped_at(7, 9) == (True, 1)
        modes = {}
        for hour in (11, 12, 13):
            s.controller.drift += datetime(2027, 1, 4, hour, 0, 30) - s.controller.now()  # noqa: DTZ001
            s.controller.tick()
            modes[hour] = s.controller.doors[door["relay"]].mode
        assert modes == {11: 3, 12: 1, 13: 3}


async def test_pins_are_kept_only_while_a_controller_asks_for_them(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s:
        site = kept(s.site("controller", "reader"), "controller")
        for door in site["access"]["doors"]:
            door["verify"] = [["card", "pin"]]
        async with s.running(site) as agent:
            await online(agent)
            await people(agent)
            rows = "SELECT count(*) FROM sealed_pins"
            assert await agent.database.read(lambda c: c.execute(rows).fetchone()) == (1,)
            gone = asyncio.Event()
            agent.database.watch(lambda c: c.execute(rows).fetchone()[0], lambda left: gone.set() if not left else None)
            await apply(agent, kept(s.site("controller", "reader"), "controller"))
            await asyncio.wait_for(gone.wait(), 20)


async def test_card_numbers_are_kept_only_while_a_device_needs_them(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s:
        site = s.site("controller", "reader")
        async with s.running(site) as agent:
            await online(agent)
            await people(agent)
            await apply(agent, kept(s.site("controller", "reader"), "controller"))
            await until(lambda: agent.sync.standing("controller").report)
            assert set((await agent.sync.preview("controller")).plan.cards_unknown) == {ANN, BOB}
            await agent.database.write(lambda c: agent.roster.remove_card(c, str(FACILITY << 16 | CARDS[ANN])))
            number = str(FACILITY << 16 | CARDS[ANN])
            await agent.database.write(lambda c: agent.roster.add_card(c, ANN, number, now=agent.clock()))
            await until(lambda: set(s.controller.cards) == {SHOWN[ANN]})
            gone = asyncio.Event()

            def left(count: int) -> None:
                if count == 0:
                    gone.set()

            agent.database.watch(lambda c: c.execute("SELECT count(*) FROM sealed_cards").fetchone()[0], left)
            await apply(agent, site)
            await asyncio.wait_for(gone.wait(), 20)


async def test_a_push_terminal_is_filled_to_its_limit_and_gives_back_templates(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as s:
        site = kept(s.site("adms"), "adms", biometrics=["face"]) | {
            "modalities": {"face": {"enabled": True}},
            "privacy": {"notice_version": "n1", "impact_assessment": "pia-1"},
            "retention": {"templates_days": 365},
        }
        quick = {"quiet_s": 0.2, "sync": True, "command_timeout_s": 5.0}
        site["devices"][0]["options"] = quick
        async with s.running(site) as agent:
            assert s.adms is not None
            await online(agent)
            given = [require(act, agent.biometrics.terms(), now=agent.clock()) for act in acts(ANN, Modality.FACE)]
            for consent in given:
                agent.biometrics.store.renew(consent)
            s.adms.enrol("1001", "Ann", template=b"made by the terminal")
            s.adms.enrol("1002", "Bob", template=b"without consent")
            s.adms.enrol("7777", "Somebody")
            await people(agent)
            store = agent.biometrics.store
            await until(lambda: store.templates_of(ANN, purpose=Purpose.ATTENDANCE))
            [template] = store.templates_of(ANN, purpose=Purpose.ATTENDANCE)
            assert (template.format.pipeline, template.payload) == ("device:biodata-9-39.3-0", b"made by the terminal")
            assert store.placements(BOB) == []
            await settled(agent, "adms")
            s.adms.templates.clear()  # it was reset
            await agent.sync.apply("adms", actor="li")
            assert [pin for pin, *_ in s.adms.templates] == ["1001"]

            s.adms.go_offline()
            await agent.erasure.erase(ANN, Verb.WITHDRAW, actor="ann", reason="", modality=Modality.FACE)
            assert {p.state for p in store.placements(ANN)} == {PlacementState.ERASING}
            await agent.erasure.rekey()
            assert not store.receipts(ANN)[-1].closed
            s.adms.go_online()
            await agent.erasure.retry()
            assert s.adms.templates == {}
            assert {p.device_serial for p in store.placements(ANN)} == {ADMS_SERIAL}
            assert store.receipts(ANN)[-1].closed


def holds(s: AgentSite, kind: str) -> set[str]:
    """The device's own numbers of people, as it keeps them."""
    match kind:
        case "zk":
            return set(s.zk.memory.uids)
        case "isapi":
            return set(s.isapi.users)
        case _:
            return {str(row["Pin"]) for row in s.c3.rows["user"]}


def room_for(s: AgentSite, kind: str, people: int) -> None:
    match kind:
        case "zk":
            s.zk.memory.max_users = people
        case "isapi":
            s.isapi.max_users = people
        case _:
            s.c3.max_users = people


@pytest.mark.parametrize("kind", ["zk", "isapi", "c3"])
async def test_every_kind_tells_who_did_not_fit_and_gives_up_who_was_erased_when_it_returns(
    tmp_path: Path, kind: str
) -> None:
    async with agent_site(tmp_path) as s:
        device: Any = {"zk": s.zk, "isapi": s.isapi, "c3": s.c3}[kind]
        s.zk.memory.users.clear()
        s.zk.memory.uids.clear()
        room_for(s, kind, 1)
        async with s.running(kept(s.site(kind), kind)) as agent:
            await online(agent)
            await people(agent)
            await settled(agent, kind)
            assert holds(s, kind) == {"1001"}
            report = agent.sync.standing(kind).report
            assert report is not None
            assert [(failed.key, bool(failed.reason)) for failed in report.failed] == [("1002", True)]

            room_for(s, kind, 10)
            agent.fleet.nudge(kind)
            device.go_offline() if kind == "zk" else await device.go_offline()
            await until(lambda: agent.fleet.driver(kind) is None)
            await (device.come_back() if kind == "zk" else device.go_online())
            await until(lambda: agent.fleet.nudge(kind) or agent.fleet.driver(kind) is not None)
            before = holds(s, kind)
            shown = await agent.sync.preview(kind)
            assert [user.user_id for user in shown.plan.add] == ["1002"]
            assert holds(s, kind) == before == {"1001"}  # a preview changes nothing
            assert (await agent.sync.apply(kind, actor="li")).complete
            assert holds(s, kind) == {"1001", "1002"}
            assert (await agent.sync.preview(kind)).empty

            device.go_offline() if kind == "zk" else await device.go_offline()
            await until(lambda: agent.fleet.driver(kind) is None)
            carried = await agent.erasure.erase(BOB, Verb.LEAVE, actor="li", reason="left")
            assert carried.receipt is not None
            assert not carried.receipt.closed
            await (device.come_back() if kind == "zk" else device.go_online())
            await until(lambda: agent.fleet.nudge(kind) or agent.fleet.driver(kind) is not None)
            await agent.erasure.retry()
            assert holds(s, kind) == {"1001"}


@pytest.mark.parametrize("kind", ["zk", "isapi"])
async def test_a_withdrawal_takes_a_finger_off_a_terminal_that_was_away(tmp_path: Path, kind: str) -> None:
    async with agent_site(tmp_path) as s:
        device: Any = {"zk": s.zk, "isapi": s.isapi}[kind]
        site = kept(s.site(kind), kind, biometrics=["fingerprint"]) | {
            "modalities": {"fingerprint": {"enabled": True}},
            "privacy": {"notice_version": "n1", "impact_assessment": "pia-1"},
            "retention": {"templates_days": 365},
        }
        async with s.running(site) as agent:
            await online(agent)
            await people(agent)
            await until(lambda: holds(s, kind) == {"1001", "1002"})
            store = agent.biometrics.store
            for act in acts(ANN):
                store.renew(require(act, agent.biometrics.terms(), now=agent.clock()))
            for number in ("1001", "1002"):  # put on at the terminal; Bob agreed to nothing
                if kind == "zk":
                    s.zk.add_template(number, 6, b"made by the terminal " * 30)
                else:
                    s.isapi.fingers[number, 7] = base64.b64encode(b"made by the terminal " * 20).decode()
            await agent.sync.apply(kind, actor="li")
            assert {p.slot for p in store.placements(ANN)} == {"1001/fingerprint/6"}
            assert store.placements(BOB) == []

            device.go_offline() if kind == "zk" else await device.go_offline()
            await until(lambda: agent.fleet.driver(kind) is None)
            await agent.erasure.erase(ANN, Verb.WITHDRAW, actor="ann", reason="", modality=Modality.FINGERPRINT)
            assert {p.state for p in store.placements(ANN)} == {PlacementState.ERASING}
            await (device.come_back() if kind == "zk" else device.go_online())
            await until(lambda: agent.fleet.nudge(kind) or agent.fleet.driver(kind) is not None)
            await agent.erasure.retry()
            if kind == "zk":
                assert {uid for uid, _ in s.zk.memory.templates} == {s.zk.memory.uids["1002"]}
            else:
                assert {number for number, _ in s.isapi.fingers} == {"1002"}
            assert holds(s, kind) == {"1001", "1002"}  # she is still let in by her card
