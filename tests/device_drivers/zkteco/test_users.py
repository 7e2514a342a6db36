from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_drivers.devices import DeviceUser
from device_drivers.errors import ProtocolError
from device_drivers.zkteco.frame import StreamDecoder
from device_drivers.zkteco.users import CodePage, UserRecord, merge, split_users

NED = bytes.fromhex(
    "0d000034343400c69a807c4e6564000000000000000000000000000000000000000000de0000000201000100020000003535350000"
    "00000000000000000000000000000000000000"
)
NUEVO = (
    "5050827d500000000800fc579d8a5c000e0006313233343536007c4e7565766f000000000000000000000000000000000000008f1900"
    "00010000000000000000313132323434383800000000000000000000000000000000"
)
UTF8 = CodePage()


def entry(uid: int, user_id: str, *, size: int) -> bytes:
    return UserRecord(uid=uid, user_id=user_id, name=b"N").encode(size)


def test_the_documented_user_is_read_as_stated() -> None:
    record = UserRecord.decode(NED)
    assert (record.uid, record.user_id, record.card) == (13, "555", 0xDE)
    user = record.user(UTF8)
    assert (user.name, user.pin, user.card) == ("Ned", "444", "222")
    assert (record.group, record.zones) == (2, (1, 1, 2, 0))


def test_the_documented_new_entry_is_read_as_stated() -> None:
    (frame,) = StreamDecoder().feed(bytes.fromhex(NUEVO))
    record = UserRecord.decode(frame.payload)
    user = record.user(UTF8)
    assert (record.uid, user.user_id, user.name, user.pin) == (14, "11224488", "Nuevo", "123456")
    assert (user.privilege, user.enabled, user.card) == (6, True, "6543")
    assert (record.group, record.zones) == (1, (0, 0, 0, 0))


def test_an_entry_that_changes_nothing_is_written_as_it_was_read() -> None:
    (frame,) = StreamDecoder().feed(bytes.fromhex(NUEVO))
    stored = UserRecord.decode(frame.payload)
    again = merge(stored.user(UTF8), uid=14, size=72, code_page=UTF8, stored=stored).encode(72)
    # Byte 10 is after the PIN's end: the F19 left a letter there, and nobody reads it.
    assert again[:10] + again[11:] == frame.payload[:10] + frame.payload[11:]


@pytest.mark.parametrize("size", [28, 72])
@pytest.mark.parametrize("count", [1, 2, 7, 18, 36, 1001])
def test_user_tables_of_both_sizes_are_split(size: int, count: int) -> None:
    table = b"".join(entry(i + 1, str(5000 + i), size=size) for i in range(count))
    for told in (count, 0, count + 1):
        users = split_users(table, count=told)
        assert [user.user_id for user in users] == [str(5000 + i) for i in range(count)]


def test_a_table_that_fits_no_entry_size_raises() -> None:
    with pytest.raises(ProtocolError, match="fits no layout"):
        split_users(bytes(71), count=0)
    assert split_users(b"", count=3) == []


def test_a_disabled_administrator_keeps_both_facts() -> None:
    user = DeviceUser("9", privilege=14, enabled=False)
    wire = merge(user, uid=9, size=72, code_page=UTF8, stored=None).encode(72)
    assert wire[2] == 0x0F
    back = UserRecord.decode(wire).user(UTF8)
    assert (back.privilege, back.enabled) == (14, False)


@pytest.mark.parametrize(
    ("user", "size", "says"),
    [
        (DeviceUser("abc"), 28, "numbers up to"),
        (DeviceUser("x" * 24), 72, "1 to 23"),
        (DeviceUser("张三"), 72, "ASCII"),
        (DeviceUser("1", pin="123456"), 28, "at most 5"),
        (DeviceUser("1", pin="12a"), 72, "digits"),
        (DeviceUser("1", card="4294967296"), 72, "card number"),
        (DeviceUser("1", privilege=15), 72, "privilege"),
        (DeviceUser("1", valid_until=datetime(2027, 1, 1, tzinfo=UTC)), 72, "validity"),
    ],
)
def test_what_the_terminal_cannot_hold_is_refused_in_words(user: DeviceUser, size: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        merge(user, uid=1, size=size, code_page=UTF8, stored=None).encode(size)


def test_a_refusal_never_says_the_pin_or_the_card() -> None:
    for user in (DeviceUser("1", pin="98765432109"), DeviceUser("1", card="98765432109")):
        with pytest.raises(ValueError) as refused:
            merge(user, uid=1, size=72, code_page=UTF8, stored=None)
        assert "98765" not in str(refused.value)


@given(st.binary(max_size=600), st.integers(-1, 30))
def test_any_user_table_raises_only_protocol_errors(data: bytes, count: int) -> None:
    try:
        for record in split_users(data, count=count):
            record.user(UTF8)
    except ProtocolError:
        pass


@given(st.text(max_size=40), st.sampled_from(["utf-8", "gbk", "gb2312", ""]), st.sampled_from([8, 23]))
def test_names_are_cut_between_characters(name: str, encoding: str, size: int) -> None:
    page = CodePage(encoding)
    try:
        data = page.encode(name, size)
    except ValueError:
        return
    assert len(data) <= size
    assert name.encode(encoding or "utf-8").startswith(data)
    data.decode(encoding or "utf-8")
