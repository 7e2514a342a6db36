"""The composition root: every object of one gateway is made here, in the order in which things depend.

`run` holds everything in one TaskGroup. What fails on its own is supervised inside; what comes out is
storage or a defect, and then the process ends and systemd starts it again.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from starlette import types as asgi

from device_drivers import catalog
from device_drivers.adms.link import Hooks
from device_drivers.adms.server import AdmsServer
from device_drivers.c3.driver import C3Panels
from device_drivers.devices import DeviceConfig, Driver
from device_drivers.isapi.push import PREFIX as ISAPI_PATHS
from device_drivers.isapi.receiver import IsapiReceiver
from device_drivers.listener import listen
from edge_agent import audit
from edge_agent.api import access_tokens
from edge_agent.api.certificate import ServerCertificate, describe, tls_context
from edge_agent.api.context import Gateway, Governance
from edge_agent.attendance import Attendance, Source
from edge_agent.audit_anchors import AuditAnchors
from edge_agent.biometrics.in_use import Biometrics
from edge_agent.biometrics.sensing import Sensing
from edge_agent.command_line.local_client import Invitation
from edge_agent.config import Adms, AgentConfig, Device, SiteConfig, listen_address
from edge_agent.configuration import Configuration
from edge_agent.database import Database, DiskFull, utc_now
from edge_agent.delivery.outbox import Outbox
from edge_agent.delivery.upstreams import Upstreams
from edge_agent.devices.command_journal import DatabaseJournal
from edge_agent.devices.device_templates import DeviceTemplates, purposes_of
from edge_agent.devices.fleet import Fleet
from edge_agent.devices.log_clearing import LogClearing
from edge_agent.devices.pushed_pictures import PushedPictures
from edge_agent.devices.reader_keys import ReaderKeys
from edge_agent.devices.sync import Sync
from edge_agent.devices.sync_runs import KEEP_PEOPLE, SyncRuns, numbers_told, pins_told
from edge_agent.devices.sync_wanted import Desired
from edge_agent.doors.arming import Arming
from edge_agent.doors.conclusion import Conclusion
from edge_agent.doors.control import Doors
from edge_agent.doors.presence import Presence
from edge_agent.enrolment import Enrolment
from edge_agent.entry import Entry
from edge_agent.erasure import Erasure
from edge_agent.identity_keys import IdentityKeys
from edge_agent.incidents import Incidents
from edge_agent.people.credentials import Credentials
from edge_agent.people.roster import Roster
from edge_agent.people.sealed_numbers import SealedNumbers
from edge_agent.policy.retention import Periods
from edge_agent.policy.roles import Scope
from edge_agent.policy.rules import Rules
from edge_agent.server import serve
from templates_store import backup
from templates_store.errors import SealBroken
from templates_store.template import SubjectId

HOUSEKEEPING_S = 600.0
RELIEF_S = 5.0
COMMAND_LINE = "command-line"
COMMAND_LINE_LIFETIME = timedelta(days=366)  # ends with the next start

log = logging.getLogger(__name__)


class Agent:
    """One gateway. `open` makes it; `run` works until cancelled; `close` ends it in order."""

    def __init__(
        self,
        config: AgentConfig,
        database: Database,
        keys: IdentityKeys,
        presence: Presence,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        gateway = config.gateway
        self.config = config
        self.clock = clock
        self.database = database
        self.keys = keys
        self.started_at = clock()
        self._rules: Rules | None = None
        self.ready = asyncio.Event()  # the API answers
        self.in_force = asyncio.Event()  # the first configuration is
        self._recipients_known = asyncio.Event()  # the first configuration's
        self.callable = asyncio.Event()  # terminals that call us can, or shall not
        self.address = ""
        self.certificate: ServerCertificate | None = None
        self.adms_port = 0
        self.audit = audit.AuditLog(keys.derive("audit"))
        self.configuration = Configuration(database, key=keys.derive("configuration"))
        self.card_numbers = SealedNumbers(
            keys.derive("card numbers"),
            kind="card number",
            table="sealed_cards",
            needed=lambda: numbers_told(self.site),
        )
        self.pins = SealedNumbers(
            keys.derive("pins"), kind="pin", table="sealed_pins", needed=lambda: pins_told(self.site)
        )
        self.roster = Roster(keys.derive("cards"), seal_number=self.card_numbers.seal, seal_pin=self.pins.seal)
        self.outbox = Outbox(database, clock=clock)
        self.anchors = AuditAnchors(
            gateway.data_dir / "audit.anchors",
            database=database,
            audit=self.audit,
            outbox=self.outbox,
            gateway=gateway.name,
            now=clock,
        )
        self.attendance = Attendance(database, self.roster, clock=clock)
        self.fleet = Fleet(
            database,
            self.attendance,
            make_driver=self._driver,
            asking=lambda device, events: self.entry.take(device, events),
            watched=lambda device, record: self.doors.recorder(device, record),
            clock=clock,
        )
        self.biometrics = Biometrics.open(
            config.keys,
            gateway.data_dir,
            tenant=gateway.tenant,
            site=lambda: self.site,
            now=clock,
            device_of=self._device_of,
        )
        self.device_templates = DeviceTemplates(
            database=database,
            store=self.biometrics.store,
            roster=self.roster,
            audit=self.audit,
            terms=self.biometrics.terms,
            sensor_on=self.biometrics.sensor_on,
            device_of=self._device_of,
            purposes=lambda device: purposes_of(device, self.site),
            now=clock,
        )
        self.pictures = PushedPictures(
            templates=self.device_templates,
            store=self.biometrics.store,
            galleries=self.biometrics.galleries,
            identification=self.biometrics.identification,
            sensor_on=self.biometrics.sensor_on,
            device_of=self._device_of,
        )
        self.adms = AdmsServer(
            hooks=Hooks(
                template=self.device_templates.pushed,
                photo=self.pictures.pushed,
                wants_photo=self.pictures.wanted,
            ),
            journal=DatabaseJournal(database, keys.derive("terminal commands"), clock=clock),
            clock=clock,
        )
        self.isapi = IsapiReceiver(derive=keys.derive)
        self._panels = C3Panels()
        self.credentials = Credentials(database, self.roster)
        self.doors = Doors(database, presence, rules=lambda: self.rules, driver=self.fleet.driver, now=clock)
        self.sensing = Sensing(
            database=database,
            audit=self.audit,
            identification=self.biometrics.identification,
            terms=self.biometrics.terms,
            sensor_on=self.biometrics.sensor_on,
            driver=self.fleet.driver,
            now=clock,
            monotonic=time.monotonic,
        )
        self.conclusion = Conclusion(
            database=database,
            doors=self.doors,
            sensing=self.sensing,
            audit=self.audit,
            rules=lambda: self.rules,
            source=self._source,
            driver=self.fleet.driver,
            now=clock,
        )
        self.entry = Entry(
            conclusion=self.conclusion,
            credentials=self.credentials,
            sensing=self.sensing,
            presence=presence,
            rules=lambda: self.rules,
            now=clock,
            monotonic=time.monotonic,
        )
        self.arming = Arming(rules=lambda: self.rules, sensing=self.sensing, driver=self.fleet.driver)
        self.enrolment = Enrolment(
            database=database,
            store=self.biometrics.store,
            galleries=self.biometrics.galleries,
            identification=self.biometrics.identification,
            audit=self.audit,
            terms=self.biometrics.terms,
            sensor_on=self.biometrics.sensor_on,
            driver=self.fleet.driver,
            now=clock,
            monotonic=time.monotonic,
            enrolled=self._enrolled,
        )
        self.erasure = Erasure(
            database=database,
            store=self.biometrics.store,
            galleries=self.biometrics.galleries,
            enrolment=self.enrolment,
            presence=presence,
            roster=self.roster,
            audit=self.audit,
            terminal=self.fleet.driver_of_serial,
            device=self.fleet.driver,
            terminals=lambda: [d.name for d in self.site.devices if d.kind in KEEP_PEOPLE],
            backup=self.refresh_backup,
            delivered=self._all_delivered,
            now=clock,
        )
        self.biometrics.before_opening = self.erasure.resume
        self.sync = SyncRuns(
            database=database,
            sync=Sync(
                database=database,
                roster=self.roster,
                desired=Desired(
                    roster=self.roster,
                    open_card=self.card_numbers.open,
                    open_pin=self.pins.open,
                    ordered=lambda door: presence.order(door, clock()) is not None,
                    now=clock,
                ),
                rules=lambda: self.rules,
                driver=self.fleet.driver,
                now=clock,
            ),
            templates=self.device_templates,
            audit=self.audit,
            site=lambda: self.site,
            driver=self.fleet.driver,
            serial_of=self._serial_of,
            now=clock,
        )
        self.incidents = Incidents(
            database=database,
            audit=self.audit,
            configuration=self.configuration,
            biometrics=self.biometrics,
            invite=lambda: self._invite_command_line(self.address),
            anchors=self.anchors.known,
            now=clock,
        )
        self.log_clearing = LogClearing(
            database=database, audit=self.audit, driver=self.fleet.driver, serial_of=self._serial_of, now=clock
        )
        self.reader_keys = ReaderKeys(
            database=database,
            configuration=self.configuration,
            audit=self.audit,
            driver=self.fleet.driver,
            now=clock,
        )
        self.upstreams = Upstreams(
            database,
            self.outbox,
            self.roster,
            gateway=gateway.name,
            tenant=gateway.tenant,
            derive=keys.derive,
            clock=clock,
        )

    @classmethod
    async def open(cls, config: AgentConfig, *, clock: Callable[[], datetime] = utc_now) -> Agent:
        """Open the files and bring the configuration into force. Raises StorageError, BadKeyFile, ConfigError."""
        folder = config.gateway.data_dir
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = await asyncio.to_thread(
            Database.open, folder / "agent.db", clock=clock, ballast_bytes=config.gateway.ballast_mb * 1024 * 1024
        )
        presence = await database.read(Presence.load)
        agent = cls(config, database, IdentityKeys.load(folder / "identity.key"), presence, clock=clock)
        await agent.configuration.load(config.site, now=clock())
        await database.write(
            lambda c: agent.audit.append(c, audit.Entry(actor="agent", action="agent.start"), now=clock()),
            essential=True,  # a full disk keeps no gateway from starting: doors, and what makes room, need it
        )
        return agent

    def gateway(self) -> Gateway:
        """What API and console may see of us."""
        return Gateway(
            name=self.config.gateway.name,
            governance=Governance(
                database=self.database,
                configuration=self.configuration,
                audit=self.audit,
                now=self.clock,
                anchors=self.anchors.known,
                open_secret=self.keys.open,
                seal_secret=self.keys.seal,
            ),
            outbox=self.outbox,
            roster=self.roster,
            attendance=self.attendance,
            fleet=self.fleet,
            upstreams=self.upstreams,
            adms=self.adms,
            doors=self.doors,
            rules=lambda: self.rules,
            conclusion=self.conclusion,
            biometrics=self.biometrics,
            enrolment=self.enrolment,
            erasure=self.erasure,
            sync=self.sync,
            incidents=self.incidents,
            log_clearing=self.log_clearing,
            reader_keys=self.reader_keys,
            make_backup=self.make_backup,
            started_at=self.started_at,
            data_dir=self.config.gateway.data_dir,
        )

    @property
    def site(self) -> SiteConfig:
        return self.configuration.site

    @property
    def rules(self) -> Rules:
        """The access rules in force, bound to the site's clock."""
        if self._rules is None:
            self._rules = Rules(self.site.access, zone=ZoneInfo(self.site.timezone))
        return self._rules

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.upstreams.run(), name="upstreams")
            group.create_task(self.fleet.run(), name="fleet")
            group.create_task(self.sync.run(), name="sync")
            group.create_task(self._follow_upstreams(), name="recipients")
            group.create_task(self._follow(), name="configuration")
            group.create_task(self.entry.run(), name="entry")
            group.create_task(self.arming.run(), name="arming")
            group.create_task(self.doors.run(wait=asyncio.sleep), name="doors")
            group.create_task(self.erasure.run(periods=self._periods, wait=asyncio.sleep), name="erasure")
            group.create_task(self.incidents.run(wait=asyncio.sleep), name="incidents")
            group.create_task(self._keep_house(wait=asyncio.sleep), name="housekeeping")
            group.create_task(self._relieve(), name="relief")
            group.create_task(self._serve_api(), name="api")
            if self.config.adms.listen is not None:
                group.create_task(self._serve_adms(self.config.adms), name="adms")

    async def close(self) -> None:
        """After `run` has ended: the last row, then the file."""
        await self.database.write(
            lambda c: self.audit.append(c, audit.Entry(actor="agent", action="agent.stop"), now=self.clock()),
            essential=True,
        )
        await self.doors.close()
        await self.sensing.close()
        await asyncio.to_thread(self.biometrics.close)
        await asyncio.to_thread(self.database.close)

    async def _follow_upstreams(self) -> None:
        """Apart from the rest: a recipient that is revoked waits for no device."""
        number = 0
        while True:
            version = await self.configuration.changed_since(number)
            number, site = version.number, version.site
            await self.upstreams.follow(site.upstreams, allowed_hosts=site.privacy.allowed_hosts)
            self._recipients_known.set()

    async def _follow(self) -> None:
        """Bring each new version into force."""
        number = 0
        admitted: set[str] = set()  # terminals that call us
        if self.config.adms.listen is not None:
            await self.callable.wait()  # drivers tell their terminals the port
        while True:
            version = await self.configuration.changed_since(number)
            number, site = version.number, version.site
            self._rules = None
            self.entry.follow()
            self.attendance.configure(source_of(device, site) for device in site.devices)
            await self.fleet.follow(device.for_driver(site.timezone) for device in site.devices if device.enabled)
            calling = {device.serial for device in site.devices if device.kind == "adms" and device.enabled}
            for serial in admitted - calling:
                self.adms.forget(serial)
            admitted = calling
            await self.biometrics.follow()
            await self.database.write(self.card_numbers.forget_unneeded, essential=True)
            await self.database.write(self.pins.forget_unneeded, essential=True)
            await self.sync.follow(site)
            await self._recipients_known.wait()
            self.in_force.set()
            log.info("configuration_in_force version=%d devices=%d", number, len(site.devices))

    async def _serve_api(self) -> None:
        async with serve(self.gateway(), self.config.api) as (address, certificate):
            self.address, self.certificate = address, certificate
            await self._invite_command_line(address)
            log.info("api_listening address=%s sha256=%s", address, certificate.fingerprint)
            self.ready.set()
            await asyncio.Event().wait()

    async def _invite_command_line(self, address: str) -> None:
        """A fresh token for the command line on this machine; the one of the last start ends here."""
        now = self.clock()

        def work(connection: sqlite3.Connection) -> str:
            connection.execute("DELETE FROM access_tokens WHERE name = ?", (COMMAND_LINE,))
            return access_tokens.issue(
                connection,
                COMMAND_LINE,
                scopes=Scope,
                lifetime=COMMAND_LINE_LIFETIME,
                created_by=access_tokens.MACHINE,
                now=now,
            )

        token = await self.database.write(work, essential=True)
        own = self.config.gateway.data_dir / "tls" / "ca.pem"
        ca_file = own if self.config.api.certificate is None else self.config.api.certificate
        await asyncio.to_thread(Invitation(address, token, str(ca_file)).write, self.config.gateway.data_dir)

    async def _serve_adms(self, settings: Adms) -> None:
        """The port that terminals call; apart from the API, because what comes in there is hostile."""
        host, port = listen_address(settings.listen or "")
        tls = None
        if settings.certificate is not None and settings.private_key is not None:
            tls = tls_context(describe(settings.certificate, settings.private_key))
        async with listen(self._called, host=host, port=port, tls=tls, shut_out=self._shut_out) as server:
            self.adms_port = server.sockets[0].getsockname()[1]
            self.isapi.listening(self.adms_port, tls=tls is not None)
            self.callable.set()
            log.info("adms_listening port=%d tls=%s", self.adms_port, tls is not None)
            await asyncio.Event().wait()

    async def _called(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """One port for every kind of terminal that calls us; the path tells them apart."""
        pushed = scope["type"] == "http" and scope["path"].startswith(ISAPI_PATHS)
        await (self.isapi if pushed else self.adms)(scope, receive, send)

    def _shut_out(self, address: str) -> bool:
        return not self.isapi.knows(address) and self.adms.shut_out(address)

    async def _relieve(self) -> None:
        """When the disk runs short, make room at once out of what every recipient has."""
        while True:
            if self.database.ballast.short:
                await self.outbox.relieve()
            await asyncio.sleep(RELIEF_S)

    async def _keep_house(self, *, wait: Callable[[float], Awaitable[None]]) -> None:
        """Retention, and the audit chain's end anchored outside the database."""
        while True:
            now = self.clock()
            try:
                await self.outbox.prune(now - timedelta(days=self.site.retention.events_days))
                await self.biometrics.keep_house(self._periods())
                await self.anchors.drop()
                await self.device_templates.audit_drops()
            except (DiskFull, OSError, sqlite3.OperationalError) as exc:
                log.warning("housekeeping_put_off reason=%s", exc)
            await wait(HOUSEKEEPING_S)

    async def refresh_backup(self) -> None:
        """After a rotation: earlier archives do not open any more, so the standing one is written anew."""
        if await asyncio.to_thread(self._backup_outdated):
            await self.make_backup()

    def _backup_outdated(self) -> bool:
        """Whether there is a standing archive that the key in force does not open. Raises Sealed."""
        if not self._backup_file.exists():
            return False
        try:
            return backup.kek_id(self._backup_file) != self.biometrics.kek()
        except SealBroken:
            return True

    async def make_backup(self) -> Path:
        """An encrypted, verified archive of both databases. Raises Sealed, StoreError."""
        target = self._backup_file
        target.parent.mkdir(mode=0o700, exist_ok=True)
        others = {"agent.db": self.config.gateway.data_dir / "agent.db"}
        await asyncio.to_thread(self.biometrics.store.backup, target, others=others)
        return target

    async def _enrolled(self, subject: SubjectId) -> None:
        """Terminals that match by themselves use their own templates: nothing of ours is sent to them."""
        log.info("subject_enrolled subject=%s", subject)

    async def _all_delivered(self) -> bool:
        return await self.outbox.depth() == 0

    def _periods(self) -> Periods:
        retention = self.site.retention
        return Periods(
            event=retention.events_days,
            audit=retention.audit_days,
            receipt=retention.receipts_days,
            request=retention.requests_days,
            template=retention.templates_days,
        )

    def _source(self, device: str) -> Source:
        found = next((d for d in self.site.devices if d.name == device), None)
        return source_of(found, self.site) if found else Source(device)

    def _device_of(self, serial: str) -> str | None:
        """The configured device with this serial number."""
        return next((d.name for d in self.site.devices if d.serial == serial), None) or next(
            (name for name, health in self.fleet.health.items() if health.serial == serial), None
        )

    def _serial_of(self, device: str) -> str:
        health = self.fleet.health.get(device)
        configured = next((d.serial for d in self.site.devices if d.name == device), "")
        return (health.serial if health else "") or configured

    @property
    def _backup_file(self) -> Path:
        return self.config.gateway.data_dir / "backup" / "gateway.backup"

    def _driver(self, config: DeviceConfig, cursor: bytes | None) -> Driver:
        if config.kind == "adms":  # these call us: they share one server
            return self.adms.terminal(config, cursor=cursor)
        if config.kind == "isapi":  # these may call us
            return self.isapi.terminal(config, cursor=cursor)
        if config.kind == "c3":  # what one connection fetched outlives it
            return self._panels.panel(config, cursor=cursor)
        return catalog.make(config, cursor=cursor)


def source_of(device: Device, site: SiteConfig) -> Source:
    """What the enterprise lets an event of this device carry."""
    location = device.location if site.privacy.geolocation else None
    return Source(
        name=device.name,
        timezone=device.timezone or site.timezone,
        site=site.site,
        location=(location.latitude, location.longitude) if location else None,
        attendance=device.attendance,
        serial=device.serial,
    )
