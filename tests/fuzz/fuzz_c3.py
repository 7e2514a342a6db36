"""C3 frames, schemas, rows, logs and discovery answers."""

from __future__ import annotations

import contextlib

from device_drivers.c3 import messages
from device_drivers.c3.discovery import read
from device_drivers.c3.frame import Frame, FrameDecoder
from device_drivers.c3.session import Session
from device_drivers.errors import DeviceError

SEEDS = (
    b"~SerialNumber=DGD9190019050335134,LockCount=2",
    b"user=1,UID=i1,CardNo=i2,Pin=i3\n\0\0\x03\x01\x02\x03\x01\x05\x01\x05\x01\x05",
)


def one_input(data: bytes) -> None:
    for start in (b"", b"\xaa\x01\xc8"):
        with contextlib.suppress(DeviceError):
            for frame in FrameDecoder().feed(start + data):
                Session().answer(frame)
    with contextlib.suppress(DeviceError):
        Session().connected(Frame(data[0] if data else 0, data[1:60_000]))
    messages.text_pairs(data)
    schema, _, rows = data.partition(b"\0\0")
    for table in messages.tables(schema).values():
        with contextlib.suppress(DeviceError):
            table.decode(bytes([table.index]) + rows)
    messages.text_log(data, serial="S")
    with contextlib.suppress(DeviceError):
        messages.binary_log(data, serial="S")
    read([data, Frame(0xC8, data[:60_000]).encode()])
