"""People on devices that decide or match by themselves: what should be there against what is there.

The difference is computed from the device's own list, never from our memory of it, so a device that was reset,
replaced or edited by hand comes out right. People whom somebody else put on a device are reported and left alone.
Who would not fit is refused by name before anything is sent, and a bad item never stops the others.

A controller that decides alone gets a person only for doors and times it can keep. Where it keeps times too
(`TimeKeeper`: profiles, tasks, keypads), those are compiled from schedules, holidays and door modes and compared and
written with the people; elsewhere a schedule needs a profile named by hand (`options.profiles`). What cannot be kept
is refused by name and left out, never widened to every hour or to fewer factors. Validity goes by whole days on such
devices: the day on which it begins or ends counts only while it holds, and somebody comes to take the card off.

Cards rest as keyed hashes and PINs as Argon2id, which no device can use. Where the enterprise keeps a device's people
from here (`options.sync`), card numbers and PINs entered from then on are kept a second time, sealed
(`sealed_numbers`); others are told as not known here. A card that the device has already, and that belongs to the
person, stays as it is. PINs are given to controllers whose keypads ask for them, and to nothing else.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from typing import Protocol, runtime_checkable

from device_drivers.devices import Capabilities, DeviceUser, Feature, ItemResult, TimeKeeper, TimeProfile
from device_drivers.errors import DeviceError, DeviceRefused
from edge_agent.credentials import person_of
from edge_agent.database import Database
from edge_agent.delivery.event import utc_text
from edge_agent.policy.access import Person
from edge_agent.policy.controller_times import allowed_spells, asks_pin, mode_spells, not_alone
from edge_agent.policy.rules import EVERY_TIME, Door, Rules
from edge_agent.roster import Roster
from edge_agent.sync_times import Numbering, Schedules, Settings, assign, tasks_of
from templates_store.template import SubjectId

MATCHES = frozenset({Feature.FACE_TEMPLATES, Feature.FINGER_TEMPLATES})  # it checks more than cards by itself
BATCH = 50  # people a request: progress is seen, and a broken link costs little


@runtime_checkable
class Keeper(Protocol):
    """A driver of a device that keeps people: a terminal or a controller."""

    async def capabilities(self) -> Capabilities: ...
    async def users(self) -> list[DeviceUser]: ...
    async def upsert_users(self, users: Sequence[DeviceUser]) -> list[ItemResult]: ...
    async def delete_users(self, user_ids: Sequence[str]) -> list[ItemResult]: ...


@dataclass(frozen=True, slots=True)
class Change:
    """One person who is on the device already, with the names of the fields that differ."""

    user: DeviceUser
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What would change. Nothing was sent."""

    add: tuple[DeviceUser, ...] = ()
    change: tuple[Change, ...] = ()
    remove: tuple[str, ...] = ()  # the device's own numbers
    refused: tuple[ItemResult, ...] = ()
    foreign: tuple[str, ...] = ()  # on the device, not ours: left alone
    unchanged: int = 0
    cards_unknown: tuple[str, ...] = ()  # people whose card number is not known here
    people: Mapping[str, SubjectId] = field(default_factory=dict, repr=False)  # wanted there, by the device's number
    times: Numbering = field(default_factory=Numbering)
    settings: Settings | None = None  # None: the device was told already, or keeps none

    @property
    def empty(self) -> bool:
        return not (self.add or self.change or self.remove or self.times.write or self.settings)

    @property
    def steps(self) -> int:
        people = len(self.add) + len(self.change) + len(self.remove)
        return people + len(self.times.write) + (self.settings is not None)


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a plan, item by item."""

    done: int
    failed: tuple[ItemResult, ...]
    interrupted: str = ""  # why the rest was not tried

    @property
    def complete(self) -> bool:
        return not self.failed and not self.interrupted


@dataclass(frozen=True, slots=True)
class Wanted:
    """Desired people of one device; `refused` could not be expressed there."""

    users: tuple[DeviceUser, ...]
    refused: tuple[ItemResult, ...] = field(default=())
    cards_unknown: tuple[str, ...] = ()
    people: Mapping[str, SubjectId] = field(default_factory=dict, repr=False)
    cards: Mapping[str, frozenset[bytes]] = field(default_factory=dict, repr=False)  # digests, by the device's number
    times: Numbering = field(default_factory=Numbering)


@dataclass(frozen=True, slots=True)
class Keeping:
    """One device, as far as it decides by itself."""

    by_card: bool
    decides: bool  # who may pass which door is its matter
    keeps_times: bool
    profiles: Mapping[str, int]  # named by hand: schedule -> number
    doors: tuple[Door, ...] = ()  # those it may be left alone with
    found: tuple[TimeProfile, ...] = ()
    users: tuple[DeviceUser, ...] = ()


@dataclass(frozen=True, slots=True)
class Entitled:
    """Somebody who belongs on a device, with the schedules of each door there."""

    name: str = field(repr=False)
    number: str  # the device's own
    person: Person
    doors: tuple[tuple[Door, Schedules], ...]  # no schedules: at any time


Progress = Callable[[int, int], Awaitable[None]]


def compare(
    wanted: Wanted,
    found: Sequence[DeviceUser],
    able: Capabilities,
    *,
    ours: Callable[[str], bool],
    by_card: bool,
) -> Plan:
    """The difference. `ours(key)`: did we put it there; `by_card`: the device knows people by card number."""

    def key_of(user: DeviceUser) -> str:
        return _plain(user.card) if by_card else user.user_id

    there = {key_of(user): user for user in found}
    here = {key_of(user): user for user in wanted.users}
    remove = tuple(user.user_id for key, user in there.items() if key not in here and ours(key))
    foreign = tuple(user.user_id for key, user in there.items() if key not in here and not ours(key))
    change, unchanged = [], 0
    for key, user in here.items():
        if key in there:
            differing = differences(user, there[key], able, by_card=by_card)
            if differing:
                # What is set at the device alone stays: a PIN, an administrator's rights at the menu.
                old = there[key]
                pin = user.pin if Feature.KEYPAD in able.features else user.pin or old.pin
                kept = replace(user, user_id=old.user_id, pin=pin, privilege=old.privilege)
                change.append(Change(kept, differing))
            else:
                unchanged += 1
    new = [user for key, user in here.items() if key not in there]
    room = len(new)
    if able.max_users is not None:
        room = max(0, able.max_users - (len(there) - len(remove)))
    full = tuple(
        ItemResult(user.user_id, ok=False, reason=f"the device is full: it holds {able.max_users} people")
        for user in new[room:]
    )
    return Plan(
        tuple(new[:room]),
        tuple(change),
        remove,
        wanted.refused + full,
        foreign,
        unchanged,
        wanted.cards_unknown,
        wanted.people,
        wanted.times,
    )


def differences(wanted: DeviceUser, found: DeviceUser, able: Capabilities, *, by_card: bool) -> tuple[str, ...]:
    """Fields that the device can hold and holds otherwise. What it does not tell back is not compared."""
    differing = []
    if found.name and not wanted.name.startswith(found.name.rstrip("?\ufffd")):  # devices cut long names
        differing.append("name")
    if Feature.CARDS in able.features and not by_card and _plain(wanted.card) != _plain(found.card):
        differing.append("card")
    # A controller with keypads tells its PINs, and one that is missing there lets a card in alone.
    told = Feature.KEYPAD in able.features or bool(found.pin and wanted.pin)
    if Feature.PINS in able.features and told and wanted.pin != found.pin:
        differing.append("pin")
    if wanted.enabled != found.enabled:
        differing.append("enabled")
    if able.doors and sorted(wanted.doors) != sorted(found.doors):
        differing.append("doors")
    if able.doors and Feature.SCHEDULES in able.features and _profiles(wanted) != _profiles(found):
        differing.append("schedule")
    if able.doors and (_day(wanted.valid_from), _day(wanted.valid_until)) != (
        _day(found.valid_from),
        _day(found.valid_until),
    ):
        differing.append("validity")
    return tuple(differing)


class Sync:
    """Desired people of every device, from roster and rules. Plans are made anew each time."""

    def __init__(
        self,
        *,
        database: Database,
        roster: Roster,
        rules: Callable[[], Rules],
        driver: Callable[[str], object | None],
        open_card: Callable[[bytes], str],
        open_pin: Callable[[bytes], str],
        ordered: Callable[[str], bool],
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._roster = roster
        self._rules = rules
        self._driver = driver
        self._open_card = open_card  # for devices that need the number itself
        self._open_pin = open_pin
        self._ordered = ordered  # whether a person's order stands above a door's schedule
        self._now = now
        self._told: dict[str, tuple[object, Settings]] = {}  # by device: which connection was told what

    async def plan(self, device: str, *, by_card: bool, profiles: Mapping[str, int] | None = None) -> Plan:
        """What would change on `device`. `profiles`: schedule -> the device's time profile, where named by hand.

        Raises LookupError if it is not connected or keeps nobody, DeviceError.
        """
        keeper = self._keeper(device)
        able = await keeper.capabilities()
        found = await keeper.users()
        rules = self._rules()
        doors = [door for door in rules.doors.values() if door.device == device]
        if not doors:
            able = replace(able, doors=0)  # it decides about no door of ours: who may pass is not our matter
        keeping = Keeping(by_card, bool(able.doors) or by_card, isinstance(keeper, TimeKeeper), profiles or {})
        refused: list[ItemResult] = []
        if keeping.decides:
            faults = {door: self._not_alone(door, rules, able) for door in doors}
            refused = [ItemResult(door.name, ok=False, reason=why) for door, why in faults.items() if why]
            keeping = replace(keeping, doors=tuple(door for door, why in faults.items() if not why))
        if isinstance(keeper, TimeKeeper):
            keeping = replace(keeping, found=tuple(await keeper.time_profiles()), users=tuple(found))

        def work(connection: sqlite3.Connection) -> tuple[Wanted, set[bytes], set[str]]:
            ours = {d for (d,) in connection.execute("SELECT digest FROM device_people WHERE device = ?", (device,))}
            numbers: set[str] = set()
            if by_card:
                ours |= {digest for (digest,) in connection.execute("SELECT digest FROM cards")}
            else:
                rows = connection.execute("SELECT user_id FROM device_users WHERE device IN (?, '')", (device,))
                numbers = {number for (number,) in rows}
            return self._wanted(connection, device, rules, able, keeping), ours, numbers

        wanted, digests, numbers = await self._database.read(work)
        wanted = self._with_cards_there(wanted, found)
        plan = compare(
            replace(wanted, refused=(*refused, *wanted.refused)),
            found,
            able,
            ours=lambda key: key in numbers or self._roster.card_digest(key) in digests,
            by_card=by_card,
        )
        settings = self._settings(doors, keeping, rules) if keeping.keeps_times else None
        return replace(plan, settings=None if self._told.get(device) == (keeper, settings) else settings)

    async def apply(self, device: str, plan: Plan, *, by_card: bool, progress: Progress | None = None) -> Report:
        """Carry a plan out: removals first, they make room; times and keypads before the cards that rest on them.

        Raises LookupError.
        """
        keeper = self._keeper(device)
        users = [*plan.add, *(change.user for change in plan.change)]
        await self._database.write(lambda c: self._remember(c, device, plan, users, by_card=by_card))
        results: list[ItemResult] = []

        async def told(more: Iterable[ItemResult]) -> None:
            before = len(results)
            results.extend(more)
            if progress is not None and len(results) > before:
                await progress(len(results), plan.steps)

        try:
            for start in range(0, len(plan.remove), BATCH):
                await told(await keeper.delete_users(plan.remove[start : start + BATCH]))
            if isinstance(keeper, TimeKeeper):
                for profile in plan.times.write:
                    await told([await _written(keeper, profile)])
                if plan.settings is not None:
                    self._told.pop(device, None)
                    await keeper.activate_keypads(plan.settings.keypads)
                    await keeper.set_tasks(plan.settings.tasks)
                    self._told[device] = keeper, plan.settings
                    await told([ItemResult(device, ok=True)])
            untold, users = _untold(users, plan.times, results)
            await told(untold)
            for start in range(0, len(users), BATCH):
                await told(await keeper.upsert_users(users[start : start + BATCH]))
        except DeviceError as exc:
            return Report(*_counted(results, plan), interrupted=f"{type(exc).__name__}: {exc}")
        return Report(*_counted(results, plan))

    async def next_change(self) -> datetime:
        """When plans may change although nobody changes anything: midnight, or somebody's validity."""
        now, zone = self._now(), self._rules().zone
        midnight = datetime.combine(now.astimezone(zone).date() + timedelta(days=1), time(), zone)

        def work(connection: sqlite3.Connection) -> str | None:
            found: tuple[str | None] = connection.execute(
                "SELECT min(at) FROM (SELECT valid_from AS at FROM people UNION ALL SELECT valid_until FROM people)"
                " WHERE at > ?",
                (utc_text(now),),
            ).fetchone()
            return found[0]

        validity = await self._database.read(work)
        return min(midnight, datetime.fromisoformat(validity)) if validity else midnight

    def _remember(
        self,
        connection: sqlite3.Connection,
        device: str,
        plan: Plan,
        users: Sequence[DeviceUser],
        *,
        by_card: bool,
    ) -> None:
        """Before anything is sent: whom and which time profiles we put there."""
        keys = [_plain(user.card) if by_card else user.user_id for user in users]
        digests = [(device, self._roster.card_digest(key)) for key in keys]
        connection.executemany("INSERT OR IGNORE INTO device_people VALUES (?, ?)", digests)
        for schedules, numbers in plan.times.chains.items():
            named = json.dumps(sorted(schedules), ensure_ascii=False)
            connection.execute("DELETE FROM device_profiles WHERE device = ? AND schedules = ?", (device, named))
            connection.executemany(
                "INSERT OR REPLACE INTO device_profiles VALUES (?, ?, ?, ?)",
                [(device, n, named, position) for position, n in enumerate(numbers)],
            )

    def _keeper(self, device: str) -> Keeper:
        driver = self._driver(device)
        if isinstance(driver, Keeper):
            return driver
        raise LookupError(f"{device} {'keeps no people' if driver else 'is not connected'}")

    def _not_alone(self, door: Door, rules: Rules, able: Capabilities) -> str:
        if MATCHES & able.features:
            return ""  # how it verifies is set at the device
        fault = not_alone(door, rules, keypad=Feature.KEYPAD in able.features)
        return fault and f"this door is not left to the controller alone: {fault}"

    def _settings(self, doors: Sequence[Door], keeping: Keeping, rules: Rules) -> Settings:
        """Modes by schedule end also while nobody is here: at every door, whoever decides about its cards.

        An order stands above the schedule: while one does, no task may change the door's mode.
        """
        today = self._now().astimezone(rules.zone).date()
        tasks = [
            task
            for door in doors
            if not self._ordered(door.name)
            for task in tasks_of(door, mode_spells(door, rules, today=today))
        ]
        return Settings(tuple(tasks), frozenset(door.relay for door in keeping.doors if asks_pin(door)))

    def _wanted(
        self, connection: sqlite3.Connection, device: str, rules: Rules, able: Capabilities, keeping: Keeping
    ) -> Wanted:
        entitled = self._entitled(connection, device, rules, keeping)
        times = self._times(connection, device, rules, keeping, entitled) if keeping.keeps_times else Numbering()
        users: list[DeviceUser] = []
        refused: list[ItemResult] = []
        unknown: list[str] = []
        people: dict[str, SubjectId] = {}
        digests: dict[str, frozenset[bytes]] = {}
        for each in entitled:
            subject = each.person.subject_id
            plain = DeviceUser("")
            if keeping.decides:
                made = self._doors_of(connection, each, rules, keeping, times, refused)
                if made is None:
                    continue
                plain = made
            held, cards = (
                self._cards(connection, subject) if keeping.by_card or Feature.CARDS in able.features else ([], [])
            )
            if len(cards) < len(held) and (keeping.by_card or not cards):
                unknown.append(subject)
            if keeping.by_card:
                users += [replace(plain, user_id=card, card=card, name=each.name) for card in cards]
            else:
                users.append(replace(plain, user_id=each.number, card=cards[0] if cards else "", name=each.name))
                people[each.number], digests[each.number] = subject, frozenset(held)
        return Wanted(tuple(users), tuple(refused), tuple(unknown), people, digests, times)

    def _entitled(self, connection: sqlite3.Connection, device: str, rules: Rules, keeping: Keeping) -> list[Entitled]:
        now, found = self._now(), []
        for subject, name, number in connection.execute(
            "SELECT p.subject, p.name, (SELECT d.user_id FROM device_users d WHERE d.subject = p.subject"
            " AND d.device IN (?, '') ORDER BY d.device DESC LIMIT 1) FROM people p ORDER BY p.subject",
            (device,),
        ).fetchall():
            person = person_of(connection, subject) if number is not None or keeping.by_card else None
            if person is None or not person.enabled or (person.valid_until is not None and person.valid_until <= now):
                continue
            if not keeping.decides and person.valid_from is not None and person.valid_from > now:
                continue  # attendance terminals keep no dates reliably
            doors = tuple(
                # Any one schedule that holds always makes the others needless.
                (door, frozenset() if EVERY_TIME in schedules else schedules)
                for door in keeping.doors
                if (schedules := frozenset(rules.privileges(person.groups, door.name)))
            )
            if doors or not keeping.decides:
                found.append(Entitled(name, number or "", person, doors))
        return found

    def _times(
        self,
        connection: sqlite3.Connection,
        device: str,
        rules: Rules,
        keeping: Keeping,
        entitled: Sequence[Entitled],
    ) -> Numbering:
        today = self._now().astimezone(rules.zone).date()
        wanted = {schedules for each in entitled for _, schedules in each.doors if schedules}
        ours: dict[Schedules, list[int]] = {}
        for n, named in connection.execute(
            "SELECT number, schedules FROM device_profiles WHERE device = ? ORDER BY schedules, position", (device,)
        ):
            ours.setdefault(frozenset(json.loads(named)), []).append(n)
        return assign(
            {
                schedules: allowed_spells([rules.schedules[name] for name in schedules], rules.calendar, today=today)
                for schedules in wanted
                if _by_hand(schedules, keeping.profiles) is None
            },
            found=keeping.found,
            ours=ours,
            configured=set(keeping.profiles.values()),
            users=keeping.users,
        )

    def _doors_of(
        self,
        connection: sqlite3.Connection,
        each: Entitled,
        rules: Rules,
        keeping: Keeping,
        times: Numbering,
        refused: list[ItemResult],
    ) -> DeviceUser | None:
        """Without number and card yet; None if no door is left. What cannot be kept goes to `refused`."""
        subject, valid = each.person.subject_id, self._valid_days(each.person, rules)
        if valid is None:
            return None
        pin, fault = self._pin(connection, subject) if any(asks_pin(door) for door, _ in each.doors) else ("", "")
        profiles: dict[int, int | None] = {}
        for door, schedules in each.doors:
            by_hand = _by_hand(schedules, keeping.profiles)
            if asks_pin(door) and fault:
                refused.append(ItemResult(subject, ok=False, reason=f"{door.name}: {fault}"))
            elif not schedules:
                profiles[door.relay] = None
            elif by_hand is not None or schedules in times.heads:
                profiles[door.relay] = by_hand if by_hand is not None else times.heads[schedules]
            else:
                refused.append(ItemResult(subject, ok=False, reason=_no_profile(door, schedules, keeping, times)))
        if not keeping.keeps_times and len(set(profiles.values())) > 1:
            names = ", ".join(sorted({name for _, schedules in each.doors for name in schedules}))
            refused.append(ItemResult(subject, ok=False, reason=f"schedules that the device cannot keep: {names}"))
            return None
        first, last = valid
        made = DeviceUser("", pin=pin, valid_from=first, valid_until=last)
        return made.at_doors(profiles) if profiles else None

    def _valid_days(self, person: Person, rules: Rules) -> tuple[datetime | None, datetime | None] | None:
        """First and last day on the device, or None if there is none: days count whole, and none is added.

        The day on which validity begins or ends counts only on that day itself and while it holds: somebody is here
        to take the card off again.
        """
        now = self._now()
        today = datetime.combine(now.astimezone(rules.zone).date(), time())
        first = last = None
        if person.valid_from is not None:
            begins = person.valid_from.astimezone(rules.zone).replace(tzinfo=None)
            first = datetime.combine(begins.date(), time())
            if begins > first and person.valid_from > now:
                first += timedelta(days=1)
        if person.valid_until is not None:
            ends = person.valid_until.astimezone(rules.zone).replace(tzinfo=None)
            last = datetime.combine(ends.date(), time())
            if ends == last or last > today:
                last -= timedelta(days=1)
        return None if first is not None and last is not None and last < first else (first, last)

    def _pin(self, connection: sqlite3.Connection, subject: str) -> tuple[str, str]:
        """The PIN, or why there is none that a controller could ask for."""
        row = connection.execute(
            "SELECT s.sealed FROM pins p LEFT JOIN sealed_pins s ON s.subject = p.subject WHERE p.subject = ?",
            (subject,),
        ).fetchone()
        if row is None:
            return "", "the door asks for a PIN and the person has none"
        if row[0] is None:
            return "", "the PIN is not known here; it has to be set again"
        pin = self._open_pin(row[0])
        if len(pin) > 6 or pin.startswith("0"):
            return "", "the controller keeps PINs of at most 6 digits that do not begin with 0"
        return pin, ""

    def _cards(self, connection: sqlite3.Connection, subject: str) -> tuple[list[bytes], list[str]]:
        """Digests of every card, and the numbers of those that are known here."""
        rows = connection.execute(
            "SELECT c.digest, s.sealed FROM cards c LEFT JOIN sealed_cards s ON s.digest = c.digest"
            " WHERE c.subject = ? ORDER BY c.added_at, c.digest",
            (subject,),
        ).fetchall()
        return [digest for digest, _ in rows], [self._open_card(sealed) for _, sealed in rows if sealed is not None]

    def _with_cards_there(self, wanted: Wanted, found: Sequence[DeviceUser]) -> Wanted:
        """A card on the device that is the person's own stays, whether or not its number is known here."""
        there = {user.user_id: user.card for user in found if user.card}
        users, known = [], set()
        for user in wanted.users:
            card = there.get(user.user_id, "")
            if card and self._roster.card_digest(card) in wanted.cards.get(user.user_id, ()):
                known.add(wanted.people[user.user_id])
                users.append(replace(user, card=card))
            else:
                users.append(user)
        unknown = tuple(subject for subject in wanted.cards_unknown if subject not in known)
        return replace(wanted, users=tuple(users), cards_unknown=unknown)


