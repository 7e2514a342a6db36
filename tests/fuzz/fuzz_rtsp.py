"""Any answer of a camera to DESCRIBE: status and challenges that are answered, or ProtocolError."""

from __future__ import annotations

from device_drivers import rtsp
from device_drivers.errors import ProtocolError


def one_input(data: bytes) -> None:
    head = data if data[:5] == b"RTSP/" else b"RTSP/1.0 401 x\r\nWWW-Authenticate: Digest " + data
    try:
        _, challenges = rtsp.answer(head, address="camera")
        said = rtsp.authorization(challenges, url="rtsp://camera/live", username="guard", password="s3cret")
    except ProtocolError:
        return
    if "\r" in said or "\n" in said:
        raise AssertionError("a camera could write lines of its own into our request")
