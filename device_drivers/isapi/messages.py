"""ISAPI documents -> values, and values -> documents. JSON where the firmware speaks it, XML where it does not.

Source: "ISAPI (Access Control on Person)", sections 6.1 and 6.2: AcsEventCond, AcsEvent, UserInfo (validity from 1970
to 2037-12-31T23:59:59), FingerPrintCfg, FingerPrintInfo, HttpHostNotification, RemoteControlDoor, ResponseStatus.
Every document is bounded before it is parsed and may not declare entities. Not published there, and taken from what
integrators of terminals send: the XML of `System/time` with the zone kept as told.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from device_drivers.devices import DeviceTemplate, DeviceUser, Identity
from device_drivers.errors import ProtocolError
from device_drivers.events import DoorEvent, DoorEventKind, Origin, Punch, PunchState, VerifyMode
from device_drivers.isapi.codes import EVENT, KINDS, NOT_SUPPORTED, PASSED, STATES

MAX_DOCUMENT = 4 * 1024 * 1024
MAX_TEMPLATE = 64 * 1024
FINGER_ALGORITHM = "hik-finger"
FACE_PICTURE = "jpeg"
USER_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")
SINCE_EVER = datetime(2020, 1, 1)  # noqa: DTZ001 device-local
FOR_EVER = datetime(2037, 12, 31, 23, 59, 59)  # noqa: DTZ001 device-local; the latest date the firmware takes

Json = dict[str, Any]


def parse_json(body: bytes) -> Json:
    """An object. Raises ProtocolError for anything else."""
    if len(body) > MAX_DOCUMENT:
        raise ProtocolError(f"a document of {len(body)} bytes")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise ProtocolError("not JSON") from exc
    if not isinstance(value, dict):
        raise ProtocolError("not a JSON object")
    return value


def parse_xml(body: bytes) -> Json:
    """Elements as nested dicts, namespaces left out; repeated names become lists. Raises ProtocolError."""
    if len(body) > MAX_DOCUMENT or b"<!" in body.replace(b"<!--", b""):
        raise ProtocolError("a document too large, or with declarations")
    try:
        root = ElementTree.fromstring(body.strip(b"\0 \r\n\t"))  # noqa: S314 size bounded, no entities possible
    except (ElementTree.ParseError, ValueError) as exc:
        raise ProtocolError("not XML") from exc
    return {_name(root): _content(root, 0)}


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _content(element: ElementTree.Element, depth: int) -> Any:
    if depth > 32:
        raise ProtocolError("a document nested too deep")
    if len(element) == 0:
        value = (element.text or "").strip()
        return value if value or not element.attrib else {f"@{name}": text for name, text in element.attrib.items()}
    content: Json = {}
    for child in element:
        name, value = _name(child), _content(child, depth + 1)
        if name not in content:
            content[name] = value
        elif isinstance(content[name], list):
            content[name].append(value)
        else:
            content[name] = [content[name], value]
    return content


def parse(body: bytes) -> Json:
    return parse_xml(body) if body.lstrip(b"\xef\xbb\xbf\0 \r\n\t")[:1] == b"<" else parse_json(body)


def item(document: Mapping[str, Any], *path: str) -> Any:
    """The value at a path, or None."""
    value: Any = document
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def items(document: Mapping[str, Any], *path: str) -> list[Json]:
    """A list of objects at a path; one object alone is a list of one."""
    value = item(document, *path)
    found = value if isinstance(value, list) else [value]
    return [entry for entry in found if isinstance(entry, dict)]


def text(value: Any, limit: int = 128) -> str:
    return str(value)[:limit] if isinstance(value, str | int) and not isinstance(value, bool) else ""


def integer(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    try:
        number = int(value)
    except ValueError:
        return None
    return number if -(1 << 63) <= number < 1 << 63 else None


def truth(value: Any) -> bool:
    return value is True or value == "true"


def local_time(value: Any) -> datetime | None:
    """`2024-08-26T12:32:28+01:00` -> the clock reading as said, without its offset."""
    try:
        return datetime.fromisoformat(text(value, 40)).replace(tzinfo=None, microsecond=0)
    except ValueError:
        return None


# -- answers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Status:
    """`ResponseStatus`: what a refusal says."""

    code: int | None
    sub_code: str
    words: str

    @property
    def not_supported(self) -> bool:
        return self.sub_code.lower() in NOT_SUPPORTED or self.words.replace(" ", "").lower() == "notsupport"


def status(body: bytes) -> Status:
    """Reads what it can: many firmwares answer an error with an HTML page."""
    try:
        document = parse(body)
    except ProtocolError:
        return Status(None, "", "")
    fields = item(document, "ResponseStatus") or item(document, "userCheck") or document
    return Status(
        integer(item(fields, "statusCode")),
        text(item(fields, "subStatusCode"), 64),
        text(item(fields, "statusString"), 64),
    )


def identity(document: Json) -> Identity:
    """Raises ProtocolError without a serial number."""
    info = item(document, "DeviceInfo") or {}
    serial = text(item(info, "serialNumber"), 64)
    if not serial:
        raise ProtocolError("deviceInfo names no serial number")
    return Identity(
        "Hikvision", text(item(info, "model"), 64), serial,
        " ".join(filter(None, (text(item(info, "firmwareVersion"), 32), text(item(info, "firmwareReleasedDate"), 32)))),
    )  # fmt: skip


# -- events ----------------------------------------------------------------------------------------------------------


def event(
    fields: Mapping[str, Any], *, serial: str, origin: Origin, time: Any = None, raw: bytes = b"", punches: bool = True
) -> Punch | DoorEvent:
    """One record of an AcsEvent search, or the `AccessControllerEvent` of an alert.

    Searches say major/minor, alerts majorEventType/subEventType.
    """
    major = integer(fields.get("major", fields.get("majorEventType"))) or 0
    minor = integer(fields.get("minor", fields.get("subEventType"))) or 0
    kind = KINDS.get((major, minor), DoorEventKind.OTHER)
    mode = PASSED.get(minor, VerifyMode.OTHER) if major == EVENT else VerifyMode.OTHER
    user_id = text(fields.get("employeeNoString") or fields.get("employeeNo"), 64)
    user_id = "" if user_id == "0" else user_id
    card = text(fields.get("cardNo"), 64)
    state = STATES.get(text(fields.get("attendanceStatus"), 32), PunchState.OTHER)
    device_time = local_time(fields.get("time", time))
    record_no = integer(fields.get("serialNo"))
    record_no = record_no if record_no is not None and record_no >= 0 else None
    if punches and kind is DoorEventKind.GRANTED and user_id:
        return Punch(
            serial, user_id, device_time, verify_mode=mode, state=state, verify_code=minor, record_no=record_no,
            card=card, origin=origin, raw=raw[:4096],
        )  # fmt: skip
    door = integer(fields.get("doorNo"))
    return DoorEvent(
        serial, kind, door=door or None, reader=integer(fields.get("cardReaderNo")), user_id=user_id, card=card,
        device_time=device_time, record_no=record_no, reason_code=major << 16 | minor & 0xFFFF, direction=state,
        verify_mode=mode, origin=origin, raw=raw[:4096],
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Alert:
    """One notification: an access event, a heartbeat, or something of a camera that is none of ours."""

    event_type: str
    active: bool
    fields: Json
    time: str
    raw: bytes

    @property
    def access(self) -> Json | None:
        found = self.fields.get("AccessControllerEvent")
        return found if isinstance(found, dict) else None


def alert(body: bytes) -> Alert:
    """`EventNotificationAlert` in XML, or its content in JSON. Raises ProtocolError."""
    document = parse(body)
    fields = item(document, "EventNotificationAlert")
    fields = fields if isinstance(fields, dict) else document
    kind = text(fields.get("eventType"), 64)
    if not kind:
        raise ProtocolError("a notification without a type")
    return Alert(
        kind, text(fields.get("eventState")) == "active", fields, text(fields.get("dateTime"), 40), body[:4096]
    )


def search_events(position: int, size: int, *, search_id: str, **conditions: Any) -> Json:
    return {
        "AcsEventCond": {
            "searchID": search_id,
            "searchResultPosition": position,
            "maxResults": size,
            "major": 0,
            "minor": 0,
            **conditions,
        }
    }


# -- people ----------------------------------------------------------------------------------------------------------


def require_user_id(user_id: str) -> str:
    if not USER_ID.fullmatch(user_id):
        raise ValueError("an employee number is 1 to 32 letters, digits, - or _")
    return user_id


def user_document(user: DeviceUser) -> Json:
    """Raises ValueError for a number no terminal could hold."""
    start = user.valid_from or SINCE_EVER
    end = min(user.valid_until or FOR_EVER, FOR_EVER)
    doors = user.doors or (1,)
    info: Json = {
        "employeeNo": require_user_id(user.user_id),
        "name": user.name,
        "userType": "normal",
        "localUIRight": user.privilege >= 14,
        "Valid": {
            "enable": user.enabled or bool(user.valid_until),
            "beginTime": f"{start:%Y-%m-%dT%H:%M:%S}",
            "endTime": f"{end:%Y-%m-%dT%H:%M:%S}",
            "timeType": "local",
        },
        "doorRight": ",".join(str(door) for door in doors),
        "RightPlan": [{"doorNo": door, "planTemplateNo": str(user.schedule or 1)} for door in doors],
    }
    if not user.enabled:  # the only way to bar somebody without forgetting them: a validity that is over
        info["Valid"] |= {"enable": True, "endTime": info["Valid"]["beginTime"]}
    if user.pin:
        info["password"] = user.pin
    return {"UserInfo": info}


def user(fields: Mapping[str, Any], cards: Mapping[str, str]) -> DeviceUser | None:
    user_id = text(fields.get("employeeNo"), 64)
    if not user_id:
        return None
    begin, end = local_time(item(fields, "Valid", "beginTime")), local_time(item(fields, "Valid", "endTime"))
    doors = [integer(plan.get("doorNo")) for plan in items(fields, "RightPlan")]
    return DeviceUser(
        user_id,
        name=text(fields.get("name")),
        card=cards.get(user_id, ""),
        privilege=14 if truth(fields.get("localUIRight")) else 0,
        enabled=not (begin and end and end <= begin),
        valid_from=None if begin == SINCE_EVER else begin,
        valid_until=None if end == FOR_EVER else end,
        doors=tuple(door for door in doors if door),
    )


def fingers(document: Json, user_id: str) -> list[DeviceTemplate]:
    found = []
    for entry in items(document, "FingerPrintInfo", "FingerPrintList"):
        index = integer(entry.get("fingerPrintID"))
        try:
            payload = base64.b64decode(text(entry.get("fingerData"), MAX_TEMPLATE), validate=True)
        except (binascii.Error, ValueError):
            continue
        if payload and index is not None and 1 <= index <= 10:
            duress = text(entry.get("fingerType")) == "hijackFP"
            found.append(DeviceTemplate(user_id, "fingerprint", index - 1, FINGER_ALGORITHM, payload, duress=duress))
    return found


def finger_document(template: DeviceTemplate, readers: Sequence[int]) -> Json:
    return {
        "FingerPrintCfg": {
            "employeeNo": require_user_id(template.user_id),
            "enableCardReader": list(readers),
            "fingerPrintID": template.index + 1,
            "fingerType": "hijackFP" if template.duress else "normalFP",
            "fingerData": base64.b64encode(template.payload).decode("ascii"),
        }
    }


# -- settings --------------------------------------------------------------------------------------------------------


def door_command(command: str) -> bytes:
    return f"<RemoteControlDoor><cmd>{command}</cmd></RemoteControlDoor>".encode()


def time_document(device_time: datetime, zone: str) -> bytes:
    """`zone` as the device told it: a POSIX zone, kept as it is."""
    kept = f"<timeZone>{escape(zone)}</timeZone>" if zone else ""
    return (
        f"<Time><timeMode>manual</timeMode><localTime>{device_time:%Y-%m-%dT%H:%M:%S}</localTime>{kept}</Time>"
    ).encode()


_ADDRESS_NAMES = {4: "ipAddress", 6: "ipv6Address"}


@dataclass(frozen=True, slots=True)
class PushTarget:
    """Where a terminal shall send its events: one HttpHostNotification without its number."""

    host: str
    port: int
    path: str
    tls: bool = False
    username: str = ""  # empty: the terminal shows no digest
    password: str = field(default="", repr=False)

    @property
    def method(self) -> str:
        return "MD5digest" if self.username else "none"

    def encode(self, host_id: str) -> bytes:
        try:
            kind, name = "ipaddress", _ADDRESS_NAMES[ipaddress.ip_address(self.host).version]
        except ValueError:
            kind, name = "hostname", "hostName"
        address = f"<addressingFormatType>{kind}</addressingFormatType><{name}>{escape(self.host)}</{name}>"
        login = (
            f"<userName>{escape(self.username)}</userName><password>{escape(self.password)}</password>"
            if self.username
            else ""
        )
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<HttpHostNotification version="2.0" xmlns="http://www.isapi.org/ver20/XMLSchema">'
            f"<id>{escape(host_id)}</id><url>{escape(self.path)}</url>"
            f"<protocolType>{'HTTPS' if self.tls else 'HTTP'}</protocolType>"
            f"<parameterFormatType>JSON</parameterFormatType>{address}<portNo>{self.port}</portNo>{login}"
            f"<httpAuthenticationMethod>{self.method}</httpAuthenticationMethod></HttpHostNotification>"
        ).encode()

    def is_set(self, entry: Mapping[str, Any]) -> bool:
        """Whether a terminal's entry is this target; it tells every field but the password."""
        return (
            self.host in {text(entry.get(name)) for name in (*_ADDRESS_NAMES.values(), "hostName")}
            and integer(entry.get("portNo")) == self.port
            and text(entry.get("url")) == self.path
            and text(entry.get("httpAuthenticationMethod")) in {self.method, ""}
            and (text(entry.get("userName")) or self.username) == self.username
        )


def hosts(document: Json) -> list[Json]:
    """The entries of an HttpHostNotificationList, or the single one answered for one id."""
    return items(document, "HttpHostNotificationList", "HttpHostNotification") or items(
        document, "HttpHostNotification"
    )


def is_free(entry: Mapping[str, Any]) -> bool:
    """An entry nobody uses: terminals list as many as they have, empty ones with address 0.0.0.0 or ::."""
    addresses = {text(entry.get(name)) for name in _ADDRESS_NAMES.values()}
    return addresses <= {"", "0.0.0.0", "::"} and not text(entry.get("hostName"))  # noqa: S104


def offers(document: Json, *path: str) -> frozenset[str]:
    """The words a capability lists in `opt`."""
    value = item(document, *path)
    listed = value.get("@opt") if isinstance(value, Mapping) else None
    return frozenset(text(listed, 1024).split(",")) if listed else frozenset()
