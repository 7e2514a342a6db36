"""The bus against libosdp's own peripheral devices, on a pseudo-terminal and on TCP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from osdp.constants import Command, CommandLEDColor

from device_drivers.devices import CommandState, DeviceConfig, DoorMode, Feedback, Reader
from device_drivers.errors import DeviceRefused, LinkError, LinkTimeout, Unsupported
from device_drivers.events import CardRead, DoorEvent, DoorEventKind, KeysPressed
from device_drivers.osdp.driver import OsdpBus
from device_drivers.osdp.frame import RAW, Decoder, Frame
from device_drivers.simulated.osdp import SimulatedBus, SimulatedReader
from device_drivers.wiegand import encode
from edge_agent.attendance import key_of
from tests.device_drivers.recorded import Recorded

KEYS = {address: bytes(range(address, address + 16)) for address in range(1, 9)}
CARD = encode("H10301", facility=99, number=999)
VALUE = str(99 << 16 | 999)


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def pd(address: int, **more: object) -> dict[str, object]:
    return {"address": address, "key": KEYS[address].hex(), **more}


def bus_config(address: str, *pds: dict[str, object], **options: object) -> DeviceConfig:
    return DeviceConfig("line", "osdp", address, options={"pds": list(pds), **options})


@contextlib.asynccontextmanager
async def line(
    *readers: SimulatedReader, pds: list[dict[str, object]] | None = None, tcp: bool = False, clock: Clock | None = None
) -> AsyncIterator[tuple[SimulatedBus, OsdpBus, Recorded]]:
    site = SimulatedBus(*readers)
    address = await (site.start_tcp() if tcp else site.start())
    config = bus_config(address, *(pds or [pd(reader.address) for reader in readers]))
    driver = OsdpBus(config, cursor=None, clock=clock) if clock else OsdpBus(config, cursor=None)
    record = Recorded()
    task = asyncio.create_task(driver.run(record))
    try:
        yield site, driver, record
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await site.stop()


def doors(record: Recorded) -> list[tuple[DoorEventKind, int | None]]:
    return [(event.kind, event.reader) for event in record.events if isinstance(event, DoorEvent)]


async def within(seconds: float, waiting: Any) -> None:
    async with asyncio.timeout(seconds):
        await waiting


@pytest.mark.parametrize("tcp", [False, True])
async def test_cards_and_pins_of_two_readers_arrive_over_secure_channels(tcp: bool) -> None:
    first, second = SimulatedReader(1, key=KEYS[1]), SimulatedReader(2, key=KEYS[2])
    async with line(first, second, tcp=tcp) as (_, driver, record):
        assert isinstance(driver, Reader)
        await within(5, driver._until(lambda: all(r.secure for r in driver._readers), 5))
        first.show_card(CARD)
        second.press("12")
        second.press("34#")
        await record.until(lambda events: len(events) == 2)
    expected = [
        CardRead("line", 1, VALUE, bits=CARD, card_format="wiegand-26", facility=99),
        KeysPressed("line", 2, "1234"),
    ]
    assert sorted(record.events, key=str) == sorted(expected, key=str)


FORMATS = {
    "H10301": ("wiegand-26", 99, 999),
    "H10306": ("wiegand-34", 4711, 65535),
    "C1000": ("wiegand-35", 4095, 1_000_000),
    "H10302": ("wiegand-37", None, 500_000),
}


async def test_eight_readers_on_one_line_each_read_their_own_card() -> None:
    readers = [SimulatedReader(address, key=KEYS[address]) for address in KEYS]
    keys = list(FORMATS) * 2
    async with line(*readers) as (_, driver, record):
        await within(30, driver._until(lambda: all(r.secure for r in driver._readers), 30))
        for reader, key in zip(readers, keys, strict=True):
            _, facility, number = FORMATS[key]
            reader.show_card(encode(key, facility=facility or 0, number=number))
        await record.until(lambda events: len(events) == 8, timeout_s=30)
    read = {event.reader: event for event in record.events if isinstance(event, CardRead)}
    assert {n: (card.card_format, card.facility) for n, card in read.items()} == {
        reader.address: FORMATS[key][:2] for reader, key in zip(readers, keys, strict=True)
    }
    assert [len(read[n].bits) for n in (1, 2, 3, 4)] == [26, 34, 35, 37]


async def test_a_command_that_is_not_answered_is_sent_again_byte_for_byte() -> None:
    reader = SimulatedReader(1, key=KEYS[1])
    async with line(reader) as (_, driver, record):
        await within(5, driver._until(lambda: driver._readers[0].secure, 5))
        decoder, direct = Decoder(), reader.arrived
        seen: list[bytes] = []
        thrice = asyncio.Event()

        def deaf_once(data: bytes) -> None:
            fresh = [frame.wire for frame in decoder.feed(data) if not frame.reply]
            seen.extend(fresh)
            if len(seen) > 1:
                direct(data)
            if len(seen) > 2:
                thrice.set()

        reader.arrived = deaf_once  # type: ignore[method-assign]
        await within(20, thrice.wait())
        reader.show_card(CARD)
        await record.until(lambda events: len(events) == 1, timeout_s=20)
    lost, again, following = seen[:3]
    assert again == lost
    assert following != lost
    assert isinstance(record.events[0], CardRead)


async def test_an_adapter_that_echoes_what_it_sends_is_no_obstacle() -> None:
    reader = SimulatedReader(1, key=KEYS[1])
    async with line(reader, tcp=True) as (site, driver, record):
        direct = reader.arrived

        def echo_and_hear(data: bytes) -> None:
            site._send(data)
            direct(data)

        reader.arrived = echo_and_hear  # type: ignore[method-assign]
        await driver.probe()
        reader.show_card(CARD)
        await record.until(lambda events: len(events) == 1)
    assert isinstance(record.events[0], CardRead)


async def test_identity_is_what_the_reader_says() -> None:
    async with line(SimulatedReader(1, key=KEYS[1])) as (_, driver, _record):
        identity = await driver.probe()
        assert (identity.serial, identity.model) == ("line", "7.1")
        assert driver.pd_identity(1) == identity
        with pytest.raises(DeviceRefused, match="no reader 9"):
            driver.pd_identity(9)


async def test_a_door_opens_by_a_timed_output_and_never_longer_than_the_timer_holds() -> None:
    reader = SimulatedReader(1, key=KEYS[1])
    async with line(reader, pds=[pd(1, door=7, output=1)]) as (_, driver, _record):
        await driver.probe()
        assert (await driver.open_door(7, seconds=5)).state is CommandState.DONE
        assert (await driver.open_door(7, seconds=300)).state is CommandState.DONE
        assert reader.pulses == [(1, 50), (1, 255)]
        with pytest.raises(DeviceRefused, match="no door 1"):
            await driver.open_door(1, seconds=5)
        assert (await driver.set_door_mode(7, DoorMode.UNLOCKED)).state is CommandState.DONE
        assert (await driver.set_door_mode(7, DoorMode.CONTROLLED)).state is CommandState.DONE
        assert [c["control_code"] for c in reader.told_of(Command.Output)] == [5, 5, 2, 1]


@pytest.mark.parametrize(
    ("what", "colour", "beeps"),
    [
        (Feedback.GRANTED, CommandLEDColor.Green, 1),
        (Feedback.DENIED, CommandLEDColor.Red, 3),
        (Feedback.LOOK_AGAIN, CommandLEDColor.Amber, 1),
        (Feedback.WAIT, CommandLEDColor.Amber, None),
        (Feedback.TURN_LEFT, CommandLEDColor.Amber, 1),
        (Feedback.TURN_RIGHT, CommandLEDColor.Amber, 2),
    ],
)
async def test_feedback_lights_and_sounds(what: Feedback, colour: int, beeps: int | None) -> None:
    reader = SimulatedReader(1, key=KEYS[1])
    async with line(reader) as (_, driver, _record):
        await driver.probe()
        await driver.feedback(1, what)
        wanted = 1 if beeps is None else 2
        await within(
            5, reader.until(lambda: len(reader.told_of(Command.LED) + reader.told_of(Command.Buzzer)) == wanted)
        )
    led = reader.told_of(Command.LED)[0]
    assert (led["on_color"], led["temporary"]) == (colour, True)
    assert [b["rep_count"] for b in reader.told_of(Command.Buzzer)] == ([] if beeps is None else [beeps])


async def test_tamper_power_contact_and_button_are_told_once_per_change() -> None:
    reader = SimulatedReader(1, key=KEYS[1])
    async with line(reader, pds=[pd(1, inputs={"0": "contact", "1": "button"})]) as (_, driver, record):
        await driver.probe()
        for count, act in enumerate(
            [
                lambda: reader.tamper(on=True),
                lambda: reader.tamper(on=False),
                lambda: reader.power_fail(on=True),
                lambda: reader.power_fail(on=False),
                lambda: reader.set_input(0, on=True),
                lambda: reader.set_input(0, on=False),
                lambda: reader.set_input(1, on=True),
            ],
            start=1,
        ):
            act()
            await record.until(lambda events, count=count: len(events) == count)  # type: ignore[misc]
    assert [kind for kind, _ in doors(record)] == [
        DoorEventKind.TAMPER, DoorEventKind.TAMPER_CLEARED, DoorEventKind.POWER_LOST, DoorEventKind.POWER_RESTORED,
        DoorEventKind.OPENED, DoorEventKind.CLOSED, DoorEventKind.BUTTON,
    ]  # fmt: skip
    told = [event for event in record.events if isinstance(event, DoorEvent)]
    assert len({key_of(event) for event in told}) == len(told)
    reader = SimulatedReader(1, key=KEYS[1])
    async with line(reader) as (_, driver, record):
        await driver.probe()
        reader.tamper(on=True)
        await record.until(lambda events: len(events) == 1)
    [again] = record.events
    assert isinstance(again, DoorEvent)
    assert key_of(again) not in {key_of(event) for event in told}, "another start's tamper is another tamper"


@pytest.mark.parametrize(
    ("key", "words"),
    [(b"", "default key"), (bytes(16), "default key"), (bytes(range(40, 56)), "does not hold its key")],
)
async def test_a_reader_with_another_key_is_refused_and_alarmed_once(key: bytes, words: str) -> None:
    reader = SimulatedReader(1, key=key)
    async with line(reader) as (_, driver, record):
        await record.until(lambda events: len(events) == 1)
        reader.show_card(CARD)
        event = record.events[0]
        assert isinstance(event, DoorEvent)
        assert (event.kind, event.reader) == (DoorEventKind.SECURITY, 1)
        assert words in event.reason
        with pytest.raises(LinkError):
            await driver.feedback(1, Feedback.GRANTED)
        assert (await driver.open_door(1, seconds=5)).state is CommandState.FAILED
        with pytest.raises(LinkTimeout):
            await driver._until(lambda: driver._readers[0].secure, 0.3)
    assert len(record.events) == 1
    assert reader.commands == []


async def test_silence_of_eight_seconds_is_one_loss_and_its_end_one_return() -> None:
    clock = Clock()
    quiet, lively = SimulatedReader(1, key=KEYS[1]), SimulatedReader(2, key=KEYS[2])
    async with line(quiet, lively, clock=clock) as (_, driver, record):
        await within(5, driver._until(lambda: all(r.secure for r in driver._readers), 5))
        quiet.go_offline()
        # libosdp itself measures real time: it gives the reader up after its own retries.
        await driver._until(lambda: not driver._readers[0].secure, 15)
        assert record.events == []
        clock.now += 8.1
        await record.until(lambda events: len(events) == 1)
        lively.show_card(CARD)
        await record.until(lambda events: len(events) == 2)
        quiet.come_back()
        clock.now += 8.1
        await record.until(lambda events: len(events) == 3, timeout_s=15)
    assert doors(record) == [(DoorEventKind.LINK_LOST, 1), (DoorEventKind.LINK_RESTORED, 1)]


async def test_a_reader_that_lost_its_power_is_told_the_state_of_its_output_again() -> None:
    reader = SimulatedReader(1, key=KEYS[1])
    async with line(reader) as (_, driver, record):
        await driver.probe()
        assert (await driver.set_door_mode(1, DoorMode.UNLOCKED)).state is CommandState.DONE
        reader.go_offline()
        await driver._until(lambda: not driver._readers[0].secure, 15)
        reader.commands.clear()
        reader.come_back()
        await within(15, reader.until(lambda: bool(reader.told_of(Command.Output))))
        assert [c["control_code"] for c in reader.told_of(Command.Output)] == [2]
        assert record.events == [], "gone for less than eight seconds is no event"


async def test_a_pulled_cable_ends_the_driver() -> None:
    reader = SimulatedReader(1, key=KEYS[1])
    site = SimulatedBus(reader)
    driver = OsdpBus(bus_config(await site.start_tcp(), pd(1)), cursor=None)
    task = asyncio.create_task(driver.run(Recorded()))
    try:
        await driver.probe()
        site.unplug()
        with pytest.raises(LinkError):
            await within(5, task)
    finally:
        await site.stop()


async def test_a_line_that_cannot_be_opened_is_a_link_error() -> None:
    with pytest.raises(LinkError):
        await OsdpBus(bus_config("/dev/does-not-exist", pd(1)), cursor=None).run(Recorded())


async def test_a_damaged_reply_is_survived_without_an_event() -> None:
    reader = SimulatedReader(1, key=KEYS[1])
    async with line(reader) as (_, driver, record):
        await driver.probe()
        reader.corrupt_next()
        reader.show_card(CARD)
        await record.until(lambda events: any(isinstance(e, CardRead) for e in events), timeout_s=20)
    assert [e for e in record.events if isinstance(e, CardRead)] == [
        CardRead("line", 1, VALUE, bits=CARD, card_format="wiegand-26", facility=99)
    ]


async def test_a_flood_of_cards_is_cut_and_alarmed_once() -> None:
    clock = Clock()
    reader = SimulatedReader(1, key=KEYS[1])
    async with line(reader, clock=clock) as (_, driver, record):
        await driver.probe()
        flood = asyncio.create_task(show_many(reader, 30))
        await record.until(lambda events: any(isinstance(e, DoorEvent) for e in events), timeout_s=20)
        flood.cancel()
        clock.now += 4
        await asyncio.gather(flood, return_exceptions=True)
    assert sum(isinstance(event, CardRead) for event in record.events) == 10
    assert doors(record) == [(DoorEventKind.SECURITY, 1)]


async def show_many(reader: SimulatedReader, count: int) -> None:
    for _ in range(count):
        reader.show_card(CARD)
        await asyncio.sleep(0.06)


async def test_a_card_of_128_bits_and_an_endless_pin_are_refused_with_words() -> None:
    reader = SimulatedReader(1, key=KEYS[1])
    async with line(reader) as (_, driver, record):
        await driver.probe()
        reader.show_card("1" * 128)
        await record.until(lambda events: len(events) == 1)
        for _ in range(3):
            reader.press("1234567")
        await record.until(lambda events: len(events) == 2)
        reader.press("#")
        reader.press("42#")
        await record.until(lambda events: len(events) == 3)
    first, second, third = record.events
    assert isinstance(first, DoorEvent)
    assert isinstance(second, DoorEvent)
    assert (first.kind, "128 bits" in first.reason) == (DoorEventKind.DENIED, True)
    assert (second.kind, "20 digits" in second.reason) == (DoorEventKind.DENIED, True)
    assert third == KeysPressed("line", 1, "42")


class PlainReader:
    """A device in place of a reader: it has no secure channel and sends a card whenever it is asked anything."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = Decoder()
        card = b"\x00\x01\x1a\x00" + bytes.fromhex("3181f3c0")
        with contextlib.suppress(OSError):
            while data := await reader.read(1000):
                for frame in decoder.feed(data):
                    self.asked.append(frame.code)
                    code, payload = {
                        0x61: (0x45, bytes.fromhex("cafe00010700000000010203")),
                        0x62: (0x46, bytes.fromhex("030101")),
                    }.get(frame.code, (RAW, card))
                    for answer in (Frame(1, True, frame.sequence, code, payload), Frame(1, True, 0, RAW, card)):
                        writer.write(answer.encode())
        writer.close()


