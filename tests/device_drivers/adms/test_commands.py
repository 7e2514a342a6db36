# ruff: noqa: DTZ001 - a device's clock is naive
from __future__ import annotations

from datetime import datetime

import pytest

from device_drivers.adms import commands
from device_drivers.adms.commands import Dialect
from device_drivers.adms.messages import template
from device_drivers.adms.rows import parse_row
from device_drivers.devices import DeviceTemplate, DeviceUser

# source: command list of the maker's attendance push demonstration (public copies in several repositories)
MAKERS_WORDS = {
    "DATA UPDATE USERINFO": "PIN Name Pri Passwd Card Grp TZ",
    "DATA UPDATE FINGERTMP": "PIN FID Size Valid TMP",
    "DATA UPDATE FACE": "PIN FID Valid Size TMP",
    "DATA UPDATE BIODATA": "Pin No Index Valid Duress Type MajorVer MinorVer Format Tmp",
    "DATA DELETE USERINFO": "PIN",
    "DATA DELETE FINGERTMP": "PIN FID",
    "DATA DELETE FACE": "PIN",
    "DATA DELETE BIODATA": "Pin Type No",
    "DATA DELETE BIOPHOTO": "PIN",
    "DATA QUERY USERINFO": "PIN",
    "DATA QUERY ATTLOG": "StartTime EndTime",
    "DATA QUERY FINGERTMP": "PIN FID",
    "DATA QUERY BIODATA": "Type PIN No",
    "INFO": "",
    "REBOOT": "",
    "AC_UNLOCK": "",
    "CLEAR LOG": "",
}
# told back by terminals beside the maker's list: USER PIN=9001 ... Verify=-1 ViceCard= StartDatetime=0 EndDatetime=0
SEEN_BESIDE = {"Verify"}


def test_attendance_words_and_their_fields_are_the_makers() -> None:
    words = Dialect.ATTENDANCE
    moment = datetime(2026, 6, 19, 8)
    texts = [
        *commands.put_user(DeviceUser("1", name="Ann", card="1", pin="2"), words),
        *(
            commands.put_template(DeviceTemplate("1", kind, 6, algorithm, b"x"), words)
            for kind, algorithm in (
                ("fingerprint", "zk-finger-10"),
                ("face", "zk-face-7"),
                ("face", "biodata-9-39.3-0"),
            )
        ),
        *commands.delete_user("1", words),
        *commands.delete_templates("1", (0, 1, 9), words),
        *commands.delete_face_sources("1", words),
        commands.query_users(words),
        commands.query_templates("1", 0, words),
        commands.query_templates("1", 9, words),
        commands.query_log(moment, moment, words),
        commands.open_door(1, 5, words),
        commands.reboot(words),
        commands.clear_log(words),
        commands.ask_options(words),
    ]
    for text in texts:
        verb = next(known for known in MAKERS_WORDS if text == known or text.startswith(f"{known} "))
        fields = [part.partition("=")[0] for part in text[len(verb) + 1 :].split("\t") if part]
        known = [*MAKERS_WORDS[verb].split(), *SEEN_BESIDE]
        assert fields == sorted(fields, key=known.index), text  # none unknown, and in the maker's order


def test_an_attendance_user_is_one_line_of_tabs() -> None:
    [text] = commands.put_user(DeviceUser("1001", name="John Doe", card="12345678"), Dialect.ATTENDANCE)
    assert text == "DATA UPDATE USERINFO PIN=1001\tName=John Doe\tPri=0\tPasswd=\tCard=12345678\tGrp=1\tVerify=-1"


def test_nobody_barred_is_sent_to_a_terminal_that_would_let_them_in() -> None:
    with pytest.raises(ValueError, match="barred"):
        commands.put_user(DeviceUser("1", enabled=False), Dialect.ATTENDANCE)
    [text] = commands.put_user(DeviceUser("1", enabled=False), Dialect.SECURITY)
    assert text.endswith("Disable=1")


def test_a_panel_user_brings_his_doors_in_a_second_command() -> None:
    user = DeviceUser("1", name="王", doors=(1, 3), valid_from=datetime(2026, 1, 2), schedule=4)
    person, access = commands.put_user(user, Dialect.SECURITY)
    assert person.startswith("DATA UPDATE user CardNo=\tPin=1\t")
    assert "StartTime=20260102\tEndTime=0" in person
    assert access == "DATA UPDATE userauthorize Pin=1\tAuthorizeTimezoneId=4\tAuthorizeDoorId=5"


def test_a_name_cannot_smuggle_a_command() -> None:
    [text] = commands.put_user(DeviceUser("1", name="A\nC:9:REBOOT\tPri=14\r"), Dialect.ATTENDANCE)
    assert "\n" not in text
    assert "\r" not in text
    assert text.count("Pri=") == 2  # ours, and the one inside the name, which has no tab before it
    assert "\tPri=14" not in text


@pytest.mark.parametrize("number", ["", "1 2", "1\t2", "1=2", "x" * 25, "１"])
def test_a_number_no_device_could_hold_is_refused(number: str) -> None:
    with pytest.raises(ValueError, match="user number"):
        commands.delete_user(number, Dialect.ATTENDANCE)


def test_words_that_real_devices_refuse_are_never_used() -> None:
    texts = [
        *commands.put_user(DeviceUser("1"), Dialect.ATTENDANCE),
        *commands.delete_user("1", Dialect.ATTENDANCE),
        commands.query_users(Dialect.ATTENDANCE),
    ]
    assert not any(text.startswith(("USER ", "DATA DEL ", "Shell")) for text in texts)


def test_a_template_goes_out_as_it_came_in() -> None:
    sent = DeviceTemplate("7", "face", 0, "biodata-9-39.3-0", b"bytes")
    for dialect in Dialect:
        text = commands.put_template(sent, dialect)
        assert template(parse_row(text.split(" ", 2)[2].encode()), table="biodata") == sent


def test_a_foreign_template_format_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="no format"):
        commands.put_template(DeviceTemplate("7", "fingerprint", 0, "ef01-512", b"x"), Dialect.SECURITY)


def test_opens_a_door_as_the_specification_prints_it() -> None:
    assert commands.open_door(1, 5, Dialect.SECURITY) == "CONTROL DEVICE 01010105"
    assert commands.open_door(1, 9999, Dialect.SECURITY) == "CONTROL DEVICE 010101FE"  # never 255: that is for ever
    assert commands.reboot(Dialect.SECURITY) == "CONTROL DEVICE 03000000"
    assert commands.open_door(1, 5, Dialect.ATTENDANCE) == "AC_UNLOCK"
    for dialect in Dialect:
        with pytest.raises(ValueError, match="door"):
            commands.open_door(17, 5, dialect)
