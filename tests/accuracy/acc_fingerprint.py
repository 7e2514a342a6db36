"""Fingerprint error rates on FVC folders, with every impostor pair; writes the shipped calibration if asked to.

`--folder PATH` adds folders of FVC images (`FINGER_IMPRESSION.tif|png|bmp`, an `.iso` record beside each if
there is one) to those under ../shared/data/fingerprints. A refused sample scores 0 against everything, as
the FVC protocol counts failures to enrol.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_agent.matching.calibration import measured, write_table
from edge_agent.matching.fingerprint import FROM_IMAGE, FROM_RECORD, FingerprintEngine, FingerSample
from edge_agent.matching.outcomes import Refused
from templates_store.gallery.finger_code import FingerCode, prepare
from templates_store.gallery.finger_segment import Segment
from templates_store.gallery.finger_template import MinutiaeTemplate
from tests.shared_data import SHARED

NAME = re.compile(r"(\d+)_(\d+)\.(tif|tiff|png|bmp)$")
DPI = {"2002db2": 569.0, "2004db3": 512.0, "2006db1": 250.0, "2006db2": 569.0}  # as stated; 500 elsewhere
R30X_WIDTH, R30X_HEIGHT = 256, 288
MIN_CONTRAST = 15.0  # standard deviation in a window of two ridges: a finger lies there
CALIBRATION = Path(__file__).resolve().parents[2] / "edge_agent" / "matching" / "calibration_finger.json"
TARGETS = {  # EER %, FNMR % at FMR 0.1 %
    "fvc2002_db1_b": (0.35, 0.36),
    "fvc2002_db3_b": (0.35, None),
    "fvc2002_db1_b as R30x": (0.4, None),
    "fvc2002_db1_b ISO records": (1.8, None),
}
NOTHING = MinutiaeTemplate(
    np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros(0, np.uint8)
)

Codes = dict[tuple[str, str], FingerCode]  # (finger, impression)


def rates(genuine: NDArray[np.float32], impostor: NDArray[np.float32]) -> tuple[float, float, float, float]:
    """EER, and FNMR at FMR 1 %, 0.1 % and 0; all in per cent."""
    thresholds = np.unique(np.concatenate([genuine, impostor, [np.inf]]))
    fnmr = np.searchsorted(np.sort(genuine), thresholds) / len(genuine)
    fmr = 1.0 - np.searchsorted(np.sort(impostor), thresholds) / len(impostor)
    equal = int(np.argmin(np.abs(fnmr - fmr)))

    def at(limit: float) -> float:
        return float(100 * fnmr[np.argmax(fmr <= limit)])

    return float(50 * (fnmr[equal] + fmr[equal])), at(0.01), at(0.001), at(0.0)


def compared(codes: Codes) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Genuine and impostor scores of every pair, each pair once."""
    keys = sorted(codes)
    segment = Segment.of([codes[key] for key in keys])
    genuine, impostor = [], []
    for number, key in enumerate(keys[:-1]):
        rows = np.arange(number + 1, len(keys))
        scores = segment.aligned(codes[key], rows)
        same = np.array([keys[row][0] == key[0] for row in rows])
        genuine.append(scores[same])
        impostor.append(scores[~same])
    return np.concatenate(genuine), np.concatenate(impostor)


def strangers(codes: list[tuple[str, MinutiaeTemplate]]) -> NDArray[np.float32]:
    """Every template against every mirrored one: a mirrored finger is nobody's, and as hard as a real one."""
    mirrored = [
        prepare(MinutiaeTemplate(t.xy * np.array([-1, 1], np.float32), np.float32(np.pi) - t.angle, t.quality, t.kind))
        for _, t in codes
    ]
    segment = Segment.of(mirrored)
    rows = np.arange(len(mirrored))
    return np.concatenate([segment.aligned(prepare(template), rows) for _, template in codes])


