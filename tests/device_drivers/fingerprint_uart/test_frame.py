"""EF01 packets against the manual's examples, and against noise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_drivers.fingerprint_uart.frame import HEADER, MAX_CONTENT, SUM_LEN, Decoder, Kind, Packet

# Printed in the R503 and R30x manuals.
GET_IMAGE = bytes.fromhex("ef01ffffffff010003010005")
VERIFY_PASSWORD = bytes.fromhex("ef01ffffffff01000713000000 00001b")
ACK_OK = bytes.fromhex("ef01ffffffff07000300000a")


@pytest.mark.parametrize(
    ("packet", "wire"),
    [
        (Packet(Kind.COMMAND, b"\x01"), GET_IMAGE),
        (Packet(Kind.COMMAND, b"\x13" + bytes(4)), VERIFY_PASSWORD),
        (Packet(Kind.ACK, b"\x00"), ACK_OK),
    ],
)
def test_the_manuals_examples_go_both_ways(packet: Packet, wire: bytes) -> None:
    assert packet.encode() == wire
    assert Decoder().feed(wire) == [packet]


def test_packets_are_found_one_byte_at_a_time() -> None:
    decoder = Decoder()
    stream = ACK_OK + VERIFY_PASSWORD
    assert len([p for byte in stream for p in decoder.feed(bytes([byte]))]) == 2
    assert decoder.noise == 0


@pytest.mark.parametrize(
    "damage",
    [
        b"\x00\xff",
        b"\xef",
        b"\xef\x01",
        ACK_OK[:-1] + b"\x0b",
        bytes.fromhex("ef01ffffffff07ffff"),
        b"\xef\xef\x01\x00",
    ],
)
def test_the_packet_after_damage_is_found(damage: bytes) -> None:
    decoder = Decoder()
    found = decoder.feed(damage + ACK_OK + ACK_OK + bytes(300))
    assert Packet(Kind.ACK, b"\x00") in found
    assert decoder.noise > 0


@given(st.builds(Packet, st.integers(0, 255), st.binary(max_size=MAX_CONTENT), st.integers(0, 2**32 - 1)))
def test_packets_round_trip(packet: Packet) -> None:
    assert Decoder().feed(packet.encode()) == [packet]


@given(st.lists(st.binary(max_size=600), max_size=6))
def test_any_bytes_leave_at_most_one_packet_behind(pieces: list[bytes]) -> None:
    decoder = Decoder()
    for piece in pieces:
        decoder.feed(piece)
    assert len(decoder._buffer) <= HEADER.size + MAX_CONTENT + SUM_LEN


def test_content_is_not_in_the_representation() -> None:
    assert "secret" not in repr(Packet(Kind.DATA, b"secret"))
    with pytest.raises(ValueError, match="at most 256"):
        Packet(Kind.DATA, bytes(257)).encode()
