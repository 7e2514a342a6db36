# ruff: noqa: DTZ001 - a device's clock is naive
"""Somebody else's reading of push bodies beside ours: iclockhelper (MIT) of 2020, attendance push alone."""

from __future__ import annotations

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st
from iclockhelper.models import AttendanceLog, AttendancePhotoLog, Operation

from device_drivers.adms import messages
from device_drivers.events import DoorEvent, Punch
from tests.device_drivers.adms.test_messages import vectors

MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31)).map(lambda moment: moment.replace(microsecond=0))
LINES = st.lists(
    st.tuples(st.from_regex(r"[A-Za-z0-9]{1,12}", fullmatch=True), MOMENTS, st.integers(0, 255), st.integers(0, 255)),
    min_size=1,
    max_size=5,
).map(lambda rows: "\n".join(f"{pin}\t{at}\t{state}\t{verify}\t0\t0" for pin, at, state, verify in rows))


def told(body: str) -> list[tuple[str, datetime | None, str, str]]:
    return [
        (event.user_id, event.device_time, str(event.state_code), str(event.verify_code))
        for event in messages.attlog(body.encode(), serial="A1")
        if isinstance(event, Punch)
    ]


def theirs(body: str) -> list[tuple[str, datetime | None, str, str]]:
    return [
        (line.pin, line.server_datetime, line.check_type, line.verify_code)
        for line in AttendanceLog.from_str(body).transactions
        if line.raw
    ]


@given(LINES)
def test_attendance_lines_say_the_same_to_both(body: str) -> None:
    assert told(body) == theirs(body)


def test_the_log_of_a_real_terminal_says_the_same_to_both() -> None:
    posts = [v for v in vectors("adms_zmm510_pushdemo_log.json") if v["kind"] == "POST" and "ATTLOG" in v["url"]]
    bodies = [v["body"].rstrip("\n") for v in posts]
    assert bodies
    for body in bodies:
        assert told(body) == theirs(body)


def test_an_operation_says_the_same_to_both() -> None:
    line = "3\t0\t2026-06-19 08:00:00\t55\t0\t0\t0"
    theirs_ = Operation.from_str(line)
    ours = messages.operation(b"OPLOG " + line.encode(), serial="A1")
    assert isinstance(ours, DoorEvent)
    assert (ours.device_time, str(ours.reason_code)) == (theirs_.server_datetime, theirs_.operation.value)
    assert theirs_.alarm.name == "machine_been_broken"
    assert ours.kind == "tamper"


def test_a_snapshot_names_the_same_file_to_both() -> None:
    head = "PIN=20260619080000-1001.jpg\nSN=A1\nsize=3\nCMD=uploadphoto"
    [photo] = messages.photos(f"{head}\0".encode() + b"\xff\xd8\xff", serial="A1", table="attphoto")
    assert photo.name == "20260619080000-1001.jpg"
    assert AttendancePhotoLog.from_request_pin("", head).pin == "1001"
