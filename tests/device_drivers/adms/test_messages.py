# ruff: noqa: DTZ001 - a device's clock is naive
"""Push bodies, against the vendor's printed captures, a real terminal's log and an outside implementation's cases."""

from __future__ import annotations

import base64
import contextlib
import json
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_drivers.adms import messages
from device_drivers.adms.rows import decode_text, lines, parse_options, parse_row, parse_time
from device_drivers.adms.session import Info
from device_drivers.errors import ProtocolError
from device_drivers.events import DoorEvent, DoorEventKind, Punch, PunchState, VerifyMode
from device_drivers.zk_access import decode_seconds, encode_seconds
from tests.shared_data import shared

SN = "SN00000000001"


def vectors(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(shared("vectors", name).read_text("utf-8"))["vectors"]
    return found


def of_test(name: str, file: str) -> list[str]:
    return [
        v["body"] for v in vectors("adms_zkteco_php_tests.json") if v["test"].startswith(name) and v["file"] == file
    ]


def test_reads_the_log_of_a_real_terminal() -> None:
    posts = [v for v in vectors("adms_zmm510_pushdemo_log.json") if v["kind"] == "POST"]
    assert len(posts) > 8
    for vector in posts:
        body = vector["body"].encode()
        query = dict(parse_qsl(urlsplit(vector["url"]).query))
        if query["table"] == "ATTLOG":
            [punch] = messages.attlog(body, serial=SN)
            assert isinstance(punch, Punch)
            assert (punch.user_id, punch.verify_mode, punch.state) == ("1", VerifyMode.FACE, PunchState.IN)
            assert punch.device_time is not None
            assert punch.raw == body.rstrip(b"\n")
        elif body.startswith(b"OPLOG"):
            event = messages.operation(body.rstrip(b"\n"), serial=SN)
            assert event.reason_code in {4, 70, 71}
            assert event.device_time is not None
        else:
            user = messages.user(parse_row(body.rstrip(b"\n")))
            assert user is not None
            assert (user.user_id, user.privilege, user.card) == ("1", 14, "")


def test_reads_what_a_getrequest_tells_of_the_device() -> None:
    info = Info.parse(next(v["info"] for v in vectors("adms_zmm510_pushdemo_log.json") if "info" in v))
    assert info is not None
    assert (info.firmware, info.users, info.fingers, info.records) == ("ZMM510-NF24VB-Ver2.1.4", 1, 1, 1)
    assert info.finger_version == "10"


def specification(step: str) -> bytes:
    body: str = next(v["body"] for v in vectors("adms_security_push_spec_examples.json") if v["step"] == step)
    return body.encode()


def test_reads_the_specifications_rtlog() -> None:
    [event] = messages.rtlog(specification("rtlog"), serial=SN)
    assert isinstance(event, DoorEvent)
    assert event.kind is DoorEventKind.DENIED
    assert (event.door, event.record_no, event.reason_code) == (1, 21, 27)
    assert event.device_time == datetime(2017, 1, 10, 11, 49, 32)
    assert event.direction is PunchState.OUT
    assert event.user_id == ""
    assert event.card == ""


def test_reads_the_specifications_rtstate_printed_one_digit_short() -> None:
    [state] = messages.rtstate(specification("rtstate"))
    assert state.alarms[0] == 0x02
    assert state.device_time == datetime(2017, 1, 10, 15, 42, 40)


def test_sensors_are_two_bits_a_door_from_the_lowest() -> None:
    [state] = messages.rtstate(b"time=2023-12-09 15:09:33\tsensor=24\trelay=04\talarm=00000000")
    assert [state.sensor(door) for door in (1, 2, 3, 4, 5)] == [0, 1, 2, 0, 0]


def test_reads_the_specifications_user_and_options() -> None:
    user = messages.user(parse_row(specification("user upload")))
    assert user is not None
    assert (user.user_id, user.card, user.enabled) == ("4", "", True)
    options = parse_options(specification("registry"))
    assert (options["~DeviceName"], options["LockCount"], options["~ZKFPVersion"]) == ("F20/M", "1", "10")
    assert parse_options(specification("options"))["FWVersion"] == "Ver 8.0.4.1-20180102"


def test_a_card_number_in_brackets_has_its_lowest_byte_first() -> None:
    user = messages.user(parse_row(b"user pin=4\tcardno=[15CD5B07]"))
    assert user is not None
    assert user.card == "123456789"


def test_reads_the_outside_implementations_attendance_lines() -> None:
    [punch] = messages.attlog(of_test("parses a tab-separated", "AttlogParserTest.php")[0].encode(), serial=SN)
    assert isinstance(punch, Punch)
    assert (punch.user_id, punch.device_time) == ("1001", datetime(2026, 6, 19, 14, 30, 15))
    assert punch.verify_mode is VerifyMode.FINGER
    both = messages.attlog(of_test("parses multiple rows", "AttlogParserTest.php")[0].encode(), serial=SN)
    assert [event.state for event in both if isinstance(event, Punch)] == [PunchState.IN, PunchState.OUT]


def test_trap_17_trailing_attlog_fields_may_be_absent_or_more() -> None:
    short = messages.attlog(b"7\t2026-06-19 09:15:00", serial=SN)
    long = messages.attlog(b"7\t2026-06-19 09:15:00\t0\t0" + b"\t0" * 40, serial=SN)
    for event in [*short, *long]:
        assert isinstance(event, Punch)
        assert (event.user_id, event.verify_code, event.state_code) == ("7", 0, 0)


def test_lines_without_number_or_date_are_kept_and_stop_nobody() -> None:
    body = (
        of_test("skips rows missing a user id", "AttlogParserTest.php")[0].encode() + b"\n9\t2026-06-19 09:00:00\t1\t4"
    )
    events = messages.attlog(body, serial=SN)
    assert len(events) == 4
    assert isinstance(events[0], DoorEvent)
    assert events[0].raw.startswith(b"\t2026")
    dateless = events[1]
    assert isinstance(dateless, Punch)
    assert dateless.device_time is None
    assert dateless.raw.startswith(b"5\tnot-a-date")
    last = events[-1]
    assert isinstance(last, Punch)
    assert last.verify_mode is VerifyMode.CARD


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        (b"FVEIN Pin=1\tFID=0\tTmp=" + b"QUJD" * 400, b"FVEIN Pin=1\tFID=0\tTmp=[1600 bytes]"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01" + bytes(600), b"[616 bytes that are no text]"),
        (b"palmv4 pin=1\ttemplate=\xff\xfe" + b"\x80" * 200, b"palmv4 pin=1\ttemplate=[202 bytes]"),
        (b"short and odd", b"short and odd"),
    ],
)
def test_what_nobody_can_read_is_kept_without_anything_that_could_be_a_template(line: bytes, kept: bytes) -> None:
    assert messages.unreadable("A1", "other", line).raw == kept


