# ruff: noqa: DTZ001 - a terminal's readings have no zone
"""What users of other implementations ran into with ZKTeco 4370 terminals, numbered as in our list of traps."""

from __future__ import annotations

import asyncio
import struct
from datetime import datetime, timedelta

import pytest

from device_drivers.devices import CommandState, DeviceTemplate, DeviceUser
from device_drivers.errors import DeviceRefused, LinkError, LinkTimeout
from device_drivers.events import Origin
from device_drivers.simulated.zkteco import Memory, Quirks, SimulatedZkTerminal
from device_drivers.zkteco.codes import Command
from device_drivers.zkteco.frame import Frame, StreamDecoder
from device_drivers.zkteco.records import decode_live
from tests.device_drivers.zkteco.recorder import Recorder, driver_of, running

START = datetime(2026, 3, 2, 8, 0, 0)
THIRTIETH_OF_FEBRUARY = (((26 * 12 + 1) * 31 + 29) * 24 + 8) * 3600  # of 2026, 08:00, as terminals write it


def punch_every_7_s(terminal: SimulatedZkTerminal, count: int, *, first: int = 0) -> None:
    for index in range(first, first + count):
        terminal.swipe(str(1 + index % 9), 1, index % 2, START + timedelta(seconds=7 * index))


async def backlog(terminal: SimulatedZkTerminal, count: int, **options: object) -> Recorder:
    recorder = Recorder()
    async with running(driver_of(terminal, **options), recorder):
        await recorder.count(count)
    return recorder


@pytest.mark.parametrize("record_size", [8, 16, 40, 49])
@pytest.mark.parametrize("count", [1, 3, 25, 26, 700])
async def test_trap_01_the_stride_is_total_by_count_never_fixed(record_size: int, count: int) -> None:
    async with SimulatedZkTerminal(memory=Memory(record_size=record_size)) as terminal:
        punch_every_7_s(terminal, count)
        recorder = await backlog(terminal, count)
    assert [p.device_time for p in recorder.punches] == [START + timedelta(seconds=7 * i) for i in range(count)]
    assert {len(punch.raw) for punch in recorder.punches} == {record_size}


@pytest.mark.parametrize("packed_status", [False, True], ids=["HB4sB", "ZEM500 HBB4s"])
async def test_trap_02_both_8_byte_layouts_are_told_apart(packed_status: bool) -> None:
    async with SimulatedZkTerminal(memory=Memory(record_size=8, packed_status=packed_status)) as terminal:
        for index in range(60):
            terminal.swipe(str(1 + index % 9), 4, index % 2, START + timedelta(seconds=index))
        recorder = await backlog(terminal, 60)
    assert [(p.device_time, p.verify_code, p.state_code) for p in recorder.punches] == [
        (START + timedelta(seconds=index), 4, index % 2) for index in range(60)
    ]


@pytest.mark.parametrize("user_size", [28, 72])
@pytest.mark.parametrize("told_users", [None, 0, 7])
async def test_trap_03_users_of_28_and_72_bytes_whatever_the_count_says(user_size: int, told_users: int | None) -> None:
    memory = Memory(user_size=user_size)
    async with SimulatedZkTerminal(memory=memory, quirks=Quirks(told_users=told_users)) as terminal:
        for number in range(1, 19):
            terminal.add_user(str(number), name=f"U{number}", card=number)
        driver = driver_of(terminal)
        assert [(u.user_id, u.name, u.card) for u in await driver.users()] == [
            (str(n), f"U{n}", str(n)) for n in range(1, 19)
        ]
        await driver.close()


@pytest.mark.parametrize("live_size", [12, 32, 36, 52])
async def test_trap_04_live_events_of_every_size_reach_us(live_size: int) -> None:
    async with SimulatedZkTerminal(memory=Memory(live_size=live_size)) as terminal:
        recorder = Recorder()
        async with running(driver_of(terminal), recorder):
            await recorder.until(lambda r: len(r.calls) == 1)
            for number in range(5):  # written at once: TCP merges them
                terminal.swipe(str(1001 + number), at=START)
            await recorder.count(5)
    assert [punch.user_id for punch in recorder.punches] == [str(1001 + n) for n in range(5)]


