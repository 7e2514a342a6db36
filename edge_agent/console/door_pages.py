"""Doors: how each stands, why, the button that opens it; and who may enter which, when."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

from fastapi.responses import Response

from device_drivers.kinds import KINDS, doors, readers
from edge_agent.api.context import Gateway
from edge_agent.api.doors import DoorView, alarm_views, door_etag, door_views
from edge_agent.audit import Entry
from edge_agent.console import views
from edge_agent.console.page import Text, Visit, counted
from edge_agent.console.rows import ALARMS, BLANK, DOORS
from edge_agent.console.words import WEEKDAYS
from edge_agent.delivery.event import Stored
from edge_agent.policy.anti_passback import OUTSIDE, PassbackRule
from edge_agent.policy.roles import Scope
from edge_agent.policy.rules import EVERY_TIME, Direction, Door, DoorMode, Point, PunchDirection, Zone

MODES = {
    DoorMode.CONTROLLED: ("lock", "ok", "已上锁", "Locked", "凭证件通行。", "Credentials admitted."),
    DoorMode.OFFICE: ("lock", "ok", "办公模式", "Office mode", "首位有权者进入后保持开锁。",
                      "Stays unlocked after the first entitled person."),
    DoorMode.LOCKED: ("lock", "off", "停用", "Locked", "任何证件都不能进入。", "No credential is admitted."),
    DoorMode.UNLOCKED: ("free", "open", "保持开锁", "Unlocked", "按时段或命令开锁。", "By schedule or order."),
    DoorMode.LOCKDOWN: ("lock", "bad", "封锁", "Lockdown", "任何证件都不能进入；从里面出门不受影响。",
                        "No credential is admitted; leaving is not affected."),
    DoorMode.EVACUATION: ("free", "warn", "疏散", "Evacuation", "门已放开。", "The door is released."),
}  # fmt: skip


PASSBACK = {
    PassbackRule.OFF: ("不用", "off"),
    PassbackRule.SOFT: ("放行并记录", "let in and noted"),
    PassbackRule.HARD: ("拒绝", "denied"),
    PassbackRule.TIMED: ("一段时间内拒绝", "denied for a while"),
}


SIDES = {Direction.IN: ("进门一侧", "To go in"), Direction.OUT: ("出门一侧", "To go out")}
PUNCHES = {
    PunchDirection.KEY: ("本人按上班或下班", "the person presses in or out"),
    PunchDirection.IN: ("都算上班", "always in"),
    PunchDirection.OUT: ("都算下班", "always out"),
    PunchDirection.ALTERNATE: ("与当天上一次相反", "the opposite of the last of the day"),
}


def door_card(view: DoorView, standing: dict[str, str], last: str, zone: ZoneInfo, t: Text) -> dict[str, Any]:
    """One door as its card shows it: never the last known state as if it were true."""
    glyph, tone, zh, en, why_zh, why_en = MODES[view.mode]
    state, why, card = t(zh, en), t(why_zh, why_en), ""
    if view.ordered_by and view.ordered_until:
        at = view.ordered_until.astimezone(zone).strftime("%H:%M")
        state = t(f"{state}至 {at}", f"{state} until {at}")
    if view.ordered_by:
        why += t("", " ") + t(f"由 {view.ordered_by} 下令。", f"Ordered by {view.ordered_by}.")
    if view.open:
        glyph, state = "open", t("门开着", "Open")
    if view.not_told:
        card = "warn"
        state += t("（未确认）", " (not confirmed)")
        why += t("", " ") + t(f"控制器没有照做：{view.not_told}", f"The controller does not do so: {view.not_told}")
    if not view.online:
        glyph, tone, card = "unk", "off", "warn"
        state = t("状态未知", "State unknown")
        why = t(
            "控制器离线，由它自行判断，事件稍后补传。", "The controller is offline; it decides alone and reports later."
        )
    if alarm := standing.get(view.name):
        glyph, tone, card = "held", "bad", "bad"
        state = t(*ALARMS.get(alarm, (alarm, alarm)))
    return {
        "name": view.name,
        "zone": view.zone_to,
        "glyph": glyph,
        "tone": tone,
        "card": card,
        "state": state,
        "why": why,
        "offline": not view.online,
        "disobeyed": bool(view.not_told) and view.online,
        "open": view.open or view.mode is DoorMode.UNLOCKED,
        "ordered": bool(view.ordered_by),
        "lockdown": view.mode is DoorMode.LOCKDOWN,
        "last": last,
    }


async def door_cards(gateway: Gateway, t: Text) -> list[dict[str, Any]]:
    """Every door, those in alarm first."""
    standing = {
        alarm.place: alarm.kind
        for alarm in await gateway.governance.database.read(lambda c: alarm_views(c, duress=False))
        if alarm.cleared_at is None
    }
    newest = await recent(gateway, 200)
    last: dict[str, str] = {}
    doors = door_views(gateway)
    for item, shown in zip(newest, await views.shown_rows(gateway, newest, t), strict=True):
        name = door_of(item, doors)
        if name and name not in last:
            kind = item.event.type.partition(".")[2]
            words = t(*DOORS[kind][:2]) if kind in DOORS else kind
            who = "" if shown["who"] == "—" else f"{shown['who']} · "
            last[name] = f"{shown['time']} {who}{words} · {shown['result']}"
    zone = views.zone_of(gateway)
    cards = [
        door_card(view, standing, last.get(view.name, ""), zone, t) | {"etag": door_etag(gateway, view.name)}
        for view in doors
    ]
    return sorted(cards, key=lambda card: {"bad": 0, "warn": 1}.get(card["card"], 2))


async def recent(gateway: Gateway, limit: int) -> list[Stored]:
    """What happened at doors: what the gateway decided, and what the panels said."""
    decided = await gateway.outbox.events(type_prefix="access.", limit=limit, newest_first=True)
    said = await gateway.outbox.events(type_prefix="door.", limit=limit, newest_first=True)
    return sorted(decided + said, key=lambda item: item.sequence, reverse=True)[:limit]


def door_of(item: Stored, doors: list[DoorView]) -> str:
    """The configured door an event speaks of: by name, or by the panel's number."""
    said = item.event.data.get("door")
    for view in doors:
        if said == view.name or (item.event.device == view.device and said == view.relay):
            return view.name
    return ""