def test_trap_17_positional_rtlog_lines_are_kept_as_unknown_and_never_guessed() -> None:
    distrusted = [v["body"] for v in vectors("adms_zkteco_php_tests.json") if v["file"] == "RtlogParserTest.php"]
    assert len(distrusted) == 5
    for body in distrusted:
        expected = [line for line in body.encode().split(b"\n") if line.strip()]
        events = messages.rtlog(body.encode(), serial=SN)
        assert [event.raw for event in events] == [line.rstrip() for line in expected]
        assert all(isinstance(event, DoorEvent) and event.kind is DoorEventKind.OTHER for event in events)


def test_a_grant_on_a_panel_is_a_punch_with_the_panels_own_number() -> None:
    line = b"time=2017-01-10 11:49:32\tpin=8\tcardno=77\teventaddr=1\tevent=0\tinoutstatus=1\tverifytype=15\tindex=22"
    [punch] = messages.rtlog(line, serial=SN)
    assert isinstance(punch, Punch)
    assert (punch.record_no, punch.verify_mode, punch.state) == (22, VerifyMode.FACE, PunchState.OUT)
    [door] = messages.rtlog(line, serial=SN, punches=False)
    assert isinstance(door, DoorEvent)
    assert (door.kind, door.user_id, door.door) == (DoorEventKind.GRANTED, "8", 1)


def test_stored_access_records_carry_packed_seconds() -> None:
    line = (
        b"transaction cardno=0\tpin=0\tverified=200\tdoorid=1\teventtype=100\tinoutstate=2"
        b"\ttime_second=548003688\tindex=92"
    )
    [event] = messages.rtlog(line, serial=SN)
    assert isinstance(event, DoorEvent)
    assert (event.kind, event.record_no) == (DoorEventKind.TAMPER, 92)
    assert event.device_time == decode_seconds(548003688)
    assert event.device_time is not None
    assert event.device_time.year == 2017