def test_trap_04_live_events_split_and_merged_by_tcp_are_the_same() -> None:
    event = b"1001".ljust(24, b"\0") + bytes((1, 0, 26, 3, 2, 8, 0, 0)) + bytes(20)
    wire = b"".join(Frame(Command.REG_EVENT, 1, 0, event).encode_tcp() for _ in range(3))
    for step in (1, 7, 60, 68, 69, len(wire)):
        decoder = StreamDecoder()
        frames = [f for i in range(0, len(wire), step) for f in decoder.feed(wire[i : i + step])]
        assert [decode_live(frame.payload)[0].user_id for frame in frames] == ["1001"] * 3


@pytest.mark.parametrize(
    "quirks", [Quirks(one_dword_sizes=True), Quirks(told_records=0), Quirks(told_records=7), Quirks(told_records=9999)]
)
async def test_trap_05_a_wrong_count_is_no_proof(quirks: Quirks) -> None:
    async with SimulatedZkTerminal(quirks=quirks) as terminal:
        punch_every_7_s(terminal, 60)
        driver, recorder = driver_of(terminal, keepalive_s=0.05), Recorder()
        async with running(driver, recorder):
            await recorder.count(60)
            terminal.lose_next_live()
            terminal.swipe("77")
            await recorder.until(lambda r: r.punches[-1].user_id == "77")  # the gap is noticed all the same
        assert recorder.punches[-1].origin is Origin.BACKLOG


@pytest.mark.parametrize("transport", ["tcp", "udp"])
async def test_trap_06_chunks_are_asked_for_strictly_one_after_another(transport: str) -> None:
    async with SimulatedZkTerminal(quirks=Quirks(frame_gap_s=0.001)) as terminal:
        punch_every_7_s(terminal, 4000)
        in_flight = 0
        most = 0

        def asked(command: int) -> None:
            nonlocal in_flight, most
            if command == Command.DATA_RDY:
                in_flight = terminal.frames_waiting
                most = max(most, in_flight)

        terminal.on_request = asked
        recorder = await backlog(terminal, 4000, transport=transport)
    assert most == 0
    assert len(recorder.punches) == 4000


async def test_trap_06_each_chunk_has_its_own_timeout() -> None:
    # The whole table takes longer than the timeout; silence of that length is what ends the connection.
    async with SimulatedZkTerminal(quirks=Quirks(frame_gap_s=0.05)) as terminal:
        punch_every_7_s(terminal, 4000)
        assert len((await backlog(terminal, 4000, chunk_s=1.0)).punches) == 4000
        terminal.hang_next_chunk()
        driver = driver_of(terminal, chunk_s=1.0)
        with pytest.raises(LinkTimeout) as silent:
            await asyncio.wait_for(driver.run(Recorder()), 10)
        assert silent.value.timeout_s == 1.0
        await driver.close()


@pytest.mark.parametrize("transport", ["tcp", "udp"])
async def test_trap_06_firmware_without_buffered_reads_is_read_whole(transport: str) -> None:
    async with SimulatedZkTerminal(quirks=Quirks(buffered_reads=False)) as terminal:
        for number in range(1200):
            terminal.add_user(str(number))
        punch_every_7_s(terminal, 1500)
        assert len((await backlog(terminal, 1500, transport=transport)).punches) == 1500
        driver = driver_of(terminal, transport=transport)
        assert len(await driver.users()) == 1200
        await driver.close()


async def test_trap_07_one_session_at_a_time_and_a_new_one_after_a_reboot() -> None:
    async with SimulatedZkTerminal() as terminal:
        first, second = driver_of(terminal), driver_of(terminal)
        await first.probe()
        with pytest.raises(LinkError):
            await second.probe()
        assert terminal.refused_clients == 1
        running_first = asyncio.create_task(first.run(Recorder()))
        await terminal.reboot()
        with pytest.raises(LinkError):
            await asyncio.wait_for(running_first, 5)
        await first.close()
        third = driver_of(terminal)
        assert (await third.probe()).serial == "SIM0000001"
        await third.close()


async def test_trap_07_a_reboot_is_noticed_over_udp_where_nothing_breaks() -> None:
    async with SimulatedZkTerminal() as terminal:
        punch_every_7_s(terminal, 30)
        driver, recorder = driver_of(terminal, transport="udp", keepalive_s=0.3), Recorder()
        async with running(driver, recorder) as task:
            await recorder.count(30)
            await terminal.reboot()
            with pytest.raises(LinkError):  # no empty log, no endless wait for live events
                await asyncio.wait_for(task, 5)
    assert all(cursor != b"" for _, cursor in recorder.calls)


