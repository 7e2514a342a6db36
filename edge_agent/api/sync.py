"""What a device should hold against what it holds: asking first, then carrying out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from device_drivers.devices import ItemResult
from device_drivers.errors import DeviceError
from edge_agent.api.access import Caller, require
from edge_agent.api.context import Context, Gateway, Running
from edge_agent.api.idempotency import Once
from edge_agent.api.problems import Problem, responses
from edge_agent.audit import Entry
from edge_agent.devices.sync import Report
from edge_agent.devices.sync_runs import NotKept, Preview, Standing, kept
from edge_agent.policy.roles import Scope

router = APIRouter(prefix="/api/v1/devices", tags=["devices"])
Commander = Annotated[Caller, Depends(require(Scope.DEVICES_COMMAND))]
Reader = Annotated[Caller, Depends(require(Scope.DEVICES_READ))]
MAX_SHOWN = 1000


class SyncItem(BaseModel):
    key: str = Field(description="the person's number on the device; of a card, its last digits", examples=["10482"])
    reason: str = ""


class SyncChange(BaseModel):
    key: str
    fields: list[str] = Field(examples=[["name", "doors"]])


class SyncPlan(BaseModel):
    """What would change. Nothing was sent."""

    device: str
    kept: bool = Field(description="whether this device's people are kept from here (options.sync)")
    add: list[str]
    change: list[SyncChange]
    remove: list[str]
    unchanged: int
    foreign: list[str] = Field(description="put there by somebody else: left alone")
    refused: list[SyncItem]
    cards_unknown: list[str] = Field(description="people whose card number is not known here; enter the card again")
    templates: list[str] = Field(description="templates of the device's own algorithm that it lacks")
    time_profiles: list[str] = Field(
        description="schedules that a controller has to keep otherwise than it does", examples=[["2: office"]]
    )
    tasks: int | None = Field(description="changes of door modes it will make by itself; null: none to tell")
    keypads: list[int] = Field(description="readers that will ask for the PIN")
    clock_wrong_s: float | None = Field(description="by how much the clock it decides by has to be set; null: not")


class SyncReport(BaseModel):
    device: str
    done: int
    failed: list[SyncItem]
    interrupted: str = Field("", description="why the rest was not tried")


class SyncStanding(BaseModel):
    device: str
    kept: bool
    running: bool
    done: int
    total: int
    finished_at: datetime | None
    error: str
    last: SyncReport | None


@router.get("/{name}/sync", responses=responses(404, 409, 502))
async def preview_sync(name: str, caller: Commander, context: Context, running: Running) -> SyncPlan:
    """Ask the device what it holds and say what would change."""
    _known(running, name)
    try:
        found = await running.sync.preview(name)
    except LookupError as exc:
        raise Problem(409, str(exc), code="offline") from None
    except DeviceError as exc:
        raise Problem(502, f"{name}: {exc}", code="device") from None
    await context.note(Entry(actor=caller.name, action="device.sync.preview", object=name))
    return plan_view(name, found, is_kept=_known(running, name))


@router.post("/{name}/sync", responses=responses(404, 409, 422, 502))
async def apply_sync(name: str, caller: Commander, running: Running, once: Once) -> SyncReport:
    """Carry it out now, as far as the device allows; each refusal is named and stops no other."""
    return await once.answer(SyncReport, lambda: _applied(name, caller, running))


async def _applied(name: str, caller: Caller, running: Gateway) -> SyncReport:
    _known(running, name)
    try:
        report = await running.sync.apply(name, actor=caller.name)
    except NotKept as exc:
        raise Problem(409, str(exc), code="not_kept") from None
    except LookupError as exc:
        raise Problem(409, str(exc), code="offline") from None
    except DeviceError as exc:
        raise Problem(502, f"{name}: {exc}", code="device") from None
    return report_view(name, report, by_card=running.sync.by_card(name))


@router.get("/{name}/sync/progress", responses=responses(404))
async def read_sync(name: str, caller: Reader, running: Running) -> SyncStanding:
    """How the comparison that runs now stands, or how the last one ended."""
    is_kept = _known(running, name)
    found = running.sync.standing(name)
    return standing_view(name, found, is_kept=is_kept, by_card=running.sync.by_card(name))


def plan_view(name: str, found: Preview, *, is_kept: bool) -> SyncPlan:
    plan, by_card = found.plan, found.by_card
    return SyncPlan(
        device=name,
        kept=is_kept,
        add=[_shown(user.user_id, by_card=by_card) for user in plan.add][:MAX_SHOWN],
        change=[
            SyncChange(key=_shown(change.user.user_id, by_card=by_card), fields=list(change.fields))
            for change in plan.change
        ][:MAX_SHOWN],
        remove=[_shown(key, by_card=by_card) for key in plan.remove][:MAX_SHOWN],
        unchanged=plan.unchanged,
        foreign=[_shown(key, by_card=by_card) for key in plan.foreign][:MAX_SHOWN],
        refused=_items([*plan.refused, *found.templates_refused], by_card=by_card),
        cards_unknown=list(plan.cards_unknown)[:MAX_SHOWN],
        templates=[gift.key for gift in found.templates][:MAX_SHOWN],
        time_profiles=[
            f"{profile.number}: {' + '.join(sorted(schedules))}"
            for schedules, numbers in sorted(plan.times.chains.items(), key=lambda item: item[1])
            for profile in plan.times.write
            if profile.number in numbers
        ][:MAX_SHOWN],
        tasks=len(plan.settings.tasks) if plan.settings else None,
        keypads=sorted(plan.settings.keypads) if plan.settings else [],
        clock_wrong_s=plan.clock.total_seconds() if plan.clock is not None else None,
    )


def report_view(name: str, report: Report, *, by_card: bool) -> SyncReport:
    failed = _items(report.failed, by_card=by_card)
    return SyncReport(device=name, done=report.done, failed=failed, interrupted=report.interrupted)


def standing_view(name: str, found: Standing, *, is_kept: bool, by_card: bool) -> SyncStanding:
    return SyncStanding(
        device=name,
        kept=is_kept,
        running=found.running,
        done=found.done,
        total=found.total,
        finished_at=found.finished_at,
        error=found.error,
        last=report_view(name, found.report, by_card=by_card) if found.report else None,
    )


def _items(results: Iterable[ItemResult], *, by_card: bool) -> list[SyncItem]:
    return [SyncItem(key=_shown(r.key, by_card=by_card), reason=r.reason) for r in results][:MAX_SHOWN]


def _shown(key: str, *, by_card: bool) -> str:
    """A card's number is never given back."""
    return f"…{key[-4:]}" if by_card and key.isalnum() and len(key) > 4 else key


def _known(running: Gateway, name: str) -> bool:
    """Whether the device's people are kept from here. Raises Problem 404."""
    for device in running.governance.configuration.site.devices:
        if device.name == name:
            return kept(device)
    raise Problem(404, f"there is no device {name[:64]!r}", code="unknown")
