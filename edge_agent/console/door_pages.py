"""Doors: how each stands, why, and the button that opens it."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import Response

from edge_agent.api.context import Gateway
from edge_agent.api.doors import DoorView, alarm_views, door_views
from edge_agent.api.roles import Scope
from edge_agent.console import views
from edge_agent.console.page import Pages, Text
from edge_agent.console.rows import ALARMS, BLANK, DOORS
from edge_agent.delivery.event import Stored
from edge_agent.policy.rules import DoorMode

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


def door_card(view: DoorView, standing: dict[str, str], last: str, t: Text) -> dict[str, Any]:
    """One door as its card shows it: never the last known state as if it were true."""
    glyph, tone, zh, en, why_zh, why_en = MODES[view.mode]
    state, why, card = t(zh, en), t(why_zh, why_en), ""
    if view.ordered_by:
        why += " " + t(f"由 {view.ordered_by} 下令。", f"Ordered by {view.ordered_by}.")
    if view.open:
        glyph, state = "open", t("门开着", "Open")
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
            last[name] = f"{shown['time']} {shown['who']} · {words} · {shown['result']}"
    cards = [door_card(view, standing, last.get(view.name, ""), t) for view in doors]
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
    def __init__(self, gateway: Gateway, pages: Pages) -> None:
        self._gateway = gateway
        self._pages = pages

    async def doors(self, request: Request) -> Response:
        caller = await self._pages.caller(request, Scope.DOORS_READ)
        if isinstance(caller, Response):
            return caller
        t, gateway = self._pages.text(request), self._gateway
        cards = await door_cards(gateway, t)
        may_open = caller.may(Scope.DOORS_OPEN)
        zone = views.zone_of(gateway)
        standing = await gateway.governance.database.read(lambda c: alarm_views(c, duress=may_open))
        may_watch = caller.may(Scope.EVENTS_READ)
        latest = await gateway.outbox.events(limit=1, newest_first=True)
        after = latest[0].sequence if latest else 0
        newest = [item for item in await recent(gateway, 5) if item.sequence <= after] if may_watch else []
        return self._pages.render(
            request,
            "doors.html",
            caller,
            cur="doors",
            headline=headline(cards, t),
            doors=cards,
            alarms=[
                {
                    "number": alarm.number,
                    "label": t(*ALARMS.get(alarm.kind, (alarm.kind, alarm.kind))),
                    "place": alarm.place,
                    "at": alarm.raised_at.astimezone(zone).strftime("%m-%d %H:%M:%S"),
                }
                for alarm in standing
                if alarm.acknowledged_at is None
            ],
            rows=await views.shown_rows(gateway, newest, t),
            blank=BLANK,
            live_after=after,
            can_watch=may_watch,
            can_open=may_open,
            can_write=caller.may(Scope.DOORS_WRITE),
        )


def headline(cards: list[dict[str, Any]], t: Text) -> str:
    bad = [card for card in cards if card["card"] == "bad"]
    away = [card for card in cards if card["offline"]]
    if bad:
        return t(f"{bad[0]['name']}：{bad[0]['state']}", f"{bad[0]['name']}: {bad[0]['state']}")
    if away:
        return t(f"{len(away)} 扇门的控制器离线", f"{len(away)} doors have their controller offline")
    return (
        t(f"{len(cards)} 扇门一切正常", f"All {len(cards)} doors are fine") if cards else t("还没有门", "No doors yet")
    )
