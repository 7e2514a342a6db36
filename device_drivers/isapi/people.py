"""People, cards, faces and fingers on one terminal, item by item."""

from __future__ import annotations

import itertools
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from device_drivers.devices import DeviceTemplate, DeviceUser, ItemResult
from device_drivers.errors import DeviceRefused, ProtocolError, Unsupported
from device_drivers.isapi import messages
from device_drivers.isapi.client import IsapiClient
from device_drivers.isapi.messages import FACE_PICTURE, FINGER_ALGORITHM, Json, integer, item, items, text

PAGE = 30
MAX_PEOPLE = 100_000
FACE_LIBRARY = {"faceLibType": "blackFD", "FDID": "1"}


async def _item(key: str, action: Callable[[], Awaitable[None]]) -> ItemResult:
    """A bad item never stops the others; a lost link does."""
    try:
        await action()
    except (DeviceRefused, Unsupported, ValueError) as exc:
        return ItemResult(key, ok=False, reason=str(exc))
    return ItemResult(key, ok=True)


class People:
    def __init__(self, client: IsapiClient, *, readers: Sequence[int] = (1,)) -> None:
        self._client = client
        self._readers = readers
        self._search = itertools.count(1)

    async def _pages(self, path: str, cond: str, answer: str, entry: str) -> list[Json]:
        """Every entry of a paged search. Raises ProtocolError if the device pages for ever."""
        found: list[Json] = []
        search_id = f"people{next(self._search)}"
        while len(found) < MAX_PEOPLE:
            body = {cond: {"searchID": search_id, "searchResultPosition": len(found), "maxResults": PAGE}}
            document = await self._client.json("POST", path, body)
            page = items(document, answer, entry)
            found += page
            if item(document, answer, "responseStatusStrg") != "MORE" or not page:
                return found
        raise ProtocolError(f"more than {MAX_PEOPLE} entries")

    async def users(self, *, with_cards: bool) -> list[DeviceUser]:
        cards: dict[str, str] = {}
        if with_cards:
            entries = await self._pages(
                "/ISAPI/AccessControl/CardInfo/Search", "CardInfoSearchCond", "CardInfoSearch", "CardInfo"
            )
            for entry in entries:
                cards.setdefault(text(entry.get("employeeNo"), 64), text(entry.get("cardNo"), 64))
        entries = await self._pages(
            "/ISAPI/AccessControl/UserInfo/Search", "UserInfoSearchCond", "UserInfoSearch", "UserInfo"
        )
        return [user for entry in entries if (user := messages.user(entry, cards))]

    async def upsert(self, users: Sequence[DeviceUser], *, with_cards: bool) -> list[ItemResult]:
        async def put(user: DeviceUser) -> None:
            await self._client.json("PUT", "/ISAPI/AccessControl/UserInfo/SetUp", messages.user_document(user))
            if not with_cards:
                if user.card:
                    raise Unsupported("cards: not on this model")
                return
            await self._delete_cards(user.user_id)
            if user.card:
                info = {"employeeNo": user.user_id, "cardNo": user.card, "cardType": "normalCard"}
                await self._client.json("POST", "/ISAPI/AccessControl/CardInfo/Record", {"CardInfo": info})

        return [await _item(user.user_id, partial(put, user)) for user in users]

    async def _delete_cards(self, user_id: str) -> None:
        condition = {"CardInfoDelCond": {"EmployeeNoList": [{"employeeNo": messages.require_user_id(user_id)}]}}
        await self._client.json("PUT", "/ISAPI/AccessControl/CardInfo/Delete", condition)

    async def delete(self, user_ids: Sequence[str]) -> list[ItemResult]:
        """The person with cards, faces and fingers."""

        async def remove(user_id: str) -> None:
            condition = {"UserInfoDelCond": {"EmployeeNoList": [{"employeeNo": messages.require_user_id(user_id)}]}}
            await self._client.json("PUT", "/ISAPI/AccessControl/UserInfo/Delete", condition)

        return [await _item(user_id, partial(remove, user_id)) for user_id in user_ids]

    async def fingers(self, user_id: str) -> list[DeviceTemplate]:
        """Asked one by one: the terminal answers a search for all of them with the first alone."""
        found: list[DeviceTemplate] = []
        for number in range(1, 11):
            condition = {
                "searchID": f"finger{next(self._search)}",
                "employeeNo": messages.require_user_id(user_id),
                "cardReaderNo": self._readers[0],
                "fingerPrintID": number,
            }
            document = await self._client.json(
                "POST", "/ISAPI/AccessControl/FingerPrintUpload", {"FingerPrintCond": condition}
            )
            found += [t for t in messages.fingers(document, user_id) if t not in found]
        return found

    async def put_templates(self, templates: Sequence[DeviceTemplate]) -> list[ItemResult]:
        """Fingers of this maker, and faces as the picture the terminal makes its own template of."""

        async def put(template: DeviceTemplate) -> None:
            if template.modality == "fingerprint" and template.algorithm == FINGER_ALGORITHM:
                await self._put_finger(template)
            elif template.modality == "face" and template.algorithm == FACE_PICTURE:
                await self._put_face(template)
            else:
                raise ValueError(f"the terminal does not take {template.algorithm}")

        return [await _item(f"{t.user_id}/{t.modality}/{t.index}", partial(put, t)) for t in templates]

    async def _put_finger(self, template: DeviceTemplate) -> None:
        document = await self._client.json(
            "POST", "/ISAPI/AccessControl/FingerPrint/SetUp", messages.finger_document(template, self._readers)
        )
        for entry in items(document, "FingerPrintStatus", "StatusList"):
            if (integer(entry.get("cardReaderRecvStatus")) or 0) != 1:
                raise DeviceRefused(
                    text(entry.get("errorMsg")) or "the reader did not take the fingerprint",
                    code=integer(entry.get("cardReaderRecvStatus")),
                )

    async def _put_face(self, template: DeviceTemplate) -> None:
        record = {**FACE_LIBRARY, "FPID": messages.require_user_id(template.user_id)}
        files = {
            "FaceDataRecord": (None, json.dumps(record), "application/json"),
            "FaceImage": ("face.jpg", template.payload, "image/jpeg"),
        }
        await self._client.request("PUT", "/ISAPI/Intelligent/FDLib/FDSetUp?format=json", files=files)

    async def delete_templates(self, user_id: str, modality: str) -> None:
        user_id = messages.require_user_id(user_id)
        if modality == "face":
            query = "&".join(f"{key}={value}" for key, value in FACE_LIBRARY.items())
            path = f"/ISAPI/Intelligent/FDLib/FDSearch/Delete?{query}"
            await self._client.json("PUT", path, {"FPID": [{"value": user_id}]})
            return
        detail = {"employeeNo": user_id, "enableCardReader": list(self._readers), "fingerPrintID": list(range(1, 11))}
        await self._client.json(
            "PUT",
            "/ISAPI/AccessControl/FingerPrint/Delete",
            {"FingerPrintDelete": {"mode": "byEmployeeNo", "EmployeeNoDetail": detail}},
        )
