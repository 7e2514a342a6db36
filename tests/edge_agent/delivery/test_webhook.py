"""The webhook against real servers: TLS, client certificates, signatures, refusals."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from edge_agent.delivery.sink import EgressDenied, NotAdmitted, Refused, Unavailable, require_listed
from edge_agent.delivery.webhook import CONTENT_TYPE, WebhookConfig, WebhookSink, retry_after
from tests.edge_agent.delivery.servers import Authority, RawRecorder, serve

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
BATCH = [{"specversion": "1.0", "id": "a", "data": {"name": "人"}}, {"specversion": "1.0", "id": "b", "data": {}}]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("tls"))


class Receiver:
    """Answers as told, remembers what came."""

    def __init__(self, status: int = 204, headers: dict[str, str] | None = None, body: str = "") -> None:
        self.status, self.headers, self.body = status, headers or {}, body
        self.requests: list[tuple[dict[str, str], bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        self.requests.append((dict(request.headers), await request.body()))
        await Response(self.body, self.status, headers=self.headers)(scope, receive, send)


async def sent(receiver: Receiver, **changes: Any) -> Receiver:
    async with serve(receiver) as port:
        sink = WebhookSink(WebhookConfig(f"http://127.0.0.1:{port}/in", **changes), clock=lambda: NOW)
        try:
            await sink.send(BATCH)
        finally:
            await sink.close()
    return receiver


async def test_posts_a_cloudevents_batch() -> None:
    receiver = await sent(Receiver(202))
    ((headers, body),) = receiver.requests
    assert headers["content-type"] == CONTENT_TYPE
    assert json.loads(body) == BATCH


async def test_signs_id_time_and_body_as_standard_webhooks_says() -> None:
    receiver = await sent(Receiver(), secret=b"s3cret")
    ((headers, body),) = receiver.requests
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(b"s3cret", signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["webhook-timestamp"] == str(int(NOW.timestamp()))


async def test_the_same_batch_carries_the_same_id() -> None:
    first, second = await sent(Receiver()), await sent(Receiver())
    assert first.requests[0][0]["webhook-id"] == second.requests[0][0]["webhook-id"]


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 301, 307])
async def test_answers_that_say_nothing_about_the_batch_mean_later(status: int) -> None:
    with pytest.raises(Unavailable) as caught:
        await sent(Receiver(status, {"location": "http://127.0.0.1:9/"}))
    assert not isinstance(caught.value, NotAdmitted)


@pytest.mark.parametrize("status", [401, 403, 404, 405])
async def test_a_person_has_to_act_on_credentials_and_addresses(status: int) -> None:
    with pytest.raises(NotAdmitted):
        await sent(Receiver(status))


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refusal_brings_the_upstreams_own_words(status: int) -> None:
    with pytest.raises(Refused) as caught:
        await sent(Receiver(status, body="unknown employee " + "x" * 10_000))
    assert caught.value.reply.startswith("unknown employee")
    assert len(caught.value.reply) == 2000


async def test_retry_after_is_passed_on() -> None:
    with pytest.raises(Unavailable) as caught:
        await sent(Receiver(503, {"retry-after": "17"}))
    assert caught.value.retry_after_s == 17


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("120", 120.0),
        ("999999", 3600.0),
        ("9" * 400, 3600.0),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999", None),
        ("Mon, 23 Nov 2026 08:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 07:00:00 GMT", 0.0),
    ],
)
def test_reads_both_forms_of_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, now=NOW) == seconds


async def test_silence_and_a_closed_door_mean_later() -> None:
    async with RawRecorder(reply=b"").serve() as port:
        sink = WebhookSink(WebhookConfig(f"http://127.0.0.1:{port}/", timeout_s=0.05))
        with pytest.raises(Unavailable, match="no answer within"):
            await sink.send(BATCH)
        await sink.close()
    sink = WebhookSink(WebhookConfig(f"http://127.0.0.1:{port}/"))
    with pytest.raises(Unavailable):
        await sink.send(BATCH)
    await sink.close()


async def test_an_answer_that_never_ends_means_later() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nX-Filler: ")
            while True:
                writer.write(b"a")
                await writer.drain()
                await asyncio.sleep(0.01)

    async with await asyncio.start_server(trickle, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        sink = WebhookSink(WebhookConfig(f"http://127.0.0.1:{port}/", timeout_s=0.5))
        for _ in range(2):  # and the connection is given back
            with pytest.raises(Unavailable, match="no whole answer"):
                await sink.send(BATCH)
        await sink.close()


# TLS


async def over_tls(authority: Authority, host: str, action: Callable[[int], Awaitable[None]], **options: Any) -> None:
    async with serve(Receiver(), tls=authority.server(host, **options)) as port:
        await action(port)


async def test_a_verified_server_and_a_client_certificate(authority: Authority) -> None:
    async def action(port: int) -> None:
        config = WebhookConfig(
            f"https://localhost:{port}/",
            ca_file=authority.ca_file,
            client_certificate=authority.client_certificate,
            client_key=authority.client_key,
        )
        sink = WebhookSink(config)
        await sink.send(BATCH)
        await sink.send(BATCH)
        await sink.close()

    await over_tls(authority, "localhost", action, require_client=True)


async def test_without_the_client_certificate_nothing_is_taken(authority: Authority) -> None:
    async def action(port: int) -> None:
        sink = WebhookSink(WebhookConfig(f"https://localhost:{port}/", ca_file=authority.ca_file))
        with pytest.raises(Unavailable):
            await sink.send(BATCH)
        await sink.close()

    await over_tls(authority, "localhost", action, require_client=True)


async def test_a_record_damaged_on_the_way_means_later(authority: Authority) -> None:
    async with serve(Receiver(), tls=authority.server("localhost")) as upstream:

        async def damage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", upstream)

            async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter, *, spoil: bool) -> None:
                with contextlib.suppress(ConnectionError):
                    while data := await source.read(65536):
                        if spoil and b"\x17\x03\x03" in data[:3] and len(data) < 300:  # the answer, a short record
                            data = data[:-1] + bytes([data[-1] ^ 1])
                        target.write(data)
                        await target.drain()
                target.close()

            await asyncio.gather(pump(reader, back, spoil=False), pump(there, writer, spoil=True))

        async with await asyncio.start_server(damage, "127.0.0.1", 0) as proxy:
            port = proxy.sockets[0].getsockname()[1]
            sink = WebhookSink(WebhookConfig(f"https://localhost:{port}/", ca_file=authority.ca_file))
            with pytest.raises(Unavailable):
                await sink.send(BATCH)
            await sink.close()


@pytest.mark.parametrize("case", ["foreign authority", "another name"])
async def test_an_unverified_server_gets_nothing(authority: Authority, tmp_path: Path, case: str) -> None:
    trusted = Authority.make(tmp_path) if case == "foreign authority" else authority
    recorder = RawRecorder()
    host = "localhost" if case == "foreign authority" else "elsewhere.example"
    async with recorder.serve(tls=authority.server(host)) as port:
        sink = WebhookSink(WebhookConfig(f"https://localhost:{port}/", ca_file=trusted.ca_file))
        with pytest.raises(NotAdmitted, match="certificate"):
            await sink.send(BATCH)
        await sink.close()
    assert recorder.received == 0


async def test_unusable_certificate_files_are_named(tmp_path: Path) -> None:
    sink = WebhookSink(WebhookConfig("https://localhost:1/", ca_file=tmp_path / "none.pem"))
    with pytest.raises(NotAdmitted, match="certificate files"):
        await sink.send(BATCH)


# Where events may go


def test_plain_http_stays_on_this_machine() -> None:
    with pytest.raises(ValueError, match="https"):
        WebhookSink(WebhookConfig("http://collector.example.cn/"))


def test_an_endpoint_off_the_list_is_refused_before_any_connection() -> None:
    with pytest.raises(EgressDenied, match=r"collector\.example\.com"):
        WebhookSink(WebhookConfig("https://collector.example.com/", allowed_hosts=frozenset({"*.example.cn"})))


@pytest.mark.parametrize(
    ("url", "allowed", "fine"),
    [
        ("https://a.example.cn/x", "a.example.cn", True),
        ("https://A.Example.CN:8443/x", "a.example.cn", True),
        ("https://a.example.cn:8443/", "a.example.cn:8443", True),
        ("https://a.example.cn:9/", "a.example.cn:8443", False),
        ("https://a.example.cn/", "*.example.cn", True),
        ("https://example.cn/", "*.example.cn", False),
        ("https://evilexample.cn/", "*.example.cn", False),
        ("https://a.example.cn.evil.com/", "*.example.cn", False),
        ("https://a.example.cn@evil.com/", "a.example.cn", False),
        ("https://evil.com/#a.example.cn", "a.example.cn", False),
    ],
)
def test_the_list_of_endpoints(url: str, allowed: str, fine: bool) -> None:
    if fine:
        require_listed(url, frozenset({allowed}))
    else:
        with pytest.raises(EgressDenied):
            require_listed(url, frozenset({allowed}))


async def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = RawRecorder()
    async with proxy.serve() as port:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        await sent(Receiver())
    assert proxy.connections == 0


async def test_closing_cuts_the_request_under_way() -> None:
    recorder = RawRecorder(reply=b"")
    async with recorder.serve() as port:
        sink = WebhookSink(WebhookConfig(f"http://127.0.0.1:{port}/"))
        sending = asyncio.create_task(sink.send(BATCH))
        async with asyncio.timeout(5):
            await recorder.arrived.wait()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await sink.close()
            await recorder.gone.wait()
        before = recorder.received
        with pytest.raises(Unavailable):
            await sink.send(BATCH)
        assert (recorder.received, recorder.connections) == (before, 1)


def test_an_address_that_is_none_is_the_configurations_fault() -> None:
    with pytest.raises(ValueError):
        WebhookSink(WebhookConfig("https://☃.☃/"))


def test_times_are_not_trusted_beyond_an_hour() -> None:
    header = (NOW + timedelta(days=3)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert retry_after(header, now=NOW) == 3600.0