async def test_trap_07_the_terminal_is_enabled_again_after_a_refusal() -> None:
    async with SimulatedZkTerminal(memory=Memory(max_users=1)) as terminal:
        driver = driver_of(terminal)
        results = await driver.upsert_users([DeviceUser("1"), DeviceUser("2")])
        assert [result.ok for result in results] == [True, False]
        assert terminal.enabled
        await driver.close()


async def test_trap_07_the_terminal_is_enabled_again_after_a_cancelled_write() -> None:
    async with SimulatedZkTerminal() as terminal:
        driver = driver_of(terminal)
        await driver.probe()
        reached = asyncio.Event()
        terminal.on_request = lambda command: reached.set() if command == Command.USER_WRQ else None
        writing = asyncio.create_task(driver.upsert_users([DeviceUser(str(n)) for n in range(1, 500)]))
        await reached.wait()
        assert not terminal.enabled
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert terminal.enabled
        await driver.close()


async def test_trap_07_a_terminal_left_disabled_is_enabled_on_connecting() -> None:
    async with SimulatedZkTerminal() as terminal:
        terminal.enabled = False  # the last connection broke in the middle of a write
        driver = driver_of(terminal)
        await driver.probe()
        assert terminal.enabled
        await driver.close()


async def test_trap_08_nothing_clears_the_log_but_an_order_that_covers_all_of_it() -> None:
    async with SimulatedZkTerminal() as terminal:
        punch_every_7_s(terminal, 50)
        driver, recorder = driver_of(terminal), Recorder()
        async with running(driver, recorder):
            position = await driver.read_log()
            assert len({punch.device_time for punch in recorder.punches}) == 50
            assert recorder.cursor == position
            assert Command.CLEAR_ATTLOG not in terminal.requests
            terminal.swipe("1")
            refused = await driver.clear_log(confirmed_through=position)
            assert (refused.state, terminal.memory.records) == (CommandState.FAILED, 51)
            assert "the log holds 51 records and is not what was read" in refused.reason
            done = await driver.clear_log(confirmed_through=await driver.read_log())
            assert (done.state, terminal.memory.records, terminal.enabled) == (CommandState.DONE, 0, True)
            assert await driver.read_log() == b""


async def test_trap_08_a_log_that_somebody_cleared_and_filled_again_is_not_the_one_confirmed() -> None:
    async with SimulatedZkTerminal() as terminal:
        punch_every_7_s(terminal, 50)
        async with running(driver := driver_of(terminal), Recorder()):
            position = await driver.read_log()
            terminal.memory.log.clear()
            punch_every_7_s(terminal, 50, first=50)
            assert (await driver.clear_log(confirmed_through=position)).state is CommandState.FAILED
            assert terminal.memory.records == 50


async def test_trap_08_what_was_read_decides_not_the_terminals_word() -> None:
    async with SimulatedZkTerminal(quirks=Quirks(told_records=0)) as terminal:
        punch_every_7_s(terminal, 50)
        driver = driver_of(terminal)
        assert (await driver.clear_log(confirmed_through=b"")).state is CommandState.FAILED
        assert terminal.memory.records == 50
        await driver.close()


async def test_trap_08_whoever_asks_for_the_log_while_it_is_read_does_not_wait_for_the_next_look() -> None:
    async with SimulatedZkTerminal() as terminal:
        punch_every_7_s(terminal, 50)
        recorder = Recorder()
        recorder.gate.clear()
        async with running(driver := driver_of(terminal, keepalive_s=3600), recorder):
            await recorder.until(lambda heard: bool(heard.calls))
            waiting = asyncio.create_task(driver.read_log())
            await asyncio.sleep(0)
            recorder.gate.set()
            async with asyncio.timeout(10):
                assert await waiting == recorder.cursor


async def test_trap_08_whoever_waits_for_the_log_hears_that_the_connection_ended() -> None:
    async with SimulatedZkTerminal() as terminal:
        recorder = Recorder()
        async with running(driver := driver_of(terminal), recorder):
            await recorder.until(lambda heard: bool(heard.calls))
            recorder.gate.clear()
            terminal.swipe("1")
            await recorder.until(lambda heard: len(heard.calls) > 1)
            waiting = asyncio.create_task(driver.read_log())
            await asyncio.sleep(0)
        with pytest.raises(LinkError, match="before the log was read"):
            await waiting


