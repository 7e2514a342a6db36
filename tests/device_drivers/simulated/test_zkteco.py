# ruff: noqa: DTZ001 - a terminal's readings have no zone
"""The simulated ZKTeco terminal does what its controls say; that clients accept it is tested beside this."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from device_drivers.errors import DeviceError, LinkError
from device_drivers.events import Origin
from device_drivers.simulated.zkteco import Memory, SimulatedZkTerminal
from device_drivers.simulated.zkteco_wire import is_sound, masked_key, packet, words_sum
from tests.device_drivers.zkteco.recorder import Recorder, driver_of, running

START = datetime(2026, 3, 2, 8, 0, 0)


def test_its_bytes_are_the_captured_ones() -> None:
    # zk-protocol, terminal.md "Get Platform", both directions.
    assert packet(11, 0x8DF3, 12, b"~Platform\0").hex() == "0b00b9e6f38d0c007e506c6174666f726d00"
    answer = bytes.fromhex("d007714cf38d0c007e506c6174666f726d3d5a454d3736305f54465400")
    assert packet(2000, 0x8DF3, 12, b"~Platform=ZEM760_TFT\0") == answer
    assert is_sound(answer)
    assert not is_sound(answer[:-1] + b"\x01")
    assert words_sum(b"") == 0xFFFF


def test_two_keys_are_masked_apart() -> None:
    assert masked_key(1, 7, 50) != masked_key(2, 7, 50)
    assert masked_key(1, 0x107, 50) != masked_key(1, 0x207, 50)


async def test_tcp_and_udp_share_a_port_number() -> None:
    async with SimulatedZkTerminal() as terminal:
        for transport in ("tcp", "udp"):
            driver = driver_of(terminal, transport=transport)
            assert (await driver.probe()).serial == terminal.serial
            await driver.close()


async def test_unplugged_it_keeps_punches_and_comes_back_at_its_address() -> None:
    async with SimulatedZkTerminal() as terminal:
        address, recorder = terminal.address, Recorder()
        async with running(driver_of(terminal), recorder) as task:
            await recorder.until(lambda r: len(r.calls) == 1)
            terminal.go_offline()
            with pytest.raises(LinkError):
                await asyncio.wait_for(task, 5)
        assert terminal.swipe("1001")
        with pytest.raises(LinkError):
            await driver_of(terminal).probe()
        await terminal.come_back()
        assert terminal.address == address
        after = Recorder()
        async with running(driver_of(terminal), after):
            await after.count(1)
    assert after.punches[0].origin is Origin.BACKLOG


async def test_a_reboot_ends_sessions_and_keeps_memory() -> None:
    async with SimulatedZkTerminal() as terminal:
        terminal.add_user("1001")
        terminal.swipe("1001")
        terminal.enabled = False
        await terminal.reboot()
        assert (terminal.memory.records, list(terminal.memory.uids), terminal.enabled) == (1, ["1001"], True)


async def test_a_drifting_clock_shows_in_time_and_punches() -> None:
    async with SimulatedZkTerminal(clock=lambda: START) as terminal:
        terminal.drift_clock(timedelta(minutes=3))
        recorder, driver = Recorder(), driver_of(terminal)
        async with running(driver, recorder):
            await recorder.until(lambda r: len(r.calls) == 1)
            terminal.swipe("1")
            await recorder.count(1)
            assert await driver.get_time() == START + timedelta(minutes=3)
    assert recorder.punches[0].device_time == START + timedelta(minutes=3)


async def test_a_full_memory_takes_no_more_punches() -> None:
    async with SimulatedZkTerminal(memory=Memory(max_records=3000)) as terminal:
        assert terminal.swipe("1")
        terminal.fill_memory()
        assert (terminal.memory.records, terminal.memory.full) == (3000, True)
        assert not terminal.swipe("1")
        recorder = Recorder()
        async with running(driver_of(terminal), recorder):
            await recorder.count(3000)


async def test_a_disabled_terminal_takes_no_punches() -> None:
    async with SimulatedZkTerminal() as terminal:
        terminal.enabled = False
        assert not terminal.swipe("1")


async def test_corrupts_as_many_frames_as_it_was_told_to() -> None:
    async with SimulatedZkTerminal() as terminal:
        terminal.corrupt_next(2)
        for _ in range(2):
            with pytest.raises(DeviceError):
                await driver_of(terminal).probe()
        driver = driver_of(terminal)
        await driver.probe()
        await driver.close()


async def test_says_how_long_a_live_event_waited_for_its_acknowledgement() -> None:
    waited: asyncio.Queue[float] = asyncio.Queue()
    async with SimulatedZkTerminal() as terminal:
        terminal.on_acknowledged = waited.put_nowait
        recorder = Recorder()
        async with running(driver_of(terminal), recorder):
            await recorder.until(lambda r: len(r.calls) == 1)
            terminal.swipe("1")
            async with asyncio.timeout(5):
                assert 0 <= await waited.get() < 5


async def test_noise_and_hostile_lengths_end_only_their_own_connection() -> None:
    async with SimulatedZkTerminal() as terminal:
        for noise in (b"GET / HTTP/1.1\r\n\r\n", b"PP\x82}\xff\xff\xff\xff", b"PP\x82}\x08\0\0\0" + bytes(8)):
            reader, writer = await asyncio.open_connection(terminal.host, terminal.port)
            writer.write(noise)
            if not noise.endswith(bytes(8)):  # an unsound packet is dropped, the others close
                with pytest.raises((ConnectionError, EOFError)):
                    await asyncio.wait_for(reader.readexactly(1), 5)
            writer.close()
        driver = driver_of(terminal)
        assert (await driver.probe()).serial == terminal.serial
        await driver.close()


@pytest.mark.parametrize("wrong", [{"record_size": 39}, {"user_size": 30}, {"live_size": 11}])
def test_a_firmware_nobody_has_seen_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="it must be one of"):
        Memory(**wrong)  # type: ignore[arg-type]
