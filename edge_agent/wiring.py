"""Whether access rules fit the devices that there are: each door has a relay of its own, each point real readers.

A door or a point on nothing would be accepted and stay dead, two on one contact would undo each other; nobody would
hear of it before somebody stands outside. Each fault is a sentence with the key, the value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from device_drivers import kinds
from edge_agent.policy.rules import AccessRules, Door, Factor, Point


class Wired(Protocol):
    """A device as it is configured."""

    @property
    def kind(self) -> str: ...
    @property
    def options(self) -> Mapping[str, Any]: ...


ASKED_AT_A_CLOCK = frozenset(Point.model_fields["verify"].default)


def wiring_faults(rules: AccessRules, devices: Mapping[str, Wired]) -> list[str]:
    return [*_door_faults(rules, devices), *_point_faults(rules, devices)]


def _door_faults(rules: AccessRules, devices: Mapping[str, Wired]) -> Iterator[str]:
    taken: dict[tuple[str, int], str] = {}
    able = {name: numbers for name, each in devices.items() if (numbers := kinds.doors(each.kind, each.options))}
    for door in rules.doors:
        place = f"access.doors[{door.name}]"
        if door.device not in able:
            yield f"{place}.device: {_unfit(door.device, devices)} opens doors; allowed: {_listed(able)}"
            continue
        device = devices[door.device]
        if door.relay not in able[door.device]:
            allowed = _listed(able[door.device])
            yield f"{place}.relay: {door.relay}; allowed on {door.device} ({device.kind}): {allowed}"
        if door.open_s > (longest := kinds.KINDS[device.kind].longest_open_s):
            yield f"{place}.open_s: {door.open_s:g}; allowed on {door.device} ({device.kind}): up to {longest:g}"
        if (other := taken.setdefault((door.device, door.relay), door.name)) != door.name:
            yield f"{place}.relay: {door.relay} of {door.device} opens {other} already; allowed is one of its own"


def _point_faults(rules: AccessRules, devices: Mapping[str, Wired]) -> Iterator[str]:
    doors = {door.name: door for door in rules.doors}
    able = {name: numbers for name, each in devices.items() if (numbers := kinds.readers(each.kind, each.options))}
    fingers = {name for name, each in devices.items() if kinds.KINDS[each.kind].fingers}
    cameras = {name for name, each in devices.items() if kinds.KINDS[each.kind].pictures}
    taken: dict[tuple[str, str, int], str] = {}
    for point in rules.points:
        place = f"access.points[{point.name}]"
        if point.reader and point.reader not in able:
            alone = point.reader in devices and devices[point.reader].kind == "uhppote"
            hint = " (it does with options.host_decides = true)" if alone else ""
            yield f"{place}.reader: {_unfit(point.reader, devices)} asks us about cards{hint}; allowed: {_listed(able)}"
        elif point.reader and point.reader_no not in able[point.reader]:
            yield f"{place}.reader_no: {point.reader_no}; allowed on {point.reader}: {_listed(able[point.reader])}"
        if point.fingerprint and point.fingerprint not in fingers:
            yield f"{place}.fingerprint: {_unfit(point.fingerprint, devices)} is a sensor; allowed: {_listed(fingers)}"
        if point.camera and point.camera not in cameras:
            yield f"{place}.camera: {_unfit(point.camera, devices)} is a camera; allowed: {_listed(cameras)}"
        for key, device, number in _contacts(point):
            if (other := taken.setdefault((key, device, number), point.name)) != point.name:
                said = f"reader {number} of {device}" if key == "reader" else device
                but = ", or close_face = false at one of them" if key == "camera" else ""
                yield f"{place}.{key}: {said} is {other}'s already; allowed is one of its own{but}"
        yield from _verify_faults(point, doors.get(point.door or ""), place)


def _verify_faults(point: Point, door: Door | None, place: str) -> Iterator[str]:
    """What is asked must be what can be shown there."""
    if door is not None and frozenset(point.verify) not in (ASKED_AT_A_CLOCK, frozenset(door.verify)):
        yield f"{place}.verify: counts only at a point without a door; what opens {door.name} is its own verify"
    able: set[Factor] = {Factor.CARD, Factor.PIN} if point.reader else set()
    able |= {Factor.FINGER} if point.fingerprint else set()
    able |= {Factor.FACE} if point.camera else set()
    asked = {f"{place}.verify": point.verify} if door is None else {
        f"access.doors[{door.name}].verify": door.verify,
        **{f"access.doors[{door.name}].verify_times[{time.schedule}]": time.verify for time in door.verify_times},
    }  # fmt: skip
    for key, verify in asked.items():
        if not any(combination <= able for combination in verify):
            wanted = " or ".join("+".join(sorted(each)) for each in verify)
            yield f"{key}: {wanted} can never be shown at {point.name}; allowed there: {', '.join(sorted(able))}"


def _contacts(point: Point) -> Iterator[tuple[str, str, int]]:
    """What starts a session here, and so can start none elsewhere."""
    if point.reader:
        yield "reader", point.reader, point.reader_no
    if point.fingerprint:
        yield "fingerprint", point.fingerprint, 0
    if point.camera and point.close_face:
        yield "camera", point.camera, 0


def _unfit(name: str, devices: Mapping[str, Wired]) -> str:
    """The beginning of a sentence that says what the device is not."""
    if name in devices:
        return f"{name!r} is of kind {devices[name].kind}, none that"
    return f"there is no device {name[:64]!r} that"


def _listed(names: Any) -> str:
    """The first few, numbers in a row as a range."""
    found = sorted(names)
    if len(found) > 8 and isinstance(found[0], int):
        return f"{found[0]} to {found[-1]}"
    return ", ".join(map(str, found[:8])) or "none yet"
