"""The event log of a Hikvision terminal: read behind a position that moves with what is durable, and at each alert.

An alert is a bell: the log is read at once from where we stand, and what it says is recorded, because alerts leave out
numbers, or tell another second than the log, and a punch would count twice. What the log does not hold is taken from
the alert, and so is everything where a model has no log, or one without serial numbers. The position moves over a range
of numbers once the whole range is read, in whatever order its records came.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

from device_drivers.devices import Record
from device_drivers.errors import LinkError, ProtocolError
from device_drivers.events import DoorEvent, Origin, Punch
from device_drivers.isapi import messages
from device_drivers.isapi.client import IsapiClient
from device_drivers.isapi.messages import Json, integer, item, items
from device_drivers.isapi.session import OVERLAP, LogPosition, code, mark

log = logging.getLogger(__name__)

EVENTS = "/ISAPI/AccessControl/AcsEvent"
PAGE = 30
WINDOW = 600  # numbers read before the position moves
LOG_LAGS_S = (0.2, 0.6)  # pauses for a terminal that tells before it writes
SAME_RECORD = timedelta(seconds=3)  # an alert's time and its record's, where no number says that they are one
SAME_NUMBER = timedelta(minutes=1)  # as far apart, one number means one record
STILL_LIVE = timedelta(minutes=1)  # before what just happened
TOLD = 256  # records remembered to know their alerts by
NO_NUMBERS = (
    "the records of this model's log have no serial numbers: what happens while nobody is connected cannot be read"
)

Told = Punch | DoorEvent


class EventLog:
    """One terminal's. `record` is there while somebody receives; `exists` and `by_serial` are what the model can."""

    def __init__(
        self,
        client: IsapiClient,
        *,
        name: str,
        counters: Counter[str],
        serial: Callable[[], str],
        position: LogPosition,
    ) -> None:
        self._client = client
        self._name = name
        self._counters = counters
        self._serial = serial
        self.position = position
        self.record: Record | None = None
        self.exists = True
        self.by_serial = False
        self.numbered = True  # until a record without a number is seen
        self._told: dict[int, Told] = {}  # by the log, on this connection; the latest, by number
        self._claimed: set[int] = set()  # of these, by alerts without a number
        self._one_reader = asyncio.Lock()

    async def heard(self, event: Told, *, now: bool) -> None:
        """An alert; durable on return. `now`: not told again from the terminal's memory, which is the log."""
        if not self.exists or not self.numbered:
            await self.keep([event])
        elif not self._was_told(event):
            await self._read_for(event, now=now)

    async def _read_for(self, event: Told, *, now: bool) -> None:
        number = event.record_no
        for pause in (0.0, *LOG_LAGS_S):
            if pause:
                await self._client.pause(pause)
            await self.read(heard=event)
            if self.numbered and self._was_told(event, number_alone=True):
                return
            if not self.numbered or (number is not None and number <= (self.position.last or 0)):
                break
        self._counters["not_in_the_log"] += 1
        if now or not self.numbered:
            await self.keep([event])

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

    async def keep(self, events: Sequence[Told], position: LogPosition | None = None) -> None:
        """Durable on return, together with the position that is reached with them."""
        if self.record is None:
            raise LinkError(f"{self._name}: nobody receives at the moment")
        reached = position or self.position
        if events or reached != self.position:
            await self.record(events, cursor=reached.cursor())
        if position is not None:
            self.position = position

    async def read(self, *, heard: Told | None = None) -> None:
        """Everything behind the cursor, with an overlap; from the start if this is another log."""
        if not self.exists:
            return
        async with self._one_reader:
            if not self.position.is_of(self._serial()):
                self._begin_anew()
            newest, total = 0, 0
            last, number = self.position.last, heard.record_no if heard else None
            if not self.by_serial or heard is None or last is None or (number or 0) > last + WINDOW:
                found, total = await self._end_of_log(timeReverseOrder=True)
                if found is None:
                    return
                newest = found
            if self.by_serial:
                if await self._read_by_number(newest, total, heard):
                    return
                self.by_serial = False
                log.warning("isapi_no_ranges device=%s: the log is read by position", self._name)
            await self._read_by_position(newest, total, heard)

    def _begin_anew(self) -> None:
        self._counters["log_resets"] += 1
        log.warning("isapi_another_log device=%s: everything is read", self._name)
        self.position = LogPosition()
        self._claimed.clear()

    async def _end_of_log(self, **order: bool) -> tuple[int | None, int]:
        """The number of the first record in this order, and how many there are."""
        document = await self._client.json("POST", EVENTS, messages.search_events(0, 1, search_id=uuid4().hex, **order))
        found = items(document, "AcsEvent", "InfoList")
        if not found:
            return None, 0
        number = integer(found[0].get("serialNo"))
        if number is None and self.numbered:
            log.warning("isapi_log_without_numbers device=%s", self._name)
        self.numbered = number is not None
        return number, max(0, integer(item(document, "AcsEvent", "totalMatches")) or 0)

    async def _read_by_number(self, newest: int, total: int, heard: Told | None) -> bool:
        """Range after range: `newest` is the latest by the terminal's clock, which may not be the highest number.

        False if no range finds anything in a log that has records.
        """
        last, any_found = self.position.last, False
        first = 0 if last is None else max(0, last - OVERLAP)
        end = (max(0, newest - total) if last is None else first) + WINDOW
        while True:
            before = self.position
            found, rest = await self._read_pages(0, heard, beginSerialNo=first, endSerialNo=end)
            another = last is not None and not before.is_in(found)
            await self._keep_read(rest, before if another else before.after(found, serial=self._serial()))
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
            if self.position != before:
                first, end = end + 1, end + WINDOW
            elif end < newest:  # a hole in the numbers, of any width
                first, end = end + 1, newest
            else:
                return any_found

    async def _read_by_position(self, newest: int, total: int, heard: Told | None) -> None:
        """From as far before the end as there are new numbers; all of it if they are not all there."""
        position, start = self.position, 0
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
        await self._keep_read(rest, self.position.after(found, serial=self._serial()))

    async def _read_pages(self, start: int, heard: Told | None, **conditions: int) -> tuple[dict[int, str], list[Told]]:
        """Record what a search finds, but for the last page: with that the position moves.

        The numbers found, with what tells each record from another of that number, and the last page.
        """
        position, found, rest = self.position, dict[int, str](), list[Told]()
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
        await self.keep(page, position)
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
                        f"{self._name}: the log search tells the same {len(found)} records again, {position} of"
                        f" {total} were read"
                    )
                return
            seen |= numbers
            yield [
                messages.event(entry, serial=self._serial(), origin=Origin.BACKLOG, raw=json.dumps(entry).encode())
                for entry in found
            ]
            position += len(found)
            if item(document, "AcsEvent", "responseStatusStrg") != "MORE":
                return


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
