"""A site in memory for flow tests: real database, rules, galleries and flows; small doubles for devices and engines.

Faces and fingers are numbers: a frame filled with the value n shows person n, a value of 0 shows nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from argon2 import PasswordHasher
from numpy.typing import NDArray

from device_drivers.devices import (
    Capabilities,
    CommandResult,
    CommandState,
    DeviceConfig,
    DeviceTemplate,
    DeviceUser,
    DoorMode,
    Feature,
    Feedback,
    Identity,
    ItemResult,
    Record,
    VideoFrame,
)
from device_drivers.errors import LinkError, LinkTimeout
from device_drivers.events import CardRead, FingerPresented, KeysPressed
from edge_agent.attendance import Source
from edge_agent.audit import AuditLog
from edge_agent.biometrics.galleries import Galleries
from edge_agent.biometrics.identification import Identification
from edge_agent.biometrics.sensing import Sensing
from edge_agent.database import Database
from edge_agent.delivery.event import Stored
from edge_agent.delivery.outbox import Outbox
from edge_agent.doors.conclusion import Conclusion
from edge_agent.doors.control import Doors
from edge_agent.doors.passages import Passage
from edge_agent.doors.presence import Presence
from edge_agent.enrolment import Enrolment
from edge_agent.entry import Entry
from edge_agent.erasure import Erasure
from edge_agent.matching.calibration import Calibration, shipped_table
from edge_agent.matching.decision import Targets
from edge_agent.matching.face import FaceEngine, FaceSample
from edge_agent.matching.fingerprint import FingerSample
from edge_agent.matching.outcomes import Refused, SampleFault
from edge_agent.matching.quality import Face, FaceQuality
from edge_agent.people.credentials import Credentials, Rights
from edge_agent.people.roster import Person, Roster
from edge_agent.policy.consent import Act, Terms, require
from edge_agent.policy.rules import AccessRules, Rules
from templates_store.gallery.finger_template import MinutiaeTemplate
from templates_store.gallery.vectors import Metric
from templates_store.keys.keyring import key_file
from templates_store.store import TemplateStore
from templates_store.template import (
    Consent,
    Modality,
    Purpose,
    SubjectId,
    Template,
    TemplateFormat,
    TemplateId,
)

START = datetime(2026, 11, 23, 2, tzinfo=UTC)  # Monday 10:00 in Shanghai
PATIENCE_S = 10.0  # for something that happens at once; only a failing test waits
FACE_PIPELINE = TemplateFormat("test-face/1", 16)
FINGER_PIPELINE = TemplateFormat("test-finger/1")
TERMS = Terms(
    switched_on=frozenset({Modality.FACE, Modality.FINGERPRINT}),
    notice_version="n1",
    templates_days=365,
    assessment="pia-1",
)
RULES: dict[str, Any] = {
    "schedules": {"hours": {"weekly": {"mon-fri": ["08:00-18:00"]}}},
    "zones": [{"name": "hall"}],
    "doors": [{"name": "front", "device": "panel", "zone_to": "hall", "verify": [["card"], ["face"], ["finger"]]}],
    "groups": [{"name": "staff", "grants": [{"doors": ["front"], "schedule": "hours"}]}],
    "points": [
        {
            "name": "gate",
            "door": "front",
            "reader": "reader",
            "fingerprint": "sensor",
            "camera": "camera",
            "close_face": False,
            "session_s": 2,
        }
    ],
}


class Clock:
    """Wall and monotonic time that stand still until somebody moves them."""

    def __init__(self, start: datetime = START) -> None:
        self.at = start
        self.ticks = 0.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.ticks

    def move(self, **delta: float) -> None:
        step = timedelta(**delta)
        self.at += step
        self.ticks += step.total_seconds()


class Device:
    """What every double shares."""

    def __init__(self, name: str) -> None:
        self.config = DeviceConfig(name, "uhppote")
        self.fails: Exception | None = None

    async def probe(self) -> Identity:
        return Identity("test", "double", self.config.name, "1")

    async def capabilities(self) -> Capabilities:
        return Capabilities(frozenset())

    async def run(self, record: Record) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None: ...


class Panel(Device):
    """A door controller that remembers what it was told."""

    def __init__(self, name: str = "panel") -> None:
        super().__init__(name)
        self.opened: list[tuple[int, float]] = []
        self.modes: list[tuple[int, DoorMode]] = []
        self.held: dict[str, Any] = {}
        self.before_open: Callable[[], None] = lambda: None

    async def open_door(self, door: int, *, seconds: float) -> CommandResult:
        self.before_open()
        if self.fails:
            raise self.fails
        self.opened.append((door, seconds))
        return CommandResult(CommandState.DONE)

    async def set_door_mode(self, door: int, mode: DoorMode) -> CommandResult:
        if self.fails:
            raise self.fails
        self.modes.append((door, mode))
        return CommandResult(CommandState.DONE)

    async def get_time(self) -> datetime:
        return START.replace(tzinfo=None)

    async def set_time(self, device_time: datetime) -> None: ...

    async def users(self) -> list[Any]:
        return list(self.held.values())

    async def upsert_users(self, users: Sequence[Any]) -> list[Any]:
        return []

    async def delete_users(self, user_ids: Sequence[str]) -> list[Any]:
        return []


class Terminal(Device):
    """A terminal's memory: people and templates by user number."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.people: dict[str, DeviceUser] = {}
        self.stored: set[tuple[str, str]] = set()  # (user_id, modality)
        self.refuses = ""
        self.capacity: int | None = None
        self.fed: list[DeviceTemplate] = []

    async def capabilities(self) -> Capabilities:
        features = frozenset({Feature.USERS, Feature.CARDS, Feature.PINS, Feature.FINGER_TEMPLATES})
        return Capabilities(features, max_users=self.capacity, users=len(self.people), finger_algorithm="zk-finger-10")

    async def users(self) -> list[DeviceUser]:
        self._link()
        return list(self.people.values())

    async def upsert_users(self, users: Sequence[DeviceUser]) -> list[ItemResult]:
        self._link()
        if self.refuses:
            return [ItemResult(user.user_id, ok=False, reason=self.refuses) for user in users]
        self.people |= {user.user_id: user for user in users}
        return [ItemResult(user.user_id, ok=True) for user in users]

    async def delete_users(self, user_ids: Sequence[str]) -> list[ItemResult]:
        self._link()
        for user_id in user_ids:
            self.people.pop(user_id, None)
        return [ItemResult(user_id, ok=not self.refuses, reason=self.refuses) for user_id in user_ids]

    async def templates(self, user_id: str) -> list[DeviceTemplate]:
        return [template for template in self.fed if template.user_id == user_id]

    async def put_templates(self, templates: Sequence[DeviceTemplate]) -> list[ItemResult]:
        self._link()
        self.fed += templates
        self.stored |= {(template.user_id, template.modality) for template in templates}
        return [ItemResult(f"{template.user_id}/{template.index}", ok=True) for template in templates]

    async def delete_templates(self, user_id: str, *, modality: str | None = None) -> list[ItemResult]:
        self._link()
        if self.refuses:
            return [ItemResult(user_id, ok=False, reason=self.refuses)]
        self.stored = {pair for pair in self.stored if pair[0] != user_id or modality not in (None, pair[1])}
        return [ItemResult(user_id, ok=True)]

    def _link(self) -> None:
        if self.fails:
            raise self.fails


