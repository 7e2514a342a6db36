"""Devices: what is configured, how it stands, what waits for approval, and what can be asked of one."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field, SecretStr, ValidationError

from device_drivers import catalog, discovery
from device_drivers import devices as contract
from device_drivers.devices import CommandState
from device_drivers.errors import DeviceError
from edge_agent.api.access import Caller, require
from edge_agent.api.context import Context, ExpectedVersion, Gateway, Governance, Running, etag, tag_of
from edge_agent.api.idempotency import Once
from edge_agent.api.problems import Body, Problem, responses
from edge_agent.api.site_changes import add_item, change_item, item_of, remove_item
from edge_agent.audit import Entry
from edge_agent.config import Device
from edge_agent.policy.roles import Scope
from templates_store.template import Modality

router = APIRouter(prefix="/api/v1/devices", tags=["devices"])
Reader = Annotated[Caller, Depends(require(Scope.DEVICES_READ))]
Writer = Annotated[Caller, Depends(require(Scope.DEVICES_WRITE))]
Commander = Annotated[Caller, Depends(require(Scope.DEVICES_COMMAND))]


PROBE_TIMEOUT_S = 15.0


class DeviceView(BaseModel):
    name: str
    kind: str
    state: str = Field(examples=["online"])
    since: datetime | None
    address: str
    serial: str
    model: str
    firmware: str
    error: str
    failures: int
    events: int
    last_event: datetime | None
    clock_offset_s: float | None
    biometrics: list[str]


class PendingView(BaseModel):
    """A terminal that calls us and nobody approved yet; nothing of it is accepted."""

    serial: str
    address: str
    first_seen: datetime
    times: int


class NewDevice(Body):
    name: str = Field(examples=["lobby"])
    kind: str = Field(examples=["zkteco"])
    address: str = Field("", examples=["10.20.8.21:4370"])
    serial: str = ""
    username: str = ""
    password: str = ""
    options: dict[str, Any] = Field({})


class Approval(Body):
    serial: str = Field(max_length=64, examples=["CQZ7224460173"])
    name: str = Field(max_length=64, examples=["workshop-2"])


class CommandView(BaseModel):
    state: CommandState
    reason: str = ""
    result: dict[str, Any] = {}


def device_view(running: Gateway, name: str) -> DeviceView:
    site = running.governance.configuration.site
    device = next((d for d in site.devices if d.name == name), None)
    if device is None:
        raise Problem(404, f"there is no device {name[:64]!r}", code="unknown")
    health = running.fleet.health.get(name)
    offset = health.clock_offset if health else None
    return DeviceView(
        name=name,
        kind=device.kind,
        state=health.state.value if health else "off",
        since=health.since if health else None,
        address=health.address if health else device.address,
        serial=(health.serial if health else "") or device.serial,
        model=health.model if health else "",
        firmware=health.firmware if health else "",
        error=health.error if health else "",
        failures=health.failures if health else 0,
        events=health.events if health else 0,
        last_event=health.last_event if health else None,
        clock_offset_s=offset / timedelta(seconds=1) if offset is not None else None,
        biometrics=[modality.value for modality in device.biometrics],
    )


def pending_views(running: Gateway) -> list[PendingView]:
    return [
        PendingView(serial=item.serial, address=item.address, first_seen=item.first_seen, times=item.calls)
        for item in running.adms.gate.pending()
    ]


@router.get("")
async def list_devices(caller: Reader, running: Running) -> list[DeviceView]:
    return [device_view(running, device.name) for device in running.governance.configuration.site.devices]


@router.get("/pending")
async def list_pending(caller: Reader, running: Running) -> list[PendingView]:
    return pending_views(running)


@router.post("", status_code=201, responses=responses(409, 412, 422))
async def add_device(body: NewDevice, caller: Writer, context: Context, running: Running) -> DeviceView:
    """Add one device; everything else of the configuration stays."""
    await add_item(context, caller.name, "devices", body.model_dump(), reason=f"add device {body.name[:64]}")
    return device_view(running, body.name)


@router.post("/approve", status_code=201, responses=responses(404, 409, 412, 422))
async def approve_device(body: Approval, caller: Writer, context: Context, running: Running) -> DeviceView:
    """Let a waiting terminal in, pinned to its serial number and to the address it called from."""
    waiting = next((item for item in running.adms.gate.pending() if item.serial == body.serial), None)
    if waiting is None:
        raise Problem(404, f"no terminal with serial number {body.serial!r} is waiting", code="unknown")
    entry = {
        "name": body.name,
        "kind": "adms",
        "serial": waiting.serial,
        "options": {"addresses": [waiting.address]},
    }
    await add_item(context, caller.name, "devices", entry, reason=f"approve {waiting.serial}")
    running.adms.gate.forget_pending(waiting.serial)
    return device_view(running, body.name)


class Found(BaseModel):
    """What a device says of itself."""

    vendor: str
    model: str
    serial: str
    firmware: str


@router.post("/probe", responses=responses(502))
async def probe_device(body: NewDevice, caller: Writer, context: Context) -> Found:
    """Ask a device who it is, before it is added. Nothing is kept."""
    site = context.configuration.site
    try:
        config = Device.model_validate(body.model_dump()).for_driver(site.timezone)
        driver = catalog.make(config)
    except ValueError as exc:
        raise Problem(422, f"the device cannot be made from this: {_words(exc)}", code="invalid") from None
    await context.note(Entry(actor=caller.name, action="device.probe", object=body.address[:64]))
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            found = await driver.probe()
    except (DeviceError, TimeoutError, OSError, ValueError) as exc:
        raise Problem(502, f"{body.address[:64]}: {exc or 'no answer'}", code="device") from None
    finally:
        await driver.close()
    return Found(vendor=found.vendor, model=found.model, serial=found.serial, firmware=found.firmware)


def _words(exc: ValueError) -> str:
    if isinstance(exc, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors()[:3])
    return str(exc)


class OnNetwork(Found):
    """A device that answered a broadcast; `name` where it is configured already."""

    kind: str = Field(examples=["uhppote"])
    address: str = Field(examples=["10.20.8.40:60000"])
    name: str = ""


@router.post("/scan")
async def scan_devices(caller: Writer, context: Context, running: Running) -> list[OnNetwork]:
    """Who answers a broadcast on the local network now; about two seconds. Nothing is added."""
    await context.note(Entry(actor=caller.name, action="device.scan"))
    known = {device_view(running, device.name).serial: device.name for device in context.configuration.site.devices}
    return [
        OnNetwork(
            kind=device.kind,
            address=device.address,
            name=known.get(device.identity.serial, ""),
            vendor=device.identity.vendor,
            model=device.identity.model,
            serial=device.identity.serial,
            firmware=device.identity.firmware,
        )
        for device in await discovery.scan()
    ]


class DeviceChange(Body):
    """What is left out stays, the password too, unless it would go to another device."""

    address: str | None = Field(None, max_length=200, examples=["10.20.8.22:4370"])
    serial: str | None = Field(None, max_length=64)
    username: str | None = Field(None, max_length=64)
    password: SecretStr | None = Field(None, max_length=64)
    timezone: str | None = Field(None, max_length=64, examples=["Asia/Shanghai"])
    enabled: bool | None = None
    attendance: bool | None = Field(None, description="whether its punches count as attendance")
    biometrics: list[Modality] | None = Field(None, max_length=4, description="modalities switched on for this device")
    options: dict[str, Any] | None = None


@router.delete("/{name}", status_code=204, responses=responses(404, 412, 428))
async def remove_device(name: str, caller: Writer, context: Context, expected: ExpectedVersion) -> None:
    """Take a device out of the configuration. Its events stay."""
    await remove_item(context, caller.name, "devices", name, expected)


def device_etag(context: Governance, name: str) -> str:
    return etag(tag_of(item_of(context, "devices", name)))


@router.get("/{name}", responses=responses(404))
async def read_device(name: str, caller: Reader, context: Context, running: Running, response: Response) -> DeviceView:
    """How it stands; the ETag is that of its configuration."""
    response.headers["ETag"] = device_etag(context, name)
    return device_view(running, name)


@router.patch("/{name}", responses=responses(404, 409, 412, 422, 428))
async def change_device(
    name: str,
    body: DeviceChange,
    caller: Writer,
    context: Context,
    running: Running,
    expected: ExpectedVersion,
    response: Response,
) -> DeviceView:
    """Change how it is reached and what it may do, based on the ETag that was read."""
    change = body.model_dump(exclude_none=True)
    if body.password is not None:
        change["password"] = body.password.get_secret_value()
    await change_item(context, caller.name, "devices", name, change, expected)
    return await read_device(name, caller, context, running, response)


@router.get("/{name}/capabilities", responses=responses(404, 409, 502))
async def read_capabilities(name: str, caller: Reader, running: Running) -> dict[str, Any]:
    """Measured on the device now."""
    driver = _online(running, name)
    try:
        found = await driver.capabilities()
    except DeviceError as exc:
        raise Problem(502, f"{name}: {exc}", code="device") from None
    return {
        "features": sorted(found.features),
        "doors": found.doors,
        "max_users": found.max_users,
        "users": found.users,
        "max_records": found.max_records,
        "records": found.records,
        "finger_algorithm": found.finger_algorithm,
        "face_algorithm": found.face_algorithm,
    }


class WaitingCommand(BaseModel):
    """A command that a push terminal takes when it calls. Its words hold names and cards, and are not shown."""

    number: int
    state: CommandState
    deadline: datetime
    sent_at: datetime | None
    sends: int


@router.get("/{name}/commands", responses=responses(404))
async def list_commands(name: str, caller: Reader, context: Context, running: Running) -> list[WaitingCommand]:
    """What waits for this terminal, oldest first; devices that are asked directly have nothing waiting."""
    serial = device_view(running, name).serial
    rows = await context.database.read(
        lambda c: c.execute(
            "SELECT command_id, state, deadline, sent_at, sends FROM terminal_commands WHERE serial = ?"
            " ORDER BY command_id LIMIT 500",
            (serial,),
        ).fetchall()
    )
    names = ("number", "state", "deadline", "sent_at", "sends")
    return [WaitingCommand.model_validate(dict(zip(names, row, strict=True))) for row in rows]


@router.post("/{name}/retry", status_code=204, responses=responses(404))
async def retry_device(name: str, caller: Commander, running: Running) -> None:
    """Try to connect now instead of after the pause."""
    device_view(running, name)
    running.fleet.nudge(name)


@router.post("/{name}/clock", responses=responses(404, 409, 422, 502))
async def set_clock(name: str, caller: Commander, context: Context, running: Running, once: Once) -> CommandView:
    """Set the device's clock to this gateway's, in the device's zone."""
    return await once.answer(CommandView, lambda: _set_clock(name, caller, context, running))


