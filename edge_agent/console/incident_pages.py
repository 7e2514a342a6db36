"""Incidents: what happened, what was done about it, the papers, and the steps that are left."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi.responses import Response

from edge_agent.api.context import Gateway
from edge_agent.console import views
from edge_agent.console.page import Text, Visit, counted
from edge_agent.incident_documents import KINDS, Paper
from edge_agent.incidents import Incident, IncidentKind
from edge_agent.policy.roles import Scope

PAPERS = {
    Paper.NOTICE: ("告知书", "Notice to the people"),
    Paper.REPORT: ("报告", "Report to the authority"),
}
LANGUAGES = (("zh", "中文", "Chinese"), ("en", "英文", "English"))


class IncidentPages:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def incidents(self, visit: Visit) -> Response:
        t = visit.t
        found = await self._gateway.incidents.all()
        still = sum(incident.closed_at is None for incident in found)
        return visit.render(
            "incidents.html",
            cur="incidents",
            headline=t(f"{still} 起安全事件正在处理", f"{counted(still, 'incident is', 'incidents are')} open")
            if still
            else t("没有进行中的安全事件", "No incident is open"),
            incidents=[self._card(incident, t) for incident in sorted(found, key=lambda i: i.closed_at is not None)],
            several_frozen=sum(incident.frozen and incident.closed_at is None for incident in found) > 1,
            kinds=[(kind.value, _capital(t(*KINDS[kind]))) for kind in IncidentKind],
            can_write=visit.may(Scope.PRIVACY_WRITE),
            can_keys=visit.may(Scope.KEYS_WRITE),
        )

    def _card(self, incident: Incident, t: Text) -> dict[str, Any]:
        zone = views.zone_of(self._gateway)

        def at(moment: datetime | None) -> str:
            return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S") if moment else "—"

        tone, state = "bad", t("进行中", "Open")
        if incident.closed_at:
            tone, state = "off", t("已关闭", "Closed")
        elif incident.frozen:
            tone, state = "warn", t("采集已停", "Capture rests")
        by = t("网关自己", "the gateway itself") if incident.opened_by == "agent" else incident.opened_by
        facts = [
            (t("说明", "Note"), incident.note or "—"),
            (t("可能受影响的时段", "Span in question"), f"{at(incident.since)} – {at(incident.until)}"),
            (t("开立", "Opened"), f"{at(incident.opened_at)} · {by}"),
            (t("密钥更换", "Keys exchanged"), at(incident.keys_at)),
        ]
        if incident.closed_at:
            facts.append((t("关闭", "Closed"), f"{at(incident.closed_at)} · {incident.closed_by}"))
        return {
            "id": incident.id,
            "title": _capital(t(*KINDS[incident.kind])),
            "tone": tone,
            "state": state,
            "facts": facts,
            "closed": incident.closed_at is not None,
            "frozen": incident.frozen,
            "papers": [
                {
                    "label": t(f"{t(*names)}（{zh}）", f"{t(*names)} ({en})"),
                    "call": f"GET /api/v1/incidents/{incident.id}/{kind.value}?lang={language}",
                    "file": f"{incident.id}-{kind.value}-{language}.md",
                }
                for kind, names in PAPERS.items()
                for language, zh, en in LANGUAGES
            ],
        }


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
