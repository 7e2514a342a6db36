"""A Hikvision access terminal: the log by serial number, live events by stream, by its own pushes, or by polling.

The stream is opened, and the push armed, before the log is read, so nothing falls between the two; what an alert means
beside the log is told in `event_log.py`. What a model lacks is measured by asking, not taken from a list of models:
where it cannot push it is listened to, where it has no stream it is polled.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol

from device_drivers.devices import (
    Capabilities,
    CommandResult,
    CommandState,
    DeviceConfig,
    DeviceTemplate,
    DeviceUser,
    DoorMode,
    Feature,
    Identity,
    ItemResult,
    Record,
)
from device_drivers.errors import (
    AuthenticationFailed,
    DeviceError,
    DeviceRefused,
    LinkError,
    ProtocolError,
    Unsupported,
    WrongDevice,
)
from device_drivers.events import Origin
from device_drivers.isapi import messages
from device_drivers.isapi.client import STREAM_SILENCE_S, Busy, IsapiClient
from device_drivers.isapi.event_log import EVENTS, NO_NUMBERS, EventLog
from device_drivers.isapi.frame import PartDecoder, boundary_of
from device_drivers.isapi.messages import (
    FACE_PICTURE,
    FINGER_ALGORITHM,
    Json,
    PushTarget,
    integer,
    item,
    local_time,
    offers,
    text,
)
from device_drivers.isapi.people import People
from device_drivers.isapi.push import USERNAME, Inbox
from device_drivers.isapi.session import LogPosition
from device_drivers.links import split_address

log = logging.getLogger(__name__)

POLL_S = 5.0
SWEEP_S = 300.0  # the log is read this often even while the stream seems well
CHECK_S = 30.0  # a terminal that restarted has forgotten where to push
DOOR_COMMANDS = {DoorMode.CONTROLLED: "close", DoorMode.LOCKED: "alwaysClose", DoorMode.UNLOCKED: "alwaysOpen"}
HOSTS = "/ISAPI/Event/notification/httpHosts"
EVENT_SOURCES = ("stream", "push", "poll")


class Receiver(Protocol):
    """Passes on what terminals push, while their drivers want it."""

    def opened(self, inbox: Inbox, terminal: IsapiTerminal) -> None: ...
    def closed(self, inbox: Inbox, terminal: IsapiTerminal) -> None: ...


class IsapiTerminal:
    """A `device_drivers.devices.Terminal` over HTTP digest; events by stream, push or polling."""

    def __init__(
        self,
        config: DeviceConfig,
        *,
        cursor: bytes | None = None,
        client: IsapiClient | None = None,
        inbox: Inbox | None = None,
        receiver: Receiver | None = None,
    ) -> None:
        self.config = config
        self.inbox = inbox
        self.counters: Counter[str] = Counter()
        options = config.options
        self._events = str(options.get("events", "stream"))
        if self._events not in EVENT_SOURCES:
            raise ValueError(f"{config.name}: options.events is {', '.join(EVENT_SOURCES)}, not {self._events[:32]!r}")
        self._receiver = receiver
        self._push_networks = [ipaddress.ip_network(a, strict=False) for a in options.get("addresses", ())]
        self._failure: asyncio.Future[None] | None = None
        self._silence_s = float(options.get("silence_s", STREAM_SILENCE_S))
        self._poll_s = float(options.get("poll_s", POLL_S))
        self._sweep_s = float(options.get("sweep_s", SWEEP_S))
        self._check_s = float(options.get("check_s", CHECK_S))
        self._client = client or self._connect()
        self._people = People(self._client, readers=tuple(options.get("readers", (1,))))
        self._log = EventLog(
            self._client,
            name=config.name,
            counters=self.counters,
            serial=lambda: self._serial,
            position=LogPosition.from_cursor(cursor),
        )
        self._identity: Identity | None = None
        self._can: Capabilities | None = None

    def _connect(self) -> IsapiClient:
        options = self.config.options
        tls = bool(options.get("tls", False))
        host, port = split_address(self.config.address, 443 if tls else 80)
        host = f"[{host}]" if ":" in host else host
        trust: ssl.SSLContext | bool = tls  # without TLS there is nothing to load certificates for
        if ca_file := options.get("ca_file"):
            try:
                trust = ssl.create_default_context(cafile=str(ca_file))
            except OSError as exc:
                raise LinkError(f"{self.config.address}: ca_file {ca_file}: {exc.strerror or exc}") from exc
        return IsapiClient(
            f"{'https' if tls else 'http'}://{host}:{port}",
            username=self.config.username or "admin", password=self.config.password, verify=trust,
        )  # fmt: skip

    async def close(self) -> None:
        await self._client.close()

    @property
    def warning(self) -> str:
        return "" if self._log.numbered else NO_NUMBERS

    async def probe(self) -> Identity:
        identity = messages.identity(await self._client.get("/ISAPI/System/deviceInfo"))
        if self.config.serial and self.config.serial != identity.serial:
            raise WrongDevice(self.config.address, expected=self.config.serial, found=identity.serial)
        self._identity = identity
        return identity

    # -- measured abilities --------------------------------------------------------------------------------------------

    async def _ask(self, path: str) -> Json | None:
        """A capability document, or None where the model lacks it."""
        try:
            return await self._client.get(path)
        except (Unsupported, DeviceRefused) as exc:
            if isinstance(exc, AuthenticationFailed):
                raise
            return None

    async def capabilities(self) -> Capabilities:
        if self._can is not None:
            return self._can
        features = {Feature.CLOCK, Feature.REBOOT}
        events = await self._ask(f"{EVENTS}/capabilities?format=json")
        if events is not None:
            features |= {Feature.PUNCHES, Feature.LIVE}
            self._log.by_serial = item(events, "AcsEvent", "AcsEventCond", "beginSerialNo") is not None
        self._log.exists = events is not None
        people = await self._ask("/ISAPI/AccessControl/UserInfo/capabilities?format=json")
        if people is not None:
            features |= {Feature.USERS, Feature.PINS}
        if await self._ask("/ISAPI/AccessControl/CardInfo/capabilities?format=json") is not None:
            features.add(Feature.CARDS)
        faces = await self._ask("/ISAPI/Intelligent/FDLib/capabilities?format=json")
        if faces is not None:
            features.add(Feature.FACE_TEMPLATES)
        fingers = await self._ask("/ISAPI/AccessControl/FingerPrintCfg/capabilities?format=json")
        if fingers is not None:
            features.add(Feature.FINGER_TEMPLATES)
        doors = await self._ask("/ISAPI/AccessControl/RemoteControl/door/capabilities")
        if doors is not None:
            features |= {Feature.OPEN_DOOR, Feature.DOOR_MODES}
        self._can = Capabilities(
            frozenset(features),
            max_users=integer(item(people or {}, "UserInfo", "maxRecordNum")),
            max_face_templates=integer((faces or {}).get("FDRecordDataMaxNum")),
            max_finger_templates=integer(item(fingers or {}, "FingerPrintCfg", "maxRecordNum")),
            finger_algorithm=FINGER_ALGORITHM if fingers is not None else None,
            face_algorithm=FACE_PICTURE if faces is not None else None,
            doors=integer(item(doors or {}, "RemoteControlDoor", "doorNo", "@max")) or 1 if doors is not None else 0,
        )
        return self._can

    async def _require(self, feature: Feature) -> None:
        if feature not in (await self.capabilities()).features:
            raise Unsupported(f"{self.config.name}: {feature} not on this model")

    # -- events --------------------------------------------------------------------------------------------------------

    async def run(self, record: Record) -> None:
        await self.probe()
        await self.capabilities()
        self._log.record = record
        try:
            if self._events == "push":
                try:
                    await self._be_pushed_to()
                except Unsupported as exc:
                    log.warning("isapi_listened_to_instead device=%s reason=%s", self.config.name, exc)
            if self._events != "poll":
                try:
                    await self._listen()
                except Unsupported:
                    if not self._log.exists:
                        raise
            await self._poll()
        finally:
            self._log.record = None

    async def _poll(self) -> None:
        if not self._log.exists:
            raise Unsupported(f"{self.config.name}: this model has no log to poll; set options.events to stream")
        while True:
            await self._log.read()
            if not self._log.numbered:
                raise Unsupported(f"{self.config.name}: {NO_NUMBERS}, nor polled; set options.events to stream")
            await asyncio.sleep(self._poll_s)

    # -- pushes --------------------------------------------------------------------------------------------------------

    async def _be_pushed_to(self) -> None:
        """Raises Unsupported where the model cannot push, or nobody listens here."""
        inbox, receiver = self.inbox, self._receiver
        if inbox is None or receiver is None:
            raise Unsupported(f"{self.config.name}: there is no port for terminals that call us (adms.listen)")
        able = await self._ask(f"{HOSTS}/capabilities")
        if able is None:
            raise Unsupported(f"{self.config.name}: this model does not push")
        inbox.asks_digest = "MD5digest" in offers(able, "HttpHostNotificationCap", "httpAuthenticationMethod")
        loop = asyncio.get_running_loop()
        self._failure = loop.create_future()
        receiver.opened(inbox, self)
        try:
            await self._arm(inbox)
            await self._log.read()
            sweep_at = loop.time() + self._sweep_s
            while True:
                await self._arm(inbox)
                if loop.time() >= sweep_at:
                    await self._read_what_was_not_pushed()
                    sweep_at = loop.time() + self._sweep_s
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._check_s):
                        await asyncio.shield(self._failure)
        finally:
            receiver.closed(inbox, self)
            self._failure.cancel()
            self._failure = None

    async def _read_what_was_not_pushed(self) -> None:
        """Nothing, usually. A firewall between us would else go unnoticed: events would come, each time too late."""
        before = self._log.position
        await self._log.read()
        if self._log.position != before:
            self.counters["not_pushed"] += 1
            log.warning("isapi_not_pushed device=%s: the log has events that did not arrive", self.config.name)

    def pushes_from(self, address: str) -> bool:
        """Whether this terminal may push from `address`."""
        if not self._push_networks:
            return address == self._client.peer
        try:
            source = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(source in network for network in self._push_networks)

    async def pushed(self, content_type: str, body: bytes) -> None:
        """One part of a push; durable on return. A fault of the store also ends `run`: it is not the terminal's."""
        try:
            await self.receive(content_type, body)
        except DeviceError:
            raise
        except Exception as exc:
            if self._failure is not None and not self._failure.done():
                self._failure.set_exception(exc)
            raise

    async def _arm(self, inbox: Inbox) -> None:
        """Make the terminal send its events to us, unless it already does."""
        options = self.config.options
        target = PushTarget(
            str(options.get("push_host") or self._client.local),
            inbox.port,
            inbox.path,
            tls=inbox.tls,
            username=USERNAME if inbox.asks_digest else "",
            password=inbox.password if inbox.asks_digest else "",
        )
        listed = messages.hosts(await self._client.get(HOSTS))
        if any(target.is_set(entry) for entry in listed):
            return
        ours = [entry for entry in listed if text(entry.get("url")) == inbox.path]
        wanted = options.get("host_id")
        chosen = [entry for entry in listed if text(entry.get("id")) == str(wanted)] if wanted else []
        place = next(iter(chosen or ours or [entry for entry in listed if messages.is_free(entry)]), None)
        if place is None:
            raise DeviceRefused(
                f"{self.config.name}: all {len(listed)} listening servers are taken; free one at the terminal, or name"
                " the one to overwrite in options.host_id"
            )
        host_id = text(place.get("id")) or "1"
        await self._client.xml("PUT", f"{HOSTS}/{host_id}", target.encode(host_id))
        self.counters["armed"] += 1

    async def _listen(self) -> None:
        path = "/ISAPI/Event/notification/alertStream"
        async with self._client.stream(path, silence_s=self._silence_s) as response:
            decoder = PartDecoder(boundary_of(response.headers.get("content-type", "")))
            await self._log.read()
            loop = asyncio.get_running_loop()
            sweep_at = loop.time() + self._sweep_s
            async for data in response.aiter_raw():
                for part in decoder.feed(data):
                    await self.receive(part.content_type, part.body)
                if decoder.ended:
                    break
                if loop.time() >= sweep_at:  # heartbeats keep this loop turning
                    await self._log.read()
                    sweep_at = loop.time() + self._sweep_s
        raise LinkError(f"{self._client.base_url}: the event stream ended")

    async def receive(self, content_type: str, body: bytes) -> None:
        """One part of the stream or of a push; durable on return. Raises LinkError while nobody receives."""
        if content_type.startswith("image/"):
            self.counters["photos_dropped"] += 1
            return
        if not body.strip():
            return
        try:
            alert = messages.alert(body)
        except ProtocolError:
            self.counters["unreadable"] += 1
            return
        access = alert.access
        if access is None:
            self.counters["other_notifications"] += 1
            return
        event = messages.event(access, serial=self._serial, origin=Origin.LIVE, time=alert.time, raw=alert.raw)
        await self._log.heard(event, now=access.get("currentEvent") is not False)

    @property
    def _serial(self) -> str:
        return self._identity.serial if self._identity else self.config.serial

    # -- clock and doors -----------------------------------------------------------------------------------------------

    async def get_time(self) -> datetime:
        said = local_time(item(await self._client.get("/ISAPI/System/time"), "Time", "localTime"))
        if said is None:
            raise ProtocolError("the terminal's clock is no date")
        return said

    async def set_time(self, device_time: datetime) -> None:
        zone = text(item(await self._client.get("/ISAPI/System/time"), "Time", "timeZone"), 64)
        await self._client.xml("PUT", "/ISAPI/System/time", messages.time_document(device_time, zone))

    async def open_door(self, door: int, *, seconds: float) -> CommandResult:
        """For as long as the terminal is set to; never asked twice."""
        return await self._door(door, "open")

    async def set_door_mode(self, door: int, mode: DoorMode) -> CommandResult:
        return await self._door(door, DOOR_COMMANDS[mode])

    async def _door(self, door: int, command: str) -> CommandResult:
        if not 1 <= door <= 256:
            raise ValueError("doors are numbered from 1")
        path = f"/ISAPI/AccessControl/RemoteControl/door/{door}"
        try:
            await self._client.xml("PUT", path, messages.door_command(command), again_if_busy=False)
        except (DeviceRefused, Unsupported, Busy) as exc:
            return CommandResult(CommandState.FAILED, str(exc), getattr(exc, "code", None))
        except LinkError as exc:
            return CommandResult(CommandState.UNKNOWN, str(exc))
        return CommandResult(CommandState.DONE)

    async def reboot(self) -> None:
        await self._client.request("PUT", "/ISAPI/System/reboot", again_if_busy=False)

    # -- people --------------------------------------------------------------------------------------------------------

    async def users(self) -> list[DeviceUser]:
        await self._require(Feature.USERS)
        return await self._people.users(with_cards=Feature.CARDS in (await self.capabilities()).features)

    async def upsert_users(self, users: Sequence[DeviceUser]) -> list[ItemResult]:
        await self._require(Feature.USERS)
        return await self._people.upsert(users, with_cards=Feature.CARDS in (await self.capabilities()).features)

    async def delete_users(self, user_ids: Sequence[str]) -> list[ItemResult]:
        await self._require(Feature.USERS)
        return await self._people.delete(user_ids)

    async def templates(self, user_id: str) -> list[DeviceTemplate]:
        """Fingers. The terminal keeps faces as pictures, which are not fetched."""
        if Feature.FINGER_TEMPLATES not in (await self.capabilities()).features:
            return []
        return await self._people.fingers(user_id)

    async def put_templates(self, templates: Sequence[DeviceTemplate]) -> list[ItemResult]:
        can = await self.capabilities()
        accepted = {algorithm for algorithm in (can.finger_algorithm, can.face_algorithm) if algorithm}
        results = {}
        good = []
        for template in templates:
            key = f"{template.user_id}/{template.modality}/{template.index}"
            if template.algorithm in accepted:
                good.append(template)
            else:
                results[key] = ItemResult(key, ok=False, reason=f"the terminal does not take {template.algorithm}")
        results |= {result.key: result for result in await self._people.put_templates(good)}
        return list(results.values())

    async def delete_templates(self, user_id: str, *, modality: str | None = None) -> list[ItemResult]:
        can = await self.capabilities()
        kinds = {"face": Feature.FACE_TEMPLATES, "fingerprint": Feature.FINGER_TEMPLATES}
        results = []
        for kind in [modality] if modality else list(kinds):
            if kinds.get(kind) not in can.features:
                continue  # a model without the table holds none
            reason = ""
            try:
                await self._people.delete_templates(user_id, kind)
            except (DeviceRefused, Unsupported) as exc:
                reason = str(exc)
            results.append(ItemResult(f"{user_id}/{kind}", ok=not reason, reason=reason))
        return results


@contextlib.asynccontextmanager
async def connected(config: DeviceConfig, *, cursor: bytes | None = None) -> AsyncIterator[IsapiTerminal]:
    """A driver that is closed at the end of the block."""
    terminal = IsapiTerminal(config, cursor=cursor)
    try:
        yield terminal
    finally:
        await terminal.close()
