"""A gateway to be killed: the real spine around a driver of a few lines. `python -m tests.faults.gateway ...`"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from device_drivers.devices import Capabilities, DeviceConfig, Identity, Record
from device_drivers.errors import LinkError
from device_drivers.events import Origin, Punch, PunchState, VerifyMode
from edge_agent.attendance import Attendance, Source
from edge_agent.database import Database
from edge_agent.delivery.deliver import Delivery, Pauses
from edge_agent.delivery.outbox import Outbox
from edge_agent.delivery.payload import Recipient
from edge_agent.delivery.webhook import WebhookConfig, WebhookSink
from edge_agent.devices.supervise import Supervisor
from edge_agent.people.roster import Roster

SECRET = b"fault tests"
FIELDS = frozenset({"user_id", "verify", "clock", "device"})


class LineTerminal:
    """Pushes of JSON lines, each acknowledged once it is durable."""

    def __init__(self, config: DeviceConfig, cursor: bytes | None) -> None:
        self.config = config
        self._cursor = cursor
        self._writer: asyncio.StreamWriter | None = None

    async def probe(self) -> Identity:
        host, _, port = self.config.address.rpartition(":")
        try:
            self._reader, self._writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
        except OSError as exc:
            raise LinkError(str(exc)) from exc
        hello = {"serial": self.config.serial, "cursor": int(self._cursor or b"0")}
        self._writer.write(json.dumps(hello).encode() + b"\n")
        return Identity("test", "line", self.config.serial, "1")

    async def capabilities(self) -> Capabilities:
        return Capabilities(frozenset())

    async def run(self, record: Record) -> None:
        assert self._writer is not None
        try:
            while line := await self._reader.readline():
                push = json.loads(line)
                origin = Origin(push["origin"])
                punches = [self._punch(told, origin) for told in push["punches"]]
                cursor = None if push["cursor"] is None else b"%d" % push["cursor"]
                await record(punches, cursor=cursor)
                self._writer.write(b"%d\n" % push["id"])
        except OSError as exc:
            raise LinkError(str(exc)) from exc
        raise LinkError("closed")

    def _punch(self, told: Sequence[Any], origin: Origin) -> Punch:
        user_id, when, record_no = told
        return Punch(
            self.config.serial,
            user_id,
            datetime.fromisoformat(when),
            verify_mode=VerifyMode.FINGER,
            state=PunchState.IN,
            record_no=record_no,
            origin=origin,
        )

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


async def main(folder: Path, *, site: int, upstream: int, serials: Sequence[str]) -> None:
    database = Database.open(folder / "agent.db", ballast_bytes=1 << 20)
    outbox = Outbox(database)
    attendance = Attendance(database, Roster(b"k" * 32))
    attendance.configure(Source(serial, serial=serial) for serial in serials)
    sink = WebhookSink(WebhookConfig(f"http://127.0.0.1:{upstream}/events", secret=SECRET, timeout_s=5.0))
    quick = {"first_s": 0.01, "longest_s": 0.1}
    delivery = Delivery(
        outbox, sink, Recipient("hq", FIELDS), gateway="gw", tenant="acme", batch=200, pauses=Pauses(**quick)
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(delivery.run())
        for serial in serials:
            config = DeviceConfig(serial, "line", address=f"127.0.0.1:{site}", serial=serial)
            supervisor = Supervisor(
                config,
                LineTerminal,
                record_for=lambda name=serial: attendance.recorder(name),  # type: ignore[misc]
                load_cursor=lambda name=serial: attendance.cursor(name),  # type: ignore[misc]
                pauses=Pauses(**quick),
            )
            tasks.create_task(supervisor.run())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--site", type=int, required=True)
    parser.add_argument("--upstream", type=int, required=True)
    parser.add_argument("serials", nargs="+")
    given = parser.parse_args()
    asyncio.run(main(given.folder, site=given.site, upstream=given.upstream, serials=given.serials))
