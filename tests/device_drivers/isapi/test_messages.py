# ruff: noqa: DTZ001 - a device's clock is naive
from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_drivers.devices import DeviceTemplate, DeviceUser
from device_drivers.errors import ProtocolError
from device_drivers.events import DoorEvent, DoorEventKind, Origin, Punch, PunchState, VerifyMode
from device_drivers.isapi import messages
from tests.shared_data import shared


def vectors() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(shared("vectors", "hikvision_isapi_events.json").read_text("utf-8"))[
        "vectors"
    ]
    return found


def reported(what: str) -> dict[str, Any]:
    cases = json.loads(shared("vectors", "field_reports_from_issues.json").read_text("utf-8"))["vectors"]
    found: dict[str, Any] = next(v["json"] for v in cases if v["proto"] == "hikvision" and what in v["what"])
    return found


def test_reads_the_notifications_of_real_cameras() -> None:
    alerts = [messages.alert(v["text"].encode()) for v in vectors() if "EventNotificationAlert" in v["file"]]
    assert len(alerts) == 9
    assert {alert.event_type for alert in alerts} == {"IO", "fielddetection", "duration", "VMD", "PIR"}
    assert all(alert.active and alert.access is None for alert in alerts)


def test_reads_the_lists_of_push_targets() -> None:
    lists = [v["text"].encode() for v in vectors() if "httpHosts" in v["file"]]
    assert len(lists) == 4
    several, single, *_ = (messages.hosts(messages.parse_xml(text)) for text in lists)
    assert [entry["id"] for entry in several][:3] == ["1", "2", "3"]
    assert messages.PushTarget("1.0.0.20", 8123, "/api/hikvision").is_set(several[0])
    assert not messages.PushTarget("1.0.0.20", 8123, "/api/hikvision").is_set(several[1])
    assert len(single) == 1
    assert [messages.is_free(entry) for entry in several] == [False, True, True]


def test_what_we_set_as_push_target_reads_back_as_ours() -> None:
    for host in ("192.0.2.1", "2001:db8::1", "agent.example"):
        target = messages.PushTarget(host, 8443, "/isapi/x", tls=True, username="gateway", password="0123456789abcdef")
        [entry] = messages.hosts(messages.parse_xml(target.encode("1")))
        assert target.is_set(entry)
        assert not replace(target, username="").is_set(entry)
        assert not replace(target, port=80).is_set(entry)
        assert "0123456789abcdef" not in repr(target)


def test_reads_a_push_reported_from_the_field() -> None:
    body = json.dumps(reported("push body")).encode()
    alert = messages.alert(body)
    assert alert.access is not None
    event = messages.event(alert.access, serial="S", origin=Origin.LIVE, time=alert.time, raw=alert.raw)
    assert isinstance(event, DoorEvent)
    assert (event.kind, event.door, event.record_no) == (DoorEventKind.UNLOCKED, 1, 257)
    assert event.device_time == datetime(2024, 8, 26, 12, 32, 28)
    assert event.raw == body


def test_searches_as_the_field_reports_it_works() -> None:
    condition = reported("search request")["AcsEventCond"]
    ours = messages.search_events(0, 1, search_id="1", timeReverseOrder=True)["AcsEventCond"]
    assert set(condition) == set(ours)


@pytest.mark.parametrize(
    ("minor", "mode"),
    [
        (0x01, VerifyMode.CARD), (0x02, VerifyMode.COMBINED), (0x10, VerifyMode.COMBINED), (0x22, VerifyMode.PIN),
        (0x26, VerifyMode.FINGER), (0x28, VerifyMode.COMBINED), (0x3C, VerifyMode.COMBINED), (0x45, VerifyMode.FINGER),
        (0x48, VerifyMode.COMBINED), (0x4B, VerifyMode.FACE), (0x4D, VerifyMode.FACE), (0x65, VerifyMode.PIN),
        (0x99, VerifyMode.COMBINED), (0xB5, VerifyMode.PIN),
    ],
)  # fmt: skip
def test_somebody_let_in_is_a_punch(minor: int, mode: VerifyMode) -> None:
    record = {
        "major": 5, "minor": minor, "time": "2026-06-19T08:00:00+08:00", "employeeNoString": "7", "serialNo": 12,
        "attendanceStatus": "checkOut", "cardNo": "99",
    }  # fmt: skip
    punch = messages.event(record, serial="S", origin=Origin.BACKLOG)
    assert isinstance(punch, Punch)
    assert (punch.user_id, punch.record_no, punch.verify_mode, punch.state) == ("7", 12, mode, PunchState.OUT)
    assert punch.device_time == datetime(2026, 6, 19, 8)


