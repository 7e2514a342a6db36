"""What a simulated ZKTeco terminal remembers: users, templates and the attendance log, in its firmware's sizes."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from datetime import datetime

from device_drivers.simulated.zkteco_wire import pack_clock, six_bytes
from device_drivers.zkteco.codes import (
    ATTLOG_SIZES,
    FREE_SIZES_LEN,
    LIVE_SIZES,
    SIZES_FINGERS,
    SIZES_MAX_FINGERS,
    SIZES_MAX_RECORDS,
    SIZES_MAX_USERS,
    SIZES_RECORDS,
    SIZES_USERS,
    USER_SIZES,
)

LIVE_FOR_RECORD = {8: 12, 16: 12, 40: 32, 49: 52}  # live event sizes of the same generation of firmware


@dataclass(slots=True)
class Memory:
    """Tables as bytes, as they are served. `packed_status` is ZEM500's 8-byte record."""

    record_size: int = 40
    user_size: int = 72
    live_size: int = 0  # 0: the one that goes with record_size
    packed_status: bool = False
    code_page: str = "utf-8"
    max_records: int = 100_000
    max_users: int = 5_000
    max_templates: int = 3_000
    log: bytearray = field(default_factory=bytearray, repr=False)
    users: dict[int, bytes] = field(default_factory=dict, repr=False)  # uid -> entry
    uids: dict[str, int] = field(default_factory=dict, repr=False)  # user id -> uid
    templates: dict[tuple[int, int], tuple[int, bytes]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.live_size = self.live_size or LIVE_FOR_RECORD.get(self.record_size, 0)
        for name, value, allowed in (
            ("record_size", self.record_size, ATTLOG_SIZES),
            ("user_size", self.user_size, USER_SIZES),
            ("live_size", self.live_size, LIVE_SIZES),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value}; it must be one of {allowed}")

    @property
    def records(self) -> int:
        return len(self.log) // self.record_size

    @property
    def full(self) -> bool:
        return self.records >= self.max_records

    def add_user(self, user_id: str, *, name: str, card: int, pin: str, privilege: int) -> int:
        uid = self.uids.get(user_id) or max(self.users, default=0) + 1
        text = name.encode(self.code_page)
        if self.user_size == 28:
            entry = struct.pack(
                "<HB5s8sIxBhI", uid, privilege, pin.encode(), text[:8], card, 1, 0, int(user_id)
            )  # fmt: skip
        else:
            entry = struct.pack(
                "<HB8s24sIB8x24s", uid, privilege, pin.encode(), text[:23], card, 1, user_id.encode()
            )  # fmt: skip
        self.put_user(entry)
        return uid

    def put_user(self, entry: bytes) -> bool:
        """Store an entry a client wrote. False if it is of another size, or there is no room."""
        if len(entry) != self.user_size:
            return False
        uid = int.from_bytes(entry[:2], "little")
        if uid not in self.users and len(self.users) >= self.max_users:
            return False
        self.delete_user(uid, keep_templates=True)
        self.users[uid] = entry
        self.uids[self._user_id(entry)] = uid
        return True

    def delete_user(self, uid: int, *, keep_templates: bool = False) -> bool:
        entry = self.users.pop(uid, None)
        if entry is None:
            return False
        self.uids.pop(self._user_id(entry), None)
        if not keep_templates:
            for key in [key for key in self.templates if key[0] == uid]:
                del self.templates[key]
        return True

    def _user_id(self, entry: bytes) -> str:
        if self.user_size == 28:
            return str(int.from_bytes(entry[24:28], "little"))
        return entry[48:72].split(b"\0", 1)[0].decode("ascii", "replace")

    def append(self, user_id: str, verify: int, state: int, packed_time: int) -> bool:
        """Add a record; False once the log is full."""
        if self.full:
            return False
        uid = self.uids.get(user_id, 0)
        if self.record_size == 8:
            uid = uid or _number(user_id) & 0xFFFF
            if self.packed_status:
                self.log += struct.pack("<HBBI", uid, state << 4 | verify & 0x0F, 0, packed_time)
            else:
                self.log += struct.pack("<HBIB", uid, verify, packed_time, state)
        elif self.record_size == 16:
            self.log += struct.pack("<IIBB6x", _number(user_id), packed_time, verify, state)
        else:
            body = struct.pack("<H24sBIB", uid, user_id.encode(), verify, packed_time, state)
            self.log += body.ljust(self.record_size, b"\0")
        return True

    def live_event(self, user_id: str, verify: int, state: int, when: datetime) -> bytes:
        tail = bytes((verify, state)) + six_bytes(when)
        if self.live_size >= 32:
            head = user_id.encode().ljust(24, b"\0")
        elif self.live_size == 12:
            head = _number(user_id).to_bytes(4, "little")
        else:
            head = (self.uids.get(user_id) or _number(user_id) & 0xFFFF).to_bytes(2, "little")
        return (head + tail).ljust(self.live_size, b"\0")

    def fill(self, start: datetime) -> None:
        """Punches of nobody in particular until the log is full."""
        first = pack_clock(start.replace(hour=0, minute=0, second=0, microsecond=0))
        known = list(self.uids) or ["1"]
        for index in range(self.max_records - self.records):
            self.append(known[index % len(known)], 1, index % 2, first + index % 86_400)

    def sizes(self, *, records: int | None, users: int | None) -> bytes:
        fields = [0] * (FREE_SIZES_LEN // 4)
        fields[SIZES_USERS] = len(self.users) if users is None else users
        fields[SIZES_FINGERS] = len(self.templates)
        fields[SIZES_RECORDS] = self.records if records is None else records
        fields[SIZES_MAX_FINGERS] = self.max_templates
        fields[SIZES_MAX_USERS] = self.max_users
        fields[SIZES_MAX_RECORDS] = self.max_records
        fields[17] = self.max_templates - len(self.templates)
        fields[18] = self.max_users - len(self.users)
        fields[19] = self.max_records - self.records
        return struct.pack(f"<{len(fields)}i", *fields)

    def user_table(self) -> bytes:
        return b"".join(self.users[uid] for uid in sorted(self.users))

    def template_table(self) -> bytes:
        return b"".join(
            struct.pack("<HHBB", len(payload) + 6, uid, finger, flag) + payload
            for (uid, finger), (flag, payload) in sorted(self.templates.items())
        )


def factory_options(serial: str, host: str, memory: Memory) -> dict[str, str]:
    """What a terminal answers to OPTIONS_RRQ before anybody changed anything."""
    return {
        "~SerialNumber": serial,
        "~DeviceName": "F18-SIM",
        "~Platform": "ZEM500" if memory.packed_status else "ZMM210_TFT",
        "~ZKFPVersion": "10",
        "~OS": "1",
        "MAC": "00:17:61:00:00:01",
        "LockOn": "5",
        "FaceFunOn": "0",
        "Language": "69",
        "IPAddress": host,
        "NetMask": "255.255.255.0",
        "GATEIPAddress": "",
    }


def _number(user_id: str) -> int:
    return int(user_id) & 0xFFFFFFFF if user_id.isdecimal() else 0
