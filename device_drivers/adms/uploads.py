"""What a device uploads, table by table: parsed, recorded, then acknowledged in that table's own words.

A body may hold a whole log, of as many lines as fit in it. It is parsed and recorded some lines at a time, so that
others get their turn in between, and split only where the time changes, so that equal punches are told together.
The stamps move with the last part alone: until then the device would send everything again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

from device_drivers.adms import messages
from device_drivers.adms.commands import Dialect
from device_drivers.adms.link import DeviceLink
from device_drivers.adms.rows import Row, decode_text, lines, number, parse_options, parse_row
from device_drivers.devices import DeviceTemplate, DeviceUser
from device_drivers.events import DeviceEvent
from device_drivers.zk_access import leaves

PHOTO_TABLES = frozenset({"attphoto", "biophoto", "userpic"})
TEMPLATE_TABLES = frozenset({"biodata", "fp", "fingertmp", "templatev10", "face"})
USER_TABLES = frozenset({"user", "userinfo"})
PART = 1000  # lines parsed and recorded in one go
MAX_PART = 8 * PART  # grows while all of them say the same moment: a clock that stands still

Item = TypeVar("Item")


async def receive(link: DeviceLink, query: dict[str, str], body: bytes) -> bytes:
    """A `cdata` upload. Raises ProtocolError, LinkError, or whatever recording raised."""
    session = link.session
    table = query.get("table", "").lower()
    kind = query.get("type", "").lower()
    if kind == "biodata":  # the answer to ENROLL_BIO
        count = await _templates(link, "biodata", await _rows(link, body))
        return f"OK: {count}".encode()
    if table == "tabledata":
        return await _tabledata(link, query, body)
    if table == "options":
        session.learn(parse_options(body, session.encoding))
        return b"OK"
    if table == "rtlog":
        session.dialect = Dialect.SECURITY
        await _record(link, _access(link, body), cursor=session.cursor_after())
        return b"OK"
    if table == "rtstate":
        session.dialect = Dialect.SECURITY
        await _panel_state(link, body)
        return b"OK"
    stamp = next((value for key, value in query.items() if key.lower().endswith("stamp")), "")
    name = table.upper()
    if table == "attlog":
        count = await _record(link, _punches(link, body), cursor=session.cursor_after(name, stamp))
    elif table in {"operlog", *USER_TABLES}:
        count = await _operlog(link, body, cursor=session.cursor_after(name, stamp))
    elif table in TEMPLATE_TABLES:
        count = await _templates(link, table, await _rows(link, body))
    elif table in PHOTO_TABLES:
        count = await _photos(link, table, body)
    else:
        link.counters["unknown_tables"] += 1
        count = await _record(link, _unknown(link, table[:32], body), cursor=session.cursor_after())
    session.keep(name, stamp)
    return f"OK: {count}".encode()


async def receive_query(link: DeviceLink, query: dict[str, str], body: bytes) -> bytes:
    """A `querydata` upload: one packet of the answer to a query."""
    if query.get("type", "").lower() == "options":
        link.session.learn(parse_options(body, link.session.encoding))
        answer = b"OK"
    else:
        answer = await _tabledata(link, query, body, command_id=number(query.get("cmdid", ""), -1))
    await link.packet(number(query.get("cmdid", ""), -1), of=number(query.get("packcnt", ""), 1))
    return answer


def _parts(items: Iterable[Item]) -> Iterator[list[Item]]:
    rest = iter(items)
    while part := list(islice(rest, PART)):
        yield part


async def _record(link: DeviceLink, parts: Iterable[list[DeviceEvent]], *, cursor: bytes) -> int:
    """Record a log of which `parts` are parsed as they are asked for; how many events it had."""
    count = 0
    waiting: list[DeviceEvent] = []
    for part in parts:
        cut = len(waiting) if len(waiting) >= MAX_PART else _last_change(waiting)
        if cut:
            await link.record(waiting[:cut], cursor=link.session.cursor_after())
            del waiting[:cut]
        waiting += part
        count += len(part)
        await asyncio.sleep(0)
    await link.record(waiting, cursor=cursor)
    return count


def _last_change(events: list[DeviceEvent]) -> int:
    """Index of the last event whose time differs from its predecessor's; 0 if none does."""
    times = [getattr(event, "device_time", None) for event in events]
    return next((i for i in range(len(times) - 1, 0, -1) if times[i] != times[i - 1]), 0)


async def _rows(link: DeviceLink, body: bytes) -> list[Row]:
    rows: list[Row] = []
    for part in _parts(lines(body)):
        rows += [parse_row(line, link.session.encoding) for line in part]
        await asyncio.sleep(0)
    return rows


def _punches(link: DeviceLink, body: bytes) -> Iterator[list[DeviceEvent]]:
    session, origin = link.session, link.session.origin(link.clock())
    for part in _parts(lines(body)):
        yield messages.attlog(b"\n".join(part), serial=link.serial, encoding=session.encoding, origin=origin)


