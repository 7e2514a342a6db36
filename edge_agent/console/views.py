"""What each page shows, computed from the running gateway. Titles are sentences about now."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from edge_agent.api.access import Caller
from edge_agent.api.approvals import ACTS
from edge_agent.api.context import Gateway
from edge_agent.api.devices import device_view, pending_views
from edge_agent.api.doors import door_views
from edge_agent.api.health import door_faults
from edge_agent.api.privacy import request_view, requests_of
from edge_agent.api.two_people import waiting
from edge_agent.console.page import Counts, Lamp, Text, counted
from edge_agent.console.rows import ALARMS, row
from edge_agent.console.words import DEVICE_FAULTS, KINDS, MODALITIES
from edge_agent.delivery.event import Stored
from edge_agent.delivery.outbox import Ledger
from edge_agent.devices.supervise import DeviceHealth, LinkState
from edge_agent.doors.alarms import Alarm, alarms
from edge_agent.policy.requests import RightsRequest, Standing
from edge_agent.policy.roles import Scope

CLOCK_LIMIT = timedelta(seconds=10)  # IEC 60839-11-1: +-10 s

Pairs = tuple[tuple[str, str], ...]
STATES = {
    LinkState.ONLINE: ("ok", "在线", "Online"),
    LinkState.STARTING: ("info", "正在连接", "Connecting"),
    LinkState.OFFLINE: ("off", "离线", "Offline"),
    LinkState.NEEDS_PERSON: ("bad", "需要人处理", "Needs a person"),
    LinkState.STORAGE_FULL: ("bad", "磁盘已满", "Disk full"),
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What waits for somebody, as the database knows it."""

    quarantined: int = 0
    alarms: tuple[tuple[str, str], ...] = ()  # (kind, place), not acknowledged; a silent duress is not among them
    overdue: int = 0
    due_soon: int = 0
    acts: tuple[tuple[str, str], ...] = ()  # (act, who asked), waiting for a second person
    record: tuple[tuple[int, bool, bool], ...] = ()  # every alarm, silent ones too: number, cleared, acknowledged

    def undecided(self, caller: Caller) -> int:
        """Acts that wait for somebody with this caller's rights who did not ask."""
        known = ((ACTS[name], person) for name, person in self.acts if name in ACTS)
        return sum(caller.may(act.scope) and person != caller.name for act, person in known)


async def look(gateway: Gateway) -> Seen:
    now = gateway.governance.now()

    def read(connection: sqlite3.Connection) -> tuple[list[Alarm], list[RightsRequest], Pairs]:
        return alarms(connection), requests_of(connection), tuple(waiting(connection, now=now))

    standing, requests, acts = await gateway.governance.database.read(read)
    unseen = tuple((a.kind.value, a.place) for a in standing if not a.silent and a.acknowledged_at is None)
    record = tuple((a.number or 0, a.cleared_at is not None, a.acknowledged_at is not None) for a in standing)
    standings = [request_view(gateway, request).standing for request in requests if request.answered_at is None]
    books = total(await gateway.outbox.stats())
    overdue, soon = standings.count(Standing.OVERDUE), standings.count(Standing.DUE_SOON)
    return Seen(books.quarantined, unseen, overdue, soon, acts, record)


def digest(gateway: Gateway, seen: Seen) -> str:
    """Changes when something a page shows has changed state; counters alone do not change it."""
    devices = [(name, health.state, drifted(health), health.error) for name, health in gateway.fleet.health.items()]
    upstreams = [(name, bool(delivery.failures)) for name, delivery in gateway.upstreams.health.items()]
    pending = [item.serial for item in gateway.adms.gate.pending()]
    version, ballast = gateway.governance.configuration.version, gateway.governance.database.ballast
    own = (version.number if version else 0, gateway.biometrics.sealed, ballast.held, warnings(gateway, _english))
    text = repr((devices, upstreams, door_views(gateway), pending, seen, own))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _english(_: str, words: str) -> str:
    return words


