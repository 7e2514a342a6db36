"""Card formats against published worked examples and known layouts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_drivers.wiegand import LAYOUTS, Card, bits_of, decode, encode, packed
from tests.shared_data import shared


def test_published_examples_decode_and_encode() -> None:
    examples = json.loads(shared("vectors", "wiegand_examples.json").read_text("utf-8"))["vectors"]
    assert len(examples) == 4
    for example in examples:
        card = decode(example["bits"])
        assert (card.card_format, card.facility, card.number) == ("wiegand-26", example["fc"], example["cn"])
        assert card.value == str(example["fc"] << 16 | example["cn"])
        assert encode("H10301", facility=example["fc"], number=example["cn"]) == example["bits"]


# As printed by Proxmark3 for facility 118, number 1603: a header bit and a start bit before the card's own bits.
@pytest.mark.parametrize(
    ("key", "facility", "printed"),
    [("H10301", 118, 0x2006EC0C86), ("C1000", 118, 0x2E0EC00C87)],
)
def test_wire_bits_are_those_proxmark_prints(key: str, facility: int, printed: int) -> None:
    bits = encode(key, facility=facility, number=1603)
    assert int("1" + bits, 2) == printed & ~(1 << 37)


@given(st.sampled_from(sorted(LAYOUTS)), st.data())
def test_every_format_round_trips(key: str, data: st.DataObject) -> None:
    layout = LAYOUTS[key]
    facility = data.draw(st.integers(0, (1 << layout.facility[1]) - 1))
    number = data.draw(st.integers(0, (1 << layout.number[1]) - 1))
    bits = encode(key, facility=facility, number=number)
    card = decode(bits, format_37=key if layout.length == 37 else "H10302")
    assert (card.card_format, card.number) == (layout.name, number)
    assert card.facility == (facility if layout.facility[1] else None)
    assert bits_of(packed(bits), len(bits)) == bits


@given(st.sampled_from(sorted(LAYOUTS)), st.integers(0, 36))
def test_one_flipped_bit_is_never_taken_for_a_card(key: str, position: int) -> None:
    bits = encode(key, facility=1 if LAYOUTS[key].facility[1] else 0, number=4711)
    position %= len(bits)
    flipped = bits[:position] + ("1" if bits[position] == "0" else "0") + bits[position + 1 :]
    assert decode(flipped, format_37=key if len(bits) == 37 else "H10302").card_format == "raw"


def test_37_bit_formats_share_their_value() -> None:
    bits = encode("H10304", facility=5, number=77)
    assert decode(bits).value == decode(bits, format_37="H10304").value == str(5 << 19 | 77)


def test_chip_serial_numbers_keep_their_plain_number() -> None:
    assert decode(format(0xDEADBEEF, "032b")) == Card("raw", str(0xDEADBEEF))


def test_raw_values_cannot_equal_a_decoded_card() -> None:
    wrong_parity = "1" + encode("H10301", facility=99, number=999)[1:]
    assert decode(wrong_parity) == Card("raw", "26:2C607CF")


@pytest.mark.parametrize("bits", ["", "101", "0" * 65, "1" * 128, "01x1", "٠١٠١"])
def test_what_is_no_card_is_refused(bits: str) -> None:
    with pytest.raises(ValueError, match=r"bits"):
        decode(bits)


@given(st.text("01", max_size=80))
def test_any_bits_decode_or_are_refused(bits: str) -> None:
    try:
        decode(bits)
    except ValueError:
        assert not 4 <= len(bits) <= 64


@pytest.mark.parametrize(("length", "data"), [(0, b"\x00"), (9, b"\x00"), (-1, b"\x00"), (1, b"")])
def test_lengths_that_lie_about_card_bytes_are_refused(length: int, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"bits do not fit"):
        bits_of(data, length)


@pytest.mark.parametrize(("key", "facility", "number"), [("H10301", 256, 1), ("H10301", 1, 65536), ("H10302", 1, 1)])
def test_numbers_that_do_not_fit_the_format_are_refused(key: str, facility: int, number: int) -> None:
    with pytest.raises(ValueError, match="holds a facility"):
        encode(key, facility=facility, number=number)
