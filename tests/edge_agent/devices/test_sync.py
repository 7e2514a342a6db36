from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from device_drivers.devices import (
    Capabilities,
    DeviceUser,
    DoorMode,
    DoorTask,
    Feature,
    ItemResult,
    TimeProfile,
)
from device_drivers.errors import DeviceRefused
from edge_agent.database import utc_text
from edge_agent.devices.sync import Sync
from edge_agent.devices.sync_compare import Plan, Wanted, compare, differences
from edge_agent.devices.sync_wanted import Desired
from edge_agent.doors.presence import Order
from edge_agent.people.credentials import Rights
from edge_agent.policy import access
from tests.flows.site import LINK_GONE, RULES, START, Site, Terminal, site

TERMINAL = Capabilities(frozenset({Feature.USERS, Feature.CARDS, Feature.PINS}))
CONTROLLER = Capabilities(frozenset({Feature.USERS, Feature.CARDS, Feature.SCHEDULES}), doors=4)


def user(number: str, **more: Any) -> DeviceUser:
    return DeviceUser(number, **more)


def plan(wanted: list[DeviceUser], found: list[DeviceUser], able: Capabilities = TERMINAL, ours: str = "") -> Plan:
    return compare(Wanted(tuple(wanted)), found, able, ours=lambda key: key in ours.split(), by_card=False)


def test_says_who_comes_who_changes_who_goes_and_who_is_not_ours() -> None:
    found = [user("1", card="11"), user("2", card="22"), user("8"), user("9")]
    made = plan([user("1", card="11"), user("2", card="33"), user("3")], found, ours="1 2 8")
    assert [u.user_id for u in made.add] == ["3"]
    assert [(c.user.user_id, c.fields) for c in made.change] == [("2", ("card",))]
    assert (made.remove, made.foreign, made.unchanged) == (("8",), ("9",), 1)


def test_who_does_not_fit_is_refused_by_name_before_anything_is_sent() -> None:
    able = Capabilities(TERMINAL.features, max_users=3)
    made = plan([user(str(n)) for n in range(1, 5)], [user("9"), user("8")], able, ours="8")
    assert [u.user_id for u in made.add] == ["1", "2"]
    assert [(r.key, r.ok) for r in made.refused] == [("3", False), ("4", False)]
    assert "holds 3 people" in made.refused[0].reason


@pytest.mark.parametrize(
    ("wanted", "found", "able", "expected"),
    [
        ({"name": "Wang Xiaoming"}, {"name": "Wang Xia"}, TERMINAL, ()),  # cut by the device
        ({"name": "Wang"}, {"name": "Li"}, TERMINAL, ("name",)),
        ({"card": "0011AB"}, {"card": "11ab"}, TERMINAL, ()),
        ({"card": "1"}, {"card": "2"}, Capabilities(frozenset()), ()),  # it cannot hold cards
        ({"pin": "1234"}, {"pin": ""}, TERMINAL, ()),  # it does not tell PINs back
        ({"pin": "1234"}, {"pin": "9999"}, TERMINAL, ("pin",)),
        ({"enabled": True}, {"enabled": False}, TERMINAL, ("enabled",)),
        ({"doors": (1, 2)}, {"doors": (2, 1)}, CONTROLLER, ()),
        ({"doors": (1,)}, {"doors": (1, 2)}, CONTROLLER, ("doors",)),
        ({"doors": (1,)}, {"doors": (1, 2)}, TERMINAL, ()),
        ({"schedule": 29}, {"schedule": None}, CONTROLLER, ("schedule",)),
    ],
)
def test_only_what_a_device_can_hold_and_tell_is_compared(
    wanted: dict[str, Any], found: dict[str, Any], able: Capabilities, expected: tuple[str, ...]
) -> None:
    assert differences(user("1", **wanted), user("1", **found), able, by_card=False) == expected


class Controller(Terminal):
    """Decides alone; knows people by card number."""

    async def capabilities(self) -> Capabilities:
        return CONTROLLER

    async def upsert_users(self, users: Any) -> list[ItemResult]:
        self._link()
        self.people |= {each.card: each for each in users}
        return [ItemResult(each.user_id, ok=True) for each in users]


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as running:
        yield running


