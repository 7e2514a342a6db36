"""Card numbers, reasons and permissions as tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_drivers.devices import DeviceUser
from device_drivers.events import DoorEventKind
from device_drivers.uhppote.messages import REASONS, Entry, card_value, door_event, permissions, shown_number


@given(st.integers(1, 0xFFFFFF))
def test_wiegand_26_numbers_go_there_and_back(value: int) -> None:
    assert card_value(shown_number(str(value), "wiegand-26"), "wiegand-26") == str(value)


@given(st.integers(1, 0xFFFFFFFE))
def test_wiegand_34_numbers_stay_as_they_are(value: int) -> None:
    assert shown_number(str(value), "wiegand-34") == value
    assert card_value(value, "wiegand-34") == str(value)


def test_a_number_no_wiegand_26_card_can_show_is_kept() -> None:
    assert card_value(3922570474, "wiegand-26") == "3922570474"


@given(
    st.builds(
        Entry, st.integers(0, 2**32 - 1), st.integers(0, 255), st.booleans(), st.integers(0, 255), st.integers(0, 255),
        st.integers(0, 2**32 - 1), st.none() | st.datetimes(), st.integers(0, 255),
    )
)  # fmt: skip
def test_any_log_entry_becomes_an_event_that_keeps_its_code(entry: Entry) -> None:
    event = door_event(entry, serial="1", card_format="wiegand-26")
    assert (event.reason_code, event.record_no, event.device_time) == (entry.reason, entry.index, entry.timestamp)
    assert event.kind is not DoorEventKind.GRANTED or entry.granted
    if entry.reason not in REASONS:
        assert event.kind is DoorEventKind.OTHER


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (DeviceUser("1", doors=(1, 3)), {1: 1, 2: 0, 3: 1, 4: 0}),
        (DeviceUser("1", doors=(2,), schedule=29), {1: 0, 2: 29, 3: 0, 4: 0}),
        (DeviceUser("1", doors=(1, 2), enabled=False), {1: 0, 2: 0, 3: 0, 4: 0}),
        (DeviceUser("1"), {1: 0, 2: 0, 3: 0, 4: 0}),
    ],
)
def test_permissions_follow_doors_and_schedule(user: DeviceUser, expected: dict[int, int]) -> None:
    assert permissions(user, 4) == expected