def _plain(card: str) -> str:
    return card.strip().upper().lstrip("0")


def _day(moment: datetime | None) -> str:
    """Devices keep days; a time of day would differ for ever."""
    return f"{moment:%Y-%m-%d}" if moment else ""


def _counted(results: Sequence[ItemResult], plan: Plan) -> tuple[int, tuple[ItemResult, ...]]:
    failed = tuple(result for result in results if not result.ok)
    return len(results) - len(failed), plan.refused + failed


def _profiles(user: DeviceUser) -> tuple[object, ...]:
    return user.schedule, user.door_schedules


def _by_hand(schedules: Schedules, profiles: Mapping[str, int]) -> int | None:
    """The profile that the enterprise named for exactly this."""
    return profiles.get(next(iter(schedules))) if len(schedules) == 1 else None


def _no_profile(door: Door, schedules: Schedules, keeping: Keeping, times: Numbering) -> str:
    names = ", ".join(sorted(schedules))
    if not keeping.keeps_times:
        return f"{door.name}: schedules that the device cannot keep: {names}"
    return f"{door.name}: the controller has no time profiles left for {names}: {times.lacking[schedules]} too few"


async def _written(keeper: TimeKeeper, profile: TimeProfile) -> ItemResult:
    try:
        await keeper.set_time_profile(profile)
    except DeviceRefused as exc:
        return ItemResult(f"profile:{profile.number}", ok=False, reason=str(exc))
    return ItemResult(f"profile:{profile.number}", ok=True)


def _untold(
    users: Sequence[DeviceUser], times: Numbering, results: Sequence[ItemResult]
) -> tuple[list[ItemResult], list[DeviceUser]]:
    """Who would rest on a time profile that could not be written is not sent; and the others."""
    failed = {result.key for result in results if not result.ok}
    broken = {numbers[0] for numbers in times.chains.values() if any(f"profile:{n}" in failed for n in numbers)}
    untold = [user for user in users if broken & {user.profile_at(door) for door in user.doors}]
    reason = "a time profile it needs could not be written"
    return [ItemResult(user.user_id, ok=False, reason=reason) for user in untold], [
        user for user in users if user not in untold
    ]