@pytest.mark.parametrize(
    ("major", "minor", "kind"),
    [
        (5, 0x03, DoorEventKind.DENIED), (5, 0x0F, DoorEventKind.DENIED), (5, 0x3D, DoorEventKind.DENIED),
        (5, 0x46, DoorEventKind.DENIED), (5, 0x66, DoorEventKind.DENIED), (5, 0x9A, DoorEventKind.DENIED),
        (5, 0x11, DoorEventKind.OTHER), (5, 0x14, DoorEventKind.LOCKED), (5, 0x1B, DoorEventKind.FORCED),
        (5, 0x1C, DoorEventKind.HELD), (5, 0x20, DoorEventKind.OTHER), (5, 0x34, DoorEventKind.FIRE),
        (1, 0x404, DoorEventKind.TAMPER), (1, 0x40A, DoorEventKind.DURESS), (1, 0x410, DoorEventKind.TAMPER_CLEARED),
        (2, 0x400, DoorEventKind.POWER_RESTORED), (2, 0x405, DoorEventKind.POWER_LOST),
        (3, 0x400, DoorEventKind.REMOTE_OPEN),
    ],
)  # fmt: skip
def test_what_happens_at_a_door_has_the_makers_number(major: int, minor: int, kind: DoorEventKind) -> None:
    event = messages.event({"major": major, "minor": minor, "employeeNoString": "7"}, serial="S", origin=Origin.LIVE)
    assert isinstance(event, DoorEvent)
    assert event.kind is kind


def test_a_refused_face_and_an_unknown_number_are_door_events() -> None:
    refused = messages.event({"major": 5, "minor": 76, "serialNo": 1}, serial="S", origin=Origin.LIVE)
    unknown = messages.event({"major": 9, "minor": 4660}, serial="S", origin=Origin.LIVE)
    assert isinstance(refused, DoorEvent)
    assert isinstance(unknown, DoorEvent)
    assert refused.kind is DoorEventKind.DENIED
    assert (unknown.kind, unknown.reason_code, unknown.record_no) == (DoorEventKind.OTHER, 9 << 16 | 4660, None)


@pytest.mark.parametrize(
    "hostile",
    [
        b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        b"<a>" * 50 + b"</a>" * 50,
        b"<a",
        b"[]",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"a": 1e999999',
    ],
)
def test_a_hostile_document_is_a_protocol_error(hostile: bytes) -> None:
    with pytest.raises(ProtocolError):
        messages.parse(hostile)


def test_a_refusal_says_whether_the_model_lacks_it_or_is_busy() -> None:
    lacking = b'{"statusCode":4,"statusString":"Invalid Operation","subStatusCode":"notSupport"}'
    assert messages.status(lacking).not_supported
    xml = b"<ResponseStatus><statusCode>4</statusCode><subStatusCode>notSupport</subStatusCode></ResponseStatus>"
    assert messages.status(xml).not_supported
    assert not messages.status(b"<html>403 Forbidden</html>").not_supported
    assert messages.status(b"") == messages.Status(None, "", "")


def test_a_user_round_trips_through_the_terminals_own_words() -> None:
    user = DeviceUser(
        "7", name="王小明", card="123", privilege=14, valid_from=datetime(2026, 1, 1),
        valid_until=datetime(2026, 12, 31), doors=(1, 2),
    )  # fmt: skip
    assert messages.user(messages.user_document(user)["UserInfo"], {"7": "123"}) == user


