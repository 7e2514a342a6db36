"""What is told about one PD, by the clock and by the frames that pass."""

from __future__ import annotations

import pytest

from device_drivers.events import DoorEventKind
from device_drivers.osdp.frame import KEYPAD, RAW, Frame
from device_drivers.osdp.reader import PLAINTEXT, RESTART_S, WORDS, ReaderConfig, ReaderState
from device_drivers.osdp.secure_channel import Proof, client_cryptogram

KEY = bytes(range(1, 17))
RANDOM_A, RANDOM_B = bytes(8), bytes(range(8))


def reader() -> ReaderState:
    return ReaderState.begin(ReaderConfig(1, "r", 1, 0, {}, KEY), KEY, 0.0)


def prove(state: ReaderState, key: bytes, now: float) -> list[tuple[DoorEventKind, str]]:
    state.observe(Frame(1, False, 0, 0x76, RANDOM_A, b"\x11\x01"), now)
    payload = bytes(8) + RANDOM_B + client_cryptogram(key, RANDOM_A, RANDOM_B)
    return state.observe(Frame(1, True, 0, 0x76, payload, b"\x12\x01"), now)


@pytest.mark.parametrize("code", [RAW, KEYPAD])
def test_credentials_in_plaintext_are_alarmed_once(code: int) -> None:
    state = reader()
    card = Frame(1, True, 1, code, b"\x00\x01\x1a\x00\x31\x81\xf3\xc0")
    assert state.observe(card, 1.0) == [(DoorEventKind.SECURITY, PLAINTEXT)]
    assert state.observe(card, 2.0) == []


def test_a_reader_without_the_security_capability_is_alarmed() -> None:
    state = reader()
    capabilities = Frame(1, True, 1, 0x46, bytes.fromhex("010102080100"))
    assert state.observe(capabilities, 1.0) == [(DoorEventKind.SECURITY, WORDS[Proof.REFUSED])]
    capable = Frame(1, True, 1, 0x46, bytes.fromhex("010102090100"))
    assert reader().observe(capable, 1.0) == []


def test_the_librarys_word_counts_only_with_a_proof_of_our_key() -> None:
    state = reader()
    state.supervise(True, 1.0)
    assert not state.secure
    assert prove(state, KEY, 2.0) == []
    state.supervise(True, 2.0)
    assert state.secure


def test_a_key_repaired_and_broken_again_is_alarmed_again() -> None:
    state = reader()
    assert len(prove(state, bytes(range(40, 56)), 1.0)) == 1
    prove(state, KEY, 2.0)
    state.supervise(True, 2.0)
    assert len(prove(state, bytes(range(40, 56)), 3.0)) == 1


def test_loss_is_told_after_eight_seconds_with_its_cause() -> None:
    silent, insecure = reader(), reader()
    assert silent.supervise(False, 7.9) == []
    assert silent.supervise(False, 8.0) == [(DoorEventKind.LINK_LOST, "the reader is silent")]
    assert silent.supervise(False, 9.0) == []
    insecure.observe(Frame(1, True, 0, 0x40, b""), 7.0)
    assert insecure.supervise(False, 8.0) == [(DoorEventKind.LINK_LOST, "no secure channel")]


def test_restarts_grow_rare_and_begin_anew_after_success() -> None:
    state = reader()
    due = [now / 10 for now in range(400) if state.restart_due(now / 10)]
    assert due[:4] == [0.5, 2.5, 6.5, 14.5]
    prove(state, KEY, 40.0)
    state.supervise(True, 40.0)
    state.supervise(False, 40.1)
    assert not state.restart_due(40.0 + RESTART_S[0] - 0.01)
    assert state.restart_due(40.0 + RESTART_S[0])


def test_no_key_in_any_representation() -> None:
    assert KEY.hex() not in repr(reader())
    assert repr(KEY) not in repr(reader())
