"""Install mode: a reader gets a key of its own, in a window that an operator opens; both ends are audited.

The key is random, made for this reader, and rests sealed in the configuration; nobody is shown it. If the power fails
in the moment between the reader's taking it and the configuration's being durable, the reader has to be reset by hand
and the window opened again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, runtime_checkable

from device_drivers.errors import DeviceError
from edge_agent.audit import AuditLog, Entry
from edge_agent.config import Device, SiteConfig
from edge_agent.configuration import Configuration
from edge_agent.database import Database


@runtime_checkable
class Installs(Protocol):
    """A line of readers whose keys can be set."""

    async def install(self, reader: int, seconds: float) -> str:
        """The key, in hexadecimal. Raises LinkTimeout, ValueError."""
        ...


class ReaderKeys:
    def __init__(
        self,
        *,
        database: Database,
        configuration: Configuration,
        audit: AuditLog,
        driver: Callable[[str], object | None],
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._configuration = configuration
        self._audit = audit
        self._driver = driver
        self._now = now

    async def install(self, device: str, reader: int, *, seconds: float, actor: str) -> None:
        """Raises LookupError if the line is not connected or has no such keys, ValueError, DeviceError."""
        line = self._driver(device)
        if line is None or not isinstance(line, Installs):
            words = "is not connected" if line is None else "has no readers with keys"
            raise LookupError(f"{device} {words}")
        await self._note(actor, "reader.install.open", device, reader, "ok", seconds=seconds)
        try:
            key = await line.install(reader, seconds)
        except (DeviceError, ValueError) as exc:
            await self._note(actor, "reader.install.close", device, reader, f"no new key: {exc}")
            raise
        await self._keep(device, reader, key, actor=actor)
        await self._note(actor, "reader.install.close", device, reader, "ok")

    async def _keep(self, device: str, reader: int, key: str, *, actor: str) -> None:
        def with_key(site: SiteConfig) -> SiteConfig:
            devices = tuple(_with_key(each, reader, key) if each.name == device else each for each in site.devices)
            return site.model_copy(update={"devices": devices})

        await self._configuration.change(with_key, actor=actor, reason=f"new key of reader {reader}", now=self._now())

    async def _note(self, actor: str, action: str, device: str, reader: int, outcome: str, **details: float) -> None:
        entry = Entry(actor, action, f"{device}/{reader}", outcome, details=details)
        await self._database.write(lambda c: self._audit.append(c, entry, now=self._now()))


def _with_key(device: Device, reader: int, key: str) -> Device:
    readers = [{**each, "key": key} if each["address"] == reader else each for each in device.options["pds"]]
    return device.model_copy(update={"options": {**device.options, "pds": readers}})