def sync_of(s: Site) -> Sync:
    return Sync(
        database=s.database,
        roster=s.roster,
        desired=Desired(
            roster=s.roster,
            open_card=lambda sealed: sealed.decode(),
            open_pin=lambda sealed: sealed.decode(),
            ordered=lambda door: s.doors.presence.order(door, s.clock.now()) is not None,
            now=s.clock.now,
        ),
        rules=lambda: s.rules,
        driver=s.devices.get,
        now=s.clock.now,
    )


async def give_card(s: Site, number: str) -> None:
    digest = s.roster.card_digest(number)
    await s.database.write(lambda c: c.execute("INSERT INTO sealed_cards VALUES (?, ?)", (digest, number.encode())))


async def test_a_terminal_comes_to_hold_who_is_in_the_roster_and_loses_who_left(s: Site) -> None:
    terminal = s.devices["zk-1"] = Terminal("zk-1")
    terminal.people = {"77": user("77", name="somebody else's")}
    sync = sync_of(s)
    for number in range(120):
        await s.add(f"p{number}", number=str(1000 + number))
    before = await sync.plan("zk-1", by_card=False)
    assert (len(before.add), before.foreign) == (120, ("77",))
    assert len(terminal.people) == 1  # a dry run
    told: list[tuple[int, int]] = []

    async def progress(done: int, total: int) -> None:
        told.append((done, total))

    report = await sync.apply("zk-1", before, by_card=False, progress=progress)
    assert (report.done, report.complete) == (120, True)
    assert told == [(50, 120), (100, 120), (120, 120)]
    assert (await sync.plan("zk-1", by_card=False)).empty
    await s.database.write(lambda c: s.roster.remove(c, "p7"))
    after = await sync.plan("zk-1", by_card=False)
    assert after.remove == ("1007",)
    await sync.apply("zk-1", after, by_card=False)
    assert "1007" not in terminal.people
    assert "77" in terminal.people


async def test_a_reset_device_is_filled_again(s: Site) -> None:
    terminal = s.devices["zk-1"] = Terminal("zk-1")
    await s.add("ann", number="42")
    sync = sync_of(s)
    await sync.apply("zk-1", await sync.plan("zk-1", by_card=False), by_card=False)
    terminal.people.clear()
    assert len((await sync.plan("zk-1", by_card=False)).add) == 1


async def test_one_bad_item_or_a_broken_link_is_reported_and_the_next_plan_goes_on(s: Site) -> None:
    terminal = s.devices["zk-1"] = Terminal("zk-1")
    await s.add("ann", number="42")
    sync = sync_of(s)
    made = await sync.plan("zk-1", by_card=False)
    terminal.refuses = "no memory"
    report = await sync.apply("zk-1", made, by_card=False)
    assert [(r.key, r.reason) for r in report.failed] == [("42", "no memory")]
    terminal.refuses, terminal.fails = "", LINK_GONE
    assert "unplugged" in (await sync.apply("zk-1", made, by_card=False)).interrupted
    terminal.fails = None
    assert len((await sync.plan("zk-1", by_card=False)).add) == 1


async def test_a_panel_without_profiles_of_ours_gets_a_card_only_for_times_named_by_hand(s: Site) -> None:
    s.devices["panel"] = panel = Controller("panel")
    s.set_rules(
        {
            **RULES,
            "doors": [RULES["doors"][0], {"name": "back", "device": "panel", "relay": 2}],
            "groups": [
                {"name": "staff", "grants": [{"doors": ["front"], "schedule": "hours"}]},
                {"name": "guards", "grants": [{"doors": ["front", "back"]}]},
            ],
        }
    )
    for name, card, groups in (("ann", "1111", ("staff",)), ("bob", "2222", ("guards",)), ("eve", "3333", ())):
        await s.add(name, card=card, rights=Rights(groups=groups))
        await give_card(s, card)
    sync = sync_of(s)
    without = await sync.plan("panel", by_card=True)
    assert [(u.card, u.doors) for u in without.add] == [("2222", (1, 2))]
    assert [(r.key, "hours" in r.reason) for r in without.refused] == [("ann", True)]
    made = await sync.plan("panel", by_card=True, profiles={"hours": 29})
    assert sorted((u.card, u.doors, u.schedule) for u in made.add) == [("1111", (1,), 29), ("2222", (1, 2), None)]
    await sync.apply("panel", made, by_card=True)
    assert set(panel.people) == {"1111", "2222"}
    await s.credentials.set_rights(["ann"], Rights(groups=("staff",), enabled=False))  # type: ignore[list-item]
    assert (await sync.plan("panel", by_card=True, profiles={"hours": 29})).remove == ("1111",)


