from __future__ import annotations

import pytest

from device_drivers.isapi.session import LogPosition


@pytest.mark.parametrize("cursor", [None, b"", b"\xff", b"[]", b'{"last": "7"}', b'{"last": -1}', b'{"last": true}'])
def test_an_unreadable_cursor_means_everything(cursor: bytes | None) -> None:
    assert LogPosition.from_cursor(cursor) == LogPosition()


def test_a_cursor_round_trips() -> None:
    position = LogPosition(70, "2026-06-19 08:00:00 75", "DS-1")
    assert LogPosition.from_cursor(position.cursor()) == position


def test_a_cursor_of_an_earlier_version_is_a_number_alone() -> None:
    position = LogPosition.from_cursor(b'{"last": 70}')
    assert position == LogPosition(70)
    assert position.is_of("DS-1")
    assert position.is_in({70: "whatever it says"})


def test_another_log_is_noticed_by_its_terminal_or_by_the_record_behind_the_number() -> None:
    position = LogPosition(70, "then 75", "DS-1")
    assert position.is_in({70: "then 75", 71: "later 75"})
    assert not position.is_in({70: "later 75"})
    assert not position.is_in({71: "then 75"})
    assert not position.is_of("DS-2")
    assert not LogPosition().is_in({70: "then 75"})


def test_the_position_never_goes_back() -> None:
    position = LogPosition(10, "then", "DS-1")
    assert position.after({}, serial="DS-1") == position
    assert position.after({9: "a", 10: "b"}, serial="DS-1") == position
    assert position.after({12: "c", 11: "b"}, serial="DS-1") == LogPosition(12, "c", "DS-1")
    assert LogPosition().after({0: "a"}, serial="DS-1") == LogPosition(0, "a", "DS-1")
