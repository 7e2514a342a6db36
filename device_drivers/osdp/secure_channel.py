"""Which key a PD proves when the control panel challenges it.

Source: IEC 60839-11-5 (SIA OSDP 2.2) Annex D: session keys and cryptograms; vectors of Annex E.
A PD answers RND.A with RND.B and AES(S-ENC, RND.A ‖ RND.B); trying keys we know tells ours from the
published default, whatever key the PD claims in its security block.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from enum import StrEnum

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from device_drivers.osdp.frame import CCRYPT, CHLNG, SCS_11, SCS_12, Frame

KEY_LEN = 16
SCBK_D = bytes(range(0x30, 0x40))  # the default key, printed in the standard
RANDOM_LEN = 8
CCRYPT_LEN = 8 + RANDOM_LEN + 16  # client id, RND.B, cryptogram


class Proof(StrEnum):
    OURS = "ours"
    DEFAULT = "default"  # SCBK-D, or all zeros: anybody has it
    OTHER = "other"
    REFUSED = "refused"  # no secure channel at all


def _block(key: bytes, data: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - one block, as the standard says
    return encryptor.update(data) + encryptor.finalize()


def session_key(scbk: bytes, random_a: bytes, *, label: bytes) -> bytes:
    """S-ENC for label 01 82, S-MAC1 for 01 01, S-MAC2 for 01 02."""
    return _block(scbk, label + random_a[:6] + bytes(8))


def client_cryptogram(scbk: bytes, random_a: bytes, random_b: bytes) -> bytes:
    return _block(session_key(scbk, random_a, label=b"\x01\x82"), random_a + random_b)


def server_cryptogram(scbk: bytes, random_a: bytes, random_b: bytes) -> bytes:
    return _block(session_key(scbk, random_a, label=b"\x01\x82"), random_b + random_a)


def usable_key(key: bytes) -> bool:
    """False for the default key and for keys of one repeated byte."""
    return len(key) == KEY_LEN and key != SCBK_D and len(set(key)) > 1


@dataclass(slots=True)
class Handshake:
    """Follows one PD's challenges. `key` is the PD's own."""

    key: bytes = field(repr=False)
    _random_a: bytes = field(default=b"", repr=False)

    def observe(self, frame: Frame) -> Proof | None:
        """What a frame says about the PD's key; None if nothing."""
        if not frame.reply:
            challenge = frame.code == CHLNG and len(frame.payload) == RANDOM_LEN
            if challenge and frame.security[:1] == bytes([SCS_11]):
                self._random_a = frame.payload
            elif frame.code != CHLNG:
                self._random_a = b""
            return None
        random_a, self._random_a = self._random_a, b""
        if not random_a:
            return None
        if frame.code != CCRYPT or frame.security[:1] != bytes([SCS_12]) or len(frame.payload) != CCRYPT_LEN:
            return Proof.REFUSED
        random_b, cryptogram = frame.payload[8:16], frame.payload[16:]
        for key, proof in ((self.key, Proof.OURS), (SCBK_D, Proof.DEFAULT), (bytes(KEY_LEN), Proof.DEFAULT)):
            if hmac.compare_digest(client_cryptogram(key, random_a, random_b), cryptogram):
                return proof
        return Proof.DEFAULT if frame.security[1:2] == b"\x00" else Proof.OTHER
