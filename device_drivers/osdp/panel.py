"""libosdp's control panel, driven step by step from the event loop instead of from its own thread.

`refresh` neither blocks nor sleeps, so no lock stands between the line and the events. Callbacks run inside C code,
where an exception would be lost: they only put things aside, in bounded queues.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import osdp
from osdp.constants import LibFlag, LogLevel

MAX_WAITING = 256
MAX_BUFFER = 16 * 1024  # bytes of a line that talks while nobody asks
MAX_STEPS = 8


class LineChannel(osdp.Channel):  # type: ignore[misc] # the library has no types
    """Bytes between libosdp and the link; the link's tasks fill and empty the two buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.incoming = bytearray()
        self.outgoing = bytearray()

    def read(self, max_bytes: int) -> bytes:
        data = bytes(self.incoming[:max_bytes])
        del self.incoming[:max_bytes]
        return data

    def write(self, buf: bytes) -> int:
        self.outgoing += buf
        return len(buf)

    def flush(self) -> None:
        self.incoming.clear()

    def arrived(self, data: bytes) -> None:
        self.incoming += data
        del self.incoming[:-MAX_BUFFER]

    def take_outgoing(self) -> bytes:
        data = bytes(self.outgoing)
        self.outgoing.clear()
        return data


@dataclass(frozen=True, slots=True)
class PanelEntry:
    address: int
    name: str
    key: bytes = field(repr=False)
    install: bool = False


class _Library(osdp.ControlPanel):  # type: ignore[misc] # the library has no types
    """The library keeps every event in a queue without end unless its handlers are replaced."""

    def __init__(self, entries: Sequence[PanelEntry], channel: LineChannel) -> None:
        self.arrived: deque[tuple[int, dict[str, Any]]] = deque(maxlen=MAX_WAITING)
        self.completed: deque[tuple[int, dict[str, Any], int]] = deque(maxlen=MAX_WAITING)
        infos = [
            osdp.PDInfo(
                entry.address,
                channel,
                scbk=entry.key,
                name=entry.name,
                flags=[LibFlag.InstallMode if entry.install else LibFlag.EnforceSecure],
            )
            for entry in entries
        ]
        super().__init__(infos, log_level=LogLevel.Emergency)

    def _internal_event_handler(self, pd: int, event: dict[str, Any]) -> int:
        self.arrived.append((pd, dict(event)))
        event.clear()  # version 3.2.9 never lets go of it: left full, each card would cost memory for good
        return 0

    def _internal_command_completion_handler(self, pd: int, command: dict[str, Any], status: int) -> None:
        self.completed.append((pd, command, status))


class Panel:
    """The PDs of one line, by their position in `entries`."""

    def __init__(self, entries: Sequence[PanelEntry], channel: LineChannel) -> None:
        self._library = _Library(entries, channel)
        self._context = self._library.ctx
        self._channel = channel

    def step(self) -> None:
        """Let the library read, decide and write until it waits for the line."""
        for _ in range(MAX_STEPS):
            before = len(self._channel.incoming), len(self._channel.outgoing)
            self._context.refresh()
            if (len(self._channel.incoming), len(self._channel.outgoing)) == before:
                break

    def take_events(self) -> list[tuple[int, dict[str, Any]]]:
        events = list(self._library.arrived)
        self._library.arrived.clear()
        return events

    def take_completions(self) -> list[tuple[int, dict[str, Any], int]]:
        completions = list(self._library.completed)
        self._library.completed.clear()
        return completions

    def secure(self) -> int:
        """Bit n: the secure channel of PD n stands."""
        return int(self._context.sc_status())

    def submit(self, pd: int, command: dict[str, Any]) -> bool:
        return bool(self._context.submit_command(pd, command))

    def withdraw(self, pd: int) -> None:
        """Forget commands not yet sent."""
        self._context.flush_commands(pd)

    def disable(self, pd: int) -> None:
        self._context.disable_pd(pd)

    def disabled(self, pd: int) -> bool:
        """Whether `disable` has come into force: a pending exchange is waited for."""
        return not self._context.is_pd_enabled(pd)

    def enable(self, pd: int) -> None:
        """Begin anew at once; without effect while still enabled."""
        self._context.enable_pd(pd)

    def identity(self, pd: int) -> dict[str, int]:
        """version, model, vendor_code, serial_number, firmware_version."""
        found: dict[str, int] = self._context.get_pd_id(pd)
        return found
