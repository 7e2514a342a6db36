"""One loop per recipient: owed -> batch -> ack, whatever upstream does.

One batch is in flight. Unavailable: the same events later, after a jittered, growing pause on the
monotonic clock (or what Retry-After asks). Refused: the batch is halved until the culprit stands alone and
goes to quarantine with upstream's words; everything else moves on. NotAdmitted: as unavailable, with the
longest pause, because a person has to act. Anything else that comes out of a sink is a defect: it is logged
with its traceback and counts as unavailable, because no upstream may end the agent. Storage faults do.

A revocation cuts the request under way, then is made durable; nothing is sent afterwards, restart or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from edge_agent.database import Database, DiskFull, utc_now
from edge_agent.delivery.outbox import Outbox, Revoked, Stored
from edge_agent.delivery.payload import Recipient, cloud_event
from edge_agent.delivery.sink import Message, NotAdmitted, Refused, Sink, Unavailable, UpstreamError
from edge_agent.people.roster import Roster

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0
STORAGE_PAUSE_S = 1.0
LONGEST_ASKED_S = 3600.0  # whatever an upstream asks for: who comes back is not kept waiting for days
CLOSE_TIMEOUT_S = 5.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class DeliveryHealth:
    """How it stands with one recipient."""

    state: str = "starting"  # starting, idle, sending, waiting, not_admitted, revoked
    since: datetime | None = None
    error: str = ""
    failures: int = 0  # in a row
    sent: int = 0  # since the start
    last_success: datetime | None = None


class Pauses:
    """Growing pauses with jitter: half fixed, half random, so that a fleet does not return in step."""

    def __init__(
        self,
        *,
        first_s: float = FIRST_PAUSE_S,
        longest_s: float = LONGEST_PAUSE_S,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._first, self._longest, self._rand = first_s, longest_s, rand
        self.failures = 0

    def reset(self) -> None:
        self.failures = 0

    def next(self, *, at_least_s: float | None = None, longest: bool = False) -> float:
        self.failures += 1
        ceiling = self._longest if longest else min(self._longest, self._first * 2 ** min(self.failures - 1, 30))
        return max(ceiling * (0.5 + self._rand() / 2), min(at_least_s or 0.0, LONGEST_ASKED_S))


class Delivery:
    """Keeps one recipient supplied until cancelled or revoked."""

    def __init__(
        self,
        outbox: Outbox,
        sink: Sink,
        recipient: Recipient,
        *,
        gateway: str,
        tenant: str,
        database: Database | None = None,
        roster: Roster | None = None,
        mandatory: bool = True,
        batch: int = 100,
        clock: Callable[[], datetime] = utc_now,
        pauses: Pauses | None = None,
    ) -> None:
        if "name" in recipient.fields and (database is None or roster is None):
            raise ValueError(f"{recipient.name}: names need a roster")
        self.recipient = recipient
        self.mandatory = mandatory
        self.health = DeliveryHealth()
        self._outbox, self._sink = outbox, sink
        self._gateway, self._tenant = gateway, tenant
        self._database, self._roster = database, roster
        self._batch = batch
        self._clock = clock
        self._pauses = pauses or Pauses()
        self._wake = asyncio.Event()
        self._revoked = False
        self._running: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self.recipient.name

    @property
    def revoked(self) -> bool:
        """It has ended, or ends now."""
        return self._revoked

    async def run(self) -> None:
        """Returns only after a revocation. Raises CommitFailed and sqlite3.Error: storage is fire."""
        await self._outbox.register(self.name, mandatory=self.mandatory)
        self._running = asyncio.current_task()
        try:
            while not self._revoked:
                try:
                    await self._turn()
                except Revoked:
                    self._revoked = True
                except DiskFull as exc:  # an ack could not be kept: upstream gets the batch again
                    self._failed("waiting", str(exc))
                    await self._rest(STORAGE_PAUSE_S)
        except asyncio.CancelledError:
            if not self._revoked:
                raise
            if self._running is not None:
                self._running.uncancel()
        finally:
            self._running = None
            await self._close()
        self._enter("revoked")

    async def revoke(self) -> None:
        """Not one byte more: cut what is under way, then make it last over restarts."""
        self._revoked = True
        if self._running is not None:
            self._running.cancel()
        await self._close()
        await self._outbox.revoke(self.name)
        self._enter("revoked")
        log.warning("upstream_revoked sink=%s", self.name)

    def nudge(self) -> None:
        """Try now instead of after the pause."""
        self._wake.set()

    async def _turn(self) -> None:
        if not self.health.failures:
            self._enter("idle")
        owed = await self._outbox.due(self.name, self._batch)
        if not self.health.failures:
            self._enter("sending")
        try:
            await self._send(owed)
        except NotAdmitted as exc:
            self._failed("not_admitted", str(exc))
            await self._rest(self._pauses.next(longest=True))
        except Unavailable as exc:
            self._failed("waiting", str(exc))
            await self._rest(self._pauses.next(at_least_s=exc.retry_after_s))

    async def _send(self, owed: Sequence[Stored]) -> None:
        """Deliver what upstream takes of `owed`, set aside what it refuses. Raises Unavailable."""
        parts = [owed]
        while parts:
            part = parts.pop()
            try:
                await self._hand_over(await self._messages(part))
            except Refused as exc:
                if len(part) > 1:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                    continue
                (culprit,) = part
                await self._outbox.quarantine(self.name, culprit.sequence, reason=str(exc), reply=exc.reply)
                log.warning("event_quarantined sink=%s sequence=%d reason=%s", self.name, culprit.sequence, exc)
            else:
                await self._outbox.ack(self.name, [stored.sequence for stored in part])
                self.health.sent += len(part)
                self.health.last_success = self._clock()
            self._succeeded()

    async def _hand_over(self, messages: Sequence[Message]) -> None:
        """Raises Refused and Unavailable, whatever the sink does."""
        try:
            await self._sink.send(messages)
        except UpstreamError:
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise Unavailable("the connection gave the batch up") from None
        except Exception as exc:
            log.exception("upstream_fault sink=%s", self.name)
            raise Unavailable(f"fault in the sink: {type(exc).__name__}") from exc

    async def _close(self) -> None:
        """A connection that does not let itself be closed keeps nobody from being revoked."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._sink.close()
        except Exception:
            log.exception("upstream_close_fault sink=%s", self.name)

    async def _messages(self, part: Sequence[Stored]) -> list[dict[str, object]]:
        names: dict[str, str] = {}
        if "name" in self.recipient.fields and self._database is not None and self._roster is not None:
            roster, subjects = self._roster, {stored.event.subject for stored in part if stored.event.subject}
            names = await self._database.read(lambda c: roster.names(c, subjects))
        return [
            cloud_event(stored, self.recipient, gateway=self._gateway, tenant=self._tenant, names=names)
            for stored in part
        ]

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    def _enter(self, state: str) -> None:
        if self.health.state != state:
            self.health.state, self.health.since = state, self._clock()

    def _failed(self, state: str, error: str) -> None:
        self._enter(state)
        self.health.failures += 1
        if self.health.failures == 1:
            log.warning("upstream_lost sink=%s state=%s reason=%s", self.name, state, error)
        else:
            log.debug("upstream_retry sink=%s failures=%d reason=%s", self.name, self.health.failures, error)
        self.health.error = error

    def _succeeded(self) -> None:
        if self.health.failures:
            log.info("upstream_back sink=%s after_failures=%d", self.name, self.health.failures)
        self.health.failures, self.health.error = 0, ""
        self._pauses.reset()
        self._enter("sending")
