from __future__ import annotations

from typing import Any

import pytest

from device_drivers import catalog, kinds
from device_drivers.adms import commands
from device_drivers.c3 import messages as c3
from device_drivers.osdp import messages as osdp
from device_drivers.zkteco import driver as zkteco


def test_every_kind_of_device_is_in_the_table() -> None:
    assert kinds.KINDS.keys() == catalog.DRIVERS.keys()


def test_the_longest_release_is_the_drivers_own() -> None:
    longest = {kind: each.longest_open_s for kind, each in kinds.KINDS.items()}
    assert longest["zkteco"] == zkteco.MAX_UNLOCK_S
    assert longest["adms"] == commands.MAX_SECONDS_OPEN
    assert longest["c3"] == c3.MAX_SECONDS_OPEN
    assert longest["osdp"] == osdp.MAX_TIMER * osdp.TICK_S


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("zkteco", "address", "192.0.2.7"),
        ("zkteco", "address", "terminal-1.example:4370"),
        ("isapi", "address", "[2001:db8::7]:443"),
        ("c3", "address", "2001:db8::7"),
        ("osdp", "address", "socket://127.0.0.1:4000"),
        ("camera", "address", "0"),
        ("adms", "address", ""),
        ("zkteco", "password", ""),
        ("zkteco", "password", "0"),
        ("fingerprint_uart", "password", "0xFFFFFFFF"),
        ("uhppote", "serial", "405419896"),
        ("adms", "encoding", "gb18030"),
        ("isapi", "username", "admin"),
    ],
)
def test_what_a_kind_takes_has_no_fault(kind: str, key: str, value: str) -> None:
    assert kinds.fault(kind, key, value) == ""


@pytest.mark.parametrize(
    ("kind", "options", "doors", "readers"),
    [
        ("zkteco", {}, {1}, set()),
        ("uhppote", {}, {1, 2, 3, 4}, set()),
        ("uhppote", {"host_decides": True}, {1, 2, 3, 4}, {1, 2, 3, 4}),
        ("osdp", {"pds": [{"address": 9}, {"address": 3, "door": 5}]}, {1, 5}, {9, 3}),
        ("camera", {}, set(), set()),
    ],
)
def test_doors_and_readers_have_numbers(kind: str, options: dict[str, Any], doors: set[int], readers: set[int]) -> None:
    assert (kinds.doors(kind, options), kinds.readers(kind, options)) == (doors, readers)
