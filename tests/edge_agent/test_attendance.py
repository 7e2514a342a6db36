"""One punch, however often and by whatever way it is told, is one event; two are two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_drivers.events import CardRead, DeviceEvent, DoorEvent, DoorEventKind, Origin, Punch, PunchState, VerifyMode
from edge_agent.attendance import Attendance, Source, _Counts, key_of, occurred_at, storable
from edge_agent.database import Database, DiskFull
from edge_agent.delivery.outbox import Outbox, Stored
from edge_agent.delivery.payload import FIELDS, Recipient, cloud_event
from edge_agent.people.roster import Person, Roster

NOW = datetime(2026, 11, 23, 8, 0, 5, tzinfo=UTC)
LOCAL = datetime(2026, 11, 23, 16, 0, 0)  # noqa: DTZ001 - a device's reading has no zone


class Clock:
    def __init__(self) -> None:
        self.now = NOW
        self.ticks = 100.0

    def wall(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.ticks

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.ticks += seconds


def punch(user_id: str = "7", second: int = 0, **changes: Any) -> Punch:
    fields: dict[str, Any] = {
        "device_serial": "S1",
        "user_id": user_id,
        "device_time": LOCAL + timedelta(seconds=second),
        "verify_mode": VerifyMode.FINGER,
        "verify_code": 1,
        "state": PunchState.IN,
    }
    return Punch(**(fields | changes))


def log(*punches: Punch) -> list[Punch]:
    return [Punch(**{name: getattr(p, name) for name in Punch.__slots__} | {"origin": Origin.BACKLOG}) for p in punches]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def disk() -> list[int]:
    return [1 << 40]


@pytest.fixture
async def database(tmp_path: Path, disk: list[int]) -> AsyncIterator[Database]:
    database = Database.open(tmp_path / "agent.db", free=lambda _: disk[0], ballast_bytes=1, high_water_bytes=1 << 20)
    yield database
    database.close()


@pytest.fixture
def roster() -> Roster:
    return Roster(b"k" * 32)


@pytest.fixture
def attendance(database: Database, roster: Roster, clock: Clock) -> Attendance:
    attendance = Attendance(database, roster, clock=clock.wall, monotonic=clock.monotonic, boot="boot-1")
    attendance.configure(
        [Source("gate", timezone="Asia/Shanghai", site="Plant 2", location=(31.2, 121.5)), Source("yard")]
    )
    return attendance


async def stored(database: Database) -> list[Stored]:
    return await Outbox(database).events(limit=10_000)


async def test_a_punch_keeps_what_the_device_said_and_what_we_know(attendance: Attendance, database: Database) -> None:
    await attendance.recorder("gate")([punch()])
    (one,) = await stored(database)
    assert one.event.type == "attendance.punch"
    assert one.event.occurred_at == datetime(2026, 11, 23, 8, 0, 0, tzinfo=UTC)
    assert one.event.data == {
        "serial": "S1",
        "user_id": "7",
        "known": False,
        "verify_mode": "finger",
        "pad": "terminal",
        "verify_code": 1,
        "state": "in",
        "state_code": 0,
        "record_no": None,
        "origin": "live",
        "occurrence": 1,
        "device_time": "2026-11-23T16:00:00",
        "timezone": "Asia/Shanghai",
        "received_at": "2026-11-23T08:00:05.000+00:00",
        "monotonic_s": 100.0,
        "boot": "boot-1",
        "clock_offset_s": -5.0,
        "clock_measured_at": "2026-11-23T08:00:05.000+00:00",
        "site": "Plant 2",
        "location": {"latitude": 31.2, "longitude": 121.5, "source": "device configuration"},
    }


async def test_live_and_log_are_one_punch(attendance: Attendance, database: Database) -> None:
    record = attendance.recorder("gate")
    await record([punch()])
    await record(log(punch(), punch("8")), cursor=b"2")
    await attendance.recorder("gate")(log(punch(), punch("8")), cursor=b"2")
    assert len(await stored(database)) == 2
    assert (attendance.received, attendance.stored) == (5, 2)


async def test_two_punches_of_one_second_stay_two_live_and_in_the_log(
    attendance: Attendance, database: Database, clock: Clock
) -> None:
    record = attendance.recorder("gate")
    await record([punch()])
    clock.advance(0.8)
    await record([punch()])
    assert len(await stored(database)) == 2
    await record(log(punch(), punch()), cursor=b"2")
    assert len(await stored(database)) == 2


async def test_the_log_brings_the_twin_that_was_lost_on_the_wire(attendance: Attendance, database: Database) -> None:
    await attendance.recorder("gate")([punch()])
    await attendance.recorder("gate")([punch()])  # another connection: sent again, for all one can know
    assert len(await stored(database)) == 1
    await attendance.recorder("gate")(log(punch(), punch()), cursor=b"2")
    assert len(await stored(database)) == 2


async def test_a_live_event_sent_again_later_is_the_same_punch(
    attendance: Attendance, database: Database, clock: Clock
) -> None:
    record = attendance.recorder("gate")
    await record([punch()])
    for _ in range(3):
        clock.advance(3.0)
        await record([punch()])
    assert len(await stored(database)) == 1


def test_what_was_heard_live_is_forgotten_again(clock: Clock) -> None:
    counts = _Counts()
    for n in range(1000):
        clock.advance(1.0)
        assert counts.heard_live(str(n), clock.ticks) == 1
        assert len(counts.live) <= 65
    assert counts.heard_live("999", clock.ticks) == 2


def test_a_flood_is_counted_without_going_through_what_was_heard_before(clock: Clock) -> None:
    counts = _Counts()
    heard = counts.live
    for n in range(1000):
        assert counts.heard_live(str(n), clock.ticks) == 1
    assert counts.live is heard
    assert len(heard) == 1000
    clock.advance(3.0)
    assert counts.heard_live("one more", clock.ticks) == 1
    assert len(counts.live) == 64


async def test_a_push_repeated_at_once_with_its_cursor_is_the_same(attendance: Attendance, database: Database) -> None:
    record = attendance.recorder("gate")
    for _ in range(2):
        await record([punch(), punch(), punch("9")], cursor=b"stamp")
    assert len(await stored(database)) == 3


async def test_a_scan_told_in_pieces_counts_through_to_its_cursor(attendance: Attendance, database: Database) -> None:
    record = attendance.recorder("gate")
    await record(log(punch()))
    await record(log(punch()), cursor=b"2")
    await record(log(punch(), punch()), cursor=b"2")
    assert len(await stored(database)) == 2


async def test_a_cursor_is_not_given_to_another_device_of_the_same_name(attendance: Attendance) -> None:
    await attendance.recorder("gate")([punch()], cursor=b"1")
    assert await attendance.cursor("gate", serial="S1") == b"1"
    assert await attendance.cursor("gate") == b"1"
    assert await attendance.cursor("gate", serial="S2") is None
    await attendance.recorder("gate")([], cursor=b"2")  # nothing told who: still the same device
    assert await attendance.cursor("gate", serial="S2") is None
    await attendance.recorder("gate")([punch(device_serial="S2")], cursor=b"3")
    assert await attendance.cursor("gate", serial="S2") == b"3"


async def test_record_numbers_decide_where_a_device_has_them(attendance: Attendance, database: Database) -> None:
    record = attendance.recorder("gate")
    await record([punch(record_no=1), punch(record_no=2), punch(record_no=1)])
    await record(log(punch(record_no=2)))
    assert len(await stored(database)) == 2
    await record([punch(record_no=1, second=3600)])  # the log was cleared and counts anew
    assert len(await stored(database)) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"user_id": "70"},
        {"second": 1},
        {"verify_code": 2},
        {"state": PunchState.OUT},
        {"state_code": 9},
        {"device_serial": "S2"},
        {"record_no": 5},
    ],
)
def test_whatever_differs_makes_another_punch(change: dict[str, Any]) -> None:
    assert key_of(punch(**change)) != key_of(punch())


async def test_an_unreadable_time_is_kept_as_received(attendance: Attendance, database: Database) -> None:
    record = attendance.recorder("gate")
    await record([punch(device_time=None, raw=b"\x01"), punch(device_time=None, raw=b"\x02")])
    await attendance.recorder("gate")([punch(device_time=None, raw=b"\x01")])
    found = await stored(database)
    assert [one.event.occurred_at for one in found] == [NOW, NOW]
    assert found[0].event.data["device_time"] is None


@given(
    real=st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 2)), max_size=12),
    heard=st.sets(st.integers(0, 11)),
    cuts=st.lists(st.integers(0, 12), max_size=4),
)
@settings(max_examples=15, deadline=None)
def test_after_a_full_reading_exactly_the_real_punches_are_there(
    tmp_path_factory: pytest.TempPathFactory, real: list[tuple[str, int]], heard: set[int], cuts: list[int]
) -> None:
    """Any subset heard live over any number of connections, then the log twice: what happened, once each."""

    async def play() -> int:
        database = Database.open(tmp_path_factory.mktemp("x") / "agent.db", ballast_bytes=1)
        clock = Clock()
        attendance = Attendance(database, Roster(b"k" * 32), clock=clock.wall, monotonic=clock.monotonic)
        happened = [punch(user, second) for user, second in sorted(real, key=lambda p: p[1])]
        record = attendance.recorder("gate")
        for n, one in enumerate(happened):
            if n in cuts:
                record = attendance.recorder("gate")
            if n in heard:
                await record([one])
        for _ in range(2):
            await attendance.recorder("gate")(log(*happened), cursor=b"x")
        count = len(await stored(database))
        database.close()
        return count

    assert asyncio.run(play()) == len(real)


# What cannot be read


async def test_what_a_device_said_unreadably_is_kept_unless_it_speaks_of_health(
    attendance: Attendance, database: Database
) -> None:
    unreadable = [
        DoorEvent("S1", DoorEventKind.OTHER, raw=said.encode(), said=said) for said in ("17,20-11-2026", "17,体温 37.9")
    ]
    await attendance.recorder("gate")([punch(device_time=None, raw=b"1", said="31-02-2026"), *unreadable, punch()])
    found = await stored(database)
    assert [one.event.data.get("said") for one in found] == ["31-02-2026", "17,20-11-2026", None, None]
    everything = cloud_event(found[1], Recipient("hq", frozenset(FIELDS)), gateway="g", tenant="t")
    assert "said" not in everything["data"]


# Texts and dates that cannot be


@pytest.mark.parametrize(
    "told",
    [
        punch(device_time=datetime(1, 1, 1)),  # noqa: DTZ001
        punch(device_time=datetime(9999, 12, 31, 23, 59, 59)),  # noqa: DTZ001
        punch("\ud800"),
        punch("", card="\ud800"),
        DoorEvent("S1", DoorEventKind.GRANTED, card="\ud800", device_time=LOCAL),
        DoorEvent("\udfff", DoorEventKind.OTHER, reason="\ud800", device_time=LOCAL),
    ],
)
async def test_what_no_database_and_no_calendar_can_hold_is_kept_like_its_neighbours(
    attendance: Attendance, database: Database, told: Punch | DoorEvent
) -> None:
    attendance.configure([Source("gate", timezone="Asia/Shanghai"), Source("yard", timezone="America/New_York")])
    for device in ("gate", "yard"):
        before = len(await stored(database))
        await attendance.recorder(device)([punch("1"), told, punch("2")], cursor=b"1")
        found = await stored(database)
        assert len(found) == before + (3 if device == "gate" else 0)
    for one in found:
        for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
            one.event.occurred_at.astimezone(ZoneInfo(zone))


def test_half_a_character_still_tells_two_cards_apart() -> None:
    one, other = (DoorEvent("S1", DoorEventKind.GRANTED, card=card, device_time=LOCAL) for card in ("\ud800", "\ud801"))
    assert key_of(storable(one)) != key_of(storable(other))
    assert storable(punch("人员")) == punch("人员")


# Who


async def test_the_roster_names_the_subject_in_the_same_transaction(
    attendance: Attendance, database: Database, roster: Roster
) -> None:
    def people(connection: Any) -> None:
        for subject, user_id, device in (("s1", "7", ""), ("s2", "7", "yard"), ("s3", "x", "")):
            roster.put(connection, Person(subject, "人员"), now=NOW)
            roster.link(connection, subject, user_id, device=device)
        roster.add_card(connection, "s3", "0012345", now=NOW)

    await database.write(people)
    await attendance.recorder("gate")([punch("7"), punch("", second=1, card="12345"), punch("404", second=2)])
    await attendance.recorder("yard")([punch("7", second=3)])
    found = await stored(database)
    assert [one.event.subject for one in found] == ["s1", "s3", None, "s2"]
    assert [one.event.data["known"] for one in found] == [True, True, False, True]
    assert "12345" not in str([one.event.data for one in found])
    assert "人员" not in str([one.event.data for one in found])


# Where


async def test_no_position_when_geolocation_is_off_or_none_configured(
    attendance: Attendance, database: Database
) -> None:
    record = attendance.recorder("gate")
    attendance.configure([Source("gate", timezone="Asia/Shanghai", site="Plant 2")])
    await record([punch()])
    (one,) = await stored(database)
    assert "location" not in one.event.data
    assert one.event.data["site"] == "Plant 2"


async def test_passages_of_a_device_without_attendance_are_no_working_time(
    attendance: Attendance, database: Database
) -> None:
    attendance.configure([Source("gate", attendance=False)])
    await attendance.recorder("gate")([punch()])
    assert [one.event.type for one in await stored(database)] == ["access.punch"]


# When

NEW_YORK = ZoneInfo("America/New_York")
TWICE = datetime(2026, 11, 1, 1, 30)  # noqa: DTZ001
FIRST, SECOND = datetime(2026, 11, 1, 5, 30, tzinfo=UTC), datetime(2026, 11, 1, 6, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("near", "after", "expected"),
    [
        (FIRST + timedelta(minutes=1), None, FIRST),
        (SECOND + timedelta(minutes=1), None, SECOND),
        (None, FIRST - timedelta(minutes=5), FIRST),
        (None, FIRST + timedelta(minutes=20), SECOND),
        (None, None, FIRST),
    ],
)
def test_the_hour_that_happens_twice(near: datetime | None, after: datetime | None, expected: datetime) -> None:
    assert occurred_at(TWICE, NEW_YORK, near=near, after=after) == expected


def test_a_predecessor_later_than_both_passes_decides_nothing() -> None:
    assert occurred_at(TWICE, NEW_YORK, near=None, after=SECOND + timedelta(days=20)) == FIRST


def in_november(hour: int, minute: int) -> Punch:
    return punch(f"{hour}:{minute}", device_time=datetime(2026, 11, 1, hour, minute), origin=Origin.BACKLOG)  # noqa: DTZ001


async def moments(database: Database) -> list[str]:
    return [one.event.occurred_at.strftime("%H:%M") for one in await stored(database)]


async def test_the_second_pass_is_known_across_the_batches_of_a_log(attendance: Attendance, database: Database) -> None:
    attendance.configure([Source("gate", timezone="America/New_York")])
    record = attendance.recorder("gate")
    await record([in_november(1, 50), in_november(1, 15)], cursor=b"1")
    await record([in_november(1, 16)], cursor=b"2")
    assert await moments(database) == ["05:50", "06:15", "06:16"]


async def test_a_log_told_again_goes_on_from_the_pass_that_is_known(attendance: Attendance, database: Database) -> None:
    attendance.configure([Source("gate", timezone="America/New_York")])
    record = attendance.recorder("gate")
    await record([in_november(1, 10), in_november(1, 20)], cursor=b"1")
    await record([in_november(1, 10), in_november(1, 20), in_november(1, 30), in_november(1, 15)], cursor=b"2")
    assert await moments(database) == ["05:10", "05:20", "05:30", "06:15"]
    await attendance.recorder("gate")([in_november(1, 15), in_november(1, 40)], cursor=b"3")
    assert (await moments(database))[-1] == "06:40"


def test_the_hour_that_is_left_out_still_gives_a_time() -> None:
    left_out = datetime(2026, 3, 8, 2, 30)  # noqa: DTZ001
    assert occurred_at(left_out, NEW_YORK, near=None, after=None) == datetime(2026, 3, 8, 7, 30, tzinfo=UTC)


async def test_a_measured_clock_is_recorded_and_corrects_nothing(
    attendance: Attendance, database: Database, clock: Clock
) -> None:
    reading = attendance.measured("gate", LOCAL + timedelta(minutes=10))
    assert reading.offset == timedelta(minutes=9, seconds=55)
    await attendance.recorder("gate")([punch(second=600)])
    (one,) = await stored(database)
    assert one.event.data["clock_offset_s"] == 595.0
    assert one.event.occurred_at == datetime(2026, 11, 23, 8, 10, tzinfo=UTC)


# Cursors, doors, questions, disks


async def test_the_cursor_is_durable_with_the_events_it_stands_for(attendance: Attendance, database: Database) -> None:
    assert await attendance.cursor("gate") is None
    await attendance.recorder("gate")(log(punch()), cursor=b"\x01")
    await attendance.recorder("gate")([], cursor=b"\x02")
    assert await attendance.cursor("gate") == b"\x02"
    await attendance.forget_cursor("gate")
    assert await attendance.cursor("gate") is None


async def test_a_full_disk_reaches_the_driver_and_nothing_counts_as_heard(
    attendance: Attendance, database: Database, disk: list[int]
) -> None:
    record = attendance.recorder("gate")
    disk[0] = 0
    with pytest.raises(DiskFull):
        await record([punch()], cursor=b"\x01")
    with pytest.raises(DiskFull):
        await record([punch()])
    disk[0] = 1 << 40
    await record([punch()])
    await record(log(punch()), cursor=b"\x01")
    assert len(await stored(database)) == 1


async def test_door_events_are_stored_too(attendance: Attendance, database: Database) -> None:
    forced = DoorEvent("S1", DoorEventKind.FORCED, door=2, device_time=LOCAL, record_no=9)
    await attendance.recorder("gate")([forced, forced])
    (one,) = await stored(database)
    assert (one.event.type, one.event.data["door"]) == ("door.forced", 2)
    assert "known" not in one.event.data


async def test_reasons_that_speak_of_health_are_emptied_and_counted(attendance: Attendance, database: Database) -> None:
    await attendance.recorder("gate")(
        [
            DoorEvent("S1", DoorEventKind.DENIED, reason="Abnormal temperature 38.2", reason_code=77, record_no=1),
            DoorEvent("S1", DoorEventKind.DENIED, reason="未戴口罩", reason_code=78, record_no=2),
            DoorEvent("S1", DoorEventKind.DENIED, reason="no privilege", reason_code=6, record_no=3),
        ]
    )
    found = [(one.event.data["reason"], one.event.data["reason_code"]) for one in await stored(database)]
    assert found == [("", 0), ("", 0), ("no privilege", 6)]
    assert attendance.health_dropped == 2


async def test_reads_that_ask_for_a_decision_go_to_whoever_decides(attendance: Attendance, database: Database) -> None:
    asked: list[DeviceEvent] = []

    async def decide(events: Sequence[DeviceEvent]) -> None:
        asked.extend(events)

    card = CardRead("S1", 1, "123")
    await attendance.recorder("gate", others=decide)([punch(), card])
    await attendance.recorder("gate")([card])
    assert asked == [card]
    assert len(await stored(database)) == 1


@given(st.text(st.characters(), max_size=400), st.text(max_size=20), st.binary(max_size=30))
@settings(max_examples=8, deadline=None)
def test_hostile_text_from_a_device_is_only_data(
    tmp_path_factory: pytest.TempPathFactory, user_id: str, work_code: str, raw: bytes
) -> None:
    async def play() -> list[Stored]:
        database = Database.open(tmp_path_factory.mktemp("x") / "agent.db", ballast_bytes=1)
        attendance = Attendance(database, Roster(b"k" * 32))
        hostile = "'; DROP TABLE events; --" + user_id
        try:
            await attendance.recorder("gate")([punch(hostile, work_code=work_code, raw=raw, device_time=None)])
            return await stored(database)
        finally:
            database.close()

    assert len(asyncio.run(play())) == 1
