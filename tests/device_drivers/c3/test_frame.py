from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_drivers.c3.frame import CONNECT_PLAIN, CONNECT_SESSION, REPLY_OK, Frame, FrameDecoder, crc16
from device_drivers.c3.session import Session
from device_drivers.errors import AuthenticationFailed, DeviceRefused, FrameError, ProtocolError, Unsupported
from tests.shared_data import shared


def vectors(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(shared("vectors", name).read_text("utf-8"))["vectors"]
    return found


def replies(test: str, name: str = "c3_test_core.json") -> bytes:
    return bytes.fromhex("".join(next(v["bytes"] for v in vectors(name) if v["name"] == test)))


@pytest.mark.parametrize(
    ("wire", "crc"),
    [
        (bytes([1, 11, 4, 0, 62, 227, 2, 0]), 63111),
        (bytes.fromhex("010b040078e50200"), 49010),
        (b"\x01\xc8\x14\x00T\xf1\x02\x00\x03\x00\x00\x00\x11\x00\x00\x00\x00\x01\xff\x00\xda>u!", 20260),
        (b"123456789", 0xBB3D),
    ],
)
def test_the_checksum_is_the_published_one(wire: bytes, crc: int) -> None:
    assert crc16(wire) == crc


RECORDED = (
    "test_core_lock_status",
    "test_core_aux_in_status",
    "test_core_aux_out_status",
    "test_core_aux_out_open_close",
    "test_core_door_settings",
    "test_core_update_inout_status_exit_button",
    "test_core_connect_session_less",
)


@pytest.mark.parametrize("test", RECORDED)
def test_decodes_recorded_answers_one_byte_at_a_time(test: str) -> None:
    wire = replies(test)
    decoder = FrameDecoder()
    frames = [frame for byte in wire for frame in decoder.feed(bytes([byte]))]
    assert b"".join(frame.encode() for frame in frames) == wire
    assert frames == FrameDecoder().feed(wire)


def test_an_answer_whose_checksum_is_wrong_by_half_is_not_taken() -> None:
    """The outside client takes a frame if either byte of its checksum is right; recorded frames need no such mercy."""
    wire = bytearray(replies("test_core_connect_session_less")[:9])
    FrameDecoder().feed(bytes(wire))
    wire[-3] ^= 0xFF
    with pytest.raises(FrameError):
        FrameDecoder().feed(bytes(wire))


def test_opens_a_session_as_recorded_with_and_without_a_password() -> None:
    fields = vectors("field_reports_from_issues.json")
    refused = next(v for v in fields if v["proto"] == "c3" and "request" in v and "reply" in v)
    assert Session().connect().encode().hex() == refused["request"]
    assert Session("banana123").connect().encode().hex() == "aa01760d00fefefefe62616e616e61313233961955"
    session = Session()
    session.connect()
    plain = next(v for v in fields if v["proto"] == "c3" and "session-less" in v["what"])
    assert session.connect_plain().encode().hex() == plain["request"]


def test_a_wrong_password_waits_for_a_person() -> None:
    reply = next(v["reply"] for v in vectors("field_reports_from_issues.json") if v["proto"] == "c3" and "reply" in v)
    [frame] = FrameDecoder().feed(bytes.fromhex(reply))
    with pytest.raises(AuthenticationFailed):
        Session().connected(frame)


def test_a_panel_without_sessions_is_asked_plainly() -> None:
    refusal, accepted, answer = FrameDecoder().feed(replies("test_core_connect_session_less"))
    session = Session()
    session.connect()
    assert not session.connected(refusal)
    assert session.connect_plain() == Frame(CONNECT_PLAIN)
    assert session.answer(accepted) == b""
    assert session.answer(answer).startswith(b"~SerialNumber=DDG8130016092200401,")
    assert session.ask(4, b"x") == Frame(4, b"x")


def test_message_numbers_count_up_from_the_recorded_one() -> None:
    session = Session()
    assert session.connect() == Frame(CONNECT_SESSION, bytes.fromhex("fefefefe"))
    assert session.connected(Frame(REPLY_OK, bytes.fromhex("d18a0000")))
    session.ask(4)
    assert (
        session.ask(3, b"DateTime=812649252").encode().hex()
        == "aa01031600d18a00ff4461746554696d653d383132363439323532053e55"
    )


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (Frame(0xC9, bytes([256 - 13])), Unsupported),
        (Frame(0xC9, bytes([256 - 100])), DeviceRefused),
        (Frame(0xC9), DeviceRefused),
        (Frame(0x0D, bytes(17)), Unsupported),
        (Frame(0x77), ProtocolError),
        (Frame(0xC8, b"\x01\x02\x03\x04\x05"), ProtocolError),
        (Frame(0xC8, b"\xfe"), ProtocolError),
    ],
)
def test_other_answers_are_declared_errors(frame: Frame, error: type[Exception]) -> None:
    with pytest.raises(error):
        Session().answer(frame)


@pytest.mark.parametrize("wire", [b"\x55", b"\xaa\x01\xc8\x00\x00\x81\xfe\x54", b"\xaa\x01\xc8\x00\x00\x00\x00\x55"])
def test_a_broken_frame_ends_the_connection(wire: bytes) -> None:
    with pytest.raises(FrameError):
        FrameDecoder().feed(wire + bytes(8))


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=100)), max_size=4), st.integers(1, 30))
def test_frames_round_trip_however_they_are_cut(items: list[tuple[int, bytes]], cut: int) -> None:
    frames = [Frame(command, data) for command, data in items]
    wire = b"".join(frame.encode() for frame in frames)
    decoder = FrameDecoder()
    assert [f for i in range(0, len(wire), cut) for f in decoder.feed(wire[i : i + cut])] == frames


@given(st.binary(max_size=200))
def test_any_bytes_give_frames_or_a_declared_error(data: bytes) -> None:
    for start in (b"", b"\xaa", b"\xaa\x01\xc8\x04\x00"):
        with contextlib.suppress(FrameError):
            FrameDecoder().feed(start + data)
