"""What can go wrong with a device, named by what the caller does next.

DeviceError
├ LinkError               gone or silent              -> supervision retries
│ └ LinkTimeout           silent for too long
├ ProtocolError           bytes break the rules       -> the connection ends, supervision retries
│ └ FrameError            checksum, length, magic
├ DeviceRefused           it understood and said no; `.code`
│ └ AuthenticationFailed                              -> waits for a person
├ Unsupported             this model or firmware cannot do that
└ WrongDevice             another serial number answers at this address -> waits for a person
"""

from __future__ import annotations


class DeviceError(Exception):
    """Root of everything a device or its link can do to us."""


class LinkError(DeviceError):
    """The peer is gone or cannot be reached."""


class LinkTimeout(LinkError):
    """The peer said nothing for `timeout_s` seconds."""

    def __init__(self, address: str, timeout_s: float) -> None:
        super().__init__(f"{address}: no answer within {timeout_s:g} s")
        self.address = address
        self.timeout_s = timeout_s


class ProtocolError(DeviceError):
    """The peer sent bytes that break its own protocol."""


class FrameError(ProtocolError):
    """A frame with a bad checksum, length or start mark."""


class DeviceRefused(DeviceError):
    """The device understood the request and said no; `sub_code` is its own word for why, where it has words."""

    def __init__(self, message: str, *, code: int | None = None, sub_code: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.sub_code = sub_code


class AuthenticationFailed(DeviceRefused):
    """Password, communication key or secure-channel key is wrong: a person has to act."""


class Unsupported(DeviceError):
    """This model or firmware lacks the function."""


class WrongDevice(DeviceError):
    """Another device than the configured one answers at this address."""

    def __init__(self, address: str, *, expected: str, found: str) -> None:
        super().__init__(f"{address}: expected serial number {expected}, found {found}")
        self.address = address
        self.expected = expected
        self.found = found
