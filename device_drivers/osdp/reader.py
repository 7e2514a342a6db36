"""One PD on the bus: how it is doing, what it may say, what is wrong with it. No I/O; `now` is passed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from device_drivers.events import DoorEventKind
from device_drivers.osdp.frame import FMT, KEYPAD, RAW, Frame
from device_drivers.osdp.messages import Contacts, Keypad
from device_drivers.osdp.secure_channel import Handshake, Proof, usable_key

PDCAP = 0x46
SECURITY_CAPABILITY = 9
OFFLINE_S = 8.0  # the standard's own limit: shorter ones raise alarms on slow readers
RESTART_S = (0.5, 2.0, 4.0, 8.0)  # the library alone would wait minutes for a PD that comes back
CREDENTIALS_PER_S = 5.0
CREDENTIAL_BURST = 10.0

WORDS = {
    Proof.DEFAULT: "the reader answers with the default key",
    Proof.OTHER: "the reader does not hold its key",
    Proof.REFUSED: "the reader offers no secure channel, only plaintext",
}
PLAINTEXT = "credentials in plaintext"
FLOOD = "the reader floods"


@dataclass(frozen=True, slots=True)
class ReaderConfig:
    """From options["pds"]: address, key (hex; empty until installed), name, door, output, inputs."""

    address: int
    name: str
    door: int
    output: int
    inputs: Mapping[int, str]
    key: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, given: Mapping[str, Any], position: int) -> ReaderConfig:
        """Raises ValueError, never with the key in its words."""
        address = given.get("address")
        if not isinstance(address, int) or not 0 <= address <= 126:
            raise ValueError("an OSDP address is a number from 0 to 126")
        try:
            key = bytes.fromhex(str(given.get("key", "")))
        except ValueError:
            raise ValueError(f"reader {address}: the key is not hexadecimal") from None
        if key and not usable_key(key):
            raise ValueError(f"reader {address}: the key must be 16 bytes of its own, not a default")
        inputs = {int(number): str(meaning) for number, meaning in dict(given.get("inputs", {})).items()}
        if wrong := set(inputs.values()) - {"contact", "button"}:
            raise ValueError(f"reader {address}: an input is contact or button, not {min(wrong)}")
        return cls(
            address,
            str(given.get("name", f"reader {address}")),
            int(given.get("door", position)),
            int(given.get("output", 0)),
            inputs,
            key,
        )


@dataclass(slots=True)
class ReaderState:
    """What happened comes back as (kind, words), each once per change."""

    config: ReaderConfig
    handshake: Handshake
    keypad: Keypad
    contacts: Contacts
    last_heard: float
    last_secure: float
    next_restart: float
    secure: bool = False
    lost: bool = False
    installing: bool = False
    proof: Proof | None = None
    alarms: set[str] = field(default_factory=set)  # told since the secure channel last stood
    restarts: int = 0
    flooding: bool = False
    tokens: float = CREDENTIAL_BURST
    tokens_at: float = 0.0

    @classmethod
    def begin(cls, config: ReaderConfig, key: bytes, now: float) -> ReaderState:
        return cls(
            config, Handshake(key), Keypad(), Contacts(config.inputs), now, now, now + RESTART_S[0], tokens_at=now
        )

    def line_opened(self, now: float) -> None:
        """Silence counts from here."""
        self.last_heard = self.last_secure = self.tokens_at = now
        self.next_restart = now + RESTART_S[0]

    def observe(self, frame: Frame, now: float) -> list[tuple[DoorEventKind, str]]:
        """A frame to or from this PD passed on the line."""
        if frame.reply:
            self.last_heard = now
        proof = self.handshake.observe(frame)
        if frame.reply and frame.code == PDCAP and not frame.encrypted and not _offers_security(frame.payload):
            proof = Proof.REFUSED
        if proof is not None:
            self.proof = proof
            if not self.installing and proof is not Proof.OURS:
                return self._raise_alarm(WORDS[proof])
        if frame.reply and frame.code in {RAW, FMT, KEYPAD} and not frame.encrypted and not self.installing:
            return self._raise_alarm(PLAINTEXT)
        return []

    def supervise(self, channel_stands: bool, now: float) -> list[tuple[DoorEventKind, str]]:
        """Called often; `channel_stands` is the library's word, which counts only with a proof of our key."""
        self.secure = channel_stands and self.proof is Proof.OURS
        if self.secure:
            self.last_secure = now
            self.alarms.clear()
            self.restarts = 0
            self.next_restart = now + RESTART_S[0]
            if self.lost:
                self.lost = False
                return [(DoorEventKind.LINK_RESTORED, "secure channel stands again")]
            return []
        if self.lost or now - self.last_secure < OFFLINE_S:
            return []
        self.lost = True
        silent = now - self.last_heard >= OFFLINE_S
        return [(DoorEventKind.LINK_LOST, "the reader is silent" if silent else "no secure channel")]

    def restart_due(self, now: float) -> bool:
        if self.secure or self.installing or now < self.next_restart:
            return False
        self.restarts = min(self.restarts + 1, len(RESTART_S) - 1)
        self.next_restart = now + RESTART_S[self.restarts]
        return True

    def admit(self, now: float) -> bool:
        """Whether a credential may pass, or the reader sends more than people can show."""
        self.tokens = min(CREDENTIAL_BURST, self.tokens + (now - self.tokens_at) * CREDENTIALS_PER_S)
        self.tokens_at = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True

    def flooded(self) -> list[tuple[DoorEventKind, str]]:
        if self.flooding:
            return []
        self.flooding = True
        return [(DoorEventKind.SECURITY, FLOOD)]

    def _raise_alarm(self, words: str) -> list[tuple[DoorEventKind, str]]:
        if words in self.alarms:
            return []
        self.alarms.add(words)
        return [(DoorEventKind.SECURITY, words)]


def _offers_security(capabilities: bytes) -> bool:
    """Function code, compliance, count: three bytes each."""
    return any(
        capabilities[i] == SECURITY_CAPABILITY and capabilities[i + 1] & 0x01
        for i in range(0, len(capabilities) - 2, 3)
    )
