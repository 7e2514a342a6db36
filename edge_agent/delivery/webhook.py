"""HTTPS upstream, the default: a POST of a CloudEvents batch, answered 2xx once the receiver holds it all.

Content type `application/cloudevents-batch+json`. Signed as Standard Webhooks says: `webhook-id`,
`webhook-timestamp`, and `webhook-signature: v1,BASE64(HMAC-SHA256(secret, id.timestamp.body))`; the id of
a batch is a hash of its events' ids, so the same batch again carries the same id.

Certificates are verified always; TLS 1.2 is the least. Redirects are not followed and the environment's
proxies not used: events go where the configuration says and nowhere else.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from edge_agent.config import LOOPBACK
from edge_agent.database import utc_now
from edge_agent.delivery.sink import Message, NotAdmitted, Refused, Unavailable, require_listed

CONTENT_TYPE = "application/cloudevents-batch+json"
MAX_REPLY = 2000
MAX_RETRY_AFTER_S = 3600.0
WHOLE_EXCHANGE = 6  # times `timeout_s`, which bounds silence: an answer may trickle without ever being silent
# Answers that say nothing about the batch itself.
TRY_AGAIN = {408, 409, 423, 425, 429}
# Nor these: whoever set up the address or the credentials has to act, no event is at fault.
NOT_ADMITTED = {401, 402, 403, 404, 405, 407, 410, 415, 421, 426}


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    url: str
    secret: bytes = field(default=b"", repr=False)
    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = field(default=None, repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    timeout_s: float = 10.0  # of silence
    allowed_hosts: frozenset[str] = frozenset()  # empty: only the URL's own


def tls_context(
    ca_file: Path | None, client_certificate: Path | None = None, client_key: Path | None = None
) -> ssl.SSLContext:
    """Verifies peers; with a CA file, against it alone. Raises OSError or ssl.SSLError for unusable files."""
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if client_certificate is not None:
        context.load_cert_chain(client_certificate, client_key)
    return context


def batch_id(batch: Sequence[Message]) -> str:
    return hashlib.blake2b("\n".join(message["id"] for message in batch).encode(), digest_size=16).hexdigest()


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def retry_after(value: str | None, *, now: datetime) -> float | None:
    """Seconds, from either form of the header; nonsense is no answer."""
    if not value:
        return None
    try:
        seconds = float(value) if value.strip().isdigit() else (parsedate_to_datetime(value) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


class WebhookSink:
    """One receiver over HTTP/1.1, one connection kept open."""

    def __init__(self, config: WebhookConfig, *, clock: Callable[[], datetime] = utc_now) -> None:
        try:
            url = httpx.URL(config.url)
        except httpx.InvalidURL as exc:
            raise ValueError(str(exc)) from exc
        require_listed(config.url, config.allowed_hosts or frozenset({url.host}))
        if url.scheme != "https" and url.host not in LOOPBACK:
            raise ValueError("a webhook off this machine needs https")
        self._config = config
        self._clock = clock
        self._client: httpx.AsyncClient | None = None
        self._closed = False

    def _connect(self) -> httpx.AsyncClient:
        config = self._config
        # Closing drops what the kernel has not sent yet: after a revocation not one byte more goes out.
        reset_on_close = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            context = tls_context(config.ca_file, config.client_certificate, config.client_key)
        except (OSError, ssl.SSLError) as exc:
            raise NotAdmitted(f"certificate files cannot be used: {exc}") from exc
        return httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                verify=context,
                trust_env=False,
                limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
                socket_options=[reset_on_close, (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            ),
            timeout=config.timeout_s,
            follow_redirects=False,
            trust_env=False,
            auth=(config.username, config.password) if config.username else None,
        )

    async def send(self, batch: Sequence[Message]) -> None:
        if self._closed:
            raise Unavailable("closed")
        if self._client is None:
            self._client = self._connect()
        body = json.dumps(list(batch), ensure_ascii=False, separators=(",", ":")).encode()
        message_id, timestamp = batch_id(batch), int(self._clock().timestamp())
        headers = {
            "content-type": CONTENT_TYPE,
            "user-agent": "edge-agent",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
        }
        if self._config.secret:
            headers["webhook-signature"] = signature(self._config.secret, message_id, timestamp, body)
        whole_s = self._config.timeout_s * WHOLE_EXCHANGE
        try:
            async with (
                asyncio.timeout(whole_s),
                self._client.stream("POST", self._config.url, content=body, headers=headers) as response,
            ):
                reply = await _beginning(response)
        except TimeoutError as exc:
            raise Unavailable(f"no whole answer within {whole_s:g} s") from exc
        except httpx.TimeoutException as exc:
            raise Unavailable(f"no answer within {self._config.timeout_s:g} s") from exc
        except (httpx.HTTPError, OSError) as exc:  # httpx lets some of TLS's errors through as they are
            raise _translated(exc) from exc
        self._judge(response, reply)

    def _judge(self, response: httpx.Response, reply: str) -> None:
        status = response.status_code
        if response.is_success:
            return
        reason = f"HTTP {status}"
        if status in NOT_ADMITTED:
            raise NotAdmitted(f"{reason}: {reply[:200]}")
        if status in TRY_AGAIN or status >= 500 or not response.is_client_error:
            after = retry_after(response.headers.get("retry-after"), now=self._clock().astimezone(UTC))
            raise Unavailable(reason, retry_after_s=after)
        raise Refused(reason, reply=reply)

    async def close(self) -> None:
        self._closed = True
        if self._client is not None:
            await self._client.aclose()


async def _beginning(response: httpx.Response) -> str:
    """As much of the answer as a person will read; the connection is reused only if that was all."""
    kept = b""
    async for piece in response.aiter_raw(MAX_REPLY):
        kept += piece
        if len(kept) >= MAX_REPLY:
            break
    return kept[:MAX_REPLY].decode("utf-8", "replace")


def _translated(exc: Exception) -> Unavailable:
    cause = _root(exc)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return NotAdmitted(f"upstream's certificate: {cause.verify_message}")
    alert = (cause.reason or "") if isinstance(cause, ssl.SSLError) else ""
    if "ALERT" in alert and ("CERTIFICATE" in alert or "UNKNOWN_CA" in alert):
        return NotAdmitted(f"upstream does not take our certificate: {alert}")
    return Unavailable(f"{type(exc).__name__}: {exc}"[:200])


def _root(exc: BaseException) -> BaseException:
    while (cause := exc.__cause__ or exc.__context__) is not None:
        exc = cause
    return exc
