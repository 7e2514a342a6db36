"""Full disks: a quota VFS everywhere, a small tmpfs where the test may mount one."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.disks import Quota
from tests.faults.full_disk import Outcome, fill_and_recover
from tests.faults.sqlite_shim import Connection

SIZE = 5 * 512 * 1024


def check(outcome: Outcome, times: int) -> None:
    assert outcome.times_full == times
    assert (outcome.lost, outcome.repeated, outcome.damage) == (0, 0, "ok"), str(outcome)
    assert outcome.confirmed > times * 100


async def test_a_disk_with_a_quota_fills_and_recovers() -> None:
    in_memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=in_memory) as name:
        folder = Path(name)
        quota = Quota("quota-test", folder, SIZE)
        try:
            outcome = await fill_and_recover(
                folder / "agent.db",
                times=2,
                connect=functools.partial(Connection, vfs="quota-test"),  # type: ignore[arg-type]
                free=quota.free,
            )
        finally:
            quota.close()
    check(outcome, 2)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a tmpfs")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


async def test_a_small_tmpfs_fills_and_recovers(tmpfs: Path) -> None:
    check(await fill_and_recover(tmpfs / "agent.db", times=2), 2)
