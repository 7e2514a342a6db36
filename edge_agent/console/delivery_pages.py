"""Upstreams and what they refused: is it arriving, why not, and what a person can do about it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, get_args
from zoneinfo import ZoneInfo

from fastapi.responses import Response

from edge_agent.api.context import Gateway
from edge_agent.audit import Entry
from edge_agent.config import Field_, Upstream
from edge_agent.console import views
from edge_agent.console.page import Text, Visit, counted
from edge_agent.console.words import FIELDS
from edge_agent.delivery.outbox import Ledger
from edge_agent.policy.roles import Scope

SHOWN_OF_A_GROUP = 20


class DeliveryPages:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def upstreams(self, visit: Visit) -> Response:
        t = visit.t
        configured = {upstream.name: upstream for upstream in self._gateway.governance.configuration.site.upstreams}
        books = {ledger.sink: ledger for ledger in await self._gateway.outbox.stats()}
        shown = [self._line(name, books.get(name), configured.get(name), t) for name in {**configured, **books}]
        late = [item["name"] for item in shown if item["tone"] == "warn"]
        words = t("全部送达正常", "Everything is arriving")
        if late:
            words = t(
                f"{'、'.join(late)} 暂时送不到，其余正常", f"{', '.join(late)} cannot be reached; the rest is fine"
            )
        if not shown:
            words = t("还没有上游", "No upstream yet")
        return visit.render(
            "upstreams.html",
            cur="upstreams",
            headline=words,
            upstreams=sorted(shown, key=lambda item: (item["tone"] != "warn", item["revoked"], item["name"])),
            fields=[(name, t(*FIELDS[name])) for name in get_args(Field_)],
            fresh=Upstream(name="new", url="https://hr.example").model_dump(mode="json") | {"url": "https://"},
            can_write=visit.may(Scope.UPSTREAMS_WRITE),
            can_configure=visit.may(Scope.CONFIG_WRITE),
        )

    def _line(self, name: str, books: Ledger | None, upstream: Upstream | None, t: Text) -> dict[str, Any]:
        delivery = self._gateway.upstreams.health.get(name)
        waiting = bool(delivery and delivery.failures)
        tone, state = "ok", t("正常", "Normal")
        if books and books.revoked:
            tone, state = "off", t("已停止", "Revoked")
        elif upstream is None:
            tone, state = "off", t("已不在配置里", "No longer configured")
        elif not upstream.enabled:
            tone, state = "off", t("停用", "Switched off")
        elif waiting:
            tone, state = "warn", t("等待中", "Waiting")
        last = ""
        if delivery and delivery.last_success:
            at = delivery.last_success.astimezone(views.zone_of(self._gateway)).strftime("%m-%d %H:%M:%S")
            last = t(f"{at} 确认", f"receipt {at}")
        return {
            "name": name,
            "tone": tone,
            "state": state,
            "kind": upstream.kind if upstream else "",
            "url": upstream.url if upstream else "",
            "fields": [t(*FIELDS[field]) for field in upstream.fields] if upstream else [],
            "config": upstream.model_dump(mode="json", exclude={"secret", "password"}) if upstream else None,
            "revoked": bool(books and books.revoked),
            "books": [
                (t("收到", "Received"), books.received if books else 0),
                (t("= 已送达", "= Delivered"), books.delivered if books else 0),
                (t("+ 待发", "+ Pending"), books.pending if books else 0),
                (t("+ 隔离", "+ Quarantine"), books.quarantined if books else 0),
                (t("+ 丢弃", "+ Discarded"), books.discarded if books else 0),
            ],
            "balanced": books.balanced if books else True,
            "last": last,
            "error": delivery.error if delivery and waiting else "",
            "why": views.refusal(delivery.state, t) if delivery and waiting else "",
        }

    async def quarantine(self, visit: Visit) -> Response:
        t, gateway = visit.t, self._gateway
        found = await gateway.outbox.quarantined(limit=500) if visit.may(Scope.EVENTS_READ) else []
        await gateway.governance.note(
            Entry(actor=visit.caller.name, action="quarantine.read", details={"rows": len(found)})
        )
        ledgers = await gateway.outbox.stats()
        total = views.total(ledgers)
        return visit.render(
            "quarantine.html",
            cur="quarantine",
            headline=t(
                f"{total.quarantined:,} 条记录上游不收，其余照常",
                f"{counted(total.quarantined, 'record')} refused upstream. The rest keep flowing.",
            )
            if total.quarantined
            else t("没有被拒收的记录", "Nothing was refused"),
            ledger=total,
            upstreams=[ledger for ledger in ledgers if not ledger.revoked],
            groups=quarantine_groups(found, views.zone_of(gateway)),
            can_judge=visit.may(Scope.QUARANTINE_WRITE),
            can_map=visit.may(Scope.PEOPLE_WRITE) and visit.may(Scope.PEOPLE_READ),
        )


def quarantine_groups(items: Iterable[Any], zone: ZoneInfo) -> list[dict[str, Any]]:
    """By upstream and reason; each with the calls that judge it."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for item in items:
        group = groups.setdefault(
            (item.sink, item.reason), {"upstream": item.sink, "reason": item.reason, "items": [], "sequences": []}
        )
        event = item.stored.event
        group.setdefault("first", item.at.astimezone(zone).strftime("%m-%d %H:%M:%S"))
        group["sequences"].append(item.stored.sequence)
        data = json.dumps(dict(event.data), ensure_ascii=False, indent=1)
        user_id = str(event.data.get("user_id") or "") if event.subject is None else ""
        before, _, after = data.partition(user_id) if user_id else (data, "", "")
        group["items"].append(
            {
                "sequence": item.stored.sequence,
                "type": event.type,
                "user_id": user_id,
                "before": before,
                "after": after,
                "device": event.device,
                "occurred_at": event.occurred_at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S"),
                "data": data,
                "reply": item.reply,
            }
        )
    for group in groups.values():
        judged = {"upstream": group["upstream"], "sequences": group["sequences"][:1000]}
        unknown = any(item["user_id"] for item in group["items"])
        group["release"] = json.dumps(judged | {"action": "release", "recognise": unknown})
        group["discard"] = json.dumps(judged | {"action": "discard"})
    return list(groups.values())