async def test_a_plaintext_reader_is_alarmed_and_its_cards_open_nothing() -> None:
    impostor = PlainReader()
    server = await asyncio.start_server(impostor.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    record = Recorded()
    task = asyncio.create_task(OsdpBus(bus_config(f"127.0.0.1:{port}", pd(1)), cursor=None).run(record))
    try:
        await record.until(lambda events: len(events) >= 2)
        assert len(impostor.asked) >= 2
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()
        await server.wait_closed()
    reasons = [event.reason for event in record.events if isinstance(event, DoorEvent)]
    assert sorted(reasons) == ["credentials in plaintext", "the reader offers no secure channel, only plaintext"]
    assert {kind for kind, _ in doors(record)} == {DoorEventKind.SECURITY}
    assert len(doors(record)) == len(record.events)


async def test_a_replayed_card_is_not_a_card() -> None:
    reader = SimulatedReader(1, key=KEYS[1])
    async with line(reader) as (_site, driver, record):
        await driver.probe()
        seen: list[bytes] = []
        honest = reader._send

        def overhear(data: bytes) -> None:
            seen.extend(f.wire for f in Decoder().feed(data) if f.encrypted and f.code == RAW)
            honest(data)

        reader.attach(overhear)
        reader.show_card(CARD)
        await record.until(lambda events: len(events) == 1)
        [overheard] = seen
        replayed = asyncio.Event()

        def replay(_: bytes) -> None:
            honest(overheard)
            replayed.set()

        reader.attach(replay)
        await within(5, replayed.wait())
        await within(5, replayed.wait())
        reader.attach(honest)
        reader.show_card(encode("H10301", facility=1, number=2))
        await record.until(
            lambda events: any(isinstance(e, CardRead) and e.facility == 1 for e in events), timeout_s=20
        )
    assert [e.facility for e in record.events if isinstance(e, CardRead)] == [99, 1]


async def test_install_mode_gives_a_new_reader_a_random_key_and_tells_both_ends() -> None:
    reader = SimulatedReader(1)
    async with line(reader, pds=[{"address": 1}]) as (site, driver, record):
        await record.until(lambda events: len(events) == 1)  # until then: a reader with the default key
        key = await driver.install(1, 10)
        assert reader.key.hex() == key
        assert len(set(key)) > 1
        reader.show_card(CARD)
        await record.until(lambda events: any(isinstance(e, CardRead) for e in events))
        reasons = [e.reason for e in record.events if isinstance(e, DoorEvent)]
        assert reasons[1:] == ["install mode opened for 10 s", "install mode closed: new key set"]
        assert key not in repr(driver._readers) + repr(record.events)
    again = SimulatedBus(SimulatedReader(1, key=bytes.fromhex(key)))
    fresh = OsdpBus(bus_config(await again.start(), {"address": 1, "key": key}), cursor=None)
    assert (await fresh.probe()).serial == "line"
    await fresh.close()
    await again.stop()
    assert site.readers[1] is reader


async def test_install_mode_ends_by_itself_and_keeps_the_old_key() -> None:
    reader = SimulatedReader(1, key=KEYS[1])
    async with line(reader) as (_, driver, record):
        await driver.probe()
        with pytest.raises(LinkTimeout):
            await driver.install(1, 0.5)
        reader.show_card(CARD)
        await record.until(lambda events: any(isinstance(e, CardRead) for e in events), timeout_s=20)
    assert reader.key == KEYS[1]
    assert [e.reason for e in record.events if isinstance(e, DoorEvent)][:2] == [
        "install mode opened for 0.5 s", "install mode closed: no new key",
    ]  # fmt: skip


async def test_what_an_unread_pin_or_clock_needs_is_unsupported() -> None:
    driver = OsdpBus(bus_config("/dev/null", pd(1)), cursor=None)
    for ask in (driver.get_time, driver.users):
        with pytest.raises(Unsupported):
            await ask()
    assert (await driver.capabilities()).doors == 1


@pytest.mark.parametrize(
    ("pds", "words"),
    [
        ([], "1 to 31 readers"),
        ([pd(1)] * 2, "same address"),
        ([{"address": 127}], "0 to 126"),
        ([{"address": "1"}], "0 to 126"),
        ([{"address": 1, "key": "zz"}], "not hexadecimal"),
        ([{"address": 1, "key": "00" * 16}], "of its own"),
        ([{"address": 1, "key": bytes(range(0x30, 0x40)).hex()}], "of its own"),
        ([{"address": 1, "key": "0102"}], "of its own"),
        ([pd(1, inputs={"0": "bomb"})], "contact or button"),
    ],
)
def test_impossible_lines_are_refused_with_words_but_no_key(pds: list[dict[str, object]], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        OsdpBus(bus_config("/dev/null", *pds), cursor=None)
    assert "3031" not in str(caught.value)


async def test_a_fault_in_driving_the_line_ends_the_connection() -> None:
    reader = SimulatedReader(1, key=KEYS[1])
    site = SimulatedBus(reader)
    driver = OsdpBus(bus_config(await site.start(), pd(1, output=-1)), cursor=None)  # no number the library can send
    running = asyncio.create_task(driver.run(Recorded()))
    try:
        async with asyncio.timeout(30):
            await driver.probe()
            with pytest.raises(SystemError):
                await driver.set_door_mode(1, DoorMode.UNLOCKED)
            reader.go_offline()
            await driver._until(lambda: not driver._readers[0].secure, 20)
            reader.come_back()  # greeted anew, it is told what its output rests in
            with pytest.raises(SystemError):
                await asyncio.shield(running)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await site.stop()
