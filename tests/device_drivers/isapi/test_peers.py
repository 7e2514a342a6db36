"""Somebody else's client against the simulated terminal: pyHik (MIT). It reads cameras and knows no access events."""

from __future__ import annotations

import asyncio
import threading

from pyhik.hikvision import HikCamera

from device_drivers.simulated.isapi import SimulatedIsapi


async def test_somebody_elses_client_logs_in_and_follows_the_stream() -> None:
    device = SimulatedIsapi()
    heard = threading.Event()
    async with device.running():
        host, port = device.address.split(":")
        camera = await asyncio.to_thread(HikCamera, host, int(port), device.username, device.password)
        assert camera.name == "Access"  # by digest, from deviceInfo
        camera.watchdog.pet = heard.set  # what it does with a heartbeat
        camera.start_stream()
        try:
            await asyncio.wait_for(device.streaming.wait(), 10)
            device.swipe("1001")  # JSON, which it passes over
            device.push_photo(b"\xff\xd8\xff")
            for _ in range(3):  # it reads half a kilobyte at a time
                device.heartbeat()
            assert await asyncio.to_thread(heard.wait, 10)
            assert camera.stream_connected
        finally:
            camera.kill_thrd.set()
            device.end_streams()
            await asyncio.to_thread(camera.thrd.join, 30)
