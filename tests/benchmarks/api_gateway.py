"""The gateway that bench_api asks: the whole agent in a process of its own. Prints where it listens, then works."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from edge_agent.agent import Agent
from edge_agent.api import access_tokens
from edge_agent.config import parse
from edge_agent.policy.roles import ROLES, Role

PEOPLE = 1000


async def main(folder: Path, serials: list[str], tokens: int) -> None:
    document = {
        "gateway": {"name": "bench", "tenant": "bench", "data_dir": str(folder), "ballast_mb": 1},
        "api": {"listen": "127.0.0.1:0"},
        "adms": {"listen": "127.0.0.1:0"},
        "site": {
            "site": "bench",
            "timezone": "Asia/Shanghai",
            "devices": [{"name": f"t{n}", "kind": "adms", "serial": serial} for n, serial in enumerate(serials)],
        },
    }
    agent = await Agent.open(parse(document, source="bench"))

    def prepare(connection: sqlite3.Connection) -> list[str]:
        rows = [{"subject": f"p{n}", "name": f"Person {n}", "user_id": str(n)} for n in range(PEOPLE)]
        agent.roster.take(connection, rows, now=agent.clock())
        return [
            access_tokens.issue(
                connection, f"bench-{n}", scopes=ROLES[Role.ADMIN], lifetime=timedelta(days=1),
                created_by=access_tokens.MACHINE, now=agent.clock(),
            )
            for n in range(tokens)
        ]  # fmt: skip

    issued = await agent.database.write(prepare)
    async with asyncio.TaskGroup() as group:
        group.create_task(agent.run())
        await agent.ready.wait()
        await agent.in_force.wait()
        while not agent.adms_port:  # noqa: ASYNC110 - the listener sets it a moment after the API is ready
            await asyncio.sleep(0.01)
        where = {"api": urlsplit(agent.address).port, "adms": agent.adms_port, "tokens": issued}
        sys.stdout.write(json.dumps(where) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])))
