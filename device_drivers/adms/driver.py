"""A terminal that calls us, as the agent sees it: made by `AdmsServer.terminal`, alive while the device keeps calling.

Commands wait in the device's queue until it asks for them (every couple of seconds), so every method here takes as
long as the device takes; `command_timeout_s` bounds it. Limits come from what the device says of itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from device_drivers.adms import commands
from device_drivers.adms.codes import UNSUPPORTED_RETURNS
from device_drivers.adms.commands import Dialect
from device_drivers.adms.link import Collection, DeviceLink
from device_drivers.adms.queue import QueuedCommand
from device_drivers.adms.rows import number
from device_drivers.devices import (
    Capabilities,
    CommandResult,
    CommandState,
    DeviceConfig,
    DeviceTemplate,
    DeviceUser,
    Feature,
    Identity,
    ItemResult,
    Record,
)
from device_drivers.errors import DeviceRefused, LinkError, LinkTimeout, Unsupported

SILENCE_S = 180.0  # a terminal polls every few seconds; while it uploads photos it may not
COMMAND_TIMEOUT_S = 60.0
DOOR_TIMEOUT_S = 15.0  # a door that opens later opens for nobody
QUIET_S = 5.0  # rows of a query come within a second of each other
WINDOW = 100  # commands in flight of one batch
CLOCK_TOLERANCE = timedelta(seconds=2)
FINGER, FACE_NEAR_INFRARED, PALM_VEIN, FACE, PALM = 1, 2, 8, 9, 10  # BIODATA types
OLD_FINGERPRINTS = 0
TYPES_OF = {
    "fingerprint": (OLD_FINGERPRINTS, FINGER),
    "face": (FACE_NEAR_INFRARED, FACE),
    "palm": (PALM_VEIN, PALM),
}


def with_access(user: DeviceUser, doors: int, zone: int) -> DeviceUser:
    """Time zone 1 is the panel's own "always"."""
    numbers = tuple(door for door in range(1, 17) if doors >> door - 1 & 1)
    return replace(user, doors=numbers, schedule=zone if zone > 1 else None)


