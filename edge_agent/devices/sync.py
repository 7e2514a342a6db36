"""People on devices that decide or match by themselves: asked what would change, and carried out.

The difference is computed from the device's own list, never from our memory of it, so a device that was reset,
replaced or edited by hand comes out right. People whom somebody else put on a device are reported and left alone.
Who would not fit is refused by name before anything is sent, and a bad item never stops the others. What should be
there is the business of `sync_wanted`, how the two differ that of `sync_compare`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from typing import Protocol, runtime_checkable
from zoneinfo import ZoneInfo

from device_drivers.devices import Capabilities, DeviceUser, ItemResult, TimeKeeper, TimeProfile
from device_drivers.errors import DeviceError, DeviceRefused
from edge_agent.database import Database, utc_text
from edge_agent.devices.sync_compare import Plan, Wanted, compare, plain
from edge_agent.devices.sync_times import Numbering, Settings
from edge_agent.devices.sync_wanted import Desired, Keeping
from edge_agent.people.roster import Roster
from edge_agent.policy.rules import Rules

CLOCK_WRONG = timedelta(seconds=5)
BATCH = 50  # people a request: progress is seen, and a broken link costs little

Progress = Callable[[int, int], Awaitable[None]]


@runtime_checkable
class Keeper(Protocol):
    """A driver of a device that keeps people: a terminal or a controller."""

    async def capabilities(self) -> Capabilities: ...
    async def users(self) -> list[DeviceUser]: ...
    async def upsert_users(self, users: Sequence[DeviceUser]) -> list[ItemResult]: ...
    async def delete_users(self, user_ids: Sequence[str]) -> list[ItemResult]: ...


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a plan, item by item."""

    done: int
    failed: tuple[ItemResult, ...]
    interrupted: str = ""  # why the rest was not tried

    @property
    def complete(self) -> bool:
        return not self.failed and not self.interrupted


class Sync:
    """Desired people of every device, from roster and rules. Plans are made anew each time."""

    def __init__(
        self,
        *,
        database: Database,
        roster: Roster,
        desired: Desired,
        rules: Callable[[], Rules],
        driver: Callable[[str], object | None],
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._roster = roster
        self._desired = desired
        self._rules = rules
        self._driver = driver
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
            faults = {door: self._desired.not_alone(door, rules, able) for door in doors}
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
            return self._desired.wanted(connection, device, rules, able, keeping), ours, numbers

        wanted, digests, numbers = await self._database.read(work)
        wanted = self._desired.with_cards_there(wanted, found)
        plan = compare(
            replace(wanted, refused=(*refused, *wanted.refused)),
            found,
            able,
            ours=lambda key: key in numbers or self._roster.card_digest(key) in digests,
            by_card=by_card,
        )
        if not isinstance(keeper, TimeKeeper):
            return plan
        settings = self._desired.settings(doors, keeping, rules)
        wrong = await keeper.get_time() - self._time_at(keeper)
        return replace(
            plan,
            settings=None if self._told.get(device) == (keeper, settings) else settings,
            clock=wrong if abs(wrong) > CLOCK_WRONG else None,
        )

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
                if plan.clock is not None:
                    await keeper.set_time(self._time_at(keeper))
                    await told([ItemResult(device, ok=True)])
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
        """When plans may change although nobody changes anything: midnight, somebody's validity, summer time."""
        now, zone = self._now(), self._rules().zone
        midnight = datetime.combine(now.astimezone(zone).date() + timedelta(days=1), time(), zone)
        shift = _clocks_change(now, zone)

        def work(connection: sqlite3.Connection) -> str | None:
            found: tuple[str | None] = connection.execute(
                "SELECT min(at) FROM (SELECT valid_from AS at FROM people UNION ALL SELECT valid_until FROM people)"
                " WHERE at > ?",
                (utc_text(now),),
            ).fetchone()
            return found[0]

        validity = await self._database.read(work)
        return min(at for at in (midnight, shift, validity and datetime.fromisoformat(validity)) if at)

    def _time_at(self, keeper: TimeKeeper) -> datetime:
        """What its clock should show: no controller changes to summer time by itself."""
        return self._now().astimezone(ZoneInfo(keeper.config.timezone)).replace(tzinfo=None)

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
        keys = [plain(user.card) if by_card else user.user_id for user in users]
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


def _counted(results: Sequence[ItemResult], plan: Plan) -> tuple[int, tuple[ItemResult, ...]]:
    failed = tuple(result for result in results if not result.ok)
    return len(results) - len(failed), plan.refused + failed


def _clocks_change(now: datetime, zone: ZoneInfo) -> datetime | None:
    """The first full quarter hour within a day from which clocks of `zone` show another offset."""
    quarter = timedelta(minutes=15)
    start = datetime.fromtimestamp(now.timestamp() // quarter.total_seconds() * quarter.total_seconds(), UTC)
    moments = (start + n * quarter for n in range(1, 97))
    offset = now.astimezone(zone).utcoffset()
    return next((at for at in moments if at.astimezone(zone).utcoffset() != offset), None)


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
