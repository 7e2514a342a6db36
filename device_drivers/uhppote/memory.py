"""What a UHPPOTE controller holds and decides by: cards with their PINs, time profiles, the task list.

A controller keeps no list of its profiles and gives no list of its tasks: profiles are asked for one by one,
tasks are replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import date, time

from uhppoted import decode, encode

from device_drivers.devices import DeviceUser, DoorTask, ItemResult, TimeProfile
from device_drivers.errors import ProtocolError
from device_drivers.uhppote import messages
from device_drivers.uhppote.exchange import Exchange, door_count, require_door

MAX_CARDS = 100_000


class Memory:
    """One controller's. `known` asks for its serial number where that is still open."""

    def __init__(self, link: Exchange, *, known: Callable[[], Awaitable[int]], card_format: str) -> None:
        if card_format not in {"wiegand-26", "wiegand-34"}:
            raise ValueError("card_format is wiegand-26 or wiegand-34")
        self._link = link
        self._known = known
        self.card_format = card_format

    # -- cards

    async def users(self) -> list[DeviceUser]:
        serial = await self._known()
        reply, _ = await self._link.ask(encode.get_cards_request(serial), decode.get_cards_response)
        wanted = min(int(reply.cards), MAX_CARDS)
        found: list[DeviceUser] = []
        index = 0
        while len(found) < wanted:
            index += 1
            card, _ = await self._link.ask(
                encode.get_card_by_index_request(serial, index), decode.get_card_by_index_response
            )
            if card.card_number == 0:
                break  # past the end: fewer cards than the count said
            if card.card_number != messages.DELETED_CARD:
                found.append(messages.device_user(card, self.card_format))
        return found

    async def upsert_users(self, users: Sequence[DeviceUser]) -> list[ItemResult]:
        serial = await self._known()
        results = []
        for user in users:
            try:
                request = self._put_card(serial, user)
                reply, _ = await self._link.ask(request, decode.put_card_response)
            except ValueError as exc:
                results.append(ItemResult(user.user_id, ok=False, reason=str(exc)))
                continue
            reason = "" if reply.stored else "the controller refused the card"
            results.append(ItemResult(user.user_id, ok=bool(reply.stored), reason=reason))
        return results

    def _put_card(self, serial: int, user: DeviceUser) -> bytes:
        number = messages.shown_number(user.card, self.card_format)
        allowed = messages.permissions(user, door_count(serial))
        first = user.valid_from.date() if user.valid_from else messages.FIRST_DAY
        last = user.valid_until.date() if user.valid_until else messages.LAST_DAY
        if last < first:
            raise ValueError("the card's validity ends before it starts")
        pin = messages.pin_number(user.pin)
        packet = encode.put_card_request(
            serial, number, first, last, allowed[1], allowed[2], allowed[3], allowed[4], pin
        )
        return bytes(packet)

    async def delete_users(self, user_ids: Sequence[str]) -> list[ItemResult]:
        """`user_ids` are card numbers as `users` gives them."""
        serial = await self._known()
        results = []
        for user_id in user_ids:
            if not (user_id.isascii() and user_id.isdecimal()) or not 0 < int(user_id) < messages.DELETED_CARD:
                results.append(ItemResult(user_id, ok=False, reason="not a card number of this controller"))
                continue
            present, _ = await self._link.ask(encode.get_card_request(serial, int(user_id)), decode.get_card_response)
            if present.card_number == 0:
                results.append(ItemResult(user_id, ok=True, reason="was not there"))
                continue
            reply, _ = await self._link.ask(
                encode.delete_card_request(serial, int(user_id)), decode.delete_card_response
            )
            reason = "" if reply.deleted else "the controller kept the card"
            results.append(ItemResult(user_id, ok=bool(reply.deleted), reason=reason))
        return results

    # -- time profiles

    async def time_profiles(self) -> list[TimeProfile]:
        """Every profile that is there: 253 questions, because a controller keeps no list."""
        return [profile for number in messages.PROFILES if (profile := await self.time_profile(number)) is not None]

    async def time_profile(self, number: int) -> TimeProfile | None:
        serial = await self._known()
        reply, _ = await self._link.ask(
            encode.get_time_profile_request(serial, number), decode.get_time_profile_response
        )
        try:
            return messages.time_profile(reply)
        except ValueError as exc:
            raise ProtocolError(f"{self._link.address}: {exc}") from exc

    async def set_time_profile(self, profile: TimeProfile) -> None:
        """Raises DeviceRefused, for instance when the linked profile is missing."""
        empty = (time(), time())
        spans = [*profile.spans, empty, empty, empty][:3]
        request = encode.set_time_profile_request(
            await self._known(), profile.number, *_days(profile), *[moment for span in spans for moment in span],
            profile.linked,
        )  # fmt: skip
        await self._link.order(request, decode.set_time_profile_response, done="stored", what="time profile")

    async def clear_time_profiles(self) -> None:
        await self._link.order(
            encode.delete_all_time_profiles_request(await self._known()),
            decode.delete_all_time_profiles_response, done="deleted", what="clear time profiles",
        )  # fmt: skip

    # -- tasks

    async def set_tasks(self, tasks: Sequence[DoorTask]) -> None:
        """The list cannot be read back; it is replaced as a whole. Raises DeviceRefused."""
        serial = await self._known()
        for task in tasks:
            require_door(serial, task.door)
        await self._link.order(
            encode.clear_tasklist_request(serial),
            decode.clear_tasklist_response,
            done="cleared",
            what="clear task list",
        )
        for task in tasks:
            request = encode.add_task_request(
                serial, *_days(task), task.at, task.door, messages.TASK_CODES[task.mode], 0
            )
            await self._link.order(request, decode.add_task_response, done="added", what="task")
        await self._link.order(
            encode.refresh_tasklist_request(serial), decode.refresh_tasklist_response, done="refreshed",
            what="task list",
        )  # fmt: skip


def _days(spell: TimeProfile | DoorTask) -> tuple[date | bool, ...]:
    """First and last day, then Monday to Sunday."""
    weekdays = [day in spell.weekdays for day in range(7)]
    return (spell.first_day or messages.FIRST_DAY, spell.last_day or messages.LAST_DAY, *weekdays)
