from __future__ import annotations

import asyncio
from typing import Any

import pytest

from device_drivers import discovery
from device_drivers.devices import DeviceConfig, Identity
from device_drivers.discovery import FoundDevice, candidates, neighbours, scan
from device_drivers.errors import LinkError
from device_drivers.simulated.zkteco import SimulatedZkTerminal

PANEL = ("192.0.2.7", Identity("ZKTeco", "C3-200", "DGD1", "AC Ver 4.3.4"))
CONTROLLER = ("192.0.2.8:60000", Identity("UHPPOTE", "UT0311-L04", "405419896", "v8.92"))


async def test_only_neighbours_that_answer_on_the_port_are_candidates() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.9", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        found = [address async for address in neighbours(DeviceConfig("gate", "zkteco", f"127.0.0.1:{port}"))]
        assert found == [f"127.0.0.9:{port}"]


async def test_a_terminal_that_speaks_udp_is_found_and_its_session_left_free() -> None:
    async with SimulatedZkTerminal(host="127.0.0.11", comm_key=4711) as terminal:
        port = terminal.address.rpartition(":")[2]
        config = DeviceConfig("gate", "zkteco", f"127.0.0.1:{port}", options={"transport": "udp"})
        assert [address async for address in neighbours(config)] == [terminal.address]
        assert [address async for address in neighbours(config)] == [terminal.address]


@pytest.mark.parametrize(
    "config",
    [DeviceConfig("gate", "osdp", "/dev/ttyUSB0"), DeviceConfig("gate", "zkteco", "terminal.example:4370")],
)
async def test_a_line_and_a_name_have_no_neighbours(config: DeviceConfig) -> None:
    assert [address async for address in neighbours(config)] == []


def answering(monkeypatch: pytest.MonkeyPatch, answers: dict[str, list[tuple[str, Identity]] | LinkError]) -> None:
    """The network's answers to each kind's broadcast."""

    def load(where: str) -> Any:
        kind = next(kind for kind, place in discovery.BROADCASTS.items() if place == where)

        async def discover() -> list[tuple[str, Identity]]:
            answer = answers[kind]
            if isinstance(answer, LinkError):
                raise answer
            return answer

        return discover

    monkeypatch.setattr(discovery, "_load", load)


async def test_a_scan_names_everybody_who_answers_a_broadcast(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, {"c3": [PANEL], "uhppote": [CONTROLLER]})
    assert await scan() == [FoundDevice("c3", *PANEL), FoundDevice("uhppote", *CONTROLLER)]


async def test_a_network_that_takes_no_broadcast_has_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, {"c3": LinkError("Network is unreachable"), "uhppote": [CONTROLLER]})
    assert await scan() == [FoundDevice("uhppote", *CONTROLLER)]


async def test_a_controller_that_moved_is_found_by_its_broadcast(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, {"c3": [], "uhppote": [CONTROLLER, ("192.0.2.9:60000", Identity("", "", "1", ""))]})
    moved = DeviceConfig("gate", "uhppote", "192.0.2.66:60000", serial="405419896")
    assert [address async for address in candidates(moved)] == ["192.0.2.8:60000"]
