"""Push bodies, and whole requests against the application with a listed device."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from device_drivers.adms import messages
from device_drivers.adms.link import Hooks
from device_drivers.adms.messages import PushedPhoto
from device_drivers.adms.rows import lines, parse_options, parse_row
from device_drivers.adms.server import AdmsServer
from device_drivers.devices import DeviceConfig
from device_drivers.errors import ProtocolError
from device_drivers.events import DeviceEvent
from tests.fuzz.asgi_calls import status_of

SERVICES = ("cdata", "querydata", "registry", "push", "getrequest", "devicecmd", "ping", "fdata")
TABLES = ("ATTLOG", "OPERLOG", "BIODATA", "BIOPHOTO", "ATTPHOTO", "rtlog", "rtstate", "options", "tabledata", "other")
LOOP = asyncio.Runner()


async def _kept(events: Sequence[DeviceEvent], *, cursor: bytes | None = None) -> None:
    return None


async def _seen(photo: PushedPhoto) -> bool:
    return len(photo.jpeg) % 2 == 0


async def _request(data: bytes) -> None:
    server = AdmsServer(hooks=Hooks(photo=_seen))
    terminal = server.terminal(DeviceConfig("fuzz", "adms", serial="A1"))
    receiving = asyncio.ensure_future(terminal.run(_kept))
    await asyncio.sleep(0)
    table = TABLES[data[1] % len(TABLES)]
    query, _, body = data[2:].partition(b"\n")
    path = f"/iclock/{SERVICES[data[0] % len(SERVICES)]}"
    status = await status_of(server, path, body, query=f"SN=A1&table={table}&tablename={table}&".encode() + query)
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    if status == 500:
        raise AssertionError("an upload broke the server")


def one_input(data: bytes) -> None:
    if len(data) < 3:
        return
    with contextlib.suppress(ProtocolError):
        messages.attlog(data, serial="A1")
        messages.rtlog(data, serial="A1")
        messages.rtstate(data)
        messages.confirmations(data)
        messages.photos(data, serial="A1", table="attphoto")
        parse_options(data)
        for line in lines(data):
            messages.user(parse_row(line))
            messages.operation(line, serial="A1")
            for table in ("biodata", "face", "fp", "templatev10"):
                messages.template(parse_row(line), table=table)
            if len(messages.unreadable("A1", "other", line).raw) > 5000:
                raise AssertionError("too much of an unreadable line is kept")
    LOOP.run(_request(data))