def _access(link: DeviceLink, body: bytes) -> Iterator[list[DeviceEvent]]:
    session, origin = link.session, link.session.origin(link.clock())
    for part in _parts(lines(body)):
        yield messages.rtlog(b"\n".join(part), serial=link.serial, encoding=session.encoding, origin=origin)


def _unknown(link: DeviceLink, table: str, body: bytes) -> Iterator[list[DeviceEvent]]:
    for part in _parts(lines(body)):
        yield [messages.unreadable(link.serial, table, line) for line in part]


async def _panel_state(link: DeviceLink, body: bytes) -> None:
    for state in messages.rtstate(body, link.session.encoding):
        link.session.hear_clock(state.device_time, link.clock())
        changes = link.session.alarms(state)
        if changes:
            await link.record(changes)
        link.session.keep_panel(state)
        news = not link.leaves
        link.leaves = leaves(state.sensor(door) for door in range(1, len(state.sensors) * 4 + 1))
        if news and link.attached:
            await link.record(())


async def _tabledata(link: DeviceLink, query: dict[str, str], body: bytes, *, command_id: int | None = None) -> bytes:
    name = query.get("tablename", "").strip()[:32]
    table = name.lower()
    if table in USER_TABLES:
        count = await _users(link, await _rows(link, body), command_id=command_id)
    elif table == "userauthorize":
        rows = await _rows(link, body)
        access = [(row.get("pin")[:64], row.int("authorizedoorid"), row.int("authorizetimezoneid")) for row in rows]
        await link.deliver_access({pin: (doors, zone) for pin, doors, zone in access if pin}, command_id=command_id)
        count = len(rows)
    elif table in TEMPLATE_TABLES:
        count = await _templates(link, table, await _rows(link, body), command_id=command_id)
    elif table in PHOTO_TABLES:
        count = await _photos(link, table, body)
    elif table == "transaction":
        count = await _record(link, _access(link, body), cursor=link.session.cursor_after())
    else:
        link.counters["unknown_tables"] += 1
        count = await _record(link, _unknown(link, table, body), cursor=link.session.cursor_after())
    return f"{name}={count}".encode("utf-8", "replace")


async def _operlog(link: DeviceLink, body: bytes, *, cursor: bytes) -> int:
    """Operations, users, fingers and faces, mixed as the device likes."""
    session, origin = link.session, link.session.origin(link.clock())
    events: list[DeviceEvent] = []
    users: list[Row] = []
    templates: dict[str, list[Row]] = {}
    count = 0
    for line in lines(body):
        count += 1
        if count % PART == 0:
            await asyncio.sleep(0)
        head = decode_text(line[:16], "latin-1").replace("\t", " ").split(" ", 1)[0].lower()
        if head == "oplog":
            events.append(messages.operation(line, serial=link.serial, encoding=session.encoding, origin=origin))
        elif head in USER_TABLES:
            users.append(parse_row(line, session.encoding))
        elif head in TEMPLATE_TABLES:
            templates.setdefault(head, []).append(parse_row(line, session.encoding))
        elif head in PHOTO_TABLES:
            await _photos(link, head, line)
        else:
            events.append(messages.unreadable(link.serial, "OPERLOG", line))
    await _record(link, _parts(events), cursor=cursor)
    if users:
        await _users(link, users)
    for table, rows in templates.items():
        await _templates(link, table, rows)
    return count


async def _users(link: DeviceLink, rows: list[Row], *, command_id: int | None = None) -> int:
    packed = link.session.options.get("DateFmtFunOn") == "1"
    users: list[DeviceUser] = [user for row in rows if (user := messages.user(row, packed_dates=packed))]
    link.counters["rows_skipped"] += len(rows) - len(users)
    await link.deliver_users(users, command_id=command_id)
    return len(rows)


async def _templates(link: DeviceLink, table: str, rows: list[Row], *, command_id: int | None = None) -> int:
    options, info = link.session.options, link.session.info
    finger = options.get("FPVersion") or options.get("ZKFPVersion") or (info.finger_version if info else "")
    face = options.get("FaceVersion") or (info.face_version if info else "")
    found: list[DeviceTemplate] = [
        template
        for row in rows
        if (template := messages.template(row, table=table, finger_version=finger, face_version=face))
    ]
    link.counters["rows_skipped"] += len(rows) - len(found)
    await link.deliver_templates(found, command_id=command_id)
    return len(rows)


async def _photos(link: DeviceLink, table: str, body: bytes) -> int:
    """Where nobody wants them the pictures are not even decoded: counted by line, and gone."""
    if link.hooks.photo is None or not link.hooks.wants_photo(link.serial):
        count = 1 if b"\0" in body[:4096] else sum(1 for _ in lines(body))
        link.counters["photos_dropped"] += count
        return count
    found = messages.photos(body, serial=link.serial, table=table, encoding=link.session.encoding)
    await link.deliver_photos(found)
    return len(found)
