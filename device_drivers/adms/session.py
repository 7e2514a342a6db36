"""What is known of one push device, and the answers of the handshake. No I/O: bytes and `now` come in.

The device sets its clock from the answer's `Date` header plus `TimeZone`, which is in hours for whole zones and in
minutes for others. Stamps are advisory: firmware with a constant 9999 exists, so events are told apart by what they
say and a repeat is harmless. The registry token is not checked: the published samples cannot be reproduced from
the published rule, and it would prove nothing beyond the serial number in the query.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from device_drivers.adms.codes import ALARM_BITS
from device_drivers.adms.commands import Dialect
from device_drivers.adms.messages import OriginOf, PanelState
from device_drivers.adms.queue import CommandQueue
from device_drivers.adms.rows import number
from device_drivers.events import DoorEvent, Origin
from device_drivers.zk_access import encode_seconds

STAMP_TABLES = ("ATTLOG", "OPERLOG", "ATTPHOTO", "BIODATA")
MAX_STAMP = 20
LIVE_WITHIN = timedelta(seconds=120)
MAX_OPTIONS = 512
CHINESE = "83"
ASKED_FOR = (
    "UserCount,TransactionCount,FingerFunOn,FPVersion,FPCount,FaceFunOn,FaceVersion,FaceCount,"
    "MultiBioDataSupport,MultiBioPhotoSupport,MultiBioVersion,MaxMultiBioDataCount"
)
DELAY_S = 2  # between two getrequests: how late a door may open
ERROR_DELAY_S = 30


def time_zone(offset: timedelta) -> str:
    """Hours if whole (8, -5), else minutes (330, 345)."""
    minutes = round(offset.total_seconds() / 60)
    return str(minutes // 60) if minutes % 60 == 0 else str(minutes)


@dataclass(frozen=True, slots=True)
class Info:
    """`INFO=` of a getrequest: firmware, users, fingers, records, address, versions, faces."""

    firmware: str
    users: int
    fingers: int
    records: int
    finger_version: str
    face_version: str
    faces: int

    @classmethod
    def parse(cls, text: str) -> Info | None:
        values = text.split(",", 16)
        if len(values) < 4:
            return None
        values += [""] * (9 - len(values))
        return cls(
            values[0][:64], number(values[1]), number(values[2]), number(values[3]), values[5][:8], values[6][:8],
            number(values[8]),
        )  # fmt: skip


@dataclass(slots=True)
class Session:
    """One device, for as long as the server lives; drivers come and go."""

    serial: str
    zone: ZoneInfo
    encoding: str = ""
    dialect: Dialect | None = None
    stamps: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    info: Info | None = None
    registry_code: str = ""
    language: str = ""
    commands: CommandQueue = field(default_factory=CommandQueue)
    clock_offset: timedelta | None = None  # device's clock minus its own zone's true time
    panel: PanelState | None = None

    @property
    def wire_encoding(self) -> str:
        """Of names we send: as configured, else GB18030 for firmware that says it speaks Chinese, else UTF-8."""
        if self.encoding:
            return self.encoding
        return "gb18030" if self.language == CHINESE else "utf-8"

    @property
    def words(self) -> Dialect:
        return self.dialect or Dialect.ATTENDANCE

    def restore(self, cursor: bytes | None) -> None:
        """Stamps as last made durable; an unreadable cursor means: everything again.

        The dialect is kept beside them: a device greets once, and goes on polling after we restarted.
        """
        self.stamps = {}
        try:
            saved = json.loads(cursor) if cursor else {}
        except ValueError:
            return
        if isinstance(saved, dict):
            self.stamps = {table: str(stamp)[:MAX_STAMP] for table, stamp in saved.items() if table in STAMP_TABLES}
            if self.dialect is None and saved.get("dialect") in set(Dialect):
                self.dialect = Dialect(saved["dialect"])

    def cursor_after(self, table: str = "", stamp: str = "") -> bytes:
        """The cursor that becomes durable with this upload; `keep` is called once it is.

        Every upload has one, with or without a stamp: it is a reading of the device's log of its own, so an upload
        sent again says the same as before.
        """
        dialect = {"dialect": self.dialect} if self.dialect else {}
        return json.dumps({**self._with(table, stamp), **dialect}, sort_keys=True).encode()

    def keep(self, table: str, stamp: str) -> None:
        self.stamps = self._with(table, stamp)

    def _with(self, table: str, stamp: str) -> dict[str, str]:
        if table in STAMP_TABLES and stamp and len(stamp) <= MAX_STAMP and stamp.isalnum():
            return {**self.stamps, table: stamp}
        return self.stamps

    def greet(self, query: dict[str, str], now: datetime) -> str:
        """Answer to `GET cdata?options=all`."""
        version = query.get("pushver", "")
        self.language = query.get("language", self.language)[:4]
        if version.startswith("3") or query.get("DeviceType", "") == "acc":
            self.dialect = Dialect.SECURITY
            if not self.registry_code:
                return "OK"  # the device registers next
            return "registry=ok\n" + f"RegistryCode={self.registry_code}\n" + self.access_options()
        self.dialect = Dialect.ATTENDANCE
        return self.attendance_options(now)

    def attendance_options(self, now: datetime) -> str:
        offset = now.astimezone(self.zone).utcoffset() or timedelta()
        lines = [f"GET OPTION FROM: {self.serial}"]
        lines += [f"{table}Stamp={self.stamps.get(table, '0')}" for table in STAMP_TABLES]
        lines += [
            f"ErrorDelay={ERROR_DELAY_S}",
            f"Delay={DELAY_S}",
            "TransTimes=00:00;12:00",
            "TransInterval=1",
            "TransFlag=TransData AttLog\tOpLog\tEnrollUser\tChgUser\tEnrollFP\tChgFP\tFACE\tBioData",
            f"TimeZone={time_zone(offset)}",
            "Realtime=1",
            "Encrypt=None",
            "ServerVer=2.4.1",
            "PushProtVer=2.4.1",
            "PushOptionsFlag=1",
            f"PushOptions={ASKED_FOR}",
        ]
        return "\n".join(lines) + "\n"

    def server_time(self, now: datetime) -> str:
        """Answer to `rtdata?type=time`, which some panels ask for after a SET OPTIONS DateTime."""
        offset = now.astimezone(self.zone).utcoffset() or timedelta()
        minutes = abs(round(offset.total_seconds() / 60))
        sign = "-" if offset < timedelta() else "+"
        greenwich = encode_seconds(now.astimezone(UTC))
        return f"DateTime={greenwich},ServerTZ={sign}{minutes // 60:02d}{minutes % 60:02d}"

    def access_options(self) -> str:
        """Answer to `push`."""
        lines = [
            "ServerVersion=3.1.2",
            "ServerName=ADMS",
            "PushVersion=3.1.2",
            f"ErrorDelay={ERROR_DELAY_S}",
            f"RequestDelay={DELAY_S}",
            "TransTimes=00:00;12:00",
            "TransInterval=1",
            "TransTables=User Transaction",
            "Realtime=1",
            f"SessionID={self.registry_code}",
            "TimeoutSec=10",
        ]
        if support := self.options.get("MultiBioDataSupport"):
            lines += ["BioDataFun=1", f"MultiBioDataSupport={support}"]
        return "\n".join(lines) + "\n"

    def learn(self, options: dict[str, str]) -> None:
        for key, value in options.items():
            name = key.removeprefix("~")
            if len(self.options) < MAX_OPTIONS or name in self.options:
                self.options[name] = value
                if key.startswith("~"):
                    self.options[key] = value

    def origin(self, now: datetime) -> OriginOf:
        """Of an upload's events: live within two minutes of the device's local time; no part of their identity."""
        local = now.astimezone(self.zone).replace(tzinfo=None)
        first, last = local - LIVE_WITHIN, local + LIVE_WITHIN

        def of(device_time: datetime | None) -> Origin:
            return Origin.LIVE if device_time is None or first <= device_time <= last else Origin.BACKLOG

        return of

    def hear_clock(self, device_time: datetime | None, now: datetime) -> None:
        """Only messages that carry the clock itself: an event's time may be old."""
        if device_time is not None:
            self.clock_offset = device_time - now.astimezone(self.zone).replace(tzinfo=None)

    def device_time(self, now: datetime) -> datetime | None:
        if self.clock_offset is None:
            return None
        return now.astimezone(self.zone).replace(tzinfo=None) + self.clock_offset

    def alarms(self, state: PanelState) -> list[DoorEvent]:
        """What changed since the last rtstate; `panel` moves with `keep_panel`, once these are durable."""
        before = self.panel.alarms if self.panel else b""
        events = []
        for door, bits in enumerate(state.alarms, start=1):
            changed = bits ^ (before[door - 1] if door <= len(before) else 0)
            for bit, (raised, cleared) in enumerate(ALARM_BITS):
                if not changed >> bit & 1:
                    continue
                on = bits >> bit & 1
                kind = raised if on else cleared
                events.append(
                    DoorEvent(
                        self.serial, kind, door=door, device_time=state.device_time, reason_code=bit,
                        reason="alarm raised" if on else "alarm cleared", raw=state.raw,
                    )
                )  # fmt: skip
        return events

    def keep_panel(self, state: PanelState) -> None:
        self.panel = state


def http_date(now: datetime) -> str:
    """RFC 9110 IMF-fixdate, GMT, without the process's locale."""
    now = now.astimezone(UTC)
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[now.weekday()]
    month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[now.month - 1]
    return f"{day}, {now.day:02d} {month} {now.year:04d} {now:%H:%M:%S} GMT"
