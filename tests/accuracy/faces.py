"""Labelled face photographs and what an engine makes of them, kept between runs outside the repository."""

from __future__ import annotations

import hashlib
import inspect
import pickle
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
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
    found = {entry.name: sorted(entry.glob("*.jpg")) for entry in sorted(folder.iterdir())}
    if not limit:
        return found
    several = [name for name in found if len(found[name]) > 1][: limit // 2]
    single = [name for name in found if len(found[name]) == 1][: limit - len(several)]
    return {name: found[name] for name in sorted(several + single)}


def measure_all(
    name: str, photographs: dict[str, list[Path]], *, change: Change | None = None, label: str = "as they are"
) -> dict[str, list[Measured]]:
    """Every photograph through the engine; what was measured before by the same code comes from the cache."""
    key = hashlib.sha256()
    measured_by = (face_engine, face_yunet, face_alignment, face_sface, networks)
    for source in (*measured_by, quality.measure, quality.sharpness):  # not the gates: they are not applied
        key.update(inspect.getsource(source).encode())
    key.update(inspect.getsource(change).encode() if change else b"")
    cache = Path(tempfile.gettempdir()) / "edge-agent-accuracy" / f"{name}-{label}-{key.hexdigest()[:16]}.pickle"
    known: dict[str, Measured] = {}
    if cache.exists():
        known = pickle.loads(cache.read_bytes())  # noqa: S301 our own file of an earlier run
    engine: FaceEngine | None = None
    results: dict[str, list[Measured]] = defaultdict(list)
    done = 0
    for person, paths in photographs.items():
        for path in paths:
            if path.name not in known:
                engine = engine or ungated(name)
                known[path.name] = _measure(engine, path, change)
                done += 1
                if done % 100 == 0:
                    print(f"  {name}, {label}: {done} photographs", file=sys.stderr, flush=True)
            results[person].append(known[path.name])
    if done:
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_bytes(pickle.dumps(known))
    return results


def _measure(engine: FaceEngine, path: Path, change: Change | None) -> Measured:
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
