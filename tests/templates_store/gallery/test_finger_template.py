"""The stored bytes of a fingerprint."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from templates_store.errors import BadTemplate
from templates_store.gallery.finger_template import MAX_MINUTIAE, MinutiaeTemplate
from tests.templates_store.gallery.fingers import finger, nothing


def template(count: int, *, x: float = 0.0, angle: float = 0.0) -> MinutiaeTemplate:
    return MinutiaeTemplate(
        np.full((count, 2), x, np.float32), np.full(count, angle, np.float32),
        np.ones(count, np.float32), np.ones(count, np.uint8),
    )  # fmt: skip


def test_a_payload_is_the_bytes_its_description_says() -> None:
    one = MinutiaeTemplate(
        np.array([[10.25, -3.0]], np.float32), np.array([math.pi / 2], np.float32),
        np.array([1.0], np.float32), np.array([2], np.uint8),
    )  # fmt: skip
    assert one.encode().hex() == "01012900f4ff0040ff02"


def test_decoding_gives_the_minutiae_back_within_the_stated_steps() -> None:
    before = finger(1)
    after = MinutiaeTemplate.decode(before.encode())
    assert np.abs(after.xy - before.xy).max() <= 0.125
    assert np.abs(np.exp(1j * after.angle) - np.exp(1j * before.angle)).max() < 1e-4
    assert np.abs(after.quality - before.quality).max() <= 0.5 / 255 + 1e-6
    assert after.kind.tolist() == before.kind.tolist()


def test_no_minutiae_are_a_template_too() -> None:
    assert len(MinutiaeTemplate.decode(nothing().encode())) == 0


def test_arrays_become_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        finger(1).xy[0, 0] = 1.0


def test_minutiae_never_show_in_a_representation() -> None:
    assert "array" not in repr(finger(1))


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x01", b"\x02\x00", b"\x01\x01", b"\x01\x00\x00", b"\x01\x01" + bytes(7), b"\x01\x01" + bytes(7) + b"\x03"],
    ids=["empty", "version", "unknown", "missing", "trailing", "short", "kind"],
)
def test_refuses_payloads_it_cannot_have_written(payload: bytes) -> None:
    with pytest.raises(BadTemplate):
        MinutiaeTemplate.decode(payload)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, 1e6])
def test_refuses_coordinates_that_cannot_be_compared(wrong: float) -> None:
    with pytest.raises(BadTemplate):
        template(3, x=wrong)


def test_refuses_angles_that_are_no_numbers() -> None:
    with pytest.raises(BadTemplate):
        template(3, angle=math.nan)


def test_refuses_more_minutiae_than_a_record_can_hold() -> None:
    with pytest.raises(BadTemplate):
        template(MAX_MINUTIAE + 1)
    assert MinutiaeTemplate.decode(template(MAX_MINUTIAE).encode()).encode() == template(MAX_MINUTIAE).encode()


def test_refuses_arrays_of_different_length() -> None:
    with pytest.raises(BadTemplate):
        MinutiaeTemplate(
            np.zeros((2, 2), np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32), np.zeros(3, np.uint8)
        )


@given(st.binary(max_size=120) | st.integers(0, 12).flatmap(lambda n: st.binary(min_size=8 * n, max_size=8 * n)))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_refused_or_encode_back_to_themselves(body: bytes) -> None:
    for payload in (body, bytes([1, len(body) // 8 % 256]) + body):
        try:
            decoded = MinutiaeTemplate.decode(payload)
        except BadTemplate:
            continue
        assert decoded.encode() == payload
