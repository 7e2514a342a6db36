# ruff: noqa: DTZ001 - a terminal's readings have no zone
from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from device_drivers import catalog
from device_drivers.devices import CommandState, DeviceConfig, DeviceTemplate, DeviceUser, Feature, Identity, Terminal
from device_drivers.errors import AuthenticationFailed, FrameError, LinkError, LinkTimeout, ProtocolError, WrongDevice
from device_drivers.events import Origin, PunchState, VerifyMode
from device_drivers.simulated.zkteco import Memory, Quirks, SimulatedZkTerminal
from device_drivers.zkteco.codes import Command, EventFlag
from device_drivers.zkteco.driver import LIVE_BATCH, ZktecoTerminal
from tests.device_drivers.zkteco.recorder import Recorder, driver_of, running

START = datetime(2026, 3, 2, 8, 0, 0)
TEMPLATE = b"\x4d\xfdSS21\0\0" + (600).to_bytes(2, "big") + bytes(range(200)) * 3
TEMPLATE = TEMPLATE[:600]


@pytest.fixture(params=["tcp", "udp"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def terminal() -> AsyncIterator[SimulatedZkTerminal]:
    async with SimulatedZkTerminal() as simulated:
        yield simulated


def punch_every_7_s(terminal: SimulatedZkTerminal, count: int, *, first: int = 0) -> None:
    for index in range(first, first + count):
        assert terminal.swipe(str(1001 + index % 50), 1, index % 2, START + timedelta(seconds=7 * index))


async def test_the_catalog_makes_a_terminal(terminal: SimulatedZkTerminal) -> None:
    driver = catalog.make(DeviceConfig(name="gate", kind="zkteco", address=terminal.address))
    assert isinstance(driver, Terminal)
    assert await driver.probe() == Identity("ZKTeco", "F18-SIM", "SIM0000001", "Ver 6.60 Apr 26 2016")
    await driver.close()


async def test_reads_the_backlog_and_then_hears_live_punches(terminal: SimulatedZkTerminal, transport: str) -> None:
    punch_every_7_s(terminal, 1200)
    recorder = Recorder()
    async with running(driver_of(terminal, transport=transport), recorder):
        await recorder.count(1200)
        assert [punch.device_time for punch in recorder.punches] == [
            START + timedelta(seconds=7 * index) for index in range(1200)
        ]
        terminal.swipe("1007", verify=15, state=1)
        await recorder.count(1201)
    live = recorder.punches[-1]
    assert (live.origin, live.user_id, live.device_serial) == (Origin.LIVE, "1007", "SIM0000001")
    assert (live.verify_mode, live.state) == (VerifyMode.FACE, PunchState.OUT)


@pytest.mark.parametrize(("record_size", "user_size"), [(8, 28), (16, 28), (40, 72), (49, 72)])
async def test_every_record_size_tells_the_same_punches(record_size: int, user_size: int, transport: str) -> None:
    async with SimulatedZkTerminal(memory=Memory(record_size=record_size, user_size=user_size)) as terminal:
        for user in range(1001, 1051):
            terminal.add_user(str(user))
        punch_every_7_s(terminal, 150)
        recorder = Recorder()
        async with running(driver_of(terminal, transport=transport), recorder):
            await recorder.count(150)
            terminal.swipe("1049", at=START)
            await recorder.count(151)
    assert [punch.user_id for punch in recorder.punches] == [*(str(1001 + i % 50) for i in range(150)), "1049"]


async def test_goes_on_from_the_cursor_with_an_overlap(terminal: SimulatedZkTerminal) -> None:
    punch_every_7_s(terminal, 1000)
    before, after = Recorder(), Recorder()
    async with running(driver_of(terminal), before):
        await before.count(1000)
    punch_every_7_s(terminal, 10, first=1000)
    async with running(driver_of(terminal, cursor=before.cursor), after):
        await after.until(lambda r: any(p.device_time == START + timedelta(seconds=7 * 1009) for p in r.punches))
    assert 10 < len(after.punches) < 50
    assert after.punches[-10].device_time == START + timedelta(seconds=7 * 1000)


async def test_equal_punches_of_one_second_are_always_told_together(terminal: SimulatedZkTerminal) -> None:
    # 100 equal punches across every place where a batch, an overlap or a chunk could be cut.
    punch_every_7_s(terminal, 450)
    moment = START + timedelta(days=1)
    for _ in range(100):
        terminal.swipe("1001", at=moment)
    recorder, again = Recorder(), Recorder()
    async with running(driver_of(terminal), recorder):
        await recorder.count(550)
    together = [len([p for p in punches if p.device_time == moment]) for punches, _ in recorder.calls]
    assert [count for count in together if count] == [100]
    terminal.swipe("1001", at=moment)
    async with running(driver_of(terminal, cursor=recorder.cursor), again):
        await again.until(lambda r: sum(p.device_time == moment for p in r.punches) >= 101)
    assert max(len([p for p in punches if p.device_time == moment]) for punches, _ in again.calls) == 101


async def test_a_cleared_log_is_noticed_and_read_whole(terminal: SimulatedZkTerminal) -> None:
    punch_every_7_s(terminal, 100)
    before, after = Recorder(), Recorder()
    async with running(driver_of(terminal), before):
        await before.count(100)
    terminal.memory.log.clear()
    punch_every_7_s(terminal, 120, first=5000)
    async with running(driver_of(terminal, cursor=before.cursor), after):
        await after.count(120)
    assert after.punches[0].device_time == START + timedelta(seconds=7 * 5000)


@pytest.mark.parametrize("cursor", [b"", b"garbage", b"\x01" * 24, bytes(24)])
async def test_a_cursor_that_says_nothing_reads_the_log_whole(terminal: SimulatedZkTerminal, cursor: bytes) -> None:
    punch_every_7_s(terminal, 40)
    recorder = Recorder()
    async with running(driver_of(terminal, cursor=cursor), recorder):
        await recorder.count(40)


async def test_the_cursor_of_another_terminal_reads_the_log_whole(terminal: SimulatedZkTerminal) -> None:
    punch_every_7_s(terminal, 40)
    other, recorder = Recorder(), Recorder()
    async with SimulatedZkTerminal(serial="OTHER") as twin:
        punch_every_7_s(twin, 40)
        async with running(driver_of(twin), other):
            await other.count(40)
    async with running(driver_of(terminal, cursor=other.cursor), recorder):
        await recorder.count(40)


async def test_a_live_punch_is_acknowledged_only_once_it_is_recorded(terminal: SimulatedZkTerminal) -> None:
    recorder, acknowledged = Recorder(), asyncio.Event()
    terminal.on_acknowledged = lambda _: acknowledged.set()
    async with running(driver_of(terminal), recorder):
        await recorder.until(lambda r: len(r.calls) == 1)
        recorder.gate.clear()
        terminal.swipe("1001")
        await recorder.until(lambda r: len(r.calls) == 2)
        assert terminal.unacknowledged == 1
        recorder.gate.set()
        async with asyncio.timeout(5):
            await acknowledged.wait()
    assert terminal.unacknowledged == 0


async def test_a_flood_of_live_punches_is_recorded_some_at_a_time(terminal: SimulatedZkTerminal) -> None:
    recorder = Recorder()
    async with running(driver_of(terminal), recorder):
        await recorder.until(lambda r: bool(r.calls))
        recorder.gate.clear()
        terminal.swipe("1001", 1, 0, START)
        await recorder.until(lambda r: len(r.calls) == 2)  # held there while the flood comes in
        for first in range(1, 4000, 80):
            punches = (struct.pack("<IBB6B", first + n, 1, 0, 26, 11, 23, 8, 0, 0) for n in range(80))
            for peer in list(terminal._listeners):
                terminal._send(peer, Command.REG_EVENT, EventFlag.ATTLOG, 0, b"".join(punches))
        recorder.gate.set()
        await recorder.count(4001)
    assert max(len(punches) for punches, _ in recorder.calls) <= LIVE_BATCH
    assert len({punch.user_id for punch in recorder.punches}) == 4000


async def test_a_failing_record_leaves_the_punch_unacknowledged(terminal: SimulatedZkTerminal) -> None:
    class StorageOnFire(Exception):
        pass

    heard = 0

    async def record(events: object, *, cursor: bytes | None = None) -> None:
        nonlocal heard
        heard += 1
        if heard == 2:
            raise StorageOnFire
        terminal.swipe("1001")

    driver = driver_of(terminal)
    with pytest.raises(StorageOnFire):
        await driver.run(record)
    assert terminal.unacknowledged == 1
    await driver.close()


async def test_a_live_gap_is_read_from_the_log(terminal: SimulatedZkTerminal, transport: str) -> None:
    punch_every_7_s(terminal, 40)
    driver, recorder = driver_of(terminal, transport=transport, keepalive_s=0.1), Recorder()
    async with running(driver, recorder):
        await recorder.count(40)
        terminal.lose_next_live()
        terminal.swipe("1049", at=START + timedelta(days=2))
        await recorder.until(lambda r: r.punches[-1].user_id == "1049")
    assert recorder.punches[-1].origin is Origin.BACKLOG
    assert driver.live_gaps == 1


async def test_live_punches_that_account_for_the_log_cause_no_reading(terminal: SimulatedZkTerminal) -> None:
    driver, recorder = driver_of(terminal, keepalive_s=0.05), Recorder()
    async with running(driver, recorder):
        await recorder.until(lambda r: len(r.calls) == 1)
        for index in range(5):
            terminal.swipe("1001", at=START + timedelta(seconds=index))
        await recorder.count(5)
        keepalives: asyncio.Queue[int] = asyncio.Queue()
        terminal.on_request = keepalives.put_nowait
        async with asyncio.timeout(5):
            for _ in range(4):
                assert await keepalives.get() == Command.GET_FREE_SIZES
    assert driver.live_gaps == 0
    assert len(recorder.calls) <= 6


async def test_live_punches_are_confirmed_from_the_log_after_a_while(terminal: SimulatedZkTerminal) -> None:
    recorder = Recorder()
    async with running(driver_of(terminal, keepalive_s=0.05, confirm_s=0.1), recorder):
        await recorder.until(lambda r: len(r.calls) == 1)
        terminal.swipe("1001")
        await recorder.until(lambda r: bool(r.cursor))
    assert [punch.origin for punch in recorder.punches] == [Origin.LIVE]  # confirmed, and not told again


async def test_a_punch_that_no_live_event_told_is_found_when_the_others_are_confirmed(
    terminal: SimulatedZkTerminal,
) -> None:
    recorder = Recorder()
    async with running(driver_of(terminal, keepalive_s=0.05, confirm_s=0.1), recorder):
        await recorder.until(lambda r: len(r.calls) == 1)
        terminal.swipe("1001")
        await recorder.count(1)
        terminal.lose_next_live()
        terminal.swipe("1002")
        await recorder.count(2)
    told = [(punch.user_id, punch.origin) for punch in recorder.punches]
    assert told == [("1001", Origin.LIVE), ("1002", Origin.BACKLOG)]


async def test_a_live_punch_during_a_command_is_not_lost(terminal: SimulatedZkTerminal) -> None:
    for user in range(2000, 2060):
        terminal.add_user(str(user))
    driver, recorder = driver_of(terminal), Recorder()
    async with running(driver, recorder):
        await recorder.until(lambda r: len(r.calls) == 1)
        asking = [asyncio.create_task(driver.users()) for _ in range(4)]
        async with asyncio.timeout(5):
            while not all(task.done() for task in asking):
                terminal.swipe("2001")
                await asyncio.sleep(0)
        swiped = terminal.memory.records
        await recorder.count(swiped)
    assert all(len(task.result()) == 60 for task in asking)
    assert len(recorder.of(Origin.LIVE)) == swiped > 4


async def test_another_serial_than_the_pinned_one_is_the_wrong_device(terminal: SimulatedZkTerminal) -> None:
    driver = driver_of(terminal, serial="SIM0000002")
    with pytest.raises(WrongDevice) as wrong:
        await driver.probe()
    assert (wrong.value.expected, wrong.value.found) == ("SIM0000002", "SIM0000001")
    assert not {Command.DATA_WRRQ, Command.REG_EVENT} & set(terminal.requests)


async def test_a_communication_key_is_needed_and_taken(transport: str) -> None:
    async with SimulatedZkTerminal(comm_key=987654321) as terminal:
        for wrong in ("", "1"):
            driver = driver_of(terminal, password=wrong, transport=transport)
            with pytest.raises(AuthenticationFailed):
                await driver.probe()
        right = driver_of(terminal, password="987654321", transport=transport)
        assert (await right.probe()).serial == "SIM0000001"
        await right.close()


async def test_the_clock_offset_is_measured_in_the_configured_zone() -> None:
    local = datetime(2026, 3, 2, 20, 0, 30)
    async with SimulatedZkTerminal(clock=lambda: local) as terminal:
        config = DeviceConfig(name="gate", kind="zkteco", address=terminal.address, timezone="Asia/Shanghai")
        driver = ZktecoTerminal(config, now=lambda: datetime(2026, 3, 2, 12, 0, 0, tzinfo=UTC))
        assert driver.measured_offset is None
        await driver.probe()
        assert driver.measured_offset == timedelta(seconds=30)
        await driver.set_time(datetime(2026, 3, 2, 20, 0, 0))
        assert driver.measured_offset == timedelta(0)
        assert await driver.get_time() == datetime(2026, 3, 2, 20, 0, 0)
        with pytest.raises(ValueError, match="naive"):
            await driver.set_time(datetime(2026, 3, 2, tzinfo=UTC))
        await driver.close()


async def test_capabilities_are_what_the_terminal_answers(terminal: SimulatedZkTerminal) -> None:
    terminal.add_user("1")
    driver = driver_of(terminal)
    capabilities = await driver.capabilities()
    assert {Feature.LIVE, Feature.OPEN_DOOR, Feature.FINGER_TEMPLATES} <= capabilities.features
    assert (capabilities.users, capabilities.max_users, capabilities.max_records) == (1, 5000, 100_000)
    assert (capabilities.finger_algorithm, capabilities.doors) == ("zk-finger-10", 1)
    await driver.close()


async def test_what_a_terminal_does_not_answer_for_is_no_capability() -> None:
    async with SimulatedZkTerminal(quirks=Quirks(live_events=False)) as terminal:
        for option in ("LockOn", "~ZKFPVersion"):
            del terminal.options[option]
        driver = driver_of(terminal)
        capabilities = await driver.capabilities()
        assert not {Feature.LIVE, Feature.OPEN_DOOR, Feature.FINGER_TEMPLATES} & capabilities.features
        await driver.close()


async def test_a_terminal_without_live_events_is_polled() -> None:
    async with SimulatedZkTerminal(quirks=Quirks(live_events=False)) as terminal:
        recorder = Recorder()
        async with running(driver_of(terminal, keepalive_s=0.05), recorder):
            await recorder.until(lambda r: len(r.calls) == 1)
            terminal.swipe("1001")
            await recorder.count(1)


async def test_opens_its_one_door_for_the_given_time(terminal: SimulatedZkTerminal) -> None:
    driver = driver_of(terminal)
    assert (await driver.open_door(1, seconds=2.5)).state is CommandState.DONE
    assert terminal.doors_opened == [2.5]
    assert (await driver.open_door(2, seconds=1)).state is CommandState.FAILED
    assert (await driver.open_door(1, seconds=0)).state is CommandState.FAILED
    assert len(terminal.doors_opened) == 1
    await driver.close()


async def test_an_unanswered_door_order_is_unknown_and_never_repeated(transport: str) -> None:
    async with SimulatedZkTerminal() as terminal:
        driver = driver_of(terminal, transport=transport, reply_s=0.7)
        await driver.probe()
        terminal.corrupt_next(1)
        assert (await driver.open_door(1, seconds=1)).state is CommandState.UNKNOWN
        assert terminal.requests.count(Command.UNLOCK) == 1
        with pytest.raises(LinkError):
            await driver.open_door(1, seconds=1)
        assert len(terminal.doors_opened) == 1
        await driver.close()


async def test_users_are_listed_written_and_deleted(transport: str) -> None:
    async with SimulatedZkTerminal() as terminal:
        terminal.add_user("1001", name="Ned", card=222, pin="444", privilege=14)
        driver = driver_of(terminal, transport=transport)
        assert await driver.users() == [DeviceUser("1001", name="Ned", card="222", pin="444", privilege=14)]
        results = await driver.upsert_users(
            [DeviceUser("1002", name="张三", card="7"), DeviceUser("1003", pin="bad"), DeviceUser("1001", name="Ed")]
        )
        assert [(r.key, r.ok) for r in results] == [("1002", True), ("1003", False), ("1001", True)]
        assert {user.user_id: user.name for user in await driver.users()} == {"1001": "Ed", "1002": "张三"}
        deleted = await driver.delete_users(["1001", "nobody"])
        assert [(r.key, r.ok) for r in deleted] == [("1001", True), ("nobody", True)]
        assert [user.user_id for user in await driver.users()] == ["1002"]
        assert terminal.enabled
        await driver.close()


async def test_templates_move_between_terminals_of_one_algorithm(transport: str) -> None:
    async with SimulatedZkTerminal() as source, SimulatedZkTerminal(serial="B") as target:
        source.add_user("7")
        source.add_user("8")
        source.add_template("7", 3, TEMPLATE)
        source.add_template("7", 4, TEMPLATE[::-1], flag=3)
        source.add_template("8", 0, b"someone else's")
        target.add_user("7")
        reading, writing = driver_of(source, transport=transport), driver_of(target, transport=transport)
        templates = await reading.templates("7")
        assert [(t.index, t.duress, t.payload) for t in templates] == [(3, False, TEMPLATE), (4, True, TEMPLATE[::-1])]
        assert all(result.ok for result in await writing.put_templates(templates))
        assert await writing.templates("7") == templates
        assert [r.ok for r in await writing.delete_templates("7")] == [True, True]
        assert await writing.templates("7") == []
        assert target.memory.templates == {}
        await reading.close()
        await writing.close()


async def test_a_template_for_nobody_or_of_a_face_is_refused_alone(terminal: SimulatedZkTerminal) -> None:
    terminal.add_user("7")
    driver = driver_of(terminal)
    results = await driver.put_templates(
        [
            DeviceTemplate("9", "fingerprint", 0, "zk-finger-10", TEMPLATE),
            DeviceTemplate("7", "face", 0, "zk-face-7", TEMPLATE),
            DeviceTemplate("7", "fingerprint", 10, "zk-finger-10", TEMPLATE),
            DeviceTemplate("7", "fingerprint", 1, "zk-finger-10", TEMPLATE),
        ]
    )
    assert [result.ok for result in results] == [False, False, False, True]
    assert list(terminal.memory.templates) == [(1, 1)]
    await driver.close()


async def test_templates_are_read_one_by_one_where_the_table_is_refused() -> None:
    async with SimulatedZkTerminal(quirks=Quirks(template_table=False)) as terminal:
        terminal.add_user("7")
        terminal.add_template("7", 3, TEMPLATE)
        driver = driver_of(terminal)
        assert [(t.index, t.payload) for t in await driver.templates("7")] == [(3, TEMPLATE)]
        await driver.close()


async def test_deleting_a_user_takes_the_templates_along(terminal: SimulatedZkTerminal) -> None:
    terminal.add_user("7")
    terminal.add_template("7", 3, TEMPLATE)
    driver = driver_of(terminal)
    assert [result.ok for result in await driver.delete_users(["7"])] == [True]
    assert (terminal.memory.users, terminal.memory.templates) == ({}, {})
    await driver.close()


async def test_a_corrupt_frame_ends_the_connection_on_tcp(terminal: SimulatedZkTerminal) -> None:
    driver, recorder = driver_of(terminal), Recorder()
    async with running(driver, recorder) as task:
        await recorder.until(lambda r: len(r.calls) == 1)
        terminal.corrupt_next()
        terminal.swipe("1001")
        with pytest.raises(FrameError):
            await asyncio.wait_for(task, 5)


async def test_a_lost_reply_is_asked_for_again_on_udp(terminal: SimulatedZkTerminal) -> None:
    driver = driver_of(terminal, transport="udp", reply_s=0.7)
    await driver.probe()
    terminal.corrupt_next()  # a packet with a wrong checksum is as good as lost
    await driver.get_time()
    assert terminal.requests.count(Command.GET_TIME) == 3  # connecting asked once
    await driver.close()


async def test_a_hanging_chunk_ends_the_connection_after_its_timeout(terminal: SimulatedZkTerminal) -> None:
    punch_every_7_s(terminal, 200)
    driver, recorder = driver_of(terminal, chunk_s=0.5), Recorder()
    terminal.hang_next_chunk()
    with pytest.raises(LinkTimeout):
        await asyncio.wait_for(driver.run(recorder), 5)
    await driver.close()


async def test_a_truncated_chunk_is_noticed(terminal: SimulatedZkTerminal) -> None:
    punch_every_7_s(terminal, 200)
    driver, recorder = driver_of(terminal), Recorder()
    terminal.truncate_next_chunk()
    with pytest.raises(ProtocolError, match="announced"):
        await asyncio.wait_for(driver.run(recorder), 5)
    await driver.close()


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"transport": "serial"}, "transport"),
        ({"checksum": "maybe"}, "checksum"),
        ({"user_size": 30}, "user_size"),
        ({"reply_s": 0}, "reply_s"),
        ({"keepalive_s": "soon"}, "keepalive_s"),
    ],
)
def test_a_bad_option_is_named_with_what_is_allowed(options: dict[str, object], names: str) -> None:
    with pytest.raises(ValueError, match=f"option {names} is .* must be"):
        ZktecoTerminal(DeviceConfig(name="gate", kind="zkteco", address="127.0.0.1", options=options))


def test_a_communication_key_that_is_no_number_is_refused_without_being_shown() -> None:
    with pytest.raises(ValueError, match="a number") as refused:
        ZktecoTerminal(DeviceConfig(name="gate", kind="zkteco", address="127.0.0.1", password="hunter2"))
    assert "hunter2" not in str(refused.value)


async def test_nobody_there_is_a_link_error() -> None:
    async with SimulatedZkTerminal() as terminal:
        terminal.go_offline()
        for transport in ("tcp", "udp"):
            with pytest.raises(LinkError):
                await driver_of(terminal, transport=transport, connect_s=1).probe()
