from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_drivers.errors import FrameError
from device_drivers.zkteco.codes import Command, EventFlag
from device_drivers.zkteco.frame import MAX_LENGTH, DatagramDecoder, Frame, StreamDecoder, checksum
from device_drivers.zkteco.session import LiveEvent, Session
from tests.shared_data import shared

CONNECTED = bytes.fromhex("5050827d08000000d007ce7a3d7d2400")  # AK3750WIFI_TFT, tcpdump of a user of pyzk (#41)
FRAMES = st.builds(
    Frame,
    command=st.integers(0, 0xFFFF),
    session=st.integers(0, 0xFFFF),
    reply_no=st.integers(0, 0xFFFF),
    payload=st.binary(max_size=300),
)


def captures() -> list[dict[str, Any]]:
    vectors = json.loads(shared("vectors", "zk4370_zkprotocol_docs.json").read_text("utf-8"))["vectors"]
    return [vector for vector in vectors if vector["hex"].startswith("5050827d")]


def test_every_captured_packet_decodes_and_encodes_to_itself() -> None:
    wires = [bytes.fromhex(vector["hex"]) for vector in captures()]
    assert len(wires) >= 15
    for wire in wires:
        (frame,) = StreamDecoder().feed(wire)
        assert frame.encode_tcp() == wire
        assert Frame.decode(wire[8:]) == frame


def captured(doc: str, *, context: str) -> Frame:
    wires = [v["hex"] for v in captures() if v["doc"].endswith(doc) and context in v["context"]]
    (frame,) = StreamDecoder().feed(bytes.fromhex(wires[0]))
    return frame


def test_captured_replies_carry_what_the_documents_read_from_them() -> None:
    zone = captured("access.md", context="get timezone").payload
    assert (zone[0], tuple(zone[2:6])) == (48, (17, 12, 17, 13))  # time zone 48, Sunday 17:12 to 17:13
    combination = captured("access.md", context="get unlock combination").payload
    assert (tuple(combination[:3]), combination[6]) == ((7, 1, 2), 2)  # number 7: two groups, 1 and 2
    group = captured("access.md", context="get group info").payload
    assert (group[0], struct.unpack_from("<3H", group, 1)) == (77, (8, 7, 6))
    assert group[7] == 0x8E  # FP&RF+PIN, holiday flag set
    state = captured("terminal.md", context="Reply example")
    assert (state.command, state.session) == (Command.ACK_OK, 2)  # the state stands in the session field


def test_captured_requests_carry_what_the_documents_say_they_ask() -> None:
    mode = captured("data-user.md", context="PIN&FP&PW")
    assert (mode.command, mode.payload[:3]) == (79, b"\x0d\0\x8d")
    assert captured("terminal.md", context="Lock on timer").payload == b"LockOn=5\0"
    assert captured("terminal.md", context="antipassback").payload == b"AntiPassbackOn=0\0"


def test_a_captured_realtime_packet_has_its_kind_in_the_session_field() -> None:
    frame = captured("protocol.md", context="realtime packet")
    assert Session(Frame.encode).receive(frame) == [LiveEvent(EventFlag.FPFTR, b"\x64")]


def test_a_reply_in_the_field_is_an_acknowledgement() -> None:
    assert StreamDecoder().feed(CONNECTED) == [Frame(Command.ACK_OK, 0x7D3D, 0x24)]


def test_decodes_one_byte_at_a_time() -> None:
    decoder = StreamDecoder()
    assert [f for b in CONNECTED * 2 for f in decoder.feed(bytes([b]))] == StreamDecoder().feed(CONNECTED) * 2


def test_keeps_what_follows_a_frame_for_the_next_one() -> None:
    decoder = StreamDecoder()
    assert len(decoder.feed(CONNECTED + CONNECTED[:5])) == 1
    assert len(decoder.feed(CONNECTED[5:])) == 1


def test_the_published_checksum_examples_agree() -> None:
    # zk-protocol, "Checksum", test vectors 1 and 2.
    assert checksum(0x0B, 0x8DF3, 3, b"ZKFaceVersion\0") == 0x175A
    assert checksum(0x07D0, 0x8DF3, 10, b"\x09") == 0x6A29


@pytest.mark.parametrize("at", range(8, 16))
def test_a_flipped_bit_raises_on_tcp(at: int) -> None:
    wire = bytearray(CONNECTED)
    wire[at] ^= 0x04
    with pytest.raises(FrameError, match="checksum"):
        StreamDecoder().feed(bytes(wire))


def test_a_flipped_bit_drops_and_counts_on_udp() -> None:
    decoder = DatagramDecoder()
    assert decoder.feed(CONNECTED[8:-1] + b"\x01") == []
    assert decoder.feed(b"") == []
    assert decoder.dropped == 2
    assert decoder.feed(CONNECTED[8:]) == [Frame(Command.ACK_OK, 0x7D3D, 0x24)]


def test_a_terminal_whose_checksums_are_wrong_can_be_read_on_order() -> None:
    wire = CONNECTED[:10] + b"\0\0" + CONNECTED[12:]
    assert StreamDecoder(verify_checksum=False).feed(wire) == [Frame(Command.ACK_OK, 0x7D3D, 0x24)]


@pytest.mark.parametrize("length", [0, 7, MAX_LENGTH + 1, 0xFFFFFFFF])
def test_a_hostile_length_raises_before_anything_is_kept(length: int) -> None:
    with pytest.raises(FrameError, match="length"):
        StreamDecoder().feed(b"PP\x82}" + length.to_bytes(4, "little"))


def test_noise_instead_of_a_start_mark_raises() -> None:
    with pytest.raises(FrameError, match="50 50 82 7d"):
        StreamDecoder().feed(b"HTTP/1.1 200 OK\r\n")


@given(FRAMES)
def test_any_frame_comes_back(frame: Frame) -> None:
    assert StreamDecoder().feed(frame.encode_tcp()) == [frame]
    assert DatagramDecoder().feed(frame.encode()) == [frame]


@given(st.lists(FRAMES, max_size=5), st.lists(st.integers(1, 40), min_size=1))
def test_any_splitting_of_a_stream_gives_the_same_frames(frames: list[Frame], cuts: list[int]) -> None:
    wire = b"".join(frame.encode_tcp() for frame in frames)
    decoder = StreamDecoder()
    found = []
    while wire:
        for cut in cuts:
            found += decoder.feed(wire[:cut])
            wire = wire[cut:]
    assert found == frames


@given(st.binary(max_size=200))
def test_any_bytes_raise_only_frame_errors(data: bytes) -> None:
    for wire in (data, b"PP\x82}" + data):
        try:
            StreamDecoder().feed(wire)
        except FrameError:
            continue
    DatagramDecoder().feed(data)
