from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zk.base import make_commkey

from device_drivers.errors import ProtocolError
from device_drivers.zkteco.codes import Command, Table
from device_drivers.zkteco.frame import StreamDecoder
from device_drivers.zkteco.messages import (
    MAX_TABLE,
    FreeSizes,
    bulk_request,
    bulk_size,
    option_request,
    option_value,
    scramble_key,
    single_template,
    split_templates,
)
from tests.shared_data import shared


def payload_of(wire: str) -> bytes:
    (frame,) = StreamDecoder().feed(bytes.fromhex(wire))
    return frame.payload


def test_options_are_asked_and_answered_as_captured() -> None:
    assert payload_of("5050827d120000000b00b9e6f38d0c007e506c6174666f726d00") == option_request("~Platform")
    assert option_value(payload_of("5050827d1d000000d007714cf38d0c007e506c6174666f726d3d5a454d3736305f54465400")) == (
        "ZEM760_TFT"
    )
    assert option_value(payload_of("5050827d13000000d007828af38d0b00576f726b436f64653d3000")) == "0"


@pytest.mark.parametrize(
    ("payload", "value"), [(b"~SerialNumber==ABC\0", "ABC"), (b"Ver 6.60\0\xff", "Ver 6.60"), (b"", ""), (b"X=\0", "")]
)
def test_option_answers_of_odd_firmware(payload: bytes, value: str) -> None:
    assert option_value(payload) == value


def test_the_bulk_request_is_the_one_on_the_wire() -> None:
    assert bulk_request(Command.USERTEMP_RRQ, Table.USER).hex() == "0109000500000000000000"  # pyzk #111, zk-protocol
    assert bulk_request(Command.DB_RRQ, Table.FINGERTMP).hex() == "0107000200000000000000"


def test_the_sizes_of_an_f18_are_read_as_its_owner_reports_them() -> None:
    vectors = json.loads(shared("vectors", "field_reports_from_issues.json").read_text("utf-8"))["vectors"]
    wire = next(v["hex"] for v in vectors if "CMD_GET_FREE_SIZES payload" in v["what"])
    sizes = FreeSizes.decode(bytes.fromhex(wire))
    assert (sizes.users, sizes.max_users) == (3, 5000)
    assert (sizes.fingers, sizes.max_fingers) == (3, 3000)
    assert (sizes.records, sizes.max_records) == (58, 100_000)
    assert (sizes.faces, sizes.max_faces) == (0, 0)


@given(st.binary(max_size=120))
def test_any_sizes_answer_decodes_without_negative_counts(payload: bytes) -> None:
    sizes = FreeSizes.decode(payload)
    assert min(sizes.users, sizes.fingers, sizes.records) >= 0


@given(st.integers(0, 2**31 - 1), st.integers(0, 0xFFFF))
def test_the_communication_key_is_scrambled_as_pyzk_does(comm_key: int, session: int) -> None:
    try:
        theirs = make_commkey(comm_key, session)
    except struct.error:  # pyzk overflows where the terminal wraps
        return
    assert scramble_key(comm_key, session) == theirs


@pytest.mark.parametrize("comm_key", [-1, 2**32])
def test_a_key_that_is_no_key_is_refused(comm_key: int) -> None:
    with pytest.raises(ValueError, match="communication key"):
        scramble_key(comm_key, 1)


def test_a_hostile_table_size_is_refused() -> None:
    with pytest.raises(ProtocolError, match="announced"):
        bulk_size(b"\0" + (MAX_TABLE + 1).to_bytes(4, "little") + bytes(8))
    with pytest.raises(ProtocolError, match="2 bytes"):
        bulk_size(b"\0\0")


def test_a_template_entry_of_the_documents_says_whose_it_is() -> None:
    head = bytes.fromhex("c4040e0004014dfd53533231000004bebe0408050709ced0")
    (entry,) = split_templates(head.ljust(0x04C4, b"\x55"))
    assert (entry.uid, entry.finger, entry.flag, len(entry.payload)) == (14, 4, 1, 0x04C4 - 6)


def test_a_single_template_loses_what_the_terminal_adds() -> None:
    body = bytes.fromhex("4dfd53533231000004be").ljust(0x04BE, b"\x55")
    assert single_template(body + bytes(6) + b"\x01") == body
    other = b"\x4a\xcd" + bytes(range(1, 200))  # an algorithm that says no length
    assert single_template(other + bytes(6) + b"\x01") == other


@pytest.mark.parametrize("table", [b"\x05\0\x01\0\x02\x01", b"\xff\xff\x01\0\x02\x01abc", b"\x08\0\x01"])
def test_a_template_length_that_lies_raises(table: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(split_templates(table))


def test_templates_show_in_no_repr() -> None:
    (entry,) = split_templates(b"\x0a\0\x01\0\x02\x01abcd")
    assert "abcd" not in repr(entry)
