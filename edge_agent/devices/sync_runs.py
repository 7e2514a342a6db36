"""When devices are brought up to date: on connecting, after a change of people, PINs, rights, a door's order or the
configuration, on demand.

Only devices with `options.sync = true` are changed; every other one can be asked what would change. One device is
worked on at a time by one task, so a slow terminal keeps no other waiting. What failed is tried again, and once an
hour, at midnight and when somebody's validity begins or ends everything is compared anew.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from device_drivers.devices import Capabilities, ItemResult
from device_drivers.errors import DeviceError
from edge_agent.audit import AuditLog, Entry
from edge_agent.config import Device, SiteConfig
from edge_agent.crew import Crew
from edge_agent.database import Database, DiskFull
from edge_agent.delivery.deliver import Pauses
from edge_agent.devices.device_templates import DeviceTemplates, Gift, TemplateKeeper
from edge_agent.devices.sync import Report, Sync
from edge_agent.devices.sync_compare import Plan
from edge_agent.policy.controller_times import asks_pin

KEEP_PEOPLE = frozenset({"zkteco", "adms", "isapi", "c3", "uhppote"})  # kinds with people in their own memory
BY_CARD = frozenset({"uhppote"})  # know people by card number alone
SETTLE_S = 2.0  # changes that come together are carried out together
LOOK_S = 1.0
EVERY_S = 3600.0
RETRY_S = 30.0
LONGEST_RETRY_S = 900.0

log = logging.getLogger(__name__)


class NotKept(Exception):
    """The enterprise does not keep this device's people from here."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What would change on a device. Nothing was sent."""

    plan: Plan
    templates: tuple[Gift, ...]
    templates_refused: tuple[ItemResult, ...]
    by_card: bool

    @property
    def empty(self) -> bool:
        return self.plan.empty and not self.templates


@dataclass(slots=True)
class Standing:
    """How the last comparison of one device went."""

    running: bool = False
    done: int = 0
    total: int = 0
    finished_at: datetime | None = None
    report: Report | None = None
    error: str = ""
    wake: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    busy: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)


