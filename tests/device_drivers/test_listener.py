from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import httpx
import pytest
import trustme

from device_drivers.adms.server import AdmsServer
from device_drivers.listener import listen
from tests.device_drivers.adms.site import Recorder, config, on_a_socket, running


@contextlib.asynccontextmanager
async def raw(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def closed(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(5):
        try:
            while await reader.read(1024):
                pass
        except ConnectionError:
            pass
    return True


async def test_a_head_that_never_ends_costs_its_connection() -> None:
    server = AdmsServer()
    async with (
        running(server.terminal(config()), Recorder()),
        on_a_socket(server, head_timeout_s=0.4) as url,
        raw(url) as (silent, _),
        raw(url) as (slow, writer),
    ):
        writer.write(b"GET /iclock/ping?SN=A1 HTTP/1.1\r\nHost:")
        assert await closed(silent)
        assert await closed(slow)
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"{url}/iclock/ping?SN=A1")).text == "OK"


async def test_a_second_head_on_a_kept_connection_has_a_deadline_too() -> None:
    server = AdmsServer()
    async with (
        running(server.terminal(config()), Recorder()),
        on_a_socket(server, head_timeout_s=0.4) as url,
        raw(url) as (reader, writer),
    ):
        writer.write(b"GET /iclock/ping?SN=A1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in await asyncio.wait_for(reader.read(4096), 5)
        writer.write(b"GET /iclock/pi")
        assert await closed(reader)


async def test_a_body_that_never_ends_is_given_up() -> None:
    server = AdmsServer(body_timeout_s=0.1)
    async with (
        running(server.terminal(config()), Recorder()),
        on_a_socket(server) as url,
        raw(url) as (reader, writer),
    ):
        writer.write(b"POST /iclock/cdata?SN=A1&table=ATTLOG HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nhalf")
        assert b"408" in await asyncio.wait_for(reader.read(4096), 5)
        assert await closed(reader)


async def test_connections_are_bounded_by_source_and_the_places_come_back() -> None:
    server = AdmsServer()
    async with (
        running(server.terminal(config()), Recorder()),
        on_a_socket(server, max_strange_per_source=2) as url,
    ):
        async with raw(url), raw(url), raw(url) as (extra, _):
            assert await closed(extra)
        async with httpx.AsyncClient() as http, asyncio.timeout(5):
            while True:
                try:
                    assert (await http.get(f"{url}/iclock/ping?SN=A1")).text == "OK"
                    break
                except httpx.HTTPError:
                    continue


async def test_a_site_behind_one_address_is_bounded_by_its_strangers_alone() -> None:
    server = AdmsServer()
    hello = b"GET /iclock/ping?SN=A1 HTTP/1.1\r\nHost: x\r\n\r\n"
    async with (
        running(server.terminal(config()), Recorder()),
        on_a_socket(server, max_strange_per_source=2, max_connections=20) as url,
        contextlib.AsyncExitStack() as open_lines,
    ):
        for _ in range(8):  # terminals of ours, each on a connection it keeps
            reader, writer = await open_lines.enter_async_context(raw(url))
            writer.write(hello)
            assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200")
        async with raw(url), raw(url), raw(url) as (one_too_many, _):
            assert await closed(one_too_many)
            writer.write(hello)  # the last of ours goes on speaking
            answer = await asyncio.wait_for(reader.readuntil(b"OK"), 5)
            assert b"200" in answer or b"OK" in answer


async def test_a_claimed_source_is_not_believed() -> None:
    server = AdmsServer()
    pinned = config(addresses=["192.0.2.0/24"])
    async with running(server.terminal(pinned), Recorder()), on_a_socket(server) as url, httpx.AsyncClient() as http:
        claim = {"x-forwarded-for": "192.0.2.7"}
        assert (await http.get(f"{url}/iclock/ping?SN=A1", headers=claim)).status_code == 403


async def test_a_source_of_strangers_is_sent_away_before_it_is_heard() -> None:
    server = AdmsServer()
    async with on_a_socket(server) as url, httpx.AsyncClient() as http:
        statuses: list[int] = []
        with contextlib.suppress(httpx.TransportError):
            for number in range(60):
                statuses += [(await http.get(f"{url}/iclock/ping?SN=X{number}")).status_code]
    assert set(statuses) == {403}
    assert 15 <= len(statuses) <= 40


async def test_speaks_tls_where_the_device_does() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    server = AdmsServer()
    async with (
        running(server.terminal(config()), Recorder()),
        listen(server, host="127.0.0.1", port=0, tls=context) as listening,
        httpx.AsyncClient(verify=trusting) as http,
    ):
        port = listening.sockets[0].getsockname()[1]
        assert (await http.get(f"https://127.0.0.1:{port}/iclock/ping?SN=A1")).text == "OK"


@pytest.mark.parametrize("line", [b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"x" * 40_000])
async def test_what_is_no_http_ends_the_connection_alone(line: bytes) -> None:
    server = AdmsServer()
    async with (
        running(server.terminal(config()), Recorder()),
        on_a_socket(server) as url,
        raw(url) as (reader, writer),
    ):
        writer.write(line)
        assert await closed(reader)
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"{url}/iclock/ping?SN=A1")).text == "OK"
