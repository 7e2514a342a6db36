"""A device's own log: cleared on the enterprise's order, once upstream holds everything in it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from device_drivers.errors import DeviceError
from edge_agent.api.access import Caller, require
from edge_agent.api.context import Running
from edge_agent.api.devices import CommandView, device_view
from edge_agent.api.idempotency import Once
from edge_agent.api.problems import Body, Problem, responses
from edge_agent.devices.log_clearing import NotCleared
from edge_agent.policy.roles import Scope

router = APIRouter(prefix="/api/v1/devices", tags=["devices"])
Writer = Annotated[Caller, Depends(require(Scope.DEVICES_WRITE))]


class ClearOrder(Body):
    confirm: str = Field(max_length=64, description="the device's name, typed again", examples=["lobby"])


@router.post("/{name}/log/clear", responses=responses(404, 409, 422, 502))
async def clear_log(name: str, body: ClearOrder, caller: Writer, running: Running, once: Once) -> CommandView:
    """Delete every record on the device, all or nothing; refused unless every one of them is upstream."""
    device_view(running, name)
    if body.confirm != name:
        raise Problem(422, f"confirm: must be {name!r}, the device whose log goes", code="confirm")

    async def work() -> CommandView:
        try:
            result = await running.log_clearing.clear(name, actor=caller.name)
        except NotCleared as exc:
            raise Problem(409, str(exc), code="not_cleared") from None
        except DeviceError as exc:
            raise Problem(502, f"{name}: {exc}", code="device") from None
        return CommandView(state=result.state, reason=result.reason)

    return await once.answer(CommandView, work)
