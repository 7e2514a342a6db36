"""Users and fingerprint templates on a terminal, each written item with its own result.

Source: adrobinoga/zk-protocol, sections/data-user.md. The terminal knows a user by an internal number
(uid) that it hands out itself; we speak of `user_id` and look the number up. Templates are opaque and
go only to a terminal of the same fingerprint algorithm: 9 and 10 do not read each other (pyzk #182).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence

from device_drivers.devices import DeviceTemplate, DeviceUser, ItemResult
from device_drivers.errors import DeviceRefused, Unsupported
from device_drivers.zkteco.codes import USER_SIZES, Command, Table
from device_drivers.zkteco.connection import Connection
from device_drivers.zkteco.messages import (
    MAX_TEMPLATE,
    FreeSizes,
    TemplateEntry,
    delete_finger,
    option_request,
    option_value,
    single_template,
    split_templates,
    template_key,
    template_write,
    u16,
    u32,
)
from device_drivers.zkteco.tables import TableReader
from device_drivers.zkteco.users import LANGUAGE_CHINESE, MAX_UID, CodePage, UserRecord, merge, split_users

FINGERS = 10
DURESS = 3
VALID = 1


async def read_option(connection: Connection, name: str) -> str | None:
    """A configuration value, None where the terminal does not know the name. Raises LinkError."""
    answer = await connection.ask(Command.OPTIONS_RRQ, option_request(name), repeatable=True)
    return option_value(answer.payload) if answer.command == Command.ACK_OK else None


async def read_sizes(connection: Connection) -> FreeSizes:
    """What the terminal says it stores; all zero where it does not answer that. Raises LinkError."""
    answer = await connection.ask(Command.GET_FREE_SIZES, repeatable=True)
    return FreeSizes.decode(answer.payload) if answer.command in (Command.ACK_OK, Command.DATA) else FreeSizes()


@contextlib.asynccontextmanager
async def disabled(connection: Connection) -> AsyncIterator[None]:
    """Nobody can punch inside; the terminal is enabled again whatever happens, as far as the link allows."""
    await connection.require(Command.DISABLEDEVICE, bytes(4), repeatable=True)
    try:
        yield
    finally:
        if connection.failure is None:
            await connection.require(Command.ENABLEDEVICE, repeatable=True)


class People:
    """The users of one terminal on one connection."""

    def __init__(self, connection: Connection, tables: TableReader, *, encoding: str, user_size: int | None) -> None:
        self._connection = connection
        self._tables = tables
        self._encoding = encoding
        self._user_size = user_size
        self._user_ids: dict[int, str] = {}
        self._unknown_uids: set[int] = set()
        self._algorithm: str | None = None

    def knows(self, uid: int) -> bool:
        """Whether it has been looked up, also in vain."""
        return uid in self._user_ids or uid in self._unknown_uids

    async def look_up(self, uids: Iterable[int]) -> None:
        """Read the user table, so that `user_id_of` answers for `uids`. Not while another table is open."""
        await self._entries()
        self._unknown_uids.update(uid for uid in uids if uid not in self._user_ids)

    def user_id_of(self, uid: int) -> str:
        """The user id behind an internal number; the number itself where no user has it."""
        return self._user_ids.get(uid, str(uid))

    async def users(self) -> list[DeviceUser]:
        code_page = await self._code_page()
        return [entry.user(code_page) for entry in await self._entries()]

    async def upsert(self, users: Sequence[DeviceUser]) -> list[ItemResult]:
        code_page = await self._code_page()
        stored = {entry.user_id: entry for entry in await self._entries()}
        taken = {entry.uid for entry in stored.values()}
        free = iter([uid for uid in range(1, MAX_UID + 1) if uid not in taken][: len(users)])
        size = self._entry_size()
        results = []
        async with disabled(self._connection):
            for user in users:
                try:
                    known = stored.get(user.user_id)
                    uid = known.uid if known else next(free, 0)
                    entry = merge(user, uid=uid, size=size, code_page=code_page, stored=known)
                    await self._connection.require(Command.USER_WRQ, entry.encode(size))
                except (ValueError, DeviceRefused) as exc:
                    results.append(ItemResult(user.user_id, ok=False, reason=str(exc)))
                else:
                    stored[user.user_id] = entry
                    self._remember(entry)
                    results.append(ItemResult(user.user_id, ok=True))
            await self._connection.require(Command.REFRESHDATA)
        return results

    async def delete(self, user_ids: Sequence[str]) -> list[ItemResult]:
        """Users and their templates; checked by reading the user table again."""
        stored = {entry.user_id: entry for entry in await self._entries()}
        refused: dict[str, str] = {}
        if (await read_sizes(self._connection)).fingers:
            for user_id in stored.keys() & set(user_ids):
                await self.delete_templates(user_id)
        async with disabled(self._connection):
            for user_id in user_ids:
                if user_id not in stored:
                    continue
                try:
                    await self._connection.require(Command.DELETE_USER, u16(stored[user_id].uid))
                except DeviceRefused as exc:
                    refused[user_id] = str(exc)
            await self._connection.require(Command.REFRESHDATA)
        left = {entry.user_id for entry in await self._entries()}
        return [
            ItemResult(
                user_id,
                ok=user_id not in left,
                reason=refused.get(user_id, "the terminal still lists this user") if user_id in left else "",
            )
            for user_id in user_ids
        ]

    async def templates(self, user_id: str) -> list[DeviceTemplate]:
        """Raises Unsupported on a terminal without fingerprints."""
        algorithm = await self._finger_algorithm()
        uid = await self._uid(user_id)
        if uid is None:
            return []
        return [
            DeviceTemplate(user_id, "fingerprint", entry.finger, algorithm, entry.payload, entry.flag == DURESS)
            for entry in await self._templates(uid)
        ]

    async def put_templates(self, templates: Sequence[DeviceTemplate]) -> list[ItemResult]:
        algorithm = await self._finger_algorithm()
        uids = {entry.user_id: entry.uid for entry in await self._entries()}
        results = []
        async with disabled(self._connection):
            for template in templates:
                reason = _unfit(template, algorithm) or await self._put(template, uids.get(template.user_id))
                key = f"{template.user_id}/{template.index}"
                results.append(ItemResult(key, ok=not reason, reason=reason))
            await self._connection.require(Command.REFRESHDATA)
        return results

    async def delete_templates(self, user_id: str) -> list[ItemResult]:
        """Every finger of one user; checked by reading the templates again. Nothing stored, nothing returned."""
        await self._finger_algorithm()
        uid = await self._uid(user_id)
        before = await self._templates(uid) if uid is not None else []
        if uid is None or not before:
            return []
        async with disabled(self._connection):
            for entry in before:
                answer = await self._connection.ask(Command.DEL_FPTMP, delete_finger(user_id, entry.finger))
                if answer.command != Command.ACK_OK:  # firmware of the 28-byte age
                    await self._connection.ask(Command.DELETE_USERTEMP, template_key(uid, entry.finger))
            await self._connection.require(Command.REFRESHDATA)
        left = {entry.finger for entry in await self._templates(uid)}
        return [
            ItemResult(
                f"{user_id}/{entry.finger}",
                ok=entry.finger not in left,
                reason="the terminal still lists this template" if entry.finger in left else "",
            )
            for entry in before
        ]

    # -- inside

    async def _entries(self) -> list[UserRecord]:
        count = (await read_sizes(self._connection)).users
        async with self._tables.open(Command.USERTEMP_RRQ, Table.USER, may_be_empty=not count) as table:
            body = await table.body()
        entries = split_users(body, count=count)
        if entries:
            self._user_size = len(body) // len(entries)
        self._user_ids = {entry.uid: entry.user_id for entry in entries}
        self._unknown_uids -= self._user_ids.keys()
        return entries

    def _entry_size(self) -> int:
        """Bytes of one user entry; where none is stored to look at, terminals with TCP use the longer form."""
        size = self._user_size or (28 if self._connection.udp else 72)
        if size not in USER_SIZES:
            raise Unsupported(f"user entries of {size} bytes can be read but not written")
        return size

    def _remember(self, entry: UserRecord) -> None:
        self._user_ids[entry.uid] = entry.user_id
        self._unknown_uids.discard(entry.uid)

    async def _uid(self, user_id: str) -> int | None:
        return next((entry.uid for entry in await self._entries() if entry.user_id == user_id), None)

    async def _code_page(self) -> CodePage:
        if not self._encoding and await read_option(self._connection, "Language") == LANGUAGE_CHINESE:
            self._encoding = "gbk"
        return CodePage(self._encoding)

    async def _finger_algorithm(self) -> str:
        if self._algorithm is None:
            version = await read_option(self._connection, "~ZKFPVersion")
            if not version:
                raise Unsupported("this terminal has no fingerprint algorithm")
            self._algorithm = f"zk-finger-{version}"
        return self._algorithm

    async def _templates(self, uid: int) -> list[TemplateEntry]:
        try:
            async with self._tables.open(Command.DB_RRQ, Table.FINGERTMP) as table:
                return [entry for entry in split_templates(await table.body()) if entry.uid == uid]
        except DeviceRefused:
            return await self._templates_one_by_one(uid)

    async def _templates_one_by_one(self, uid: int) -> list[TemplateEntry]:
        found = []
        for finger in range(FINGERS):
            answer = await self._connection.ask(Command.GET_USERTEMP, template_key(uid, finger), repeatable=True)
            if answer.command == Command.DATA and (payload := single_template(answer.payload)):
                found.append(TemplateEntry(uid, finger, VALID, payload))
        return found

    async def _put(self, template: DeviceTemplate, uid: int | None) -> str:
        """Empty on success, otherwise why not."""
        if uid is None:
            return "the terminal has no such user"
        size = len(template.payload)
        flag = DURESS if template.duress else VALID
        try:
            async with self._tables.exclusive():
                await self._connection.require(Command.PREPARE_DATA, u32(size))
                await self._connection.require(Command.DATA, template.payload)
                await self._connection.require(Command.TMP_WRITE, template_write(uid, template.index, flag, size))
                await self._connection.require(Command.FREE_DATA)
        except DeviceRefused as exc:
            return str(exc)
        return ""


def _unfit(template: DeviceTemplate, algorithm: str) -> str:
    """Why `template` must not be sent to a terminal of `algorithm`; empty if it may."""
    if template.modality != "fingerprint":
        return f"this driver does not write {template.modality} templates"
    if template.algorithm != algorithm:
        return f"the template is {template.algorithm}, the terminal reads {algorithm}"
    if not 0 <= template.index < FINGERS:
        return f"finger {template.index} is not 0 to {FINGERS - 1}"
    if not 0 < len(template.payload) <= MAX_TEMPLATE:
        return f"a template of {len(template.payload)} bytes does not fit"
    return ""
