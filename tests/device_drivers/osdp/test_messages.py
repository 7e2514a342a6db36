"""Keypad entries, contacts and cards as tables."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from osdp.constants import CardFormat, StatusReportType

from device_drivers.events import DoorEventKind
from device_drivers.osdp.messages import MAX_DIGITS, PAUSE_S, Contacts, Keypad, card_read


@pytest.mark.parametrize(
    ("presses", "entries"),
    [
        ([b"1234#"], ["1234"]),
        ([b"12", b"34\r"], ["1234"]),
        ([b"99*12#"], ["99*12"]),
        ([b"99\x7f12#"], ["99*12"]),
        ([b"99**12#"], ["12"]),
        ([b"*12#"], ["12"]),
        ([b"99*12*7#"], ["7"]),
        ([b"99*#"], ["99*"]),
        ([b"##"], []),
        ([b"1' OR 1=1--#"], ["111"]),
        ([b"1#2#"], ["1", "2"]),
        ([b"1" * MAX_DIGITS + b"#"], ["1" * MAX_DIGITS]),
        ([b"1" * (MAX_DIGITS + 1) + b"#"], []),
    ],
)
def test_entries_end_by_enter(presses: list[bytes], entries: list[str]) -> None:
    keypad = Keypad()
    assert [entry for data in presses for entry in keypad.press(data, 0.0)[0]] == entries


def test_a_pause_ends_an_entry_once() -> None:
    keypad = Keypad()
    keypad.press(b"123", 10.0)
    assert keypad.paused(10.0 + PAUSE_S - 0.1) == ""
    assert keypad.paused(10.0 + PAUSE_S) == "123"
    assert keypad.paused(99.0) == ""


def test_digits_are_not_in_the_representation() -> None:
    keypad = Keypad()
    keypad.press(b"4711", 0.0)
    assert "4711" not in repr(keypad)


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_any_keys_give_short_entries_of_digits(presses: list[bytes]) -> None:
    keypad = Keypad()
    for number, data in enumerate(presses):
        entries, _ = keypad.press(data, float(number))
        for entry in entries:
            assert set(entry) <= set("0123456789*")
            assert entry.count("*") <= 1
            assert len(entry) <= MAX_DIGITS


def test_only_changes_of_contacts_become_events() -> None:
    contacts = Contacts({0: "contact", 1: "button"})
    local = {"type": StatusReportType.Local}
    inputs = {"type": StatusReportType.Input}
    assert contacts.report({**local, "report": b"\x00\x00"}) == []
    assert contacts.report({**local, "report": b"\x01\x01"}) == [DoorEventKind.TAMPER, DoorEventKind.POWER_LOST]
    assert contacts.report({**local, "report": b"\x01\x01"}) == []
    assert contacts.report({**inputs, "report": b"\x01\x00"}) == [DoorEventKind.OPENED]  # at rest until then
    assert contacts.report({**inputs, "report": b"\x00\x01"}) == [DoorEventKind.CLOSED, DoorEventKind.BUTTON]
    assert contacts.report({**local, "report": b"\x01"}) == []


@pytest.mark.parametrize(
    "event",
    [
        {"format": CardFormat.Wiegand, "length": 26, "data": b"\x00"},
        {"format": CardFormat.Wiegand, "length": 0, "data": b""},
        {"format": CardFormat.Wiegand, "length": 128, "data": bytes(16)},
        {"format": CardFormat.ASCII, "data": b"12x"},
        {"format": CardFormat.ASCII, "data": b""},
        {"format": CardFormat.ASCII, "data": b"1" * 21},
    ],
)
def test_cards_that_are_none_are_refused(event: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        card_read(event, serial="line", reader=1, format_37="H10302")


def test_a_card_in_text_form_keeps_its_number() -> None:
    event = {"format": CardFormat.ASCII, "data": b"0006612000"}
    assert card_read(event, serial="line", reader=1, format_37="H10302").number == "6612000"
