"""The end of a gateway: nothing is captured from now on, nobody is reachable, every copy and every key goes.

The order is written down before anything is done, each step once it is done; a crash delays the end and never undoes
it. Steps: capture off -> recipients told -> recipients and tokens revoked -> devices wiped -> templates and their keys
-> everything about people and what they did -> signed report, and with it the last key.

A device that cannot be reached is owed its wiping. Until it answers the identity key stays, because the device's
password rests under it, and calling again tries those devices alone; `leave_devices` gives them up.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from device_drivers import catalog
from device_drivers.adms.server import AdmsServer
from device_drivers.devices import DeviceConfig, Driver
from edge_agent.audit import AuditLog
from edge_agent.audit import Entry as AuditEntry
from edge_agent.biometrics.in_use import Biometrics, provider_of
from edge_agent.config import AgentConfig, ModalitySwitch, SiteConfig
from edge_agent.configuration import Configuration
from edge_agent.database import Database, utc_text
from edge_agent.delivery.event import Event, append
from edge_agent.delivery.outbox import Outbox
from edge_agent.delivery.upstreams import Upstreams
from edge_agent.devices.fleet import Fleet, pins
from edge_agent.devices.wiping import Wiped, wipe
from edge_agent.identity_keys import IdentityKeys
from templates_store.errors import KeyUnavailable, StoreError
from templates_store.keys.files import replace_private, sync_folder

STATE = "decommission.json"
REPORT = "decommission.report.json"
NOTICE_S = 15.0  # how long recipients have to take what is left
STEPS = ("capture_off", "notice", "closed", "templates", "data")
KEY_FILES = ("templates.key", "templates.key.ring", "templates.ring", "templates.ring.salt")
# The anchor goes first: a store that is missing below its anchor would be refused after a crash between the two.
TEMPLATE_FILES = ("templates.anchor", "templates.db-wal", "templates.db-shm", "templates.db", "calibration.json")

log = logging.getLogger(__name__)


class NotConfirmed(ValueError):
    """The name typed is not this gateway's."""

    def __init__(self, gateway: str) -> None:
        super().__init__(f"to end this gateway for good, confirm with its name, {gateway}")
        self.gateway = gateway


class Parts(Protocol):
    """What of the agent is needed; `Agent` has it."""

    config: AgentConfig
    database: Database
    keys: IdentityKeys
    audit: AuditLog
    configuration: Configuration
    outbox: Outbox
    upstreams: Upstreams
    fleet: Fleet
    adms: AdmsServer
    biometrics: Biometrics
    clock: Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Report:
    """What became of everything; `complete` if nothing is owed any more."""

    document: dict[str, Any]

    @property
    def complete(self) -> bool:
        return bool(self.document["complete"])

    @property
    def pending(self) -> list[str]:
        """Names of devices that still have to be wiped."""
        return [device["name"] for device in self.document["devices"] if device["outcome"] == "pending"]

    def verify(self, public_key: bytes) -> bool:
        """Whether it was signed with this key, which recipients were told before the end."""
        unsigned = {key: value for key, value in self.document.items() if key != "signature"}
        try:
            key = Ed25519PublicKey.from_public_bytes(public_key)
            key.verify(bytes.fromhex(self.document["signature"]), _canonical(unsigned))
        except (InvalidSignature, ValueError, KeyError):
            return False
        return True


def ordered(folder: Path) -> bool:
    """Whether this gateway's end was ordered: it must capture nothing any more."""
    return (folder / STATE).exists() or (folder / REPORT).exists()


def reported(folder: Path) -> Report | None:
    """The final report, once nothing is owed; removes what a crash left behind it. Needs no key: there is none."""
    try:
        found = Report(json.loads((folder / REPORT).read_text("utf-8")))
    except FileNotFoundError:
        return None
    remove_secrets(folder)
    return found


def remove_secrets(folder: Path) -> None:
    """Every file of a gateway that holds a key, and what the template keys sealed."""
    overwrite(folder / name for name in (*KEY_FILES, "identity.key", "command-line.json", *TEMPLATE_FILES))
    overwrite((folder / "tls").glob("*"))
    overwrite((folder / "backup").glob("*"))
    (folder / STATE).unlink(missing_ok=True)
    sync_folder(folder)


