# ruff: noqa: DTZ001 - a controller has no zone
"""Published frames: what the adapter sends is theirs byte for byte, and their replies mean what they say.

A socket that knows nothing but the recorded pairs plays the controller, so a request that differs in one byte gets
no answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date, datetime, time
from typing import Any

import pytest
from uhppoted import decode

from device_drivers.devices import CommandState, DeviceConfig, DeviceUser, DoorMode, TimeProfile
from device_drivers.events import DoorEventKind, PunchState
from device_drivers.uhppote import messages
from device_drivers.uhppote.driver import UhppoteController
from tests.shared_data import shared

SERIAL = "405419896"


def vectors(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(shared("vectors", name).read_text("utf-8"))["vectors"]
    return found


class _Replay(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.pairs = {
            bytes.fromhex(v["request"][0]["hex"]): bytes.fromhex(v["response"][0]["hex"])
            for v in vectors("uhppote_codegen.json")
            if v.get("response") and v["name"] != "get status no event"
        }
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if reply := self.pairs.get(data):
            self.transport.sendto(reply, addr)


@contextlib.asynccontextmanager
async def replayed() -> AsyncIterator[UhppoteController]:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(_Replay, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    config = DeviceConfig(
        "panel", "uhppote", f"127.0.0.1:{port}", serial=SERIAL,
        options={"timeout_s": 0.5, "card_format": "wiegand-34"},
    )  # fmt: skip
    try:
        yield UhppoteController(config, cursor=None)
    finally:
        transport.close()


PROFILE = TimeProfile(
    29, frozenset({0, 2, 3, 6}),
    ((time(8, 30), time(11, 45)), (time(13, 15), time(16, 30)), (time(19, 30), time(20, 55))),
    date(2022, 1, 1), date(2022, 12, 31), linked=30,
)  # fmt: skip


async def test_requests_equal_the_recorded_ones_and_replies_are_understood() -> None:
    async with replayed() as driver:
        identity = await driver.probe()
        assert (identity.model, identity.serial, identity.firmware) == ("UT0311-L04", SERIAL, "v8.92")
        assert await driver.get_time() == datetime(2022, 8, 23, 9, 48, 9)
        await driver.set_time(datetime(2022, 8, 23, 9, 49, 3))
        assert (await driver.set_door_mode(3, DoorMode.LOCKED)).state is CommandState.DONE
        assert (await driver.open_door(3, seconds=10)).state is CommandState.DONE
        assert (await driver.capabilities()).users == 11
        assert [r.ok for r in await driver.delete_users(["8165538"])] == [True]


async def test_time_profiles_travel_as_recorded() -> None:
    async with replayed() as driver:
        await driver.set_time_profile(PROFILE)
        stored = await driver.time_profile(29)
        assert stored == replace(
            PROFILE,
            spans=((time(8, 30), time(11, 45)), (time(13), time(17, 15)), (time(19, 15), time(21, 5))),
            linked=31,
        )
        await driver.clear_time_profiles()


def response(name: str) -> bytes:
    return next(bytes.fromhex(v["response"][0]["hex"]) for v in vectors("uhppote_codegen.json") if v["name"] == name)


def test_a_recorded_card_becomes_a_user() -> None:
    expected = DeviceUser(
        "8165538", card="8165538", pin="7531", doors=(2, 3), door_schedules=((3, 29),),
        valid_from=datetime(2022, 1, 1), valid_until=datetime(2022, 12, 31),
    )  # fmt: skip
    assert messages.device_user(decode.get_card_response(response("get card")), "wiegand-34") == expected
    by_index = decode.get_card_by_index_response(response("get card at index"))
    assert messages.device_user(by_index, "wiegand-34") == expected


def test_a_recorded_log_entry_becomes_an_event() -> None:
    entry = messages.Entry.of(decode.get_event_response(response("get event")))
    event = messages.door_event(entry, serial=SERIAL, card_format="wiegand-34")
    assert (event.record_no, event.door, event.reason_code) == (37, 4, 6)
    assert (event.kind, event.reason) == (DoorEventKind.DENIED, "no privilege")
    assert (event.device_time, event.direction) == (datetime(2019, 8, 4, 20, 2, 7), PunchState.IN)


def test_announcements_of_both_firmwares_are_read_and_errors_refused() -> None:
    normal, v6_62, empty, error = (bytes.fromhex(v["hex"]) for v in vectors("uhppote_events.json"))
    assert normal[0] == 0x17
    assert v6_62[0] == 0x19
    for packet in (normal, v6_62):
        event = decode.event(packet)
        assert (event.event_index, event.event_card, event.event_door) == (75312, 10058400, 4)
        assert event.event_timestamp == datetime(2024, 11, 10, 12, 34, 56)
    assert decode.event(empty).event_index == 0
    with pytest.raises(ValueError):
        decode.event(error)


EXPECTATION = re.compile(r"assertEqual\((?:response|event)\.(\w+), (.*)\)$")
DECODERS = {
    0x94: decode.get_controller_response, 0x92: decode.get_listener_response, 0x20: decode.get_status_response,
    0x32: decode.get_time_response, 0x5A: decode.get_card_response, 0x5C: decode.get_card_by_index_response,
    0xB0: decode.get_event_response, 0x98: decode.get_time_profile_response,
    0xC8: decode.restore_default_parameters_response, 0x86: decode.get_antipassback_response,
    0x84: decode.set_antipassback_response, 0xAA: decode.set_firstcard_response,
}  # fmt: skip


def test_the_library_in_the_lock_file_reads_every_published_reply() -> None:
    checked = 0
    for vector in vectors("uhppote_py_decode.json"):
        packet = bytes.fromhex(vector["bytes"][0])
        read = decode.event if "listen" in vector["name"] and packet[1] == 0x20 else DECODERS[packet[1]]
        reply = read(packet)
        for line in vector["expect"]:
            found = EXPECTATION.search(line)
            assert found, line
            assert repr(getattr(reply, found[1])) == found[2].replace("PIN(0)", "0"), vector["name"]
            checked += 1
    assert checked > 100


def test_a_clock_that_shows_no_date_becomes_no_time_but_keeps_the_event() -> None:
    packet = next(
        bytes.fromhex(v["bytes"][0])
        for v in vectors("uhppote_py_decode.json")
        if v["name"] == "test_get_event_response_with_invalid_timestamp"
    )
    entry = messages.Entry.of(decode.get_event_response(packet))
    event = messages.door_event(entry, serial=SERIAL, card_format="wiegand-34")
    assert (event.device_time, event.record_no, event.kind) == (None, 10001, DoorEventKind.REMOTE_OPEN)
