"""FORMAT.md's vectors, computed here by hand from AES-GCM alone, against the document and the code."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from templates_store import envelope
from templates_store.envelope import Binding
from templates_store.template import Modality, Purpose, SubjectId, TemplateFormat, TemplateId

DOCUMENT = (Path(envelope.__file__).parent / "FORMAT.md").read_text("utf-8")
KEK, KEK_ID, DEK = bytes(range(32)), "a0a1a2a3a4a5a6a7", bytes(range(0x20, 0x40))
NONCE, DEK_NONCE = bytes(range(0xB0, 0xBC)), bytes(range(0xC0, 0xCC))
PAYLOAD = struct.pack("<2f", 1.0, -2.0)
BINDING = Binding(
    "acme",
    SubjectId("s-1"),
    TemplateId("t-1"),
    Modality.FACE,
    Purpose.ATTENDANCE,
    TemplateFormat("yunet+sface/1", 2),
    1,
)


def written(name: str) -> bytes:
    """The hex behind a name in the document's last block, over as many lines as it takes."""
    found = re.search(rf"^    {re.escape(name)} +([0-9a-f]+(?:\n {{17}}[0-9a-f]+)*)$", DOCUMENT, re.MULTILINE)
    assert found is not None, name
    return bytes.fromhex(re.sub(r"\s", "", found[1]))


def by_hand(*fields: str) -> bytes:
    return b"".join(struct.pack(">I", len(each.encode())) + each.encode() for each in fields)


def gcm(key: bytes, nonce: bytes, associated: bytes, plain: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(associated)
    out = encryptor.update(plain) + encryptor.finalize()
    return out + encryptor.tag


def fixed(nonce: bytes) -> Callable[[int], bytes]:
    return lambda _: nonce


ASSOCIATED = by_hand("template", "1", "acme", "s-1", "t-1", "face", "attendance", "yunet+sface/1", "2", "1")
SEALED = b"\x01" + NONCE + gcm(DEK, NONCE, ASSOCIATED, PAYLOAD)
WRAPPED = (
    b"\x01" + bytes.fromhex(KEK_ID) + DEK_NONCE + gcm(KEK, DEK_NONCE, by_hand("dek", "1", "acme", "s-1", KEK_ID), DEK)
)


def test_the_document_says_what_the_cipher_gives() -> None:
    assert written("associated") == ASSOCIATED
    assert written("template") == SEALED
    assert written("wrapped DEK") == WRAPPED


def test_seals_a_template_as_documented() -> None:
    assert BINDING.associated_data() == ASSOCIATED
    assert envelope.seal(DEK, PAYLOAD, bound_to=ASSOCIATED, random=fixed(NONCE)) == SEALED


def test_opens_what_was_sealed_by_hand() -> None:
    assert envelope.open_sealed(DEK, SEALED, bound_to=BINDING.associated_data()) == PAYLOAD
    into = bytearray(len(PAYLOAD))
    envelope.open_into(DEK, SEALED, bound_to=BINDING.associated_data(), target=memoryview(into))
    assert into == PAYLOAD


def test_wraps_and_unwraps_as_documented() -> None:
    assert envelope.wrap(KEK, KEK_ID, DEK, tenant="acme", owner="s-1", random=fixed(DEK_NONCE)) == WRAPPED
    assert envelope.unwrap(KEK, WRAPPED, tenant="acme", owner="s-1") == DEK
    assert envelope.kek_id_of(WRAPPED) == KEK_ID