def overwrite(paths: Iterable[Path]) -> None:
    """Random bytes over each file, then away with it. Copy-on-write and flash may keep the old bytes."""
    for path in paths:
        if not path.is_file():
            continue
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.pwrite(descriptor, os.urandom(min(os.fstat(descriptor).st_size, 1 << 20)), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        path.unlink()


async def decommission(
    agent: Parts,
    *,
    actor: str,
    confirm_host: str,
    leave_devices: bool = False,
    notice_s: float = NOTICE_S,
) -> Report:
    """End this gateway, or go on ending it. Raises NotConfirmed, StorageError.

    Called again after the end it returns the same report and changes nothing.
    """
    gateway = agent.config.gateway
    if confirm_host != gateway.name:
        raise NotConfirmed(gateway.name)
    if (finished := reported(gateway.data_dir)) is not None:
        return finished
    ending = await Ending.begin(agent, actor=actor)
    await ending.step("capture_off", ending.capture_off)
    await ending.step("notice", lambda: ending.notify(notice_s))
    await ending.step("closed", ending.close_interfaces)
    await ending.wipe_devices()
    await ending.step("templates", ending.destroy_templates)
    await ending.step("data", ending.delete_data)
    return await ending.report(leave_devices=leave_devices)


class Ending:
    """One gateway's end; `done` is what the state file says."""

    def __init__(self, agent: Parts, done: dict[str, Any]) -> None:
        self._agent = agent
        self._folder = agent.config.gateway.data_dir
        self._done = done
        self._signer = Ed25519PrivateKey.from_private_bytes(agent.keys.derive("decommission"))

    @classmethod
    async def begin(cls, agent: Parts, *, actor: str) -> Ending:
        """Write the order down, or read what was written."""
        path = agent.config.gateway.data_dir / STATE
        try:
            return cls(agent, json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            found = await agent.database.read(pins)  # these go when the devices are switched off
        devices = [
            dict(zip(("serial", "address"), found.get(each.name, (each.serial, each.address)), strict=True))
            | {"name": each.name, "kind": each.kind}
            for each in agent.configuration.site.devices
        ]
        begun = cls(agent, {"ordered_at": utc_text(agent.clock()), "ordered_by": actor, "devices": devices})
        await begun._save()
        await begun._note("gateway.decommission")
        return begun

    async def step(self, name: str, work: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        """Do `work` unless it was done before."""
        if name not in self._done:
            result = await work()
            self._done[name] = {**result, "at": utc_text(self._agent.clock())}
            await self._save()
            await self._note(f"gateway.decommission.{name}")
            log.info("decommission_step name=%s", name)

    async def capture_off(self) -> dict[str, Any]:
        """No modality, no device, no point: durable, and at once."""
        self._agent.biometrics.galleries.seal()
        await self._apply(without_capture(self._agent.configuration.site), "capture off")
        await self._agent.fleet.follow([])
        await self._agent.biometrics.follow()
        self._agent.biometrics.galleries.seal()
        return {}

    async def notify(self, within_s: float) -> dict[str, Any]:
        """Recipients hear of it, with the key that will sign the report, and get what they are owed."""
        agent, now = self._agent, self._agent.clock()
        public_key = self._signer.public_key().public_bytes_raw().hex()
        event = Event(
            f"decommission-{self._done['ordered_at']}",
            "gateway.decommissioned",
            now,
            "",
            None,
            {"public_key": public_key},
        )
        await agent.database.write(lambda c: append(c, [event], now=now))
        agent.upstreams.nudge()
        try:
            async with asyncio.timeout(within_s):
                await asyncio.gather(*(agent.outbox.drained(name) for name in agent.upstreams.health))
        except TimeoutError:
            log.warning("decommission_undelivered")
        return {}

    async def close_interfaces(self) -> dict[str, Any]:
        """Not one byte more to anybody; nobody signs in."""
        books = [each for each in await self._agent.outbox.stats() if not each.revoked]
        await self._apply(self._agent.configuration.site.model_copy(update={"upstreams": ()}), "recipients revoked")
        await self._agent.upstreams.follow([])
        await self._agent.database.write(_close_accounts)
        return {"upstreams": {each.sink: {"delivered": each.delivered, "lost": each.pending} for each in books}}

    async def wipe_devices(self) -> None:
        """Every device that is not wiped yet, side by side."""
        configured = {device.name: device for device in self._agent.configuration.site.devices}
        zone = self._agent.configuration.site.timezone

        def make(config: DeviceConfig) -> Driver:
            return self._agent.adms.terminal(config) if config.kind == "adms" else catalog.make(config)

        async def one(each: dict[str, Any]) -> None:
            if each["name"] not in configured:
                each |= asdict(Wiped("left", reason="it is not configured any more"))
                return
            config = configured[each["name"]].for_driver(zone)
            each |= asdict(await wipe(replace(config, serial=each["serial"], address=each["address"]), make=make))
            if config.kind == "adms":
                self._agent.adms.forget(each["serial"])

        owed = [each for each in self._done["devices"] if each.get("outcome", "pending") == "pending"]
        await asyncio.gather(*(one(each) for each in owed))
        await self._save()

    async def destroy_templates(self) -> dict[str, Any]:
        """Erase with receipts where the store is open; destroy its keys in any case; remove what they sealed."""
        store, keys = self._agent.biometrics.store, self._agent.config.keys

        def work() -> dict[str, Any]:
            receipts = [] if store.sealed else store.erase_all(reason="decommission", actor=self._done["ordered_by"])
            with store.database.read() as sql:
                mine = [kek_id for (kek_id,) in sql.execute("SELECT kek_id FROM kek")]
            warning = ""
            try:
                provider = provider_of(keys, self._folder) if store.sealed else store.ledger.vault().provider
                for kek_id in mine:
                    if provider is not None:
                        provider.destroy(kek_id)
            except (KeyUnavailable, StoreError) as exc:
                warning = str(exc)
            store.ledger.seal()
            store.seal_reason = "this gateway was decommissioned"
            if keys.provider == "file" and keys.path is not None:
                overwrite([keys.path, keys.path.with_name(keys.path.name + ".ring")])
            overwrite(self._folder / name for name in (*KEY_FILES, *TEMPLATE_FILES))
            overwrite((self._folder / "backup").glob("*"))
            return {"people": len(receipts), "keys": len(mine), "warning": warning}

        return await asyncio.to_thread(work)

    async def delete_data(self) -> dict[str, Any]:
        """Events, people, cards, PINs, presence, requests; what the audit log says of persons."""
        counts = await self._agent.database.write(_delete_data)
        await self._agent.database.checkpoint()
        return counts

    async def report(self, *, leave_devices: bool) -> Report:
        """Signed; with nothing owed any more it is final and the identity key goes with it."""
        agent = self._agent
        shown = ("name", "kind", "outcome", "people", "reason")
        devices = [{key: each[key] for key in shown} for each in self._done["devices"]]
        if leave_devices:
            devices = [each | {"outcome": "left"} if each["outcome"] == "pending" else each for each in devices]
        complete = all(each["outcome"] != "pending" for each in devices)
        if complete:
            if not agent.biometrics.sealed:  # an agent that started meanwhile made an empty store
                await self.destroy_templates()
            await self._note("gateway.decommission.report")
        verdict = await agent.database.read(agent.audit.verify)
        anchor = await agent.database.read(agent.audit.anchor)
        document = {
            "gateway": agent.config.gateway.name,
            "tenant": agent.config.gateway.tenant,
            "ordered_at": self._done["ordered_at"],
            "ordered_by": self._done["ordered_by"],
            "reported_at": utc_text(agent.clock()),
            "complete": complete,
            "steps": {name: self._done[name] for name in STEPS},
            "devices": devices,
            "identity_key": "destroyed" if complete else "kept until every device is wiped",
            "audit": {
                "rows": verdict.rows,
                "intact": verdict.intact,
                "seq": anchor.seq if anchor else 0,
                "mac": anchor.mac.hex() if anchor else "",
            },
            "public_key": self._signer.public_key().public_bytes_raw().hex(),
        }
        document["signature"] = self._signer.sign(_canonical(document)).hex()
        if complete:
            await self._finish(document)
        return Report(document)

    async def _finish(self, document: dict[str, Any]) -> None:
        """The report before the key: without it the report could not be signed again."""
        await self._agent.database.write(_forget_secrets)
        await self._agent.database.checkpoint()
        text = json.dumps(document, ensure_ascii=False, indent=1).encode()
        await asyncio.to_thread(replace_private, self._folder / REPORT, text, wipe=False)
        await asyncio.to_thread(remove_secrets, self._folder)

    async def _apply(self, site: SiteConfig, reason: str) -> None:
        await self._agent.configuration.apply(
            site, actor=self._done["ordered_by"], reason=f"decommission: {reason}", now=self._agent.clock()
        )

    async def _note(self, action: str) -> None:
        entry = AuditEntry(self._done["ordered_by"], action, self._agent.config.gateway.name)
        await self._agent.database.write(lambda c: self._agent.audit.append(c, entry, now=self._agent.clock()))

    async def _save(self) -> None:
        text = json.dumps(self._done, ensure_ascii=False, indent=1).encode()
        await asyncio.to_thread(replace_private, self._folder / STATE, text, wipe=False)


def without_capture(site: SiteConfig) -> SiteConfig:
    """The same site with everything that takes in data switched off."""
    return site.model_copy(
        update={
            "devices": tuple(d.model_copy(update={"enabled": False, "biometrics": ()}) for d in site.devices),
            "modalities": dict.fromkeys(site.modalities, ModalitySwitch()),
            "access": site.access.model_copy(update={"points": ()}),
        }
    )


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _close_accounts(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM sessions")
    connection.execute("DELETE FROM access_tokens")
    connection.execute("DELETE FROM bootstrap")
    connection.execute("UPDATE accounts SET disabled = 1, password = NULL, totp_secret = NULL")


def _delete_data(connection: sqlite3.Connection) -> dict[str, Any]:
    """How many events and people there were."""
    counts: dict[str, Any] = {
        table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - our own names
        for table in ("events", "people")
    }
    for table in (
        "quarantine", "settled", "events", "pruned_ids", "cursors", "people", "device_users", "device_people",
        "attempts", "alarms", "erasure_orders", "rights_requests", "idempotency", "device_pins", "acts",
        "incidents",
    ):  # fmt: skip
        connection.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
    connection.execute("UPDATE audit SET personal = NULL, salt = NULL, subject = NULL")
    connection.execute(
        "UPDATE config_versions SET secrets = NULL WHERE version < (SELECT max(version) FROM config_versions)"
    )
    return counts


def _forget_secrets(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE config_versions SET secrets = NULL")
