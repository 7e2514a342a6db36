"""Frame to decision on one core: 640x480, detect, refine, gates, embed, search 10,000, decide.

make bench ARGS="face --enrolled 10000"
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import time

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from edge_agent.matching.calibration import shipped_calibration
from edge_agent.matching.decision import Targets, Thresholds, identify
from edge_agent.matching.face import FaceSample
from edge_agent.matching.face_engine import engine as face_engine
from templates_store.gallery.vectors import VectorGallery
from templates_store.template import SubjectId, TemplateId
from tests.accuracy.faces import people

GOAL_MS = 60.0
console = Console(width=130)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="face")
    parser.add_argument("--enrolled", type=int, default=10_000)
    parser.add_argument("--frames", type=int, default=25)
    options, _ = parser.parse_known_args(argv)
    engine = face_engine()
    rng = np.random.default_rng(0)
    strangers = rng.standard_normal((options.enrolled, engine.format.dimension)).astype(np.float32)
    gallery = VectorGallery(engine.format.dimension, metric=engine.metric, background=False)
    gallery.add_many((SubjectId(f"s{i}"), TemplateId(f"t{i}"), row) for i, row in enumerate(strangers))
    limits = Thresholds.of(shipped_calibration(engine.format.pipeline), Targets(), gallery_size=len(gallery))
    spent: dict[str, list[float]] = {name: [] for name in ("detect", "sample", "search + decide", "frame to decision")}
    wall: list[float] = []
    for paths in list(people(0).values())[: options.frames]:
        frame = np.full((480, 640, 3), 110, np.uint8)  # the photograph enlarged to fill a camera's frame
        frame[:, 80:560] = cv2.resize(np.asarray(cv2.imread(str(paths[0])), np.uint8), (480, 480))
        at = [time.thread_time()]
        engine.detect(frame)
        at.append(time.thread_time())
        started = time.perf_counter()
        sample = engine.sample(frame)
        at.append(time.thread_time())
        if not isinstance(sample, FaceSample):
            continue
        found = gallery.best_two(sample.vector, threshold=limits.identify, margin=limits.margin)
        identify(found, gallery_size=len(gallery), thresholds=limits)
        at.append(time.thread_time())
        wall.append((time.perf_counter() - started) * 1e3)
        for name, ms in zip(spent, (at[1] - at[0], at[2] - at[1], at[3] - at[2], at[3] - at[1]), strict=True):
            spent[name].append(ms * 1e3)
    table = Table(title=f"640x480, {options.enrolled} enrolled, one thread; processor time in ms")
    for column in ("", "median", "p90"):
        table.add_column(column)
    for name, values in spent.items():
        table.add_row(name, f"{np.median(values):.1f}", f"{np.quantile(values, 0.9):.1f}")
    table.add_row("by the clock", f"{np.median(wall):.1f}", f"{np.quantile(wall, 0.9):.1f}")
    console.print(table)
    if np.median(spent["frame to decision"]) > GOAL_MS:
        raise SystemExit(f"frame to decision {np.median(spent['frame to decision']):.1f} ms, wanted {GOAL_MS:.0f}")
