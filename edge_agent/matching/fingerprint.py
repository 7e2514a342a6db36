"""Fingerprint image or record -> comparable sample.

Minutiae come from LEADER, a fully convolutional network that looks at the grey image itself, so there is no
enhancement in front of it but bringing the image to 500 dpi and sixteen greys to the range of bytes.
Minutiae from another extractor (records) are another pipeline: they compare among themselves, against their
own thresholds.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.matching import finger_quality, minutiae_record
from edge_agent.matching.finger_quality import MIN_MINUTIAE
from edge_agent.matching.networks import session
from edge_agent.matching.outcomes import Check, CheckName, Refused, SampleFault
from edge_agent.matching.record_values import BadRecord
from templates_store.gallery.finger_code import prepare
from templates_store.gallery.finger_template import MAX_MINUTIAE, MinutiaeTemplate, MinutiaKind
from templates_store.gallery.minutiae import compare_codes
from templates_store.template import TemplateFormat

LEADER = ("afis", "weights/leader/LEADER.onnx", "da96e1221eea4afdf153997d6c4854ed306c146cfac76046e66cdecc14b2a1bb")
LEADER_DPI = 500.0
LEADER_MULTIPLE = 32  # both sides of its input
ANGLE, KIND, QUALITY = 1, 2, 3  # channels of its output; QUALITY is zero but at minutiae
MIN_QUALITY = 0.3  # measured: below, false minutiae cost more than the true ones bring
SIXTEEN_GREYS = 15  # a four-bit image whose driver did not spread it
FAINT, FLAT = 64.0, 12.0  # greys between the darkest and the lightest hundredth: spread below the one, not the other
MIN_DPI, MAX_DPI = 150.0, 2000.0
MIN_SIDE, MAX_PIXELS = 64, 1_000_000  # at 500 dpi; a flat impression needs a fifth of it

FROM_IMAGE = TemplateFormat("leader+mcc16/1")
FROM_RECORD = TemplateFormat("iso19794-2+mcc16/1")


@dataclass(frozen=True, slots=True)
class FingerSample:
    """One impression, ready to compare or to store as `template.encode()`."""

    template: MinutiaeTemplate = field(repr=False)
    format: TemplateFormat
    quality: float  # 0..100
    doubt: Refused | None = None  # why it should not become a reference, good enough as it is for a comparison
    checks: tuple[Check, ...] = ()


class FingerprintEngine:
    """LEADER behind one session. `sample` may be called from several threads; `parallel` of them run it at once."""

    format = FROM_IMAGE

    def __init__(self, *, parallel: int = 1) -> None:
        self._session = session(*LEADER)
        self._running = threading.Semaphore(parallel)

    def sample(self, image: NDArray[np.uint8], *, dpi: float) -> FingerSample | Refused:
        """Minutiae of one grey image, shape (H, W), or why there are none to compare."""
        if not MIN_DPI <= dpi <= MAX_DPI or image.ndim != 2 or image.dtype != np.uint8:
            return Refused(SampleFault.BAD_IMAGE)
        scale = LEADER_DPI / dpi
        height, width = (round(side * scale) for side in image.shape)
        if height * width > MAX_PIXELS:
            return Refused(SampleFault.BAD_IMAGE, height * width, MAX_PIXELS)
        if min(height, width) < MIN_SIDE:
            return Refused(SampleFault.SMALL_AREA, min(height, width), MIN_SIDE)
        if (height, width) != image.shape:
            method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            image = np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)
        image = _spread(image)
        seen = finger_quality.impression(image)
        if seen.area == 0.0:
            nothing = Check(CheckName.AREA, 0.0, finger_quality.MIN_AREA)
            return nothing.refused([nothing])
        template = self._minutiae(image)
        value = finger_quality.quality(seen, template)
        made = finger_quality.checks(seen, len(template), value)
        if len(template) < MIN_MINUTIAE:
            return Refused(finger_quality.reason(seen), len(template), MIN_MINUTIAE, made)
        return FingerSample(template, self.format, value, finger_quality.enrolment_fault(seen, value, made), made)

    def from_record(self, data: bytes, *, view: int = 0) -> FingerSample | Refused:
        """Minutiae somebody else extracted: one view of an ISO 19794-2 or ANSI 378 record.

        Raises BadRecord for bytes that are no such record or have no such view.
        """
        record = minutiae_record.decode(data)
        if not 0 <= view < len(record.views):
            raise BadRecord(f"record of {len(record.views)} views has no view {view}")
        template = minutiae_record.template_of(record.views[view], record.format)
        if len(template) < MIN_MINUTIAE:
            return Refused(SampleFault.TOO_FEW_MINUTIAE, len(template), MIN_MINUTIAE)
        value = finger_quality.evidence(template)
        return FingerSample(template, FROM_RECORD, value, finger_quality.evidence_fault(value))

    def _minutiae(self, image: NDArray[np.uint8]) -> MinutiaeTemplate:
        height, width = image.shape
        down, right = -height % LEADER_MULTIPLE, -width % LEADER_MULTIPLE
        top, left = down // 2, right // 2
        padded = np.pad(
            image, ((top, down - top), (left, right - left)), constant_values=int(image[0, 0])
        )  # the corner is background
        with self._running:
            output = self._session.run(None, {"input": padded[None, :, :, None].astype(np.float32)})[0][0]
        output = output[top : top + height, left : left + width]
        rows, columns = np.nonzero(output[:, :, QUALITY] >= MIN_QUALITY)
        found = output[rows, columns]
        best = np.argsort(-found[:, QUALITY], kind="stable")[:MAX_MINUTIAE]
        return MinutiaeTemplate(
            xy=np.stack([columns[best], -rows[best]], axis=1).astype(np.float32),
            angle=(found[best, ANGLE] % math.tau).astype(np.float32),
            quality=found[best, QUALITY].astype(np.float32),
            kind=np.where(found[best, KIND] >= 0.5, MinutiaKind.ENDING, MinutiaKind.BIFURCATION).astype(np.uint8),
        )


def _spread(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Faint prints over the whole range of greys; an image that shows nothing stays as it is."""
    if image.max() <= SIXTEEN_GREYS:
        return image * np.uint8(255 // SIXTEEN_GREYS)
    low, high = np.percentile(image, (1.0, 99.0))
    if not FLAT <= high - low < FAINT:
        return image
    return np.asarray(np.clip((image - low) * (255.0 / (high - low)), 0, 255), np.uint8)


def disagreement(samples: Sequence[FingerSample], *, threshold: float) -> Refused | None:
    """At enrolment: does every impression match another one (`threshold` of 1:1)? None if so.

    One match suffices: two halves of a finger need not overlap each other when both overlap a third.
    """
    if len(samples) < 2:
        return None
    codes = [prepare(sample.template) for sample in samples]
    for number, code in enumerate(codes):
        best = max(compare_codes(code, other) for at, other in enumerate(codes) if at != number)
        if best < threshold:
            return Refused(SampleFault.SAMPLES_DISAGREE, best, threshold)
    return None
