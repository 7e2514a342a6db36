"""Faces and fingers at the simulated south gate: enrolled with consent, then shown to a camera and a sensor.

Photographs come from a folder the user names (`Name/photo.jpg`, two or more of each person); without one there
are no faces and everything else goes on. Fingers are grown here and belong to nobody. The camera is a folder in
which a link to one photograph stands for the person in front of it, or a webcam: then whoever sits there enrols
with a photograph in the console, and shows their face.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_drivers.simulated.fingerprint_uart import SimulatedModule
from device_drivers.simulated.synthetic_fingerprints import DPI, Finger
from edge_agent.agent import Agent
from edge_agent.database import utc_now
from edge_agent.demo.people import PEOPLE, DemoPerson
from edge_agent.enrolment import EnrolmentRefused
from edge_agent.matching.images import BadImage
from edge_agent.policy.consent import Act, ConsentRefused
from templates_store.template import Modality, Purpose, SubjectId

CAMERA, SENSOR = "gate-camera", "gate-finger"
POINT = "south-gate-in"
FACES, STRANGERS, FINGERS = 8, 4, 4
IMPRESSIONS = 3  # taken at enrolment
RIGHT_INDEX = 2
EVERY_S = 6.0
NOTICE = "demo-1"
STANDS_S = 2.5  # how long somebody looks at the camera, or a finger lies


@dataclass(frozen=True, slots=True)
class Sitter:
    """One person of the folder: some photographs to enrol, others to come with."""

    photos: tuple[Path, ...]


def sitters(folder: Path | None) -> list[Sitter]:
    """People with two or more photographs, in order; none if there is no folder."""
    if folder is None or not folder.is_dir():
        return []
    found = []
    for person in sorted(folder.iterdir()):
        photos = tuple(sorted(person.glob("*.jpg"))) if person.is_dir() else ()
        if len(photos) >= 2:
            found.append(Sitter(photos))
        if len(found) == FACES + STRANGERS:
            break
    return found


class DemoBiometrics:
    def __init__(self, folder: Path, faces: Path | None, webcam: str, news: deque[str], seed: int) -> None:
        self._news = news
        self._webcam = webcam
        self._random = random.Random(seed)
        self._camera = folder / "camera"
        people = [] if webcam else sitters(faces)
        self._known, self._strangers = people[:FACES], people[FACES:]
        self.module = SimulatedModule()
        self._line = ""
        self._fingers: list[Finger] = []

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[DemoBiometrics]:
        """Start the sensor on a pseudo-terminal; put somebody before the camera."""
        self._line = await self.module.start()
        self._camera.mkdir(exist_ok=True)
        if self._known:
            self._stand(self._known[0].photos[0])
        try:
            yield self
        finally:
            await self.module.stop()

    def devices(self) -> list[dict[str, Any]]:
        sensor = {
            "name": SENSOR,
            "kind": "fingerprint_uart",
            "address": self._line,
            "attendance": False,
            "biometrics": ["fingerprint"],
        }
        camera = {
            "name": CAMERA,
            "kind": "camera",
            "address": self._webcam or str(self._camera.resolve()),
            "attendance": False,
            "biometrics": ["face"],
        }
        return [sensor, camera] if self._seen else [sensor]

    @property
    def _seen(self) -> bool:
        """Whether there is anything that a camera could see."""
        return bool(self._known or self._webcam)

    def point(self) -> dict[str, Any]:
        """What the capture point gains; at the folder somebody presses a button to be looked at."""
        gained = {"fingerprint": SENSOR, "close_face": bool(self._webcam)}
        return {**gained, "camera": CAMERA} if self._seen else gained

    def terms(self) -> dict[str, Any]:
        """The enterprise's instruction: which modalities, on which notice, for how long."""
        modalities: dict[str, Any] = {"fingerprint": {"enabled": True}}
        if self._seen:
            modalities["face"] = {"enabled": True}
        return {
            "modalities": modalities,
            "privacy": {"notice_version": NOTICE, "impact_assessment": "demo-2026-11"},
            "retention": {"templates_days": 365},
        }

    async def enrol(self, agent: Agent) -> None:
        """Everybody says yes, gives samples and is enrolled, through the flow that a customer uses."""
        await agent.in_force.wait()
        grown = asyncio.to_thread(lambda: [Finger.grow(seed) for seed in range(1, FINGERS + 2)])
        for person, sitter in zip(PEOPLE, self._known, strict=False):
            await self._enrol_face(agent, person, sitter)
        self._fingers = await grown
        for person, finger in zip(PEOPLE, self._fingers[:FINGERS], strict=False):
            await self._enrol_finger(agent, person, finger)
        count = agent.biometrics.galleries.count()
        self._news.append(f"录入完成 enrolled: {count} 个模板 templates")

    async def _enrol_face(self, agent: Agent, person: DemoPerson, sitter: Sitter) -> None:
        acts = _acts(person, Modality.FACE)
        if agent.biometrics.store.consents(SubjectId(person.subject)):
            return  # an earlier demonstration enrolled them
        with contextlib.suppress(EnrolmentRefused, ConsentRefused, BadImage):
            step = await agent.enrolment.start(acts, actor="demo", samples=1)
            data = await asyncio.to_thread(sitter.photos[0].read_bytes)
            step = await agent.enrolment.offer_photo(step.enrolment_id, data)
            if step.ready:
                await agent.enrolment.finish(step.enrolment_id)
            else:
                await agent.enrolment.cancel(step.enrolment_id)

    async def _enrol_finger(self, agent: Agent, person: DemoPerson, finger: Finger) -> None:
        consents = agent.biometrics.store.consents(SubjectId(person.subject))
        if any(consent.modality is Modality.FINGERPRINT for consent in consents):
            return
        with contextlib.suppress(EnrolmentRefused, ConsentRefused):
            step = await agent.enrolment.start(
                _acts(person, Modality.FINGERPRINT), actor="demo", position=RIGHT_INDEX, samples=IMPRESSIONS
            )
            for number in range(IMPRESSIONS * 2):
                image = await asyncio.to_thread(finger.impression, number)
                step = await agent.enrolment.offer_finger(step.enrolment_id, image, dpi=DPI)
                if step.ready:
                    await agent.enrolment.finish(step.enrolment_id)
                    return
            await agent.enrolment.cancel(step.enrolment_id)

    async def people_come(self, agent: Agent) -> None:
        """Somebody looks at the camera or lays a finger on the sensor; now and then a stranger.

        Each of the four comes once in the beginning, so that whoever looks on for a minute has seen them.
        """
        await self.enrol(agent)
        first = [(False, False), (True, False), (False, True), (True, True)]  # (a face?, a stranger?)
        number = IMPRESSIONS * 2
        while True:
            face, stranger = first.pop(0) if first else (self._random.random() < 0.6, self._random.random() < 0.25)
            if face and self._known:
                sitter = self._random.choice(self._strangers if stranger and self._strangers else self._known)
                self._stand(self._random.choice(sitter.photos[1:]))
                agent.entry.look(POINT)
                await asyncio.sleep(STANDS_S)
            else:
                number += 1
                finger = self._fingers[-1] if stranger else self._random.choice(self._fingers[:FINGERS])
                await asyncio.to_thread(self.module.place, finger, number)
                await asyncio.sleep(STANDS_S)
                self.module.lift()
            await asyncio.sleep(self._random.expovariate(1 / EVERY_S))

    def _stand(self, photo: Path) -> None:
        """Put one person before the camera."""
        for old in self._camera.iterdir():
            old.unlink()
        (self._camera / "now.jpg").symlink_to(photo.resolve())


def _acts(person: DemoPerson, modality: Modality) -> list[Act]:
    """A yes for both purposes, on the demonstration's notice."""
    evidence = hashlib.sha256(f"{NOTICE} {person.subject} {modality}".encode()).hexdigest()
    return [
        Act(SubjectId(person.subject), modality, purpose, NOTICE, utc_now(), evidence, of_age=True, recorded_by="demo")
        for purpose in Purpose
    ]
