"""An event in the words a person reads: one row of a list, live or not, in either language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

from edge_agent.console.page import Text
from edge_agent.delivery.event import Stored

METHODS = {
    "face": ("人脸", "Face"),
    "finger": ("指纹", "Finger"),
    "card": ("卡片", "Card"),
    "pin": ("密码", "PIN"),
    "palm": ("掌纹", "Palm"),
    "voice": ("声纹", "Voice"),
    "iris": ("虹膜", "Iris"),
    "qr": ("二维码", "QR code"),
    "combined": ("组合验证", "Combined"),
}
STATES = {
    "in": ("上班", "in"),
    "out": ("下班", "out"),
    "break_out": ("外出", "break out"),
    "break_in": ("外出返回", "break in"),
    "overtime_in": ("加班签到", "overtime in"),
    "overtime_out": ("加班签退", "overtime out"),
}
# type -> zh, en, tone, result zh, result en
DOORS = {
    "granted": ("通行", "Entry", "ok", "已开门", "Opened"),
    "not_opened": ("通行", "Entry", "bad", "门没有打开", "The door did not open"),
    "denied": ("通行", "Entry", "bad", "拒绝", "Denied"),
    "opened": ("门打开", "Door opened", "ok", "已记录", "Recorded"),
    "closed": ("门关上", "Door closed", "ok", "已记录", "Recorded"),
    "forced": ("强行开门", "Door forced", "bad", "告警", "Alarm"),
    "held": ("超时未关", "Held open", "bad", "告警", "Alarm"),
    "held_cleared": ("门已关好", "Closed again", "ok", "已解除", "Cleared"),
    "button": ("出门按钮", "Exit button", "ok", "已开门", "Opened"),
    "remote_open": ("远程开门", "Opened remotely", "ok", "已开门", "Opened"),
    "unlocked": ("保持开锁", "Kept unlocked", "info", "开锁", "Unlocked"),
    "locked": ("上锁", "Locked", "ok", "已上锁", "Locked"),
    "tamper": ("防拆", "Tamper", "bad", "告警", "Alarm"),
    "tamper_cleared": ("防拆解除", "Tamper cleared", "ok", "已解除", "Cleared"),
    "mode_ordered": ("门模式", "Door mode", "info", "已下令", "Ordered"),
    "duress": ("胁迫", "Duress", "bad", "告警", "Alarm"),
    "power_lost": ("断电", "Power lost", "warn", "注意", "Attend"),
    "power_restored": ("恢复供电", "Power back", "ok", "已恢复", "Back"),
    "fire": ("消防", "Fire", "bad", "告警", "Alarm"),
    "attempts": ("尝试过多", "Too many attempts", "bad", "告警", "Alarm"),
    "link_lost": ("设备失联", "Link lost", "off", "离线", "Offline"),
    "link_restored": ("设备恢复", "Link restored", "ok", "在线", "Online"),
    "security": ("线路安全", "Line security", "bad", "告警", "Alarm"),
}
ALARMS = {
    "forced": ("强行开门", "Forced open"),
    "held": ("超时未关", "Held open"),
    "tamper": ("防拆", "Tamper"),
    "duress": ("胁迫", "Duress"),
    "link": ("设备失联", "Link lost"),
    "power": ("断电", "Power lost"),
    "security": ("线路安全", "Line security"),
    "fire": ("消防", "Fire"),
    "attempts": ("尝试过多", "Too many attempts"),
}
OTHERS = {
    "audit.anchored": ("审计链已锚定", "Audit chain anchored"),
    "subject.enrolled": ("已录入", "Enrolled"),
    "subject.erased": ("已擦除", "Erased"),
    "subject.left": ("已离职并擦除", "Left and erased"),
    "subject.delete": ("要求擦除", "Asked to be erased"),
    "subject.withdraw": ("撤回同意", "Consent withdrawn"),
    "subject.leave": ("离职", "Leaves"),
    "subject.cancel": ("注销", "Cancels"),
}
REASONS = {
    "unknown": ("未识别", "Not recognised"),
    "no_such_door": ("没有这扇门", "No such door"),
    "lockdown": ("封锁中", "Lockdown"),
    "locked": ("门已停用", "Door locked"),
    "try_later": ("尝试过多，稍后再试", "Too many attempts"),
    "not_verified": ("验证未通过", "Not verified"),
    "suspended": ("已停用", "Suspended"),
    "not_yet_valid": ("尚未生效", "Not valid yet"),
    "expired": ("已过期", "Expired"),
    "another_factor": ("请换一种方式", "Another way, please"),
    "no_privilege": ("没有权限", "No permission"),
    "outside_schedule": ("时段外", "Off schedule"),
    "factor_needed": ("还需验证", "Another factor needed"),
    "challenge_needed": ("需真人检测", "Live check needed"),
    "anti_passback": ("反潜回", "Anti-passback"),
    "zone_full": ("区域已满", "Area full"),
    "first_card": ("等待首卡", "Waits for the first card"),
    "interlock": ("互锁", "Interlock"),
    "second_person": ("需要第二人", "Second person needed"),
}


BLANK = {"time": "", "who": "", "what": "", "where": "", "how": "", "tone": "", "result": ""}


def row(
    found: Stored, *, t: Text, zone: ZoneInfo, names: Mapping[str, str], doors: Mapping[tuple[str, int], str]
) -> dict[str, Any]:
    """Field by field what templates and the live stream show. `doors` names a panel's door by its number."""
    event, data = found.event, found.event.data
    local = event.occurred_at.astimezone(zone)
    family, _, kind = event.type.partition(".")
    user = str(data.get("user_id") or "")
    if event.subject:
        who = names.get(event.subject) or event.subject
    else:
        who = t(f"用户 {user}", f"User {user}") if user else "—"
    said = data.get("door")
    named = doors.get((event.device, said)) if isinstance(said, int) else said
    where = str(named or data.get("point") or event.device or "")
    tone, result, what = "ok", t("已记录", "Recorded"), event.type
    if kind == "punch":
        zh, en = STATES.get(str(data.get("state")), ("", ""))
        what = t(f"打卡{' · ' + zh if zh else ''} · {where}", f"Punch{' ' + en if en else ''} · {where}")
        if data.get("known") is False:
            tone, result = "warn", t("未识别用户", "Unknown user")
    elif family in {"door", "access", "device"} and kind in DOORS:
        zh, en, tone, result_zh, result_en = DOORS[kind]
        what, result = t(f"{zh} · {where}", f"{en} · {where}"), t(result_zh, result_en)
        reason = str(data.get("reason") or "")
        if kind == "denied" and reason:
            result = t(*REASONS.get(reason, (reason, reason)))
    elif event.type in OTHERS:
        what = t(*OTHERS[event.type])
    return {
        "kind": "door" if family in {"door", "access"} else "punch" if kind == "punch" else family,
        "sequence": found.sequence,
        "day": local.strftime("%m-%d"),
        "time": local.strftime("%H:%M:%S"),
        "who": who,
        "what": what,
        "where": where,
        "how": t(*METHODS.get(str(data.get("verify_mode")), ("—", "—"))),
        "tone": tone,
        "result": result,
        "received": found.recorded_at.astimezone(zone).strftime("%H:%M:%S"),
    }
