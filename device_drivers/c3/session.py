"""Asking a panel: with a session number in every message, or without one, as its firmware has it.

A C3-200 with firmware 4.3.4 refuses to open a session with -13 and works without one; others demand it. Message numbers
begin at -258 and count up. Sans-io: frames in, frames out.
"""

from __future__ import annotations

import struct

from device_drivers.c3.frame import CONNECT_PLAIN, CONNECT_SESSION, REPLY_ERROR, REPLY_OK, Frame
from device_drivers.errors import AuthenticationFailed, DeviceRefused, ProtocolError, Unsupported

NEW_SESSION = 0xFEFE
FIRST_MESSAGE = -258
NO_SUCH_COMMAND = -13
WRONG_PASSWORD = -14
LARGE_ANSWER = 0x0D  # announces data in a transfer nobody has described
MAX_PASSWORD = 32

ERRORS = {
    -1: "the command was not sent",
    -3: "not enough memory",
    -8: "not authorised",
    -10: "data could not be read",
    -11: "bad parameter",
    -12: "execution failed",
    NO_SUCH_COMMAND: "no such command",
    WRONG_PASSWORD: "wrong communication password",
    -18: "no space left",
    -100: "no such table",
    -101: "no such field",
    -106: "too much data",
}


class Session:
    def __init__(self, password: str = "") -> None:
        if len(password) > MAX_PASSWORD:
            raise ValueError(f"a communication password has at most {MAX_PASSWORD} characters")
        self._password = password.encode("ascii", "strict")
        self._session: int | None = NEW_SESSION
        self._number = FIRST_MESSAGE

    @property
    def plain(self) -> bool:
        return self._session is None

    def connect(self) -> Frame:
        """The first message: opening a session."""
        return self.ask(CONNECT_SESSION, self._password)

    def connect_plain(self) -> Frame:
        """The second try, after a refusal that is not about the password."""
        self._session = None
        return Frame(CONNECT_PLAIN, self._password)

    def connected(self, reply: Frame) -> bool:
        """True if the session is open; False if this panel wants none. Raises AuthenticationFailed."""
        if reply.command == REPLY_ERROR:
            code = _code(reply)
            if code == WRONG_PASSWORD:
                raise AuthenticationFailed("the panel refuses the communication password", code=code)
            return False
        if reply.command != REPLY_OK or len(reply.data) < 2:
            return False
        self._session = reply.data[0] | reply.data[1] << 8
        return True

    def ask(self, command: int, data: bytes = b"") -> Frame:
        if self._session is None:
            return Frame(command, data)
        head = struct.pack("<HH", self._session, self._number & 0xFFFF)
        self._number += 1
        return Frame(command, head + data)

    def answer(self, reply: Frame) -> bytes:
        """The data of a good reply.

        Raises Unsupported, AuthenticationFailed, DeviceRefused, or ProtocolError for a reply of another session.
        """
        if reply.command == REPLY_ERROR:
            code = _code(reply)
            words = ERRORS.get(code, f"error {code}")
            if code == NO_SUCH_COMMAND:
                raise Unsupported(f"the panel has {words}")
            if code == WRONG_PASSWORD:
                raise AuthenticationFailed("the panel refuses the communication password", code=code)
            raise DeviceRefused(f"the panel says: {words}", code=code)
        if reply.command == LARGE_ANSWER:
            raise Unsupported("the panel answers with more than fits in one message")
        if reply.command != REPLY_OK:
            raise ProtocolError(f"an answer of kind 0x{reply.command:02X}")
        if self._session is None or not reply.data:
            return reply.data
        if len(reply.data) < 4 or reply.data[0] | reply.data[1] << 8 != self._session:
            raise ProtocolError("an answer of another session")
        return reply.data[4:]


def _code(reply: Frame) -> int:
    if not reply.data:
        return -1
    last = reply.data[-1]
    return last - 256 if last > 127 else last
