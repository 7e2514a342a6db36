"""The flows over real protocol bytes: simulated devices on sockets and pseudo-terminals, the drivers, the engines."""

from __future__ import annotations

import asyncio
from datetime import datetime
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from device_drivers.cameras import CameraDriver
from device_drivers.devices import DeviceConfig, Record
from device_drivers.fingerprint_uart.driver import FingerprintModule
from device_drivers.osdp.driver import OsdpBus
from device_drivers.simulated.fingerprint_uart import SimulatedModule
from device_drivers.simulated.osdp import SimulatedBus, SimulatedReader
from device_drivers.simulated.synthetic_fingerprints import Finger
from device_drivers.simulated.uhppote import SimulatedUhppote
from device_drivers.uhppote.driver import UhppoteController
from device_drivers.wiegand import encode
from edge_agent.attendance import Attendance, Source
from edge_agent.matching.face import FaceSample
from edge_agent.matching.face_engine import engine as face_engine
from edge_agent.matching.fingerprint import FingerprintEngine
from edge_agent.policy.consent import Act
from templates_store.template import Modality, Purpose, SubjectId
from tests.flows.site import START, Site, site
from tests.shared_data import shared

KEY = bytes(range(1, 17))
PATIENCE_S = 30.0


def recorder(s: Site, device: str) -> Record:
    """As the agent gives it to a driver."""
    attendance = Attendance(s.database, s.roster, clock=s.clock.now)
    attendance.configure([Source(device)])
    inner = attendance.recorder(device, others=lambda events: s.entry.take(device, events))
    return s.doors.recorder(device, inner)


async def test_a_card_at_an_osdp_reader_opens_a_uhppote_door(tmp_path: Path) -> None:
    controller = SimulatedUhppote(clock=lambda: datetime(2026, 11, 23, 10))  # noqa: DTZ001 # a controller has no zone
    address = await controller.start()
    reader = SimulatedReader(1, key=KEY)
    line = SimulatedBus(reader)
    bus = OsdpBus(
        DeviceConfig("reader", "osdp", await line.start(), options={"pds": [{"address": 1, "key": KEY.hex()}]}),
        cursor=None,
    )
    panel = UhppoteController(
        DeviceConfig("panel", "uhppote", address, serial="405419896", options={"poll_s": 0.05, "timeout_s": 1.0}),
        cursor=None,
    )
    async with site(tmp_path) as s:
        s.devices |= {"reader": bus, "panel": panel}
        await s.add("ann", card=str(99 << 16 | 999))
        running = [
            asyncio.create_task(bus.run(recorder(s, "reader"))),
            asyncio.create_task(panel.run(recorder(s, "panel"))),
        ]
        try:
            async with asyncio.timeout(PATIENCE_S):
                await bus._until(lambda: all(each.secure for each in bus._readers), PATIENCE_S)
                reader.show_card(encode("H10301", facility=99, number=999))
                assert (await s.passages.get()).granted
                await controller.until(lambda: bool(controller.log))
                reader.show_card(encode("H10301", facility=1, number=1))
                assert (await s.passages.get()).reason == "unknown"
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await line.stop()
            await controller.stop()


@cache
def finger(seed: int) -> Finger:
    return Finger.grow(seed, width=256, height=288)


async def test_a_finger_on_a_serial_module_is_enrolled_and_opens_the_door(tmp_path: Path) -> None:
    module = SimulatedModule()
    driver = FingerprintModule(
        DeviceConfig("sensor", "fingerprint_uart", await module.start(), options={"look_s": 0.01}), cursor=None
    )
    async with site(tmp_path) as s:
        s.devices["sensor"] = driver
        s.sensing.identification.finger = FingerprintEngine()
        await s.add("ann")
        act = Act(SubjectId("ann"), Modality.FINGERPRINT, Purpose.ACCESS, "n1", START, "ab" * 32, of_age=True)
        step = await s.enrolment.start([act], actor="li", position=2, samples=2)
        module.tap(finger(1), 0, 1)
        step = await s.enrolment.capture(step.enrolment_id, "sensor")
        assert step.ready
        await s.enrolment.finish(step.enrolment_id)
        try:
            driver.arm()
            for impression, seed, granted in ((1, 1, True), (0, 2, False)):
                module.place(finger(seed), impression)
                running = asyncio.create_task(driver.run(recorder(s, "sensor")))
                async with asyncio.timeout(PATIENCE_S):
                    assert (await s.passages.get()).granted is granted
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
        finally:
            await driver.close()
            await module.stop()
        assert s.panel.opened == [(1, 5.0)]


async def test_a_face_in_front_of_a_camera_opens_the_door_and_a_stranger_does_not(tmp_path: Path) -> None:
    folder = shared("faces", "lfw")
    engine = face_engine()
    people = []
    for person in sorted(folder.iterdir()):
        photos = [np.asarray(cv2.imread(str(path)), np.uint8) for path in sorted(person.glob("*.jpg"))[:2]]
        good = [photo for photo in photos if isinstance(engine.reference(photo), FaceSample)]
        if len(good) == 2:
            people.append(good)
        if len(people) == 2:
            break
    (enrolled, shown), (stranger, _) = people
    async with site(tmp_path, face=engine) as s:
        await s.add("ann")
        act = Act(SubjectId("ann"), Modality.FACE, Purpose.ACCESS, "n1", START, "ab" * 32, of_age=True)
        step = await s.enrolment.start([act], actor="li", samples=1)
        assert (await s.enrolment.offer_frame(step.enrolment_id, enrolled)).ready
        await s.enrolment.finish(step.enrolment_id)
        for name, photo, granted in (("same", shown, True), ("other", stranger, False)):
            (tmp_path / name).mkdir()
            cv2.imwrite(str(tmp_path / name / "frame.png"), photo)
            config = DeviceConfig("camera", "camera", str(tmp_path / name), options={"fps": 50})
            camera = s.devices["camera"] = CameraDriver(config, cursor=None)
            s.entry.look("gate")
            async with asyncio.timeout(PATIENCE_S):
                assert (await s.passages.get()).granted is granted
            assert camera.sessions == 0
