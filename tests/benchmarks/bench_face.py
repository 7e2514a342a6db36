"""Frame to decision on one core: 640x480, search the frame, refine, align, gates, embed, search 10,000, decide.

make bench ARGS="face --enrolled 10000"
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from edge_agent.matching import face_sface
from edge_agent.matching.calibration import shipped_calibration
from edge_agent.matching.decision import Targets, Thresholds, identify
from edge_agent.matching.face import Frame
from edge_agent.matching.face_alignment import aligned
from edge_agent.matching.face_engine import YunetEngine, embedder
from edge_agent.matching.face_sface import Sface
from edge_agent.matching.face_yunet import Yunet
from edge_agent.matching.models import model_path
from edge_agent.matching.outcomes import Refused
from edge_agent.matching.quality import PROBE, choose, judge, measure
from templates_store.gallery.vectors import VectorGallery
from templates_store.template import SubjectId, TemplateId
from tests.accuracy.faces import people

T = TypeVar("T")
GOAL_MS = 60.0
SIZE = (640, 480)
BATCHES = (2, 4, 8)
console = Console(width=130)


class Stages:
    """Processor time of this thread, by stage."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}

    def run(self, name: str, work: Callable[[], T]) -> T:
        started = time.thread_time()
        result = work()
        self.spent.setdefault(name, []).append((time.thread_time() - started) * 1e3)
        return result


def camera_frames(count: int) -> list[Frame]:
    """Photographs enlarged to fill a camera's frame."""
    frames = []
    for paths in list(people(0).values())[:count]:
        frame = np.full((SIZE[1], SIZE[0], 3), 110, np.uint8)
        frame[:, 80:560] = cv2.resize(np.asarray(cv2.imread(str(paths[0])), np.uint8), (480, 480))
        frames.append(frame)
    return frames


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="face")
    parser.add_argument("--enrolled", type=int, default=10_000)
    parser.add_argument("--frames", type=int, default=25)
    options, _ = parser.parse_known_args(argv)
    frames = camera_frames(options.frames)
    engine = YunetEngine(embedder("sface"))
    rng = np.random.default_rng(0)
    strangers = rng.standard_normal((options.enrolled, engine.format.dimension)).astype(np.float32)
    gallery = VectorGallery(engine.format.dimension, metric=engine.metric, background=False)
    gallery.add_many((SubjectId(f"s{i}"), TemplateId(f"t{i}"), row) for i, row in enumerate(strangers))
    median = by_stage(frames, engine, gallery)
    crops = [aligned(frame, engine.detect(frame)[0].landmarks) for frame in frames if engine.detect(frame)]
    against_opencv(crops)
    together(crops, frames, engine)
    if median > GOAL_MS:
        raise SystemExit(f"frame to decision {median:.1f} ms, wanted {GOAL_MS:.0f}")


def by_stage(frames: list[Frame], engine: YunetEngine, gallery: VectorGallery) -> float:
    """The steps of `YunetEngine.sample` one by one, then the whole. Median of the whole."""
    limits = Thresholds.of(shipped_calibration(engine.format.pipeline), Targets(), gallery_size=len(gallery))
    detector, sface, stages, wall = Yunet(), Sface(), Stages(), []

    def decided(vector: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
        found = gallery.best_two(vector, threshold=limits.identify, margin=limits.margin)
        identify(found, gallery_size=len(gallery), thresholds=limits)

    def whole(frame: Frame) -> None:
        sample = engine.sample(frame)
        if not isinstance(sample, Refused):
            decided(sample.vector)

    whole(frames[0])
    for frame in frames:
        chosen = choose(stages.run("find faces", lambda f=frame: detector.detect(f)), PROBE, size=SIZE)
        if isinstance(chosen, Refused):
            continue
        face = stages.run("refine landmarks, read roll", lambda f=frame, c=chosen: detector.refine(f, c))
        crop = stages.run("align", lambda f=frame, c=face: aligned(f, c.landmarks))
        stages.run("quality gates", lambda c=face, a=crop: judge(measure(c, a), PROBE))
        vector = stages.run("embed", lambda f=frame, c=face, a=crop: sface.embed(f, c, a, mirrored=False))
        stages.run("search and decide", lambda v=vector: decided(v))
        started = time.perf_counter()
        stages.run("frame to decision", lambda f=frame: whole(f))
        wall.append((time.perf_counter() - started) * 1e3)
    table = Table(title=f"640x480, {len(gallery)} enrolled, one thread; processor time in ms")
    for column in ("", "median", "p90"):
        table.add_column(column)
    for name, values in stages.spent.items():
        table.add_row(name, f"{np.median(values):.1f}", f"{np.quantile(values, 0.9):.1f}")
    table.add_row("by the clock", f"{np.median(wall):.1f}", f"{np.quantile(wall, 0.9):.1f}")
    console.print(table)
    return float(np.median(stages.spent["frame to decision"]))


def against_opencv(crops: list[Frame]) -> None:
    """The same network as OpenCV runs it, one after the other."""
    opencv, sface, stages = cv2.FaceRecognizerSF.create(str(model_path(*face_sface.MODEL)), ""), Sface(), Stages()
    for crop in crops:
        stages.run("opencv", lambda c=crop: opencv.feature(c))
        stages.run("own", lambda c=crop: sface.raw(c))
    ratio = np.median(np.array(stages.spent["opencv"]) / np.array(stages.spent["own"]))
    console.print(f"embedding: OpenCV takes {ratio:.2f} times as long")


def together(crops: list[Frame], frames: list[Frame], engine: YunetEngine) -> None:
    """What frames that wait together gain from one run of the network, and from a thread each."""
    sface, stages = Sface(), Stages()
    for at in range(0, len(crops) - max(BATCHES), 2):
        stages.run("1", lambda a=at: sface.raw(crops[a]))
        for size in BATCHES:
            stages.run(str(size), lambda a=at, n=size: sface.raw(*crops[a : a + n]))
    alone = np.array(stages.spent["1"])
    gains = (f"{size}: {np.median(np.array(stages.spent[str(size)]) / size / alone):.2f}" for size in BATCHES)
    console.print(f"embedding in batches, time a face against one at a time: {', '.join(gains)}")
    started = time.perf_counter()
    for frame in frames:
        engine.sample(frame)
    one = time.perf_counter() - started
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        started = time.perf_counter()
        list(pool.map(engine.sample, frames))
        several = time.perf_counter() - started
    console.print(
        f"{len(frames)} frames on {os.cpu_count()} threads: {one / several:.2f} times the frames a second of one"
    )
