# ruff: noqa: DTZ001 - a device's clock is naive
from __future__ import annotations

import contextlib
import struct
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_drivers.c3 import messages
from device_drivers.c3.discovery import read
from device_drivers.c3.frame import Frame, FrameDecoder
from device_drivers.c3.messages import Column, Table
from device_drivers.devices import DeviceUser, Identity
from device_drivers.errors import ProtocolError
from device_drivers.events import DoorEventKind, Origin, PunchState, VerifyMode
from tests.device_drivers.c3.test_frame import replies, vectors

SN = "DGD"


def config() -> dict[str, Table]:
    return messages.tables(replies("data_cfg_response_data")[4:-3])


def test_reads_the_recorded_schema() -> None:
    found = config()
    assert len(found) == 13
    user = found["user"]
    assert (user.index, len(user.columns)) == (1, 9)
    assert user.columns[5] == Column("StartTime", 6, is_text=False)
    assert user.columns[7] == Column("Name", 8, is_text=True)


def test_reads_the_recorded_users() -> None:
    """Recorded with a length that is not its own, so the rows are taken by their place."""
    rows = next(v["bytes"][-1] for v in vectors("c3_test_core.json") if v["name"] == "test_core_get_device_data_user")
    data = bytes.fromhex(rows)[4:-3]
    first, second = config()["user"].decode(data)
    assert (first["UID"], first["CardNo"]) == (1, 1234567)
    assert (second["StartTime"], second["EndTime"]) == (20220202, 20230303)
    user = messages.user({**second, "Pin": 7}, {"7": (0b101, 4)})
    assert user is not None
    assert (user.doors, user.schedule) == ((1, 3), 4)
    assert user.valid_until == datetime(2023, 3, 3)


def test_asks_for_rows_as_recorded() -> None:
    user = config()["user"]
    assert user.request(user.columns).hex() == "01090102030405060708090000"


def test_rows_round_trip_and_zero_has_one_byte() -> None:
    user = config()["user"]
    row = messages.user_row(DeviceUser("7", name="王", card="1234567", pin="99", valid_until=datetime(2026, 12, 31)))
    data = user.encode([row])
    [back] = user.decode(data)
    assert back == {**row, "Pin": 7, "CardNo": 1234567}
    assert b"\x01\x00" in data


@pytest.mark.parametrize("user", [DeviceUser("abc"), DeviceUser("7", card="12x"), DeviceUser("7", name="x" * 300)])
def test_what_a_column_cannot_hold_is_refused(user: DeviceUser) -> None:
    with pytest.raises(ValueError):
        config()["user"].encode([messages.user_row(user)])


def test_a_schema_differs_by_panel_and_unknown_columns_stay_out() -> None:
    found = messages.tables(b"user=3,Pin=s1,CardNo=L2,Odd=x3,Worse=i,=i9\nnonsense\n=4\nbad=0,A=i1\n")
    table = found["user"]
    assert [column.name for column in table.columns][:2] == ["Pin", "CardNo"]
    assert table.encode([messages.user_row(DeviceUser("A7", card="5"))]) == bytes([3, 2, 2, 1, 1, 5, 2]) + b"A7"


def test_reads_recorded_parameters() -> None:
    frames = FrameDecoder().feed(replies("test_core_connect_session_less"))
    said = messages.text_pairs(frames[-1].data)
    assert said == {"~SerialNumber": "DDG8130016092200401", "LockCount": "4", "AuxInCount": "4", "AuxOutCount": "4"}


def recorded(test: str) -> bytes:
    return bytes.fromhex(next(v["bytes"][0] for v in vectors("c3_test_rtlog.json") if v["name"] == test))


def test_reads_recorded_binary_events() -> None:
    [aux], _ = messages.binary_log(recorded("test_c3_rtlog_event_decode1"), serial=SN)
    assert aux.device_time == datetime(2017, 7, 31, 8, 54, 10)
    assert (aux.door, aux.user_id, aux.card) == (1, "", "")
    [card], _ = messages.binary_log(recorded("test_c3_rtlog_event_decode2"), serial=SN)
    assert (card.kind, card.verify_mode, card.door) == (DoorEventKind.GRANTED, VerifyMode.CARD, 1)
    assert card.card == str(0x12643017)
    assert card.direction is PunchState.IN