def test_somebody_disabled_is_barred_by_a_validity_that_is_over() -> None:
    document = messages.user_document(DeviceUser("7", enabled=False))["UserInfo"]
    assert document["Valid"]["enable"] is True
    read = messages.user(document, {})
    assert read is not None
    assert not read.enabled


def test_a_number_that_would_change_the_document_is_refused() -> None:
    with pytest.raises(ValueError, match="employee number"):
        messages.user_document(DeviceUser('7","x":"'))


def test_fingers_round_trip_and_do_not_show_in_repr() -> None:
    sent = DeviceTemplate("7", "fingerprint", 3, messages.FINGER_ALGORITHM, b"minutiae", duress=True)
    document = messages.finger_document(sent, (1,))["FingerPrintCfg"]
    assert document["fingerPrintID"] == 4
    back = messages.fingers({"FingerPrintInfo": {"FingerPrintList": [document]}}, "7")
    assert back == [sent]
    assert "minutiae" not in repr(back)


KEYS = ("major", "minor", "serialNo", "time", "employeeNoString", "eventType", "AccessControllerEvent", "doorNo")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.sampled_from(KEYS), children, max_size=6),
    max_leaves=12,
)


@given(JSON)
def test_any_json_gives_an_event_or_a_declared_error(value: object) -> None:
    with contextlib.suppress(ProtocolError):
        alert = messages.alert(json.dumps(value).encode())
        messages.event(alert.access or {}, serial="S", origin=Origin.LIVE)
    if isinstance(value, dict):
        messages.event(value, serial="S", origin=Origin.LIVE)
        messages.user(value, {})
        messages.fingers(value, "1")


@given(st.binary(max_size=300))
def test_any_bytes_give_a_document_or_a_declared_error(data: bytes) -> None:
    for start in (b"", b"<a>", b"{"):
        messages.status(start + data)
        with contextlib.suppress(ProtocolError):
            messages.alert(start + data)


def test_reads_what_a_terminal_can_push() -> None:
    # source: told by a DS-K1T344MBFWX-E1, published by an integrator; shortened
    told = (
        b'<HttpHostNotificationCap xmlns="http://www.isapi.org/ver20/XMLSchema"><hostNumber>2</hostNumber>'
        b'<urlLen min="0" max="128"/><protocolType opt="HTTP,HTTPS,EHome"/><ipAddress opt="ipv4"/>'
        b'<httpAuthenticationMethod opt="MD5digest,none,basic"/></HttpHostNotificationCap>'
    )
    # source: told by an IP camera of the same maker, published by the same integrator
    camera = told.replace(b"MD5digest,none,basic", b"none,base64")
    where = ("HttpHostNotificationCap", "httpAuthenticationMethod")
    assert "MD5digest" in messages.offers(messages.parse_xml(told), *where)
    assert "MD5digest" not in messages.offers(messages.parse_xml(camera), *where)
    assert messages.offers({}, *where) == frozenset()


def test_says_people_and_fingers_in_the_words_of_the_guide() -> None:
    # source: "ISAPI (Access Control on Person)", JSON_UserInfo and JSON_FingerPrintCfg
    person = messages.user_document(DeviceUser("7", name="Ann", pin="4711"))["UserInfo"]
    assert set(person) <= {
        "employeeNo", "name", "userType", "Valid", "password", "doorRight", "RightPlan", "localUIRight",
    }  # fmt: skip
    assert set(person["Valid"]) == {"enable", "beginTime", "endTime", "timeType"}
    assert person["Valid"]["endTime"] == "2037-12-31T23:59:59"  # the last the firmware takes
    assert person["RightPlan"] == [{"doorNo": 1, "planTemplateNo": "1"}]
    finger = messages.finger_document(DeviceTemplate("7", "fingerprint", 0, "hik-finger", b"x"), [1])["FingerPrintCfg"]
    assert set(finger) == {"employeeNo", "enableCardReader", "fingerPrintID", "fingerType", "fingerData"}
    assert finger["fingerPrintID"] == 1  # 1 to 10
