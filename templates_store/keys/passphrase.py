"""The root of a keyring from a passphrase, for attended sites: after a power cut somebody has to type it.

Argon2id at RFC 9106's first recommendation scaled to a gateway's memory: 3 passes over 256 MiB.
"""

from __future__ import annotations

import os
from pathlib import Path

from argon2.low_level import Type, hash_secret_raw

from templates_store.envelope import KEY_LEN
from templates_store.errors import KeyUnavailable
from templates_store.keys.files import read_private, replace_private
from templates_store.keys.keyring import Keyring

MEMORY_KIB = 256 * 1024
PASSES = 3
LANES = 4
SALT_LEN = 16
MIN_LENGTH = 12


def passphrase(words: str, *, ring: Path, memory_kib: int = MEMORY_KIB) -> Keyring:
    """Derives once; the words are not kept. Raises KeyUnavailable if they are too short."""
    if len(words) < MIN_LENGTH:
        raise KeyUnavailable(f"a passphrase needs at least {MIN_LENGTH} characters")
    salt_path = ring.with_name(ring.name + ".salt")
    if not salt_path.exists():
        if ring.exists():
            raise KeyUnavailable(f"{salt_path} is missing: without it no passphrase opens {ring.name}")
        replace_private(salt_path, os.urandom(SALT_LEN))
    salt = read_private(salt_path, limit=SALT_LEN)
    root = hash_secret_raw(
        words.encode(),
        salt,
        time_cost=PASSES,
        memory_cost=memory_kib,
        parallelism=LANES,
        hash_len=KEY_LEN,
        type=Type.ID,
    )
    return Keyring(ring, name="passphrase", root=lambda: root)