class KeypadReader(Device):
    """A reader that remembers what it showed."""

    def __init__(self, name: str = "reader") -> None:
        super().__init__(name)
        self.shown: asyncio.Queue[Feedback] = asyncio.Queue()

    async def feedback(self, reader: int, what: Feedback) -> None:
        self.shown.put_nowait(what)


class FingerSensor(Device):
    """Holds fingers in a row; the image is an array filled with the person's number."""

    def __init__(self, name: str = "sensor") -> None:
        super().__init__(name)
        self.fingers: list[int] = []
        self.captured: list[NDArray[np.uint8]] = []
        self.lifts = 0
        self.rests = 0  # times that it is still there when asked whether it was lifted

    async def capture(self, *, timeout_s: float) -> NDArray[np.uint8]:
        if not self.fingers:
            raise LinkTimeout(self.config.name, timeout_s)
        image = np.full((64, 64), self.fingers.pop(0), np.uint8)
        self.captured.append(image)
        return image

    async def lifted(self, *, timeout_s: float) -> None:
        if self.rests:
            self.rests -= 1
            raise LinkTimeout(self.config.name, timeout_s)
        self.lifts += 1


class TestCamera(Device):
    """Frames in a row, then nothing until more are put in."""

    __test__ = False

    def __init__(self, name: str = "camera") -> None:
        super().__init__(name)
        self.people: asyncio.Queue[int] = asyncio.Queue()
        self.given: list[NDArray[np.uint8]] = []
        self.openings = 0
        self.open = False
        self.taken_at = 0.0
        self.apart_s = 1.0
        self.before_frame: Callable[[], None] = lambda: None

    def show(self, *people: int) -> None:
        for person in people:
            self.people.put_nowait(person)

    @contextlib.asynccontextmanager
    async def frames(self) -> AsyncIterator[AsyncIterator[VideoFrame]]:
        if self.fails:
            raise self.fails
        self.openings += 1
        self.open = True
        try:
            yield self._frames()
        finally:
            self.open = False

    async def _frames(self) -> AsyncIterator[VideoFrame]:
        while True:
            pixels = np.full((48, 64, 3), await self.people.get(), np.uint8)
            self.given.append(pixels)
            self.before_frame()
            self.taken_at += self.apart_s
            yield VideoFrame(pixels, self.taken_at)


