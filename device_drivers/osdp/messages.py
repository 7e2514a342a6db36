"""libosdp's dictionaries <-> our events and feedback; keypad entries put together. Pure values.

Source: libosdp's `osdp.h`; OSDP 2.2 for control codes, colours and keypad bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from osdp.constants import CardFormat, Command, CommandLEDColor, StatusReportType

from device_drivers import wiegand
from device_drivers.devices import Feedback
from device_drivers.events import CardRead, DoorEventKind

ENTER, ESCAPE = frozenset(b"\r#"), frozenset(b"\x7f*")
MAX_DIGITS = 20  # a person's number, a star and a PIN
PAUSE_S = 5.0  # an entry that goes no further ends here
TICK_S = 0.1  # LED and output timers count tenths of a second
MAX_TIMER = 0xFF  # libosdp 3.2.9 cuts an output timer to one byte: 30 s would become 4.4 s
LED_SET_TEMPORARY = 2
TONE = 2

OUTPUT_OFF, OUTPUT_ON, OUTPUT_PULSE = 1, 2, 5


@dataclass(frozen=True, slots=True)
class Signal:
    """Colour and tenths of a second on, off, in all; beeps."""

    colour: int
    on: int
    off: int
    total: int
    beeps: int


SIGNALS = {
    Feedback.GRANTED: Signal(CommandLEDColor.Green, 20, 0, 20, 1),
    Feedback.DENIED: Signal(CommandLEDColor.Red, 2, 2, 20, 3),
    Feedback.LOOK_AGAIN: Signal(CommandLEDColor.Amber, 5, 5, 30, 1),
    Feedback.WAIT: Signal(CommandLEDColor.Amber, 20, 0, 30, 0),
    # A reader without a screen: one beep and slow flashes to the left, two and quick ones to the right.
    Feedback.TURN_LEFT: Signal(CommandLEDColor.Amber, 10, 10, 40, 1),
    Feedback.TURN_RIGHT: Signal(CommandLEDColor.Amber, 3, 3, 40, 2),
}


def feedback_commands(what: Feedback) -> list[dict[str, Any]]:
    signal = SIGNALS[what]
    led = {
        "command": Command.LED, "reader": 0, "led_number": 0, "temporary": True, "control_code": LED_SET_TEMPORARY,
        "on_count": signal.on, "off_count": signal.off, "on_color": signal.colour,
        "off_color": CommandLEDColor.Black, "timer_count": signal.total,
    }  # fmt: skip
    if not signal.beeps:
        return [led]
    buzzer = {
        "command": Command.Buzzer, "reader": 0, "control_code": TONE, "on_count": 1, "off_count": 1,
        "rep_count": signal.beeps,
    }  # fmt: skip
    return [led, buzzer]


def output_command(output: int, control_code: int, *, seconds: float = 0.0) -> dict[str, Any]:
    ticks = min(max(round(seconds / TICK_S), 1), MAX_TIMER) if control_code == OUTPUT_PULSE else 0
    return {"command": Command.Output, "output_no": output, "control_code": control_code, "timer_count": ticks}


def status_command(kind: int) -> dict[str, Any]:
    return {"command": Command.Status, "type": kind, "report": b""}


def card_read(event: Mapping[str, Any], *, serial: str, reader: int, format_37: str) -> CardRead:
    """From libosdp's card event. Raises ValueError for what is no card."""
    data = bytes(event["data"])
    if event["format"] == CardFormat.ASCII:
        text = data.decode("ascii", "replace")
        if not (text.isascii() and text.isdecimal()) or len(text) > 20:
            raise ValueError("a card in text form that is no number of at most 20 digits")
        return CardRead(serial, reader, str(int(text)), card_format="ascii")
    if len(data) * 8 < int(event["length"]):
        raise ValueError(f"{event['length']} bits do not fit {len(data)} bytes")
    if int(event["length"]) > wiegand.MAX_BITS:
        raise ValueError(f"a card of {event['length']} bits; at most {wiegand.MAX_BITS} are accepted")
    bits = wiegand.bits_of(data, int(event["length"]))
    card = wiegand.decode(bits, format_37=format_37)
    return CardRead(serial, reader, card.value, bits=bits, card_format=card.card_format, facility=card.facility)


@dataclass(slots=True)
class Keypad:
    """Keys of one reader until `#`, a pause or too many.

    One `*` may stand between a person's number and a PIN; a second one, or one before any digit, clears.
    """

    _digits: str = field(default="", repr=False)
    _last: float = 0.0
    _overlong: bool = False

    def press(self, data: bytes, now: float) -> tuple[list[str], bool]:
        """Whole entries that these keys complete, and whether one was thrown away for its length."""
        entries: list[str] = []
        refused = False
        for key in data:
            if key in ENTER:
                if self._digits and not self._overlong:
                    entries.append(self._digits)
                self._clear()
            elif key in ESCAPE and ("*" in self._digits or not self._digits):
                self._clear()
            elif (0x30 <= key <= 0x39 or key in ESCAPE) and not self._overlong:
                self._digits += "*" if key in ESCAPE else chr(key)
                if len(self._digits) > MAX_DIGITS:
                    self._overlong = refused = True
                    self._digits = ""
        self._last = now
        return entries, refused

    def paused(self, now: float) -> str:
        """The entry that a pause ends, or an empty string."""
        if not (self._digits or self._overlong) or now - self._last < PAUSE_S:
            return ""
        digits = self._digits
        self._clear()
        return digits

    def _clear(self) -> None:
        self._digits, self._overlong = "", False


@dataclass(slots=True)
class Contacts:
    """Tamper, power and inputs of one PD: a report becomes an event where something changed.

    How inputs stand is never asked: a PD that cannot say answers NAK, and libosdp gives it up for that.
    """

    inputs: Mapping[int, str]  # input number -> "contact" or "button"
    _tamper: bool = False
    _power_lost: bool = False
    _input: dict[int, bool] = field(default_factory=dict)

    def report(self, event: Mapping[str, Any]) -> list[DoorEventKind]:
        report = bytes(event["report"])
        if event["type"] == StatusReportType.Local and len(report) >= 2:
            return self._local(bool(report[0]), bool(report[1]))
        if event["type"] == StatusReportType.Input:
            return self._inputs(report)
        return []

    def _local(self, tamper: bool, power_lost: bool) -> list[DoorEventKind]:
        kinds = []
        if tamper != self._tamper:
            kinds.append(DoorEventKind.TAMPER if tamper else DoorEventKind.TAMPER_CLEARED)
        if power_lost != self._power_lost:
            kinds.append(DoorEventKind.POWER_LOST if power_lost else DoorEventKind.POWER_RESTORED)
        self._tamper, self._power_lost = tamper, power_lost
        return kinds

    def _inputs(self, report: bytes) -> list[DoorEventKind]:
        kinds = []
        for number, state in enumerate(report):
            active, before = bool(state), self._input.get(number, False)  # at rest until it says otherwise
            self._input[number] = active
            meaning = self.inputs.get(number)
            if meaning == "contact" and active != before:
                kinds.append(DoorEventKind.OPENED if active else DoorEventKind.CLOSED)
            elif meaning == "button" and active and not before:
                kinds.append(DoorEventKind.BUTTON)
        return kinds
