"""Card bits of any length and content: a card, or ValueError."""

from __future__ import annotations

from device_drivers import wiegand


def one_input(data: bytes) -> None:
    if not data:
        return
    length, payload = data[0], data[1:]
    try:
        bits = wiegand.bits_of(payload, length)
        card = wiegand.decode(bits, format_37="H10304" if length & 1 else "H10302")
    except ValueError:
        return
    if card.card_format == "raw":
        return
    key = {"wiegand-26": "H10301", "wiegand-34": "H10306", "wiegand-35": "C1000"}.get(card.card_format, "H10304")
    if card.number is not None and wiegand.encode(key, facility=card.facility or 0, number=card.number) != bits:
        raise AssertionError("a decoded card does not encode to the bits it came from")
