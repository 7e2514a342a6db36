"""Records of five standards: samples of other implementations, broken ones, and any bytes at all."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.matching import minutiae_record
from edge_agent.matching.minutiae_record import record_of, template_of
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
from templates_store.gallery.finger_template import MinutiaeTemplate
from tests.shared_data import shared

SAMPLES = {
    "iso19794p2v2005": RecordFormat.ISO_2005,
    "iso19794p2v2011": RecordFormat.ISO_2011,
    "ansi378v2004": RecordFormat.ANSI_2004,
    "ansi378v2009": RecordFormat.ANSI_2009,
    "ansi378v2009am1": RecordFormat.ANSI_2009_AM1,
}
POSITIONS = ["UNKNOWN"] + [
    f"{hand}_{finger}" for hand in ("RIGHT", "LEFT") for finger in ("THUMB", "INDEX", "MIDDLE", "RING", "LITTLE")
]
KINDS = ["OTHER", "ENDING", "BIFURCATION"]
KINDS_2009 = ["EITHER", *KINDS[1:]]  # what ANSI 378-2009 calls type 0


def sample(name: str) -> bytes:
    return shared("fingerprints", "records", "fmr_samples", f"{name}-sample.dat").read_bytes()


def described(record: MinutiaeRecord) -> dict[str, Any]:
    """A record in the words of the description beside each sample."""
    ansi = record.format.value.startswith("ansi")
    shared_size = record.format in (RecordFormat.ISO_2005, RecordFormat.ANSI_2004)
    kinds = KINDS_2009 if record.format in (RecordFormat.ANSI_2009, RecordFormat.ANSI_2009_AM1) else KINDS
    out: dict[str, Any] = {}
    if ansi:
        out |= {"vendorId": record.vendor, "subformat": record.subformat}
    if record.format is not RecordFormat.ISO_2011:
        out |= {"sensorCertified": bool(record.certification), "sensorId": record.sensor}
    out["fingerprints"] = []
    for view in record.views:
        size = {
            "width": view.width, "height": view.height,
            "resolutionX": view.x_resolution, "resolutionY": view.y_resolution,
        }  # fmt: skip
        one: dict[str, Any] = {
            "position": POSITIONS[view.position],
            "view": view.view,
            "scanType": {0: "LIVE_PLAIN"}[view.impression],
            "minutiae": [
                {"type": kinds[m.kind], "positionX": m.x, "positionY": m.y, "angle": m.angle, "quality": m.quality}
                for m in view.minutiae
            ],
            "counts": None,
            "coredelta": None,
            "extensions": [],
        }
        if not ansi:
            one["zones"] = None
        if shared_size:
            out |= size
        else:
            one |= size
        if view.capture is None:
            one["quality"] = view.qualities[0].score
            if not shared_size:
                one |= {"qualityVendorId": view.qualities[0].vendor, "qualityAlgorithmId": view.qualities[0].algorithm}
        else:
            names = ("year", "month", "day", "hour", "minute", "second", "millisecond")
            one |= {
                "datetime": dict(zip(names, view.capture.taken, strict=True)),
                "sensorType": {0: "UNKNOWN"}[view.capture.sensor_type],
                "sensorVendor": view.capture.sensor_vendor,
                "sensorId": view.capture.sensor_id,
                "certificates": list(view.capture.certificates),
                "qrecords": [
                    {"quality": q.score, "vendor": q.vendor, "algorithm": q.algorithm} for q in view.qualities
                ],
                "endingType": {0: "VALLEY_SKELETON_BIFURCATION"}[view.ending_type],
            }
        for extension in view.extensions:
            if edges := extension.ridge_counts():
                one["counts"] = {
                    "type": {1: "QUADRANTS"}[extension.data[0]],
                    "edges": [{"from": e.first, "to": e.second, "count": e.count} for e in edges],
                }
            else:
                data = base64.b64encode(extension.data).decode()
                one["extensions"].append({"type": extension.type, "data": data})
        out["fingerprints"].append(one)
    return out


@pytest.mark.parametrize("name", SAMPLES)
def test_reads_each_sample_as_its_description_says(name: str) -> None:
    expected = json.loads(shared("fingerprints", "records", "fmr_samples", f"{name}-sample.json").read_text("utf-8"))
    record = minutiae_record.decode(sample(name))
    assert record.format is SAMPLES[name]
    assert described(record) == expected


@pytest.mark.parametrize("name", SAMPLES)
def test_writes_each_sample_as_it_was(name: str) -> None:
    data = bytearray(sample(name))
    if SAMPLES[name] is RecordFormat.ANSI_2009:  # its writer stated one byte too few
        data[8:12] = len(data).to_bytes(4, "big")
    if SAMPLES[name] is RecordFormat.ANSI_2004:  # its writer put "020" for " 20" and stated two bytes too few
        data[4:5] = b" "
        data[8:10] = len(data).to_bytes(2, "big")
    assert minutiae_record.encode(minutiae_record.decode(bytes(data))) == data


@pytest.mark.parametrize("name", SAMPLES)
def test_refuses_every_truncation_and_any_appended_byte(name: str) -> None:
    data = sample(name)
    for broken in [*(data[:length] for length in range(len(data))), data + b"\0"]:
        with pytest.raises(BadRecord):
            minutiae_record.decode(broken)


def test_refuses_the_broken_records() -> None:
    broken = sorted(shared("fingerprints", "records", "iso_invalid").rglob("*.iso"))
    assert broken
    for path in broken:
        with pytest.raises(BadRecord):
            minutiae_record.decode(path.read_bytes())


@pytest.mark.parametrize("folder", ["fvc2002_db1_b", "fvc2002_db3_b"])
def test_reads_and_rewrites_the_records_of_a_commercial_extractor(folder: str) -> None:
    paths = sorted(shared("fingerprints", folder).glob("*.iso"))
    assert paths
    for path in paths:
        record = minutiae_record.decode(path.read_bytes())
        assert (record.format, len(record.views)) == (RecordFormat.ISO_2005, 1)
        assert minutiae_record.encode(record) == path.read_bytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"FMR\0",
        b"FMR\0 20\0",
        b"FMR\0 99\0" + bytes(30),
        b"PK\3\4" + bytes(40),
        # ISO 2005, one view that claims 255 minutiae in a record of 30 bytes
        b"FMR\0 20\0" + (30).to_bytes(4, "big") + bytes.fromhex("0000012c019000c500c50100") + b"\0\0\0\xff\0\0",
        # ISO 2011, 65535 representations of no length
        b"FMR\x00030\0" + (15).to_bytes(4, "big") + b"\xff\xff\0",
        # ANSI 2004 whose extension claims to be shorter than its own header
        b"FMR\0 20\0" + bytes.fromhex("0026000000000000012c019000c500c501000000000000040001000300000000")[:30],
        b"FMR\0 20\0" + (24).to_bytes(4, "big") + bytes.fromhex("0000012c019000c500c50000"),
        bytes(1 << 20),
    ],
    ids=[
        "empty",
        "magic",
        "version",
        "unknown",
        "archive",
        "minutiae",
        "representations",
        "extension",
        "fingerless",
        "huge",
    ],
)
def test_refuses_hostile_records(data: bytes) -> None:
    with pytest.raises(BadRecord):
        minutiae_record.decode(data)


def test_turns_a_view_into_minutiae_with_y_up_at_500_dpi() -> None:
    view = FingerView(
        position=1, view=0, impression=0, width=300, height=400, x_resolution=197, y_resolution=394,
        minutiae=(Minutia(1, 100, 50, 64, 0), Minutia(3, 0, 0, 0, 40)), qualities=(QualityBlock(80, 0, 0),),
    )  # fmt: skip
    template = template_of(view, RecordFormat.ISO_2005)
    assert template.xy[0] == pytest.approx((100.0, -25.0), abs=0.1)
    assert template.angle[0] == pytest.approx(math.pi / 2)
    assert template.quality.tolist() == pytest.approx([1.0, 0.4])
    assert template.kind.tolist() == [1, 0]
    assert template_of(view, RecordFormat.ANSI_2004).angle[0] == pytest.approx(math.radians(128))


@pytest.mark.parametrize("resolution", [0, 1, 65535])
def test_refuses_to_compare_at_an_impossible_resolution(resolution: int) -> None:
    view = FingerView(0, 0, 0, 300, 400, resolution, 197, ())
    with pytest.raises(BadRecord):
        template_of(view, RecordFormat.ISO_2005)


@pytest.mark.parametrize("layout", list(RecordFormat))
def test_a_template_survives_export_in_every_format(layout: RecordFormat) -> None:
    rng = np.random.default_rng(7)
    template = MinutiaeTemplate(
        xy=rng.uniform(-300, 300, (40, 2)).astype(np.float32),
        angle=rng.uniform(0, math.tau, 40).astype(np.float32),
        quality=rng.uniform(0.3, 1, 40).astype(np.float32),
        kind=rng.integers(0, 3, 40).astype(np.uint8),
    )
    record = minutiae_record.decode(minutiae_record.encode(record_of(template, layout, position=2, quality=60)))
    again = template_of(record.views[0], record.format)
    moved = again.xy - template.xy
    assert np.ptp(moved, axis=0).max() <= 1.5  # pixels, after a shift common to all
    turned = np.angle(np.exp(1j * (again.angle - template.angle).astype(np.float64)))
    assert np.abs(turned).max() <= math.radians(layout.degrees_per_step / 2 + 0.01)
    assert again.kind.tolist() == template.kind.tolist()
    assert record.views[0].position == 2


byte, word = st.integers(0, 255), st.integers(0, 65535)
minutiae = st.builds(Minutia, st.integers(0, 3), st.integers(0, 0x3FFF), st.integers(0, 0x3FFF), byte, byte)
blocks = st.builds(QualityBlock, byte, word, word)
extensions = st.lists(st.builds(Extension, word, st.binary(max_size=20)), max_size=3).map(tuple)


@st.composite
def records(draw: st.DrawFn) -> MinutiaeRecord:
    layout = draw(st.sampled_from(list(RecordFormat)))
    version_20 = layout in (RecordFormat.ISO_2005, RecordFormat.ANSI_2004)
    iso_2011 = layout is RecordFormat.ISO_2011
    nibble = st.integers(0, 15)
    size = draw(st.tuples(word, word, word, word))
    certification = draw(nibble if version_20 else byte)
    views = []
    for _ in range(draw(st.integers(1, 3))):
        width, height, xres, yres = size if version_20 else draw(st.tuples(word, word, word, word))
        one = QualityBlock(draw(byte), 0, 0) if version_20 else draw(blocks)
        view = FingerView(
            position=draw(byte), view=draw(nibble if version_20 else byte),
            impression=draw(nibble if version_20 else byte),
            width=width, height=height, x_resolution=xres, y_resolution=yres,
            minutiae=tuple(draw(st.lists(minutiae, max_size=5))), qualities=(one,), extensions=draw(extensions),
        )  # fmt: skip
        if iso_2011:
            certificates = tuple(draw(st.lists(st.tuples(word, byte), max_size=2))) if certification else ()
            taken = draw(st.tuples(word, byte, byte, byte, byte, byte, word))
            view = replace(
                view,
                qualities=tuple(draw(st.lists(blocks, max_size=3))),
                capture=Capture(taken, draw(byte), draw(word), draw(word), certificates),
                ending_type=draw(nibble),
            )
        views.append(view)
    vendor, subformat = draw(st.tuples(word, word)) if layout.value.startswith("ansi") else (0, 0)
    sensor = 0 if iso_2011 else draw(st.integers(0, 0x0FFF) if version_20 else word)
    return MinutiaeRecord(layout, tuple(views), vendor, subformat, certification, sensor)


@given(records())
@settings(max_examples=150, deadline=None)
def test_every_record_survives_a_round_trip(record: MinutiaeRecord) -> None:
    assert minutiae_record.decode(minutiae_record.encode(record)) == record


@given(st.binary(max_size=200), st.sampled_from([b"FMR\0 20\0", b"FMR\x00030\0", b"FMR\x00035\0", b""]))
@settings(max_examples=300, deadline=None)
def test_any_bytes_raise_only_the_declared_error(body: bytes, head: bytes) -> None:
    try:
        record = minutiae_record.decode(head + body)
    except BadRecord:
        return
    assert minutiae_record.decode(minutiae_record.encode(record)) == record


def test_refuses_to_write_what_the_format_cannot_say() -> None:
    view = FingerView(0, 0, 0, 300, 400, 197, 197, (Minutia(1, 20_000, 0, 0, 0),), (QualityBlock(0, 0, 0),))
    with pytest.raises(BadRecord):
        minutiae_record.encode(MinutiaeRecord(RecordFormat.ISO_2005, (view,)))
    with pytest.raises(BadRecord):
        minutiae_record.encode(MinutiaeRecord(RecordFormat.ISO_2011, (replace(view, minutiae=()),)))
    with pytest.raises(BadRecord):
        minutiae_record.encode(MinutiaeRecord(RecordFormat.ANSI_2009, (replace(view, minutiae=(), view=300),)))
