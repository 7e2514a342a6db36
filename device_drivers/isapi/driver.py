"""A Hikvision access terminal: the log by serial number, live events by stream, by its own pushes, or by polling.

The stream is opened, and the push armed, before the log is read, so nothing falls between the two. An alert is a bell:
the log is read at once from where we stand, and what it says is recorded, because alerts leave out numbers, or tell
another second than the log, and a punch would count twice. What the log does not hold is taken from the alert, and so
is everything where a model has no log, or one without serial numbers. The position moves over a range of numbers once
the whole range is read, in whatever order its records came. What a model lacks is measured by asking, not taken from
a list of models: where it cannot push it is listened to, where it has no stream it is polled.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol
from uuid import uuid4

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
from device_drivers.events import DoorEvent, Origin, Punch
from device_drivers.isapi import messages
from device_drivers.isapi.client import STREAM_SILENCE_S, Busy, IsapiClient
from device_drivers.isapi.frame import PartDecoder, boundary_of
from device_drivers.isapi.messages import (
    FACE_PICTURE,
    FINGER_ALGORITHM,
    Json,
    PushTarget,
    integer,
    item,
    items,
    local_time,
    offers,
    text,
)
from device_drivers.isapi.people import People
from device_drivers.isapi.push import USERNAME, Inbox
from device_drivers.isapi.session import OVERLAP, LogPosition, code, mark
from device_drivers.links import split_address

log = logging.getLogger(__name__)

PAGE = 30
WINDOW = 600  # numbers read before the position moves
LOG_LAGS_S = (0.2, 0.6)  # pauses for a terminal that tells before it writes
SAME_RECORD = timedelta(seconds=3)  # an alert's time and its record's, where no number says that they are one
SAME_NUMBER = timedelta(minutes=1)  # as far apart, one number means one record
STILL_LIVE = timedelta(minutes=1)  # before what just happened
TOLD = 256  # records remembered to know their alerts by
POLL_S = 5.0
SWEEP_S = 300.0  # the log is read this often even while the stream seems well
CHECK_S = 30.0  # a terminal that restarted has forgotten where to push
DOOR_COMMANDS = {DoorMode.CONTROLLED: "close", DoorMode.LOCKED: "alwaysClose", DoorMode.UNLOCKED: "alwaysOpen"}
EVENTS = "/ISAPI/AccessControl/AcsEvent"
HOSTS = "/ISAPI/Event/notification/httpHosts"
EVENT_SOURCES = ("stream", "push", "poll")
NO_NUMBERS = (
    "the records of this model's log have no serial numbers: what happens while nobody is connected cannot be read"
)

Told = Punch | DoorEvent


class Receiver(Protocol):
    """Passes on what terminals push, while their drivers want it."""

    def opened(self, inbox: Inbox, terminal: IsapiTerminal) -> None: ...
    def closed(self, inbox: Inbox, terminal: IsapiTerminal) -> None: ...


class IsapiTerminal:
    """`options`: events ("stream", "push" or "poll"), tls, ca_file, readers; the intervals poll_s, sweep_s, check_s,
    silence_s. For pushes: push_host (our address as the terminal reaches it; ours of the connection to it otherwise),
    addresses (networks it may push from; its own otherwise) and host_id (the listening server to overwrite)."""

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
        self._position = LogPosition.from_cursor(cursor)
        self._identity: Identity | None = None
        self._can: Capabilities | None = None
        self._by_serial = False
        self._has_log = True
        self._numbered = True  # until a record without a number is seen
        self._told: dict[int, Told] = {}  # by the log, on this connection; the latest, by number
        self._claimed: set[int] = set()  # of these, by alerts without a number
        self._one_reader = asyncio.Lock()
        self._record: Record | None = None

    def _connect(self) -> IsapiClient:
        options = self.config.options
        tls = bool(options.get("tls", False))
        host, port = split_address(self.config.address, 443 if tls else 80)
        host = f"[{host}]" if ":" in host else host
        trust: ssl.SSLContext | bool = tls  # without TLS there is nothing to load certificates for
        if ca_file := options.get("ca_file"):
            trust = ssl.create_default_context(cafile=str(ca_file))
        return IsapiClient(
            f"{'https' if tls else 'http'}://{host}:{port}",
            username=self.config.username or "admin", password=self.config.password, verify=trust,
        )  # fmt: skip

    async def close(self) -> None:
        await self._client.close()

    @property
    def warning(self) -> str:
        return "" if self._numbered else NO_NUMBERS

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
            self._by_serial = item(events, "AcsEvent", "AcsEventCond", "beginSerialNo") is not None
        self._has_log = events is not None
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
        self._record = record
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
                    if not self._has_log:
                        raise
            await self._poll()
        finally:
            self._record = None

    async def _poll(self) -> None:
        if not self._has_log:
            raise Unsupported(f"{self.config.name}: this model has no log to poll; set options.events to stream")
        while True:
            await self._read_log()
            if not self._numbered:
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
            await self._read_log()
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
        before = self._position
        await self._read_log()
        if self._position != before:
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
            await self._read_log()
            loop = asyncio.get_running_loop()
            sweep_at = loop.time() + self._sweep_s
            async for data in response.aiter_raw():
                for part in decoder.feed(data):
                    await self.receive(part.content_type, part.body)
                if decoder.ended:
                    break
                if loop.time() >= sweep_at:  # heartbeats keep this loop turning
                    await self._read_log()
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
        if not self._has_log or not self._numbered:
            await self._keep([event])
        elif not self._was_told(event):
            await self._read_what_is_announced(event, now=access.get("currentEvent") is not False)

    async def _read_what_is_announced(self, event: Told, *, now: bool) -> None:
        """`now`: not told again from the terminal's memory, which is the log."""
        number = event.record_no
        for pause in (0.0, *LOG_LAGS_S):
            if pause:
                await self._client.pause(pause)
            await self._read_log(heard=event)
            if self._numbered and self._was_told(event, number_alone=True):
                return
            if not self._numbered or (number is not None and number <= (self._position.last or 0)):
                break
        self.counters["not_in_the_log"] += 1
        if now or not self._numbered:
            await self._keep([event])

    def _was_told(self, event: Told, *, number_alone: bool = False) -> bool:
        """Whether the log told what this alert tells. A record stands for one alert without a number, no more."""
        if event.record_no is not None:
            found = self._told.get(event.record_no)
            return found is not None and (number_alone or _together(found, event, SAME_NUMBER))
        for number, told in self._told.items():
            same = told.user_id == event.user_id and code(told) == code(event)
            if same and number not in self._claimed and _together(told, event, SAME_RECORD):
                self._claimed.add(number)
                return True
        return False

    @property
    def _serial(self) -> str:
        return self._identity.serial if self._identity else self.config.serial

    async def _keep(self, events: Sequence[Told], position: LogPosition | None = None) -> None:
        """Durable on return, together with the position that is reached with them."""
        if self._record is None:
            raise LinkError(f"{self.config.name}: nobody receives at the moment")
        reached = position or self._position
        if events or reached != self._position:
            await self._record(events, cursor=reached.cursor())
        if position is not None:
            self._position = position

    # -- the log -------------------------------------------------------------------------------------------------------

    async def _read_log(self, *, heard: Told | None = None) -> None:
        """Everything behind the cursor, with an overlap; from the start if this is another log."""
        if not self._has_log:
            return
        async with self._one_reader:
            if not self._position.is_of(self._serial):
                self._begin_anew()
            newest, total = 0, 0
            last, number = self._position.last, heard.record_no if heard else None
            if not self._by_serial or heard is None or last is None or (number or 0) > last + WINDOW:
                found, total = await self._end_of_log(timeReverseOrder=True)
                if found is None:
                    return
                newest = found
            if self._by_serial:
                if await self._read_by_number(newest, total, heard):
                    return
                self._by_serial = False
                log.warning("isapi_no_ranges device=%s: the log is read by position", self.config.name)
            await self._read_by_position(newest, total, heard)

    def _begin_anew(self) -> None:
        self.counters["log_resets"] += 1
        log.warning("isapi_another_log device=%s: everything is read", self.config.name)
        self._position = LogPosition()
        self._claimed.clear()

    async def _end_of_log(self, **order: bool) -> tuple[int | None, int]:
        """The number of the first record in this order, and how many there are."""
        document = await self._client.json("POST", EVENTS, messages.search_events(0, 1, search_id=uuid4().hex, **order))
        found = items(document, "AcsEvent", "InfoList")
        if not found:
            return None, 0
        number = integer(found[0].get("serialNo"))
        if number is None and self._numbered:
            log.warning("isapi_log_without_numbers device=%s", self.config.name)
        self._numbered = number is not None
        return number, max(0, integer(item(document, "AcsEvent", "totalMatches")) or 0)

    async def _read_by_number(self, newest: int, total: int, heard: Told | None) -> bool:
        """Range after range: `newest` is the latest by the terminal's clock, which may not be the highest number.

        False if no range finds anything in a log that has records.
        """
        last, any_found = self._position.last, False
        first = 0 if last is None else max(0, last - OVERLAP)
        end = (max(0, newest - total) if last is None else first) + WINDOW
        while True:
            before = self._position
            found, rest = await self._read_pages(0, heard, beginSerialNo=first, endSerialNo=end)
            another = last is not None and not before.is_in(found)
            await self._keep_read(rest, before if another else before.after(found, serial=self._serial))
            if another:
                latest, total = await self._end_of_log(timeReverseOrder=True)
                if latest is None:
                    return True  # cleared, and nothing happened since
                self._begin_anew()
                last, newest, first, end = None, latest, 0, max(0, latest - total) + WINDOW
                continue
            last, any_found = None, any_found or bool(found)
            if max(found, default=-1) < end and newest <= end:
                return any_found
            if self._position != before:
                first, end = end + 1, end + WINDOW
            elif end < newest:  # a hole in the numbers, of any width
                first, end = end + 1, newest
            else:
                return any_found

    async def _read_by_position(self, newest: int, total: int, heard: Told | None) -> None:
        """From as far before the end as there are new numbers; all of it if they are not all there."""
        position, start = self._position, 0
        oldest, _ = await self._end_of_log()
        newest = max(newest, oldest or 0)  # a clock that was set back puts the newest record first
        if position.last is not None and newest >= position.last:
            start = max(0, total - (newest - position.last) - OVERLAP)
        found, rest = await self._read_pages(start, heard)
        if position.last is not None:
            new = sum(position.last < number <= newest for number in found)
            if start and not (position.is_in(found) and new == newest - position.last):
                await self._keep_read(rest)
                found, rest = await self._read_pages(0, heard)
            if not position.is_in(found):
                self._begin_anew()
        await self._keep_read(rest, self._position.after(found, serial=self._serial))

    async def _read_pages(self, start: int, heard: Told | None, **conditions: int) -> tuple[dict[int, str], list[Told]]:
        """Record what a search finds, but for the last page: with that the position moves.

        The numbers found, with what tells each record from another of that number, and the last page.
        """
        position, found, rest = self._position, dict[int, str](), list[Told]()
        async for page in self._pages(start, conditions):
            await self._keep_read(rest)
            found |= {event.record_no: mark(event) for event in page if event.record_no is not None}
            after = -1 if position.last is None else position.last if position.is_in(found) else None
            rest = [
                replace(event, origin=Origin.LIVE) if heard and _is_live(event, heard, after=after) else event
                for event in page
            ]
        return found, rest

    async def _keep_read(self, page: Sequence[Told], position: LogPosition | None = None) -> None:
        await self._keep(page, position)
        for event in page:
            if event.record_no is not None:
                self._told[event.record_no] = event
        while len(self._told) > TOLD:
            oldest = next(iter(self._told))
            del self._told[oldest]
            self._claimed.discard(oldest)

    async def _pages(self, position: int, conditions: Json) -> AsyncIterator[list[Told]]:
        """Raises ProtocolError for a search that says it goes on and tells the same again."""
        search_id, seen = uuid4().hex, set[int]()
        while True:
            body = messages.search_events(position, PAGE, search_id=search_id, **conditions)
            document = await self._client.json("POST", EVENTS, body)
            found = items(document, "AcsEvent", "InfoList")
            numbers = {number for entry in found if (number := integer(entry.get("serialNo"))) is not None}
            total = integer(item(document, "AcsEvent", "totalMatches")) or 0
            if not found or (numbers <= seen and (numbers or position >= total)):
                if found and position < total:
                    raise ProtocolError(
                        f"{self.config.name}: the log search tells the same {len(found)} records again, {position} of"
                        f" {total} were read"
                    )
                return
            seen |= numbers
            yield [
                messages.event(entry, serial=self._serial, origin=Origin.BACKLOG, raw=json.dumps(entry).encode())
                for entry in found
            ]
            position += len(found)
            if item(document, "AcsEvent", "responseStatusStrg") != "MORE":
                return

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


def _together(one: Told, other: Told, within: timedelta) -> bool:
    if one.device_time is None or other.device_time is None:
        return one.device_time is other.device_time
    return abs(one.device_time - other.device_time) <= within


def _is_live(event: Told, heard: Told, *, after: int | None) -> bool:
    """Whether the log tells what was just heard of, or what happened shortly before it and is new too."""
    if heard.record_no is not None and event.record_no == heard.record_no:
        return True
    if after is None or event.record_no is None or event.record_no <= after:
        return False
    return _together(event, heard, STILL_LIVE)


@contextlib.asynccontextmanager
async def connected(config: DeviceConfig, *, cursor: bytes | None = None) -> AsyncIterator[IsapiTerminal]:
    """A driver that is closed at the end of the block."""
    terminal = IsapiTerminal(config, cursor=cursor)
    try:
        yield terminal
    finally:
        await terminal.close()
