"""People, cards, faces and fingers on one terminal, item by item.

Source: "ISAPI (Access Control on Person)", messages UserInfo, UserInfoDelCond, UserInfoDetail, CardInfo,
FingerPrintCfg, FingerPrintCond, FingerPrintDelete and the progress of each; the names of a face's two parts as
DS-K1T342MFWX-E1 (V3.16.1) takes them. `UserInfo/SetUp` came in 2019, and DS-K1T672MX (3.18) has no `FDSetUp`: what a
terminal lacks is said otherwise. Deleting and applying go on after the answer, so their end is asked for.
"""

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
ACCESS = "/ISAPI/AccessControl"
PROGRESS_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)  # between looks at what the terminal is still at
READER_SAYS = {  # cardReaderRecvStatus
    0: "the reader could not be reached",
    2: "the reader is offline",
    3: "the quality of the fingerprint is poor",
    4: "the reader's memory is full",
    5: "the fingerprint exists already",
    6: "the place of the finger is taken",
    7: "no such place for a finger",
    10: "the reader's firmware is too old for this",
}
EXISTS = frozenset({"employeenoalreadyexist", "deviceuseralreadyexist"})


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
            entries = await self._pages(f"{ACCESS}/CardInfo/Search", "CardInfoSearchCond", "CardInfoSearch", "CardInfo")
            for entry in entries:
                cards.setdefault(text(entry.get("employeeNo"), 64), text(entry.get("cardNo"), 64))
        entries = await self._pages(f"{ACCESS}/UserInfo/Search", "UserInfoSearchCond", "UserInfoSearch", "UserInfo")
        return [user for entry in entries if (user := messages.user(entry, cards))]

    async def upsert(self, users: Sequence[DeviceUser], *, with_cards: bool) -> list[ItemResult]:
        async def put(user: DeviceUser) -> None:
            await self._put_user(messages.user_document(user))
            if not with_cards:
                if user.card:
                    raise Unsupported("cards: not on this model")
                return
            await self._delete_cards(user.user_id)
            if user.card:
                info = {"employeeNo": user.user_id, "cardNo": user.card, "cardType": "normalCard"}
                await self._client.json("POST", f"{ACCESS}/CardInfo/Record", {"CardInfo": info})

        return [await _item(user.user_id, partial(put, user)) for user in users]

    async def _put_user(self, document: Json) -> None:
        """Set; on models without that, added, and changed if already there."""
        try:
            await self._client.json("PUT", f"{ACCESS}/UserInfo/SetUp", document)
        except Unsupported:
            await self._add_or_change(document)

    async def _add_or_change(self, document: Json) -> None:
        try:
            await self._client.json("POST", f"{ACCESS}/UserInfo/Record", document)
        except DeviceRefused as exc:
            if exc.sub_code.lower() not in EXISTS:
                raise
            await self._client.json("PUT", f"{ACCESS}/UserInfo/Modify", document)

    async def _delete_cards(self, user_id: str) -> None:
        condition = {"CardInfoDelCond": {"EmployeeNoList": [{"employeeNo": messages.require_user_id(user_id)}]}}
        await self._client.json("PUT", f"{ACCESS}/CardInfo/Delete", condition)

    async def delete(self, user_ids: Sequence[str]) -> list[ItemResult]:
        """The person with cards, faces and fingers. The list is never empty: that would mean everybody."""

        async def remove(user_id: str) -> None:
            people = {"EmployeeNoList": [{"employeeNo": messages.require_user_id(user_id)}]}
            try:
                detail = {"UserInfoDetail": {"mode": "byEmployeeNo", **people}}
                await self._client.json("PUT", f"{ACCESS}/UserInfoDetail/Delete", detail)
            except Unsupported:
                await self._client.json("PUT", f"{ACCESS}/UserInfo/Delete", {"UserInfoDelCond": people})
                return
            await self._ended(f"{ACCESS}/UserInfoDetail/DeleteProcess", "UserInfoDetailDeleteProcess")

        return [await _item(user_id, partial(remove, user_id)) for user_id in user_ids]

    async def _ended(self, path: str, root: str) -> None:
        """Wait for the end of what the terminal began. Raises DeviceRefused if it failed or takes too long."""
        for pause in PROGRESS_PAUSES_S:
            try:
                state = text(item(await self._client.get(f"{path}?format=json"), root, "status"))
            except Unsupported:
                return  # it tells no progress: its answer was the end
            if state != "processing":
                if state == "failed":
                    raise DeviceRefused("the terminal began to delete and failed")
                return
            await self._client.pause(pause)
        raise DeviceRefused(f"the terminal is still deleting after {sum(PROGRESS_PAUSES_S):.0f} s")

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
            document = await self._client.json("POST", f"{ACCESS}/FingerPrintUpload", {"FingerPrintCond": condition})
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
            "POST", f"{ACCESS}/FingerPrint/SetUp", messages.finger_document(template, self._readers)
        )
        for pause in PROGRESS_PAUSES_S:
            if integer(item(document, "FingerPrintStatus", "totalStatus")) != 0:
                break
            await self._client.pause(pause)
            document = await self._client.get(f"{ACCESS}/FingerPrintProgress?format=json")
        for entry in items(document, "FingerPrintStatus", "StatusList"):
            code = integer(entry.get("cardReaderRecvStatus")) or 0
            if code != 1:
                reason = text(entry.get("errorMsg")) or READER_SAYS.get(code, "the reader did not take the fingerprint")
                raise DeviceRefused(reason, code=code)

    async def _put_face(self, template: DeviceTemplate) -> None:
        record = {**FACE_LIBRARY, "FPID": messages.require_user_id(template.user_id)}
        files = {  # in this order
            "FaceDataRecord": (None, json.dumps(record), "application/json"),
            "img": ("face.jpg", template.payload, "image/jpeg"),
        }
        try:
            await self._client.request("PUT", "/ISAPI/Intelligent/FDLib/FDSetUp?format=json", files=files)
        except Unsupported:
            await self._client.request("POST", "/ISAPI/Intelligent/FDLib/FaceDataRecord?format=json", files=files)

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
            f"{ACCESS}/FingerPrint/Delete",
            {"FingerPrintDelete": {"mode": "byEmployeeNo", "EmployeeNoDetail": detail}},
        )
        await self._ended(f"{ACCESS}/FingerPrint/DeleteProcess", "FingerPrintDeleteProcess")
