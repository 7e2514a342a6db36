"""DeviceConfig.kind -> driver. A new vendor is a folder, its vectors, its simulator and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from device_drivers.devices import DeviceConfig, Driver

DRIVERS = {
    "zkteco": "device_drivers.zkteco.driver:ZktecoTerminal",
    "adms": "device_drivers.adms.driver:AdmsTerminal",
    "isapi": "device_drivers.isapi.driver:IsapiTerminal",
    "c3": "device_drivers.c3.driver:C3Panel",
    "uhppote": "device_drivers.uhppote.driver:UhppoteController",
    "osdp": "device_drivers.osdp.driver:OsdpBus",
    "fingerprint_uart": "device_drivers.fingerprint_uart.driver:FingerprintModule",
    "camera": "device_drivers.cameras:CameraDriver",
}


def make(config: DeviceConfig, *, cursor: bytes | None = None) -> Driver:
    """A fresh driver for one connection, from where `cursor` says the last one stopped.

    Raises ValueError for an unknown kind. Drivers import their libraries only when asked for.
    """
    try:
        module_name, class_name = DRIVERS[config.kind].split(":")
    except KeyError:
        raise ValueError(f"unknown device kind {config.kind!r}; known: {', '.join(sorted(DRIVERS))}") from None
    driver_class = getattr(import_module(module_name), class_name)
    return cast("Driver", driver_class(config, cursor=cursor))