class DoorPages:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def doors(self, visit: Visit) -> Response:
        t, gateway = visit.t, self._gateway
        cards = await door_cards(gateway, t)
        may_open = visit.may(Scope.DOORS_OPEN)
        zone = views.zone_of(gateway)
        standing = await gateway.governance.database.read(lambda c: alarm_views(c, duress=may_open))
        may_watch = visit.may(Scope.EVENTS_READ)
        latest = await gateway.outbox.events(limit=1, newest_first=True)
        after = latest[0].sequence if latest else 0
        newest = [item for item in await recent(gateway, 5) if item.sequence <= after] if may_watch else []
        return visit.render(
            "doors.html",
            cur="doors",
            headline=headline(cards, t),
            summary=summary(cards, t),
            doors=cards,
            modes=_orders(t),
            alarms=[
                {
                    "number": alarm.number,
                    "label": t(*ALARMS.get(alarm.kind, (alarm.kind, alarm.kind))),
                    "place": alarm.place,
                    "at": alarm.raised_at.astimezone(zone).strftime("%m-%d %H:%M:%S"),
                    "cleared": alarm.cleared_at.astimezone(zone).strftime("%H:%M:%S") if alarm.cleared_at else "",
                }
                for alarm in standing
                if alarm.acknowledged_at is None
            ],
            rows=await views.shown_rows(gateway, newest, t),
            blank=BLANK,
            live_after=after,
            can_watch=may_watch,
            can_open=may_open,
            can_write=visit.may(Scope.DOORS_WRITE),
            can_configure=visit.may(Scope.CONFIG_READ),
        )

    async def door(self, visit: Visit) -> Response:
        """One door: its rules as a form, what happened there."""
        t, gateway, name = visit.t, self._gateway, visit.path("name")
        card = next((found for found in await door_cards(gateway, t) if found["name"] == name), None)
        rules = gateway.governance.configuration.site.access
        door = next((found for found in rules.doors if found.name == name), None)
        if card is None or door is None:
            return visit.missing(t(f"没有名为「{name}」的门", f"There is no door “{name}”"))
        newest = []
        if visit.may(Scope.EVENTS_READ):
            doors = door_views(gateway)
            newest = [item for item in await recent(gateway, 200) if door_of(item, doors) == name][:20]
            entry = Entry(actor=visit.caller.name, action="events.read", object=name, details={"rows": len(newest)})
            await gateway.governance.note(entry)
        return visit.render(
            "door.html",
            cur="doors",
            door=card,
            config=door.model_dump(mode="json"),
            rows=await views.shown_rows(gateway, newest, t),
            modes=_orders(t),
            can_open=visit.may(Scope.DOORS_OPEN),
            can_write=visit.may(Scope.DOORS_WRITE),
            can_configure=visit.may(Scope.CONFIG_WRITE),
            **self._choices(t),
        )

    async def access(self, visit: Visit) -> Response:
        """Schedules, access groups, holidays and doors: who may enter what, when."""
        t, site = visit.t, self._gateway.governance.configuration.site
        rules = site.access
        used = {grants.schedule for group in rules.groups for grants in group.grants}
        used |= {times.schedule for door in rules.doors for times in door.mode_times}
        used |= {times.schedule for door in rules.doors for times in door.verify_times}
        used |= {door.first_card for door in rules.doors if door.first_card}
        entered = {zone for door in rules.doors for zone in (door.zone_from, door.zone_to)}
        kinds = sorted({*rules.calendar.holidays.values(), *rules.calendar.yearly.values()})
        document = rules.model_dump(mode="json")
        return visit.render(
            "access.html",
            cur="doors",
            headline=t(
                f"{len(rules.groups)} 个门禁组，{len(rules.schedules)} 个时段，{len(rules.doors)} 扇门",
                ", ".join(
                    counted(n, word)
                    for n, word in (
                        (len(rules.groups), "access group"),
                        (len(rules.schedules), "schedule"),
                        (len(rules.doors), "door"),
                    )
                ),
            ),
            schedules=[
                {"name": name, "week": document["schedules"][name], "used": name in used} for name in rules.schedules
            ],
            kinds=kinds,
            weekdays=[(key, t(*words)) for key, words in WEEKDAYS.items()],
            groups=[
                {
                    "name": group["name"],
                    "rows": [(door, grants["schedule"]) for grants in group["grants"] for door in grants["doors"]],
                }
                for group in document["groups"]
            ],
            calendar=document["calendar"],
            zones=[
                {**zone.model_dump(mode="json"), "rule": t(*PASSBACK[zone.anti_passback]), "used": zone.name in entered}
                for zone in rules.zones
            ],
            fresh_zone=Zone(name="new").model_dump(mode="json"),
            points=document["points"],
            fresh_point=Point(name="new", reader="reader").model_dump(mode="json") | {"reader": None},
            fresh=Door(name="new", device="device").model_dump(mode="json"),
            can_configure=visit.may(Scope.CONFIG_WRITE),
            **self._choices(t),
        )

    def _choices(self, t: Text) -> dict[str, Any]:
        """What the fields of a door may be set to."""
        site = self._gateway.governance.configuration.site
        rules = site.access
        return {
            "resting": [
                (mode.value, t(*MODES[mode][2:4]))
                for mode in (DoorMode.CONTROLLED, DoorMode.OFFICE, DoorMode.UNLOCKED, DoorMode.LOCKED)
            ],
            "every": [(EVERY_TIME, t("任何时间", "At any time")), *((name, name) for name in rules.schedules)],
            "places": [(OUTSIDE, t("外面", "Outside")), *((zone.name, zone.name) for zone in rules.zones)],
            "controllers": [
                (device.name, device.name) for device in site.devices if doors(device.kind, device.options)
            ],
            "readers": [(device.name, device.name) for device in site.devices if readers(device.kind, device.options)],
            "doors_of": [(door.name, door.name) for door in rules.doors],
            "cameras": [(device.name, device.name) for device in site.devices if KINDS[device.kind].pictures],
            "modules": [(device.name, device.name) for device in site.devices if KINDS[device.kind].fingers],
            "sides": [(side.value, t(*SIDES[side])) for side in Direction],
            "punches": [(rule.value, t(*PUNCHES[rule])) for rule in PunchDirection],
            "door_names": [door.name for door in rules.doors],
            "passback": [(rule.value, t(*PASSBACK[rule])) for rule in PassbackRule],
        }


