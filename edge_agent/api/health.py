"""Is it alive, is it ready, how is it doing: for probes, for Prometheus, for people. No personal data."""

from __future__ import annotations

import shutil
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from pydantic import BaseModel, Field

from edge_agent import __version__
from edge_agent.api.access import Caller, require
from edge_agent.api.context import Gateway, Running
from edge_agent.api.privacy import request_view, requests_of
from edge_agent.devices.supervise import LinkState
from edge_agent.doors.alarms import AlarmKind, alarms
from edge_agent.policy.requests import Standing
from edge_agent.policy.roles import Scope

router = APIRouter(tags=["health"])
PUBLIC = ("/healthz", "/readyz")
Reader = Annotated[Caller, Depends(require(Scope.STATUS_READ))]
Scraper = Annotated[Caller, Depends(require(Scope.METRICS_READ))]


class RefusedView(BaseModel):
    """Events that an upstream would not take, by its reason; which ones is in the quarantine."""

    upstream: str
    reason: str
    count: int


class Status(BaseModel):
    gateway: str
    version: str
    config_version: int
    devices_online: int
    devices: int
    outbox: int
    quarantined: int
    disk_free_bytes: int
    disk_short: bool
    templates: str = Field(examples=["open", "sealed"])
    seal_reason: str
    key_warning: str
    warnings: list[str]
    refused: list[RefusedView]


def door_faults(running: Gateway) -> dict[str, str]:
    """Doors whose controller is not configured, or does not do as it should; and why."""
    known = {device.name for device in running.governance.configuration.site.devices}
    doors = running.rules().doors
    missing = {name: f"there is no device {door.device}" for name, door in doors.items() if door.device not in known}
    return missing | {name: why for name, why in running.doors.modes.untold.items() if name in doors}


async def status_of(running: Gateway) -> Status:
    books = [ledger for ledger in await running.outbox.stats() if not ledger.revoked]
    governance, biometrics = running.governance, running.biometrics
    health = running.fleet.health
    version = governance.configuration.version
    short = governance.database.ballast.short
    warnings = [f"{name}: {h.error}" for name, h in health.items() if h.state is LinkState.NEEDS_PERSON]
    warnings += [f"{name}: {words}" for name, words in running.fleet.warnings().items()]
    warnings += [f"door {name}: {why}" for name, why in door_faults(running).items()]
    warnings += [f"upstream {name}: {d.error}" for name, d in running.upstreams.health.items() if d.failures]
    warnings += [biometrics.warning] if biometrics.warning else []
    warnings += ["the disk is short of room"] if short else []
    warnings += [f"{running.incidents.open_count} incident(s) open"] if running.incidents.open_count else []
    return Status(
        gateway=running.name,
        version=__version__,
        config_version=version.number if version else 0,
        devices_online=running.fleet.online(),
        devices=len(health),
        outbox=max((ledger.pending for ledger in books), default=0),
        quarantined=sum(ledger.quarantined for ledger in books),
        disk_free_bytes=shutil.disk_usage(running.data_dir).free,
        disk_short=short,
        templates="sealed" if biometrics.sealed else "open",
        seal_reason=biometrics.store.seal_reason if biometrics.sealed else "",
        key_warning=biometrics.warning,
        warnings=warnings,
        refused=[RefusedView(upstream=u, reason=r, count=n) for u, r, n in await running.outbox.refusals()],
    )


@router.get("/healthz", response_class=PlainTextResponse)
async def alive() -> str:
    """The process answers."""
    return "ok\n"


@router.get("/readyz", responses={503: {"content": {"application/json": {}}}})
async def ready(request: Request) -> JSONResponse:
    """Punches are recorded: the database takes writes."""
    running: Gateway = request.app.state.gateway
    short = running.governance.database.ballast.short
    return JSONResponse({"ready": not short}, status_code=503 if short else 200)


@router.get("/api/v1/status")
async def read_status(caller: Reader, running: Running) -> Status:
    return await status_of(running)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(caller: Scraper, running: Running) -> PlainTextResponse:
    """Prometheus' text format."""
    registry = CollectorRegistry()

    def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"edge_agent_{name}", text, labels, registry=registry)

    up = gauge("device_up", "1 while the device is connected", ("device", "kind"))
    told = gauge("device_events", "events told by the device since the start, repeats included", ("device",))
    clock = gauge("device_clock_offset_seconds", "the device's clock minus ours", ("device",))
    kinds = {device.name: device.kind for device in running.governance.configuration.site.devices}
    for name, health in running.fleet.health.items():
        up.labels(name, kinds.get(name, "")).set(health.state is LinkState.ONLINE)
        told.labels(name).set(health.events)
        if health.clock_offset is not None:
            clock.labels(name).set(health.clock_offset.total_seconds())
    books = {
        key: gauge(f"upstream_{key}", f"events {key} for the recipient", ("upstream",))
        for key in ("received", "delivered", "pending", "quarantined", "discarded")
    }
    for ledger in await running.outbox.stats():
        for key, made in books.items():
            made.labels(ledger.sink).set(getattr(ledger, key))
    state = await status_of(running)
    gauge("disk_free_bytes", "free space beside the database").set(state.disk_free_bytes)
    gauge("templates_sealed", "1 while no key opens the templates").set(state.templates == "sealed")
    gauge("templates_searchable", "templates in the galleries").set(running.biometrics.galleries.count())
    gauge("punches_stored", "events stored since the start").set(running.attendance.stored)
    gauge("incidents_open", "security incidents not closed").set(running.incidents.open_count)
    standings = [request_view(running, r).standing for r in await running.governance.database.read(requests_of)]
    gauge("rights_requests_overdue", "requests past their fifteen working days").set(standings.count(Standing.OVERDUE))
    gauge("rights_requests_due_soon", "requests due soon").set(standings.count(Standing.DUE_SOON))
    standing = await running.governance.database.read(alarms)
    unseen = gauge("alarms_standing", "door and device alarms not cleared", ("kind",))
    for kind in AlarmKind:
        # A duress is silent: a dashboard on a wall must not show it.
        unseen.labels(kind).set(sum(alarm.kind is kind and not alarm.silent for alarm in standing))
    gauge("config_version", "the configuration in force").set(state.config_version)
    started = gauge("start_time_seconds", "when the agent started, Unix time")
    started.set(running.started_at.timestamp())
    return PlainTextResponse(generate_latest(registry).decode(), media_type="text/plain; version=0.0.4; charset=utf-8")
