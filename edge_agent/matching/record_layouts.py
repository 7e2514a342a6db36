"""The five minutiae record layouts, field by field; all numbers big-endian.

Two pairs share a version string. A two-byte length of at least a header's size is ANSI 378-2004's, a smaller one
the upper half of ISO's four bytes; ISO 2011 states a length per representation, and those add up.

Sources: ISO/IEC 19794-2:2005 clause 7, :2011 clause 8; ANSI INCITS 378-2004 and 378-2009 clause 6; sample records
of each for what the texts leave open (whose length counts what).
"""

from __future__ import annotations

import struct

from edge_agent.matching.record_values import (
    BadRecord,
    Capture,
    Extension,
    FingerView,
    Minutia,
    MinutiaeRecord,
    QualityBlock,
    RecordFormat,
)

MAGIC = b"FMR\0"
VERSION_20 = (b" 20\0", b"020\0")  # the second from an ANSI 378-2004 writer
VERSION_30, VERSION_35 = b"030\0", b"035\0"
ISO_2005_HEADER, ANSI_2004_HEADER, ISO_2011_HEADER = 24, 26, 15
MAX_U16 = 0xFFFF


class _Reader:
    """Takes fields off the front; ending early is the record's fault."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, layout: str) -> tuple[int, ...]:
        size = struct.calcsize(layout)
        values = struct.unpack(layout, self.bytes(size))
        return tuple(int(value) for value in values)

    def bytes(self, count: int) -> bytes:
        if count > self.left:
            raise BadRecord("record ends early")
        self._at += count
        return self._data[self._at - count : self._at]

    @property
    def left(self) -> int:
        return len(self._data) - self._at


def read(data: bytes) -> MinutiaeRecord:
    """Decode any layout. Raises BadRecord."""
    record = _read(data)
    if not record.views:
        raise BadRecord("a record without a finger")
    return record


def _read(data: bytes) -> MinutiaeRecord:
    if data[:4] != MAGIC:
        raise BadRecord("no minutiae record: the magic is missing")
    version, rest = data[4:8], data[8:]
    if len(rest) < 6:
        raise BadRecord("record ends early")
    if version in VERSION_20:
        short, following = struct.unpack_from(">HH", rest)
        iso = 0 < short < ANSI_2004_HEADER or (short == 0 and following >= ISO_2005_HEADER)
        return _read_iso_2005(data) if iso else _read_ansi_2004(data)
    if version == VERSION_35:
        return _read_ansi_2009(data, RecordFormat.ANSI_2009_AM1)
    if version == VERSION_30:
        if _is_iso_2011(data):
            return _read_iso_2011(data)
        return _read_ansi_2009(data, RecordFormat.ANSI_2009)
    raise BadRecord("minutiae record of an unknown version")


def write(record: MinutiaeRecord) -> bytes:
    """Encode in the record's own layout. Raises BadRecord for numbers that do not fit their fields."""
    if not record.views:
        raise BadRecord("a record without a finger")
    try:
        return _WRITERS[record.format](record)
    except struct.error as exc:
        raise BadRecord(f"a number does not fit its field in {record.format.value}") from exc


def _minutiae(reader: _Reader, count: int, *, size: int = 6) -> tuple[Minutia, ...]:
    found = []
    for _ in range(count):
        first, second, angle = reader.take(">HHB")
        quality = reader.take(">B")[0] if size == 6 else 0
        found.append(Minutia(first >> 14, first & 0x3FFF, second & 0x3FFF, angle, quality))
    return tuple(found)


def _pack_minutiae(minutiae: tuple[Minutia, ...], *, size: int = 6) -> bytes:
    out = bytearray()
    for m in minutiae:
        if not (0 <= m.kind <= 3 and 0 <= m.x <= 0x3FFF and 0 <= m.y <= 0x3FFF):
            raise BadRecord("a minutia lies outside the record's coordinates")
        out += struct.pack(">HHB", m.kind << 14 | m.x, m.y, m.angle)
        if size == 6:
            out += struct.pack(">B", m.quality)
    return bytes(out)


def _extensions(reader: _Reader, *, own_header: bool) -> tuple[Extension, ...]:
    """`own_header`: an area's length counts its own four bytes (all but ISO 2005)."""
    block = _Reader(reader.bytes(reader.take(">H")[0]))
    found = []
    while block.left:
        kind, length = block.take(">HH")
        if own_header:
            if length < 4:
                raise BadRecord("an extended data area shorter than its header")
            length -= 4
        found.append(Extension(kind, block.bytes(length)))
    return tuple(found)


def _pack_extensions(extensions: tuple[Extension, ...], *, own_header: bool) -> bytes:
    extra = 4 if own_header else 0
    block = b"".join(struct.pack(">HH", e.type, len(e.data) + extra) + e.data for e in extensions)
    return struct.pack(">H", len(block)) + block


def _finish(reader: _Reader) -> None:
    if reader.left:
        raise BadRecord("bytes after the record's end")