class TimedController(Controller):
    """Keeps times and asks for PINs, as a UHPPOTE does."""

    def __init__(self, name: str = "panel") -> None:
        super().__init__(name)
        self.kept: dict[int, TimeProfile] = {}
        self.tasks: list[DoorTask] = []
        self.keypads: set[int] = set()
        self.orders: list[str] = []
        self.shows = START.replace(tzinfo=None)
        self.refuses_profiles = False

    async def capabilities(self) -> Capabilities:
        return Capabilities(CONTROLLER.features | {Feature.PINS, Feature.KEYPAD}, doors=4)

    async def get_time(self) -> datetime:
        return self.shows

    async def set_time(self, device_time: datetime) -> None:
        self.orders.append("clock")
        self.shows = device_time

    async def time_profiles(self) -> list[TimeProfile]:
        return [self.kept[n] for n in sorted(self.kept)]

    async def set_time_profile(self, profile: TimeProfile) -> None:
        self.orders.append(f"profile {profile.number}")
        if self.refuses_profiles:
            raise DeviceRefused("no")
        self.kept[profile.number] = profile

    async def set_tasks(self, tasks: Sequence[DoorTask]) -> None:
        self.orders.append("tasks")
        self.tasks = list(tasks)

    async def activate_keypads(self, readers: Collection[int]) -> None:
        self.orders.append("keypads")
        self.keypads = set(readers)

    async def upsert_users(self, users: Any) -> list[ItemResult]:
        self.orders.append("cards")
        return await super().upsert_users(users)


def doors(*more: dict[str, Any], **front: Any) -> dict[str, Any]:
    """The front door and others at one controller; staff by day, guards at any time."""
    named = [{"name": "front", "device": "panel", **front}, *more]
    both = [each["name"] for each in named]
    return {
        **RULES,
        "doors": named,
        "groups": [
            {"name": "staff", "grants": [{"doors": ["front"], "schedule": "hours"}]},
            {"name": "guards", "grants": [{"doors": both}]},
        ],
    }


BACK = {"name": "back", "device": "panel", "relay": 2}
BY_DAY = TimeProfile(2, frozenset(range(5)), ((time(8), time(18)),))


async def with_card(s: Site, subject: str, card: str, **more: Any) -> None:
    rights = Rights(groups=more.pop("groups", ("staff",)))
    await s.add(subject, card=card, rights=rights, **more)
    await give_card(s, card)


async def give_pin(s: Site, subject: str, pin: str) -> None:
    await s.database.write(lambda c: c.execute("INSERT INTO sealed_pins VALUES (?, ?)", (subject, pin.encode())))


async def brought(s: Site, sync: Sync, device: str = "panel") -> Plan:
    made = await sync.plan(device, by_card=True)
    report = await sync.apply(device, made, by_card=True)
    assert report.interrupted == ""
    return made


