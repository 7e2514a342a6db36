"""The push server over the real attendance flow and database, in a process of its own, to be loaded and weighed."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from device_drivers.adms.server import AdmsServer
from device_drivers.devices import DeviceConfig
from device_drivers.listener import listen
from edge_agent.attendance import Attendance, Source
from edge_agent.database import Database
from edge_agent.people.roster import Roster


async def main(folder: Path, serials: list[str]) -> None:
    database = Database.open(folder / "agent.db", ballast_bytes=1 << 20)
    attendance = Attendance(database, Roster(b"k" * 32))
    attendance.configure(Source(serial, serial=serial) for serial in serials)
    server = AdmsServer()
    loop = asyncio.get_running_loop()
    async with (
        listen(server, host="127.0.0.1", port=0, shut_out=server.shut_out) as listening,
        asyncio.TaskGroup() as tasks,
    ):
        for serial in serials:
            terminal = server.terminal(DeviceConfig(serial, "adms", serial=serial))
            tasks.create_task(terminal.run(attendance.recorder(serial)))
        await asyncio.sleep(0)
        print(listening.sockets[0].getsockname()[1], flush=True)
        while await loop.run_in_executor(None, sys.stdin.readline):
            state = {
                "stored": attendance.stored, "received": attendance.received, "pending": len(server.gate.pending()),
                "turned_away": server.gate.turned_away, "counters": dict(server.counters),
            }  # fmt: skip
            print(json.dumps(state), flush=True)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()


if __name__ == "__main__":
    try:
        asyncio.run(main(Path(sys.argv[1]), json.loads(sys.argv[2])))
    except* asyncio.CancelledError:
        pass
