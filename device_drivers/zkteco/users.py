"""Users as terminals store them, 28 or 72 bytes, and names in the terminal's code page.

Sources: adrobinoga/zk-protocol, sections/data-user.md (72 bytes: group at 39, own time zones at 40);
field reports of the 28-byte form. A group written as text into the time zone bytes makes the terminal
answer "invalid time period" (pyzk #124), so those bytes are kept as they were, or zero.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

from device_drivers.devices import DeviceUser
from device_drivers.errors import ProtocolError
from device_drivers.zkteco.codes import PRIVILEGE_DISABLED, USER_SIZES

_U28 = struct.Struct("<HB5s8sIxBhI")
_U72 = struct.Struct("<HB8s24sIBHHHH24s")
MAX_CARD = 0xFFFFFFFF
MAX_UID = 0xFFFE
MAX_ENTRY = 512
LANGUAGE_CHINESE = "83"  # the terminal's `Language` option: the letter S, simplified Chinese


@dataclass(frozen=True, slots=True)
class CodePage:
    """How one terminal writes names. Without an order, names are read as UTF-8 and, failing that, GBK."""

    encoding: str = ""

    def decode(self, data: bytes) -> str:
        text = data.split(b"\0", 1)[0]
        if self.encoding:
            return text.decode(self.encoding, "replace").strip()
        try:
            return text.decode("utf-8").strip()
        except UnicodeDecodeError:
            return text.decode("gbk", "replace").strip()

    def encode(self, text: str, size: int) -> bytes:
        """At most `size` bytes, never half a character. Raises ValueError for one the code page lacks."""
        encoding = self.encoding or "utf-8"
        try:
            data = text.encode(encoding)
        except UnicodeEncodeError as exc:
            raise ValueError(f"the name has a character that {encoding} lacks") from exc
        while len(data) > size:
            text = text[:-1]
            data = text.encode(encoding)
        return data


@dataclass(frozen=True, slots=True)
class UserRecord:
    """One user entry; `uid` is the terminal's internal number."""

    uid: int
    user_id: str
    privilege: int = 0
    password: bytes = field(default=b"", repr=False)
    name: bytes = field(default=b"", repr=False)
    card: int = field(default=0, repr=False)
    group: int = 1
    zones: tuple[int, int, int, int] = (0, 0, 0, 0)  # own-zones flag and three zone numbers; 28 bytes: the first

    def encode(self, size: int) -> bytes:
        """Raises ValueError if a field does not fit a `size`-byte entry."""
        if not 0 < self.uid <= MAX_UID:
            raise ValueError(f"internal user number {self.uid} is not 1 to {MAX_UID}")
        if size == 28:
            if not self.user_id.isdecimal() or int(self.user_id) > 0xFFFFFFFF:
                raise ValueError(f"user id {self.user_id!r}: this terminal takes numbers up to 4294967295 only")
            return _U28.pack(
                self.uid, self.privilege, self.password, self.name, self.card, self.group, self.zones[0],
                int(self.user_id),
            )  # fmt: skip
        text = self.user_id.encode("ascii", "replace")
        if not text or len(text) > 23 or not self.user_id.isascii():
            raise ValueError(f"user id {self.user_id!r}: this terminal takes 1 to 23 ASCII characters")
        return _U72.pack(
            self.uid, self.privilege, self.password, self.name, self.card, self.group, *self.zones, text
        )  # fmt: skip

    @classmethod
    def decode(cls, entry: bytes) -> UserRecord:
        """One entry of 28 or of 72 bytes or more. Raises ProtocolError for other sizes."""
        if len(entry) == _U28.size:
            uid, privilege, password, name, card, group, zone, number = _U28.unpack(entry)
            return cls(uid, str(number), privilege, _ended(password), _ended(name), card, group, (zone, 0, 0, 0))
        if len(entry) < _U72.size:
            raise ProtocolError(f"no user entry is {len(entry)} bytes long")
        uid, privilege, password, name, card, group, *rest = _U72.unpack_from(entry)
        own, first, second, third, text = rest
        user_id = _ended(text).decode("utf-8", "replace")
        zones = (own, first, second, third)
        return cls(uid, user_id, privilege, _ended(password), _ended(name), card, group, zones)

    def user(self, code_page: CodePage) -> DeviceUser:
        return DeviceUser(
            user_id=self.user_id,
            name=code_page.decode(self.name),
            card=str(self.card) if self.card else "",
            pin=self.password.decode("ascii", "replace"),
            privilege=self.privilege & ~PRIVILEGE_DISABLED,
            enabled=not self.privilege & PRIVILEGE_DISABLED,
            schedule=self.zones[1] if self.zones[0] else None,
        )


def _ended(data: bytes) -> bytes:
    return data.split(b"\0", 1)[0]


def split_users(table: bytes, *, count: int) -> list[UserRecord]:
    """Entries of a user table without its size prefix. Raises ProtocolError if no entry size fits."""
    if not table:
        return []
    told = len(table) // count if count > 0 and len(table) % count == 0 else 0
    sizes = [size for size in USER_SIZES if len(table) % size == 0]
    if told in USER_SIZES or USER_SIZES[-1] < told <= MAX_ENTRY:
        sizes = [told, *(size for size in sizes if size != told)]
    if not sizes:
        raise ProtocolError(f"user table of {len(table)} bytes, said to hold {count} users, fits no layout")
    # The count may be wrong, and 18 entries of 28 bytes are as long as 7 of 72: the right size decodes better.
    size = max(sizes, key=lambda size: _share_good(table, size))
    return [UserRecord.decode(table[i : i + size]) for i in range(0, len(table), size)]


def _share_good(table: bytes, size: int) -> float:
    entries = [UserRecord.decode(table[i : i + size]) for i in range(0, len(table), size)]
    uids = {entry.uid for entry in entries if entry.uid and entry.user_id.isprintable() and entry.user_id}
    return len(uids) / len(entries)


def merge(user: DeviceUser, *, uid: int, size: int, code_page: CodePage, stored: UserRecord | None) -> UserRecord:
    """`user` as an entry of `size` bytes, keeping what `stored` has and `DeviceUser` cannot say.

    Raises ValueError, in words for a person, if the terminal cannot hold it.
    """
    if user.valid_from is not None or user.valid_until is not None:
        raise ValueError("this terminal keeps no period of validity")
    if user.card and (not user.card.isdecimal() or int(user.card) > MAX_CARD):
        raise ValueError(f"the card number must be a number up to {MAX_CARD}")
    limit = 5 if size == 28 else 8
    if len(user.pin) > limit or not (user.pin.isdecimal() or not user.pin):
        raise ValueError(f"the PIN must be at most {limit} digits")
    if not 0 <= user.privilege <= 0x0E:
        raise ValueError(f"privilege {user.privilege} is not 0 to 14")
    base = stored or UserRecord(uid=uid, user_id=user.user_id)
    zones = base.zones if user.schedule is None else (1, user.schedule, 0, 0)
    if user.schedule is not None and size == 28:
        zones = (user.schedule, 0, 0, 0)
    return replace(
        base,
        privilege=(user.privilege & ~PRIVILEGE_DISABLED) | (0 if user.enabled else PRIVILEGE_DISABLED),
        password=user.pin.encode("ascii"),
        name=code_page.encode(user.name, 8 if size == 28 else 23),
        card=int(user.card or 0),
        zones=zones,
    )
