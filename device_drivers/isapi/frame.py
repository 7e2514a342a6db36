"""The alert stream: bytes of a multipart body that never ends <-> parts.

Source: ISAPI, "Receive Alarm/Event in Arming Mode"; RFC 2046 for the boundary. Most firmware states each part's
Content-Length; where it does not, the next boundary ends the part.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from device_drivers.errors import FrameError

MAX_PART = 4 * 1024 * 1024  # an event with its picture
MAX_HEADERS = 8 * 1024
MAX_NOISE = 64 * 1024  # before the first boundary
BOUNDARY = re.compile(r'boundary="?([^";,\s]{1,70})"?', re.IGNORECASE)


def boundary_of(content_type: str) -> bytes:
    """Raises FrameError if the type names no boundary."""
    match = BOUNDARY.search(content_type[:512])
    if not match:
        raise FrameError("the stream names no boundary")
    return match[1].encode("latin-1", "replace").removeprefix(b"--")


@dataclass(frozen=True, slots=True)
class Part:
    content_type: str
    body: bytes = field(repr=False)
    name: str = ""

    def encode(self, boundary: bytes) -> bytes:
        head = f"\r\nContent-Type: {self.content_type}\r\nContent-Length: {len(self.body)}\r\n\r\n"
        return b"--" + boundary + head.encode("latin-1") + self.body + b"\r\n"


class PartDecoder:
    """`feed` returns the parts completed by these bytes; raises FrameError when a bound is passed."""

    def __init__(self, boundary: bytes) -> None:
        self._mark = b"--" + boundary
        self._buffer = bytearray()
        self.ended = False

    def feed(self, data: bytes) -> list[Part]:
        self._buffer += data
        parts: list[Part] = []
        while not self.ended:
            part = self._next()
            if part is None:
                break
            parts.append(part)
        return parts

    def _next(self) -> Part | None:
        start = self._buffer.find(self._mark)
        if start < 0:
            if len(self._buffer) > MAX_NOISE:
                raise FrameError("no boundary in the stream")
            return None
        if start:
            del self._buffer[:start]
        after = len(self._mark)
        if self._buffer[after : after + 2] == b"--":
            self.ended = True
            return None
        head_end, gap = self._blank_line(after)
        if head_end < 0:
            if len(self._buffer) > MAX_HEADERS + after:
                raise FrameError("headers of a part never end")
            return None
        headers = self._headers(bytes(self._buffer[after:head_end]))
        body_start = head_end + gap
        length = headers.get("content-length", "")
        body_end = self._stated_end(length, body_start) if length else self._found_end(body_start)
        if body_end is None:
            return None
        body = bytes(self._buffer[body_start:body_end])
        del self._buffer[:body_end]
        disposition = headers.get("content-disposition", "")
        name = re.search(r'name="?([^";]{0,64})', disposition)
        return Part(headers.get("content-type", "").split(";")[0].strip().lower(), body, name[1] if name else "")

    def _blank_line(self, start: int) -> tuple[int, int]:
        for mark in (b"\r\n\r\n", b"\n\n"):
            end = self._buffer.find(mark, start, start + MAX_HEADERS)
            if end >= 0:
                return end, len(mark)
        return -1, 0

    @staticmethod
    def _headers(block: bytes) -> dict[str, str]:
        pairs = (line.partition(":") for line in block.decode("latin-1").splitlines() if ":" in line)
        return {name.strip().lower(): value.strip() for name, _, value in pairs}

    def _stated_end(self, length: str, start: int) -> int | None:
        if not length.isdecimal() or len(length) > 9 or int(length) > MAX_PART:
            raise FrameError(f"a part of {length[:12]} bytes")
        end = start + int(length)
        return end if len(self._buffer) >= end else None

    def _found_end(self, start: int) -> int | None:
        end = self._buffer.find(self._mark, start)
        if end < 0:
            if len(self._buffer) - start > MAX_PART:
                raise FrameError("a part that never ends")
            return None
        for line_end in b"\n\r":  # one line end belongs to the boundary
            if end > start and self._buffer[end - 1] == line_end:
                end -= 1
        return end


def split(content_type: str, body: bytes) -> list[Part]:
    """All parts of a finished body, as httpHosts pushes send them. Raises FrameError, also for one cut off."""
    boundary = boundary_of(content_type)
    decoder = PartDecoder(boundary)
    parts = decoder.feed(body)
    if not decoder.ended:  # firmware that leaves the closing boundary out exists; a part it cut off does not end here
        parts += decoder.feed(b"\r\n--" + boundary + b"--")
    if not decoder.ended:
        raise FrameError("a body that ends inside a part")
    return parts
