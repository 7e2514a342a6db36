"""`make faults`: the long forms, all or those named. ARGS="kills --kills 1000 --collector-kills 100"."""

from __future__ import annotations

import argparse
import asyncio
import functools
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults import kills, power_cuts
from tests.faults.disks import Quota
from tests.faults.full_disk import fill_and_recover
from tests.faults.sqlite_shim import Connection


def killed(given: argparse.Namespace) -> bool:
    """kill -9 of both ends, repeats, and a line that loses requests and answers."""
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
    print(f"kills: {outcome}")
    return not outcome.lost and not outcome.duplicate and outcome.balanced


def cut(given: argparse.Namespace) -> bool:
    """The power goes at every write point."""
    cuts, faults = power_cuts.every_point(seeds=given.seeds)
    print(f"power cuts: {cuts} cuts, one at each write point for {given.seeds} seeds: {len(faults)} faults")
    for fault in faults:
        print(f"  {fault}")
    return not faults


def filled(given: argparse.Namespace) -> bool:
    """A small disk fills up again and again: a tmpfs where one may be mounted, else a quota VFS."""
    with tempfile.TemporaryDirectory() as name:
        folder, size = Path(name), given.disk_mb << 20
        options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", name]
        mounted = not subprocess.run(["mount", *options], capture_output=True, check=False).returncode
        quota = None if mounted else Quota("quota", folder, size)
        try:
            outcome = asyncio.run(
                fill_and_recover(
                    folder / "agent.db",
                    times=given.fills,
                    connect=functools.partial(Connection, vfs="quota") if quota else None,  # type: ignore[arg-type]
                    free=quota.free if quota else None,
                )
            )
        finally:
            if quota:
                quota.close()
            else:
                subprocess.run(["umount", "-l", name], check=False)
    print(f"full disk, a {'tmpfs' if mounted else 'quota VFS'} of {given.disk_mb} MB: {outcome}")
    return not outcome.lost and not outcome.repeated and outcome.damage == "ok"


FORMS = {"kills": killed, "power": cut, "disk": filled}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("forms", nargs="*", help=f"out of {', '.join(FORMS)}; all if none")
    parser.add_argument("--punches", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=30, help="kill -9 of the agent")
    parser.add_argument("--collector-kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hours", type=float, default=2.0, help="give the kills up after this long")
    parser.add_argument("--seeds", type=int, default=3, help="fates of unsynced writes at each power cut")
    parser.add_argument("--fills", type=int, default=50, help="times the disk runs full")
    parser.add_argument("--disk-mb", type=int, default=8)
    given = parser.parse_args()
    if unknown := set(given.forms) - FORMS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    results = [FORMS[name](given) for name in given.forms or FORMS]
    return int(not all(results))


if __name__ == "__main__":
    sys.exit(main())
