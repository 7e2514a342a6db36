"""`make faults`: the long forms. ARGS="--kills 1000 --collector-kills 100 --punches 100000"."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.faults import kills


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--punches", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=30, help="kill -9 of the agent")
    parser.add_argument("--collector-kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hours", type=float, default=2.0, help="give up after this long")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = asyncio.run(
            kills.run(
                Path(folder),
                punches=given.punches // 4 * 4,
                kills=given.kills,
                collector_kills=given.collector_kills,
                seed=given.seed,
                limit_s=given.hours * 3600,
            )
        )
    print(outcome)
    return int(bool(outcome.lost or outcome.duplicate or not outcome.balanced))


if __name__ == "__main__":
    sys.exit(main())
