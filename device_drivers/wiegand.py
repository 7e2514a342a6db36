"""Card numbers as readers put them on the wire: Wiegand bits <-> Card.

Formats: HID H10301 (26 bits), H10306 (34), Corporate 1000 (35), H10302 and H10304 (37). The layouts are those
of Proxmark3's format table. Wiegand has no format field: the length decides, parity is the only check.

`Card.value`, all data bits as one number, is what identifies a card across vendors: it is printed on the card
as ten digits and is what attendance terminals report. The number alone is not unique: every facility has its 999.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_BITS = 64  # a DESFire UID has 56; anything longer is no card number of these formats
MIN_BITS = 4
RAW_WITHOUT_PARITY = frozenset({24, 32, 40, 56, 64})  # serial numbers of chips, sent bare


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a format keeps its fields, in bits from the left. Parity: (position, covered, odd)."""

    name: str
    length: int
    facility: tuple[int, int]  # start, width; width 0: none
    number: tuple[int, int]
    parity: tuple[tuple[int, tuple[int, ...], bool], ...]


def _span(start: int, stop: int) -> tuple[int, ...]:
    return tuple(range(start, stop))


LAYOUTS = {
    "H10301": Layout("wiegand-26", 26, (1, 8), (9, 16), ((0, _span(1, 13), False), (25, _span(13, 25), True))),
    "H10306": Layout("wiegand-34", 34, (1, 16), (17, 16), ((0, _span(1, 17), False), (33, _span(17, 33), True))),
    "C1000": Layout(
        "wiegand-35",
        35,
        (2, 12),
        (14, 20),
        (
            # The order matters to the encoder: the last bit covers the second, the first covers all others.
            (1, tuple(i for i in range(2, 34) if i % 3 != 1), False),
            (34, tuple(i for i in range(1, 33) if i % 3 != 0), True),
            (0, _span(1, 35), True),
        ),
    ),
    "H10302": Layout("wiegand-37", 37, (1, 0), (1, 35), ((0, _span(1, 19), False), (36, _span(18, 36), True))),
    "H10304": Layout("wiegand-37", 37, (1, 16), (17, 19), ((0, _span(1, 19), False), (36, _span(18, 36), True))),
}
BY_LENGTH = {26: "H10301", 34: "H10306", 35: "C1000", 37: "H10302"}


@dataclass(frozen=True, slots=True)
class Card:
    """A decoded card. `card_format` is "wiegand-26" ... or "raw"; `value` is what identifies it."""

    card_format: str
    value: str
    facility: int | None = None
    number: int | None = None


def _bit_field(bits: str, start: int, width: int) -> int:
    return int(bits[start : start + width], 2) if width else 0


def _parity_holds(bits: str, layout: Layout) -> bool:
    return all(
        (sum(bits[i] == "1" for i in covered) + (bits[position] == "1")) % 2 == odd
        for position, covered, odd in layout.parity
    )


def decode(bits: str, *, format_37: str = "H10302") -> Card:
    """The card behind `bits`, a string of 0 and 1 in wire order.

    H10302 and H10304 look alike on the wire and share their `value`; `format_37` says which one a site uses.
    Unknown lengths, and known ones whose parity is wrong, come back as "raw", with a value no decoded card can have
    (bare chip serial numbers keep their plain number). Raises ValueError for what is no card at all.
    """
    if not MIN_BITS <= len(bits) <= MAX_BITS:
        raise ValueError(f"a card of {len(bits)} bits; {MIN_BITS} to {MAX_BITS} are accepted")
    if set(bits) - {"0", "1"}:
        raise ValueError("card bits are 0 and 1")
    key = format_37 if len(bits) == 37 else BY_LENGTH.get(len(bits))
    if key is not None and _parity_holds(bits, layout := LAYOUTS[key]):
        data_start = layout.facility[0]
        data_width = layout.facility[1] + layout.number[1]
        return Card(
            layout.name,
            str(_bit_field(bits, data_start, data_width)),
            facility=_bit_field(bits, *layout.facility) if layout.facility[1] else None,
            number=_bit_field(bits, *layout.number),
        )
    value = int(bits, 2)
    return Card("raw", str(value) if len(bits) in RAW_WITHOUT_PARITY else f"{len(bits)}:{value:X}")


def encode(layout_key: str, *, number: int, facility: int = 0) -> str:
    """Wire bits, with parity, of a card of format `layout_key` (a key of LAYOUTS). Raises ValueError."""
    layout = LAYOUTS[layout_key]
    if not 0 <= facility < 1 << layout.facility[1] or not 0 <= number < 1 << layout.number[1]:
        raise ValueError(
            f"{layout_key} holds a facility of {layout.facility[1]} and a number of {layout.number[1]} bits"
        )
    bits = ["0"] * layout.length
    for (start, width), field in ((layout.facility, facility), (layout.number, number)):
        if width:
            bits[start : start + width] = format(field, f"0{width}b")
    for position, covered, odd in layout.parity:
        ones = sum(bits[i] == "1" for i in covered)
        bits[position] = str(int(ones % 2 != odd))
    return "".join(bits)


def bits_of(data: bytes, length: int) -> str:
    """The first `length` bits of left-aligned bytes, as OSDP packs a card. Raises ValueError if there are fewer."""
    if not 0 < length <= len(data) * 8:
        raise ValueError(f"{length} bits do not fit {len(data)} bytes")
    return "".join(format(byte, "08b") for byte in data)[:length]


def packed(bits: str) -> bytes:
    """`bits` left-aligned in bytes, the rest 0: the inverse of `bits_of`."""
    padded = bits.ljust(-(-len(bits) // 8) * 8, "0")
    return bytes(int(padded[i : i + 8], 2) for i in range(0, len(padded), 8))
