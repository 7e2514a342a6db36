# ruff: noqa: DTZ001 - a device's clock is naive
"""The driver against the simulated terminal and panel, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from device_drivers.adms import commands
from device_drivers.adms.commands import Dialect
from device_drivers.adms.driver import AdmsTerminal
from device_drivers.adms.queue import SETTLED, QueuedCommand
from device_drivers.adms.server import AdmsServer
from device_drivers.devices import CommandState, DeviceTemplate, DeviceUser, Feature, Terminal
from device_drivers.errors import LinkError, LinkTimeout, Unsupported
from device_drivers.events import DoorEvent, Punch, VerifyMode
from device_drivers.simulated.adms import SimulatedAdms
from tests.device_drivers.adms.site import Recorder, client, config, on_a_socket, running

KINDS = pytest.mark.parametrize("security", [False, True], ids=["attendance", "security"])


@contextlib.asynccontextmanager
async def site(
    *, security: bool = False, online: bool = True, **traits: object
) -> AsyncIterator[tuple[AdmsTerminal, SimulatedAdms, Recorder]]:
    server, record = AdmsServer(), Recorder()
    terminal = server.terminal(config())
    async with on_a_socket(server) as url, running(terminal, record):
        device = SimulatedAdms(url, "A1", security=security, poll_s=0.01, **traits)  # type: ignore[arg-type]
        if not online:
            device.go_offline()
        task = asyncio.create_task(device.run())
        try:
            if online:
                await terminal.probe()
            yield terminal, device, record
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@KINDS
async def test_a_swipe_arrives_with_the_devices_own_time(security: bool) -> None:
    async with site(security=security) as (_, device, record):
        said = device.local_time()
        device.swipe("7", verify=15)
        [event, *_] = await record.have(1)
    assert isinstance(event, Punch)
    assert (event.user_id, event.verify_mode) == ("7", VerifyMode.FACE)
    assert event.device_time is not None
    assert abs(event.device_time - said) <= timedelta(seconds=2)


async def test_leaves_that_moved_while_nobody_listened_are_seen_on_connecting() -> None:
    async with site(security=True, online=False) as (terminal, device, record):
        assert terminal.leaves == {}
        device.door_open = True
        device.go_online()
        async with asyncio.timeout(10), record.changed:
            await record.changed.wait_for(lambda: bool(terminal.leaves))
        assert (terminal.leaves, record.events) == ({1: True}, [])


async def test_swipes_made_offline_arrive_when_it_returns() -> None:
    async with site() as (_, device, record):
        device.go_offline()
        for number in range(250):
            device.swipe(str(number))
        device.go_online()
        events = await record.have(250)
    assert [event.user_id for event in events if isinstance(event, Punch)] == [str(n) for n in range(250)]


async def test_one_corrupt_line_does_not_hold_up_the_good_ones() -> None:
    async with site() as (_, device, record):
        device.corrupt_next()
        device.swipe("7")
        broken, good = await record.have(2)
    assert isinstance(broken, DoorEvent)
    assert broken.raw
    assert isinstance(good, Punch)


async def test_the_device_follows_our_clock_again_after_a_new_greeting() -> None:
    async with site() as (terminal, device, record):
        device.drift_clock(timedelta(days=400))
        device.swipe("1")
        await record.have(1)
        device.reconnect()
        device.go_online()
        await terminal.reboot()
        await terminal.reboot()  # the round of the second began with the greeting
        device.swipe("2")
        events = await record.have(2)
    assert device.zone_minutes == 480
    wrong, right = (event.device_time for event in events if isinstance(event, Punch))
    assert wrong is not None
    assert right is not None
    assert wrong - right > timedelta(days=399)


@KINDS
async def test_people_are_put_listed_and_deleted(security: bool) -> None:
    async with site(security=security, chinese=True) as (terminal, device, _):
        people = [DeviceUser(str(n), name=f"王{n}", card=str(1000 + n)) for n in range(1, 131)]
        results = await terminal.upsert_users(people)
        assert all(result.ok for result in results)
        assert [result.key for result in results] == [user.user_id for user in people]
        listed = {user.user_id: user for user in await terminal.users()}
        assert listed["7"].name == "王7"
        assert listed["7"].card == "1007"
        assert len(listed) == 130
        assert all(result.ok for result in await terminal.delete_users(["7", "8"]))
        assert "7" not in device.users


async def test_a_full_memory_is_a_reason_for_each_one_who_did_not_fit() -> None:
    async with site() as (terminal, device, _):
        assert (await terminal.upsert_users([DeviceUser("1")]))[0].ok
        device.fill_memory()
        results = await terminal.upsert_users(
            [DeviceUser("1", name="again"), DeviceUser("2"), DeviceUser("bad number")]
        )
    assert [result.ok for result in results] == [True, False, False]
    assert "no space" in results[1].reason
    assert "user number" in results[2].reason


@KINDS
async def test_templates_move_between_equal_algorithms_alone(security: bool) -> None:
    async with site(security=security) as (terminal, device, _):
        device.enrol("7", "Ann", template=b"face bytes")
        [found] = await terminal.templates("7")
        assert (found.algorithm, found.modality, found.payload) == ("biodata-9-39.3-0", "face", b"face bytes")
        await terminal.upsert_users([DeviceUser("8")])
        copied = DeviceTemplate("8", "face", 0, found.algorithm, found.payload)
        older = DeviceTemplate("8", "face", 0, "biodata-9-35.4-0", found.payload)
        good, bad = await terminal.put_templates([copied, older])
        assert good.ok
        assert not bad.ok
        assert "biodata-9-35.4-0" in bad.reason
        assert not any("MajorVer=35" in command for command in device.commands)
        device.pictures.add("8")
        deleted = await terminal.delete_templates("8", modality="face")
        assert all(result.ok for result in deleted)
        assert len({result.key for result in deleted}) == len(deleted)
        assert await terminal.templates("8") == []
        assert device.pictures == set()  # it would make the template anew from that


async def test_a_silent_terminal_is_waited_for_once_whatever_has_to_go() -> None:
    async with site() as (terminal, device, _):
        device.silent_commands = True
        deleting = asyncio.create_task(terminal.delete_templates("8"))
        async with asyncio.timeout(10):
            while len(device.commands) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert not deleting.done()
        assert all(text.startswith("DATA DELETE") for text in device.commands)
        deleting.cancel()
        await asyncio.gather(deleting, return_exceptions=True)


async def test_a_terminal_that_answers_every_kind_with_all_of_them_has_each_template_once() -> None:
    async with site(security=True) as (terminal, device, _):
        device.all_kinds = True
        device.enrol("7", "Ann", template=b"face bytes")
        assert [found.payload for found in await terminal.templates("7")] == [b"face bytes"]
        assert sum("tablename=biodata" in command for command in device.commands) > 1


async def test_a_panel_tells_who_may_pass_which_door_and_until_when() -> None:
    async with site(security=True) as (terminal, _, _):
        wanted = DeviceUser("7", name="Ann", doors=(1,), valid_until=datetime(2026, 12, 31))
        await terminal.upsert_users([wanted])
        assert await terminal.users() == [wanted]


@KINDS
async def test_a_device_that_greeted_before_we_started_is_asked_what_it_is(security: bool) -> None:
    server, record = AdmsServer(), Recorder()
    async with on_a_socket(server) as url, running(server.terminal(config()), record):
        device = SimulatedAdms(url, "A1", security=security, poll_s=0.01)
        task = asyncio.create_task(device.run())
        device.swipe("7")
        await record.have(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    fresh = AdmsServer()
    terminal = fresh.terminal(config(), cursor=record.cursor)
    async with on_a_socket(fresh) as url, running(terminal, Recorder()):
        device.url = url  # goes on polling, without a new greeting
        task = asyncio.create_task(device.run())
        can = await terminal.capabilities()
        opened = await terminal.open_door(1, seconds=5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert can.face_algorithm == "biodata-9-39.3-0"
    assert opened.state is CommandState.DONE
    assert device.commands[-1] == ("CONTROL DEVICE 01010105" if security else "AC_UNLOCK")


@KINDS
async def test_a_door_opens_once(security: bool) -> None:
    async with site(security=security) as (terminal, device, _):
        result = await terminal.open_door(1, seconds=5)
        assert result.state is CommandState.DONE
        assert device.opened == [(1, 5)]
        assert (await terminal.reboot()).state is CommandState.DONE
        assert device.reboots == 1


async def test_an_unconfirmed_door_command_is_unknown_and_not_repeated() -> None:
    now = datetime(2026, 6, 19, 8, tzinfo=UTC)
    server = AdmsServer(clock=lambda: now)
    terminal = server.terminal(config())
    async with running(terminal, Recorder()), client(server) as http:
        asked = asyncio.create_task(terminal.open_door(1, seconds=5))
        await asyncio.sleep(0)
        taken = await http.get("/iclock/getrequest?SN=A1")
        assert taken.text.endswith(":AC_UNLOCK\n")
        assert (await http.get("/iclock/getrequest?SN=A1")).text == "OK"
        now += timedelta(minutes=5)
        assert (await http.get("/iclock/getrequest?SN=A1")).text == "OK"
        assert (await asyncio.wait_for(asked, 5)).state is CommandState.UNKNOWN


async def test_a_clock_set_back_gives_a_door_command_no_more_time() -> None:
    now = datetime(2026, 6, 19, 8, tzinfo=UTC)
    server = AdmsServer(clock=lambda: now)
    link = server.terminal(config())._link
    command = await link.submit("AC_UNLOCK", deadline_s=0.0, repeatable=False)
    now -= timedelta(hours=1)
    async with client(server) as http:
        assert (await http.get("/iclock/getrequest?SN=A1")).text == "OK"
    assert (await link.settled(command.command_id)).state is CommandState.FAILED


async def test_a_door_command_for_a_device_that_does_not_call_fails() -> None:
    terminal = AdmsServer().terminal(config(command_timeout_s=0.05))
    result = await terminal.open_door(1, seconds=5)
    assert result.state is CommandState.FAILED
    with pytest.raises(LinkTimeout):
        await terminal.users()


async def test_says_what_it_can_do_as_the_device_said() -> None:
    async with site() as (terminal, _, _):
        can = await terminal.capabilities()
        assert isinstance(terminal, Terminal)
    assert can.max_users == 1000
    assert can.face_algorithm == "biodata-9-39.3-0"
    assert can.finger_algorithm == "biodata-1-10.0-0"
    assert Feature.CLOCK not in can.features
    async with site(security=True) as (terminal, _, _):
        can = await terminal.capabilities()
    assert can.max_records == 100_000
    assert Feature.CLOCK in can.features


async def test_a_panel_tells_its_clock_and_takes_a_new_one() -> None:
    async with site(security=True) as (terminal, device, _):
        async with asyncio.timeout(5):
            while True:
                with contextlib.suppress(LinkError):
                    told = await terminal.get_time()
                    break
                await asyncio.sleep(0.01)
        assert abs(told - device.local_time()) <= timedelta(seconds=3)
        await terminal.set_time(datetime(2026, 6, 19, 8))
        assert any(command.startswith("SET OPTIONS DateTime=") for command in device.commands)


async def test_an_attendance_terminal_takes_no_time_but_ours() -> None:
    async with site() as (terminal, device, _):
        await terminal.reboot()  # by then it has greeted us and set its clock
        await terminal.set_time(device.local_time())
        with pytest.raises(Unsupported):
            await terminal.set_time(datetime(2001, 1, 1))
        with pytest.raises(Unsupported):
            await terminal.get_time()


async def test_only_one_driver_receives_from_a_terminal() -> None:
    server = AdmsServer()
    async with running(server.terminal(config()), Recorder()):
        with pytest.raises(LinkError, match="another driver"):
            await server.terminal(config()).run(Recorder())


class Kept:
    """A journal that outlives the server."""

    def __init__(self) -> None:
        self.number = 0
        self.commands: dict[int, QueuedCommand] = {}
        self.saved = asyncio.Event()

    async def next_id(self) -> int:
        self.number += 1
        return self.number

    async def save(self, serial: str, command: QueuedCommand) -> None:
        self.commands[command.command_id] = command
        self.saved.set()

    async def unfinished(self, serial: str) -> list[QueuedCommand]:
        return [command for command in self.commands.values() if command.state not in SETTLED]


async def test_commands_outlive_the_server_with_a_journal() -> None:
    journal = Kept()
    before = AdmsServer(journal=journal).terminal(config())
    async with running(before, Recorder()):
        waiting = asyncio.create_task(before.upsert_users([DeviceUser("7", name="Ann")]))
        await asyncio.wait_for(journal.saved.wait(), 5)
        waiting.cancel()
    server = AdmsServer(journal=journal)
    async with on_a_socket(server) as url, running(server.terminal(config()), Recorder()):
        device = SimulatedAdms(url, "A1", poll_s=0.01)
        task = asyncio.create_task(device.run())
        await server.terminal(config()).reboot()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert device.users["7"]["Name"] == "Ann"
    assert [command.state for command in journal.commands.values()] == [CommandState.DONE, CommandState.DONE]


async def test_commands_outlive_a_driver_that_ended_while_they_were_read() -> None:
    class SlowToRead(Kept):
        def __init__(self) -> None:
            super().__init__()
            self.asked, self.answers = asyncio.Event(), asyncio.Event()

        async def unfinished(self, serial: str) -> list[QueuedCommand]:
            self.asked.set()
            await self.answers.wait()
            return await super().unfinished(serial)

    journal = SlowToRead()
    await journal.save("A1", QueuedCommand(1, "REBOOT", datetime.now(UTC) + timedelta(minutes=1)))
    server = AdmsServer(journal=journal)
    async with running(server.terminal(config()), Recorder()):
        await asyncio.wait_for(journal.asked.wait(), 5)
    journal.answers.set()
    terminal = server.terminal(config())
    async with on_a_socket(server) as url, httpx.AsyncClient(base_url=url) as http, running(terminal, Recorder()):
        assert (await http.get("/iclock/getrequest", params={"SN": "A1"})).text == "C:1:REBOOT\n"


class SlowDisk(Kept):
    """Keeps a new command once it is let go on, or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = asyncio.Event()
        self.fails: Exception | None = None

    async def save(self, serial: str, command: QueuedCommand) -> None:
        await super().save(serial, command)
        if command.state is CommandState.QUEUED:
            await self.goes_on.wait()
            if self.fails:
                raise self.fails


