# ruff: noqa: DTZ001 - a terminal's readings have no zone
from __future__ import annotations

import json
import struct
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_drivers.errors import ProtocolError
from device_drivers.events import Origin, PunchState, VerifyMode
from device_drivers.zkteco.codes import LIVE_SIZES
from device_drivers.zkteco.device_clock import pack_time, unpack_time
from device_drivers.zkteco.frame import StreamDecoder
from device_drivers.zkteco.records import RecordLayout, decode_live, measure_layout
from tests.shared_data import shared

NOON = datetime(2026, 3, 2, 12, 0, 0)
DOCS_RECORD = bytes.fromhex("0d00393939313131333333000000000000000000000000000000016bb368230000000000ff000000")
LIVE_32 = bytes.fromhex("39393931313133333300" + "00" * 14 + "0100" + "120619112905")


def record_40(user_id: str, when: datetime, *, size: int = 40, uid: int = 1) -> bytes:
    return struct.pack("<H24sBIB", uid, user_id.encode(), 1, pack_time(when), 0).ljust(size, b"\0")


def table(size: int, count: int) -> bytes:
    moments = [NOON + timedelta(seconds=7 * i) for i in range(count)]
    if size == 8:
        return b"".join(struct.pack("<HBIB", i % 90 + 1, 1, pack_time(t), i % 2) for i, t in enumerate(moments))
    if size == 16:
        return b"".join(struct.pack("<IIBB6x", 1000 + i, pack_time(t), 1, i % 2) for i, t in enumerate(moments))
    return b"".join(record_40(str(1000 + i), t, size=size, uid=i + 1) for i, t in enumerate(moments))


def field_reports(what: str) -> dict[str, object]:
    vectors = json.loads(shared("vectors", "field_reports_from_issues.json").read_text("utf-8"))["vectors"]
    found: dict[str, object] = next(vector for vector in vectors if what in vector["what"])
    return found


def test_the_documented_record_says_who_when_and_how() -> None:
    punch = RecordLayout(len(DOCS_RECORD)).decode(DOCS_RECORD)
    assert (punch.uid, punch.user_id, punch.verify_code, punch.state_code) == (13, "999111333", 1, 0)
    assert punch.device_time == datetime(2018, 6, 25, 17, 50, 35)


def test_a_date_that_does_not_exist_is_told_alike_by_record_and_live_event() -> None:
    record = struct.pack("<H24sBIB", 1, b"7", 1, pack_time(datetime(2026, 2, 28, 8, 0, 5)) + 3 * 86_400, 0).ljust(
        40, b"\0"
    )
    (live,) = decode_live(b"7".ljust(24, b"\0") + bytes((1, 0, 26, 2, 31, 8, 0, 5)))
    stored = RecordLayout(40).decode(record)
    said = [item.punch("S1", item.user_id, Origin.LIVE) for item in (stored, live)]
    assert said[0] == said[1]
    assert (said[0].device_time, said[0].raw, said[0].said) == (None, b"2026-02-31 08:00:05", "2026-02-31 08:00:05")
    assert stored.raw == record


def test_the_documented_operation_record_has_the_same_clock() -> None:
    _, operation, packed, *parameters = struct.unpack("<HBxI4H", bytes.fromhex("0000062ac29b68230300000007000205"))
    assert (operation, parameters) == (6, [3, 0, 7, 0x0502])
    assert unpack_time(packed) == datetime(2018, 6, 25, 16, 9, 38)


def test_zem500_records_of_the_field_report_decode_as_stated() -> None:
    report = field_reports("ZEM500")
    records = report["records"]
    assert isinstance(records, list)
    layout = RecordLayout(8, packed_status=True)
    expected = [datetime(2016, 1, 1, 19, 2, 0), datetime(2016, 1, 1, 19, 4, 43), datetime(2016, 1, 1, 19, 4, 46)]
    for stated, when in zip(records, expected, strict=True):
        decoded = layout.decode(bytes.fromhex(stated["hex"]))
        assert (decoded.uid, decoded.verify_code, decoded.state_code) == (
            stated["uid"], stated["status"], stated["punch"]
        )  # fmt: skip
        assert decoded.device_time == when


def test_zem500_is_told_from_the_other_8_byte_form_by_what_decodes() -> None:
    wire = bytes.fromhex("07002800a8eba71e7b0028004beca71e7b0028004eeca71e")
    assert measure_layout(wire, table_bytes=24, count=3) == RecordLayout(8, packed_status=True)


def test_a_face_record_of_the_field_report_decodes() -> None:
    wire = bytes.fromhex(str(field_reports("mis-parses with a fixed 40-byte stride")["hex"]))
    decoded = RecordLayout(40).decode(wire.ljust(40, b"\0"))
    assert (decoded.uid, decoded.user_id, decoded.verify_code) == (1, "10036", 15)
    assert decoded.plausible
    assert decoded.device_time is not None
    assert decoded.device_time.year == 2021


