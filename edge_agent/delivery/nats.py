"""NATS JetStream upstream, for fleets (extra `edge-agent[nats]`).

JetStream's own deduplication looks back over a short window, and a gateway may be offline for days. So
every event has a subject of its own, `PREFIX.TENANT.GATEWAY.ID`, in a stream that keeps one message a
subject and refuses a second: `max_msgs_per_subject=1`, `discard=new`, `discard_new_per_subject`. A refused
repeat (error 10077) counts as delivered only if the message stored there is ours.

The server decides when it syncs its disk: by default every two minutes. Set `sync_interval: always` in its
jetstream block, or an acknowledged event can be lost with the server's power.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import DiscardPolicy, StorageType, StreamConfig

from edge_agent.delivery.sink import Message, NotAdmitted, Refused, Unavailable, require_listed
from edge_agent.delivery.webhook import tls_context

MAX_PER_SUBJECT = 10077  # JetStream: "maximum messages per subject exceeded"
TOKEN = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class NatsConfig:
    url: str  # nats://host:port or tls://host:port
    stream: str = "EVENTS"
    prefix: str = "events"
    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = field(default=None, repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    timeout_s: float = 10.0
    make_stream: bool = True  # False: it must be there, made by whoever runs the server
    allowed_hosts: frozenset[str] = frozenset()


def subject_of(prefix: str, message: Message) -> str:
    """Raises Refused for an id that cannot be part of a subject."""
    parts = [*str(message["source"]).strip("/").split("/"), str(message["id"])]
    tokens = [part.replace(".", "_") for part in parts]
    if not all(TOKEN.fullmatch(token) for token in tokens):
        raise Refused("the id cannot be part of a NATS subject")
    return ".".join([prefix, *tokens])


class NatsSink:
    """One connection; a batch is published at once and each acknowledgement awaited."""

    def __init__(self, config: NatsConfig) -> None:
        host = config.url.split("://", 1)[-1].split("@")[-1]
        require_listed(f"nats://{host}", config.allowed_hosts or frozenset({host.split("/")[0].rsplit(":", 1)[0]}))
        self._config = config
        self._nats: Any = None
        self._closed = False
        self._error = ""

    async def send(self, batch: Sequence[Message]) -> None:
        if self._closed:
            raise Unavailable("closed")
        try:
            if self._nats is None or not self._nats.is_connected:
                async with asyncio.timeout(self._config.timeout_s):
                    await self._connect()
            stream = self._nats.jetstream(timeout=self._config.timeout_s)
            results = await asyncio.gather(
                *(self._publish(stream, message) for message in batch), return_exceptions=True
            )
        except (nats.errors.Error, OSError, TimeoutError) as exc:
            await self._cut()
            raise self._translated(exc) from exc
        faults = [self._fault(result) for result in results if isinstance(result, BaseException)]
        if faults:  # what may pass is said before what never will
            raise next((fault for fault in faults if isinstance(fault, Unavailable)), faults[0])

    async def close(self) -> None:
        self._closed = True
        await self._cut()

    async def _connect(self) -> None:
        await self._cut()
        config = self._config
        tls: dict[str, Any] = {}
        try:
            if config.url.startswith("tls://"):
                tls["tls"] = tls_context(config.ca_file, config.client_certificate, config.client_key)
        except (OSError, ssl.SSLError) as exc:
            raise NotAdmitted(f"certificate files cannot be used: {exc}") from exc
        client = Client()
        self._nats = client
        await client.connect(
            config.url,
            allow_reconnect=False,  # pauses and retries are the delivery loop's
            max_reconnect_attempts=1,  # 0 would mean for ever
            reconnect_time_wait=0,
            connect_timeout=int(max(1, config.timeout_s)),
            error_cb=self._on_error,
            user=config.username or None,
            password=config.password or None,
            **tls,
        )
        await self._check_stream(client.jetstream(timeout=config.timeout_s))

    async def _check_stream(self, jetstream: Any) -> None:
        """A stream that would drop or double events is refused before anything is sent."""
        config = self._config
        try:
            found = (await jetstream.stream_info(config.stream)).config
        except nats.js.errors.NotFoundError:
            if not config.make_stream:
                raise NotAdmitted(f"there is no stream {config.stream}") from None
            wanted = StreamConfig(
                name=config.stream,
                subjects=[f"{config.prefix}.>"],
                storage=StorageType.FILE,
                discard=DiscardPolicy.NEW,
                discard_new_per_subject=True,
                max_msgs_per_subject=1,
                allow_direct=True,
            )
            found = (await jetstream.add_stream(wanted)).config
        if found.max_msgs_per_subject != 1 or not found.discard_new_per_subject or found.storage != StorageType.FILE:
            raise NotAdmitted(
                f"stream {config.stream} needs file storage, max_msgs_per_subject=1, discard=new and"
                " discard_new_per_subject"
            )

    async def _publish(self, jetstream: Any, message: Message) -> None:
        subject = subject_of(self._config.prefix, message)
        body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
        try:
            await jetstream.publish(
                subject, body, stream=self._config.stream, headers={"content-type": "application/cloudevents+json"}
            )
        except nats.js.errors.APIError as exc:
            if exc.err_code == MAX_PER_SUBJECT:
                await self._require_ours(jetstream, subject, message)
            elif exc.code is not None and 400 <= exc.code < 500 and exc.code not in {408, 409, 429}:
                raise Refused(f"JetStream {exc.err_code}", reply=str(exc.description)) from exc
            else:
                raise Unavailable(f"JetStream {exc.err_code}: {exc.description}") from exc
        except nats.errors.MaxPayloadError as exc:
            raise Refused("larger than the server takes") from exc

    async def _require_ours(self, jetstream: Any, subject: str, message: Message) -> None:
        stored = await jetstream.get_last_msg(self._config.stream, subject)
        try:
            there = json.loads(stored.data or b"null")
            ours = there["id"] == message["id"] and there["source"] == message["source"]
        except (ValueError, KeyError, TypeError):
            ours = False
        if not ours:
            raise Refused("another message is stored under this event's subject", reply=subject)

    async def _on_error(self, exc: Exception) -> None:
        self._error = f"{type(exc).__name__}: {exc}"[:200]

    def _fault(self, exc: BaseException) -> BaseException:
        """One message's fault; ValueError is an answer that is no JSON.

        nats-py cancels what waits for an answer when its connection ends: nobody cancelled us.
        """
        known = nats.errors.Error | OSError | ValueError | asyncio.CancelledError
        return self._translated(exc) if isinstance(exc, known) else exc

    def _translated(self, exc: BaseException) -> Unavailable:
        said = f"{type(exc).__name__}: {exc} {self._error}".strip()[:300]
        wrong = ("authorization", "permissions violation", "certificate verify failed")
        if isinstance(exc, nats.errors.AuthorizationError | ssl.SSLCertVerificationError) or any(
            word in said.lower() for word in wrong
        ):
            return NotAdmitted(said)
        return Unavailable(said)

    async def _cut(self) -> None:
        client, self._nats = self._nats, None
        if client is None:
            return
        # `close` alone would first flush what is pending; a cut has to drop it, also what the loop still buffers.
        writer = getattr(client._transport, "_bare_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        with contextlib.suppress(nats.errors.Error, OSError):
            await client.close()