@pytest.mark.parametrize("fails", [None, OSError("the disk is full")])
async def test_an_order_leaves_once_it_is_durable_and_never_if_it_was_refused(fails: Exception | None) -> None:
    journal = SlowDisk()
    server = AdmsServer(journal=journal)
    terminal = server.terminal(config())
    journal.fails = fails
    async with on_a_socket(server) as url, httpx.AsyncClient(base_url=url) as http, running(terminal, Recorder()):
        opening = asyncio.create_task(terminal.open_door(1, seconds=5))
        await asyncio.wait_for(journal.saved.wait(), 5)
        assert (await http.get("/iclock/getrequest", params={"SN": "A1"})).text == "OK"
        journal.goes_on.set()
        if fails:
            with pytest.raises(OSError, match="full"):
                await opening
            assert (await http.get("/iclock/getrequest", params={"SN": "A1"})).text == "OK"
            return
        async with asyncio.timeout(5):
            while (text := (await http.get("/iclock/getrequest", params={"SN": "A1"})).text) == "OK":
                pass  # the terminal calls again
        number = text.split(":")[1]
        await http.post("/iclock/devicecmd", params={"SN": "A1"}, content=f"ID={number}&Return=0&CMD=AC_UNLOCK\n")
        assert (await opening).state is CommandState.DONE


