"""The recipients in force: one delivery loop each, following the configuration.

An upstream that leaves the configuration is revoked, durably, before this returns; one that is switched off
only rests, and is owed what happens meanwhile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from edge_agent.config import UPSTREAM_OPTIONS, Upstream
from edge_agent.crew import Crew
from edge_agent.database import Database, utc_now
from edge_agent.delivery.deliver import Delivery, DeliveryHealth
from edge_agent.delivery.outbox import Outbox
from edge_agent.delivery.payload import Recipient
from edge_agent.delivery.sink import Barred, EgressDenied, Sink
from edge_agent.delivery.webhook import WebhookConfig, WebhookSink
from edge_agent.people.roster import Roster


class Upstreams:
    """`derive` gives a key for one use; each pseudonymous recipient gets its own."""

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        roster: Roster,
        *,
        gateway: str,
        tenant: str,
        derive: Callable[[str], bytes],
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._roster = roster
        self._gateway = gateway
        self._tenant = tenant
        self._derive = derive
        self._clock = clock
        self._allowed: frozenset[str] = frozenset()
        self._deliveries: dict[str, Delivery] = {}
        self._crew: Crew[Upstream] = Crew(self._deliver)

    @property
    def health(self) -> dict[str, DeliveryHealth]:
        return {name: delivery.health for name, delivery in self._deliveries.items()}

    async def run(self) -> None:
        """Deliver until cancelled. Storage faults come out."""
        await self._crew.run()

    async def follow(self, upstreams: Iterable[Upstream], *, allowed_hosts: Iterable[str] = ()) -> None:
        """Make these the recipients. Raises nothing for one that cannot be reached: its loop says so."""
        wanted = {upstream.name: upstream for upstream in upstreams}
        self._allowed = frozenset(allowed_hosts)
        for books in await self._outbox.stats():
            if books.sink not in wanted and not books.revoked:
                await self.revoke(books.sink)
        for name, upstream in wanted.items():
            await self._outbox.register(name, mandatory=upstream.mandatory)
        await self._crew.follow({name: upstream for name, upstream in wanted.items() if upstream.enabled})

    async def revoke(self, name: str) -> None:
        """Not one byte more to this recipient."""
        delivery = self._deliveries.pop(name, None)
        if delivery is not None:
            await delivery.revoke()
        else:
            await self._outbox.revoke(name)

    async def reinstate(self, name: str) -> None:
        """A revoked recipient is owed what comes from now on. Raises UnknownSink."""
        await self._outbox.reinstate(name)
        delivery = self._deliveries.get(name)
        if delivery is None or delivery.revoked:  # one that still runs is left alone
            await self._crew.restart(name)

    def nudge(self) -> None:
        """Try every waiting recipient now."""
        for delivery in self._deliveries.values():
            delivery.nudge()

    async def _deliver(self, name: str, upstream: Upstream) -> None:
        key = hashlib.sha256(self._derive(f"pseudonyms/{name}")).digest() if upstream.pseudonymous else None
        delivery = Delivery(
            self._outbox,
            self._sink_or_reason(upstream),
            Recipient(name, frozenset(upstream.fields), pseudonym_key=key),
            gateway=self._gateway,
            tenant=self._tenant,
            database=self._database,
            roster=self._roster,
            mandatory=upstream.mandatory,
            batch=upstream.batch,
            clock=self._clock,
        )
        self._deliveries[name] = delivery
        try:
            await delivery.run()
        finally:
            if self._deliveries.get(name) is delivery:
                del self._deliveries[name]

    def _sink_or_reason(self, upstream: Upstream) -> Sink:
        """A recipient that may not be reached, or lacks its library, keeps its events and says why."""
        try:
            return self._sink(upstream)
        except EgressDenied as exc:
            return Barred(str(exc))
        except ImportError as exc:
            return Barred(f"{exc.name} is not installed; install edge-agent[{upstream.kind}]")
        except ValueError as exc:
            return Barred(f"the configuration cannot be used: {exc}")

    def _sink(self, upstream: Upstream) -> Sink:
        """Brokers' libraries are loaded only where one is configured: they are extras of the package."""
        common: dict[str, Any] = {
            "url": upstream.url,
            "ca_file": upstream.ca_file,
            "client_certificate": upstream.client_certificate,
            "client_key": upstream.client_key,
            "username": upstream.username,
            "password": upstream.password.get_secret_value(),
            "timeout_s": upstream.timeout_s,
            "allowed_hosts": self._allowed or frozenset({urlsplit(upstream.url).hostname or ""}),
        }
        if upstream.kind == "nats":
            from edge_agent.delivery.nats import NatsConfig, NatsSink

            return NatsSink(NatsConfig(**common | _known(upstream)))
        if upstream.kind == "mqtt":
            from edge_agent.delivery.mqtt import MqttConfig, MqttSink

            return MqttSink(MqttConfig(**common | _known(upstream)))
        secret = upstream.secret.get_secret_value().encode()
        return WebhookSink(WebhookConfig(**common, secret=secret), clock=self._clock)


def _known(upstream: Upstream) -> dict[str, str]:
    """Its options, without those that an older version let through."""
    return {key: value for key, value in upstream.options.items() if key in UPSTREAM_OPTIONS.get(upstream.kind, ())}