class AdmsTerminal:
    def __init__(self, config: DeviceConfig, *, cursor: bytes | None, link: DeviceLink | None = None) -> None:
        if link is None:
            raise ValueError(f"{config.name}: a terminal that calls us is made by AdmsServer.terminal")
        self.config = config
        self._cursor = cursor
        self._link = link
        options = config.options
        self._silence_s = float(options.get("silence_s", SILENCE_S))
        self._timeout_s = float(options.get("command_timeout_s", COMMAND_TIMEOUT_S))
        self._quiet_s = float(options.get("quiet_s", QUIET_S))

    @property
    def counters(self) -> dict[str, int]:
        """What was recorded, dropped or not understood since the server started."""
        return dict(self._link.counters)

    @property
    def leaves(self) -> dict[int, bool]:
        return self._link.leaves

    async def run(self, record: Record) -> None:
        await self._link.run(record, cursor=self._cursor, silence_s=self._silence_s)

    async def close(self) -> None:
        """Nothing to close: the device connects to us."""

    async def probe(self) -> Identity:
        """From what the device said so far, once it calls. Asking it more would keep its uploads waiting."""
        session = self._link.session
        await self._link.calling(self._silence_s)
        options, info = session.options, session.info
        firmware = options.get("FirmVer") or options.get("FWVersion") or (info.firmware if info else "")
        return Identity("ZKTeco", options.get("DeviceName", ""), session.serial, firmware)

    async def capabilities(self) -> Capabilities:
        await self._introduced()
        session = self._link.session
        options, info = session.options, session.info
        security = session.words is Dialect.SECURITY
        features = {
            Feature.PUNCHES, Feature.LIVE, Feature.USERS, Feature.CARDS, Feature.PINS, Feature.CLEAR_LOG,
            Feature.REBOOT, Feature.OPEN_DOOR,
        }  # fmt: skip
        if options.get("LockCount") == "0":
            features.discard(Feature.OPEN_DOOR)
        if security:
            features.add(Feature.CLOCK)
        algorithms = self._algorithms()
        finger = next((a for a in sorted(algorithms) if a.startswith(("biodata-1-", "zk-finger-"))), None)
        face = next((a for a in sorted(algorithms, reverse=True) if a.startswith(("biodata-9-", "biodata-2-"))), None)
        face = face or next((a for a in algorithms if a.startswith("zk-face-")), None)
        if finger:
            features.add(Feature.FINGER_TEMPLATES)
        if face:
            features.add(Feature.FACE_TEMPLATES)
        return Capabilities(
            frozenset(features),
            max_users=self._limit("MaxUserCount", unit=100),
            max_records=self._limit("MaxAttLogCount", unit=10_000),
            max_finger_templates=self._limit("MaxFingerCount", unit=100),
            max_face_templates=self._limit("MaxFaceCount", unit=1),
            finger_algorithm=finger,
            face_algorithm=face,
            doors=number(options.get("LockCount", ""), 1) if security else 0,  # panels alone know who may pass which
            users=self._count("UserCount", info.users if info else None),
            records=self._count("TransactionCount", info.records if info else None),
        )

    async def _introduced(self) -> None:
        """Devices tell their options on connecting; one that connected before we started is asked."""
        session = self._link.session
        if not session.options:
            await self._ask(commands.ask_options(session.words))

    def _limit(self, name: str, *, unit: int) -> int | None:
        """`~Max...` counts in hundreds (users, fingers) or ten thousands (records): a ProBio that says 10 holds 23
        records already. Without the tilde the number is plain (SpeedFace-V5L: MaxUserCount=6000)."""
        options = self._link.session.options
        if value := number(options.get(f"~{name}", "")):
            return value * unit
        return number(options.get(name, "")) or None

    def _count(self, name: str, otherwise: int | None) -> int | None:
        text = self._link.session.options.get(name, "")
        return number(text) if text.isdecimal() else otherwise

    def _algorithms(self) -> set[str]:
        """What the device can take, as it says: `MultiBioVersion` by BIODATA type, older single options besides."""
        options, info = self._link.session.options, self._link.session.info
        found: set[str] = set()
        for kind, version in enumerate(options.get("MultiBioVersion", "").split(":")[:16]):
            major, dot, minor = version.partition(".")
            if number(major) > 0:
                found.add(f"biodata-{kind}-{number(major)}.{number(minor) if dot else 0}-0")
        finger = options.get("FPVersion") or options.get("ZKFPVersion") or (info.finger_version if info else "")
        if number(finger) > 0 and options.get("FingerFunOn") != "0":
            found.add(f"zk-finger-{number(finger)}")
        face = options.get("FaceVersion", "")
        if number(face) > 0 and options.get("FaceFunOn") != "0" and self._link.session.words is Dialect.ATTENDANCE:
            found.add(f"zk-face-{number(face)}")
        return found

    # -- clock -------------------------------------------------------------------------------------------------------

    async def get_time(self) -> datetime:
        """The clock as last heard in an rtstate, carried on.

        Raises Unsupported on terminals that never send one, LinkError on panels that did not yet.
        """
        now = self._link.session.device_time(self._link.clock())
        if now is None and self._link.session.words is Dialect.SECURITY:
            raise LinkError(f"{self.config.name}: the panel has not told its clock yet")
        if now is None:
            raise Unsupported(f"{self.config.name}: this terminal does not tell its clock")
        return now

    async def set_time(self, device_time: datetime) -> None:
        """Panels take a command. Attendance terminals follow the `Date` of every answer and their own TimeZone, so
        for them only the right time can be set, and it already is."""
        session = self._link.session
        if session.words is Dialect.SECURITY:
            await self._ask(commands.set_clock(device_time))
            return
        right = self._link.clock().astimezone(session.zone).replace(tzinfo=None)
        if abs(right - device_time) > CLOCK_TOLERANCE:
            raise Unsupported(f"{self.config.name}: this terminal takes its time from us and knows no other")

    # -- people ------------------------------------------------------------------------------------------------------

    async def users(self) -> list[DeviceUser]:
        words = self._link.session.words
        found = (await self._query(commands.query_users(words))).users
        if words is Dialect.ATTENDANCE:
            return list(found.values())
        access = (await self._query(commands.query_access())).access
        return [with_access(user, *access.get(user.user_id, (0, 0))) for user in found.values()]

    async def upsert_users(self, users: Sequence[DeviceUser]) -> list[ItemResult]:
        session = self._link.session
        packed = session.options.get("DateFmtFunOn") == "1"
        return await self._batch(
            [(user.user_id, partial(commands.put_user, user, session.words, packed_dates=packed)) for user in users]
        )

    async def delete_users(self, user_ids: Sequence[str]) -> list[ItemResult]:
        words = self._link.session.words
        return await self._batch([(pin, partial(commands.delete_user, pin, words)) for pin in user_ids])

    async def templates(self, user_id: str) -> list[DeviceTemplate]:
        """All kinds the device has an algorithm for."""
        await self._introduced()
        found: dict[tuple[str, int], DeviceTemplate] = {}  # terminals exist that answer every kind with all of them
        for kind in self._kinds():
            text = commands.query_templates(user_id, kind, self._link.session.words)
            try:
                collection = await self._query(text)
            except (DeviceRefused, Unsupported):
                continue  # "no data" and "no such table" look alike; the device's algorithms said it has the table
            found |= {(t.algorithm, t.index): t for t in collection.templates.values() if t.user_id == user_id}
        return list(found.values())

    def _kinds(self) -> list[int]:
        algorithms = self._algorithms()
        kinds = {int(a.split("-")[1]) for a in algorithms if a.startswith("biodata-")}
        if any(a.startswith("zk-finger-") for a in algorithms) and FINGER not in kinds:
            kinds.add(OLD_FINGERPRINTS)
        return sorted(kinds)

    async def put_templates(self, templates: Sequence[DeviceTemplate]) -> list[ItemResult]:
        """Templates of an algorithm or version the device did not name are refused, never sent."""
        await self._introduced()
        accepted = self._algorithms()
        words = self._link.session.words

        def text_of(template: DeviceTemplate) -> list[str]:
            if template.algorithm not in accepted:
                raise ValueError(f"the terminal does not take {template.algorithm}")
            return [commands.put_template(template, words)]

        return await self._batch([(f"{t.user_id}/{t.modality}/{t.index}", partial(text_of, t)) for t in templates])

    async def delete_templates(self, user_id: str, *, modality: str | None = None) -> list[ItemResult]:
        """Asks for every table the device could keep them in; a table it lacks holds none.

        With a face goes the picture it was made of: the terminal would make it anew from that.
        """
        words = self._link.session.words
        wanted = TYPES_OF.get(modality, ()) if modality else tuple(k for kinds in TYPES_OF.values() for k in kinds)
        have = self._kinds()
        kinds = tuple(kind for kind in wanted if kind in have) or wanted
        texts = dict(
            zip((f"biodata-{k}" for k in kinds), commands.delete_templates(user_id, kinds, words), strict=True)
        )
        if modality in {None, "face"}:
            texts |= {text.split()[2].lower(): text for text in commands.delete_face_sources(user_id, words)}
        submit = partial(self._link.submit, deadline_s=self._timeout_s, repeatable=True)
        asked = [(table, await submit(text)) for table, text in texts.items()]  # a silent device costs one deadline
        results = []
        for table, command in asked:
            done = await self._link.settled(command.command_id)
            missing = done.code in UNSUPPORTED_RETURNS or done.code == -1
            ok = done.state is CommandState.DONE or missing
            results.append(ItemResult(f"{user_id}/{table}", ok, "" if ok else done.reason))
        return results

    # -- doors and the rest ------------------------------------------------------------------------------------------

    async def open_door(self, door: int, *, seconds: float) -> CommandResult:
        text = commands.open_door(door, seconds, self._link.session.words)
        done = await self._do(text, repeatable=False, deadline_s=min(DOOR_TIMEOUT_S, self._timeout_s))
        return CommandResult(done.state, done.reason, done.code)

    async def reboot(self) -> CommandResult:
        done = await self._do(commands.reboot(self._link.session.words), repeatable=False)
        return CommandResult(done.state, done.reason, done.code)

    async def clear_log(self) -> CommandResult:
        """Everything or nothing: only after a durable upstream acknowledgement, and only when asked for."""
        done = await self._do(commands.clear_log(self._link.session.words), repeatable=False)
        return CommandResult(done.state, done.reason, done.code)

    async def query_log(self, start: datetime, end: datetime) -> CommandResult:
        """Ask for the records of a period (device-local time); they arrive through `run` like any others."""
        done = await self._do(commands.query_log(start, end, self._link.session.words), repeatable=True)
        if done.state is CommandState.FAILED and done.code == -1:
            return CommandResult(CommandState.DONE, "no records in this period", done.code)
        return CommandResult(done.state, done.reason, done.code)

    # -- commands ----------------------------------------------------------------------------------------------------

    async def _do(self, text: str, *, repeatable: bool, deadline_s: float | None = None) -> QueuedCommand:
        command = await self._link.submit(text, deadline_s=deadline_s or self._timeout_s, repeatable=repeatable)
        return await self._link.settled(command.command_id)

    async def _ask(self, text: str) -> QueuedCommand:
        """A command that must succeed. Raises LinkTimeout, Unsupported or DeviceRefused."""
        return self._require(await self._do(text, repeatable=True))

    def _require(self, done: QueuedCommand) -> QueuedCommand:
        if done.state is CommandState.DONE:
            return done
        if done.code is None:
            raise LinkTimeout(self.config.serial, self._timeout_s)
        if done.code in UNSUPPORTED_RETURNS:
            raise Unsupported(f"{self.config.name}: {done.reason}")
        raise DeviceRefused(f"{self.config.name}: {done.reason}", code=done.code)

    async def _query(self, text: str) -> Collection:
        """Raises LinkTimeout if the rows did not all come."""
        async with self._link.collecting() as collection:
            command = await self._link.submit(text, deadline_s=self._timeout_s, repeatable=True)
            collection.command_id = command.command_id
            done = self._require(await self._link.settled(command.command_id))
            complete = await self._link.all_rows(
                collection, done.code or 0, quiet_s=self._quiet_s, deadline_s=self._timeout_s
            )
        if not complete:
            raise LinkTimeout(self.config.serial, self._timeout_s)
        return collection

    async def _batch(self, items: Sequence[tuple[str, Callable[[], list[str]]]]) -> list[ItemResult]:
        """Each item's commands, a window at a time; a bad item never stops the others."""
        results: list[ItemResult] = []
        for start in range(0, len(items), WINDOW):
            window: list[tuple[str, list[int], str]] = []
            for key, texts in items[start : start + WINDOW]:
                try:
                    ids = [
                        (await self._link.submit(text, deadline_s=self._timeout_s, repeatable=True)).command_id
                        for text in texts()
                    ]
                    window.append((key, ids, ""))
                except ValueError as exc:
                    window.append((key, [], str(exc)))
            for key, ids, reason in window:
                results.append(await self._item(key, ids, reason))
        return results

    async def _item(self, key: str, ids: Sequence[int], reason: str) -> ItemResult:
        for command_id in ids:
            done = await self._link.settled(command_id)
            if done.state is not CommandState.DONE:
                reason = reason or done.reason or done.state
        return ItemResult(key, bool(ids) and not reason, reason)
