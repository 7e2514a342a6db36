"""The spine on real drivers, to be loaded and weighed: terminals as JSON `[[serial, address], ...]` on stdin."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from device_drivers import catalog
from device_drivers.devices import DeviceConfig
from edge_agent.attendance import Attendance, Source
from edge_agent.database import Database
from edge_agent.delivery.deliver import Delivery, Pauses
from edge_agent.delivery.outbox import Outbox
from edge_agent.delivery.payload import Recipient
from edge_agent.delivery.webhook import WebhookConfig, WebhookSink
from edge_agent.devices.supervise import Supervisor
from edge_agent.people.roster import Roster
from tests.faults.gateway import SECRET

FIELDS = frozenset({"user_id", "verify", "clock", "device"})


async def main(folder: Path, upstream: int, terminals: list[tuple[str, str]]) -> None:
    database = Database.open(folder / "agent.db")
    outbox = Outbox(database)
    attendance = Attendance(database, Roster(b"k" * 32))
    attendance.configure(Source(serial, serial=serial) for serial, _ in terminals)
    sink = WebhookSink(WebhookConfig(f"http://127.0.0.1:{upstream}/events", secret=SECRET))
    delivery = Delivery(outbox, sink, Recipient("hq", FIELDS), gateway="gw", tenant="acme", batch=250)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(delivery.run())
        for serial, address in terminals:
            supervisor = Supervisor(
                DeviceConfig(serial, "zkteco", address=address, serial=serial),
                lambda config, cursor: catalog.make(config, cursor=cursor),
                record_for=lambda name=serial: attendance.recorder(name),  # type: ignore[misc]
                load_cursor=lambda name=serial: attendance.cursor(name),  # type: ignore[misc]
                clock_read=lambda said, at, name=serial: attendance.measured(name, said, at=at).offset,  # type: ignore[misc]
                pauses=Pauses(first_s=0.5, longest_s=5.0),
            )
            tasks.create_task(supervisor.run())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), json.load(sys.stdin)))