@pytest.mark.parametrize("size", [8, 16, 40, 49, 56])
@pytest.mark.parametrize("count", [1, 2, 5, 63, 500])
def test_the_stride_is_the_table_divided_by_the_count(size: int, count: int) -> None:
    data = table(size, count)
    layout = measure_layout(data[:4096], table_bytes=len(data), count=count)
    assert layout.stride == size
    assert layout.split(data)[-1].device_time == NOON + timedelta(seconds=7 * (count - 1))


@pytest.mark.parametrize("size", [8, 16, 40, 49])
@pytest.mark.parametrize("told", [0, 1, 39, 41, 80, 400, 10**9])
def test_a_wrong_count_does_not_mislead(size: int, told: int) -> None:
    data = table(size, 40)
    assert measure_layout(data, table_bytes=len(data), count=told).stride == size


@pytest.mark.parametrize("size", [8, 16, 40, 49])
@pytest.mark.parametrize("count", range(1, 15))
def test_a_count_read_before_the_last_punches_does_not_join_records(size: int, count: int) -> None:
    data = table(size, count)
    for told in range(count + 1):
        assert measure_layout(data, table_bytes=len(data), count=told).stride == size


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_a_size_nobody_has_seen_is_taken_from_the_count(count: int) -> None:
    data = table(80, count)
    assert measure_layout(data, table_bytes=len(data), count=count).stride == 80


def test_a_table_of_spoilt_dates_is_believed_if_count_and_size_agree() -> None:
    data = b"".join(struct.pack("<H24sBIB8x", 1, b"7", 1, 0, 0) for _ in range(3))
    assert measure_layout(data, table_bytes=len(data), count=3).stride == 40


def test_noise_is_no_attendance_table() -> None:
    with pytest.raises(ProtocolError, match="fits no layout"):
        measure_layout(b"\xff" * 41, table_bytes=41, count=0)


def test_an_empty_table_has_no_layout() -> None:
    with pytest.raises(ProtocolError, match="empty"):
        measure_layout(b"", table_bytes=0, count=0)


def test_a_stride_nobody_has_seen_is_refused() -> None:
    with pytest.raises(ProtocolError, match="24 bytes"):
        RecordLayout(24).decode(bytes(24))


def test_unknown_codes_are_kept_as_numbers() -> None:
    wire = struct.pack("<H24sBIB8x", 1, b"7", 77, pack_time(NOON), 9)
    punch = RecordLayout(40).decode(wire).punch("S1", "7", Origin.BACKLOG)
    assert (punch.verify_mode, punch.verify_code) == (VerifyMode.OTHER, 77)
    assert (punch.state, punch.state_code) == (PunchState.OTHER, 9)
    assert punch.raw == wire


def test_the_captured_live_event_says_who_when_and_how() -> None:
    capture = "5050827d28000000f401ac1201000000" + LIVE_32.hex()
    (frame,) = StreamDecoder().feed(bytes.fromhex(capture))
    (event,) = decode_live(frame.payload)
    assert (event.user_id, event.verify_code, event.state_code) == ("999111333", 1, 0)
    assert event.device_time == datetime(2018, 6, 25, 17, 41, 5)


def live(size: int, number: int, *, verify: int = 1) -> bytes:
    tail = bytes((verify, 0, 26, 3, 2, 12, 0, 0))
    if size >= 32:
        return (str(number).encode().ljust(24, b"\0") + tail).ljust(size, b"\0")
    return (number.to_bytes(4 if size == 12 else 2, "little") + tail).ljust(size, b"\0")


@pytest.mark.parametrize("size", LIVE_SIZES)
@pytest.mark.parametrize("together", [1, 2, 3, 7])
def test_live_events_of_every_size_alone_and_several_in_a_packet(size: int, together: int) -> None:
    events = decode_live(b"".join(live(size, 1001 + i) for i in range(together)))
    told = [event.user_id or str(event.uid) for event in events]
    assert told == [str(1001 + i) for i in range(together)]
    assert all(event.device_time == NOON for event in events)


def test_a_live_event_longer_than_any_known_is_read_by_its_beginning() -> None:
    (event,) = decode_live(live(32, 42) + b"\x07" * 29)
    assert (event.user_id, event.device_time) == ("42", NOON)


@pytest.mark.parametrize("payload", [b"", b"\x01", bytes(11)])
def test_a_live_payload_too_short_to_say_anything_is_none(payload: bytes) -> None:
    assert decode_live(payload) == []


@given(st.binary(max_size=400), st.integers(-5, 50))
def test_any_table_raises_only_protocol_errors(data: bytes, count: int) -> None:
    try:
        layout = measure_layout(data, table_bytes=len(data), count=count)
        layout.split(data)
    except ProtocolError:
        return
    assert layout.stride >= 8


@given(st.binary(max_size=400))
def test_any_live_payload_decodes_to_something_or_nothing(data: bytes) -> None:
    assert len(decode_live(data)) <= len(data) // 10
