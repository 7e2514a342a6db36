"""The table of options against what the drivers read, and what it lets through."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import device_drivers
from device_drivers import cameras, catalog, options
from device_drivers.adms import driver as adms
from device_drivers.c3 import driver as c3
from device_drivers.fingerprint_uart import driver as fingerprint_uart
from device_drivers.isapi import client as isapi_client
from device_drivers.isapi import driver as isapi
from device_drivers.options import OPTIONS, faults, missing
from device_drivers.osdp import driver as osdp
from device_drivers.uhppote import driver as uhppote
from device_drivers.zkteco.connection import Timing
from edge_agent.devices.sync_runs import KEEP_PEOPLE

HERE = Path(device_drivers.__file__).parent
OF_THE_AGENT = {"sync", "profiles"}


def read_in(kind: str) -> set[str]:
    """Names looked up in `options`: by `get`, by index, by `in`, and by the helpers that take a name."""
    place = HERE / "cameras.py" if kind == "camera" else HERE / kind
    found: set[str] = set()
    for file in [place] if place.is_file() else place.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr="get", value=of), args=[ast.Constant(value=str(name)), *_]):
                    pass
                case ast.Subscript(value=of, slice=ast.Constant(value=str(name))):
                    pass
                case ast.Call(func=ast.Name(id="_choice"), args=[_, ast.Constant(value=str(name)), *_]):
                    found.add(name)
                    continue
                case _:
                    continue
            said = ast.unparse(of)
            if said in {"options", "config.options", "self.config.options"}:
                found.add(name)
    if kind == "zkteco":
        found |= set(Timing.__dataclass_fields__)
    return found


@pytest.mark.parametrize("kind", catalog.DRIVERS)
def test_what_a_driver_reads_is_in_the_table_and_nothing_else(kind: str) -> None:
    read = {name for name in read_in(kind) if name == name.lower()}  # an ADMS terminal's own are in capitals
    if kind == "camera":
        read |= {"width", "height"}  # looked up in a loop
    assert read == set(OPTIONS[kind]) - OF_THE_AGENT


def test_the_table_has_every_kind_and_people_where_they_are_kept() -> None:
    assert list(OPTIONS) == list(catalog.DRIVERS)
    assert {kind for kind, known in OPTIONS.items() if set(known) >= OF_THE_AGENT} == KEEP_PEOPLE


@pytest.mark.parametrize(
    ("kind", "name", "default"),
    [
        ("adms", "silence_s", adms.SILENCE_S),
        ("adms", "command_timeout_s", adms.COMMAND_TIMEOUT_S),
        ("adms", "quiet_s", adms.QUIET_S),
        ("isapi", "poll_s", isapi.POLL_S),
        ("isapi", "sweep_s", isapi.SWEEP_S),
        ("isapi", "check_s", isapi.CHECK_S),
        ("isapi", "silence_s", isapi_client.STREAM_SILENCE_S),
        ("c3", "poll_s", c3.POLL_S),
        ("c3", "answer_timeout_s", c3.ANSWER_TIMEOUT_S),
        ("uhppote", "poll_s", uhppote.POLL_S),
        ("uhppote", "timeout_s", uhppote.TIMEOUT_S),
        ("osdp", "baud", osdp.BAUD),
        ("fingerprint_uart", "baud", fingerprint_uart.BAUD),
        ("fingerprint_uart", "look_s", fingerprint_uart.LOOK_S),
        ("camera", "fps", cameras.FOLDER_FPS),
        *(("zkteco", name, field.default) for name, field in Timing.__dataclass_fields__.items()),
    ],
)
def test_the_defaults_are_the_drivers_own(kind: str, name: str, default: float) -> None:
    assert OPTIONS[kind][name].default == f"{default:g}"


@pytest.mark.parametrize(
    ("kind", "good"),
    [
        ("zkteco", {"transport": "udp", "user_size": 72, "keepalive_s": 15, "sync": True, "profiles": {"day": 2}}),
        ("adms", {"addresses": ["10.0.0.0/8", "192.0.2.7"]}),
        ("isapi", {"events": "push", "tls": True, "readers": [1, 2], "host_id": 2}),
        ("uhppote", {"listen": "192.0.2.1:60001", "host_decides": True, "contacts": [1, 4]}),
        ("osdp", {"baud": 115200, "pds": [{"address": 1}]}),
        ("fingerprint_uart", {"width": 160, "height": 160, "aura": True}),
        ("camera", {"fps": 0.5}),
    ],
)
def test_good_options_pass(kind: str, good: dict[str, Any]) -> None:
    assert faults(kind, good) == []


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("zkteco", "transport", "tls"),
        ("zkteco", "keepalive_s", True),
        ("zkteco", "keepalive_s", 0),
        ("zkteco", "user_size", 30),
        ("zkteco", "profiles", {"day": True}),
        ("adms", "addresses", ["lobby"]),
        ("adms", "addresses", [10]),
        ("isapi", "tls", "yes"),
        ("isapi", "readers", 1),
        ("isapi", "host_id", True),
        ("uhppote", "contacts", [5]),
        ("uhppote", "contacts", [[1]]),
        ("osdp", "baud", 96.5),
        ("osdp", "pds", ["1"]),
        ("camera", "fps", 0),
        ("camera", "fps", float("nan")),
        ("camera", "fps", float("inf")),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(kind: str, name: str, value: object) -> None:
    [said] = faults(kind, {name: value})
    assert said.startswith(name)
    assert said.endswith(f"allowed is {OPTIONS[kind][name].allowed}")


@pytest.mark.parametrize(
    ("pds", "said"),
    [
        (
            [{"address": 1}, {"address": 2, "ouput": 2}],
            "pds[1].ouput is nothing of a reader; allowed are address, key,",
        ),
        ([{"name": "gate"}], "pds[0].address: allowed is a whole number, 0 to 126"),
        ([{"address": 127}], "pds[0].address is 127: allowed is a whole number, 0 to 126"),
        ([{"address": 1, "output": "2"}], "pds[0].output is '2': allowed is a whole number, 0 to 255"),
        ([{"address": 1, "door": 0}], "pds[0].door is 0: allowed is a whole number, 1 to 64"),
        ([{"address": 1, "key": "0011223344"}], "pds[0].key: allowed is 32 hexadecimal digits"),
        ([{"address": 1, "inputs": {"0": "contakt"}}], 'pds[0].inputs: allowed is a table of number = "contact" or'),
        ([{"address": 1}, {"address": 1}], "pds: address 1 is that of two readers"),
        ([{"address": 1, "door": 2}, {"address": 2}], "pds: door 2 is that of two readers"),
    ],
)
def test_a_reader_on_a_line_is_checked_key_by_key(pds: list[dict[str, Any]], said: str) -> None:
    [found] = faults("osdp", {"pds": pds})
    assert found.startswith(said)
    assert "0011" not in found


def test_an_authority_without_tls_is_refused_because_it_would_check_nothing() -> None:
    assert faults("isapi", {"ca_file": "/etc/ca.pem", "tls": True}) == []
    [said] = faults("isapi", {"ca_file": "/etc/ca.pem"})
    assert said.startswith("ca_file: without tls = true nothing is encrypted")


def test_a_line_needs_its_readers() -> None:
    assert missing("osdp", {"baud": 9600})[0].startswith("pds: missing, and required")
    assert missing("osdp", {"pds": [{"address": 1}]}) == missing("zkteco", {}) == []


def test_a_name_that_is_none_is_told_with_those_there_are_and_no_secret() -> None:
    [said] = faults("osdp", {"key": "00112233"})
    assert said == "key is no option of osdp; allowed are baud, format_37, pds"
    [said] = faults("osdp", {"pds": {"key": "00112233"}})
    assert "0011" not in said


def test_every_option_says_what_it_does_in_both_languages() -> None:
    for known in OPTIONS.values():
        for option in known.values():
            assert isinstance(option, options.Option)
            assert any(ord(letter) > 0x3000 for letter in option.zh)
            assert option.en.isascii()
