"""The command line's way to the running agent: its own API, over TLS, with a token that lies beside the database.

The agent writes a fresh token at each start, readable by its owner alone: whoever may read it could read the
database as well. The certificate is checked against the gateway's own authority.
"""

from __future__ import annotations

import json
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

FILE = "command-line.json"
TIMEOUT_S = 120.0  # an enrolment from a camera takes a minute


class NotRunning(Exception):
    """No agent answers here; the message says what to do."""


class Refused(Exception):
    """The agent said no; `status` is HTTP's."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True, slots=True)
class Invitation:
    """What the agent leaves for the command line."""

    address: str
    token: str = field(repr=False)
    ca_file: str

    def write(self, folder: Path) -> None:
        path = folder / FILE
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"address": self.address, "token": self.token, "ca_file": self.ca_file}, file)
        path.chmod(0o600)

    @classmethod
    def read(cls, folder: Path) -> Invitation:
        """Raises NotRunning."""
        try:
            return cls(**json.loads((folder / FILE).read_text("utf-8")))
        except FileNotFoundError:
            raise NotRunning(f"no agent has run with {folder}; start it with: edge-agent run") from None
        except (OSError, ValueError, TypeError) as exc:
            raise NotRunning(f"{folder / FILE} cannot be read ({exc}); are you allowed to?") from exc


class LocalClient:
    """One call at a time; raises NotRunning and Refused."""

    def __init__(self, folder: Path) -> None:
        invitation = Invitation.read(folder)
        self._address = invitation.address
        self._http = httpx.Client(
            base_url=invitation.address,
            verify=ssl.create_default_context(cafile=invitation.ca_file),
            headers={"Authorization": f"Bearer {invitation.token}"},
            timeout=TIMEOUT_S,
            trust_env=False,
        )

    def close(self) -> None:
        self._http.close()

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Raises NotRunning if nobody answers, Refused with the agent's words."""
        try:
            answer = self._http.request(method, path, **options)
        except httpx.TransportError as exc:
            raise NotRunning(f"the agent at {self._address} does not answer ({exc}); is it running?") from exc
        if answer.is_error:
            try:
                detail = str(answer.json().get("detail") or answer.reason_phrase)
            except ValueError:
                detail = answer.reason_phrase
            raise Refused(answer.status_code, detail)
        return answer

    def get(self, path: str, **params: Any) -> Any:
        return self.call("GET", path, params={k: v for k, v in params.items() if v is not None}).json()

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        answer = self.call("POST", path, json=body, **options)
        return answer.json() if answer.content else None
