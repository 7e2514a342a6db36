"""Labelled face photographs and what an engine makes of them, kept between runs outside the repository."""

from __future__ import annotations

import hashlib
import inspect
import multiprocessing
import os
import pickle
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_agent.matching import face_alignment, face_engine, face_sface, face_yunet, networks, quality
from edge_agent.matching.face import FaceEngine, FaceSample, Frame
from edge_agent.matching.face_engine import YunetEngine, embedder
from edge_agent.matching.quality import FaceQuality, Gates
from tests.shared_data import SHARED

ANY = Gates(
    eye_distance=0.0,
    brightness=(-1.0, 256.0),
    bright=1.1,
    sharpness=-1.0,
    yaw=99.0,
    pitch=(-99.0, 99.0),
    roll_deg=361.0,
    detector=0.0,
    mouth=-1.0,
    second_face=99.0,
)
ONE_PERSON = {"Ray_Young": "Jason_Kapono", "Sepp_Blatter": "Joseph_Blatter"}  # LFW files one man under two names
Change = Callable[[Frame, NDArray[np.float32]], Frame]  # (frame, landmarks of its face) -> frame


@dataclass(frozen=True, slots=True)
class Measured:
    """One photograph through an engine without gates. None where no face was found."""

    probe: NDArray[np.float32] | None
    reference: NDArray[np.float32] | None
    quality: FaceQuality | None
    faces: int


def ungated(name: str) -> FaceEngine:
    return YunetEngine(embedder(name), probe_gates=ANY, enrolment_gates=ANY)


def people(limit: int) -> dict[str, list[Path]]:
    """Up to `limit` people, half of them with several photographs where there are enough; all if 0."""
    folder = SHARED / "faces" / "lfw"
    if not folder.is_dir():
        raise SystemExit("needs ../shared/data/faces/lfw, which is not on this machine")
    found: dict[str, list[Path]] = defaultdict(list)
    for entry in sorted(folder.iterdir()):
        found[ONE_PERSON.get(entry.name, entry.name)] += sorted(entry.glob("*.jpg"))
    if not limit:
        return found
    several = [name for name in found if len(found[name]) > 1][: limit // 2]
    single = [name for name in found if len(found[name]) == 1][: limit - len(several)]
    return {name: found[name] for name in sorted(several + single)}


def measure_all(
    name: str, photographs: dict[str, list[Path]], *, label: str = "as they are"
) -> dict[str, list[Measured]]:
    """Every photograph through the engine, degraded as `label` says, in as many processes as there are cores; what was
    measured before by the same code comes from the cache.
    """
    from tests.accuracy.degradations import DEGRADATIONS

    change = DEGRADATIONS.get(label)
    key = hashlib.sha256()
    measured_by = (face_engine, face_yunet, face_alignment, face_sface, networks)
    # Not the gates: they are not applied.
    for source in (*measured_by, quality.measure, quality.sharpness, quality.choose):
        key.update(inspect.getsource(source).encode())
    key.update(inspect.getsource(change).encode() if change else b"")
    cache = Path(tempfile.gettempdir()) / "edge-agent-accuracy" / f"{name}-{label}-{key.hexdigest()[:16]}.pickle"
    known: dict[str, Measured] = {}
    if cache.exists():
        known = pickle.loads(cache.read_bytes())  # noqa: S301 our own file of an earlier run
    todo = [path for paths in photographs.values() for path in paths if path.name not in known]
    if todo:
        cores = os.cpu_count() or 1
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(cores, mp_context=spawned, initializer=_start, initargs=(name, label)) as pool:
            for done, (path, measured) in enumerate(zip(todo, pool.map(_measure, todo, chunksize=4), strict=True), 1):
                known[path.name] = measured
                if done % 200 == 0:
                    print(f"  {name}, {label}: {done} of {len(todo)} photographs", file=sys.stderr, flush=True)
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_bytes(pickle.dumps(known))
    return {person: [known[path.name] for path in paths] for person, paths in photographs.items()}


_worker: dict[str, tuple[FaceEngine, Change | None]] = {}  # one entry, in a process of the pool


def _start(name: str, label: str) -> None:
    from tests.accuracy.degradations import DEGRADATIONS

    _worker[""] = ungated(name), DEGRADATIONS.get(label)


def _measure(path: Path) -> Measured:
    engine, change = _worker[""]
    frame = np.asarray(cv2.imread(str(path)), np.uint8)
    faces = engine.detect(frame)
    if change is not None:
        if not faces:
            return Measured(None, None, None, 0)
        middle = min(faces, key=lambda item: float(np.abs(item.landmarks.mean(0) - frame.shape[0] / 2).sum()))
        frame = change(frame, middle.landmarks)
        faces = engine.detect(frame)
    sample = engine.sample(frame)
    if not isinstance(sample, FaceSample):
        return Measured(None, None, None, len(faces))
    reference = engine.reference(frame) if change is None else sample
    vector = reference.vector if isinstance(reference, FaceSample) else sample.vector
    return Measured(sample.vector, vector, sample.quality, len(faces))
