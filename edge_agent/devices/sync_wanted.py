"""Who and what should be on a device, as far as it can keep it.

A controller that decides alone gets a person only for doors and times it can keep. Where it keeps times too
(`TimeKeeper`: a clock, profiles, tasks, keypads), those are compiled from schedules, holidays and door modes and
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta

from device_drivers.devices import Capabilities, DeviceUser, Feature, ItemResult, TimeProfile
from edge_agent.devices.sync_compare import Wanted
from edge_agent.devices.sync_times import Numbering, Schedules, Settings, assign, tasks_of
from edge_agent.people.credentials import person_of
from edge_agent.people.roster import Roster
from edge_agent.policy import controller_times
from edge_agent.policy.access import Person
from edge_agent.policy.controller_times import allowed_spells, asks_pin, mode_spells
from edge_agent.policy.rules import EVERY_TIME, Door, Rules
from templates_store.template import SubjectId

MATCHES = frozenset({Feature.FACE_TEMPLATES, Feature.FINGER_TEMPLATES})  # it checks more than cards by itself


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


class Desired:
    """From roster and rules; asked inside a transaction of the caller's."""

    def __init__(
        self,
        *,
        roster: Roster,
        open_card: Callable[[bytes], str],
        open_pin: Callable[[bytes], str],
        ordered: Callable[[str], bool],
        now: Callable[[], datetime],
    ) -> None:
        self._roster = roster
        self._open_card = open_card  # for devices that need the number itself
        self._open_pin = open_pin
        self._ordered = ordered  # whether a person's order stands above a door's schedule
        self._now = now

    def not_alone(self, door: Door, rules: Rules, able: Capabilities) -> str:
        if MATCHES & able.features:
            return ""  # how it verifies is set at the device
        fault = controller_times.not_alone(door, rules, keypad=Feature.KEYPAD in able.features)
        return fault and f"this door is not left to the controller alone: {fault}"

    def settings(self, doors: Sequence[Door], keeping: Keeping, rules: Rules) -> Settings:
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

    def wanted(
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

    def with_cards_there(self, wanted: Wanted, found: Sequence[DeviceUser]) -> Wanted:
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


def _by_hand(schedules: Schedules, profiles: Mapping[str, int]) -> int | None:
    """The profile that the enterprise named for exactly this."""
    return profiles.get(next(iter(schedules))) if len(schedules) == 1 else None


def _no_profile(door: Door, schedules: Schedules, keeping: Keeping, times: Numbering) -> str:
    names = ", ".join(sorted(schedules))
    if not keeping.keeps_times:
        return f"{door.name}: schedules that the device cannot keep: {names}"
    return f"{door.name}: the controller has no time profiles left for {names}: {times.lacking[schedules]} too few"