async def test_schedules_become_time_profiles_of_the_controller_written_before_the_cards(s: Site) -> None:
    s.devices["panel"] = panel = TimedController()
    s.set_rules(doors(BACK))
    await with_card(s, "ann", "1111")
    await with_card(s, "bob", "2222", groups=("staff", "guards"))
    sync = sync_of(s)
    made = await sync.plan("panel", by_card=True)
    assert (made.times.write, panel.kept, made.steps) == ((BY_DAY,), {}, 4)  # a dry run
    await brought(s, sync)
    assert panel.orders == ["profile 2", "keypads", "tasks", "cards"]
    assert panel.kept == {2: BY_DAY}
    assert {card: (u.doors, u.schedule) for card, u in panel.people.items()} == {
        "1111": ((1,), 2), "2222": ((1, 2), None),
    }  # fmt: skip
    assert (await sync.plan("panel", by_card=True)).empty
    s.set_rules({**doors(BACK), "schedules": {"hours": {"weekly": {"mon-fri": ["09:00-17:00"]}}}})
    later = await brought(s, sync)
    assert (later.change, panel.kept[2].spans) == ((), ((time(9), time(17)),))
    panel.kept.clear()  # somebody reset it
    assert [p.number for p in (await sync.plan("panel", by_card=True)).times.write] == [2]


async def test_one_card_has_other_times_at_each_door(s: Site) -> None:
    s.devices["panel"] = panel = TimedController()
    rules = doors(BACK)
    rules["schedules"]["late"] = {"weekly": {"daily": ["20:00-22:00"]}}
    rules["groups"][0]["grants"].append({"doors": ["back"], "schedule": "late"})
    s.set_rules(rules)
    await with_card(s, "ann", "1111")
    await brought(s, sync_of(s))
    assert panel.people["1111"].door_schedules == ((1, 2), (2, 3))


async def test_a_profile_that_the_controller_refuses_keeps_away_those_who_need_it_and_nobody_else(s: Site) -> None:
    s.devices["panel"] = panel = TimedController()
    panel.refuses_profiles = True
    s.set_rules(doors(BACK))
    await with_card(s, "ann", "1111")
    await with_card(s, "bob", "2222", groups=("guards",))
    sync = sync_of(s)
    report = await sync.apply("panel", await sync.plan("panel", by_card=True), by_card=True)
    assert [(r.key, r.ok) for r in report.failed] == [("profile:2", False), ("1111", False)]
    assert set(panel.people) == {"2222"}
    panel.refuses_profiles = False
    await brought(s, sync)
    assert set(panel.people) == {"1111", "2222"}


async def test_a_door_that_asks_for_a_pin_gets_keypad_and_pins_and_nobody_without_one(s: Site) -> None:
    s.devices["panel"] = panel = TimedController()
    s.set_rules(doors(BACK, verify=[["card", "pin"]]))
    for subject, card, pin in (("ann", "1111", "4711"), ("bob", "2222", ""), ("cat", "3333", "0123")):
        await with_card(s, subject, card, pin=pin, groups=("guards",))
    await with_card(s, "dan", "4444", pin="5678", groups=("guards",))
    await give_pin(s, "ann", "4711")
    await give_pin(s, "cat", "0123")
    made = await brought(s, sync_of(s))
    assert panel.keypads == {1}
    assert {card: (u.doors, u.pin) for card, u in panel.people.items()} == {
        "1111": ((1, 2), "4711"), "2222": ((2,), ""), "3333": ((2,), ""), "4444": ((2,), ""),
    }  # fmt: skip
    assert {r.key: r.reason.partition(": ")[2][:20] for r in made.refused} == {
        "bob": "the door asks for a ", "cat": "the controller keeps", "dan": "the PIN is not known",
    }  # fmt: skip


async def test_a_pin_that_was_taken_off_at_the_controller_comes_back(s: Site) -> None:
    s.devices["panel"] = panel = TimedController()
    s.set_rules(doors(verify=[["card", "pin"]]))
    await with_card(s, "ann", "1111", pin="4711")
    await give_pin(s, "ann", "4711")
    sync = sync_of(s)
    await brought(s, sync)
    panel.people["1111"] = replace(panel.people["1111"], pin="")
    [change] = (await sync.plan("panel", by_card=True)).change
    assert (change.fields, change.user.pin) == (("pin",), "4711")


@pytest.mark.parametrize(
    "front", [{"verify": [["card", "face"]]}, {"two_person": True}, {"interlock": ["back"]}, {"first_card": "hours"}]
)
async def test_a_door_whose_rules_the_controller_cannot_check_is_told_and_not_given_away(
    s: Site, front: dict[str, Any]
) -> None:
    s.devices["panel"] = panel = TimedController()
    s.set_rules(doors(BACK, **front))
    await with_card(s, "ann", "1111")
    made = await brought(s, sync_of(s))
    assert ("front", False) in {(r.key, r.ok) for r in made.refused}
    assert panel.people == {}