def test_verification_as_a_string_of_bits_says_one_way_or_several() -> None:
    head = b"time=2017-01-10 11:49:32\tpin=8\tevent=0\tinoutstatus=0\tindex=1\tverifytype="
    modes = [
        event.verify_mode
        for bits in (b"0000000000000010", b"0000100000000000", b"0000101000000010")
        for event in messages.rtlog(head + bits, serial=SN)
        if isinstance(event, Punch)
    ]
    assert modes == [VerifyMode.FACE, VerifyMode.CARD, VerifyMode.COMBINED]


def test_reads_operations_wherever_their_time_stands() -> None:
    for body in of_test("parses an OPLOG row", "OperlogParserTest.php") + of_test("anchors", "OperlogParserTest.php"):
        event = messages.operation(body.encode(), serial=SN)
        assert event.device_time is not None
        assert event.reason_code in {0, 6}
    unreadable = messages.operation(b"OPLOG\t4\t1\tnot-a-date", serial=SN)
    assert unreadable.raw == b"OPLOG\t4\t1\tnot-a-date"


def test_a_broken_case_is_a_tamper_event() -> None:
    event = messages.operation(b"OPLOG 3\t0\t2026-01-31 08:17:08\t55\t0\t0\t0", serial=SN)
    assert event.kind is DoorEventKind.TAMPER


def test_reads_the_outside_implementations_users() -> None:
    user = messages.user(parse_row(of_test("parses a USER row", "OperlogParserTest.php")[0].encode()))
    assert user is not None
    assert (user.user_id, user.name, user.privilege, user.card, user.pin) == ("1001", "Alice", 14, "12345", "secret")
    assert messages.user(parse_row(b"USER Name=Nopin\tPri=0")) is None


def test_biodata_keeps_type_version_and_format_in_the_algorithms_name() -> None:
    row = parse_row(
        b"BIODATA Pin=007\tNo=0\tIndex=0\tValid=1\tDuress=0\tType=9\tMajorVer=39\tMinorVer=3\tFormat=0\tTmp=QUJD"
    )
    template = messages.template(row, table="biodata")
    assert template is not None
    assert (template.user_id, template.modality, template.algorithm) == ("007", "face", "biodata-9-39.3-0")
    assert template.payload == b"ABC"
    assert "ABC" not in repr(template)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("BIODATA Pin=1001\tNo=0\tIndex=2\tValid=1\tType=1\tTmp=QUJD", True),
        ("Pin=1001\tTmpData=WFla", True),
        ("Type=1\tTmp=QUJD", False),
        ("Pin=1001\tType=1\n", False),
        ("Pin=1001\tType=1\tTmp=not base64!", False),
    ],
)
def test_a_template_needs_a_number_and_readable_bytes(body: str, found: bool) -> None:
    assert (messages.template(parse_row(body.encode().strip()), table="biodata") is not None) is found


def test_a_duress_finger_is_told_by_sixteen_or_by_three() -> None:
    for line in (b"templatev10 pin=4\tfingerid=22\tvalid=1\ttemplate=QUJD", b"FP PIN=4\tFID=6\tValid=3\tTMP=QUJD"):
        template = messages.template(parse_row(line), table="fp", finger_version="10")
        assert template is not None
        assert (template.index, template.duress, template.algorithm) == (6, True, "zk-finger-10")


def test_confirmations_come_batched_one_a_line() -> None:
    body = next(v["body"] for v in vectors("adms_speedface_findings.json") if "batched" in v.get("note", ""))
    assert [(c.command_id, c.code, c.command) for c in messages.confirmations(body.encode())] == [
        (1, 0, "DATA"), (2, 0, "DATA"), (3, 0, "CHECK"),
    ]  # fmt: skip


def test_trap_15_confirmations_have_a_form_of_several_lines() -> None:
    body = next(v["body"] for v in vectors("adms_speedface_findings.json") if "multi-line" in v.get("note", ""))
    [one] = messages.confirmations(body.encode())
    assert (one.command_id, one.code, one.command) == (32, 0, "Shell")
    assert one.content["Content"].startswith("Tue Mar 24")


def test_confirmations_spell_return_both_ways() -> None:
    assert messages.confirmations(b"ID=415&return=3&CMD=DATA QUERY")[0].code == 3
    assert messages.confirmations(b"ID=9&Return=-5000&CMD=DATA&SN=1")[0].code == -5000