async def _set_clock(name: str, caller: Caller, context: Governance, running: Gateway) -> CommandView:
    driver = _online(running, name)
    if not isinstance(driver, contract.Terminal | contract.DoorController):
        raise Problem(409, f"{name}: this kind of device has no clock to set", code="unsupported")
    local = context.now().astimezone(ZoneInfo(driver.config.timezone)).replace(tzinfo=None, microsecond=0)
    try:
        await driver.set_time(local)
        said = await driver.get_time()
    except DeviceError as exc:
        raise Problem(502, f"{name}: {exc}", code="device") from None
    reading = running.attendance.measured(name, said)
    health = running.fleet.health.get(name)
    if health is not None:
        health.clock_offset, health.clock_measured_at = reading.offset, reading.measured_at
    await context.note(Entry(actor=caller.name, action="device.clock", object=name))
    return CommandView(
        state=CommandState.DONE, result={"clock_offset_s": round(reading.offset / timedelta(seconds=1), 3)}
    )


class InstallWindow(Body):
    seconds: float = Field(60, gt=0, le=600, description="how long the reader may take the new key")


@router.post("/{name}/readers/{number}/key", status_code=204, responses=responses(404, 409, 422, 502))
async def give_reader_key(name: str, number: int, body: InstallWindow, caller: Writer, running: Running) -> None:
    """Install mode: an OSDP reader with the default key gets a random one of its own; audited, never shown."""
    device_view(running, name)
    try:
        await running.reader_keys.install(name, number, seconds=body.seconds, actor=caller.name)
    except LookupError as exc:
        raise Problem(409, str(exc), code="offline") from None
    except ValueError as exc:
        raise Problem(422, str(exc), code="invalid") from None
    except DeviceError as exc:
        raise Problem(502, f"{name}: {exc}", code="device") from None


def _online(running: Gateway, name: str) -> contract.Driver:
    device_view(running, name)
    driver = running.fleet.driver(name)
    if driver is None:
        raise Problem(409, f"{name} is not connected now", code="offline")
    return driver
