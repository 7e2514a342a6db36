"""Lines of a push body: bytes -> fields, with their raw bytes kept.

Two shapes exist: values in fixed order, and `key=value` pairs, both separated by tabs. The number of trailing values
varies by firmware, and names are in the device's own code page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from device_drivers.errors import ProtocolError

MAX_ROWS = 50_000  # of what is parsed in one go; logs have as many as fit their body
MAX_LINE = 3 * 1024 * 1024  # a photo in base64 is one line
MAX_FIELDS = 128
TIME_LEN = 19  # 2026-06-19 08:00:00
FALLBACK_ENCODING = "gb18030"  # Chinese firmware writes GB2312; GB18030 contains it and GBK


def decode_text(data: bytes, encoding: str = "") -> str:
    """Text in the configured code page; without one UTF-8, then GB18030. Bytes that fit neither stay visible as \\x."""
    for candidate in (encoding,) if encoding else ("utf-8", FALLBACK_ENCODING):
        try:
            return data.decode(candidate)
        except UnicodeDecodeError:
            continue
    return data.decode(encoding or "utf-8", "backslashreplace")


def lines(body: bytes, *, most: int | None = None) -> Iterator[bytes]:
    """Lines with something on them, one by one. Raises ProtocolError past `most` or MAX_LINE."""
    if most is not None and body.count(b"\n") > most:
        raise ProtocolError(f"more than {most} lines in one push")
    start = 0
    while start < len(body):
        end = body.find(b"\n", start)
        end = len(body) if end < 0 else end
        line = body[start:end].rstrip(b"\r\0 ")
        start = end + 1
        if len(line) > MAX_LINE:
            raise ProtocolError(f"a line of {len(line)} bytes")
        if line.strip():
            yield line


def parse_time(text: str) -> datetime | None:
    """`YYYY-MM-DD HH:MM:SS` as said by the device; None if it is no date."""
    if len(text) != TIME_LEN:
        return None
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return None
    return value if value.tzinfo is None else None


def number(text: str, default: int = 0) -> int:
    """A small integer as devices print them; `default` for anything else."""
    text = text.strip()
    if not text or len(text) > 19:
        return default
    try:
        return int(text)
    except ValueError:
        return default


@dataclass(frozen=True, slots=True)
class Row:
    """One `word key=value\\tkey=value` line. Keys are lower case: firmware disagrees about them."""

    word: str  # "user", "biodata", ...; empty if the line starts with a key
    fields: dict[str, str] = field(repr=False)
    raw: bytes = field(repr=False)

    def get(self, *keys: str) -> str:
        return next((self.fields[key] for key in keys if key in self.fields), "")

    def int(self, *keys: str, default: int = 0) -> int:
        return number(self.get(*keys), default)


def parse_row(line: bytes, encoding: str = "") -> Row:
    """A line of pairs. What is no pair is left out: `raw` has it."""
    text = decode_text(line, encoding)
    word = ""
    head, tab, _ = text.partition("\t")
    first, space, rest = head.partition(" ")
    if space and "=" not in first:
        word, text = first.lower(), rest + text[len(head) :]
    elif tab and "=" not in head:
        word, text = head.strip().lower(), text[len(head) + 1 :]
    fields: dict[str, str] = {}
    for pair in text.split("\t", MAX_FIELDS):
        key, equals, value = pair.partition("=")
        if equals:
            fields[key.strip().lower()] = value.strip()
    return Row(word, fields, line)


def parse_options(body: bytes, encoding: str = "") -> dict[str, str]:
    """`key=value,key=value` or one a line, as `registry`, `table=options` and INFO send them."""
    if len(body) > 256 * 1024:
        raise ProtocolError(f"{len(body)} bytes of options")
    pairs = decode_text(body, encoding).replace("\r", "\n").replace("\n", ",").split(",", 2048)
    options: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if equals and len(key) <= 64:
            options[key.strip()] = value.strip()[:512]
    return options
