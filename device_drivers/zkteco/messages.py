"""Payloads of single ZKTeco 4370 requests and replies: options, sizes, comm key, bulk reads, templates.

Sources: adrobinoga/zk-protocol, sections/terminal.md, data.md, ex_data.md, data-user.md; the comm key
scramble is what captures of terminals with a key show (pyzk `make_commkey` agrees).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from device_drivers.errors import ProtocolError
from device_drivers.zkteco.codes import (
    SIZES_FACES,
    SIZES_FINGERS,
    SIZES_MAX_FACES,
    SIZES_MAX_FINGERS,
    SIZES_MAX_RECORDS,
    SIZES_MAX_USERS,
    SIZES_RECORDS,
    SIZES_USERS,
    Command,
    Table,
)

MAX_TABLE = 64 * 1024 * 1024  # 1,000,000 records of 49 bytes fit; nothing a terminal stores is larger
MAX_TEMPLATE = 0xFFFF - 6
_KEY_MASK = b"ZKSO"
_TICKS = 50
_U32 = struct.Struct("<I")
_BULK = struct.Struct("<BHII")
_READY = struct.Struct("<II")
_TEMPLATE_ENTRY = struct.Struct("<HHBB")
_TEMPLATE_WRITE = struct.Struct("<HBBH")


def scramble_key(comm_key: int, session: int, *, ticks: int = _TICKS) -> bytes:
    """Answer to an unauthorised connect: the key's bits reversed, plus the session, masked twice."""
    if not 0 <= comm_key <= 0xFFFFFFFF:
        raise ValueError("the communication key must be a number from 0 to 4294967295")
    reversed_key = int(f"{comm_key:032b}"[::-1], 2)
    _, b, c, d = (x ^ y for x, y in zip(_U32.pack((reversed_key + session) & 0xFFFFFFFF), _KEY_MASK, strict=True))
    return bytes((c ^ ticks, d ^ ticks, ticks, b ^ ticks))


def option_request(name: str) -> bytes:
    return name.encode("ascii") + b"\0"


def option_value(payload: bytes) -> str:
    """`~SerialNumber=ABC\\0` -> `ABC`; some firmware answers the value alone, or with a second `=`."""
    text = payload.split(b"\0", 1)[0].decode("utf-8", "replace")
    return text.partition("=")[2].lstrip("=").strip() if "=" in text else text.strip()


@dataclass(frozen=True, slots=True)
class FreeSizes:
    """What the terminal says it stores and can store. Counts may be wrong: zero is no proof (pyzk #76, #170, #215)."""

    users: int = 0
    fingers: int = 0
    records: int = 0
    max_fingers: int | None = None
    max_users: int | None = None
    max_records: int | None = None
    faces: int | None = None
    max_faces: int | None = None

    @classmethod
    def decode(cls, payload: bytes) -> FreeSizes:
        """Shorter answers, one zero DWORD at the least, leave the rest unknown. Negative counts read as zero."""
        whole = len(payload) // 4
        fields = [max(0, value) for value in struct.unpack(f"<{whole}i", payload[: whole * 4])]

        def at(index: int) -> int | None:
            return fields[index] if index < whole else None

        return cls(
            users=at(SIZES_USERS) or 0,
            fingers=at(SIZES_FINGERS) or 0,
            records=at(SIZES_RECORDS) or 0,
            max_fingers=at(SIZES_MAX_FINGERS),
            max_users=at(SIZES_MAX_USERS),
            max_records=at(SIZES_MAX_RECORDS),
            faces=at(SIZES_FACES),
            max_faces=at(SIZES_MAX_FACES),
        )


def u32(value: int) -> bytes:
    return _U32.pack(value)


def read_u32(payload: bytes) -> int:
    if len(payload) < _U32.size:
        raise ProtocolError(f"a reply of {len(payload)} bytes where a 32-bit number belongs")
    return int(_U32.unpack_from(payload)[0])


def bulk_request(command: Command, table: Table) -> bytes:
    """Payload of DATA_WRRQ: have this table ready to be read in chunks."""
    return _BULK.pack(1, command, table, 0)


def bulk_size(payload: bytes) -> int:
    """Size of the prepared table, from the reply to DATA_WRRQ. Raises ProtocolError beyond MAX_TABLE."""
    if len(payload) < 5:
        raise ProtocolError(f"a bulk answer of {len(payload)} bytes")
    size = read_u32(payload[1:])
    if size > MAX_TABLE:
        raise ProtocolError(f"a table of {size} bytes is announced; allowed are {MAX_TABLE}")
    return size


def chunk_request(start: int, size: int) -> bytes:
    return _READY.pack(start, size)


@dataclass(frozen=True, slots=True)
class TemplateEntry:
    """One fingerprint template as the terminal stores it; the payload is opaque."""

    uid: int
    finger: int
    flag: int  # 0 invalid, 1 valid, 3 duress
    payload: bytes = field(repr=False)


def split_templates(table: bytes) -> Iterator[TemplateEntry]:
    """Entries of a template table without its size prefix. Raises ProtocolError at a length that lies."""
    start = 0
    while start < len(table):
        if len(table) - start < _TEMPLATE_ENTRY.size:
            raise ProtocolError(f"{len(table) - start} bytes are left over after the last template")
        size, uid, finger, flag = _TEMPLATE_ENTRY.unpack_from(table, start)
        if size < _TEMPLATE_ENTRY.size or start + size > len(table):
            raise ProtocolError(f"a template entry of {size} bytes where {len(table) - start} are left")
        yield TemplateEntry(uid, finger, flag, table[start + _TEMPLATE_ENTRY.size : start + size])
        start += size


def single_template(data: bytes) -> bytes:
    """The template in an answer to GET_USERTEMP, which adds bytes of its own after it.

    A template of algorithm 10 says its length after the letters SS21; for others one byte and six zeros are dropped.
    """
    if data[2:6] == b"SS21" and len(data) >= 10:
        length = int.from_bytes(data[8:10], "big")
        if 10 <= length <= len(data):
            return data[:length]
    return data[:-1].removesuffix(bytes(6))


def u16(value: int) -> bytes:
    return struct.pack("<H", value)


def template_key(uid: int, finger: int) -> bytes:
    return struct.pack("<HB", uid, finger)


def template_write(uid: int, finger: int, flag: int, size: int) -> bytes:
    return _TEMPLATE_WRITE.pack(uid, finger, flag, size)


def delete_finger(user_id: str, finger: int) -> bytes:
    return user_id.encode("ascii").ljust(24, b"\0") + bytes((finger,))
