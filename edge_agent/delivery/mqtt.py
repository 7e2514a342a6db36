"""MQTT 5 upstream at QoS 1, where the enterprise has a broker (extra `edge-agent[mqtt]`).

One message an event on `PREFIX/TENANT/GATEWAY/TYPE`, payload a CloudEvent. Delivered means the broker's
PUBACK, so the receiver dedupes by event id, and durability is the broker's: mosquitto can lose messages it
has acknowledged when it is killed between two saves. A PUBACK that says nobody subscribes is no delivery;
the event stays until somebody does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_agent.delivery.sink import Message, NotAdmitted, Refused, Unavailable, require_listed
from edge_agent.delivery.webhook import tls_context

NO_SUBSCRIBERS = 0x10  # MQTT 5, table 3-4
NOT_AUTHORIZED = {0x86, 0x87, 0x8C, 0x9C, 0x9D}
LATER = {0x80, 0x83, 0x88, 0x89, 0x91, 0x93, 0x97}
IN_FLIGHT = 50


@dataclass(frozen=True, slots=True)
class MqttConfig:
    url: str  # mqtt://host:port or mqtts://host:port
    prefix: str = "events"
    client_id: str = ""
    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = field(default=None, repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    timeout_s: float = 10.0
    allowed_hosts: frozenset[str] = frozenset()


class _Client(aiomqtt.Client):
    """aiomqtt tells that a PUBACK came, not what it says."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.answers: set[int] = set()
        super().__init__(*args, **options)

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:
        if reason_code.value:
            self.answers.add(reason_code.value)
        super()._on_publish(client, userdata, mid, reason_code, properties)

    def cut(self) -> None:
        """No DISCONNECT, nothing left in the kernel's buffer."""
        line: Any = self._client.socket()
        if line is not None:
            with contextlib.suppress(OSError):
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)


def topic_of(prefix: str, message: Message) -> str:
    kind = str(message["type"]).replace(".", "/")
    return f"{prefix}{message['source']}/{kind}".translate({ord("+"): "_", ord("#"): "_"})


class MqttSink:
    """One session; a batch is published with up to IN_FLIGHT messages waiting for their PUBACK."""

    def __init__(self, config: MqttConfig) -> None:
        parts = urlsplit(config.url)
        require_listed(config.url, config.allowed_hosts or frozenset({parts.hostname or ""}))
        self._config = config
        self._host, self._tls = parts.hostname or "", parts.scheme == "mqtts"
        self._port = parts.port or (8883 if self._tls else 1883)
        self._client: _Client | None = None
        self._closed = False

    async def send(self, batch: Sequence[Message]) -> None:
        if self._closed:
            raise Unavailable("closed")
        try:
            client = self._client or await self._connect()
            client.answers.clear()
            async with asyncio.timeout(self._config.timeout_s):
                await asyncio.gather(*(self._publish(client, message) for message in batch))
        except (aiomqtt.MqttError, OSError, TimeoutError) as exc:
            await self._drop()
            raise self._translated(exc) from exc
        self._judge(client.answers)

    def _judge(self, answers: set[int]) -> None:
        said = ", ".join(f"0x{code:02X}" for code in sorted(answers))
        if answers & NOT_AUTHORIZED:
            raise NotAdmitted(f"PUBACK {said}")
        if NO_SUBSCRIBERS in answers:
            raise Unavailable("nobody subscribes to these topics; the broker would throw the events away")
        if answers & LATER:
            raise Unavailable(f"PUBACK {said}")
        if answers:
            raise Refused(f"PUBACK {said}")

    async def _connect(self) -> _Client:
        config = self._config
        try:
            context = tls_context(config.ca_file, config.client_certificate, config.client_key) if self._tls else None
        except (OSError, ssl.SSLError) as exc:
            raise NotAdmitted(f"certificate files cannot be used: {exc}") from exc
        client = _Client(
            self._host,
            self._port,
            protocol=aiomqtt.ProtocolVersion.V5,
            identifier=config.client_id or None,
            username=config.username or None,
            password=config.password or None,
            tls_context=context,
            timeout=config.timeout_s,
            max_inflight_messages=IN_FLIGHT,
        )
        await client.__aenter__()
        self._client = client
        return client

    async def _publish(self, client: _Client, message: Message) -> None:
        properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ContentType = "application/cloudevents+json; charset=utf-8"
        properties.PayloadFormatIndicator = 1
        body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
        await client.publish(topic_of(self._config.prefix, message), body, qos=1, properties=properties)

    async def close(self) -> None:
        self._closed = True
        await self._drop()

    async def _drop(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        client.cut()
        with contextlib.suppress(aiomqtt.MqttError, OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await client.__aexit__(None, None, None)

    def _translated(self, exc: BaseException) -> Unavailable:
        said = f"{type(exc).__name__}: {exc}"[:300]
        code = getattr(getattr(exc, "rc", None), "value", getattr(exc, "rc", None))
        if code in NOT_AUTHORIZED or "certificate verify failed" in said.lower():
            return NotAdmitted(said)
        return Unavailable(said)
