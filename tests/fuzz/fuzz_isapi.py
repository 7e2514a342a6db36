"""The alert stream's framing, every document an ISAPI terminal may answer, and whole pushes against the receiver."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from device_drivers.devices import DeviceConfig
from device_drivers.errors import DeviceError
from device_drivers.events import DeviceEvent, Origin
from device_drivers.isapi import messages
from device_drivers.isapi.client import IsapiClient
from device_drivers.isapi.driver import IsapiTerminal
from device_drivers.isapi.frame import PartDecoder, boundary_of, split
from device_drivers.isapi.push import Digest, Inbox
from device_drivers.isapi.receiver import IsapiReceiver
from tests.fuzz.asgi_calls import status_of

TYPES = (b"application/json", b"application/xml", b"multipart/form-data; boundary=b", b"")
ALERT = (
    b'{"dateTime": "2024-08-26T12:32:28+01:00", "eventType": "AccessControllerEvent", "eventState": "active",'
    b' "AccessControllerEvent": {"majorEventType": 5, "subEventType": 75, "employeeNoString": "7", "serialNo": 257}}'
)
PART = b"--b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ALERT) + ALERT + b"\r\n"
PICTURE = b'--b\r\nContent-Disposition: form-data; name="Picture"\r\nContent-Type: image/jpeg\r\n\r\nxx\r\n'
HOSTS = b"<HttpHostNotification><id>1</id><url>/</url><ipAddress>0.0.0.0</ipAddress></HttpHostNotification>"
SEEDS = (
    ALERT,
    PART + b"--b--\r\n",
    b"\0\0x\n" + ALERT,
    b"\0\2x\n"
    + PART
    + b'--b\r\nContent-Disposition: form-data; name="Picture"\r\nContent-Type: image/jpeg\r\n\r\nxx\r\n--b--',
    b"<EventNotificationAlert><eventType>videoloss</eventType><eventState>inactive</eventState></EventNotificationAlert>",
    b"<HttpHostNotificationList>" + HOSTS + b"</HttpHostNotificationList>",
    b'<HttpHostNotificationCap><httpAuthenticationMethod opt="MD5digest,none"/></HttpHostNotificationCap>',
    b'{"FingerPrintInfo": {"FingerPrintList": [{"fingerPrintID": 1, "fingerType": "normalFP", "fingerData": "QUJD"}]}}',
    b'{"employeeNo": "7", "Valid": {"beginTime": "2020-01-01T00:00:00"}, "RightPlan": [{"doorNo": 1}]}',
    b'username="gateway", realm="terminals", nonce="0", uri="/", nc=00000001, cnonce="0", qop=auth, response="0"',
)
CLIENT = IsapiClient("http://192.0.2.1", username="", password="", verify=False)
LOOP = asyncio.Runner()
TERMINAL = DeviceConfig("fuzz", "isapi", address="192.0.2.1", serial="S", options={"addresses": ["192.0.2.0/24"]})


class Pushed(IsapiTerminal):
    """A terminal that is recorded without ever being asked anything."""

    def __init__(self, inbox: Inbox) -> None:
        super().__init__(TERMINAL, inbox=inbox, client=CLIENT)
        self._has_log = False
        self._record = self._kept

    @staticmethod
    async def _kept(events: Sequence[DeviceEvent], *, cursor: bytes | None = None) -> None:
        return None


async def _push(data: bytes) -> None:
    receiver = IsapiReceiver(derive=lambda use: use.encode().ljust(32, b"0"))
    inbox = Inbox("0123456789abcdef", "0123456789abcdef", 80, asks_digest=data[0] > 200)
    receiver.opened(inbox, Pushed(inbox))
    header, _, body = data[2:].partition(b"\n")
    headers = {"content_type": TYPES[data[1] % len(TYPES)], "authorization": header}
    if await status_of(receiver, inbox.path, body, **headers) == 500:
        raise AssertionError("a push broke the receiver")


def one_input(data: bytes) -> None:
    messages.status(data)
    for wire in (data, b"--b\r\n" + data):
        with contextlib.suppress(DeviceError):
            for part in PartDecoder(b"b").feed(wire):
                messages.status(part.body)
    with contextlib.suppress(DeviceError):
        split("multipart/form-data; boundary=b", data)
    with contextlib.suppress(DeviceError):
        boundary_of(data.decode("latin-1"))
    with contextlib.suppress(DeviceError):
        alert = messages.alert(data)
        messages.event(alert.access or alert.fields, serial="S", origin=Origin.LIVE, time=alert.time)
    with contextlib.suppress(DeviceError):
        document = messages.parse(data)
        for entry in messages.hosts(document):
            messages.PushTarget("192.0.2.1", 80, "/").is_set(entry)
            messages.is_free(entry)
        messages.offers(document, "HttpHostNotificationCap", "httpAuthenticationMethod")
        messages.fingers(document, "1")
        messages.user(document, {})
        messages.identity(document)
    if Digest("gateway", "password").passes(f"Digest {data.decode('latin-1')}", method="POST", path="/"):
        raise AssertionError("passed without a challenge")
    if len(data) > 3:
        LOOP.run(_push(data))
