"""Key proofs against Annex E and against handshakes recorded on real lines."""

from __future__ import annotations

import json

import pytest

from device_drivers.osdp.frame import CCRYPT, Decoder, Frame
from device_drivers.osdp.secure_channel import (
    SCBK_D,
    Handshake,
    Proof,
    client_cryptogram,
    server_cryptogram,
    session_key,
    usable_key,
)
from tests.shared_data import shared

RANDOM_A, RANDOM_B = bytes(range(8)), bytes(range(8, 16))
KEY = bytes(range(100, 116))


def test_keys_and_cryptograms_are_those_of_annex_e() -> None:
    annex = {
        v["name"]: bytes.fromhex(v["hex"])
        for v in json.loads(shared("vectors", "osdp_sia_annexE.json").read_text("utf-8"))["vectors"]
        if v["func"] == "test_scbkd_vectors"
    }
    assert annex["scbk_d"] == SCBK_D
    random_a, random_b = annex["cp_random"], annex["pd_random"]
    assert session_key(SCBK_D, random_a, label=b"\x01\x82") == annex["exp_senc"]
    assert session_key(SCBK_D, random_a, label=b"\x01\x01") == annex["exp_smac1"]
    assert session_key(SCBK_D, random_a, label=b"\x01\x02") == annex["exp_smac2"]
    assert client_cryptogram(SCBK_D, random_a, random_b) == annex["exp_pd_cryptogram"]
    assert server_cryptogram(SCBK_D, random_a, random_b) == annex["exp_cp_cryptogram"]


def test_recorded_handshakes_with_the_default_key_are_recognised() -> None:
    proofs = []
    for name in ("osdpcap_acuconsole_sc_out.json", "osdpcap_acuconsole_sc_nokey.json"):
        handshake = Handshake(KEY)
        for vector in json.loads(shared("vectors", name).read_text("utf-8"))["vectors"]:
            proofs += [handshake.observe(frame) for frame in Decoder().feed(bytes.fromhex(vector["hex"]))]
    told = {proof for proof in proofs if proof is not None}
    assert Proof.DEFAULT in told
    assert Proof.OURS not in told


def challenge() -> Frame:
    return Frame(1, False, 1, 0x76, RANDOM_A, b"\x11\x01")


def answer(key: bytes, *, claims: int = 1) -> Frame:
    payload = bytes(8) + RANDOM_B + client_cryptogram(key, RANDOM_A, RANDOM_B)
    return Frame(1, True, 1, CCRYPT, payload, bytes([0x12, claims]))


@pytest.mark.parametrize(
    ("reply", "proof"),
    [
        (answer(KEY), Proof.OURS),
        (answer(SCBK_D), Proof.DEFAULT),
        (answer(SCBK_D, claims=0), Proof.DEFAULT),
        (answer(bytes(16)), Proof.DEFAULT),
        (answer(bytes(range(16))), Proof.OTHER),
        (answer(bytes(range(16)), claims=0), Proof.DEFAULT),
        (Frame(1, True, 1, 0x41, b"\x05"), Proof.REFUSED),
        (Frame(1, True, 1, 0x40, b""), Proof.REFUSED),
        (Frame(1, True, 1, CCRYPT, b"short", b"\x12\x01"), Proof.REFUSED),
    ],
)
def test_the_key_a_reader_proves_is_told_whatever_it_claims(reply: Frame, proof: Proof) -> None:
    handshake = Handshake(KEY)
    assert handshake.observe(challenge()) is None
    assert handshake.observe(reply) is proof


def test_a_replayed_answer_proves_nothing() -> None:
    handshake = Handshake(KEY)
    assert handshake.observe(answer(KEY)) is None
    handshake.observe(Frame(1, False, 2, 0x76, bytes(range(50, 58)), b"\x11\x01"))
    assert handshake.observe(answer(KEY)) is Proof.OTHER


def test_keys_anybody_has_are_not_usable() -> None:
    assert usable_key(KEY)
    for weak in (SCBK_D, bytes(16), b"\xff" * 16, b"", KEY[:8]):
        assert not usable_key(weak)
