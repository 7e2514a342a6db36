"""People on devices that decide or match by themselves: what should be there against what is there.

The difference is computed from the device's own list, never from our memory of it, so a device that was reset,
replaced or edited by hand comes out right. People whom somebody else put on a device are reported and left alone.
Who would not fit is refused by name before anything is sent, and a bad item never stops the others.

A controller that decides alone gets a person only for doors and times it can keep: a schedule that has no profile
on the device is left out rather than widened to every hour.

Cards rest as keyed hashes, which no device can use. Where the enterprise keeps a device's people from here
(`options.sync`), card numbers entered from then on are kept a second time, sealed (`card_numbers`); others are told as
not known here. A card that the device has already, and that belongs to the person, stays as it is. PINs rest as
Argon2id and are never given to a device; one that was set there stays.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol, runtime_checkable

from device_drivers.devices import Capabilities, DeviceUser, Feature, ItemResult
from device_drivers.errors import DeviceError
from edge_agent.credentials import person_of
from edge_agent.database import Database
from edge_agent.policy.rules import EVERY_TIME, Rules
from edge_agent.roster import Roster
from templates_store.template import SubjectId

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

    @property
    def empty(self) -> bool:
        return not (self.add or self.change or self.remove)


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
                kept = replace(user, user_id=old.user_id, pin=user.pin or old.pin, privilege=old.privilege)
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
    )


def differences(wanted: DeviceUser, found: DeviceUser, able: Capabilities, *, by_card: bool) -> tuple[str, ...]:
    """Fields that the device can hold and holds otherwise. What it does not tell back is not compared."""
    differing = []
    if found.name and not wanted.name.startswith(found.name.rstrip("?\ufffd")):  # devices cut long names
        differing.append("name")
    if Feature.CARDS in able.features and not by_card and _plain(wanted.card) != _plain(found.card):
        differing.append("card")
    if Feature.PINS in able.features and found.pin and wanted.pin and wanted.pin != found.pin:
        differing.append("pin")
    if wanted.enabled != found.enabled:
        differing.append("enabled")
    if able.doors and sorted(wanted.doors) != sorted(found.doors):
        differing.append("doors")
    if able.doors and Feature.SCHEDULES in able.features and wanted.schedule != found.schedule:
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
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._roster = roster
        self._rules = rules
        self._driver = driver
        self._open_card = open_card  # for devices that need the number itself
        self._now = now

    async def plan(self, device: str, *, by_card: bool, profiles: Mapping[str, int] | None = None) -> Plan:
        """What would change on `device`. `profiles`: schedule -> the device's time profile.

        Raises LookupError if it is not connected or keeps nobody, DeviceError.
        """
        keeper = self._keeper(device)
        able = await keeper.capabilities()
        found = await keeper.users()
        rules = self._rules()

        if not any(door.device == device for door in rules.doors.values()):
            able = replace(able, doors=0)  # it decides about no door of ours: who may pass is not our matter

        def work(connection: sqlite3.Connection) -> tuple[Wanted, set[bytes], set[str]]:
            ours = {d for (d,) in connection.execute("SELECT digest FROM device_people WHERE device = ?", (device,))}
            numbers: set[str] = set()
            if by_card:
                ours |= {digest for (digest,) in connection.execute("SELECT digest FROM cards")}
            else:
                rows = connection.execute("SELECT user_id FROM device_users WHERE device IN (?, '')", (device,))
                numbers = {number for (number,) in rows}
            return self._wanted(connection, device, rules, able, by_card, profiles or {}), ours, numbers

        wanted, digests, numbers = await self._database.read(work)
        wanted = self._with_cards_there(wanted, found)
        return compare(
            wanted,
            found,
            able,
            ours=lambda key: key in numbers or self._roster.card_digest(key) in digests,
            by_card=by_card,
        )

    async def apply(self, device: str, plan: Plan, *, by_card: bool, progress: Progress | None = None) -> Report:
        """Carry a plan out: removals first, they make room. Raises LookupError."""
        keeper = self._keeper(device)
        users = [*plan.add, *(change.user for change in plan.change)]
        keys = [_plain(user.card) if by_card else user.user_id for user in users]
        digests = [(device, self._roster.card_digest(key)) for key in keys]
        await self._database.write(
            lambda c: c.executemany("INSERT OR IGNORE INTO device_people VALUES (?, ?)", digests)
        )
        total, tried, results = len(plan.remove) + len(users), 0, []
        try:
            for start in range(0, len(plan.remove), BATCH):
                results += await keeper.delete_users(plan.remove[start : start + BATCH])
                tried = min(start + BATCH, len(plan.remove))
                if progress is not None:
                    await progress(tried, total)
            for start in range(0, len(users), BATCH):
                results += await keeper.upsert_users(users[start : start + BATCH])
                if progress is not None:
                    await progress(len(plan.remove) + min(start + BATCH, len(users)), total)
        except DeviceError as exc:
            return Report(*_counted(results, plan), interrupted=f"{type(exc).__name__}: {exc}")
        return Report(*_counted(results, plan))

    def _keeper(self, device: str) -> Keeper:
        driver = self._driver(device)
        if isinstance(driver, Keeper):
            return driver
        raise LookupError(f"{device} {'keeps no people' if driver else 'is not connected'}")

    def _wanted(
        self,
        connection: sqlite3.Connection,
        device: str,
        rules: Rules,
        able: Capabilities,
        by_card: bool,
        profiles: Mapping[str, int],
    ) -> Wanted:
        users: list[DeviceUser] = []
        refused: list[ItemResult] = []
        unknown: list[str] = []
        people: dict[str, SubjectId] = {}
        digests: dict[str, frozenset[bytes]] = {}
        for subject, name, number in connection.execute(
            "SELECT p.subject, p.name, (SELECT d.user_id FROM device_users d WHERE d.subject = p.subject"
            " AND d.device IN (?, '') ORDER BY d.device DESC LIMIT 1) FROM people p ORDER BY p.subject",
            (device,),
        ).fetchall():
            if number is None and not by_card:
                continue
            made = self._user(connection, subject, device, rules, profiles, decides=bool(able.doors) or by_card)
            if made is None:
                continue
            if isinstance(made, ItemResult):
                refused.append(made)
                continue
            held, cards = self._cards(connection, subject) if by_card or Feature.CARDS in able.features else ([], [])
            if len(cards) < len(held) and (by_card or not cards):
                unknown.append(subject)
            if by_card:
                users += [replace(made, user_id=card, card=card, name=name) for card in cards]
            else:
                users.append(replace(made, user_id=number, card=cards[0] if cards else "", name=name))
                people[number], digests[number] = SubjectId(subject), frozenset(held)
        return Wanted(tuple(users), tuple(refused), tuple(unknown), people, digests)

    def _user(
        self,
        connection: sqlite3.Connection,
        subject: str,
        device: str,
        rules: Rules,
        profiles: Mapping[str, int],
        *,
        decides: bool,
    ) -> DeviceUser | ItemResult | None:
        """Without number and card yet; None if the person has nothing to do with this device."""
        person = person_of(connection, subject)
        now = self._now()
        if person is None or not person.enabled or (person.valid_until is not None and person.valid_until <= now):
            return None
        if not decides:  # attendance terminals keep no dates reliably
            return DeviceUser("") if person.valid_from is None or person.valid_from <= now else None
        first, last = (
            at and at.astimezone(rules.zone).replace(tzinfo=None) for at in (person.valid_from, person.valid_until)
        )
        plain = DeviceUser("", valid_from=first, valid_until=last)
        doors: dict[int, set[str]] = {}
        for door in rules.doors.values():
            if door.device == device and (schedules := rules.privileges(person.groups, door.name)):
                doors[door.relay] = set(schedules)
        if not doors:
            return None
        # Any one schedule that holds always makes the others needless; else each has to exist on the device.
        needed = {None if EVERY_TIME in schedules else frozenset(schedules) for schedules in doors.values()}
        if needed == {None}:
            return replace(plain, doors=tuple(sorted(doors)))
        (only,) = needed if len(needed) == 1 else (None,)
        if only is None or len(only) > 1 or next(iter(only)) not in profiles:
            names = ", ".join(sorted({name for schedules in doors.values() for name in schedules}))
            return ItemResult(subject, ok=False, reason=f"schedules that the device cannot keep: {names}")
        return replace(plain, doors=tuple(sorted(doors)), schedule=profiles[next(iter(only))])

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
