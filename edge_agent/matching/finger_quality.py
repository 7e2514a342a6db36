"""How good a fingerprint image is, 0..100, and what the person can do about it.

The figure is the evidence the matcher will have: the summed quality of the minutiae, saturating, times the share
of the print whose ridges run clearly. Correlation with an impression's genuine scores on FVC2002 DB1_B and DB3_B: .49
and .71 for this, .04 and .43 for clear ridges alone, .2 and -.03 for the area.

Dryness and wetness show in how dark a print is between its own local extremes: morphologically thinned ridges
(dry) moved the median there from .72 to .86 and .53 to .69, thickened ones (wet) to .49 and .36. Sensors differ as much
as fingers do, so these only name the reason for a print that is poor anyway; they never refuse a good one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.matching.outcomes import Check, CheckName, Refused, SampleFault
from templates_store.gallery.finger_template import MinutiaeTemplate

BLOCK = 16  # px at 500 dpi, about two ridges
MIN_GRADIENT = 6.0  # grey levels a pixel, root mean square: below, nothing touches the sensor
MIN_COHERENCE = 0.35  # of gradients within a block: above, they are ridges
MIN_AREA = 15_000.0  # px at 500 dpi, 0.4 cm²; the smallest of 160 FVC2002 prints has 18,000
EVIDENCE = 20.0  # summed minutia quality at which quality reaches 63
CLEAR_SHARE = 0.8  # of the print; more is not better
DRY, WET = 0.65, 0.42  # mean tone between local minimum (0) and maximum (1)
MIN_MINUTIAE = 6  # the poorest of 160 FVC2002 prints has 8
ENROLMENT_QUALITY = 40.0  # lower prints match, but a poor reference costs at every later search


@dataclass(frozen=True, slots=True)
class Impression:
    """What the image itself says."""

    area: float  # px at 500 dpi covered by a finger
    clear: float  # share of it whose ridges run clearly
    tone: float  # 0 black, 1 white, between local extremes


def impression(image: NDArray[np.uint8]) -> Impression:
    """Measures of one grey image at 500 dpi, both sides at least BLOCK."""
    rows, columns = (side // BLOCK for side in image.shape)
    whole = image[: rows * BLOCK, : columns * BLOCK].astype(np.float32)
    gx = cv2.Sobel(whole, cv2.CV_32F, 1, 0, ksize=3) / 8
    gy = cv2.Sobel(whole, cv2.CV_32F, 0, 1, ksize=3) / 8

    def blocks(values: NDArray[Any]) -> NDArray[np.float32]:
        return np.asarray(cv2.resize(values, (columns, rows), interpolation=cv2.INTER_AREA), np.float32)

    xx, yy, xy = blocks(gx * gx), blocks(gy * gy), blocks(gx * gy)
    energy = xx + yy
    coherence = np.sqrt((xx - yy) ** 2 + 4 * xy**2) / (energy + 1.0)
    ridges = (np.sqrt(energy) > MIN_GRADIENT) & (coherence > MIN_COHERENCE)
    near = np.ones((3, 3), np.uint8)
    finger = (
        cv2.morphologyEx(cv2.morphologyEx(ridges.astype(np.uint8), cv2.MORPH_CLOSE, near), cv2.MORPH_OPEN, near) > 0
    )
    covered = int(finger.sum())
    if covered == 0:
        return Impression(0.0, 0.0, 0.5)
    tiled = whole.reshape(rows, BLOCK, columns, BLOCK)
    low, high = tiled.min(axis=(1, 3)), tiled.max(axis=(1, 3))
    tone = (tiled.mean(axis=(1, 3)) - low) / np.maximum(high - low, 1.0)
    return Impression(float(covered * BLOCK**2), float(ridges[finger].mean()), float(tone[finger].mean()))


def evidence(template: MinutiaeTemplate) -> float:
    """0..100, of the minutiae alone."""
    return float(-100.0 * np.expm1(-float(template.quality.sum()) / EVIDENCE))


def quality(seen: Impression, template: MinutiaeTemplate) -> float:
    """0..100."""
    return evidence(template) * min(1.0, seen.clear / CLEAR_SHARE)


def reason(seen: Impression) -> SampleFault:
    """Why a print is poor, as far as the image shows."""
    if seen.area < MIN_AREA:
        return SampleFault.SMALL_AREA
    if seen.tone > DRY:
        return SampleFault.FINGER_TOO_DRY
    if seen.tone < WET:
        return SampleFault.FINGER_TOO_WET
    return SampleFault.TOO_FEW_MINUTIAE


def checks(seen: Impression, minutiae: int, value: float) -> tuple[Check, ...]:
    """What a reference has to keep. The tone is named only where the print is poor: it never refuses a good one."""
    tone = (Check(CheckName.TONE, seen.tone, WET, DRY),) if value < ENROLMENT_QUALITY else ()
    return (
        Check(CheckName.AREA, seen.area, MIN_AREA),
        *tone,
        Check(CheckName.MINUTIAE, minutiae, MIN_MINUTIAE),
        Check(CheckName.PRINT, value, ENROLMENT_QUALITY),
    )


def enrolment_fault(seen: Impression, value: float, made: tuple[Check, ...] = ()) -> Refused | None:
    """Why a comparable print should not become a reference, or None."""
    if seen.area < MIN_AREA:
        return Refused(SampleFault.SMALL_AREA, seen.area, MIN_AREA, made)
    if value < ENROLMENT_QUALITY:
        return Refused(reason(seen), value, ENROLMENT_QUALITY, made)
    return None


def evidence_fault(value: float) -> Refused | None:
    """The same for minutiae without an image."""
    if value < ENROLMENT_QUALITY:
        return Refused(SampleFault.TOO_FEW_MINUTIAE, value, ENROLMENT_QUALITY)
    return None
