"""Punches and door events, from a driver's `record` into the outbox, durable before the device hears "yes".

Identity. A device tells the same punch many times: live, in its log, after a lost acknowledgement,
after our own crash. Its id is a hash of what the device says about it: serial number, its own record
number and time where it has numbers; otherwise user, time, verify mode, state, and an occurrence, so that
two real punches in one second stay two. The occurrence is never stored apart; it is counted anew by each
way of hearing, so each way counts 1, 2, ... for the same punches and repeats fall together:

* A device's log, read in order, is counted from 1 up to the call of `record` that carries a cursor, and
  anew after it. So a driver that reads a log without record numbers splits it, and starts its overlap, only
  where `device_time` changes: equal records are then told together, each time.
* An upload of a push device is such a reading, so one sent again after a lost answer says the same, however it
  is cut. Two equal punches in two uploads are one therefore, until the device tells its log again: a stamp that
  differs proves nothing, for it also differs when the device adds newer records to what it repeats.
* Live events (calls without a cursor) are counted within one connection, and only while they come within
  LIVE_REPEAT_S of the first: two real punches of one device second reach us about a second apart. Whatever
  repeats later is the device sending again, and is the same punch.

A count can thus come out too low (one of two equal punches lost on the wire, its twin heard alone) but the
next scan has both. It cannot come out too high and invent a punch.

Time. `device_time` stays as it was said; `occurred_at` is that reading in the device's configured zone, not
corrected by the measured offset of its clock, which stands beside it. Where a reading happens twice (end of
daylight saving) the one nearer to now is taken live, the one not before its predecessor in a log, whose batches
are one sequence as long as the connection lasts; what is known already keeps its moment and stands as the
predecessor of what follows. The monotonic clock and the boot id are kept, because a wall clock can jump.

Place. The device's configured site and position, its source said; no position when the enterprise
switched geolocation off. Nothing is ever gathered from the person or their phone.

Health (temperature, masks, moods) is not taken from any device: an event has no field for it, and reasons
that speak of it are emptied and counted. What a device said in a form nobody can read stays in `said`, unless
it speaks of health.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sqlite3
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from device_drivers.devices import Record
from device_drivers.events import DeviceEvent, DoorEvent, Origin, Punch, VerifyMode
from edge_agent.database import Database, utc_now, utc_text
from edge_agent.delivery.event import Event, append
from edge_agent.matching.outcomes import PadState
from edge_agent.people.roster import Roster

LIVE_REPEAT_S = 2.0
LIVE_KEYS = 64  # remembered per connection even when older than LIVE_REPEAT_S
MAX_TEXT = 200  # of any word a device gives us
TEXTS = ("device_serial", "user_id", "card", "work_code", "reason", "said")
EARLIEST, LATEST = datetime(1, 1, 3, tzinfo=UTC), datetime(9999, 12, 29, tzinfo=UTC)
# What a terminal matched itself is as live as the terminal vouches for; several factors may hold none of these.
BIOMETRIC = frozenset({VerifyMode.FACE, VerifyMode.FINGER, VerifyMode.PALM, VerifyMode.VOICE, VerifyMode.IRIS})
HEALTH = re.compile(r"temperatur|fever|\bmasks?\b|emotion|heart|blood|体温|发热|口罩|情绪|心率|血", re.IGNORECASE)

log = logging.getLogger(__name__)

Told = TypeVar("Told", bound=Punch | DoorEvent)
Other = Callable[[Sequence[DeviceEvent]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Source:
    """What the enterprise says about a device, as far as its events carry it."""

    name: str
    timezone: str = "UTC"
    site: str = ""
    location: tuple[float, float] | None = None  # latitude, longitude; None: not configured, or switched off
    attendance: bool = True  # False: passages here are no working time
    serial: str = ""


@dataclass(frozen=True, slots=True)
class ClockReading:
    """How far a device's clock is ahead of ours, and since when we know."""

    offset: timedelta
    measured_at: datetime


