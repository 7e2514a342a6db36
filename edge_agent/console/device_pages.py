"""Devices: how each stands, what it can do, what can be asked of it, and its configuration."""

from __future__ import annotations

from typing import Any

from fastapi.responses import Response

from device_drivers.catalog import DRIVERS
from device_drivers.devices import KeepsLog
from edge_agent.api.context import Gateway
from edge_agent.api.devices import device_etag, device_view, pending_views
from edge_agent.audit import Entry
from edge_agent.console import views
from edge_agent.console.page import Visit
from edge_agent.console.words import KINDS, MODALITIES
from edge_agent.devices.reader_keys import Installs
from edge_agent.devices.sync_runs import kept
from edge_agent.policy.roles import Scope

NEWEST = 20
FAMILIES = {
    "terminals": ("终端", "Terminals", {"zkteco", "adms", "isapi"}),
    "doors": ("门控", "Doors", {"uhppote", "c3", "osdp"}),
    "capture": ("采集", "Capture", {"fingerprint_uart", "camera"}),
}


class DevicePages:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def devices(self, visit: Visit) -> Response:
        t, gateway = visit.t, self._gateway
        rows, waiting = views.device_rows(gateway, t), pending_views(gateway)
        zone = views.zone_of(gateway)
        show = visit.query("show")
        kinds = {device.name: device.kind for device in gateway.governance.configuration.site.devices}
        filters = {"": [True] * len(rows), "attend": [row["tone"] != "ok" for row in rows]}
        filters |= {key: [kinds[row["name"]] in members for row in rows] for key, (_, _, members) in FAMILIES.items()}
        labels = {"": t("全部", "All"), "attend": t("有问题", "Need a look")}
        labels |= {key: t(zh, en) for key, (zh, en, _) in FAMILIES.items()}
        chosen = filters.get(show, filters[""])
        return visit.render(
            "devices.html",
            cur="devices",
            headline=views.devices_headline(rows, len(waiting), t),
            devices=[row for row, wanted in zip(rows, chosen, strict=True) if wanted],
            filters=[(key, labels[key], sum(wanted)) for key, wanted in filters.items()],
            show=show if show in filters else "",
            pending=[
                {
                    "serial": item.serial,
                    "address": item.address,
                    "times": item.times,
                    "first": item.first_seen.astimezone(zone).strftime("%H:%M"),
                }
                for item in waiting
            ],
            kinds=[(kind, t(*KINDS[kind])) for kind in sorted(DRIVERS)],
            can_write=visit.may(Scope.DEVICES_WRITE),
        )

    async def device(self, visit: Visit) -> Response:
        t, gateway, name = visit.t, self._gateway, visit.path("name")
        site = gateway.governance.configuration.site
        device = next((found for found in site.devices if found.name == name), None)
        if device is None:
            return visit.missing(t(f"没有名为「{name}」的设备", f"There is no device “{name}”"))
        newest = []
        if visit.may(Scope.EVENTS_READ):
            newest = await gateway.outbox.events(device=name, limit=NEWEST, newest_first=True)
            await gateway.governance.note(
                Entry(actor=visit.caller.name, action="events.read", object=name, details={"rows": len(newest)})
            )
        view, row = device_view(gateway, name), views.device_row(gateway, name, t)
        return visit.render(
            "device.html",
            cur="devices",
            device=row,
            view=view,
            config=device.model_dump(mode="json", exclude={"password"}),
            etag=device_etag(gateway.governance, name),
            online=gateway.fleet.driver(name) is not None,
            facts=self._facts(row, view, t),
            modalities=[(m.value, t(*MODALITIES[m][1:]), m in device.biometrics) for m in MODALITIES],
            kept=kept(device),
            keeps_log=isinstance(gateway.fleet.driver(name), KeepsLog),
            has_keys=isinstance(gateway.fleet.driver(name), Installs),
            has_clock=view.clock_offset_s is not None,
            doors=[door.name for door in site.access.doors if door.device == name],
            rows=await views.shown_rows(gateway, newest, t),
            can_command=visit.may(Scope.DEVICES_COMMAND),
            can_write=visit.may(Scope.DEVICES_WRITE),
            can_configure=visit.may(Scope.CONFIG_WRITE),
        )

    def _facts(self, row: dict[str, Any], view: Any, t: Any) -> list[tuple[str, str]]:
        since = view.since.astimezone(views.zone_of(self._gateway)).strftime("%m-%d %H:%M:%S") if view.since else "—"
        return [
            (t("协议", "Protocol"), row["kind"]),
            (t("地址", "Address"), view.address or "—"),
            (t("序列号", "Serial"), view.serial or t("首次连接时记住", "learned at the first connection")),
            (t("型号", "Model"), view.model or "—"),
            (t("固件", "Firmware"), view.firmware or "—"),
            (t("此状态自", "In this state since"), since),
            (t("时钟差", "Clock offset"), row["clock"]),
            (t("启动以来的事件", "Events since start"), f"{view.events:,}"),
            (t("最近事件", "Last event"), row["last"]),
        ]
