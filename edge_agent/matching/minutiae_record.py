"""Finger minutiae records: ISO/IEC 19794-2:2005 and :2011, ANSI INCITS 378-2004, -2009 and -2009/AM1, both ways.

    BadTemplate
    └ BadRecord     bytes that are no record of any of the five, or one that contradicts itself or ends early

`decode` and `encode` keep a record as it is; `template_of` and `record_of` translate between a view and the
minutiae the matcher compares: 500 dpi, y up.
"""

from __future__ import annotations

import math

import numpy as np

from edge_agent.matching import record_layouts
from edge_agent.matching.record_values import (
    BadRecord,
    Capture,
    FingerView,
    Minutia,
    MinutiaeRecord,
    QualityBlock,
    RecordFormat,
)
from templates_store.gallery.finger_template import MinutiaeTemplate, MinutiaKind

MAX_BYTES = 1 << 19  # 255 views of 255 minutiae, with room for extensions
CM_PER_INCH = 2.54
MIN_RESOLUTION, MAX_RESOLUTION = 59, 790  # px/cm that a finger can be compared at: 150 to 2000 dpi
WRITTEN_RESOLUTION = 197  # px/cm, 500 dpi
QUALITY_UNKNOWN = (0, 254, 255)  # 2005: 0 is "not reported"; 2011: 254 not reported, 255 failed
MARGIN = 8  # px around the minutiae of a written record


def decode(data: bytes) -> MinutiaeRecord:
    """A record of any of the five. Raises BadRecord."""
    if len(data) > MAX_BYTES:
        raise BadRecord(f"a record of {len(data)} bytes; at most {MAX_BYTES}")
    return record_layouts.read(data)


def encode(record: MinutiaeRecord) -> bytes:
    """Bytes in the record's own format. Raises BadRecord for what that format cannot say."""
    data = record_layouts.write(record)
    if len(data) > MAX_BYTES:
        raise BadRecord(f"a record of {len(data)} bytes; at most {MAX_BYTES}")
    return data


def template_of(view: FingerView, layout: RecordFormat) -> MinutiaeTemplate:
    """Minutiae at 500 dpi with y up. Raises BadRecord if the resolution is no fingerprint's."""
    for resolution in (view.x_resolution, view.y_resolution):
        if not MIN_RESOLUTION <= resolution <= MAX_RESOLUTION:
            raise BadRecord(f"{resolution} px/cm is no resolution fingers compare at")
    rows = np.array([(m.x, -m.y, m.angle, m.quality, m.kind) for m in view.minutiae], np.float32).reshape(-1, 5)
    scale = 500.0 / CM_PER_INCH / np.array([view.x_resolution, view.y_resolution], np.float32)
    unknown = np.isin(rows[:, 3], QUALITY_UNKNOWN)
    return MinutiaeTemplate(
        xy=rows[:, :2] * scale.astype(np.float32),
        angle=(rows[:, 2] * math.radians(layout.degrees_per_step)).astype(np.float32),
        quality=np.where(unknown, 1.0, np.clip(rows[:, 3] / 100.0, 0.0, 1.0)).astype(np.float32),
        kind=np.where(rows[:, 4] > MinutiaKind.BIFURCATION, MinutiaKind.OTHER, rows[:, 4]).astype(np.uint8),
    )


def record_of(
    template: MinutiaeTemplate, layout: RecordFormat, *, position: int = 0, quality: int = 0
) -> MinutiaeRecord:
    """A record of one view that other systems can read, at 197 px/cm, moved so that no coordinate is negative."""
    low = template.xy.min(axis=0) if len(template) else np.zeros(2)
    high = template.xy.max(axis=0) if len(template) else np.zeros(2)
    steps = round(360.0 / layout.degrees_per_step)
    rows = [
        Minutia(
            kind=int(kind),
            x=round(float(x - low[0])) + MARGIN,
            y=round(float(high[1] - y)) + MARGIN,
            angle=round(float(angle) / math.tau * steps) % steps,
            quality=max(1, round(float(worth) * 100)),
        )
        for (x, y), angle, worth, kind in zip(template.xy, template.angle, template.quality, template.kind, strict=True)
    ]
    width, height = (round(float(side)) + 2 * MARGIN for side in high - low)
    iso_2011 = layout is RecordFormat.ISO_2011
    view = FingerView(
        position=position, view=0, impression=0, width=width, height=height,
        x_resolution=WRITTEN_RESOLUTION, y_resolution=WRITTEN_RESOLUTION,
        minutiae=tuple(rows), qualities=(QualityBlock(quality, 0, 0),),
        capture=Capture((0, 0, 0, 0, 0, 0, 0), 0, 0, 0) if iso_2011 else None,
    )  # fmt: skip
    return MinutiaeRecord(layout, (view,))