@dataclass(slots=True)
class _Counts:
    """Occurrences within one connection."""

    scan: dict[str, int] = field(default_factory=dict)
    live: OrderedDict[str, tuple[float, int]] = field(default_factory=OrderedDict)  # key -> first heard, count
    latest: datetime | None = None  # last told of a log, which goes on where the scan before it ended

    def in_scan(self, key: str) -> int:
        self.scan[key] = self.scan.get(key, 0) + 1
        return self.scan[key]

    def heard_live(self, key: str, now: float) -> int:
        first, count = self.live.get(key, (now, 0))
        if count and now - first > LIVE_REPEAT_S:
            return 1
        self.live[key] = (first, count + 1)
        while len(self.live) > LIVE_KEYS and now - self.live[next(iter(self.live))][0] > LIVE_REPEAT_S:
            self.live.popitem(last=False)
        return count + 1

    def take_back(self, key: str) -> None:
        """What could not be stored was not heard."""
        if key in self.scan:
            self.scan[key] -= 1
        elif key in self.live:
            first, count = self.live[key]
            self.live[key] = (first, count - 1)
            if count == 1:
                del self.live[key]

    def end_scan(self) -> None:
        self.scan.clear()


def boot_id() -> str:
    """Changes with every start of the machine; a fresh one where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return str(uuid.uuid4())


def key_of(event: Punch | DoorEvent) -> str:
    """What the device says about one happening, without how often."""
    when = event.device_time.isoformat() if event.device_time else hashlib.sha256(event.raw).hexdigest()
    if isinstance(event, Punch):
        what: list[Any] = ["punch", event.verify_mode, event.verify_code, event.state, event.state_code]
    else:
        card = hashlib.sha256(event.card.encode()).hexdigest() if event.card else ""
        what = ["door", event.kind, event.door, event.reader, event.reason_code, event.direction, card]
    if event.record_no is not None:
        # A cleared log may count from 1 again: the time keeps the new record apart from the old one.
        return json.dumps([event.device_serial, what[0], event.record_no, when])
    return json.dumps([event.device_serial, *what, event.user_id, when])


def event_id(key: str, occurrence: int) -> str:
    return hashlib.blake2b(f"{occurrence}\0{key}".encode(), digest_size=16, person=b"edge-agent event").hexdigest()


def both_passes(device_time: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The moments at which a clock in `zone` may show this reading; they differ where an hour happens twice."""
    first, second = (_utc(device_time.replace(tzinfo=zone, fold=fold)) for fold in (0, 1))
    return first, max(first, second)  # in the hour that is left out the second would be the earlier


def _utc(moment: datetime) -> datetime:
    """As UTC, and no nearer to the ends of the calendar than every zone can show."""
    try:
        return min(max(moment.astimezone(UTC), EARLIEST), LATEST)
    except OverflowError:
        return EARLIEST if moment.year == 1 else LATEST


def occurred_at(device_time: datetime, zone: ZoneInfo, *, near: datetime | None, after: datetime | None) -> datetime:
    """A device's reading as UTC. `near` decides a reading that happens twice, else `after`, else the first."""
    first, second = both_passes(device_time, zone)
    if near is not None:
        return min(first, second, key=lambda moment: abs(moment - near))
    # A predecessor that is later than both passes says nothing: the log went back.
    return second if after is not None and first < after <= second + (second - first) else first


def _happens_twice(device_time: datetime, zone: ZoneInfo) -> bool:
    first, second = both_passes(device_time, zone)
    return first != second


def _counted(event: Punch | DoorEvent, counts: _Counts, ticks: float, *, in_log: bool) -> tuple[str, int]:
    """The event's id, and which of its equals it is."""
    key = key_of(event)
    if event.record_no is not None:
        occurrence = 1
    elif in_log or event.origin is not Origin.LIVE:
        occurrence = counts.in_scan(key)
    else:
        occurrence = counts.heard_live(key, ticks)
    return event_id(key, occurrence), occurrence


def storable(event: Told) -> Told:
    """With every text as UTF-8 can say it: JSON escapes can hold half a character, which no database takes."""
    texts: dict[str, Any] = {name: getattr(event, name) for name in TEXTS if hasattr(event, name)}
    clean: dict[str, Any] = {name: value.encode("utf-8", "backslashreplace").decode() for name, value in texts.items()}
    return event if clean == texts else replace(event, **clean)


def recognised(roster: Roster, connection: sqlite3.Connection, event: Event) -> Event | None:
    """A stored event whose user nobody knew, if somebody has that number now and nobody else had it then.

    The id and the device's words stay.
    """
    if event.subject is not None or event.data.get("known") is not False:
        return None
    user_id = str(event.data.get("user_id") or "")
    subject = roster.subject_of(connection, device=event.device, user_id=user_id, at=event.occurred_at)
    if subject is None:
        return None
    return replace(event, subject=subject, data={**event.data, "known": True})


