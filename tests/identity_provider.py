"""Somebody else's OpenID provider, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import httpx

USERS = (
    {"sub": "s-1", "preferred_username": "Lin.Lan", "groups": ["staff", "gate-ops"]},
    {"sub": "s-2", "preferred_username": "guest", "groups": ["staff"]},
    {"sub": "s-3", "preferred_username": "the-admin", "groups": ["gate-ops"]},
)


@contextlib.contextmanager
def identity_provider() -> Iterator[str]:
    """Yields its issuer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    users = [word for user in USERS for word in ("--user-claims", json.dumps(user))]
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port), "--require-nonce", "true", *users]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    issuer = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(trust_env=False) as client:
            for _ in range(200):
                try:
                    client.get(f"{issuer}/.well-known/openid-configuration")
                    break
                except httpx.ConnectError:
                    assert process.poll() is None, "the provider did not start"
                    threading.Event().wait(0.1)
        yield issuer
    finally:
        process.terminate()
        process.wait(20)
