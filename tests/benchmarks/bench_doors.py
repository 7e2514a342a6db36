"""From a frame, a finger or a card to the relay command: look-up, search, rules, fsync and command included.

The site is the flow tests' (real database on disk, galleries, rules); the camera hands over a real photograph
where ../shared/data is present, and the engine is the one that ships. Relays are doubles: their wire is not measured.
Beside each latency stands that of an empty durable commit of the same machine at the same time: it is the floor.

A machine that works for others at the same time makes every wall clock figure worse, so each figure stands beside the
processor time of the same passage, all threads together, and the load is printed: limits are judged by the wall clock,
and where the load is above the number of cores the line says that it is not a verdict.

A finger's way has three parts, told apart: the image over the serial line (a fact of its speed), the extraction of
minutiae, and the rest from a sample to the relay.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from device_drivers.devices import VideoFrame
from device_drivers.fingerprint_uart.frame import HEADER, SUM_LEN
from device_drivers.simulated.synthetic_fingerprints import DPI, HEIGHT, WIDTH, Finger
from edge_agent.biometrics.identification import Subject
from edge_agent.matching.face import FaceEngine, FaceSample
from edge_agent.matching.face_engine import engine as face_engine
from edge_agent.matching.fingerprint import FingerprintEngine, FingerSample
from edge_agent.matching.images import read_image
from templates_store.template import Modality, Purpose, SubjectId, Template, TemplateId
from tests.flows.site import FINGER_PIPELINE, RULES, Clock, Panel, Site, TestCamera, consent, minutiae_of, site
from tests.shared_data import SHARED

ENROLLED = 10_000
PACKET = 128  # bytes of an image in each data packet, as modules come from the factory
DOORS = 50


class RealClock(Clock):
    """Consents and grants are judged by the time of the run."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds of one passage."""

    wall: float
    processor: float


@dataclass(slots=True)
class Watch:
    """Both clocks, from its making."""

    wall: float = field(default_factory=time.perf_counter)
    processor: float = field(default_factory=time.process_time)

    def took(self, *, until: float | None = None) -> Took:
        return Took((until or time.perf_counter()) - self.wall, time.process_time() - self.processor)


def figures(name: str, took: list[Took], limit_ms: float | None = None) -> None:
    def told(seconds: list[float]) -> tuple[float, ...]:
        return tuple(float(np.percentile(np.asarray(seconds) * 1e3, q)) for q in (50, 95, 99))

    p50, p95, p99 = told([each.wall for each in took])
    own50, _, own99 = told([each.processor for each in took])
    verdict = ""
    if limit_ms is not None:
        load = os.getloadavg()[0]
        judged = "kept" if p99 < limit_ms else "MISSED"
        busy = f" (no verdict: load {load:.1f})" if load > (os.cpu_count() or 1) else ""
        verdict = f"  limit {limit_ms:.0f}: {judged}{busy}"
    print(
        f"{name:<48} n={len(took):<4} median {p50:7.1f}  p95 {p95:7.1f}  p99 {p99:7.1f} ms"
        f"  processor {own50:6.1f} / p99 {own99:6.1f} ms{verdict}"
    )


async def commit_floor(s: Site, count: int) -> list[Took]:
    took = []
    for n in range(count):
        watch = Watch()
        await s.database.write(lambda c, n=n: c.execute("INSERT OR REPLACE INTO attempts VALUES ('x', ?, 0, '')", (n,)))
        took.append(watch.took())
    return took


def alone(count: int, work: Callable[[], object]) -> list[Took]:
    took = []
    for _ in range(count):
        watch = Watch()
        work()
        took.append(watch.took())
    return took


class TimedPanel(Panel):
    """Notes when each relay was told."""

    def __init__(self, name: str = "panel") -> None:
        super().__init__(name)
        self.told: asyncio.Queue[tuple[int, float]] = asyncio.Queue()

    async def open_door(self, door: int, *, seconds: float) -> Any:
        self.told.put_nowait((door, time.perf_counter()))
        return await super().open_door(door, seconds=seconds)