def face_vector(person: int) -> NDArray[np.float32]:
    vector = np.random.default_rng(person).normal(size=FACE_PIPELINE.dimension)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


QUALITY = FaceQuality(**{each.name: 0.5 for each in fields(FaceQuality)})  # nobody here looks at it


def face_of(person: int) -> Face:
    centre = 320.0 + person
    landmarks = np.array(
        [[centre - 40, 100], [centre + 40, 100], [centre, 130], [centre - 30, 160], [centre + 30, 160]]
    )
    return Face((centre - 60, 50, 120, 150), landmarks.astype(np.float32), 0.99)


class NumberFaces:
    """A face engine for frames filled with a number; 255 is a blurred face."""

    format = FACE_PIPELINE
    metric = Metric.COSINE

    def detect(self, frame: NDArray[np.uint8]) -> list[Face]:
        person = int(frame[0, 0, 0])
        return [face_of(person)] if person else []

    def sample(self, frame: NDArray[np.uint8]) -> FaceSample | Refused:
        person = int(frame[0, 0, 0])
        if person == 0:
            return Refused(SampleFault.NO_FACE)
        if person == 255:
            return Refused(SampleFault.BLURRED, 1.0, 3.0)
        return FaceSample(face_vector(person), QUALITY, face_of(person))

    reference = sample


def minutiae_of(person: int) -> MinutiaeTemplate:
    """Forty minutiae that are this person's alone."""
    random = np.random.default_rng(1000 + person)
    spots = np.array([(x, y) for x in range(0, 280, 40) for y in range(0, 280, 40)], np.float32)[:40]
    return MinutiaeTemplate(
        xy=(spots + random.uniform(-14, 14, spots.shape)).astype(np.float32),
        angle=random.uniform(0, 6.28, 40).astype(np.float32),
        quality=np.full(40, 0.9, np.float32),
        kind=np.ones(40, np.uint8),
    )


class NumberFingers:
    """A fingerprint engine for images filled with a number; 255 is a dry finger, 254 too dry for a reference."""

    format = FINGER_PIPELINE

    def sample(self, image: NDArray[np.uint8], *, dpi: float) -> FingerSample | Refused:
        person = int(image[0, 0])
        if person == 255:
            return Refused(SampleFault.FINGER_TOO_DRY)
        doubt = Refused(SampleFault.FINGER_TOO_DRY, 20.0, 40.0) if person == 254 else None
        return FingerSample(minutiae_of(person), FINGER_PIPELINE, 90.0, doubt)


def consent(subject: str, modality: Modality, purpose: Purpose, *, now: datetime = START) -> Consent:
    act = Act(SubjectId(subject), modality, purpose, "n1", now, "ab" * 32, of_age=True)
    return require(act, TERMS, now=now)


def calibration(pipeline: str) -> Calibration:
    """The shipped curve of a real engine; one made up for the doubles."""
    return shipped_table().get(pipeline) or Calibration(
        pipeline, ((0.1, 0.4), (1e-6, 0.5)), 1_000_000, "made up for tests"
    )