def _orders(t: Text) -> list[tuple[str, str, str]]:
    """(label, JSON of the order, word when done) for the menu of a door."""
    return [
        (t("开锁 5 分钟", "Unlock for 5 min"), '{"mode": "unlocked", "minutes": 5}', t("已开锁", "Unlocked")),
        (t("开锁 30 分钟", "Unlock for 30 min"), '{"mode": "unlocked", "minutes": 30}', t("已开锁", "Unlocked")),
        (t("保持开锁", "Keep unlocked"), '{"mode": "unlocked"}', t("已开锁", "Unlocked")),
        (t("停用，谁也不能进", "Lock: nobody enters"), '{"mode": "locked"}', t("已停用", "Locked")),
        (t("回到时段", "Back to the schedule"), '{"mode": "schedule"}', t("已回到时段", "Back to the schedule")),
    ]


def headline(cards: list[dict[str, Any]], t: Text) -> str:
    bad = [card for card in cards if card["card"] == "bad"]
    away = [card for card in cards if card["offline"]]
    disobeyed = [card["name"] for card in cards if card["disobeyed"]]
    closed = [card for card in cards if card["lockdown"]]
    if bad:
        return t(f"{bad[0]['name']}：{bad[0]['state']}", f"{bad[0]['name']}: {bad[0]['state']}")
    if disobeyed:
        return t(f"{disobeyed[0]}：控制器没有照做", f"{disobeyed[0]}: its controller does not do as it should")
    if closed:
        return t(f"{len(closed)} 扇门已封锁", f"{counted(len(closed), 'door is', 'doors are')} in lockdown")
    if away:
        return t(f"{len(away)} 扇门的控制器离线", f"The controller of {counted(len(away), 'door')} is offline")
    if not cards:
        return t("还没有门", "No doors yet")
    if len(cards) == 1:
        return t("门一切正常", "The door is fine")
    return t(f"{len(cards)} 扇门一切正常", f"All {len(cards)} doors are fine")


def summary(cards: list[dict[str, Any]], t: Text) -> str:
    """How the doors stand, counted by state."""
    offline = sum(card["offline"] for card in cards)
    unlocked = sum(card["open"] and not card["offline"] for card in cards)
    locked = len(cards) - offline - unlocked
    parts = [(locked, "扇已上锁", "locked"), (unlocked, "扇开着", "open"), (offline, "扇状态未知", "unknown")]
    return t("，".join(f"{n} {zh}" for n, zh, _ in parts if n), ", ".join(f"{n} {en}" for n, _, en in parts if n))
