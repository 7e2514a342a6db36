"""What waits for a second person: what was asked in words, who may decide it, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from fastapi.responses import Response

from edge_agent.api.approvals import ACTS
from edge_agent.api.context import Gateway
from edge_agent.api.two_people import ActView, listing
from edge_agent.audit import Entry
from edge_agent.console import views
from edge_agent.console.page import Text, Visit, counted
from edge_agent.console.privacy_pages import VERBS
from edge_agent.console.rows import REASONS
from edge_agent.console.words import MODALITIES, PURPOSES, ROLES
from edge_agent.policy.requests import Verb
from edge_agent.policy.roles import Scope
from edge_agent.policy.two_people import ActKind, TwoPeople, WhyNot
from templates_store.template import Modality, Purpose

STATES = {
    "waiting": ("info", "等另一位批准", "Waits for a second person"),
    "approved": ("ok", "已批准，可以去做", "Approved: may be done now"),
    "refused": ("off", "已拒绝", "Refused"),
    "done": ("ok", "已执行", "Done"),
    "failed": ("bad", "没有完成", "Failed"),
    "expired": ("off", "已过期", "Lapsed"),
}
KINDS = {
    ActKind.DOOR_OPEN: ("远程开门、保持开锁", "Opening doors, keeping them unlocked"),
    ActKind.LOCKDOWN: ("封锁和解除封锁", "Lockdown and its end"),
    ActKind.ERASURE: ("擦除（撤回同意除外）", "Erasure (not a withdrawal of consent)"),
    ActKind.EXPORT: ("导出数据", "Exporting data"),
    ActKind.DISCLOSURE: ("提供给有权机关", "Disclosure to an authority"),
    ActKind.KEY_ROTATION: ("轮换主密钥", "Rotating the master key"),
    ActKind.DECOMMISSION: ("停用这台网关", "Ending this gateway"),
}
MODES = {
    "controlled": ("恢复凭证件通行", "admitting by credential"),
    "locked": ("停用，谁也不能进", "locked for everybody"),
    "unlocked": ("保持开锁", "unlocked"),
    "lockdown": ("封锁", "in lockdown"),
    "evacuation": ("疏散，门放开", "released for evacuation"),
    "schedule": ("回到时段", "back on its schedule"),
}
WHY_NOT = {
    WhyNot.MACHINE: ("令牌不能批准，请用账号登录。", "A token decides nothing; sign in."),
    WhyNot.OWN_ACT: ("这是您提出的，要另一位来批准。", "You asked for it: another person has to approve."),
    WhyNot.PASSWORD: (
        "提出的人或您的密码是别人设的；先在「我的账号」里自己改一次。",
        "The asker's password or yours was set by somebody else; it has to be changed under “My account” first.",
    ),
    WhyNot.PROVIDER: (
        "您和提出的人中，一位设置了为另一位担保的身份提供方；要第三位来批准。",
        "One of you set up the identity provider that vouches for the other; a third person has to approve.",
    ),
    WhyNot.HANDS: (
        (
            "您和提出的人中，一位的账号是另一位建立或重置的，或两个账号都经同一个人的手；"
            "要别人来批准，或由另一位管理员重置其中一个账号，或在网关上运行 edge-agent accounts reset。"
        ),
        (
            "One of you made or reset the other's account, or the same person did so with both: somebody else has to"
            " approve, or another administrator resets one of the accounts, or it is reset on the gateway with"
            " edge-agent accounts reset."
        ),
    ),
}
EVENT_TYPES = {
    "attendance.": ("打卡", "punches"),
    "access.": ("通行", "entries"),
    "door.": ("门事件", "door events"),
    "subject.": ("人员事件", "events about people"),
}
Moment = Callable[[str], str]
Asked = Mapping[str, Any]


class ApprovalPages:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def approvals(self, visit: Visit) -> Response:
        t, gateway = visit.t, self._gateway
        found = await listing(gateway.governance, ACTS, visit.caller)
        names = await self._names(visit, found)
        waiting = [act for act in found if act.state == "waiting"]
        mine = sum(act.why_not is None for act in waiting)
        headline = t("没有等第二个人的事", "Nothing waits for a second person")
        if waiting:
            headline = t(f"{len(waiting)} 件事等第二个人", f"{counted(len(waiting), 'act waits', 'acts wait')}")
            headline += t(f"，{mine} 件您可以决定", f", {mine} of them for you") if mine else ""
        return visit.render(
            "approvals.html",
            cur="approvals",
            headline=headline,
            acts=[self._card(act, names, visit.caller.name, t) for act in found],
        )

    async def _names(self, visit: Visit, found: list[ActView]) -> dict[str, str]:
        """Of the people that acts are about, for those who may read names."""
        subjects = {str(act.asked["subject"]) for act in found if act.asked.get("subject")}
        if not subjects or not visit.may(Scope.PEOPLE_READ):
            return {}
        governance, roster = self._gateway.governance, self._gateway.roster
        names = await governance.database.read(lambda c: roster.names(c, subjects))
        await governance.note(Entry(actor=visit.caller.name, action="people.read", details={"rows": len(names)}))
        return names

    def _card(self, act: ActView, names: Mapping[str, str], viewer: str, t: Text) -> dict[str, Any]:
        zone = views.zone_of(self._gateway)

        def at(moment: datetime | None) -> str:
            return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S") if moment else "—"

        subject = str(act.asked.get("subject") or "")
        who = f"{names[subject]} ({subject})" if subject in names else subject
        tone, *state = STATES.get(act.state, ("off", act.state, act.state))
        tone, outcome = _outcome(act, tone, t)
        roles = t("、", ", ").join(t(*ROLES[role]) for role in act.deciders)
        facts = [
            (t("谁提出", "Asked by"), act.person),
            (t("提出于", "Asked"), at(act.asked_at)),
            (t("有效到", "Until"), at(act.expires_at)),
        ]
        if act.state == "waiting":
            facts.append(
                (t("谁可以决定", "Who may decide"), t(f"{roles}，{act.person} 除外", f"{roles}; not {act.person}"))
            )
        if act.decided_by:
            facts.append((t("谁决定", "Decided by"), f"{act.decided_by} · {at(act.decided_at)}"))
        if outcome:
            facts.append((t("结果", "Outcome"), outcome))
        return {
            "id": act.id,
            "title": said(act, who, t, lambda text: at(datetime.fromisoformat(text)), self._rules()),
            "tone": tone,
            "state": t(*state),
            "facts": facts,
            "waits": act.state == "waiting",
            "own": act.person == viewer,
            "why_not": t(*WHY_NOT[act.why_not]) if act.why_not else "",
            "next": _next(act, t) if act.state == "approved" and act.person == viewer else None,
        }

    def _rules(self) -> TwoPeople:
        return self._gateway.governance.configuration.site.two_people


def said(act: ActView, who: str, t: Text, at: Moment, rules: TwoPeople) -> str:
    """What was asked, in a sentence; `who` is the person it is about."""
    asked = act.asked
    match act.name:
        case "door.open":
            return t(f"把「{asked['door']}」开一次", f"Open “{asked['door']}” once")
        case "door.mode":
            mode, minutes = t(*MODES[asked["mode"]]), asked.get("minutes")
            time = t(f" {minutes:g} 分钟", f" for {minutes:g} min") if minutes else ""
            return t(f"让「{asked['door']}」{mode}{time}", f"Put “{asked['door']}” {mode}{time}")
        case "doors.lockdown":
            if asked["lockdown"]:
                return t("封锁全部门", "Lock down all doors")
            return t("解除全部门的封锁", "Lift the lockdown of all doors")
        case "person.erase":
            return _erasure(asked, who, t)
        case "person.export":
            return t(f"导出 {who} 的全部数据", f"Export everything about {who}")
        case "person.disclose":
            to, reference = asked["authority"], asked["reference"]
            return t(f"把 {who} 的数据提供给 {to}（{reference}）", f"Disclose {who} to {to} ({reference})")
        case "keys.rotate":
            return t("轮换主密钥，旧密钥作废", "Rotate the master key; the old one is destroyed")
        case "incident.exchange":
            words = asked["incident"]
            return t(
                f"因事件 {words} 更换密钥，结束全部登录和令牌",
                f"Exchange keys for incident {words}; every session and token ends",
            )
        case "events.export":
            return _export(asked, t, at)
        case "two_people.change":
            return _change(TwoPeople.model_validate(asked), rules, t)
        case "config.loosen":
            return _configuration(asked, t)
        case "gateway.decommission":
            return t("停用这台网关", "End this gateway")
    return act.name


def _erasure(asked: Asked, who: str, t: Text) -> str:
    what = []
    if asked.get("modality"):
        what.append(t(*MODALITIES[Modality(asked["modality"])][1:]))
    if asked.get("purpose"):
        what.append(t(*PURPOSES[Purpose(asked["purpose"])]))
    scope = t("、", ", ").join(what) or t("全部数据", "everything")
    words = t(f"擦除 {who} 的{scope}", f"Erase {scope} of {who}")
    why = asked.get("reason") or t(*VERBS[Verb(asked["verb"])])
    return t(f"{words}（{why}）", f"{words} ({why})")


def _export(asked: Asked, t: Text, at: Moment) -> str:
    kind = asked.get("type") or ""
    parts = [t(*EVENT_TYPES[kind]) if kind in EVENT_TYPES else kind or t("全部事件", "all events")]
    parts += [t(f"设备 {asked['device']}", f"device {asked['device']}")] if asked.get("device") else []
    parts += [t(f"人员 {asked['subject']}", f"person {asked['subject']}")] if asked.get("subject") else []
    parts += [t(f"从 {at(asked['since'])}", f"from {at(asked['since'])}")] if asked.get("since") else []
    parts += [t(f"到 {at(asked['until'])}", f"until {at(asked['until'])}")] if asked.get("until") else []
    form = str(asked["format"]).upper()
    return t(f"导出为 {form}：{'，'.join(parts)}", f"Export as {form}: {', '.join(parts)}")


def _change(wanted: TwoPeople, now: TwoPeople, t: Text) -> str:
    def kinds(found: frozenset[ActKind]) -> str:
        return t("、", "; ").join(t(*KINDS[kind]) for kind in sorted(found)) or t("没有", "none")

    words = t(f"以后要两个人的：{kinds(wanted.acts)}", f"Two people from now on for: {kinds(wanted.acts)}")
    if lost := now.weakened_by(wanted):
        words += t(f"；不再要的：{kinds(lost)}", f"; no longer for: {kinds(lost)}")
    return words + t(f"；最多等 {wanted.minutes} 分钟", f"; waiting at most {wanted.minutes} min")


def _configuration(asked: Asked, t: Text) -> str:
    parts = [t(f"「{door}」放开：{how}", f"“{door}” stands open: {how}") for door, how in asked["doors"].items()]
    parts += [t(f"「{door}」去掉或改接", f"“{door}” is taken away or wired otherwise") for door in asked["gone"]]
    if (days := asked.get("templates_days")) is not None:
        parts.append(t(f"模板只留 {days} 天，更早的擦除", f"templates are kept {days} days, older ones erased"))
    return t(f"改配置：{'；'.join(parts)}", f"Change the configuration: {'; '.join(parts)}")


def _outcome(act: ActView, tone: str, t: Text) -> tuple[str, str]:
    """(tone, words): a door that was tried and did not open is no success."""
    if act.state == "failed":
        return tone, act.outcome
    try:
        found = json.loads(act.outcome or "null")
    except ValueError:
        return tone, ""  # longer than what is kept
    if act.name == "door.open" and isinstance(found, dict):
        if found.get("state") == "done":
            return tone, t("门已打开", "The door was opened")
        reason = str(found.get("reason", ""))
        reason = t(*REASONS.get(reason, (reason, reason)))
        return "bad", t(f"试过，门没有打开：{reason}", f"It was tried; the door did not open: {reason}")
    return tone, ""


def _next(act: ActView, t: Text) -> dict[str, str]:
    """How whoever asked does now what they may do once."""
    asked = {key: value for key, value in act.asked.items() if value not in (None, "")}
    label = t("取走文件（一次）", "Fetch the file (once)")
    match act.name:
        case "person.export":
            return {
                "label": label,
                "call": f"GET /api/v1/people/{quote(asked['subject'])}/export",
                "body": "",
                "file": f"{asked['subject']}.json",
            }
        case "person.disclose":
            return {
                "label": label,
                "call": "POST /api/v1/disclosures",
                "body": json.dumps(asked, ensure_ascii=False),
                "file": f"{asked['subject']}-disclosure.json",
            }
        case "events.export":
            return {
                "label": label,
                "call": f"GET /api/v1/events/export?{urlencode(asked)}",
                "body": "",
                "file": f"events.{asked['format']}",
            }
        case "config.loosen":
            words = t("在有效期内，把同一个修改再保存一次", "In time, save the same change once more")
            return {"label": words, "call": "", "body": "", "file": ""}
    words = t(
        "在有效期内，在这台网关上运行 edge-agent decommission", "In time, run edge-agent decommission on the gateway"
    )
    return {"label": words, "call": "", "body": "", "file": ""}
