from __future__ import annotations

import pytest

from device_drivers.isapi.session import OVERLAP, LogPosition


@pytest.mark.parametrize("cursor", [None, b"", b"\xff", b"[]", b'{"last": "7"}', b'{"last": -1}', b'{"last": true}'])
def test_an_unreadable_cursor_means_everything(cursor: bytes | None) -> None:
    assert LogPosition.from_cursor(cursor) == LogPosition()
    assert LogPosition().search(newest=5, total=5, by_serial=True) == (0, {})


def test_a_cursor_round_trips() -> None:
    assert LogPosition.from_cursor(LogPosition(70).cursor()) == LogPosition(70)


def test_searching_always_overlaps() -> None:
    assert LogPosition(100).search(newest=120, total=120, by_serial=True) == (
        0,
        {"beginSerialNo": 100 - OVERLAP, "endSerialNo": 120},
    )
    assert LogPosition(100).search(newest=120, total=90, by_serial=False) == (90 - 20 - OVERLAP, {})
    assert LogPosition(3).search(newest=4, total=4, by_serial=False) == (0, {})


def test_gaps_and_resets_are_noticed() -> None:
    assert not LogPosition(10).is_gap(11)
    assert not LogPosition(10).is_gap(9)
    assert LogPosition(10).is_gap(12)
    assert LogPosition(100).is_gap(1)
    assert LogPosition().is_gap(1)
    assert LogPosition(10).was_reset(9)
    assert not LogPosition(10).was_reset(10)


def test_the_position_never_goes_back() -> None:
    assert LogPosition(10).after(9) == LogPosition(10)
    assert LogPosition(10).after(None) == LogPosition(10)
    assert LogPosition(10).after(11) == LogPosition(11)
