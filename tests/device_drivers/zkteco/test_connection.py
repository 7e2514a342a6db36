from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator

import pytest

from device_drivers.errors import FrameError, LinkError, LinkTimeout
from device_drivers.zkteco.codes import Command
from device_drivers.zkteco.connection import MAX_LIVE_PAYLOAD, MAX_LIVE_WAITING, Connection, Timing
from device_drivers.zkteco.frame import Frame, StreamDecoder


class ScriptedLink:
    """The terminal's side is the test: it sees requests in `sent` and says what it likes with `say`."""

    address = "terminal:4370"

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Frame] = asyncio.Queue()
        self._incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self._decoder = StreamDecoder()

    def say(self, *frames: Frame) -> None:
        self._incoming.put_nowait(b"".join(frame.encode_tcp() for frame in frames))

    def say_bytes(self, data: bytes) -> None:
        self._incoming.put_nowait(data)

    def reply(self, to: Frame, command: Command, payload: bytes = b"") -> None:
        self.say(Frame(command, 7, to.reply_no, payload))

    async def send(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            self.sent.put_nowait(frame)

    async def receive(self, *, timeout_s: float | None) -> bytes:
        return await self._incoming.get()

    async def close(self) -> None: ...


@pytest.fixture
def link() -> ScriptedLink:
    return ScriptedLink()


@pytest.fixture
async def connection(link: ScriptedLink) -> AsyncIterator[Connection]:
    opened = Connection(link, udp=False, timing=Timing(reply_s=5.0))
    yield opened
    if opened.failure is None:
        closing = asyncio.create_task(opened.close())
        link.reply(await link.sent.get(), Command.ACK_OK)
        await closing
    else:
        await opened.close()


def live(payload: bytes = b"x") -> Frame:
    return Frame(Command.REG_EVENT, 1, 0, payload)


async def test_the_reply_to_a_request_that_was_cancelled_answers_no_other(
    link: ScriptedLink, connection: Connection
) -> None:
    first = asyncio.create_task(connection.ask(Command.GET_TIME))
    abandoned = await link.sent.get()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.create_task(connection.ask(Command.GET_VERSION))
    request = await link.sent.get()
    link.reply(abandoned, Command.ACK_OK, b"late")
    link.reply(request, Command.ACK_OK, b"Ver 6.60")
    assert (await second).payload == b"Ver 6.60"


async def test_requests_wait_for_their_turn(link: ScriptedLink, connection: Connection) -> None:
    asking = [asyncio.create_task(connection.ask(Command.GET_TIME)) for _ in range(5)]
    for number in range(5):
        request = await link.sent.get()
        assert link.sent.empty()
        link.reply(request, Command.ACK_OK, bytes((number,)))
    assert [(await task).payload for task in asking] == [bytes((number,)) for number in range(5)]


async def test_empty_data_frames_do_not_put_a_timeout_off(link: ScriptedLink, connection: Connection) -> None:
    asking = asyncio.create_task(connection.ask(Command.DATA_RDY, timeout_s=0.2, max_answer=100))
    request = await link.sent.get()
    link.reply(request, Command.PREPARE_DATA, (50).to_bytes(4, "little"))
    loop = asyncio.get_running_loop()

    def drip() -> None:
        if not asking.done():
            link.reply(request, Command.DATA)
            loop.call_later(0.02, drip)

    drip()
    with pytest.raises(LinkTimeout):
        await asyncio.wait_for(asking, 5)


async def test_live_events_beyond_the_limit_are_left_to_the_log(link: ScriptedLink, connection: Connection) -> None:
    link.say(*[live() for _ in range(MAX_LIVE_WAITING + 10)])
    link.say(live(bytes(MAX_LIVE_PAYLOAD + 1)))
    asking = asyncio.create_task(connection.ask(Command.GET_TIME))
    link.reply(await link.sent.get(), Command.ACK_OK)
    await asking  # everything said before the reply has been read
    assert len(await connection.live_events(timeout_s=0)) == MAX_LIVE_WAITING
    assert (connection.live_received, connection.live_dropped) == (MAX_LIVE_WAITING + 11, 11)


async def test_what_ended_the_connection_reaches_everyone_who_waits(link: ScriptedLink, connection: Connection) -> None:
    asking = asyncio.create_task(connection.ask(Command.GET_TIME))
    listening = asyncio.create_task(connection.live_events(timeout_s=5))
    await link.sent.get()
    link.say_bytes(b"no terminal at all")
    for task in (asking, listening):
        with pytest.raises(FrameError):
            await asyncio.wait_for(task, 5)
    with pytest.raises(LinkError, match="has ended"):
        await connection.ask(Command.GET_TIME)


async def test_live_events_heard_before_the_end_are_still_handed_over(
    link: ScriptedLink, connection: Connection
) -> None:
    link.say(live(b"last words"))
    link.say_bytes(b"no terminal at all")
    assert [event.payload for event in await connection.live_events(timeout_s=5)] == [b"last words"]
    with pytest.raises(FrameError):
        await connection.live_events(timeout_s=5)


async def test_a_forgotten_session_ends_the_connection(link: ScriptedLink, connection: Connection) -> None:
    asking = asyncio.create_task(connection.ask(Command.GET_FREE_SIZES))
    link.reply(await link.sent.get(), Command.ACK_UNAUTH)
    with pytest.raises(LinkError, match="forgotten"):
        await asking
    assert isinstance(connection.failure, LinkError)


async def test_closing_ends_the_request_in_flight_and_waits_for_none(
    link: ScriptedLink, connection: Connection
) -> None:
    asking = asyncio.create_task(connection.ask(Command.DATA_RDY, timeout_s=3600.0))
    await link.sent.get()
    async with asyncio.timeout(5):
        await connection.close()
    with pytest.raises(LinkError):
        await asking


async def test_an_answer_that_only_trickles_ends_the_connection(link: ScriptedLink) -> None:
    connection = Connection(link, udp=False, timing=Timing(chunk_s=0.1))
    asking = asyncio.create_task(connection.ask(Command.DATA_RDY, timeout_s=0.1))
    request = await link.sent.get()
    link.reply(request, Command.PREPARE_DATA, struct.pack("<I", 0xFFC0))

    async def trickle() -> None:
        while True:
            link.reply(request, Command.DATA, b"\0")
            await asyncio.sleep(0.02)

    trickling = asyncio.create_task(trickle())
    async with asyncio.timeout(5):
        with pytest.raises(LinkTimeout):
            await asking
    trickling.cancel()
    await connection.close()