async def test_trap_09_a_template_of_another_algorithm_is_refused_and_never_sent() -> None:
    async with SimulatedZkTerminal(options={"~ZKFPVersion": "9"}) as terminal:
        terminal.add_user("7")
        driver = driver_of(terminal)
        (result,) = await driver.put_templates([DeviceTemplate("7", "fingerprint", 0, "zk-finger-10", b"\x4d" * 600)])
        assert not result.ok
        assert "zk-finger-10" in result.reason
        assert "zk-finger-9" in result.reason
        assert Command.DATA not in terminal.requests
        assert terminal.memory.templates == {}
        await driver.close()


async def test_trap_09_a_group_is_never_written_into_the_time_zones() -> None:
    async with SimulatedZkTerminal() as terminal:
        driver = driver_of(terminal)
        await driver.upsert_users([DeviceUser("7", name="Eve")])
        entry = terminal.memory.users[1]
        group, *zones = struct.unpack_from("<BHHHH", entry, 39)
        assert (group, zones) == (1, [0, 0, 0, 0])
        terminal.memory.users[1] = entry[:39] + struct.pack("<BHHHH", 2, 1, 4, 5, 0) + entry[48:]
        await driver.upsert_users([DeviceUser("7", name="Adam")])
        assert struct.unpack_from("<BHHHH", terminal.memory.users[1], 39) == (2, 1, 4, 5, 0)
        await driver.close()


@pytest.mark.parametrize(
    ("code_page", "language", "encoding"),
    [("gbk", "83", ""), ("gb2312", "83", ""), ("utf-8", "69", ""), ("gb2312", "69", "gb2312"), ("gbk", "69", "gbk")],
)
async def test_trap_10_names_use_the_terminals_code_page(code_page: str, language: str, encoding: str) -> None:
    async with SimulatedZkTerminal(memory=Memory(code_page=code_page), options={"Language": language}) as terminal:
        terminal.add_user("1", name="王小明")
        driver = driver_of(terminal, encoding=encoding)
        (read,) = await driver.users()
        assert read.name == "王小明"
        await driver.upsert_users([DeviceUser("2", name="张三")])
        assert terminal.memory.users[2][11:35].rstrip(b"\0") == "张三".encode(code_page)
        await driver.close()


async def test_trap_11_times_are_no_cursor() -> None:
    # After a power loss the clock goes back to 2000, or to a date that does not exist.
    async with SimulatedZkTerminal() as terminal:
        punch_every_7_s(terminal, 100)
        before = await backlog(terminal, 100)
        terminal.swipe("5", at=datetime(2000, 1, 1))
        terminal.memory.append("6", 1, 0, THIRTIETH_OF_FEBRUARY)
        terminal.swipe("8", at=START - timedelta(days=900))
        after = Recorder()
        async with running(driver_of(terminal, cursor=before.cursor), after):
            await after.until(lambda r: bool(r.punches) and r.punches[-1].user_id == "8")
    assert [punch.user_id for punch in after.punches[-3:]] == ["5", "6", "8"]
    assert after.punches[-2].device_time is None
    assert len(after.punches) < 50


async def test_trap_12_a_clock_in_a_half_hour_zone_shows_no_offset() -> None:
    # Terminals keep local time; the zone is the configuration's, whole hours or not.
    async with SimulatedZkTerminal(timezone="Asia/Kolkata") as terminal:
        driver = driver_of(terminal, timezone="Asia/Kolkata")
        await driver.probe()
        assert driver.measured_offset is not None
        assert abs(driver.measured_offset) < timedelta(seconds=3)
        terminal.drift_clock(timedelta(minutes=-7))
        await driver.set_time(await driver.get_time())
        assert abs(driver.measured_offset + timedelta(minutes=7)) < timedelta(seconds=3)
        await driver.close()


async def test_an_empty_table_that_is_refused_is_an_empty_table() -> None:
    async with SimulatedZkTerminal(quirks=Quirks(refuses_empty_tables=True)) as terminal:
        recorder = Recorder()
        async with running(driver_of(terminal, keepalive_s=0.05), recorder):
            terminal.swipe("1")
            await recorder.count(1)


async def test_a_table_that_is_refused_though_something_is_stored_is_an_error() -> None:
    quirks = Quirks(refuses_empty_tables=True, told_records=5)
    async with SimulatedZkTerminal(quirks=quirks) as terminal:
        driver = driver_of(terminal)
        with pytest.raises(DeviceRefused):
            await asyncio.wait_for(driver.run(Recorder()), 5)
        await driver.close()
