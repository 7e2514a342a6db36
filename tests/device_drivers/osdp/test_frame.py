"""The line watcher against Annex E, recorded lines and damage."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_drivers.osdp.frame import MAX_LEN, Decoder, Frame, checksum, crc16
from tests.shared_data import shared


def vectors(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(shared("vectors", name).read_text("utf-8"))["vectors"]
    return found


def test_checks_are_those_of_annex_e() -> None:
    annex = vectors("osdp_sia_annexE.json")
    crc = {v["name"]: bytes.fromhex(v["hex"]) for v in annex if v["func"] == "test_crc_vectors"}
    for number in ("1", "2"):
        assert crc16(crc[f"msg{number}"]) == int.from_bytes(crc[f"exp{number}"], "little")
    sums = [bytes.fromhex(v["hex"]) for v in annex if v["func"] == "test_checksum_vectors"]
    assert len(sums) == 2
    for body in sums:
        assert sum(body + bytes([checksum(body)])) & 0xFF == 0


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("osdpcap_acuconsole_plain.json", 1071),
        ("osdpcap_acuconsole_sc_nokey.json", 94),
        ("osdpcap_acuconsole_sc_out.json", 2085),
    ],
)
def test_every_recorded_frame_is_seen_whole(name: str, whole: int) -> None:
    decoder = Decoder()
    seen = 0
    for vector in vectors(name):
        [frame] = decoder.feed(bytes.fromhex(vector["hex"]))
        assert frame.reply == (vector["io"] == "input")
        seen += 1
    assert (seen, decoder.noise) == (whole, 0)


def test_a_recorded_line_read_byte_by_byte_gives_the_same_frames() -> None:
    stream = b"".join(b"\xff" + bytes.fromhex(v["hex"]) for v in vectors("osdpcap_acuconsole_sc_out.json")[:200])
    whole, bytewise = Decoder(), Decoder()
    assert [f for byte in stream for f in bytewise.feed(bytes([byte]))] == whole.feed(stream)
    assert whole.noise == 0


def test_plain_frames_encode_as_recorded() -> None:
    for vector in vectors("osdpcap_acuconsole_plain.json"):
        wire = bytes.fromhex(vector["hex"])
        [frame] = Decoder().feed(wire)
        assert frame.encode() == wire


def test_frames_from_the_field_are_seen() -> None:
    field = [v for v in vectors("field_reports_from_issues.json") if v["proto"] == "osdp"]
    frames = [Decoder().feed(bytes.fromhex(wire)) for v in field for wire in v["frames"]]
    assert [[f.code for f in found] for found in frames] == [[0x45], [0x46], [0x41], [0x61], [0x45]]


MADE_UP_CHECKS = ("MessageSpy", "OSDPCaptureEntryTest", "TraceEntryTest")  # files whose frames end in invented CRCs


def test_whole_packets_of_another_implementation_are_seen() -> None:
    honest = refused = 0
    for vector in vectors("osdp_net_tests.json"):
        packet = bytes.fromhex(vector["hex"])
        if packet[:1] != b"\x53" or int.from_bytes(packet[2:4], "little") != len(packet):
            continue
        seen = len(Decoder().feed(packet))
        if vector["file"].startswith(MADE_UP_CHECKS):
            refused += seen == 0
        else:
            assert seen == 1, vector
            honest += 1
    assert honest >= 6
    assert refused >= 18


def test_the_frame_after_noise_and_a_lying_length_is_found() -> None:
    good = bytes.fromhex("530008000460ebaa")
    liar = bytes([0x53, 0x00, 0xFF, 0xFF, 0x04])
    decoder = Decoder()
    assert [f.code for f in decoder.feed(b"\x00\x99" + liar + good + good)] == [0x60, 0x60]
    assert decoder.noise > 0


def test_a_reset_forgets_half_a_frame() -> None:
    good = bytes.fromhex("530008000460ebaa")
    decoder = Decoder()
    decoder.feed(bytes([0x53, 0x80, 0x00, 0x04]) + good)
    decoder.reset()
    assert [f.wire for f in decoder.feed(good)] == [good]


@given(st.binary(max_size=4000))
def test_any_bytes_give_frames_or_noise_within_bounds(data: bytes) -> None:
    decoder = Decoder()
    for frame in decoder.feed(data):
        assert 0 <= frame.address <= 127
    assert len(decoder._buffer) <= MAX_LEN


SECURITY_BLOCKS = st.just(b"") | st.tuples(st.integers(0x11, 0x14), st.integers(0, 1)).map(bytes)


@given(
    st.builds(
        Frame, st.integers(0, 127), st.booleans(), st.integers(0, 3), st.integers(0, 255), st.binary(max_size=200),
        SECURITY_BLOCKS, st.booleans(),
    )
)  # fmt: skip
def test_frames_go_there_and_back(frame: Frame) -> None:
    assert Decoder().feed(frame.encode()) == [frame]