def _one_quality(view: FingerView) -> QualityBlock:
    if len(view.qualities) != 1:
        raise BadRecord("this layout states exactly one quality per view")
    return view.qualities[0]


def _shared_geometry(record: MinutiaeRecord) -> tuple[int, int, int, int]:
    sizes = {(v.width, v.height, v.x_resolution, v.y_resolution) for v in record.views}
    if len(sizes) != 1:
        raise BadRecord("this layout states one image size for all views")
    return sizes.pop()


# ISO 2005 and ANSI 2004 agree from the capture equipment field on.


def _read_views_20(reader: _Reader, *, own_header: bool) -> tuple[int, int, tuple[FingerView, ...]]:
    equipment, width, height, xres, yres, count, _ = reader.take(">HHHHHBB")
    views = []
    for _ in range(count):
        position, packed, quality, number = reader.take(">BBBB")
        minutiae = _minutiae(reader, number)
        views.append(
            FingerView(
                position=position, view=packed >> 4, impression=packed & 0x0F,
                width=width, height=height, x_resolution=xres, y_resolution=yres,
                minutiae=minutiae, qualities=(QualityBlock(quality, 0, 0),),
                extensions=_extensions(reader, own_header=own_header),
            )
        )  # fmt: skip
    _finish(reader)
    return equipment >> 12, equipment & 0x0FFF, tuple(views)


def _write_views_20(record: MinutiaeRecord, *, own_header: bool) -> bytes:
    if not (0 <= record.certification <= 15 and 0 <= record.sensor <= 0x0FFF):
        raise BadRecord("capture equipment does not fit sixteen bits")
    out = bytearray(struct.pack(">H", record.certification << 12 | record.sensor))
    out += struct.pack(">HHHHBB", *_shared_geometry(record), len(record.views), 0)
    for view in record.views:
        if not (0 <= view.view <= 15 and 0 <= view.impression <= 15):
            raise BadRecord("view and impression share one byte in this layout")
        head = (view.position, view.view << 4 | view.impression, _one_quality(view).score, len(view.minutiae))
        out += struct.pack(">BBBB", *head) + _pack_minutiae(view.minutiae)
        out += _pack_extensions(view.extensions, own_header=own_header)
    return bytes(out)


def _read_iso_2005(data: bytes) -> MinutiaeRecord:
    reader = _Reader(data[8:])
    if reader.take(">I")[0] != len(data):
        raise BadRecord("stated and actual length differ")
    certification, sensor, views = _read_views_20(reader, own_header=False)
    return MinutiaeRecord(RecordFormat.ISO_2005, views, certification=certification, sensor=sensor)


def _write_iso_2005(record: MinutiaeRecord) -> bytes:
    body = _write_views_20(record, own_header=False)
    return MAGIC + VERSION_20[0] + struct.pack(">I", 12 + len(body)) + body


def _read_ansi_2004(data: bytes) -> MinutiaeRecord:
    reader = _Reader(data[8:])
    length = reader.take(">H")[0]
    if length == 0:
        length = reader.take(">I")[0]
    # The published sample states two bytes less than it has: its writer counts ISO's header of 24.
    if length not in (len(data), len(data) - (ANSI_2004_HEADER - ISO_2005_HEADER)):
        raise BadRecord("stated and actual length differ")
    vendor, subformat = reader.take(">HH")
    certification, sensor, views = _read_views_20(reader, own_header=True)
    return MinutiaeRecord(RecordFormat.ANSI_2004, views, vendor, subformat, certification, sensor)


def _write_ansi_2004(record: MinutiaeRecord) -> bytes:
    body = struct.pack(">HH", record.vendor, record.subformat) + _write_views_20(record, own_header=True)
    short = 10 + len(body)
    size = struct.pack(">H", short) if short <= MAX_U16 else struct.pack(">HI", 0, short + 4)
    return MAGIC + VERSION_20[0] + size + body


def _is_iso_2011(data: bytes) -> bool:
    """The representations' lengths add up to the record's."""
    reader = _Reader(data[8:])
    try:
        total, count, _ = reader.take(">IHB")
        if total != len(data) or count == 0:
            return False
        for _ in range(count):
            length = reader.take(">I")[0]
            if length < 4:
                return False
            reader.bytes(length - 4)
    except BadRecord:
        return False
    return reader.left == 0


