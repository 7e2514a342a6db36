"""The two papers of an incident, as drafts with the figures filled in: to the people, and to the authority.

What the gateway cannot know (cause, harm, whom to call) stays as a marked gap for a person to fill.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal
from zoneinfo import ZoneInfo

from edge_agent.incidents import Affected, Incident, IncidentKind

Language = Literal["zh", "en"]


class Paper(StrEnum):
    NOTICE = "notice"
    REPORT = "report"


KINDS = {
    IncidentKind.TAMPER: ("设备被拆动", "a device was tampered with"),
    IncidentKind.INTRUSION: ("疑似入侵", "a suspected intrusion"),
    IncidentKind.AUDIT: ("审计记录被改动", "the audit record was altered"),
    IncidentKind.LOSS: ("设备或备份丢失", "a device or a backup was lost"),
    IncidentKind.DISCLOSURE: ("数据泄露", "data was disclosed"),
    IncidentKind.OTHER: ("其他安全事件", "another security incident"),
}
CLASSES = {
    "identity": ("姓名、部门、工号", "name, department, number"),
    "card": ("卡号（仅存带密钥的摘要）", "card number (kept as a keyed digest)"),
    "pin": ("密码（仅存 Argon2id 摘要）", "PIN (kept as an Argon2id digest)"),
    "events": ("打卡与通行记录", "attendance and access records"),
    "template:face": ("人脸特征（加密保存，无照片）", "face template (sealed; no photograph)"),
    "template:fingerprint": ("指纹特征（加密保存，无图像）", "fingerprint template (sealed; no image)"),
}


def paper(
    kind: Paper, incident: Incident, affected: Affected, *, gateway: str, zone: ZoneInfo, language: Language
) -> str:
    """Markdown in one language."""
    chinese = language == "zh"

    def t(zh: str, en: str) -> str:
        return zh if chinese else en

    def moment(at: datetime | None) -> str:
        return at.astimezone(zone).strftime("%Y-%m-%d %H:%M %Z") if at else t("尚未", "not yet")

    gap = t("〔请填写〕", "[to be filled in]")
    title = {
        Paper.NOTICE: t("个人信息安全事件告知书（草稿）", "Notice of a personal information incident (draft)"),
        Paper.REPORT: t("个人信息安全事件报告（草稿）", "Report of a personal information incident (draft)"),
    }[kind]
    done = [
        t("已停止采集和比对生物特征", "capture and matching of biometrics stopped") if incident.frozen else "",
        t(
            f"已更换模板密钥，已结束全部登录和令牌（{moment(incident.keys_at)}）",
            f"template keys exchanged, every session and token ended ({moment(incident.keys_at)})",
        )
        if incident.keys_at
        else "",
    ]
    lines = [
        f"# {title}",
        "",
        f"- {t('编号', 'Number')}: {incident.id}",
        f"- {t('网关', 'Gateway')}: {gateway}",
        f"- {t('事件', 'What happened')}: {t(*KINDS[incident.kind])}. {incident.note}".rstrip(),
        f"- {t('发现时间', 'Noticed')}: {moment(incident.opened_at)}",
        f"- {t('可能受影响的时段', 'Span in question')}: {moment(affected.since)} – {moment(affected.until)}",
        f"- {t('原因', 'Cause')}: {gap}",
        "",
        f"## {t('涉及的信息', 'Information concerned')}",
        "",
        *(
            f"- {t(*CLASSES.get(name, (name, name)))}: {t(f'{count} 人', f'{count} people')}"
            for name, count in affected.classes.items()
        ),
    ]
    if affected.templates_sealed:
        lines.append(t("- 模板库已封存，模板数量未计入", "- the template store is sealed; templates are not counted"))
    lines += [
        "",
        f"## {t('可能的影响', 'Possible harm')}",
        "",
        gap,
        "",
        f"## {t('已采取的措施', 'Measures taken')}",
        "",
        *(f"- {line}" for line in done if line),
        f"- {gap}",
        "",
    ]
    if kind is Paper.NOTICE:
        lines += [
            f"## {t('您可以做什么', 'What you can do')}",
            "",
            t(
                "- 更换门禁密码，并向管理员换卡\n- 随时撤回生物特征的同意；卡和密码照常可用",
                "- change your door PIN and ask for a new card\n"
                "- withdraw consent to biometrics at any time; card and PIN go on working",
            ),
        ]
    else:
        people = len(affected.subjects)
        lines += [
            f"## {t('人数与通知', 'People and notice')}",
            "",
            t(f"- 涉及 {people} 人", f"- {people} people concerned"),
            f"- {t('通知方式和时间', 'How and when they were told')}: {gap}",
            f"- {t('处置状态', 'Standing')}: {t('已结束', 'closed') if incident.closed_at else t('处理中', 'open')}",
        ]
    lines += ["", f"{t('联系人', 'Contact')}: {gap}", ""]
    return "\n".join(lines)