@dataclass
class Site:
    """Everything, wired as the agent wires it."""

    database: Database
    outbox: Outbox
    roster: Roster
    credentials: Credentials
    presence: Presence
    doors: Doors
    galleries: Galleries
    sensing: Sensing
    conclusion: Conclusion
    entry: Entry
    clock: Clock
    audit: AuditLog
    store: TemplateStore
    enrolment: Enrolment
    erasure: Erasure
    devices: dict[str, Any]
    terms: Terms = TERMS
    switched_off: set[tuple[str, Modality]] = field(default_factory=set)
    rules: Rules = field(default_factory=lambda: Rules(AccessRules(), zone=ZoneInfo("UTC")))
    passages: asyncio.Queue[Passage] = field(default_factory=asyncio.Queue)
    terminals: dict[str, Terminal] = field(default_factory=dict)  # by serial number; absent is offline
    backups: list[datetime] = field(default_factory=list)
    delivered: bool = True
    disk_full: bool = False  # for backups

    @property
    def panel(self) -> Panel:
        found: Panel = self.devices["panel"]
        return found

    @property
    def reader(self) -> KeypadReader:
        found: KeypadReader = self.devices["reader"]
        return found

    @property
    def camera(self) -> TestCamera:
        found: TestCamera = self.devices["camera"]
        return found

    @property
    def sensor(self) -> FingerSensor:
        found: FingerSensor = self.devices["sensor"]
        return found

    def set_rules(self, document: dict[str, Any], zone: str = "Asia/Shanghai") -> None:
        self.rules = Rules(AccessRules.model_validate(document), zone=ZoneInfo(zone))

    async def add(
        self,
        subject: str,
        *,
        card: str = "",
        number: str = "",
        pin: str = "",
        rights: Rights | None = None,
        valid_until: datetime | None = None,
    ) -> SubjectId:
        hashed = self.roster.hash_pin(pin) if pin else None

        def work(connection: Any) -> None:
            now = self.clock.now()
            self.roster.put(connection, Person(subject, subject.title(), valid_until=valid_until), now=now)
            if card:
                self.roster.add_card(connection, subject, card, now=now)
            if number:
                self.roster.link(connection, subject, number)
            if hashed:
                self.roster.set_pin(connection, subject, hashed, now=now)

        await self.database.write(work)
        await self.credentials.set_rights([SubjectId(subject)], rights or Rights(groups=("staff",)))
        return SubjectId(subject)

    def enrol_face(self, subject: str, person: int, *, purpose: Purpose = Purpose.ACCESS) -> None:
        payload = face_vector(person).astype("<f4").tobytes()
        self._enrol(subject, Modality.FACE, FACE_PIPELINE, payload, purpose, 0)

    def enrol_finger(self, subject: str, person: int, *, purpose: Purpose = Purpose.ACCESS, position: int = 2) -> None:
        payload = minutiae_of(person).encode()
        self._enrol(subject, Modality.FINGERPRINT, FINGER_PIPELINE, payload, purpose, position)

    def _enrol(
        self, subject: str, modality: Modality, kind: TemplateFormat, payload: bytes, purpose: Purpose, position: int
    ) -> None:
        identity = TemplateId(f"{subject}-{modality}-{purpose}-{position}-{self.galleries.count()}")
        template = Template(identity, SubjectId(subject), modality, purpose, kind, payload, position)
        given = consent(subject, modality, purpose, now=self.clock.now())
        since = self.galleries.moment
        self.store.enrol(given, [template])
        assert self.galleries.admit(given, [template], since=since, held=lambda: self.store.holds([template]))

    async def card(self, number: str, *, reader: int = 1, device: str = "reader") -> None:
        await self.entry.take(device, [CardRead(device, reader, number)])

    async def keys(self, digits: str) -> None:
        await self.entry.take("reader", [KeysPressed("reader", 1, digits)])

    async def finger(self, *people: int) -> None:
        self.sensor.fingers.extend(people)
        await self.entry.take("sensor", [FingerPresented("sensor", 1)])

    async def passage(self) -> Passage:
        async with asyncio.timeout(PATIENCE_S):
            return await self.passages.get()

    async def shown(self) -> Feedback:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.shown.get()

    async def events(self, prefix: str = "") -> list[Stored]:
        return await self.outbox.events(type_prefix=prefix or None, limit=1000)

    async def audited(self) -> list[tuple[str, str]]:
        await self.sensing.close()
        return await self.database.read(lambda c: c.execute("SELECT action, object FROM audit ORDER BY seq").fetchall())