def _read_iso_2011(data: bytes) -> MinutiaeRecord:
    reader = _Reader(data[8:])
    _, count, certification = reader.take(">IHB")
    views = []
    for _ in range(count):
        one = _Reader(reader.bytes(reader.take(">I")[0] - 4))
        year, month, day, hour, minute, second, milli = one.take(">HBBBBBH")
        sensor_type, sensor_vendor, sensor_id, number = one.take(">BHHB")
        qualities = tuple(QualityBlock(*one.take(">BHH")) for _ in range(number))
        certificates = []
        if certification:
            for _ in range(one.take(">B")[0]):
                authority, scheme = one.take(">HB")
                certificates.append((authority, scheme))
        position, view, xres, yres, impression, width, height, flags, number = one.take(">BBHHBHHBB")
        if flags >> 4 not in (5, 6):
            raise BadRecord("minutiae of an unknown size")
        minutiae = _minutiae(one, number, size=flags >> 4)
        taken = (year, month, day, hour, minute, second, milli)
        views.append(
            FingerView(
                position=position, view=view, impression=impression, width=width, height=height,
                x_resolution=xres, y_resolution=yres, minutiae=minutiae, qualities=qualities,
                extensions=_extensions(one, own_header=True),
                capture=Capture(taken, sensor_type, sensor_vendor, sensor_id, tuple(certificates)),
                ending_type=flags & 0x0F, minutia_bytes=flags >> 4,
            )
        )  # fmt: skip
        _finish(one)
    return MinutiaeRecord(RecordFormat.ISO_2011, tuple(views), certification=certification)


def _write_iso_2011(record: MinutiaeRecord) -> bytes:
    blocks = []
    for view in record.views:
        if view.capture is None or view.minutia_bytes not in (5, 6) or not 0 <= view.ending_type <= 15:
            raise BadRecord("an ISO 2011 representation says how it was captured and how its minutiae are laid out")
        capture = view.capture
        out = bytearray(struct.pack(">HBBBBBH", *capture.taken))
        out += struct.pack(">BHHB", capture.sensor_type, capture.sensor_vendor, capture.sensor_id, len(view.qualities))
        for block in view.qualities:
            out += struct.pack(">BHH", block.score, block.vendor, block.algorithm)
        if record.certification:
            out += struct.pack(">B", len(capture.certificates))
            for authority, scheme in capture.certificates:
                out += struct.pack(">HB", authority, scheme)
        elif capture.certificates:
            raise BadRecord("certificates without the record's certification flag")
        geometry = (view.position, view.view, view.x_resolution, view.y_resolution, view.impression)
        flags = view.minutia_bytes << 4 | view.ending_type
        out += struct.pack(">BBHHBHHBB", *geometry, view.width, view.height, flags, len(view.minutiae))
        out += _pack_minutiae(view.minutiae, size=view.minutia_bytes)
        out += _pack_extensions(view.extensions, own_header=True)
        blocks.append(struct.pack(">I", len(out) + 4) + out)
    body = b"".join(blocks)
    head = struct.pack(">IHB", ISO_2011_HEADER + len(body), len(record.views), record.certification)
    return MAGIC + VERSION_30 + head + body


def _read_ansi_2009(data: bytes, layout: RecordFormat) -> MinutiaeRecord:
    reader = _Reader(data[8:])
    length, vendor, subformat, certification, sensor, count, _ = reader.take(">IHHBHBB")
    # The published sample of 2009 (not that of its amendment) states one byte less than it has.
    if length not in (len(data), len(data) - 1):
        raise BadRecord("stated and actual length differ")
    views = []
    for _ in range(count):
        position, view, impression, score, quality_vendor, algorithm = reader.take(">BBBBHH")
        width, height, xres, yres, number = reader.take(">HHHHB")
        minutiae = _minutiae(reader, number)
        views.append(
            FingerView(
                position=position, view=view, impression=impression, width=width, height=height,
                x_resolution=xres, y_resolution=yres, minutiae=minutiae,
                qualities=(QualityBlock(score, quality_vendor, algorithm),),
                extensions=_extensions(reader, own_header=True),
            )
        )  # fmt: skip
    _finish(reader)
    return MinutiaeRecord(layout, tuple(views), vendor, subformat, certification, sensor)


def _write_ansi_2009(record: MinutiaeRecord) -> bytes:
    out = bytearray(struct.pack(">HHBH", record.vendor, record.subformat, record.certification, record.sensor))
    out += struct.pack(">BB", len(record.views), 0)
    for view in record.views:
        quality = _one_quality(view)
        out += struct.pack(">BBBB", view.position, view.view, view.impression, quality.score)
        out += struct.pack(">HHHH", quality.vendor, quality.algorithm, view.width, view.height)
        out += struct.pack(">HHB", view.x_resolution, view.y_resolution, len(view.minutiae))
        out += _pack_minutiae(view.minutiae) + _pack_extensions(view.extensions, own_header=True)
    version = VERSION_30 if record.format is RecordFormat.ANSI_2009 else VERSION_35
    return MAGIC + version + struct.pack(">I", 12 + len(out)) + bytes(out)


_WRITERS = {
    RecordFormat.ISO_2005: _write_iso_2005,
    RecordFormat.ISO_2011: _write_iso_2011,
    RecordFormat.ANSI_2004: _write_ansi_2004,
    RecordFormat.ANSI_2009: _write_ansi_2009,
    RecordFormat.ANSI_2009_AM1: _write_ansi_2009,
}
