# ruff: noqa: DTZ001 - a terminal's readings have no zone
from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_drivers.zkteco.device_clock import date_of, pack_time, read_six, unpack_six, unpack_time


@pytest.mark.parametrize(
    ("packed", "when"),
    [
        (0x2368B36B, datetime(2018, 6, 25, 17, 50, 35)),  # zk-protocol, data-record.md
        (0x1EA7EBA8, datetime(2016, 1, 1, 19, 2, 0)),  # pyzk #99: device-local readings
        (0x1EA7EC4B, datetime(2016, 1, 1, 19, 4, 43)),
        (0x1EA7EC4E, datetime(2016, 1, 1, 19, 4, 46)),
        (0, datetime(2000, 1, 1)),
    ],
)
def test_packed_times_of_the_field(packed: int, when: datetime) -> None:
    assert unpack_time(packed) == when
    assert pack_time(when) == packed


def test_a_live_event_writes_its_time_in_six_bytes() -> None:
    assert read_six(bytes.fromhex("120619112905")) == (2018, 6, 25, 17, 41, 5)  # zk-protocol, realtime.md


@pytest.mark.parametrize("six", ["000000000000", "1a0d01000000", "1a021e000000", "1a0101190000", "1a0101003c00"])
def test_six_bytes_that_are_no_date_are_none(six: str) -> None:
    assert date_of(read_six(bytes.fromhex(six))) is None


def test_the_thirty_first_of_february_is_none() -> None:
    # Every month has 31 days in the packed form, so such dates can be written.
    packed = pack_time(datetime(2026, 2, 28)) + 3 * 86_400
    assert unpack_time(packed) is None
    assert unpack_six(packed) == read_six(bytes((26, 2, 31, 0, 0, 0)))


@pytest.mark.parametrize("when", [datetime(1999, 12, 31), datetime(2134, 1, 1)])
def test_a_year_the_clock_cannot_hold_is_refused(when: datetime) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        pack_time(when)


@given(st.integers(0, 0xFFFFFFFF))
def test_whatever_decodes_encodes_to_the_same_number(packed: int) -> None:
    when = unpack_time(packed)
    assert when is None or pack_time(when) == packed
