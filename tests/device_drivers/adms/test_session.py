# ruff: noqa: DTZ001 - a device's clock is naive
from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from device_drivers.adms.commands import Dialect
from device_drivers.adms.messages import rtstate
from device_drivers.adms.session import Session, http_date, time_zone
from device_drivers.events import DoorEventKind, Origin
from device_drivers.zk_access import encode_seconds

NOW = datetime(2026, 6, 19, 8, 0, 5, tzinfo=UTC)


def session(zone: str = "Asia/Shanghai") -> Session:
    return Session("A1", ZoneInfo(zone))


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("Asia/Shanghai", "8"),
        ("America/New_York", "-4"),
        ("Asia/Kolkata", "330"),
        ("Asia/Kathmandu", "345"),
        ("UTC", "0"),
    ],
)
def test_trap_12_the_zone_is_told_in_hours_or_in_minutes(zone: str, text: str) -> None:
    assert time_zone(NOW.astimezone(ZoneInfo(zone)).utcoffset() or timedelta()) == text
    assert f"TimeZone={text}\n" in session(zone).greet({"pushver": "2.4.1"}, NOW)


def test_trap_12_the_date_is_greenwich_time_whatever_our_zone() -> None:
    assert http_date(NOW.astimezone(ZoneInfo("Asia/Tokyo"))) == "Fri, 19 Jun 2026 08:00:05 GMT"


def test_trap_13_a_constant_stamp_is_stored_and_told_again() -> None:
    one = session()
    assert "ATTLOGStamp=0\n" in one.greet({}, NOW)
    cursor = one.cursor_after("ATTLOG", "9999")
    assert one.stamps == {}  # not before it is durable
    one.keep("ATTLOG", "9999")
    two = session()
    two.restore(cursor)
    assert "ATTLOGStamp=9999\n" in two.greet({}, NOW)


@pytest.mark.parametrize("cursor", [b"\xff", b"[]", b"3", b'{"ATTLOG": {"a": 1}, "etc": "1"}', None])
def test_an_unreadable_cursor_asks_for_everything_again(cursor: bytes | None) -> None:
    one = session()
    one.restore(cursor)
    assert "OPERLOGStamp=0\n" in one.greet({}, NOW)


def test_a_stamp_cannot_smuggle_an_option() -> None:
    one = session()
    one.keep("ATTLOG", "1\nEncrypt=1")
    assert one.stamps == {}


def test_a_panel_registers_before_it_gets_its_options() -> None:
    one = session()
    assert one.greet({"pushver": "3.0.1"}, NOW) == "OK"
    assert one.dialect is Dialect.SECURITY
    one.registry_code = "abc"
    assert one.greet({"pushver": "3.0.1"}, NOW).startswith("registry=ok\nRegistryCode=abc\nServerVersion=")
    assert "SessionID=abc" in one.access_options()


def test_an_old_event_is_backlog_and_a_fresh_one_live() -> None:
    one = session()
    local = datetime(2026, 6, 19, 16, 0, 0)
    assert one.origin(NOW)(local) is Origin.LIVE
    assert one.origin(NOW)(local - timedelta(hours=8)) is Origin.BACKLOG


def test_the_clock_is_carried_on_from_what_was_heard() -> None:
    one = session()
    assert one.device_time(NOW) is None
    one.hear_clock(datetime(2026, 6, 19, 16, 0, 35), NOW)
    assert one.device_time(NOW + timedelta(minutes=1)) == datetime(2026, 6, 19, 16, 1, 35)


def test_alarms_are_told_once_when_raised_and_once_when_cleared() -> None:
    one = session()

    def hear(alarm: str) -> list[DoorEventKind]:
        [state] = rtstate(f"time=2026-06-19 16:00:00\tsensor=00\trelay=00\talarm={alarm}".encode())
        kinds = [event.kind for event in one.alarms(state)]
        one.keep_panel(state)
        return kinds

    assert hear("0000000000000000") == []
    assert hear("0210000000000000") == [DoorEventKind.TAMPER, DoorEventKind.HELD]
    assert hear("0210000000000000") == []
    assert hear("0000000000000000") == [DoorEventKind.TAMPER_CLEARED, DoorEventKind.HELD_CLEARED]


def test_the_dialect_outlives_a_restart() -> None:
    one = session()
    one.dialect = Dialect.SECURITY
    two = session()
    two.restore(one.cursor_after())
    assert two.words is Dialect.SECURITY


def test_tells_the_time_in_greenwich_with_the_zone_beside_it() -> None:
    assert session("Asia/Kolkata").server_time(NOW) == f"DateTime={encode_seconds(NOW)},ServerTZ=+0530"
    assert session("America/New_York").server_time(NOW).endswith("ServerTZ=-0400")


def test_names_go_out_in_chinese_code_page_to_chinese_firmware() -> None:
    one = session()
    one.greet({"language": "83"}, NOW)
    assert one.wire_encoding == "gb18030"
    one.greet({"language": "69"}, NOW)
    assert one.wire_encoding == "utf-8"
    one.encoding = "cp1256"
    assert one.wire_encoding == "cp1256"


def test_what_a_device_says_of_itself_is_bounded() -> None:
    one = session()
    one.learn({f"k{i}": "v" for i in range(5000)})
    assert len(one.options) <= 512
