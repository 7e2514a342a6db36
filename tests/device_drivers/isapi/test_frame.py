from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_drivers.errors import FrameError
from device_drivers.isapi.frame import MAX_PART, Part, PartDecoder, boundary_of, split

BOUNDARY = b"MIME_boundary"
XML = Part("application/xml", b"<EventNotificationAlert/>")
JSON = Part("application/json", b'{"eventType": "x"}')
WIRE = b"".join(part.encode(BOUNDARY) for part in (XML, JSON))


def test_decodes_one_byte_at_a_time() -> None:
    decoder = PartDecoder(BOUNDARY)
    assert [part for byte in WIRE for part in decoder.feed(bytes([byte]))] == [XML, JSON]


def test_finds_the_part_after_noise() -> None:
    assert PartDecoder(BOUNDARY).feed(b"\r\n\x00noise" + WIRE) == [XML, JSON]


def test_a_part_without_a_length_ends_at_the_next_boundary() -> None:
    wire = b"--MIME_boundary\nContent-Type: application/xml; charset=UTF-8\n\n<a/>\r\n--MIME_boundary\r\n"
    assert PartDecoder(BOUNDARY).feed(wire) == [Part("application/xml", b"<a/>")]


def test_a_stated_length_keeps_a_boundary_inside_a_picture() -> None:
    picture = Part("image/jpeg", b"\xff\xd8--MIME_boundary\r\n\r\n\xff\xd9")
    assert PartDecoder(BOUNDARY).feed(picture.encode(BOUNDARY) + WIRE) == [picture, XML, JSON]


def test_the_closing_boundary_ends_the_stream() -> None:
    decoder = PartDecoder(BOUNDARY)
    decoder.feed(WIRE + b"--MIME_boundary--\r\n")
    assert decoder.ended


@pytest.mark.parametrize(
    "wire",
    [
        b"x" * 70_000,
        b"--MIME_boundary\r\nContent-Length: 99999999999\r\n\r\n",
        b"--MIME_boundary\r\nContent-Length: -1\r\n\r\n",
        b"--MIME_boundary\r\n" + b"X-Y: z\r\n" * 2000,
        b"--MIME_boundary\r\nContent-Type: a/b\r\n\r\n" + b"y" * (MAX_PART + 1),
    ],
)
def test_bounds_are_kept_before_they_are_trusted(wire: bytes) -> None:
    with pytest.raises(FrameError):
        PartDecoder(BOUNDARY).feed(wire)


def test_the_boundary_is_read_with_and_without_quotes() -> None:
    assert boundary_of("multipart/mixed; boundary=MIME_boundary") == BOUNDARY
    assert boundary_of('multipart/form-data; boundary="--MIME_boundary"') == BOUNDARY
    with pytest.raises(FrameError):
        boundary_of("application/xml")


def test_a_finished_form_has_named_parts() -> None:
    head = b'Content-Disposition: form-data; name="event_log"\r\nContent-Type: application/json\r\n'
    body = b"--b1\r\n" + head + b"\r\n{}\r\n--b1--\r\n"
    assert split("multipart/form-data; boundary=b1", body) == [Part("application/json", b"{}", "event_log")]


@given(st.lists(st.binary(max_size=200), max_size=5), st.integers(1, 40))
def test_parts_round_trip_however_they_are_cut(bodies: list[bytes], cut: int) -> None:
    parts = [Part("application/json", body) for body in bodies]
    wire = b"".join(part.encode(BOUNDARY) for part in parts)
    decoder = PartDecoder(BOUNDARY)
    assert [p for i in range(0, len(wire), cut) for p in decoder.feed(wire[i : i + cut])] == parts


@given(st.binary(max_size=300))
def test_any_bytes_give_parts_or_a_declared_error(data: bytes) -> None:
    with contextlib.suppress(FrameError):
        PartDecoder(b"b").feed(b"--b" + data)