async def test_modes_by_schedule_become_tasks_that_no_order_is_undone_by(s: Site) -> None:
    s.devices["panel"] = panel = TimedController()
    s.set_rules(doors(mode_times=[{"schedule": "hours", "mode": "unlocked"}], verify=[["face"]]))
    sync = sync_of(s)
    await brought(s, sync)
    assert {(task.door, task.at.hour, task.mode) for task in panel.tasks if 0 in task.weekdays} == {
        (1, 0, DoorMode.CONTROLLED), (1, 8, DoorMode.UNLOCKED), (1, 18, DoorMode.CONTROLLED),
    }  # fmt: skip
    assert (await sync.plan("panel", by_card=True)).settings is None
    s.doors.presence.give_order("front", Order(access.DoorMode.LOCKDOWN, None, "li"))
    await brought(s, sync)
    assert panel.tasks == []
    s.doors.presence.give_order("front", None)
    s.devices["panel"] = other = TimedController()  # the same controller, connected anew
    await brought(s, sync)
    assert len(other.tasks) == 4


@pytest.mark.parametrize(
    ("valid_from", "valid_until", "expected"),
    [
        (None, None, (None, None)),
        ("2026-11-20 00:00", "2026-12-31 00:00", ("2026-11-20", "2026-12-30")),
        ("2026-11-25 09:00", "2026-12-01 17:00", ("2026-11-26", "2026-11-30")),
        ("2026-11-23 09:00", "2026-11-23 17:00", ("2026-11-23", "2026-11-23")),  # holds now
        ("2026-11-24 09:00", "2026-11-24 17:00", None),  # tomorrow: when it holds, it is written
        ("2026-11-23 12:00", "2026-11-23 17:00", None),
    ],
)
async def test_validity_on_a_controller_goes_by_days_and_none_is_added(
    s: Site, valid_from: str | None, valid_until: str | None, expected: tuple[str | None, str | None] | None
) -> None:
    s.devices["panel"] = TimedController()
    s.set_rules(doors())
    await with_card(s, "ann", "1111")
    rows = [utc_text(datetime.fromisoformat(f"{at}+08:00")) if at else None for at in (valid_from, valid_until)]
    await s.database.write(lambda c: c.execute("UPDATE people SET valid_from = ?, valid_until = ?", rows))
    made = (await sync_of(s).plan("panel", by_card=True)).add
    found = [tuple(at and f"{at:%Y-%m-%d}" for at in (u.valid_from, u.valid_until)) for u in made]
    assert found == ([] if expected is None else [expected])


@pytest.mark.parametrize(("wrong", "orders"), [(-6, ["clock"]), (5, []), (3600, ["clock"])])
async def test_the_clock_that_a_controller_decides_by_is_set_before_anything_else(
    s: Site, wrong: int, orders: list[str]
) -> None:
    s.devices["panel"] = panel = TimedController()
    panel.shows += timedelta(seconds=wrong)
    sync = sync_of(s)
    assert ((await sync.plan("panel", by_card=True)).clock is not None) is bool(orders)
    await brought(s, sync)
    assert panel.orders == [*orders, "keypads", "tasks"]
    assert abs(panel.shows - START.replace(tzinfo=None)) <= timedelta(seconds=5)


async def test_clocks_are_compared_when_summer_time_begins(s: Site) -> None:
    s.set_rules(RULES, zone="Europe/Berlin")
    s.clock.at = datetime(2026, 3, 28, 23, 30, 7, tzinfo=UTC)  # half past midnight, the night of the change
    assert await sync_of(s).next_change() == datetime(2026, 3, 29, 1, tzinfo=UTC)


