"""Any reply or announcement of a UHPPOTE controller: an event, a user, a profile, or ValueError."""

from __future__ import annotations

from uhppoted import decode

from device_drivers.uhppote import messages
from device_drivers.uhppote.driver import decode_cursor

HEADS = (
    (0x17, 0x94), (0x17, 0x20), (0x19, 0x20), (0x17, 0xB0), (0x17, 0x5A), (0x17, 0x5C), (0x17, 0x98), (0x17, 0x32),
    (0x17, 0x82),
)  # fmt: skip


def one_input(data: bytes) -> None:
    decode_cursor(data)
    if not data:
        return
    som, code = HEADS[data[0] % len(HEADS)]
    packet = (bytes([som, code, 0, 0]) + data[1:]).ljust(64, b"\0")[: 65 if data[0] > 250 else 64]
    try:
        if code == 0xB0:
            entry = messages.Entry.of(decode.get_event_response(packet))
            messages.door_event(entry, serial="1", card_format="wiegand-26")
        elif code in {0x5A, 0x5C}:
            read = decode.get_card_response if code == 0x5A else decode.get_card_by_index_response
            messages.device_user(read(packet), "wiegand-26")
        elif code == 0x20 and som == 0x17:
            decode.get_status_response(packet)
        elif code == 0x20:
            decode.event(packet)
        elif code == 0x98:
            messages.time_profile(decode.get_time_profile_response(packet))
        elif code == 0x94:
            decode.get_controller_response(packet)
        elif code == 0x32:
            decode.get_time_response(packet)
        else:
            decode.get_door_control_response(packet)
    except ValueError:
        return
