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
SEEDS = tuple(
    bytes([service, table]) + query + b"\n" + body
    for service, table, query, body in (
        (0, 0, b"Stamp=9999", b"1\t2026-06-19 08:00:00\t0\t15\t0\t0\n"),
        (0, 1, b"OpStamp=1", b"OPLOG 3\t0\t2026-06-19 08:00:00\t55\t0\t0\t0\nUSER PIN=1\tName=A\tCard=[0102030400]\n"),
        (0, 2, b"", b"BIODATA Pin=1\tNo=0\tIndex=0\tType=9\tMajorVer=39\tMinorVer=3\tFormat=0\tTmp=QUJD\n"),
        (0, 3, b"", b"BIOPHOTO PIN=1\tFileName=1.jpg\tType=9\tSize=4\tContent=QUJD\n"),
        (7, 4, b"", b"PIN=20260619-1.jpg\nSN=A1\nsize=3\nCMD=uploadphoto\0\xff\xd8\xff"),
        (0, 5, b"", b"time=2026-06-19 08:00:00\tpin=1\tcardno=0\teventaddr=1\tevent=0\tinoutstatus=0\tindex=1\n"),
        (0, 6, b"", b"time=2026-06-19 08:00:00\tsensor=01\trelay=00\talarm=0100000000000000\n"),
        (
            1,
            8,
            b"type=tabledata&cmdid=1&tablename=user&packcnt=1",
            b"user uid=1\tcardno=\tpin=1\tname=A\tendtime=20260101\n",
        ),
        (2, 7, b"", b"DeviceType=acc,~DeviceName=X,FirmVer=1,MultiBioVersion=0:10.0:0:0:0:0:0:0:0:39.3"),
        (5, 9, b"", b"ID=1&Return=0&CMD=DATA\nID=2\nReturn=-1\nCMD=Shell\nContent=x\n"),
    )
)


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