async def test_everything_is_compared_anew_when_somebodys_validity_ends_and_at_midnight(s: Site) -> None:
    s.set_rules(RULES)
    sync = sync_of(s)
    midnight = datetime(2026, 11, 23, 16, tzinfo=UTC)
    assert await sync.next_change() == midnight
    await s.add("ann", valid_until=s.clock.at + timedelta(hours=2))
    assert await sync.next_change() == s.clock.at + timedelta(hours=2)
    s.clock.move(hours=3)
    assert await sync.next_change() == midnight


async def test_a_device_that_is_away_or_keeps_nobody_is_named(s: Site) -> None:
    with pytest.raises(LookupError, match="not connected"):
        await sync_of(s).plan("zk-9", by_card=False)
    with pytest.raises(LookupError, match="keeps no people"):
        await sync_of(s).plan("camera", by_card=False)


async def test_a_card_number_rests_sealed_and_goes_with_the_card(s: Site) -> None:
    await s.add("ann", card="1111")
    await give_card(s, "1111")
    await s.database.write(lambda c: s.roster.remove_card(c, "1111"))
    assert await s.database.read(lambda c: c.execute("SELECT count(*) FROM sealed_cards").fetchone()) == (0,)


async def test_a_card_that_nobody_told_us_is_named_and_the_persons_own_one_on_the_device_stays(s: Site) -> None:
    terminal = s.devices["zk-1"] = Terminal("zk-1")
    for name, number, card in (("ann", "1", "1111"), ("bob", "2", "2222"), ("eve", "3", "3333")):
        await s.add(name, number=number, card=card)
    await give_card(s, "3333")
    terminal.people = {"1": user("1", name="Ann", card="1111"), "2": user("2", name="Bob", card="9999")}
    made = await sync_of(s).plan("zk-1", by_card=False)
    assert made.cards_unknown == ("bob",)
    assert [(c.user.user_id, c.user.card, c.fields) for c in made.change] == [("2", "", ("card",))]
    assert [(u.user_id, u.card) for u in made.add] == [("3", "3333")]
    assert made.people == {"1": "ann", "2": "bob", "3": "eve"}


async def test_a_controller_is_not_given_cards_that_nobody_told_us(s: Site) -> None:
    s.devices["panel"] = Controller("panel")
    s.set_rules({**RULES, "groups": [{"name": "staff", "grants": [{"doors": ["front"]}]}]})
    await s.add("ann", card="1111")
    made = await sync_of(s).plan("panel", by_card=True)
    assert (made.add, made.cards_unknown) == ((), ("ann",))


async def test_what_is_set_at_the_device_alone_stays(s: Site) -> None:
    terminal = s.devices["zk-1"] = Terminal("zk-1")
    await s.add("ann", number="1")
    terminal.people = {"1": user("1", name="Anne", pin="1234", privilege=14)}
    [change] = (await sync_of(s).plan("zk-1", by_card=False)).change
    assert (change.user.name, change.user.pin, change.user.privilege) == ("Ann", "1234", 14)


async def test_who_is_over_or_not_yet_there_is_not_on_the_terminal(s: Site) -> None:
    terminal = s.devices["zk-1"] = Terminal("zk-1")
    await s.add("ann", number="1", valid_until=s.clock.at + timedelta(days=1))
    await s.add("bob", number="2")
    future = utc_text(s.clock.at + timedelta(days=2))
    await s.database.write(lambda c: c.execute("UPDATE people SET valid_from = ? WHERE subject = 'bob'", (future,)))
    sync = sync_of(s)
    made = await sync.plan("zk-1", by_card=False)
    assert [u.user_id for u in made.add] == ["1"]
    await sync.apply("zk-1", made, by_card=False)
    s.clock.move(days=3)
    later = await sync.plan("zk-1", by_card=False)
    assert (later.remove, [u.user_id for u in later.add]) == (("1",), ["2"])
    assert set(terminal.people) == {"1"}


async def test_somebody_of_ours_who_was_put_there_by_hand_is_taken_off_when_suspended(s: Site) -> None:
    terminal = s.devices["zk-1"] = Terminal("zk-1")
    await s.add("ann", number="1", rights=Rights(enabled=False))
    terminal.people = {"1": user("1", name="Ann")}
    assert (await sync_of(s).plan("zk-1", by_card=False)).remove == ("1",)