@contextlib.asynccontextmanager
async def site(
    folder: Path,
    rules: dict[str, Any] | None = None,
    *,
    unsealed: bool = True,
    face: FaceEngine | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Site]:
    """A running site; its tasks end with the block."""
    clock = clock or Clock()
    database = Database.open(folder / "agent.db", clock=clock.now, free=lambda _: 1 << 40, ballast_bytes=4096)
    roster = Roster(b"k" * 32, hasher=PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    audit = AuditLog(b"a" * 32)
    presence = await database.read(Presence.load)
    galleries = Galleries()
    store = TemplateStore.open(
        folder / "templates.db",
        tenant="t1",
        keys=key_file(folder / "kek") if unsealed else None,
        anchor=folder / "anchor",
        now=clock.now,
    )
    if unsealed:
        for modality in (Modality.FACE, Modality.FINGERPRINT):
            store.set_modality(modality, enabled=True, actor="li")
        galleries.load(store)
    devices: dict[str, Any] = {
        "panel": Panel(),
        "reader": KeypadReader(),
        "sensor": FingerSensor(),
        "camera": TestCamera(),
    }
    found: Site

    doors = Doors(database, presence, rules=lambda: found.rules, driver=devices.get, now=clock.now)
    identification = Identification(
        galleries,
        face=face or NumberFaces(),
        finger=NumberFingers(),  # type: ignore[arg-type]
        calibration=calibration,
        targets=lambda _: Targets(),
    )
    sensing = Sensing(
        database=database,
        audit=audit,
        identification=identification,
        terms=lambda: found.terms,
        sensor_on=lambda device, modality: (device, modality) not in found.switched_off,
        driver=devices.get,
        now=clock.now,
        monotonic=clock.monotonic,
    )
    credentials = Credentials(database, roster)
    passages: asyncio.Queue[Passage] = asyncio.Queue()
    conclusion = Conclusion(
        database=database,
        doors=doors,
        sensing=sensing,
        audit=audit,
        rules=lambda: found.rules,
        source=lambda device: Source(device, timezone="Asia/Shanghai", site="HQ", location=(31.2, 121.5)),
        driver=devices.get,
        now=clock.now,
        watch=passages.put_nowait,
    )
    entry = Entry(
        conclusion=conclusion,
        credentials=credentials,
        sensing=sensing,
        presence=presence,
        rules=lambda: found.rules,
        now=clock.now,
        monotonic=clock.monotonic,
    )

    async def nothing(subject: SubjectId) -> None: ...

    enrolment = Enrolment(
        database=database,
        store=store,
        galleries=galleries,
        identification=identification,
        audit=audit,
        terms=lambda: found.terms,
        sensor_on=lambda device, modality: (device, modality) not in found.switched_off,
        driver=devices.get,
        now=clock.now,
        monotonic=clock.monotonic,
        enrolled=nothing,
    )

    async def backup() -> None:
        if found.disk_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        found.backups.append(clock.now())

    async def delivered() -> bool:
        return found.delivered

    erasure = Erasure(
        database=database,
        store=store,
        galleries=galleries,
        enrolment=enrolment,
        presence=presence,
        roster=roster,
        audit=audit,
        terminal=lambda serial: found.terminals.get(serial),
        device=lambda name: found.terminals.get(name),
        terminals=lambda: ("zk-1", "zk-2"),
        backup=backup,
        delivered=delivered,
        now=clock.now,
    )
    found = Site(
        database,
        Outbox(database, clock=clock.now),
        roster,
        credentials,
        presence,
        doors,
        galleries,
        sensing,
        conclusion,
        entry,
        clock,
        audit,
        store,
        enrolment,
        erasure,
        devices,
        passages=passages,
    )
    found.set_rules(rules or RULES)
    running = asyncio.create_task(entry.run())
    await asyncio.sleep(0)
    try:
        yield found
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await sensing.close()
        await doors.close()
        database.close()
        store.close()


LINK_GONE = LinkError("panel: unplugged")
