"""Other people's programs from npm, installed once from the lock file beside them."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

PEERS = Path(__file__).with_name("peers")


def npm_peers() -> Path:
    """The folder they are installed in; skips the calling test, saying why, where that is not possible."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("needs npm and node to run other people's programs")
    with (Path(tempfile.gettempdir()) / "edge-agent-test-peers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed = PEERS / "node_modules" / ".package-lock.json"
        if not installed.exists() or installed.stat().st_mtime < (PEERS / "package-lock.json").stat().st_mtime:
            command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            done = subprocess.run(command, cwd=PEERS, capture_output=True, text=True, timeout=90, check=False)
            if done.returncode:
                pytest.skip(f"npm could not install what tests/peers/package.json names: {done.stderr.strip()[-200:]}")
    return PEERS