async def test_rows_that_come_at_once_are_kept_however_slow_the_disk_is() -> None:
    journal = SlowDisk()
    server = AdmsServer(journal=journal)
    terminal = server.terminal(config())
    async with on_a_socket(server) as url, httpx.AsyncClient(base_url=url) as http, running(terminal, Recorder()):
        server._links["A1"].session.dialect = Dialect.SECURITY
        listing = asyncio.create_task(terminal._query(commands.query_users(Dialect.SECURITY)))
        await asyncio.wait_for(journal.saved.wait(), 5)
        async with asyncio.timeout(5):
            while (text := (await http.get("/iclock/getrequest", params={"SN": "A1"})).text) == "OK":
                journal.goes_on.set()
        number = text.split(":")[1]
        about = {"SN": "A1", "type": "tabledata", "cmdid": number, "tablename": "user", "count": 1, "packcnt": 1}
        await http.post("/iclock/querydata", params=about, content="user uid=1\tpin=7\tname=Ann\n")
        await http.post("/iclock/devicecmd", params={"SN": "A1"}, content=f"ID={number}&Return=1&CMD=DATA QUERY\n")
        journal.goes_on.set()
        assert list((await listing).users) == ["7"]


async def test_commands_outlive_a_driver() -> None:
    server = AdmsServer()
    first = server.terminal(config())
    async with running(first, Recorder()):
        waiting = asyncio.create_task(first.open_door(1, seconds=3))
        await asyncio.sleep(0)
    async with on_a_socket(server) as url, running(server.terminal(config()), Recorder()):
        device = SimulatedAdms(url, "A1", poll_s=0.01)
        task = asyncio.create_task(device.run())
        assert (await waiting).state is CommandState.DONE
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
