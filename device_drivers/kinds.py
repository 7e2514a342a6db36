"""What a device of each kind needs, has and can do: one table for the check of a configuration.

What a kind has no use for is refused, not ignored: a door on a camera never opens, and a password that nothing asks
for protects nothing. Stored configurations of older versions are not held to it, new ones are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from device_drivers.links import split_address


@dataclass(frozen=True, slots=True)
class Need:
    """`fits` says whether a value is allowed; `allowed` says the same in words."""

    fits: Callable[[str], bool]
    allowed: str


def _host(address: str) -> bool:
    try:
        host, _ = split_address(address, 1)
    except ValueError:
        return False
    return not set(host) & set("/@ ")


def _number(text: str, base: int) -> bool:
    try:
        return 0 <= int(text, base) <= 0xFFFFFFFF
    except ValueError:
        return False


def _code_page(name: str) -> bool:
    try:
        return bool("0".encode(name))
    except (LookupError, UnicodeError):
        return False


_ANY = Need(lambda _: True, "a text")
_UNUSED = Need(lambda text: not text, "none, this kind has no use for one; leave it empty")
_HOST = Need(_host, "host or host:port, such as 10.20.8.21")
_LINE = Need(bool, "a serial line, such as /dev/ttyUSB0")
_SERIAL = Need(lambda text: text == text.strip(), "the serial number as the device says it, without spaces around it")
_ENCODING = Need(lambda text: not text or _code_page(text), "a code page such as utf-8 or gbk; empty: as is usual")


@dataclass(frozen=True, slots=True)
class Kind:
    address: Need
    serial: Need = _SERIAL
    username: Need = _UNUSED
    password: Need = _UNUSED
    encoding: Need = _UNUSED
    biometrics: tuple[str, ...] = ()  # modalities whose samples or templates it can have
    relays: int = 0  # doors it opens, numbered from 1
    longest_open_s: float = 300.0
    readers: int = 0  # whose cards come to us to decide on, numbered from 1
    fingers: bool = False  # come to us as images
    pictures: bool = False  # come to us as a stream


KINDS: Mapping[str, Kind] = {
    "zkteco": Kind(
        _HOST,
        password=Need(lambda text: not text or (text.isdecimal() and _number(text, 10)),
                      "the terminal's communication key, a number of up to 32 bits"),
        encoding=_ENCODING,
        biometrics=("fingerprint",),
        relays=1,
        longest_open_s=60,
    ),
    "adms": Kind(
        _ANY,  # it calls us; noted for people
        serial=Need(lambda text: text != "" and text == text.strip(),
                    "its serial number, without spaces around it: the only name a terminal has that calls us"),
        encoding=_ENCODING,
        biometrics=("face", "fingerprint"),
        relays=16,
        longest_open_s=254,
    ),
    "isapi": Kind(_HOST, username=_ANY, password=_ANY, biometrics=("face", "fingerprint"), relays=256),
    "c3": Kind(_HOST, password=_ANY, relays=16, longest_open_s=254),
    "uhppote": Kind(
        _HOST,
        serial=Need(lambda text: not text or (text.isdecimal() and _number(text, 10)),
                    "the number on the controller's label, such as 405419896"),
        relays=4,
        longest_open_s=255,
        readers=4,
    ),
    "osdp": Kind(_LINE, longest_open_s=25.5),  # relays and readers are its options' `pds`
    "fingerprint_uart": Kind(
        _LINE,
        password=Need(lambda text: not text or _number(text, 0), "a number of up to 32 bits, such as 0x12345678"),
        biometrics=("fingerprint",),
        fingers=True,
    ),
    "camera": Kind(
        Need(bool, "a stream, a USB camera or a folder, such as rtsp://10.20.8.60/1 or /dev/video0"),
        username=_ANY,
        password=_ANY,
        biometrics=("face",),
        pictures=True,
    ),
}  # fmt: skip


def fault(kind: str, key: str, value: str) -> str:
    """What is wrong with this key of a device of this kind, or nothing; the value is not in it."""
    need: Need = getattr(KINDS[kind], key)
    return "" if need.fits(value) else f"allowed for {kind} is {need.allowed}"


def doors(kind: str, options: Mapping[str, Any]) -> frozenset[int]:
    """The numbers of the doors that a device opens; for OSDP's readers, as its options say."""
    if kind == "osdp":
        return frozenset(pd.get("door", position) for position, pd in enumerate(options.get("pds", ()), start=1))
    return frozenset(range(1, KINDS[kind].relays + 1))


def readers(kind: str, options: Mapping[str, Any]) -> frozenset[int]:
    """The numbers of the readers whose cards come to us; a controller that decides alone has none."""
    if kind == "osdp":
        return frozenset(pd.get("address") for pd in options.get("pds", ()))
    if kind == "uhppote" and not options.get("host_decides"):
        return frozenset()
    return frozenset(range(1, KINDS[kind].readers + 1))
