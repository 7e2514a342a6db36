from __future__ import annotations

from typing import Any

import pytest

from edge_agent.config import SiteConfig
from edge_agent.policy.rules import AccessRules
from edge_agent.wiring import wiring_faults

PDS = [{"address": 0, "door": 1}, {"address": 5, "door": 7}]
DEVICES: list[dict[str, Any]] = [
    {"name": "panel", "kind": "uhppote", "address": "192.0.2.9"},
    {"name": "asks", "kind": "uhppote", "address": "192.0.2.10", "options": {"host_decides": True}},
    {"name": "lobby", "kind": "zkteco", "address": "192.0.2.7"},
    {"name": "line", "kind": "osdp", "address": "/dev/ttyUSB0", "options": {"pds": PDS}},
    {"name": "sensor", "kind": "fingerprint_uart", "address": "/dev/ttyUSB1"},
    {"name": "eye", "kind": "camera", "address": "rtsp://192.0.2.60/1"},
]
FRONT = {"name": "front", "device": "panel"}
ASK = {"name": "ask", "reader": "line", "reader_no": 5}


def faults(doors: list[dict[str, Any]], points: list[dict[str, Any]]) -> list[str]:
    devices = {device.name: device for device in SiteConfig.model_validate({"devices": DEVICES}).devices}
    return wiring_faults(AccessRules.model_validate({"doors": doors, "points": points}), devices)


@pytest.mark.parametrize(
    ("doors", "points"),
    [
        ([FRONT, FRONT | {"name": "back", "relay": 4}, {"name": "side", "device": "line", "relay": 7}], []),
        ([FRONT | {"open_s": 255}, {"name": "side", "device": "line", "open_s": 25.5}], []),
        ([FRONT], [ASK | {"door": "front"}, {"name": "other", "reader": "asks", "reader_no": 4}]),
        ([FRONT | {"verify": [["card"], ["face"]]}], [ASK | {"door": "front"}]),  # one of them is enough
        ([FRONT | {"verify": [["card", "pin"]]}], [ASK | {"door": "front", "verify": [["card", "pin"]]}]),
        ([FRONT], [ASK | {"door": "front", "verify": [["finger"], ["card"], ["face"]]}]),  # as it is unless said
        ([], [ASK | {"camera": "eye", "close_face": False}, {"name": "clock", "camera": "eye"}]),
        ([], [{"name": "clock", "fingerprint": "sensor", "verify": [["finger"]]}]),
    ],
)
def test_rules_that_fit_their_devices_have_no_fault(doors: list[dict[str, Any]], points: list[dict[str, Any]]) -> None:
    assert faults(doors, points) == []


@pytest.mark.parametrize(
    ("doors", "points", "said"),
    [
        (
            [FRONT | {"device": "pannel"}],
            [],
            "doors[front].device: there is no device 'pannel' that opens doors; allowed: asks, line, lobby, panel",
        ),
        ([FRONT | {"device": "eye"}], [], "doors[front].device: 'eye' is of kind camera, none that opens doors"),
        ([FRONT | {"relay": 5}], [], "doors[front].relay: 5; allowed on panel (uhppote): 1, 2, 3, 4"),
        ([FRONT | {"device": "lobby", "relay": 2}], [], "doors[front].relay: 2; allowed on lobby (zkteco): 1"),
        ([FRONT | {"device": "line", "relay": 2}], [], "doors[front].relay: 2; allowed on line (osdp): 1, 7"),
        ([FRONT | {"device": "line", "open_s": 30}], [], "doors[front].open_s: 30; allowed on line (osdp): up to 25.5"),
        (
            [FRONT | {"device": "lobby", "open_s": 61}],
            [],
            "doors[front].open_s: 61; allowed on lobby (zkteco): up to 60",
        ),
        ([FRONT, FRONT | {"name": "back"}], [], "doors[back].relay: 1 of panel opens front already"),
        ([], [ASK | {"reader": "lne"}], "points[ask].reader: there is no device 'lne' that asks us about cards"),
        ([], [ASK | {"reader": "eye"}], "points[ask].reader: 'eye' is of kind camera, none that asks us about cards"),
        ([], [ASK | {"reader": "panel"}], "(it does with options.host_decides = true); allowed: asks, line"),
        ([], [ASK | {"reader_no": 1}], "points[ask].reader_no: 1; allowed on line: 0, 5"),
        (
            [],
            [ASK | {"fingerprint": "lobby"}],
            "points[ask].fingerprint: 'lobby' is of kind zkteco, none that is a sensor",
        ),
        ([], [ASK | {"camera": "ey"}], "points[ask].camera: there is no device 'ey' that is a camera; allowed: eye"),
        ([], [ASK, ASK | {"name": "again"}], "points[again].reader: reader 5 of line is ask's already"),
        (
            [],
            [ASK | {"camera": "eye"}, {"name": "clock", "camera": "eye"}],
            "points[clock].camera: eye is ask's already; allowed is one of its own, or close_face = false at one",
        ),
        (
            [FRONT],
            [ASK | {"door": "front", "verify": [["card", "pin"]]}],
            "points[ask].verify: counts only at a point without a door; what opens front is its own verify",
        ),
        (
            [FRONT | {"verify": [["card", "face"]]}],
            [ASK | {"door": "front"}],
            "doors[front].verify: card+face can never be shown at ask; allowed there: card, pin",
        ),
        (
            [FRONT | {"verify_times": [{"schedule": "always", "verify": [["finger"]]}]}],
            [ASK | {"door": "front"}],
            "doors[front].verify_times[always]: finger can never be shown at ask",
        ),
        ([], [ASK | {"verify": [["face"]]}], "points[ask].verify: face can never be shown at ask"),
    ],
)
def test_what_would_stay_dead_is_told_with_key_value_and_what_is_allowed(
    doors: list[dict[str, Any]], points: list[dict[str, Any]], said: str
) -> None:
    [fault] = faults(doors, points)
    assert fault.startswith("access.")
    assert said in fault
