"""A terminal or panel that speaks ADMS push over real sockets, with the faults real ones have.

It calls the server, keeps its records until they are acknowledged, follows the server's `Date`, and does what it is
told. Its reading of commands is its own, so the server's words are judged by somebody else than their author.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx

STAMP = "9999"  # constant, as on ZMM510-NF24VB-Ver2.1.4
BATCH = 100
USER_FIELDS = {"name": "Name", "pri": "Pri", "privilege": "Pri", "passwd": "Passwd", "password": "Passwd",
               "card": "Card", "cardno": "Card", "starttime": "Start", "endtime": "End"}  # fmt: skip


@dataclass(slots=True)
class SimulatedAdms:
    """`security=False`: attendance push 2.4; `True`: security push 3.1. Times it says are its own local clock."""

    url: str
    serial: str
    security: bool = False
    poll_s: float = 2.0
    chinese: bool = False
    trailing_slash: bool = False
    max_users: int = 1000
    biodata_version: str = "39.3"
    records: list[bytes] = field(default_factory=list)  # not acknowledged yet
    users: dict[str, dict[str, str]] = field(default_factory=dict)
    templates: dict[tuple[str, str, str], str] = field(default_factory=dict)  # (pin, type, no) -> base64
    access: dict[str, str] = field(default_factory=dict)  # pin -> doors as bits
    opened: list[tuple[int, int]] = field(default_factory=list)  # door, seconds
    reboots: int = 0
    commands: list[str] = field(default_factory=list)
    photos: list[bytes] = field(default_factory=list)  # to be pushed
    pictures: set[str] = field(default_factory=set)  # pins whose picture it compares faces with
    drift: timedelta = timedelta()
    zone_minutes: int | None = None
    all_kinds: bool = False  # answers a query for one kind of template with every kind
    door_open: bool = False  # the leaf of door 1
    silent_commands: bool = False  # takes commands and never confirms them
    _online: asyncio.Event = field(default_factory=asyncio.Event)
    _corrupt: bool = False
    _index: int = 0
    _clock_offset: timedelta = timedelta()
    _greeted: bool = False
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._online.set()

    # -- what a person, a cable or time does to it -------------------------------------------------------------------

    def swipe(self, user_id: str, *, verify: int = 15, state: int = 0, granted: bool = True) -> None:
        """Somebody shows a face, finger or card; recorded at the terminal's own time."""
        moment = f"{self.local_time():%Y-%m-%d %H:%M:%S}"
        if self.security:
            self._index += 1
            line = (
                f"time={moment}\tpin={user_id}\tcardno=0\teventaddr=1\tevent={0 if granted else 27}"
                f"\tinoutstatus={state}\tverifytype={verify}\tindex={self._index}"
            )
        else:
            line = f"{user_id}\t{moment}\t{state}\t{verify}\t0\t0\t0\t0\t0\t0\t"
        self.records.append(line.encode())
        self._woken.set()

    def push_photo(self, user_id: str, jpeg: bytes) -> None:
        """A picture nobody asked for; the terminal keeps it too."""
        self.pictures.add(user_id)
        content = base64.b64encode(jpeg).decode()
        self.photos.append(
            f"BIOPHOTO PIN={user_id}\tFileName={user_id}.jpg\tType=9\tSize={len(content)}\tContent={content}\n".encode()
        )
        self._woken.set()

    def enrol(self, user_id: str, name: str, *, template: bytes | None = None) -> None:
        """At the terminal itself."""
        self.users[user_id] = {"Name": name, "Pri": "0", "Passwd": "", "Card": ""}
        if template is not None:
            self.templates[user_id, "9", "0"] = base64.b64encode(template).decode()

    def go_offline(self) -> None:
        self._online.clear()

    def go_online(self) -> None:
        self._online.set()

    def corrupt_next(self) -> None:
        """The next upload carries one unreadable line among the good ones."""
        self._corrupt = True

    def drift_clock(self, by: timedelta) -> None:
        """Until the next greeting, which sets the clock again."""
        self.drift += by

    def fill_memory(self) -> None:
        """No further user fits."""
        self.max_users = len(self.users)

    def local_time(self) -> datetime:
        return (datetime.now(UTC) + self._clock_offset + self.drift).replace(tzinfo=None, microsecond=0)

    # -- what it does by itself --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. A refused or broken exchange is tried again at the next round, nothing is lost."""
        async with httpx.AsyncClient(timeout=10.0) as client:
            while True:
                await self._online.wait()
                with contextlib.suppress(httpx.HTTPError, TimeoutError):
                    if not self._greeted:
                        await self._greet(client)
                    if self._greeted:
                        await self._upload(client)
                        await self._obey(client)
                self._woken.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.poll_s):
                        await self._woken.wait()

    def reconnect(self) -> None:
        self._greeted = False

    async def _call(
        self, client: httpx.AsyncClient, method: str, service: str, query: str = "", body: bytes | None = None
    ) -> httpx.Response:
        slash = "/" if self.trailing_slash else ""
        return await client.request(method, f"{self.url}/iclock/{service}{slash}?SN={self.serial}{query}", content=body)

    async def _greet(self, client: httpx.AsyncClient) -> None:
        version = "3.1.2" if self.security else "2.4.1"
        language = "83" if self.chinese else "69"
        answer = await self._call(client, "GET", "cdata", f"&options=all&pushver={version}&language={language}")
        if answer.status_code != 200:
            return
        self._set_clock(answer)
        if self.security:
            about = f"DeviceType=acc,{self._about()}"
            registered = await self._call(client, "POST", "registry", body=about.encode())
            if registered.status_code != 200 or b"RegistryCode=" not in registered.content:
                return
            if (await self._call(client, "POST", "push", body=b"")).status_code != 200:
                return
        else:
            about = f"~DeviceName=SIM-FACE,FirmVer=ZAM180-NF-Ver1.1.17,MaxUserCount={self.max_users},{self._versions()}"
            told = await self._call(client, "POST", "cdata", "&table=options", about.encode())
            if told.status_code != 200:
                return
        self._greeted = True

    def _about(self) -> str:
        return (
            f"~DeviceName=SIM-ACC,FirmVer=Ver 8.0.4,PushVersion=Ver 3.1.2,LockCount=1,"
            f"~MaxUserCount={max(1, self.max_users // 100)},~MaxAttLogCount=10,~ZKFPVersion=10,{self._versions()}"
        )

    def _versions(self) -> str:
        return f"MultiBioDataSupport=0:1:0:0:0:0:0:0:0:1,MultiBioVersion=0:10.0:0:0:0:0:0:0:0:{self.biodata_version}"

    def _set_clock(self, answer: httpx.Response) -> None:
        """From `Date`, which is GMT, and `TimeZone`: small numbers are hours, others minutes."""
        for line in answer.text.splitlines():
            if line.startswith("TimeZone="):
                value = int(line.removeprefix("TimeZone="))
                self.zone_minutes = value * 60 if abs(value) <= 14 else value
        offset = parsedate_to_datetime(answer.headers["date"]) - datetime.now(UTC)
        self._clock_offset = offset + timedelta(minutes=self.zone_minutes or 0)
        self.drift = timedelta()

    async def _upload(self, client: httpx.AsyncClient) -> None:
        while self.records:
            batch = self.records[:BATCH]
            lines = [b"\t\xff\xfe???", *batch] if self._corrupt else batch
            table = "rtlog" if self.security else f"ATTLOG&Stamp={STAMP}"
            answer = await self._call(client, "POST", "cdata", f"&table={table}", b"\n".join(lines) + b"\n")
            if answer.status_code != 200 or not answer.content.startswith(b"OK"):
                return
            self._corrupt = False
            del self.records[: len(batch)]
        while self.photos:
            answer = await self._call(client, "POST", "cdata", "&table=BIOPHOTO", self.photos[0])
            if answer.status_code != 200:
                return
            del self.photos[0]
        if self.security:
            leaf = f"sensor=0{1 + self.door_open}\trelay=00\talarm=0000000000000000"
            state = f"time={self.local_time():%Y-%m-%d %H:%M:%S}\t{leaf}"
            await self._call(client, "POST", "cdata", "&table=rtstate", state.encode())

    async def _obey(self, client: httpx.AsyncClient) -> None:
        info = f"ZAM180-NF-Ver1.1.17,{len(self.users)},0,0,192.0.2.10,10,39,0,{len(self.templates)},11110"
        answer = await self._call(client, "GET", "getrequest", f"&INFO={info}")
        if answer.status_code != 200 or answer.content.strip() in {b"OK", b""}:
            return
        encoding = "gb18030" if self.chinese else "utf-8"
        confirmations = []
        for line in answer.content.decode(encoding).splitlines():
            if not line.startswith("C:"):
                continue
            _, number, text = line.split(":", 2)
            self.commands.append(text)
            code = await self._execute(client, number, text)
            word = " ".join(text.split(" ")[:2]) if text.startswith(("DATA", "CONTROL")) else text.split(" ")[0]
            about = "\n".join(["", "~DeviceName=SIM-FACE", *self._versions().split(",")])
            extra = about if word == "INFO" else ""
            confirmations.append(f"ID={number}&Return={code}&CMD={word}{extra}")
        if confirmations and not self.silent_commands:
            await self._call(client, "POST", "devicecmd", body="\n".join(confirmations).encode() + b"\n")

    async def _execute(self, client: httpx.AsyncClient, number: str, text: str) -> int:
        words = text.split(" ", 3)
        match words:
            case ["INFO"] | ["CHECK"] | ["REBOOT"] | ["AC_UNLOCK"]:
                self.reboots += words == ["REBOOT"]
                if words == ["AC_UNLOCK"]:
                    self.opened.append((1, 5))
                return 0
            case ["CLEAR", "LOG"]:
                return 0
            case ["CONTROL", "DEVICE", code]:
                return self._control(bytes.fromhex(code))
            case ["SET", "OPTIONS", option] if option.startswith("DateTime="):
                return 0
            case ["DATA", "UPDATE", table, rest]:
                return self._update(table.lower(), _fields(rest))
            case ["DATA", "DELETE", table, rest]:
                return self._delete(table.lower(), _fields(rest))
            case ["GET", "OPTIONS", _] if self.security:
                query = f"&type=options&cmdid={number}&tablename=options&count=1&packcnt=1&packidx=1"
                await self._call(client, "POST", "querydata", query, self._about().encode())
                return 0
            case ["DATA", "QUERY", *_]:
                return await self._query(client, number, text.removeprefix("DATA QUERY "))
        return -1002

    def _control(self, code: bytes) -> int:
        if code[0] == 1 and code[2] == 1:
            self.opened.append((code[1], code[3]))
        elif code[0] == 3:
            self.reboots += 1
        else:
            return -13
        return 0

    def _update(self, table: str, fields: dict[str, str]) -> int:
        pin = fields.get("pin", "")
        if table == ("user" if self.security else "userinfo"):
            if pin not in self.users and len(self.users) >= self.max_users:
                return -18
            kept = self.users.setdefault(pin, {"Name": "", "Pri": "0", "Passwd": "", "Card": ""})
            kept |= {USER_FIELDS[key]: value for key, value in fields.items() if key in USER_FIELDS}
            return 0
        if table == "userauthorize" and self.security:
            self.access[pin] = fields["authorizedoorid"]
            return 0
        if table == "biodata":
            if f"{fields['majorver']}.{fields['minorver']}" != self.biodata_version:
                return -30
            if pin not in self.users:
                return -27
            self.templates[pin, fields["type"], fields["no"]] = fields["tmp"]
            return 0
        return -1004

    def _delete(self, table: str, fields: dict[str, str]) -> int:
        pin = fields.get("pin", "")
        if table in {"userinfo", "user"}:
            self.users.pop(pin, None)
            self.pictures.discard(pin)
            for key in [key for key in self.templates if key[0] == pin]:
                del self.templates[key]
            return 0
        if table == "biophoto":
            self.pictures.discard(pin)
            return 0
        if table == "biodata":
            for key in [key for key in self.templates if key[0] == pin and key[1] == fields.get("type", key[1])]:
                del self.templates[key]
            return 0
        return 0 if table in {"userauthorize", "templatev10"} and self.security else -1004

    async def _query(self, client: httpx.AsyncClient, number: str, text: str) -> int:
        if self.security:
            wanted = dict(part.partition("=")[::2] for part in text.split(",", 2))
            table, condition = wanted["tablename"], _fields(wanted["filter"])
        else:
            table, _, rest = text.partition(" ")
            condition = _fields(rest)
        if table.lower() in {"userinfo", "user"}:
            rows = [
                f"USER PIN={pin}\tName={user['Name']}\tPri={user['Pri']}\tPasswd={user['Passwd']}\tCard={user['Card']}"
                if not self.security
                else f"user uid=1\tcardno={user['Card']}\tpin={pin}\tpassword={user['Passwd']}\tname={user['Name']}"
                f"\tprivilege={user['Pri']}\tdisable=0\tstarttime={user.get('Start', 0)}\tendtime={user.get('End', 0)}"
                for pin, user in self.users.items()
                if condition.get("pin", pin) == pin
            ]
        elif table.lower() == "userauthorize":
            rows = [
                f"userauthorize pin={pin}\tauthorizetimezoneid=1\tauthorizedoorid={doors}"
                for pin, doors in self.access.items()
            ]
        elif table.lower() == "biodata":
            major, minor = self.biodata_version.split(".")
            rows = [
                f"BIODATA Pin={pin}\tNo={no}\tIndex=0\tValid=1\tDuress=0\tType={kind}\tMajorVer={major}"
                f"\tMinorVer={minor}\tFormat=0\tTmp={template}"
                for (pin, kind, no), template in self.templates.items()
                if condition.get("pin", pin) == pin and (self.all_kinds or condition.get("type", kind) == kind)
            ]
        else:
            return -1004
        return await self._answer_query(client, number, table, rows)

    async def _answer_query(self, client: httpx.AsyncClient, number: str, table: str, rows: list[str]) -> int:
        encoding = "gb18030" if self.chinese else "utf-8"
        if not rows:
            return 0 if self.security else -1
        packets = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
        for index, packet in enumerate(packets, start=1):
            body = ("\n".join(packet) + "\n").encode(encoding)
            if self.security:
                query = (
                    f"&type=tabledata&cmdid={number}&tablename={table}&count={len(packet)}"
                    f"&packcnt={len(packets)}&packidx={index}"
                )
                await self._call(client, "POST", "querydata", query, body)
            else:
                name = "BIODATA" if table == "BIODATA" else "OPERLOG"
                await self._call(client, "POST", "cdata", f"&table={name}&Stamp={STAMP}", body)
        return len(rows) if self.security else 0


def _fields(text: str) -> dict[str, str]:
    return {key.lower(): value for key, _, value in (part.partition("=") for part in text.split("\t"))}
