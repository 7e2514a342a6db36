"""MQTT 5 against a real mosquitto."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import getpass
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from edge_agent.delivery.mqtt import MqttConfig, MqttSink, topic_of
from edge_agent.delivery.sink import EgressDenied, NotAdmitted, Refused, Unavailable
from tests.edge_agent.delivery.brokers import free_port, program, started
from tests.edge_agent.delivery.servers import Authority

V5 = aiomqtt.ProtocolVersion.V5


@contextlib.asynccontextmanager
async def broker(folder: Path, *lines: str) -> AsyncIterator[tuple[int, Any]]:
    port = free_port()
    config = folder / "mosquitto.conf"
    # Started by root it would give up rights and then could not read the test's files.
    told = [f"user {getpass.getuser()}", f"listener {port} 127.0.0.1", *(lines or ("allow_anonymous true",))]
    config.write_text("\n".join(told) + "\n")
    mosquitto = program("mosquitto", why="needs mosquitto (Debian: mosquitto)")
    async with started(mosquitto, "-c", str(config), port=port) as process:
        yield port, process


def message(n: int) -> dict[str, Any]:
    return {"specversion": "1.0", "id": f"id-{n}", "source": "/acme/gw1", "type": "edge-agent.attendance.punch"}


def sink(port: int, **changes: Any) -> MqttSink:
    return MqttSink(MqttConfig(f"mqtt://127.0.0.1:{port}", **({"timeout_s": 5.0} | changes)))


async def test_every_event_reaches_a_subscriber_with_its_type(tmp_path: Path) -> None:
    async with (
        broker(tmp_path) as (port, _),
        aiomqtt.Client("127.0.0.1", port, protocol=V5) as subscriber,
        asyncio.timeout(15),
    ):
        await subscriber.subscribe("events/#", qos=1)
        it = sink(port)
        await it.send([message(n) for n in range(120)])
        await it.close()
        found = []
        async for got in subscriber.messages:
            assert str(got.topic) == "events/acme/gw1/edge-agent/attendance/punch"
            assert getattr(got.properties, "ContentType") == "application/cloudevents+json; charset=utf-8"  # noqa: B009
            found.append(json.loads(bytes(got.payload)))  # type: ignore[arg-type]
            if len(found) == 120:
                break
    assert [m["id"] for m in found] == [f"id-{n}" for n in range(120)]


async def test_without_a_subscriber_nothing_counts_as_delivered(tmp_path: Path) -> None:
    async with broker(tmp_path) as (port, _):
        it = sink(port)
        with pytest.raises(Unavailable, match="nobody subscribes"):
            await it.send([message(1)])
        await it.close()


async def test_a_killed_broker_means_later(tmp_path: Path) -> None:
    async with broker(tmp_path) as (port, process):
        it = sink(port, timeout_s=2.0)
        with pytest.raises(Unavailable):
            await it.send([message(1)])
        process.kill()
        await process.wait()
        with pytest.raises(Unavailable):
            await it.send([message(1)])
        with pytest.raises(Unavailable):
            await it.send([message(1)])
        await it.close()


async def test_a_wrong_password_waits_for_a_person(tmp_path: Path) -> None:
    async with broker(tmp_path, "allow_anonymous false") as (port, _):
        it = sink(port, username="gw1", password="guess")
        with pytest.raises(NotAdmitted):
            await it.send([message(1)])
        await it.close()


async def test_topics_that_may_not_be_written_wait_for_a_person(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic read #\n")
    (tmp_path / "acl").chmod(0o700)
    async with broker(tmp_path, "allow_anonymous true", f"acl_file {tmp_path / 'acl'}") as (port, _):
        it = sink(port)
        with pytest.raises(NotAdmitted, match="0x87"):
            await it.send([message(1)])
        await it.close()


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
async def test_tls_is_verified(tmp_path: Path) -> None:
    ours, foreign = tmp_path / "ours", tmp_path / "foreign"
    ours.mkdir()
    foreign.mkdir()
    authority, other = Authority.make(ours), Authority.make(foreign)
    server = authority.ca.issue_cert("localhost")
    server.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    server.private_key_pem.write_to_path(tmp_path / "server.key")
    lines = ("allow_anonymous true", f"certfile {tmp_path}/server.pem", f"keyfile {tmp_path}/server.key")
    async with broker(tmp_path, *lines) as (port, _):
        trusting = MqttSink(MqttConfig(f"mqtts://localhost:{port}", ca_file=authority.ca_file, timeout_s=5))
        with pytest.raises(Unavailable, match="nobody subscribes"):  # it got through
            await trusting.send([message(1)])
        await trusting.close()
        wary = MqttSink(MqttConfig(f"mqtts://localhost:{port}", ca_file=other.ca_file, timeout_s=5))
        with pytest.raises(NotAdmitted, match=r"(?i)certificate"):
            await wary.send([message(1)])
        await wary.close()
    gc.collect()


async def test_a_closed_sink_sends_nothing(tmp_path: Path) -> None:
    async with broker(tmp_path) as (port, _):
        it = sink(port)
        with pytest.raises(Unavailable, match="nobody"):
            await it.send([message(1)])
        await it.close()
        with pytest.raises(Unavailable, match="closed"):
            await it.send([message(1)])


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ({0x87}, NotAdmitted),
        ({0x10, 0x87}, NotAdmitted),
        ({0x10}, Unavailable),
        ({0x97}, Unavailable),
        ({0x99}, Refused),
        ({0x95}, Refused),
    ],
)
def test_what_a_puback_says_decides(answers: set[int], error: type[Exception]) -> None:
    with pytest.raises(error):
        sink(1)._judge(answers)


def test_topics_hold_no_wildcards() -> None:
    assert topic_of("events", message(1) | {"type": "a.#.+"}) == "events/acme/gw1/a/_/_"


def test_an_endpoint_off_the_list_is_refused() -> None:
    with pytest.raises(EgressDenied):
        MqttSink(MqttConfig("mqtts://elsewhere.example", allowed_hosts=frozenset({"mq.example.cn"})))
