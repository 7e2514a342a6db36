"""The shape of every driver: what the agent may ask of a device, whatever its vendor.

One driver lives for one connection. `run` raises a DeviceError when link or protocol breaks; the
agent's supervision makes a new driver. Drivers hold no retry loops and no "reconnecting" flags.

Commit before acknowledge: `run(record)` awaits `record(events, cursor=...)`, which returns once the
events (and the cursor, in the same transaction) are durable. Only then does a driver acknowledge to
its device, or move on.

Cursors are opaque to everyone but the driver that wrote them, and always overlap: the agent's dedupe
makes a repeat harmless, a gap is not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from device_drivers.events import DeviceEvent


class Feature(StrEnum):
    """What a device can do, as measured on it."""

    PUNCHES = "punches"
    LIVE = "live"
    CLOCK = "clock"
    USERS = "users"
    CARDS = "cards"
    PINS = "pins"
    FINGER_TEMPLATES = "finger_templates"
    FACE_TEMPLATES = "face_templates"
    OPEN_DOOR = "open_door"
    DOOR_MODES = "door_modes"
    SCHEDULES = "schedules"
    CLEAR_LOG = "clear_log"
    REBOOT = "reboot"
    FINGER_IMAGES = "finger_images"
    KEYPAD = "keypad"
    FEEDBACK = "feedback"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a device says it is."""

    vendor: str
    model: str
    serial: str
    firmware: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Measured features and limits; None means the device does not say."""

    features: frozenset[Feature]
    max_users: int | None = None
    max_records: int | None = None
    max_finger_templates: int | None = None
    max_face_templates: int | None = None
    finger_algorithm: str | None = None  # templates move only between equal algorithms, e.g. "zk-finger-10"
    face_algorithm: str | None = None
    doors: int = 0
    users: int | None = None  # now stored
    records: int | None = None  # now stored


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """What a driver needs to reach one device. `serial` empty means: learn it, then pin it."""

    name: str
    kind: str  # a key of catalog.DRIVERS
    address: str = ""  # "host:port", "/dev/ttyUSB0", "rtsp://...", a folder; by kind
    serial: str = ""
    password: str = field(default="", repr=False)  # comm key, digest password, SCBK: by kind
    username: str = ""
    timezone: str = "UTC"  # the zone the device's clock is set to
    encoding: str = ""  # code page of names on the device; empty: the driver's default
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceUser:
    """A person as a device knows them: the device's own number, never our subject id."""

    user_id: str
    name: str = field(default="", repr=False)
    card: str = field(default="", repr=False)
    pin: str = field(default="", repr=False)
    privilege: int = 0  # 0 user, 14 administrator (ZK's numbers; other drivers map)
    enabled: bool = True
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    doors: tuple[int, ...] = ()  # door numbers with access on controllers that decide alone
    schedule: int | None = None  # device's own time profile number, the same at every door
    door_schedules: tuple[tuple[int, int], ...] = ()  # else (door, profile); a door not named here opens at any time

    def at_doors(self, profiles: Mapping[int, int | None]) -> DeviceUser:
        """With access to these doors, each under its time profile or (None) at any time."""
        doors, distinct = tuple(sorted(profiles)), set(profiles.values())
        if len(distinct) <= 1:
            return replace(self, doors=doors, schedule=next(iter(distinct), None), door_schedules=())
        named = tuple((door, number) for door in doors if (number := profiles[door]) is not None)
        return replace(self, doors=doors, schedule=None, door_schedules=named)

    def profile_at(self, door: int) -> int | None:
        return dict(self.door_schedules).get(door, self.schedule)


@dataclass(frozen=True, slots=True)
class DeviceTemplate:
    """A template in the device's own format, opaque to us."""

    user_id: str
    modality: str  # "face" | "fingerprint"
    index: int  # finger 0..9, face slot
    algorithm: str  # "zk-finger-10", "biodata-9-39.3", ...
    payload: bytes = field(repr=False)
    duress: bool = False


@dataclass(frozen=True, slots=True)
class ItemResult:
    """Outcome for one item of a batch; a bad item never stops the others."""

    key: str
    ok: bool
    reason: str = ""


class CommandState(StrEnum):
    QUEUED = "queued"
    SENT = "sent"
    ACCEPTED = "accepted"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"  # sent, and the link broke before an answer: never repeated by itself


@dataclass(frozen=True, slots=True)
class CommandResult:
    state: CommandState
    reason: str = ""
    code: int | None = None


class Record(Protocol):
    """Given by the agent to a driver; returns once everything passed in is durable.

    Records without a `record_no` that are equal in everything are told apart by counting them, anew after each
    call with a cursor. So a log is split between calls, and an overlap starts, only where `device_time` changes.
    """

    async def __call__(self, events: Sequence[DeviceEvent], *, cursor: bytes | None = None) -> None: ...