class Attendance:
    """Makes the `record` that each driver gets."""

    def __init__(
        self,
        database: Database,
        roster: Roster,
        *,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        boot: str | None = None,
    ) -> None:
        self._database = database
        self._roster = roster
        self._clock = clock
        self._monotonic = monotonic
        self._boot = boot or boot_id()
        self._sources: dict[str, Source] = {}
        self._zones: dict[str, ZoneInfo] = {}
        self.clocks: dict[str, ClockReading] = {}
        self.received = 0  # told by devices, repeats included
        self.stored = 0
        self.health_dropped = 0

    def configure(self, sources: Iterable[Source]) -> None:
        """Replaces what is known of every device; recorders at work follow with their next event."""
        self._sources = {source.name: source for source in sources}

    def measured(self, device: str, device_time: datetime, *, at: datetime | None = None) -> ClockReading:
        """Note what a device's clock said at `at` (now)."""
        source = self._sources.get(device) or Source(device)
        at = at or self._clock()
        offset = occurred_at(device_time, self._zone(source.timezone), near=at, after=None) - at
        self.clocks[device] = ClockReading(offset, at)
        return self.clocks[device]

    async def cursor(self, device: str, *, serial: str = "") -> bytes | None:
        """How far the device was read, for the driver's next connection; None if that was another device.

        Devices are told apart by `serial`, where both the caller and the cursor know one.
        """
        row = await self._database.read(
            lambda c: c.execute(
                "SELECT position FROM cursors WHERE device = ?1 AND (?2 = '' OR serial IN ('', ?2))", (device, serial)
            ).fetchone()
        )
        return bytes(row[0]) if row else None

    async def forget_cursor(self, device: str) -> None:
        """The next connection reads the whole log; what is known stays known."""
        await self._database.write(lambda c: c.execute("DELETE FROM cursors WHERE device = ?", (device,)))

    def recorder(self, device: str, *, others: Other | None = None) -> Record:
        """`record` for one connection of `device`. Reads at doors that ask us to decide go to `others`.

        Raises DiskFull and CommitFailed into the driver, which then must not acknowledge.
        """
        counts = _Counts()

        async def record(events: Sequence[DeviceEvent], *, cursor: bytes | None = None) -> None:
            kept = [storable(event) for event in events if isinstance(event, Punch | DoorEvent)]
            if kept or cursor is not None:
                await self._store(device, kept, cursor, counts)
            asking = [event for event in events if not isinstance(event, Punch | DoorEvent)]
            if asking and others is not None:
                await others(asking)

        return record

    async def _store(
        self, device: str, events: Sequence[Punch | DoorEvent], cursor: bytes | None, counts: _Counts
    ) -> None:
        source = self._sources.get(device) or Source(device)
        now, ticks = self._clock(), self._monotonic()
        latest = counts.latest
        told = [(event, *_counted(event, counts, ticks, in_log=cursor is not None)) for event in events]
        prepared: list[tuple[Punch | DoorEvent, Event]] = []
        serial = events[-1].device_serial if events else source.serial

        def work(connection: sqlite3.Connection) -> int:
            new = append(connection, [self._named(connection, source, *pair) for pair in prepared], now=now)
            if cursor is not None:
                connection.execute(
                    "INSERT INTO cursors VALUES (?, ?, ?, ?) ON CONFLICT (device) DO UPDATE SET"
                    " serial = COALESCE(NULLIF(excluded.serial, ''), serial),"
                    " position = excluded.position, updated_at = excluded.updated_at",
                    (device, serial, cursor, utc_text(now)),
                )
            return new

        try:
            known = await self._moments_known(source, told)
            for event, id_, occurrence in told:
                moment = self._moment(source, event, counts, now, known.get(id_))
                prepared.append((event, self._event(source, event, id_, occurrence, moment, now, ticks)))
            new = await self._database.write(work)
        except BaseException:
            for event in events:
                counts.take_back(key_of(event))
            counts.latest = latest
            raise
        finally:
            if cursor is not None:
                counts.end_scan()
        self.received += len(events)
        self.stored += new

    async def _moments_known(
        self, source: Source, told: Sequence[tuple[Punch | DoorEvent, str, int]]
    ) -> dict[str, datetime]:
        """When those of a log occurred that are stored already, by id, where the reading alone does not say."""
        zone = self._zone(source.timezone)
        twice = [
            id_
            for event, id_, _ in told
            if event.origin is not Origin.LIVE
            and event.device_time is not None
            and _happens_twice(event.device_time, zone)
        ]
        if not twice:
            return {}

        def work(connection: sqlite3.Connection) -> dict[str, datetime]:
            question = "SELECT occurred_at FROM events WHERE id = ?"
            rows = ((id_, connection.execute(question, (id_,)).fetchone()) for id_ in twice)
            return {id_: datetime.fromisoformat(row[0]) for id_, row in rows if row}

        return await self._database.read(work)

    def _moment(
        self, source: Source, event: Punch | DoorEvent, counts: _Counts, now: datetime, known: datetime | None
    ) -> datetime:
        if event.device_time is None:
            return now
        zone = self._zone(source.timezone)
        if event.origin is not Origin.LIVE:
            counts.latest = known or occurred_at(event.device_time, zone, near=None, after=counts.latest)
            return counts.latest
        moment = occurred_at(event.device_time, zone, near=now, after=None)
        if source.name not in self.clocks:
            self.clocks[source.name] = ClockReading(moment - now, now)
        return moment

    def _event(
        self,
        source: Source,
        event: Punch | DoorEvent,
        id_: str,
        occurrence: int,
        moment: datetime,
        now: datetime,
        ticks: float,
    ) -> Event:
        data = self._data(source, event, now, ticks) | {"occurrence": occurrence}
        kind = f"door.{event.kind}" if isinstance(event, DoorEvent) else "attendance.punch"
        if isinstance(event, Punch) and not source.attendance:
            kind = "access.punch"
        return Event(id_, kind, moment, source.name, None, data)

    def _data(self, source: Source, event: Punch | DoorEvent, now: datetime, ticks: float) -> dict[str, Any]:
        data: dict[str, Any] = {
            "serial": event.device_serial[:MAX_TEXT],
            "user_id": event.user_id[:MAX_TEXT],
            "verify_mode": event.verify_mode.value,
            "pad": (PadState.TERMINAL if event.verify_mode in BIOMETRIC else PadState.NONE).value,
            "record_no": event.record_no,
            "origin": event.origin.value,
            "device_time": event.device_time.isoformat() if event.device_time else None,
            "timezone": source.timezone,
            "received_at": utc_text(now),
            "monotonic_s": round(ticks, 3),
            "boot": self._boot,
        }
        if reading := self.clocks.get(source.name):
            data["clock_offset_s"] = round(reading.offset.total_seconds(), 3)
            data["clock_measured_at"] = utc_text(reading.measured_at)
        if event.said and not HEALTH.search(event.said):
            data["said"] = event.said[:MAX_TEXT]
        if source.site:
            data["site"] = source.site
        if source.location is not None:
            latitude, longitude = source.location
            data["location"] = {"latitude": latitude, "longitude": longitude, "source": "device configuration"}
        if isinstance(event, Punch):
            data |= {"state": event.state.value, "state_code": event.state_code, "verify_code": event.verify_code}
            if event.work_code:
                data["work_code"] = event.work_code[:MAX_TEXT]
        else:
            reason, code = event.reason, event.reason_code
            if HEALTH.search(reason):
                reason, code = "", 0
                self.health_dropped += 1
            data |= {
                "door": event.door,
                "reader": event.reader,
                "state": event.direction.value,
                "reason": reason[:MAX_TEXT],
                "reason_code": code,
            }
        return data

    def _named(self, connection: sqlite3.Connection, source: Source, told: Punch | DoorEvent, event: Event) -> Event:
        """The event with its subject; one nobody knows is kept and says so."""
        subject = self._roster.subject_of(
            connection, device=source.name, user_id=told.user_id, card=told.card, at=event.occurred_at
        )
        data = dict(event.data)
        if told.user_id or told.card:
            data["known"] = subject is not None
        return Event(event.id, event.type, event.occurred_at, event.device, subject, data)

    def _zone(self, name: str) -> ZoneInfo:
        if name not in self._zones:
            self._zones[name] = ZoneInfo(name)
        return self._zones[name]
