from __future__ import annotations

from datetime import UTC, datetime

import pytest

from device_drivers.adms.gate import MAX_BUCKETS, MAX_PENDING, Buckets, Gate, Verdict

NOW = datetime(2026, 6, 19, 8, tzinfo=UTC)


def test_a_listed_device_speaks_and_a_stranger_waits() -> None:
    gate = Gate()
    gate.admit("A1")
    assert gate.judge("A1", "192.0.2.1", 0.0) is Verdict.ALLOWED
    assert gate.judge("B2", "192.0.2.2", 0.0) is Verdict.UNKNOWN
    gate.remember("B2", "192.0.2.2", NOW, push_version="2.4.1")
    gate.remember("B2", "192.0.2.3", NOW)
    [pending] = gate.pending()
    assert (pending.serial, pending.address, pending.calls, pending.push_version) == ("B2", "192.0.2.3", 2, "2.4.1")
    gate.admit("B2")
    assert gate.pending() == []


@pytest.mark.parametrize(
    ("address", "verdict"),
    [
        ("192.0.2.9", Verdict.ALLOWED),
        ("::ffff:192.0.2.9", Verdict.ALLOWED),
        ("198.51.100.1", Verdict.WRONG_ADDRESS),
        ("", Verdict.WRONG_ADDRESS),
    ],
)
def test_a_pinned_device_speaks_from_its_network_alone(address: str, verdict: Verdict) -> None:
    gate = Gate()
    gate.admit("A1", ["192.0.2.0/24"])
    assert gate.judge("A1", address, 0.0) is verdict


def test_a_flood_in_a_devices_name_from_elsewhere_does_not_use_up_its_rate() -> None:
    gate = Gate(rate=1.0, burst=3.0)
    gate.admit("A1", ["192.0.2.1"])
    for _ in range(500):
        gate.judge("A1", "203.0.113.5", 0.0)
    assert gate.judge("A1", "192.0.2.1", 0.0) is Verdict.ALLOWED


def test_ten_thousand_unknown_serial_numbers_are_bounded() -> None:
    gate = Gate()
    gate.remember("REAL", "192.0.2.1", NOW)
    for number in range(10_000):
        gate.judge(f"X{number}", f"203.0.113.{number % 250}", number / 1000)
        gate.remember(f"X{number}", "203.0.113.5", NOW)
    assert len(gate.pending()) == MAX_PENDING
    assert gate.pending()[0].serial == "REAL"
    assert gate.turned_away > 9000


def test_a_source_of_strangers_alone_is_shut_out_for_a_while() -> None:
    gate = Gate()
    gate.admit("A1")
    gate.judge("A1", "192.0.2.1", 0.0)
    for number in range(100):
        gate.judge(f"X{number}", "203.0.113.5", 0.0)
        gate.judge(f"X{number}", "192.0.2.1", 0.0)
    assert gate.shut_out("203.0.113.5", 0.0)
    assert not gate.shut_out("203.0.113.5", 2.0)
    assert not gate.shut_out("192.0.2.1", 0.0)  # a listed device shares this address


def test_buckets_refill_and_forget_the_oldest() -> None:
    buckets = Buckets(rate=2.0, burst=2.0)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [True, True, False]
    assert buckets.take("a", 0.5)
    for number in range(MAX_BUCKETS + 10):
        buckets.take(str(number), 1.0)
    assert len(buckets) == MAX_BUCKETS


def test_no_serial_number_is_no_name() -> None:
    gate = Gate()
    for serial in ("", "a b", "x" * 33, "../etc"):
        assert gate.judge(serial, "192.0.2.1", 0.0) in {Verdict.MALFORMED, Verdict.TOO_MANY}
        with pytest.raises(ValueError, match="serial number"):
            gate.admit(serial)