class SyncRuns:
    """`driver` gives the connection that stands, `serial_of` what the device said it is."""

    def __init__(
        self,
        *,
        database: Database,
        sync: Sync,
        templates: DeviceTemplates,
        audit: AuditLog,
        site: Callable[[], SiteConfig],
        driver: Callable[[str], Any],
        serial_of: Callable[[str], str],
        now: Callable[[], datetime],
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._database = database
        self._sync = sync
        self._templates = templates
        self._audit = audit
        self._site = site
        self._driver = driver
        self._serial_of = serial_of
        self._now = now
        self._wait = wait
        self._standing: dict[str, Standing] = defaultdict(Standing)
        self._crew: Crew[Device] = Crew(self._keep)

    def by_card(self, device: str) -> bool:
        """Whether the device knows people by card number alone."""
        return any(found.name == device and found.kind in BY_CARD for found in self._site().devices)

    def standing(self, device: str) -> Standing:
        return self._standing[device]

    async def run(self) -> None:
        """Until cancelled. Storage faults come out."""
        self._database.watch(_changes, lambda _: self.changed())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._crew.run(), name="sync")
            group.create_task(self._look(), name="sync-connections")

    async def follow(self, site: SiteConfig) -> None:
        """A configuration came into force."""
        await self._crew.follow({device.name: device for device in site.devices if kept(device)})
        known = {device.name for device in site.devices}
        for name in [name for name in self._standing if name not in known]:
            del self._standing[name]
        self.changed()

    def changed(self) -> None:
        """People, rights or rules did: compare every device anew."""
        for standing in self._standing.values():
            standing.wake.set()

    async def preview(self, device: str) -> Preview:
        """Raises LookupError if there is no such device or it is not connected, DeviceError."""
        settings = self._settings(device)
        by_card = settings.kind in BY_CARD
        plan = await self._sync.plan(device, by_card=by_card, profiles=profiles_of(settings))
        keeper = self._driver(device)
        gifts: list[Gift] = []
        refused: list[ItemResult] = []
        if isinstance(keeper, TemplateKeeper):
            able: Capabilities = await keeper.capabilities()  # type: ignore[attr-defined]
            gifts, refused = await self._templates.lacking(
                device, keeper, able, plan.people, serial=self._serial_of(device)
            )
        return Preview(plan, tuple(gifts), tuple(refused), by_card)

    async def apply(self, device: str, *, actor: str) -> Report:
        """Bring it up to date now. Raises NotKept, LookupError, DeviceError."""
        if not kept(self._settings(device)):
            raise NotKept(f"{device}: its people are not kept from here; set options.sync = true to do so")
        standing = self._standing[device]
        async with standing.busy:
            standing.running, standing.done, standing.total, standing.error = True, 0, 0, ""
            try:
                report = await self._apply(device, standing, actor)
            except (DeviceError, LookupError) as exc:
                standing.error = str(exc)
                raise
            finally:
                standing.running, standing.finished_at = False, self._now()
            standing.report = report
            return report

    async def _apply(self, device: str, standing: Standing, actor: str) -> Report:
        found = await self.preview(device)
        standing.total = found.plan.steps + len(found.templates)

        async def progress(done: int, _total: int) -> None:
            standing.done = done

        report = await self._sync.apply(device, found.plan, by_card=found.by_card, progress=progress)
        done, failed, interrupted = report.done, [*report.failed, *found.templates_refused], report.interrupted
        for gift in found.templates if not interrupted else ():
            keeper = self._driver(device)
            try:
                result = await self._templates.give(self._serial_of(device), keeper, gift)
            except (DeviceError, AttributeError) as exc:  # the connection went meanwhile
                interrupted = f"{type(exc).__name__}: {exc}" if keeper is not None else "the device went away"
                break
            done += result.ok
            failed += [] if result.ok else [result]
            standing.done += 1
        if standing.total:
            await self._note(device, actor, found, done, len(failed))
        return Report(done, tuple(failed), interrupted)

    async def _note(self, device: str, actor: str, found: Preview, done: int, failed: int) -> None:
        details = {
            "added": len(found.plan.add),
            "changed": len(found.plan.change),
            "removed": len(found.plan.remove),
            "time_profiles": len(found.plan.times.write),
            "tasks_and_keypads": found.plan.settings is not None,
            "clock_set": found.plan.clock is not None,
            "templates": len(found.templates),
            "done": done,
            "failed": failed,
        }
        entry = Entry(actor, "device.sync", device, details=details)
        await self._database.write(lambda c: self._audit.append(c, entry, now=self._now()))
        log.info("device_synced device=%s done=%d failed=%d", device, done, failed)

    async def _keep(self, name: str, _settings: Device) -> None:
        """One device, until cancelled."""
        standing = self._standing[name]
        pauses = Pauses(first_s=RETRY_S, longest_s=LONGEST_RETRY_S)
        pause = 0.0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await standing.wake.wait()
            await self._wait(SETTLE_S)
            standing.wake.clear()
            pause = await self._until_next()
            if self._driver(name) is None:
                continue  # its return wakes us
            try:
                report = await self.apply(name, actor="agent")
            except NotKept:
                continue  # by a configuration that is in force and not followed yet: that ends this, or wakes us
            except (DeviceError, LookupError, DiskFull) as exc:
                pause = pauses.next()
                log.warning("device_sync_failed device=%s reason=%s again_in=%.0f", name, exc, pause)
                continue
            if report.interrupted:
                pause = pauses.next()
            elif report.failed:
                pause = LONGEST_RETRY_S
            else:
                pauses.reset()

    async def _until_next(self) -> float:
        """Seconds until everything is compared anew."""
        left = (await self._sync.next_change() - self._now()).total_seconds()
        return min(EVERY_S, max(left, SETTLE_S))

    async def _look(self) -> None:
        """A device with another driver than before has connected anew."""
        seen: dict[str, object] = {}
        while True:
            now = {name: self._driver(name) for name in list(self._standing)}
            for name, driver in now.items():
                if driver is not None and seen.get(name) is not driver:
                    self._standing[name].wake.set()
            seen = now
            await asyncio.sleep(LOOK_S)

    def _settings(self, device: str) -> Device:
        for found in self._site().devices:
            if found.name == device:
                if found.kind not in KEEP_PEOPLE:
                    raise LookupError(f"{device}: a device of this kind keeps no people")
                return found
        raise LookupError(f"there is no device {device[:64]!r}")


def kept(device: Device) -> bool:
    """Whether the enterprise keeps this device's people from here."""
    return device.enabled and device.kind in KEEP_PEOPLE and device.options.get("sync") is True


def numbers_told(site: SiteConfig) -> bool:
    """Whether any device has to be told card numbers."""
    return any(kept(device) for device in site.devices)


def pins_told(site: SiteConfig) -> bool:
    """Whether any has to be told PINs: a controller that decides alone at a door that asks for one."""
    keypads = {device.name for device in site.devices if kept(device) and device.kind in BY_CARD}
    return any(door.device in keypads and asks_pin(door) for door in site.access.doors)


def profiles_of(device: Device) -> Mapping[str, int]:
    """Schedule -> number of the device's own time profile, as configured."""
    found = device.options.get("profiles")
    return {str(name): n for name, n in found.items() if isinstance(n, int)} if isinstance(found, dict) else {}


def _changes(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT number FROM people_changes").fetchone()[0])