@runtime_checkable
class Driver(Protocol):
    """Every device. Methods other than `run` may be called while `run` is running."""

    config: DeviceConfig

    async def probe(self) -> Identity:
        """Connect if need be and ask who is there. Raises WrongDevice if the pinned serial differs."""
        ...

    async def capabilities(self) -> Capabilities: ...

    async def run(self, record: Record) -> None:
        """Read backlog and live events until the link breaks (DeviceError) or the task is cancelled."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Terminal(Driver, Protocol):
    """An attendance terminal: keeps users and punches, may match biometrics itself."""

    async def get_time(self) -> datetime: ...
    async def set_time(self, device_time: datetime) -> None: ...
    async def users(self) -> list[DeviceUser]: ...
    async def upsert_users(self, users: Sequence[DeviceUser]) -> list[ItemResult]: ...
    async def delete_users(self, user_ids: Sequence[str]) -> list[ItemResult]: ...
    async def templates(self, user_id: str) -> list[DeviceTemplate]: ...
    async def put_templates(self, templates: Sequence[DeviceTemplate]) -> list[ItemResult]: ...
    async def delete_templates(self, user_id: str, *, modality: str | None = None) -> list[ItemResult]: ...
    async def open_door(self, door: int, *, seconds: float) -> CommandResult: ...


@runtime_checkable
class Warns(Protocol):
    """A driver that works, but for something that a person should know of."""

    @property
    def warning(self) -> str:
        """What is amiss now, or nothing."""
        ...


@runtime_checkable
class SeesLeaves(Protocol):
    """A driver of doors with contacts."""

    @property
    def leaves(self) -> Mapping[int, bool]:
        """Door number -> whether its leaf stands open, as the device said since this connection began; later
        movements are events. A door without a contact is not among them. An empty `record` follows the first word.
        """
        ...


@runtime_checkable
class KeepsLog(Driver, Protocol):
    """A device whose log fills up and is cleared only whole, on the enterprise's order."""

    async def read_log(self) -> bytes:
        """Record the log to its end, through `run`; the cursor that stands for that end."""
        ...

    async def clear_log(self, *, confirmed_through: bytes) -> CommandResult:
        """Delete everything, if the log still ends where this cursor says."""
        ...


class DoorMode(StrEnum):
    CONTROLLED = "controlled"
    LOCKED = "locked"  # normally closed: nothing opens it
    UNLOCKED = "unlocked"  # normally open


@runtime_checkable
class DoorController(Driver, Protocol):
    """A panel with relays, doors numbered from 1. `open_door` is never retried by itself."""

    async def open_door(self, door: int, *, seconds: float) -> CommandResult: ...
    async def set_door_mode(self, door: int, mode: DoorMode) -> CommandResult: ...
    async def get_time(self) -> datetime: ...
    async def set_time(self, device_time: datetime) -> None: ...
    async def users(self) -> list[DeviceUser]: ...
    async def upsert_users(self, users: Sequence[DeviceUser]) -> list[ItemResult]: ...
    async def delete_users(self, user_ids: Sequence[str]) -> list[ItemResult]: ...


@dataclass(frozen=True, slots=True)
class TimeProfile:
    """When a person may pass: up to three spans a day, on some weekdays (0 Monday), between two dates."""

    number: int  # 2..254
    weekdays: frozenset[int]
    spans: tuple[tuple[time, time], ...]
    first_day: date | None = None  # None: since ever
    last_day: date | None = None  # None: for ever
    linked: int = 0  # further spans in another profile; 0: none

    def __post_init__(self) -> None:
        if not 2 <= self.number <= 254 or not (self.linked == 0 or 2 <= self.linked <= 254):
            raise ValueError("time profiles are numbered 2 to 254")
        if self.linked == self.number:
            raise ValueError("a time profile cannot continue in itself")
        if self.first_day and self.last_day and self.last_day < self.first_day:
            raise ValueError("a time profile ends before it starts")
        if len(self.spans) > 3 or any(end <= start for start, end in self.spans):
            raise ValueError("a time profile has at most three spans, each ending after it starts")
        if not self.weekdays <= set(range(7)):
            raise ValueError("weekdays are 0 (Monday) to 6")


@dataclass(frozen=True, slots=True)
class DoorTask:
    """At this time of these days a controller changes a door's mode by itself."""

    door: int
    at: time
    mode: DoorMode
    weekdays: frozenset[int]
    first_day: date | None = None
    last_day: date | None = None


@runtime_checkable
class TimeKeeper(Protocol):
    """A controller that decides by its clock, also while nobody is connected."""

    config: DeviceConfig

    async def get_time(self) -> datetime: ...
    async def set_time(self, device_time: datetime) -> None: ...
    async def time_profiles(self) -> list[TimeProfile]: ...

    async def set_time_profile(self, profile: TimeProfile) -> None:
        """The profile it continues in has to be there. Raises DeviceRefused."""
        ...

    async def set_tasks(self, tasks: Sequence[DoorTask]) -> None:
        """These and no others. Raises DeviceRefused."""
        ...

    async def activate_keypads(self, readers: Collection[int]) -> None:
        """The readers that ask for the PIN of a card that has one; all others do not."""
        ...


class Feedback(StrEnum):
    """What a reader shows the person."""

    GRANTED = "granted"
    DENIED = "denied"
    LOOK_AGAIN = "look_again"
    WAIT = "wait"
    TURN_LEFT = "turn_left"  # the head, to the person's own left
    TURN_RIGHT = "turn_right"


@runtime_checkable
class Reader(Driver, Protocol):
    """A reader that asks and shows: yields CardRead and KeysPressed through `run`."""

    async def feedback(self, reader: int, what: Feedback) -> None: ...


@runtime_checkable
class FingerprintReader(Driver, Protocol):
    """A sensor on the gateway side: yields FingerPresented through `run`."""

    async def capture(self, *, timeout_s: float) -> NDArray[np.uint8]:
        """One grey image, shape (H, W); never written to disk. Raises LinkTimeout if no finger came."""
        ...

    async def lifted(self, *, timeout_s: float) -> None:
        """Return once no finger lies on the sensor: what it shows next is another touch. Raises LinkTimeout."""
        ...


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """One frame, BGR, shape (H, W, 3). `taken_at` is monotonic seconds."""

    pixels: NDArray[np.uint8] = field(repr=False)
    taken_at: float


@runtime_checkable
class Camera(Driver, Protocol):
    """Opened only for a session; the newest frame wins, none is kept."""

    def frames(self) -> AbstractAsyncContextManager[AsyncIterator[VideoFrame]]: ...