async def times(panel: TimedPanel, count: int, ask: Callable[[int], Awaitable[object]], s: Site) -> list[Took]:
    took = []
    for n in range(count):
        watch = Watch()
        await ask(n)
        async with asyncio.timeout(60):
            passage = await s.passages.get()
        if not passage.granted:
            raise SystemExit(f"passage {n} was not granted: {passage.reason}")
        took.append(watch.took(until=panel.told.get_nowait()[1]))
    return took


class PhotoCamera(TestCamera):
    """Hands over copies of one photograph."""

    def __init__(self, photo: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        super().__init__()
        self.photo = photo

    async def _frames(self) -> Any:
        while True:
            await self.people.get()
            yield VideoFrame(self.photo.copy(), time.monotonic())


def photograph(engine: FaceEngine) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
    """640x480, as a camera gives it, with one face in it that is fit to enrol."""
    folder = SHARED / "faces" / "lfw"
    for path in sorted(folder.glob("*/*.jpg"))[:40] if folder.exists() else []:
        photo = read_image(path)
        height, width = photo.shape[:2]
        frame = np.full((480, 640, 3), 127, np.uint8)
        top, left = (480 - height) // 2, (640 - width) // 2
        if top >= 0 and left >= 0:
            frame[top : top + height, left : left + width] = photo
            if isinstance(engine.reference(frame), FaceSample):
                return frame
    return None


def enrol_crowd(s: Site, engine: FaceEngine, photo: np.ndarray[Any, np.dtype[np.uint8]], count: int) -> None:
    """`count` strangers of random direction and the person of the photograph, under the subject 'ann'."""
    sample = engine.reference(photo)
    if not isinstance(sample, FaceSample):
        raise SystemExit(f"the photograph cannot be enrolled: {sample.fault}")
    random = np.random.default_rng(1)
    vectors = random.normal(size=(count, engine.format.dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    now = datetime.now(UTC)
    people = [("ann", sample.vector), *((f"s{n}", vector) for n, vector in enumerate(vectors))]
    batch = []
    for subject, vector in people:
        given = consent(subject, Modality.FACE, Purpose.ACCESS, now=now)
        template = Template(
            TemplateId(f"t-{subject}"), SubjectId(subject), Modality.FACE, Purpose.ACCESS, engine.format,
            vector.astype("<f4").tobytes(),
        )  # fmt: skip
        batch.append((given, [template]))
    s.store.enrol_many(batch)
    print(f"loaded {s.galleries.load(s.store):,} templates from the sealed store")


def enrol_fingers(s: Site, count: int) -> int:
    """`count` made-up fingers, number 3 of them Ann's. Extraction (LEADER) has a benchmark of its own."""
    now = datetime.now(UTC)
    people = []
    for n in range(count):
        subject = SubjectId("ann" if n == 3 else f"finger{n}")
        given = consent(subject, Modality.FINGERPRINT, Purpose.ACCESS, now=now)
        template = Template(
            TemplateId(f"finger-{n}"), subject, Modality.FINGERPRINT, Purpose.ACCESS, FINGER_PIPELINE,
            minutiae_of(n).encode(), 2,
        )  # fmt: skip
        people.append((given, [template]))
    s.store.enrol_many(people)
    return s.galleries.load(s.store)


def many_doors() -> dict[str, Any]:
    doors = [{**RULES["doors"][0], "name": f"d{n}", "device": f"panel{n % 5}", "relay": n + 1} for n in range(DOORS)]
    points = [{"name": f"p{n}", "door": f"d{n}", "reader": "readers", "reader_no": n} for n in range(DOORS)]
    names = [door["name"] for door in doors]
    return {**RULES, "schedules": {}, "doors": doors, "points": points, "groups": [
        {"name": "staff", "grants": [{"doors": names}]}
    ]}  # fmt: skip


def extraction(count: int) -> None:
    """Minutiae from an image of the size that most modules have; a grown finger, so that none need be there."""
    engine, image = FingerprintEngine(), Finger.grow(1).impression(0)
    figures(
        f"extraction of minutiae, {image.shape[1]}x{image.shape[0]}",
        alone(count, lambda: engine.sample(image, dpi=DPI)),
    )


def upload() -> None:
    """What the serial line takes for one image, four bits a pixel: nobody can be quicker than that."""
    content = WIDTH * HEIGHT // 2
    sent = content + -(-content // PACKET) * (HEADER.size + SUM_LEN)
    for baud in (57_600, 115_200):
        print(
            f"an EF01 image of {WIDTH}x{HEIGHT} takes the line {sent * 10 / baud:.1f} s at {baud:,} baud, whoever asks"
        )


async def one_door(folder: Path, rounds: int, fingers: int) -> None:
    patient = {**RULES["points"][0], "session_s": 60}  # a busy machine must not end a session
    always = {
        **RULES, "schedules": {}, "points": [patient], "groups": [{"name": "staff", "grants": [{"doors": ["front"]}]}],
    }  # fmt: skip
    engine = face_engine()
    photo = photograph(engine)
    async with site(folder, always, face=engine, clock=RealClock()) as s:
        panel = s.devices["panel"] = TimedPanel()
        await s.add("ann", card="1111")
        figures("one durable commit (floor)", await commit_floor(s, rounds))
        figures("card -> relay", await times(panel, rounds, lambda _: s.card("1111"), s), 30)
        crowd = enrol_fingers(s, fingers)
        took = await times(panel, max(4, rounds // 4), lambda _: s.finger(3), s)
        figures(f"finger -> relay, {crowd:,} enrolled, no extraction", took)
        probe = FingerSample(minutiae_of(3), FINGER_PIPELINE, 90.0)
        searched = alone(len(took), lambda: s.sensing.identification.decide(probe, Subject(Purpose.ACCESS)))
        figures("  of that, the search", searched, 400)
        extraction(max(4, rounds // 10))
        upload()
        if photo is None:
            print("no photographs under ../shared/data/faces/lfw: frame -> relay is not measured")
            return
        camera = s.devices["camera"] = PhotoCamera(photo)
        enrol_crowd(s, engine, photo, ENROLLED)

        async def look(_: int) -> None:
            camera.show(1)
            s.entry.look("gate")

        await times(panel, 5, look, s)

        def seen() -> None:
            sample = engine.sample(photo)
            if isinstance(sample, FaceSample):
                s.sensing.identification.decide(sample, Subject(Purpose.ACCESS))

        figures("detect, embed and search alone", alone(rounds, seen))
        figures(f"frame 640x480 -> relay, {ENROLLED:,} enrolled", await times(panel, rounds, look, s), 250)
        figures("one durable commit (floor, again)", await commit_floor(s, rounds))


async def busy(folder: Path, rounds: int) -> None:
    async with site(folder, many_doors(), clock=RealClock()) as s:
        panels = {f"panel{n}": TimedPanel(f"panel{n}") for n in range(5)}
        s.devices |= panels
        for n in range(DOORS):
            await s.add(f"person{n}", card=f"{7000 + n}")
        took: list[Took] = []
        for _ in range(rounds):
            watch = Watch()
            for n in range(DOORS):
                await s.card(f"{7000 + n}", reader=n, device="readers")
            for _ in range(DOORS):
                await s.passage()
            for panel in panels.values():
                while not panel.told.empty():
                    took.append(watch.took(until=panel.told.get_nowait()[1]))
        figures(f"card -> relay, {DOORS} doors in the same moment", took)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="doors")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--fingers", type=int, default=ENROLLED, help="fewer are quicker to prepare")
    options = parser.parse_args(argv)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} in the beginning")
    rounds = max(4, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "one").mkdir()
        (Path(folder) / "many").mkdir()
        asyncio.run(one_door(Path(folder) / "one", rounds, max(4, options.fingers)))
        asyncio.run(busy(Path(folder) / "many", max(4, rounds // 10)))