def zone_of(gateway: Gateway) -> ZoneInfo:
    return ZoneInfo(gateway.governance.configuration.site.timezone)


def drifted(health: DeviceHealth) -> bool:
    return health.clock_offset is not None and abs(health.clock_offset) > CLOCK_LIMIT


def lasted(time: timedelta, t: Text) -> str:
    """A duration in its largest unit."""
    minutes = int(time.total_seconds() // 60)
    if minutes < 1:
        return t("不到 1 分钟", "under 1 min")
    if minutes < 60:
        return t(f"{minutes} 分钟", f"{minutes} min")
    if minutes < 48 * 60:
        return t(f"{minutes // 60} 小时", f"{minutes // 60} h")
    return t(f"{minutes // 1440} 天", counted(minutes // 1440, "day"))


def why(health: DeviceHealth, t: Text) -> str:
    """Why it is not online; the error itself has the facts."""
    return t(*DEVICE_FAULTS.get(health.fault, DEVICE_FAULTS[""])) if health.error else ""


def refusal(state: str, t: Text) -> str:
    """Why an upstream has nothing yet."""
    if state == "not_admitted":
        return t("它不接受我们的凭据或证书", "It does not accept our credentials or certificate")
    return t("它现在收不了，记录都留着，会自动重发", "It cannot take anything now; records are kept and sent again")


def device_row(gateway: Gateway, name: str, t: Text) -> dict[str, Any]:
    view = device_view(gateway, name)
    health = gateway.fleet.health.get(name)
    tone, zh, en = STATES[health.state] if health else ("off", "停用", "Switched off")
    state = t(zh, en)
    if health and health.state is LinkState.ONLINE and drifted(health) and health.clock_offset is not None:
        seconds = health.clock_offset.total_seconds()
        fast = seconds > 0
        tone = "warn"
        state = t(
            f"时钟{'快' if fast else '慢'} {abs(seconds):.0f} 秒",
            f"Clock {abs(seconds):.0f} s {'fast' if fast else 'slow'}",
        )
    elif health and health.state is not LinkState.ONLINE and health.since:
        state += " " + lasted(gateway.governance.now() - health.since, t)
    local = view.last_event.astimezone(zone_of(gateway)) if view.last_event else None
    offset = view.clock_offset_s
    return {
        "name": name,
        "on": view.state,
        "kind": t(*KINDS[view.kind]),
        "tone": tone,
        "state": state,
        "address": view.address,
        "serial": view.serial,
        "error": view.error,
        "why": why(health, t) if health else "",
        "clock": "—" if offset is None else f"{offset:+.1f} s".replace("-", "\N{MINUS SIGN}"),
        "clock_tone": bool(health and drifted(health)),
        "biometrics": t("、", ", ").join(t(*MODALITIES[m][1:]) for m in MODALITIES if m in view.biometrics)
        or t("关闭", "Off"),
        "biometrics_on": bool(view.biometrics),
        "last": local.strftime("%H:%M:%S") if local else "—",
    }


def device_rows(gateway: Gateway, t: Text) -> list[dict[str, Any]]:
    """Those that need somebody first."""
    order = {"bad": 0, "off": 1, "warn": 2, "info": 3, "ok": 4}
    rows = [device_row(gateway, d.name, t) for d in gateway.governance.configuration.site.devices]
    return sorted(rows, key=lambda row: order[row["tone"]])


def devices_headline(rows: Iterable[dict[str, Any]], waiting: int, t: Text) -> str:
    states = [row["on"] for row in rows]
    if not states and not waiting:
        return t("还没有设备", "No devices yet")
    online, off = states.count("online"), states.count("off")
    away = len(states) - online - off
    zh, en = [f"{online} 台在线"], [f"{online} online"]
    if away:
        zh.append(f"{away} 台不在线")
        en.append(f"{away} not online")
    if off:
        zh.append(f"{off} 台停用")
        en.append(f"{off} switched off")
    if waiting:
        zh.append(f"{waiting} 台等您批准")
        en.append(f"{waiting} waiting for you")
    return t("，".join(zh), ", ".join(en))


def lamps(gateway: Gateway, seen: Seen, t: Text) -> list[Lamp]:
    health = gateway.fleet.health
    online = gateway.fleet.online()
    faulty = any(h.state in {LinkState.NEEDS_PERSON, LinkState.STORAGE_FULL} for h in health.values())
    found = [
        Lamp(
            t("设备", "Devices"),
            f"{online}/{len(health)}",
            "/devices",
            "bad" if faulty else "warn" if online < len(health) else "",
        )
    ]
    if gateway.rules().doors:
        count = len(seen.alarms)
        words, tone = t(f"{count} 告警", counted(count, "alarm")), "bad"
        if not count:
            faults = len(door_faults(gateway))
            words, tone = (t(f"{faults} 未照做", f"{faults} at odds"), "warn") if faults else (t("正常", "normal"), "")
        found.append(Lamp(t("门", "Doors"), words, "/doors", tone))
    deliveries = gateway.upstreams.health
    failing = [name for name, delivery in deliveries.items() if delivery.failures]
    found.append(
        Lamp(
            t("上游", "Uplink"),
            t("没有", "none") if not deliveries else t("等待", "waiting") if failing else t("正常", "normal"),
            "/upstreams",
            "off" if not deliveries else "warn" if failing else "",
        )
    )
    usage = shutil.disk_usage(gateway.data_dir)
    short = gateway.governance.database.ballast.short
    found.append(Lamp(t("存储", "Storage"), f"{usage.used / usage.total:.0%}", "/health", "bad" if short else ""))
    switched = any(s.enabled for s in gateway.governance.configuration.site.modalities.values())
    sealed = gateway.biometrics.sealed
    state = t("已封存", "sealed") if sealed else t("可用", "open") if switched else t("关闭", "off")
    templates_lamp = Lamp(t("模板库", "Templates"), state, "/sealed", "seal" if sealed else "" if switched else "off")
    clocks = [h for h in health.values() if drifted(h)]
    found.append(
        Lamp(
            t("时钟", "Clock"),
            t(f"{len(clocks)} 台偏", f"{len(clocks)} off") if clocks else t("正常", "normal"),
            "/devices",
            "warn" if clocks else "",
        )
    )
    found.append(templates_lamp)
    return found


def warnings(gateway: Gateway, t: Text) -> list[str]:
    """What `GET /status` warns of, in the reader's language."""
    found = [
        f"{name}{t('：', ': ')}{why(health, t)}"
        for name, health in gateway.fleet.health.items()
        if health.state is LinkState.NEEDS_PERSON
    ]
    away = t("断线期间的记录无法从设备补读", "what happens while it is not connected cannot be read from it")
    found += [f"{name}{t('：', ': ')}{away}" for name in gateway.fleet.warnings()]
    found += [f"{t('门', 'Door')} {name}{t('：', ': ')}{why}" for name, why in door_faults(gateway).items()]
    found += [
        f"{t('上游', 'Uplink')} {name}{t('：', ': ')}{refusal(delivery.state, t)} · {delivery.error}"
        for name, delivery in gateway.upstreams.health.items()
        if delivery.failures
    ]
    if gateway.biometrics.warning:
        found.append(
            t(
                "模板的主密钥是本机磁盘上的文件，谁拷走磁盘就能打开模板；建议改用 TPM、PKCS#11 或 systemd 凭据。",
                "The master key of the templates is a file on this disk: whoever copies the disk opens them."
                " A TPM, a PKCS#11 token or a systemd credential is better.",
            )
        )
    if gateway.governance.database.ballast.short:
        found.append(
            t("磁盘空间不足，设备暂不确认，记录留在设备上。", "The disk is short of room; devices keep their records.")
        )
    if gateway.incidents.open_count:
        found.append(
            t(f"{gateway.incidents.open_count} 起安全事件未结案", f"Open incidents: {gateway.incidents.open_count}")
        )
    return found


def templates(gateway: Gateway, t: Text) -> dict[str, Any]:
    """The card of the template store."""
    biometrics, site = gateway.biometrics, gateway.governance.configuration.site
    on = [modality for modality, switch in site.modalities.items() if switch.enabled]
    if biometrics.sealed:
        return {
            "tone": "seal",
            "state": t("已封存", "Sealed"),
            "facts": [(t("原因", "Why"), biometrics.store.seal_reason)],
        }
    if not on:
        words = t("四类都关闭，不采集也不比对", "all four are off: nothing is taken or matched")
        return {"tone": "off", "state": t("关闭", "Off"), "facts": [(t("生物特征", "Biometrics"), words)]}
    count = f"{biometrics.galleries.count():,}"
    words = t("、", ", ").join(t(*MODALITIES[m][1:]) for m in MODALITIES if m in on)
    facts = [(t("已开启", "Switched on"), words), (t("可比对模板", "Searchable templates"), count)]
    if biometrics.warning:
        facts.append(
            (t("密钥", "Key"), t("密钥在本机文件里，建议用 TPM", "the key is a file on this disk; a TPM is better"))
        )
    return {"tone": "ok", "state": t("可用", "Open"), "facts": facts}


def counts(gateway: Gateway, seen: Seen, caller: Caller) -> Counts:
    waiting = len(gateway.adms.gate.pending())
    return Counts(
        {
            "devices": (waiting, "warn"),
            "doors": (len(seen.alarms), "bad"),
            "quarantine": (seen.quarantined, "warn"),
            "approvals": (seen.undecided(caller), "info"),
            "incidents": (gateway.incidents.open_count, "bad"),
            "privacy": (seen.overdue + seen.due_soon, "bad" if seen.overdue else "warn"),
        }
    )


async def names_of(gateway: Gateway, events: Iterable[Stored]) -> dict[str, str]:
    subjects = {item.event.subject for item in events if item.event.subject}
    return await gateway.governance.database.read(lambda c: gateway.roster.names(c, subjects))


async def shown_rows(gateway: Gateway, found: list[Stored], t: Text) -> list[dict[str, Any]]:
    """Events as rows, with the names of people and doors."""
    names, zone = await names_of(gateway, found), zone_of(gateway)
    doors = {(door.device, door.relay): door.name for door in gateway.rules().doors.values()}
    return [row(item, t=t, zone=zone, names=names, doors=doors) for item in found]


def total(ledgers: Iterable[Ledger]) -> Ledger:
    """The books of all recipients together; of none, an empty and balanced one."""
    found = [ledger for ledger in ledgers if not ledger.revoked]
    return Ledger(
        "",
        mandatory=True,
        revoked=False,
        received=sum(b.received for b in found),
        delivered=sum(b.delivered for b in found),
        pending=sum(b.pending for b in found),
        quarantined=sum(b.quarantined for b in found),
        discarded=sum(b.discarded for b in found),
    )


def attention(gateway: Gateway, seen: Seen, t: Text, *, caller: Caller) -> list[dict[str, str]]:
    """What needs somebody, worst first, as far as their role may know."""
    quarantined, may, undecided = seen.quarantined, caller.may, seen.undecided(caller)
    found = [
        {
            "tone": "bad",
            "icon": "alarm",
            "title": f"{place}{t('：', ': ')}{t(*ALARMS.get(kind, (kind, kind)))}",
            "detail": t("告警未确认", "not acknowledged yet"),
            "href": "/doors",
            "action": t("看这扇门", "See the door"),
        }
        for kind, place in (seen.alarms[:5] if may(Scope.DOORS_READ) else ())
    ]
    for name, health in gateway.fleet.health.items():
        if health.state is LinkState.NEEDS_PERSON:
            found.append(
                {
                    "tone": "bad",
                    "icon": "device",
                    "title": t(f"{name}：需要人处理", f"{name} needs a person"),
                    "detail": f"{why(health, t)} · {health.error}",
                    "href": f"/devices/{quote(name)}",
                    "action": t("查看", "Look"),
                }
            )
        elif health.state is LinkState.OFFLINE and health.failures > 2:
            found.append(
                {
                    "tone": "warn",
                    "icon": "unplug",
                    "title": t(f"{name}：连不上", f"{name} cannot be reached"),
                    "detail": f"{why(health, t)} · {health.error}",
                    "href": f"/devices/{quote(name)}",
                    "action": t("查看", "Look"),
                }
            )
    found += [
        {
            "tone": "warn",
            "icon": "device",
            "title": t("一台新终端请求接入", "A new terminal asks to join"),
            "detail": f"{item.address} · ADMS · {item.serial} · "
            + t("批准前不接收任何数据", "nothing is accepted until you approve it"),
            "href": "/devices",
            "action": t("审核", "Review"),
        }
        for item in pending_views(gateway)
    ]
    found += [
        {
            "tone": "warn",
            "icon": "up",
            "title": t(f"上游 {name} 暂时送不到", f"Upstream {name} cannot be reached"),
            "detail": f"{refusal(delivery.state, t)} · {delivery.error}",
            "href": "/upstreams",
            "action": t("查看", "Look"),
        }
        for name, delivery in gateway.upstreams.health.items()
        if delivery.failures > 2
    ]
    if (seen.overdue or seen.due_soon) and may(Scope.PRIVACY_READ):
        found.append(
            {
                "tone": "bad" if seen.overdue else "warn",
                "icon": "shield",
                "title": t(
                    f"{seen.overdue} 份个人信息请求已逾期",
                    f"{counted(seen.overdue, 'privacy request is', 'privacy requests are')} overdue",
                )
                if seen.overdue
                else t(
                    f"{seen.due_soon} 份个人信息请求将在 3 个工作日内到期",
                    f"{counted(seen.due_soon, 'privacy request is', 'privacy requests are')} due within 3 working days",
                ),
                "detail": t("自核实身份起 15 个工作日内答复", "to be answered 15 working days after verification"),
                "href": "/privacy",
                "action": t("处理", "Handle"),
            }
        )
    if undecided:
        found.append(
            {
                "tone": "info",
                "icon": "people",
                "title": t(
                    f"{undecided} 件事等您批准", f"{counted(undecided, 'act waits', 'acts wait')} for your approval"
                ),
                "detail": t("别人提出的，要另一位来决定", "asked for by somebody else; a second person decides"),
                "href": "/approvals",
                "action": t("去决定", "Decide"),
            }
        )
    if quarantined:
        found.append(
            {
                "tone": "warn",
                "icon": "box",
                "title": t(
                    f"{quarantined:,} 条记录被上游拒收",
                    f"{counted(quarantined, 'record was', 'records were')} refused upstream",
                ),
                "detail": t("原样保存，等您放行或丢弃", "kept as they are until you release or discard them"),
                "href": "/quarantine",
                "action": t("处理", "Handle"),
            }
        )
    return found


def date_line(local: datetime, t: Text) -> str:
    """A date in words."""
    return t(
        f"{local.year} 年 {local.month} 月 {local.day} 日 星期{'一二三四五六日'[local.weekday()]}",
        f"{local:%A}, {local.day} {local:%B %Y}",
    )


def headline(count: int, t: Text) -> str:
    if count:
        english = "1 thing needs you" if count == 1 else f"{count} things need you"
        return t(f"{count} 件事等您处理，其余一切正常", f"{english}. Everything else is fine")
    return t("一切正常", "Everything is fine")