def test_reads_recorded_door_states() -> None:
    _, [state] = messages.binary_log(recorded("test_c3_rtlog_decode_status1"), serial=SN)
    assert state.alarms == bytes([3, 0, 0, 0])
    assert state.sensors[0] & 0x0F == 1
    _, [state] = messages.binary_log(recorded("test_c3_rtlog_decode_status2"), serial=SN)
    assert state.sensors[0] & 0x0F == 2


def test_reads_the_recorded_text_log() -> None:
    wire = bytes.fromhex(
        "".join(next(v["bytes"] for v in vectors("c3_test_rtlog.json") if "keyvalue" in v["name"])[6:])
    )
    zeros, log, status = FrameDecoder().feed(wire)
    assert not messages.is_binary_log(zeros.data)
    events, _ = messages.text_log(log.data, serial=SN)
    start, opened = events
    assert (start.kind, start.record_no) == (DoorEventKind.POWER_RESTORED, 8)
    assert (opened.kind, opened.door, opened.record_no) == (DoorEventKind.REMOTE_OPEN, 1, 9)
    assert opened.device_time == datetime(2023, 12, 6, 22, 57, 54)
    _, [state] = messages.text_log(status.data, serial=SN)
    assert list(state.sensors[:4]) == [0, 1, 2, 0]
    assert state.alarms == bytes(4)


def test_an_unreadable_text_line_is_kept() -> None:
    [event], _ = messages.text_log(b"what is this", serial=SN)
    assert (event.kind, event.raw) == (DoorEventKind.OTHER, b"what is this")


def test_a_record_says_the_same_live_and_stored() -> None:
    raw = struct.pack("<IIBBBBI", 77, 8, 4, 1, 0, 0, 548003688)
    [live], _ = messages.binary_log(raw, serial=SN)
    row = {
        "Cardno": 77,
        "Pin": 8,
        "Verified": 4,
        "DoorID": 1,
        "EventType": 0,
        "InOutState": 0,
        "Time_second": 548003688,
    }
    stored = messages.stored_event(row | {"Index": 5}, serial=SN, origin=Origin.LIVE, raw=raw)
    assert live == stored
    assert messages.stored_event(row | {"Index": 5}, serial=SN, origin=Origin.LIVE, numbered=True).record_no == 5


@pytest.mark.parametrize(
    ("data", "wire"),
    [
        (messages.open_door(1, 200), "010101c800"),
        (messages.open_door(3, 200), "010301c800"),
        (messages.CANCEL_ALARM, "0200000000"),
        (messages.RESTART, "0300000000"),
        (messages.end_normal_open(2), "0402000000"),
        (messages.open_door(1, 9999), "010101fe00"),
        (messages.open_door(1, 0.2), "0101010100"),
    ],
)
def test_controls_as_published(data: bytes, wire: str) -> None:
    assert data.hex() == wire


def test_reads_an_answer_to_the_makers_call() -> None:
    answer = Frame(0xC8, b"MAC=00:17:61:01:02:03,IP=192.0.2.7,SN=DGD1,Device=C3-200,Ver=AC Ver 4.3.4").encode()
    panel = ("192.0.2.7", Identity("ZKTeco", "C3-200", "DGD1", "AC Ver 4.3.4"))
    assert read([b"noise", answer, answer, Frame(0xC8, b"x").encode()]) == [panel]


@given(st.binary(max_size=300))
def test_any_bytes_give_values_or_a_declared_error(data: bytes) -> None:
    messages.text_pairs(data)
    for table in messages.tables(b"user=1,Pin=i1\n" + data).values():
        with contextlib.suppress(ProtocolError):
            table.decode(bytes([table.index]) + data)
    messages.text_log(data, serial=SN)
    with contextlib.suppress(ProtocolError):
        messages.binary_log(data, serial=SN)


@given(st.lists(st.tuples(st.integers(0, (1 << 64) - 1), st.text(max_size=40)), max_size=6))
def test_any_rows_round_trip(rows: list[tuple[int, str]]) -> None:
    table = Table("t", 9, (Column("n", 1, is_text=False), Column("s", 4, is_text=True)))
    values = [{"n": number, "s": text} for number, text in rows]
    if values:
        assert table.decode(table.encode(values)) == values
