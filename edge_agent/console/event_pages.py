"""Events and the audit trail: what happened and who did what, with filters that are query strings."""

from __future__ import annotations

import json
from datetime import date, datetime
from urllib.parse import urlencode

from fastapi.responses import Response

from edge_agent.api.context import Gateway
from edge_agent.audit import Entry
from edge_agent.console import views
from edge_agent.console.audit_words import ACTIONS
from edge_agent.console.day import span
from edge_agent.console.page import Visit, number
from edge_agent.policy.roles import Scope

PAGE = 50


def day_of(text: str) -> date | None:
    """A date as a date field sends it."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


class EventPages:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def events(self, visit: Visit) -> Response:
        t, gateway = visit.t, self._gateway
        zone = views.zone_of(gateway)
        asked = {name: visit.query(name) for name in ("type", "device", "subject", "since", "until")}
        first, last = day_of(asked["since"]), day_of(asked["until"])
        since = span(first, zone)[0] if first else None
        until = span(last, zone)[1] if last else None
        found = await gateway.outbox.events(
            before=visit.before(),
            limit=PAGE,
            newest_first=True,
            type_prefix=asked["type"] or None,
            device=asked["device"] or None,
            subject=asked["subject"] or None,
            since=since,
            until=until,
        )
        await self._note(visit, "events.read", rows=len(found))
        newest = await gateway.outbox.events(limit=1, newest_first=True)
        received = newest[0].sequence if newest else 0
        exact = {key: value for key, value in asked.items() if value and key not in {"since", "until"}}
        exact |= {"since": since.isoformat()} if since else {}
        exact |= {"until": until.isoformat()} if until else {}
        kinds = [
            ("", t("全部", "All")),
            ("attendance.", t("打卡", "Punches")),
            ("access.", t("通行", "Entries")),
            ("door.", t("门", "Doors")),
            ("subject.", t("人员", "People")),
        ]
        rest = {key: value for key, value in asked.items() if value}
        return visit.render(
            "events.html",
            cur="events",
            headline=t(f"共收到 {received:,} 条，最新的在最上面", f"{received:,} received; the newest is on top"),
            rows=await views.shown_rows(gateway, found, t),
            kinds=[(key, label, urlencode(rest | {"type": key})) for key, label in kinds],
            asked=asked,
            filtered=any(asked[name] for name in asked if name != "type"),
            devices=[device.name for device in gateway.governance.configuration.site.devices],
            earlier=urlencode(rest | {"before": found[-1].sequence}) if len(found) == PAGE else "",
            export=urlencode(exact),
            can_export=visit.may(Scope.EXPORT),
        )

    async def event(self, visit: Visit) -> Response:
        """One event as it is stored, beside what it means."""
        t, gateway, sequence = visit.t, self._gateway, number(visit.path("sequence"))
        found = await gateway.outbox.events(after=sequence - 1, limit=1) if sequence else []
        if not found or found[0].sequence != sequence:
            return visit.missing(t("没有这条事件，可能已过保留期", "There is no such event; its time may be over"))
        await self._note(visit, "events.read", rows=1)
        item, zone = found[0], views.zone_of(gateway)
        event = item.event
        (row,) = await views.shown_rows(gateway, [item], t)
        held = [q for q in await gateway.outbox.quarantined(after=sequence - 1, limit=20) if q.stored == item]

        def local(at: datetime) -> str:
            return at.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]

        return visit.render(
            "event.html",
            cur="events",
            row=row,
            subject=event.subject if event.subject and visit.may(Scope.PEOPLE_READ) else "",
            facts=[
                (t("序号", "Number"), str(item.sequence)),
                (t("发生", "Occurred"), local(event.occurred_at)),
                (t("收到", "Received"), local(item.recorded_at)),
                (t("设备", "Device"), event.device),
                (t("类型", "Type"), event.type),
                (t("标识", "Id"), event.id),
            ],
            data=json.dumps(dict(event.data), ensure_ascii=False, indent=2),
            held=[{"upstream": q.sink, "reason": q.reason, "reply": q.reply} for q in held],
        )

    async def audit(self, visit: Visit) -> Response:
        t, governance = visit.t, self._gateway.governance
        asked = {name: visit.query(name) for name in ("action", "actor", "object", "outcome", "since", "until")}
        zone = views.zone_of(self._gateway)
        first, last = day_of(asked["since"]), day_of(asked["until"])
        rows = await governance.database.read(
            lambda c: c.execute(
                "SELECT seq, at, actor, action, object, outcome, details FROM audit WHERE (?1 IS NULL OR seq < ?1)"
                " AND substr(action, 1, length(?2)) = ?2 AND (?3 = '' OR actor = ?3) AND (?4 = '' OR object = ?4)"
                " AND (?5 = '' OR (?5 = 'ok') = (outcome = 'ok'))"
                " AND (?6 IS NULL OR julianday(at) >= julianday(?6)) AND (?7 IS NULL OR julianday(at) < julianday(?7))"
                " ORDER BY seq DESC LIMIT ?8",
                (
                    visit.before(),
                    asked["action"],
                    asked["actor"],
                    asked["object"],
                    asked["outcome"],
                    span(first, zone)[0].isoformat() if first else None,
                    span(last, zone)[1].isoformat() if last else None,
                    PAGE,
                ),
            ).fetchall()
        )
        anchors = governance.anchors()
        verdict = await governance.database.read(lambda c: governance.audit.verify(c, anchors))
        await self._note(visit, "audit.read", rows=len(rows))
        shown = [
            {
                "seq": seq,
                "at": datetime.fromisoformat(at).astimezone(zone).strftime("%m-%d %H:%M:%S"),
                "actor": actor,
                "action": action,
                "words": t(*ACTIONS.get(action, (action, action))),
                "object": about,
                "outcome": outcome,
                "details": "" if details == "{}" else details,
            }
            for seq, at, actor, action, about, outcome, details in rows
        ]
        rest = {key: value for key, value in asked.items() if value}
        return visit.render(
            "audit.html",
            cur="audit",
            verdict=verdict,
            headline=t(f"审计链完整，共 {verdict.rows:,} 行", f"The audit chain is intact: {verdict.rows:,} rows")
            if verdict.intact
            else t(f"审计链已被破坏：{verdict.fault}", f"The audit chain is broken: {verdict.fault}"),
            anchors=len(anchors),
            rows=shown,
            asked=asked,
            earlier=urlencode(rest | {"before": rows[-1][0]}) if len(rows) == PAGE else "",
        )

    async def _note(self, visit: Visit, action: str, *, rows: int) -> None:
        await self._gateway.governance.note(Entry(actor=visit.caller.name, action=action, details={"rows": rows}))
