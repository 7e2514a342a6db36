"""kill -9 at the write points of each operation leaves the state before it or after it, never one between."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# Here every n-th point, so that each operation is cut off a few times; the long form takes each of them.
STEPS = {
    "enrol": 13,
    "erase": 17,
    "withdraw": 17,
    "pack": 9,
    "rotate": 41,
    "backup": 5,
    "migrate": 9,
    "first start": 31,
}


def kills(*wanted: str) -> dict[str, int]:
    """Run in a process of its own: it forks, and this one has threads."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.templates_store.kill_points", *wanted],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_consistent_after_kill_9() -> None:
    done = kills(*(f"{name}:{step}:2" for name, step in STEPS.items()))
    assert done.keys() == STEPS.keys()
    assert min(done.values()) >= 2


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.skipif("EDGE_AGENT_LONG" not in os.environ, reason="the long form; set EDGE_AGENT_LONG=1")
def test_consistent_after_kill_9_at_every_write_point() -> None:
    assert min(kills().values()) >= 10