def r30x(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What an R30x module would send of a finger put on it: 256 x 288 around the finger in sixteen greys.

    Around the image's middle instead, ten pairs of DB1_B would show disjoint parts of the finger.
    """
    fine = image.astype(np.float32)
    mean = cv2.boxFilter(fine, -1, (17, 17))
    finger = cv2.boxFilter(fine * fine, -1, (17, 17)) - mean * mean > MIN_CONTRAST**2
    rows, columns = (np.median(axis) if len(axis) else 0 for axis in np.nonzero(finger))
    top = int(np.clip(rows - R30X_HEIGHT // 2, 0, max(0, image.shape[0] - R30X_HEIGHT)))
    left = int(np.clip(columns - R30X_WIDTH // 2, 0, max(0, image.shape[1] - R30X_WIDTH)))
    part = image[top : top + R30X_HEIGHT, left : left + R30X_WIDTH]
    return np.asarray((part >> 4) * np.uint8(17), np.uint8)


def dpi_of(folder: Path) -> float:
    name = re.sub(r"[^0-9a-z]", "", str(folder).lower())
    return next((dpi for key, dpi in DPI.items() if key in name), 500.0)


def grey(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"), np.uint8)


def sampled(
    paths: list[Path], take: Callable[[Path], FingerSample | Refused]
) -> dict[tuple[str, str], MinutiaeTemplate]:
    found: dict[tuple[str, str], MinutiaeTemplate] = {}
    refused = []
    for path in paths:
        match = NAME.search(path.name.lower())
        assert match
        sample = take(path)
        if isinstance(sample, Refused):
            refused.append(f"{path.stem} ({sample.fault.value})")
            found[match[1], match[2]] = NOTHING
        else:
            found[match[1], match[2]] = sample.template
    if refused:
        print(f"  refused: {', '.join(refused)}")
    return found


def histogram(label: str, scores: NDArray[np.float32]) -> None:
    counts, _ = np.histogram(scores, bins=np.arange(0.0, 1.01, 0.05))
    print(f"    {label:<9}" + " ".join(f"{count:5d}" for count in counts))


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="make accuracy ARGS=fingerprint")
    parser.add_argument("--folder", type=Path, action="append", default=[], help="another FVC folder")
    parser.add_argument("--only", action="store_true", help="only the folders named")
    parser.add_argument("--write", action="store_true", help="write the calibration that ships")
    options, _ = parser.parse_known_args(argv)
    own = [] if options.only else sorted((SHARED / "fingerprints").glob("*fvc*"))
    folders = [folder for folder in [*own, *options.folder] if folder.is_dir()]
    if not folders:
        print("no FVC folder found; name one with --folder")
        return
    engine = FingerprintEngine()
    print(
        f"{'set':<28} {'genuine':>7} {'impostor':>8}  {'EER':>6} {'FMR100':>6} {'FMR1000':>7} {'ZeroFMR':>7}  (% FNMR)"
    )
    missed = []
    pools: dict[str, tuple[dict[tuple[str, str], MinutiaeTemplate], list[NDArray[np.float32]], list[str]]] = {}
    extraction: list[float] = []

    def run(label: str, paths: list[Path], take: Callable[[Path], FingerSample | Refused], pipeline: str) -> None:
        templates = sampled(paths, take)
        genuine, impostor = compared({key: prepare(template) for key, template in templates.items()})
        found = rates(genuine, impostor)
        print(
            f"{label:<28} {len(genuine):>7} {len(impostor):>8}  "
            f"{found[0]:>6.2f} {found[1]:>6.2f} {found[2]:>7.2f} {found[3]:>7.2f}",
            flush=True,
        )
        histogram("genuine", genuine)
        histogram("impostor", impostor)
        for value, target in zip((found[0], found[2]), TARGETS.get(label, (None, None)), strict=True):
            if target is not None and value > target:
                missed.append(f"{label}: {value:.2f} % above {target} %")
        pool = pools.setdefault(pipeline, ({}, [], []))
        pool[0].update({(f"{label} {finger}", number): t for (finger, number), t in templates.items()})
        pool[1].append(impostor)
        pool[2].append(label)

    for folder in folders:
        images = sorted(path for path in folder.iterdir() if NAME.search(path.name.lower()))
        if len(images) < 2:
            continue
        dpi = dpi_of(folder)

        def from_image(path: Path, dpi: float = dpi) -> FingerSample | Refused:
            image, start = grey(path), time.perf_counter()
            sample = engine.sample(image, dpi=dpi)
            extraction.append(time.perf_counter() - start)
            return sample

        run(folder.name, images, from_image, FROM_IMAGE.pipeline)
        if folder.name == "fvc2002_db1_b":
            label = f"{folder.name} as R30x"
            run(label, images, lambda path: engine.sample(r30x(grey(path)), dpi=500.0), FROM_IMAGE.pipeline)
        records = [path for path in images if path.with_suffix(".iso").exists()]
        if len(records) > 1:
            label = f"{folder.name} ISO records"
            run(
                label,
                records,
                lambda path: engine.from_record(path.with_suffix(".iso").read_bytes()),
                FROM_RECORD.pipeline,
            )
    print(f"extraction: median {1000 * float(np.median(extraction)):.0f} ms an image, one thread")
    if options.write:
        curves = []
        for pipeline, (templates, impostors, labels) in pools.items():
            every = [(f"{finger}_{number}", t) for (finger, number), t in templates.items() if "R30x" not in finger]
            scores = np.concatenate([*impostors, strangers(every)])
            text = f"{', '.join(labels)}: all pairs of different fingers, and all against mirrored; "
            text += f"{datetime.now(UTC):%Y-%m}"
            curves.append(measured(pipeline, scores, comparisons=len(scores), measured_on=text))
        write_table(CALIBRATION, curves)
        print(f"wrote {CALIBRATION.name}")
    if missed:
        raise SystemExit("; ".join(missed))
