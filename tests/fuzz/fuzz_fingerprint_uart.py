"""Anything on an EF01 line: packets or noise, images or ValueError, within bounds."""

from __future__ import annotations

from device_drivers.fingerprint_uart.frame import HEADER, MAX_CONTENT, SUM_LEN, Decoder
from device_drivers.fingerprint_uart.messages import Parameters, Product, Transfer, image_of, slots_of


def one_input(data: bytes) -> None:
    decoder = Decoder()
    transfer = Transfer()
    for start in range(0, len(data), 61):
        for packet in decoder.feed(data[start : start + 61]):
            try:
                transfer.take(packet)
            except ValueError:
                return
            slots_of(packet.content, 0)
            for read in (Parameters.decode, Product.decode):
                try:
                    read(packet.content)
                except ValueError:
                    continue
    if len(decoder._buffer) > HEADER.size + MAX_CONTENT + SUM_LEN:
        raise AssertionError("the decoder keeps more than one packet")
    try:
        image_of(bytes(transfer.data) or data, None)
    except ValueError:
        return