def test_photos_come_in_base64_or_behind_a_nul() -> None:
    jpeg = b"\xff\xd8\xff\x00\n\x00picture"
    line = b"BIOPHOTO PIN=12\tFileName=12.jpg\tType=9\tSize=4\tContent=" + base64.b64encode(jpeg)
    [photo] = messages.photos(line, serial=SN, table="biophoto")
    assert (photo.name, photo.jpeg) == ("12", jpeg)
    [snapshot] = messages.photos(
        b"PIN=20260619-1.jpg\nSN=1\nsize=9\nCMD=uploadphoto\0" + jpeg, serial=SN, table="attphoto"
    )
    assert (snapshot.name, snapshot.jpeg) == ("20260619-1.jpg", jpeg)
    assert "picture" not in repr(snapshot)


def test_names_are_read_in_the_devices_code_page() -> None:
    name = "王小明"
    assert decode_text(name.encode("utf-8")) == name
    assert decode_text(name.encode("gb2312")) == name
    assert decode_text("Ærø".encode("cp1252"), "cp1252") == "Ærø"
    assert decode_text(b"\xff\xff\xff") == "\\xff\\xff\\xff"


def test_packed_seconds_have_months_of_31_days() -> None:
    moment = datetime(2018, 2, 22, 16, 19, 20)
    assert decode_seconds(encode_seconds(moment)) == moment
    assert decode_seconds(encode_seconds(datetime(2018, 3, 1)) - 86_400) is None  # 31 February
    assert decode_seconds(-1) is None


def test_a_time_with_a_zone_is_not_a_device_time() -> None:
    assert parse_time("2026-06-19T08:00+00") is None
    assert parse_time("2026-06-19T08:00+01:0") is None


def test_too_many_lines_are_refused_before_they_are_split() -> None:
    with pytest.raises(ProtocolError):
        messages.rtstate(b"\n" * 60_000)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"17\t2026/11/20 08:00:01\t0\t1\t0\t0\t0\t1\t37.9", "2026/11/20 08:00:01"),
        (b"17\t2026-11-20 08:00\t0\t1", "2026-11-20 08:00"),
        (b"17,2026-11-20 08:00:01,0,1,0,0,0,1,37.9", "17,2026-11-20 08:00:01,0,1"),
        (b"\t2026-11-20 08:00:01\t0\t1\t0\t0\t0\t1\t37.9", "\t2026-11-20 08:00:01\t0\t1"),
        (b"A" * 300, "[300 bytes]"),
        (b"17\t2026-11-20 08:00:01\t0\t1", ""),
    ],
)
def test_what_cannot_be_read_of_a_punch_is_said_as_it_came_without_health(line: bytes, said: str) -> None:
    (event,) = messages.attlog(line, serial=SN)
    assert isinstance(event, Punch | DoorEvent)
    assert event.said == said


def test_an_access_event_with_an_unreadable_time_says_the_time_alone() -> None:
    (event,) = messages.rtlog(b"time=20-11-2026 8:00\tpin=7\tcardno=12345\tevent=0\ttemperature=37.9", serial=SN)
    assert isinstance(event, Punch)
    assert (event.device_time, event.said) == (None, "20-11-2026 8:00")
    assert messages.unreadable(SN, "some table", b"TMP=QUJD").said == ""


def test_lines_of_every_ending() -> None:
    assert list(lines(b"a\r\n\n \nb\nc")) == [b"a", b"b", b"c"]
    assert list(lines(b"")) == []


@given(st.binary(max_size=400))
def test_any_bytes_give_events_or_a_declared_error(body: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        for event in [*messages.attlog(body, serial=SN), *messages.rtlog(body, serial=SN)]:
            assert len(event.raw) <= 4096
        messages.rtstate(body)
        messages.confirmations(body)
        messages.photos(body, serial=SN, table="attphoto")
        parse_options(body)
        for line in lines(body):
            row = parse_row(line)
            messages.user(row)
            messages.operation(line, serial=SN)
            for table in ("biodata", "fp", "face"):
                messages.template(row, table=table)


@given(
    st.text("0123456789", min_size=1, max_size=9),
    st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31)),
    st.integers(0, 255),
    st.integers(0, 255),
)
def test_an_attendance_line_round_trips(pin: str, moment: datetime, state: int, verify: int) -> None:
    moment = moment.replace(microsecond=0)
    [punch] = messages.attlog(f"{pin}\t{moment:%Y-%m-%d %H:%M:%S}\t{state}\t{verify}\t0\n".encode(), serial=SN)
    assert isinstance(punch, Punch)
    assert (punch.user_id, punch.device_time, punch.state_code, punch.verify_code) == (pin, moment, state, verify)
