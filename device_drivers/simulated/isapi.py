"""An access terminal that speaks ISAPI over real sockets: log, stream, pushes, people, doors, clock, and its faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from device_drivers.simulated.isapi_http import Answer, DigestServer, Request

Json = dict[str, Any]
OK: Json = {"statusCode": 1, "statusString": "OK", "subStatusCode": "ok"}
NOT_SUPPORT: Json = {"statusCode": 4, "statusString": "Invalid Operation", "subStatusCode": "notSupport"}
BOUNDARY = "MIME_boundary"
ACCESS = "/ISAPI/AccessControl"
HOST_FIELDS = ("protocolType", "ipAddress", "portNo", "url", "userName", "password")
RETRY_S = 0.05
HEARTBEAT_S = 10.0


@dataclass(slots=True)
class SimulatedIsapi:
    """`lacks`: path prefixes this model does not have; without `heartbeat_s` a stream is silent between events."""

    serial: str = "DS-K1T671M20210101V030203ENE12345678"
    username: str = "admin"
    password: str = field(default="not-a-secret-1", repr=False)
    lacks: tuple[str, ...] = ()
    by_serial: bool = True
    max_users: int = 1000
    max_connections: int = 5
    events: list[Json] = field(default_factory=list)
    users: dict[str, Json] = field(default_factory=dict)
    cards: dict[str, str] = field(default_factory=dict)  # card -> person
    fingers: dict[tuple[str, int], str] = field(default_factory=dict)
    faces: dict[str, bytes] = field(default_factory=dict)
    opened: list[tuple[int, str]] = field(default_factory=list)
    hosts: dict[str, str] = field(default_factory=lambda: {"1": "", "2": ""})  # httpHosts, as sent
    digest_push: bool = True
    by_time: bool = False  # searches answer in the order of the clock, which may have jumped
    numbered_log: bool = True
    numbered_alerts: bool = True
    alerts_ahead: timedelta = timedelta()  # an alert's time before its record's
    ranges_empty: bool = False  # it says that it searches by serial number, and finds nothing
    page_stuck: bool = False  # a search goes on for ever, telling its first page
    heartbeat_s: float | None = HEARTBEAT_S
    offset: timedelta = timedelta()
    reboots: int = 0
    requests: list[str] = field(default_factory=list)
    streaming: asyncio.Event = field(default_factory=asyncio.Event)  # somebody listens to the alert stream
    _streams: list[asyncio.Queue[bytes | None]] = field(default_factory=list)
    _outgoing: asyncio.Queue[tuple[str, bytes]] = field(default_factory=asyncio.Queue)  # content type, body
    _working: list[asyncio.Task[None]] = field(default_factory=list)
    _deleting: list[str] = field(default_factory=list)  # people, until the progress is asked for
    _corrupt: bool = False
    _next_serial: int = 1
    _server: DigestServer | None = None
    _port: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[SimulatedIsapi]:
        await self.go_online()
        try:
            yield self
        finally:
            await self.go_offline()

    # -- what a person, a cable or time does to it -------------------------------------------------------------------

    def swipe(self, user_id: str, *, minor: int = 75, live: bool = True) -> int:
        """Somebody was let in by a face (75), finger (38) or card (1); the record's number."""
        number = self._next_serial
        self._next_serial += 1
        record = {
            "major": 5, "minor": minor, "time": f"{self.local_time():%Y-%m-%dT%H:%M:%S}+08:00", "cardReaderNo": 1,
            "doorNo": 1, "employeeNoString": user_id, "serialNo": number, "currentVerifyMode": "cardOrFaceOrFp",
            "attendanceStatus": "checkIn",
        }  # fmt: skip
        self.events.append(record)
        unsaid = {"major", "minor", "time"} | (set() if self.numbered_alerts else {"serialNo"})
        if live:
            alert = {
                "ipAddress": "192.0.2.20", "portNo": 80, "protocol": "HTTP", "dateTime": self._alert_time(),
                "activePostCount": 1, "eventType": "AccessControllerEvent", "eventState": "active",
                "eventDescription": "Access Controller Event",
                "AccessControllerEvent": {
                    **{key: value for key, value in record.items() if key not in unsaid},
                    "majorEventType": 5, "subEventType": minor, "currentEvent": True,
                },
            }  # fmt: skip
            body = json.dumps(alert).encode()
            if self._corrupt:
                self._corrupt, body = False, b"{" + body[5:]
            self._send(body, "application/json")
            self._push(body)
        return number

    def swipe_with_picture(self, user_id: str, jpeg: bytes) -> int:
        """As `swipe`, pushed as a form with the picture that was taken."""
        number = self.swipe(user_id)
        _, event = self._outgoing.get_nowait()
        parts = (("event_log", "application/json", event), ("Picture", "image/jpeg", jpeg))
        body = b"".join(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\nContent-Type: {kind}\r\n'
            f"Content-Length: {len(data)}\r\n\r\n".encode()
            + data
            + b"\r\n"
            for name, kind, data in parts
        )
        self._outgoing.put_nowait((f"multipart/form-data; boundary={BOUNDARY}", body + f"--{BOUNDARY}--\r\n".encode()))
        return number

    def heartbeat(self) -> None:
        """A "video loss" that is not: how this maker says that it is alive. Line by line, as devices send it."""
        moment = f"{self.local_time():%Y-%m-%dT%H:%M:%S}+08:00"
        lines = (
            '<EventNotificationAlert version="2.0" xmlns="http://www.isapi.org/ver20/XMLSchema">',
            "<ipAddress>192.0.2.20</ipAddress>",
            "<portNo>80</portNo>",
            "<channelID>1</channelID>",
            f"<dateTime>{moment}</dateTime>",
            "<activePostCount>0</activePostCount>",
            "<eventType>videoloss</eventType>",
            "<eventState>inactive</eventState>",
            "<eventDescription>videoloss alarm</eventDescription>",
            "</EventNotificationAlert>",
        )
        self._send("\n".join(lines).encode(), 'application/xml; charset="UTF-8"')

    def push_photo(self, jpeg: bytes) -> None:
        self._send(jpeg, "image/jpeg")

    def end_streams(self) -> None:
        """As firmware that closes the stream after 40 s does."""
        for stream in self._streams:
            stream.put_nowait(None)

    def _push(self, body: bytes) -> None:
        self._outgoing.put_nowait(("application/json", body))

    async def _keep_pushing(self) -> None:
        """What happens is pushed to every host that is set, and kept until each said 200; without one it is lost."""
        while True:
            content_type, body = await self._outgoing.get()
            waiting = [host for host in self.hosts.values() if host]
            while waiting:
                waiting = [host for host in waiting if not await self._pushed(host, content_type, body)]
                if waiting:
                    await asyncio.sleep(RETRY_S)
                waiting = [host for host in waiting if host in self.hosts.values()]  # it forgets them when it restarts

    async def _keep_alive(self) -> None:
        while self.heartbeat_s is not None:
            await asyncio.sleep(self.heartbeat_s)
            self.heartbeat()

    async def _pushed(self, host: str, content_type: str, body: bytes) -> bool:
        said = {key: found[1] if (found := re.search(f"<{key}>([^<]*)", host)) else "" for key in HOST_FIELDS}
        url = f"{said['protocolType'].lower()}://{said['ipAddress']}:{said['portNo']}{said['url']}"
        login = httpx.DigestAuth(said["userName"], said["password"]) if said["userName"] else None
        async with httpx.AsyncClient(auth=login, verify=False, timeout=5.0, trust_env=False) as client:  # noqa: S501
            try:
                answer = await client.post(url, content=body, headers={"content-type": content_type})
            except httpx.HTTPError:
                return False
        return answer.status_code == 200

    async def go_offline(self) -> None:
        for task in self._working:
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)
        self._working.clear()
        if self._server is not None:
            await self._server.stop()
            self._server = None
        self._streams.clear()

    async def go_online(self) -> None:
        self._server = DigestServer(
            self._handle, username=self.username, password=self.password, max_connections=self.max_connections
        )
        await self._server.start(self._port)
        self._port = int(self._server.address.rsplit(":", 1)[1])
        self._working = [asyncio.create_task(self._keep_pushing()), asyncio.create_task(self._keep_alive())]

    def corrupt_next(self) -> None:
        self._corrupt = True

    def drift_clock(self, by: timedelta) -> None:
        self.offset += by

    def fill_memory(self) -> None:
        self.max_users = len(self.users)

    def clear_log(self) -> None:
        """Numbers begin again at one."""
        self.events.clear()
        self._next_serial = 1

    def _alert_time(self) -> str:
        return f"{self.local_time() + self.alerts_ahead:%Y-%m-%dT%H:%M:%S}+08:00"

    def local_time(self) -> datetime:
        return (datetime.now(UTC) + timedelta(hours=8) + self.offset).replace(tzinfo=None, microsecond=0)

    def _send(self, body: bytes, content_type: str) -> None:
        head = f"--{BOUNDARY}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        for stream in self._streams:
            stream.put_nowait(head.encode() + body + b"\r\n")

    # -- what it answers ---------------------------------------------------------------------------------------------

    async def _handle(self, request: Request) -> Answer:
        self.requests.append(f"{request.method} {request.path}")
        if any(request.path.startswith(prefix) for prefix in self.lacks):
            return Answer(403, json.dumps(NOT_SUPPORT).encode())
        if request.path == "/ISAPI/Event/notification/alertStream":
            stream: asyncio.Queue[bytes | None] = asyncio.Queue()
            self._streams.append(stream)
            self.streaming.set()
            return Answer(content_type=f"multipart/mixed; boundary={BOUNDARY}", stream=stream)
        answer = self._xml(request)
        if answer is not None:
            return Answer(body=answer.encode(), content_type="application/xml")
        status, document = self._json(request)
        return Answer(status, json.dumps(document).encode())

    def _xml(self, request: Request) -> str | None:
        done = "<ResponseStatus><statusCode>1</statusCode><statusString>OK</statusString></ResponseStatus>"
        text = request.body.decode("utf-8", "replace")
        match request.method, request.path:
            case "GET", "/ISAPI/System/deviceInfo":
                return (
                    '<DeviceInfo version="2.0" xmlns="http://www.isapi.org/ver20/XMLSchema"><deviceName>Access'
                    f"</deviceName><model>DS-K1T671M</model><serialNumber>{self.serial}</serialNumber>"
                    "<firmwareVersion>V3.2.3</firmwareVersion></DeviceInfo>"
                )
            case "GET", "/ISAPI/System/time":
                moment = f"{self.local_time():%Y-%m-%dT%H:%M:%S}+08:00"
                zone = "<timeZone>CST-8:00:00</timeZone>"
                return f"<Time><timeMode>NTP</timeMode><localTime>{moment}</localTime>{zone}</Time>"
            case "PUT", "/ISAPI/System/time":
                found = re.search(r"<localTime>([^<]+)", text)
                if found is None or "<timeZone>CST-8:00:00<" not in text:
                    return None
                self.offset += datetime.fromisoformat(found[1]) - self.local_time()
                return done
            case "PUT", "/ISAPI/System/reboot":
                self.reboots += 1
                self.hosts = dict.fromkeys(self.hosts, "")
                return done
            case "GET", "/ISAPI/AccessControl/RemoteControl/door/capabilities":
                return (
                    '<RemoteControlDoor><doorNo min="1" max="2"/>'
                    '<cmd opt="open,close,alwaysOpen,alwaysClose"/></RemoteControlDoor>'
                )
            case "PUT", path if path.startswith(f"{ACCESS}/RemoteControl/door/"):
                command = re.search(r"<cmd>(\w+)", text)
                self.opened.append((int(path.rsplit("/", 1)[1]), command[1] if command else ""))
                return done
            case "GET", "/ISAPI/Event/notification/httpHosts/capabilities":
                methods = "MD5digest,none" if self.digest_push else "none"
                return (
                    '<HttpHostNotificationCap xmlns="http://www.isapi.org/ver20/XMLSchema"><hostNumber>2</hostNumber>'
                    f'<urlLen min="0" max="128"/><httpAuthenticationMethod opt="{methods}"/></HttpHostNotificationCap>'
                )
            case "GET", "/ISAPI/Event/notification/httpHosts":
                entries = (
                    re.sub("<password>[^<]*</password>", "", host)
                    or f"<HttpHostNotification><id>{number}</id><url>/</url><ipAddress>0.0.0.0</ipAddress>"
                    "<portNo>80</portNo></HttpHostNotification>"
                    for number, host in self.hosts.items()
                )
                return f"<HttpHostNotificationList>{''.join(entries)}</HttpHostNotificationList>"
            case "PUT", path if path.startswith("/ISAPI/Event/notification/httpHosts/"):
                self.hosts[path.rsplit("/", 1)[1]] = text.partition("?>")[2]
                return done
        return None

    def _json(self, request: Request) -> tuple[int, Json]:
        body: Json = {}
        with contextlib.suppress(ValueError):
            body = json.loads(request.body or b"{}")
        service = request.path.removeprefix(ACCESS)
        if service.endswith("/capabilities") or request.path.endswith("FDLib/capabilities"):
            return 200, self._capabilities(request.path)
        match request.method, service:
            case "POST", "/AcsEvent":
                return 200, self._search(body["AcsEventCond"])
            case "POST", "/UserInfo/Search":
                return 200, self._page(
                    body["UserInfoSearchCond"], "UserInfoSearch", "UserInfo", list(self.users.values())
                )
            case "POST", "/CardInfo/Search":
                cards = [{"cardNo": card, "employeeNo": person} for card, person in self.cards.items()]
                return 200, self._page(body["CardInfoSearchCond"], "CardInfoSearch", "CardInfo", cards)
            case "PUT", "/UserInfo/SetUp":
                return self._put_user(body["UserInfo"])
            case "POST", "/UserInfo/Record" if body["UserInfo"]["employeeNo"] in self.users:
                return 400, {
                    "statusCode": 6,
                    "statusString": "Invalid Content",
                    "subStatusCode": "employeeNoAlreadyExist",
                }
            case ("POST", "/UserInfo/Record") | ("PUT", "/UserInfo/Modify"):
                return self._put_user(body["UserInfo"])
            case "PUT", "/UserInfoDetail/Delete":
                self._deleting += [entry["employeeNo"] for entry in body["UserInfoDetail"]["EmployeeNoList"]]
                return 200, OK
            case "GET", "/UserInfoDetail/DeleteProcess":
                status = "processing" if self._deleting else "success"
                while self._deleting:
                    self._forget(self._deleting.pop())
                return 200, {"UserInfoDetailDeleteProcess": {"status": status}}
            case "GET", "/FingerPrint/DeleteProcess":
                return 200, {"FingerPrintDeleteProcess": {"status": "success"}}
            case "PUT", "/UserInfo/Delete":
                for entry in body["UserInfoDelCond"]["EmployeeNoList"]:
                    self._forget(entry["employeeNo"])
                return 200, OK
            case "POST", "/CardInfo/Record":
                card = body["CardInfo"]
                if card["employeeNo"] not in self.users or card["cardNo"] in self.cards:
                    return 400, {
                        "statusCode": 6,
                        "statusString": "Invalid Content",
                        "subStatusCode": "cardNoAlreadyExist",
                    }
                self.cards[card["cardNo"]] = card["employeeNo"]
                return 200, OK
            case "PUT", "/CardInfo/Delete":
                people = {entry["employeeNo"] for entry in body["CardInfoDelCond"]["EmployeeNoList"]}
                self.cards = {card: person for card, person in self.cards.items() if person not in people}
                return 200, OK
            case _:
                return self._biometrics(request, service, body)

    def _biometrics(self, request: Request, service: str, body: Json) -> tuple[int, Json]:
        match request.method, service:
            case "POST", "/FingerPrint/SetUp":
                finger = body["FingerPrintCfg"]
                known = finger["employeeNo"] in self.users
                if known:
                    self.fingers[finger["employeeNo"], finger["fingerPrintID"]] = finger["fingerData"]
                status = {
                    "id": 1,
                    "cardReaderRecvStatus": 1 if known else 5,
                    "errorMsg": "" if known else "no such person",
                }
                return 200, {"FingerPrintStatus": {"status": "success", "StatusList": [status], "totalStatus": 1}}
            case "POST", "/FingerPrintUpload":
                condition = body["FingerPrintCond"]
                data = self.fingers.get((condition["employeeNo"], condition["fingerPrintID"]))
                entry = {"cardReaderNo": 1, "fingerPrintID": condition["fingerPrintID"], "fingerType": "normalFP"}
                found = [{**entry, "fingerData": data}] if data else []
                return 200, {"FingerPrintInfo": {"status": "OK" if found else "NoFP", "FingerPrintList": found}}
            case "PUT", "/FingerPrint/Delete":
                person = body["FingerPrintDelete"]["EmployeeNoDetail"]["employeeNo"]
                self.fingers = {key: data for key, data in self.fingers.items() if key[0] != person}
                return 200, OK
            case ("PUT", "/ISAPI/Intelligent/FDLib/FDSetUp") | ("POST", "/ISAPI/Intelligent/FDLib/FaceDataRecord"):
                named = re.search(rb'"FPID": ?"(\w+)"', request.body)
                if named is None or named[1].decode() not in self.users:
                    return 400, {
                        "statusCode": 6,
                        "statusString": "Invalid Content",
                        "subStatusCode": "employeeNoNotExist",
                    }
                self.faces[named[1].decode()] = request.body
                return 200, OK
            case "PUT", "/ISAPI/Intelligent/FDLib/FDSearch/Delete":
                for entry in body["FPID"]:
                    self.faces.pop(entry["value"], None)
                return 200, OK
        return 403, NOT_SUPPORT

    def _capabilities(self, path: str) -> Json:
        if path.endswith("AcsEvent/capabilities"):
            serial = {"beginSerialNo": {"@min": 0}, "endSerialNo": {"@min": 0}} if self.by_serial else {}
            return {"AcsEvent": {"AcsEventCond": {"maxResults": {"@max": 30}, **serial}}}
        if path.endswith("FDLib/capabilities"):
            return {"statusCode": 1, "FDRecordDataMaxNum": 500, "supportFDFunction": "post,delete,put,get,setUp"}
        name = path.split("/")[-2]
        return {name: {"maxRecordNum": self.max_users}}

    def _search(self, condition: Json) -> Json:
        first, last = condition.get("beginSerialNo", 0), condition.get("endSerialNo", 1 << 40)
        if not self.by_serial:
            first, last = 0, 1 << 40
        found = [event for event in self.events if first <= event["serialNo"] <= last]
        if self.ranges_empty and "beginSerialNo" in condition:
            found = []
        if self.by_time:
            found.sort(key=lambda event: (event["time"], event["serialNo"]))
        if condition.get("timeReverseOrder"):
            found.reverse()
        if not self.numbered_log:
            found = [{key: value for key, value in event.items() if key != "serialNo"} for event in found]
        if not self.page_stuck:
            return self._page(condition, "AcsEvent", "InfoList", found)
        answer = self._page({**condition, "searchResultPosition": 0}, "AcsEvent", "InfoList", found)
        answer["AcsEvent"]["responseStatusStrg"] = "MORE"
        return answer

    @staticmethod
    def _page(condition: Json, answer: str, entries: str, found: list[Json]) -> Json:
        start = condition["searchResultPosition"]
        page = found[start : start + min(30, condition["maxResults"])]
        word = "NO MATCH" if not page else "MORE" if start + len(page) < len(found) else "OK"
        return {
            answer: {
                "searchID": condition["searchID"], "responseStatusStrg": word, "numOfMatches": len(page),
                "totalMatches": len(found), entries: page,
            }
        }  # fmt: skip

    def _put_user(self, user: Json) -> tuple[int, Json]:
        if user["employeeNo"] not in self.users and len(self.users) >= self.max_users:
            return 400, {"statusCode": 3, "statusString": "Device Error", "subStatusCode": "noMemory"}
        self.users[user["employeeNo"]] = user
        return 200, OK

    def _forget(self, person: str) -> None:
        self.users.pop(person, None)
        self.faces.pop(person, None)
        self.cards = {card: owner for card, owner in self.cards.items() if owner != person}
        self.fingers = {key: data for key, data in self.fingers.items() if key[0] != person}
