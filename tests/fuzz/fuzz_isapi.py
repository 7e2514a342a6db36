"""The alert stream's framing and every document an ISAPI terminal may answer."""

from __future__ import annotations

import contextlib

from device_drivers.errors import DeviceError
from device_drivers.events import Origin
from device_drivers.isapi import messages
from device_drivers.isapi.frame import PartDecoder, boundary_of, split


def one_input(data: bytes) -> None:
    messages.status(data)
    for wire in (data, b"--b\r\n" + data):
        with contextlib.suppress(DeviceError):
            for part in PartDecoder(b"b").feed(wire):
                messages.status(part.body)
    with contextlib.suppress(DeviceError):
        split("multipart/form-data; boundary=b", data)
    with contextlib.suppress(DeviceError):
        boundary_of(data.decode("latin-1"))
    with contextlib.suppress(DeviceError):
        alert = messages.alert(data)
        messages.event(alert.access or alert.fields, serial="S", origin=Origin.LIVE, time=alert.time)
    with contextlib.suppress(DeviceError):
        document = messages.parse(data)
        messages.hosts(document)
        messages.fingers(document, "1")
        messages.user(document, {})
        messages.identity(document)
