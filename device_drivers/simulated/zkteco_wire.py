"""Bytes of a simulated ZKTeco terminal: written apart from the driver's codec, so that one can judge the other."""

from __future__ import annotations

import struct
from datetime import datetime

from device_drivers.zkteco.codes import TCP_MAGIC

HEAD = struct.Struct("<4H")
MAX_REQUEST = 64 * 1024


def words_sum(body: bytes) -> int:
    """One's complement of the folded sum of 16-bit words, an odd byte counting as a low one."""
    even = body + b"\0" * (len(body) % 2)
    total: int = sum(struct.unpack(f"<{len(even) // 2}H", even))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(command: int, session: int, reply_no: int, payload: bytes = b"") -> bytes:
    mark = words_sum(HEAD.pack(command, 0, session, reply_no) + payload)
    return HEAD.pack(command, mark, session, reply_no) + payload


def with_top(body: bytes) -> bytes:
    return TCP_MAGIC + len(body).to_bytes(4, "little") + body


def is_sound(body: bytes) -> bool:
    """Whether a packet's checksum is right; the sum over everything, mark included, is then all ones."""
    return len(body) >= HEAD.size and words_sum(body) == 0


def pack_clock(when: datetime) -> int:
    return (
        ((when.year % 100) * 12 * 31 + (when.month - 1) * 31 + when.day - 1) * 86_400
        + when.hour * 3600
        + when.minute * 60
        + when.second
    )


def unpack_clock(value: int) -> datetime:
    days, seconds = divmod(value, 86_400)
    months, day = divmod(days, 31)
    return datetime(  # noqa: DTZ001 - a terminal's clock has no zone
        2000 + months // 12, months % 12 + 1, day + 1, seconds // 3600, seconds // 60 % 60, seconds % 60
    )


def six_bytes(when: datetime) -> bytes:
    return bytes((when.year % 100, when.month, when.day, when.hour, when.minute, when.second))


def masked_key(comm_key: int, session: int, ticks: int) -> bytes:
    """What a client that knows the communication key sends to AUTH; `ticks` is the byte it chose."""
    mirrored = 0
    for bit in range(32):
        mirrored = mirrored << 1 | (comm_key >> bit & 1)
    mixed = bytearray(((mirrored + session) & 0xFFFFFFFF).to_bytes(4, "little"))
    for place, letter in enumerate(b"ZKSO"):
        mixed[place] ^= letter
    swapped = bytearray(mixed[2:] + mixed[:2])
    for place in range(4):
        swapped[place] ^= ticks
    swapped[2] = ticks
    return bytes(swapped)
