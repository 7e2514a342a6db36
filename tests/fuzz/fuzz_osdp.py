"""Anything on an OSDP line: the watcher, the handshake and the reader's state raise nothing and stay small."""

from __future__ import annotations

from device_drivers.osdp.frame import MAX_LEN, Decoder
from device_drivers.osdp.reader import ReaderConfig, ReaderState

KEY = bytes(range(1, 17))


def one_input(data: bytes) -> None:
    decoder = Decoder()
    state = ReaderState.begin(ReaderConfig(1, "r", 1, 0, {0: "contact"}, KEY), KEY, 0.0)
    for now, start in enumerate(range(0, len(data), 37)):
        for frame in decoder.feed(data[start : start + 37]):
            state.observe(frame, float(now))
            state.keypad.press(frame.payload, float(now))
        state.supervise(False, float(now))
    if len(decoder._buffer) > MAX_LEN:
        raise AssertionError("the watcher keeps more than one frame")
