"""Transactions that leave a trace: every commit moves the version on, under a digest nobody can forge.

Each subject has a keyed digest over all rows that name it; the head holds their sum modulo 2^256 (a multiset hash:
one subject's change costs one digest) and a keyed digest over itself, the switches and the KEK list. After the
commit the version and that digest go to the anchor.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from templates_store.anchor import Anchor, Mark
from templates_store.envelope import KEY_LEN, kek_id_of, keyed_digest
from templates_store.errors import (
    BadTemplate,
    ConsentMissing,
    KeyUnavailable,
    RolledBack,
    SealBroken,
    Sealed,
    StoreFull,
)
from templates_store.keys.provider import KeyProvider, require_kek
from templates_store.sqlite import Clock, Database, to_us
from templates_store.vault import Vault, new_kek

_MODULUS = 1 << 256
_CONSENTS = (
    "SELECT 'consent', consent_id, modality, purpose, notice_version, given_us, expires_us, evidence_sha256,"
    " legal_basis, basis_reference, state, coalesce(ended_us, 0) FROM consent WHERE subject_id = ? ORDER BY consent_id"
)
_TEMPLATES = (
    "SELECT 'template', template_id, modality, purpose, pipeline, dimension, position, consent_id, created_us,"
    " substr(sealed, 2, 12), substr(sealed, -16) FROM template WHERE subject_id = ? ORDER BY template_id"
)
_PLACEMENTS = (
    "SELECT 'placement', placement_id, modality, purpose, coalesce(template_id, ''), device_serial, slot, placed_us,"
    " state FROM placement WHERE subject_id = ? ORDER BY placement_id"
)
_RECEIPTS = "SELECT 'receipt', receipt_id, revision, signature FROM receipt WHERE subject_id = ? ORDER BY receipt_id"
_HEAD = "SELECT store_id, tenant, version, total, root, public_key FROM head"
_SWITCHES = (
    "SELECT modality, purpose, enabled, coalesce(changed_us, 0), coalesce(changed_by, '') FROM switch"
    " ORDER BY modality, purpose"
)
_KEKS = "SELECT kek_id, state, provider FROM kek ORDER BY kek_id"


def subject_digest(sql: sqlite3.Connection, key: bytes, subject_id: str) -> bytes:
    """Over every row that names the subject, but not its wrapped key: rotation changes no digest."""
    fields: list[str | bytes | int] = [subject_id]
    for query in (_CONSENTS, _TEMPLATES, _PLACEMENTS, _RECEIPTS):
        for row in sql.execute(query, (subject_id,)):
            fields.append(len(row))
            fields += row
    return keyed_digest(key, "subject", *fields)


@dataclass(slots=True)
class Transaction:
    sql: sqlite3.Connection
    vault: Vault
    now: datetime
    touched: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)

    @property
    def now_us(self) -> int:
        return to_us(self.now)

    def touch(self, subject_id: str) -> None:
        """This subject's rows change in this transaction."""
        self.touched.add(subject_id)

    def forget(self, subject_id: str) -> None:
        """No row names this subject any more: its own goes with this transaction."""
        self.forgotten.add(subject_id)

    def ensure_subject(self, subject_id: str) -> None:
        self.sql.execute("INSERT OR IGNORE INTO subject VALUES (?, zeroblob(32))", (subject_id,))
        self.touch(subject_id)


class Ledger:
    """The database, its anchor and, once unsealed, its vault."""

    def __init__(self, database: Database, *, tenant: str, anchor: Anchor, now: Clock, adopt: bool = False) -> None:
        """`adopt` takes the file as it is, whatever the anchor says: for a restore, which then calls `pass_anchor`."""
        self.database = database
        self.tenant = tenant
        self.now = now
        self._anchor = anchor
        self._adopt = adopt
        self._vault: Vault | None = None
        self._writing = threading.RLock()
        with database.write() as sql:
            sql.execute(
                "INSERT OR IGNORE INTO head (one, store_id, tenant, version, total) VALUES (1, ?, ?, 0, zeroblob(32))",
                (os.urandom(16).hex(), tenant),
            )
            (self.store_id, found) = sql.execute("SELECT store_id, tenant FROM head").fetchone()
        if found != tenant:
            raise ValueError(f"{database.path.name} belongs to another tenant")
        if not adopt:
            self._compare_with_anchor()

    @property
    def sealed(self) -> bool:
        return self._vault is None

    def vault(self) -> Vault:
        """Raises Sealed."""
        if self._vault is None:
            raise Sealed("the template store is sealed: give its key (edge-agent keys unseal); punches go on")
        return self._vault

    def seal(self) -> None:
        """Forget the keys; Python cannot wipe the copies it made."""
        with self._writing:
            self._vault = None

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """One transaction with its new head; anchored after the commit. Raises Sealed, ConsentMissing."""
        with self._writing:
            vault = self.vault()
            try:
                with self.database.write() as sql:
                    transaction = Transaction(sql, vault, self.now())
                    yield transaction
                    mark = self._new_head(transaction)
            except sqlite3.IntegrityError as exc:
                raise _translated(exc) from exc
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
                    raise StoreFull(f"no room for {self.database.path.name}") from exc
                raise
            self._anchor.write(mark.signed(vault.signer))

    def _new_head(self, transaction: Transaction) -> Mark:
        sql, vault = transaction.sql, transaction.vault
        (version, raw) = sql.execute("SELECT version, total FROM head").fetchone()
        total = int.from_bytes(raw, "big")
        for subject_id in sorted(transaction.touched):
            found = sql.execute("SELECT digest FROM subject WHERE subject_id = ?", (subject_id,)).fetchone()
            if found is None:
                continue
            digest = subject_digest(sql, vault.digest_key, subject_id)
            total += int.from_bytes(digest, "big") - int.from_bytes(found[0], "big")
            sql.execute("UPDATE subject SET digest = ? WHERE subject_id = ?", (digest, subject_id))
        for subject_id in sorted(transaction.forgotten):
            for (digest,) in sql.execute("SELECT digest FROM subject WHERE subject_id = ?", (subject_id,)).fetchall():
                total -= int.from_bytes(digest, "big")
                sql.execute("DELETE FROM subject WHERE subject_id = ?", (subject_id,))
        sql.execute(
            "UPDATE head SET version = ?, total = ?, public_key = ?",
            (version + 1, (total % _MODULUS).to_bytes(32, "big"), vault.public_key),
        )
        mac = self.head_mac(sql, vault)
        sql.execute("UPDATE head SET mac = ?", (mac,))
        return Mark(self.store_id, version + 1, mac)

    def head_mac(self, sql: sqlite3.Connection, vault: Vault) -> bytes:
        fields: list[str | bytes | int] = []
        for query in (_HEAD, _SWITCHES, _KEKS):
            for row in sql.execute(query):
                fields.append(len(row))
                fields += row
        return keyed_digest(vault.head_key, "head", *fields)

    def unseal(self, provider: KeyProvider) -> None:
        """Raises KeyUnavailable with words for the operator, RolledBack."""
        with self._writing:
            with self.database.read() as sql:
                (root,) = sql.execute("SELECT root FROM head").fetchone()
            if root is None:
                self._vault = self._first_vault(provider)
                return
            keks = dict(provider.keys())
            kek_id = kek_id_of(root)
            kek = require_kek(keks, kek_id, provider=provider.name)
            vault = Vault(self.tenant, self.store_id, provider, {kek_id: kek}, kek_id, bytes(KEY_LEN))
            try:
                secret = vault.unwrap(root, owner=self.store_id, kind="root")
            except SealBroken as exc:
                raise KeyUnavailable(
                    f"key {kek_id} of the {provider.name} provider does not fit this store: it was made for another one"
                ) from exc
            vault = Vault(self.tenant, self.store_id, provider, keks, kek_id, secret)
            self._verify(vault)
            self._vault = vault

    def _first_vault(self, provider: KeyProvider) -> Vault:
        kek_id, kek = new_kek()
        with self.database.write() as sql:
            sql.execute("INSERT INTO kek VALUES (?, ?, 'coming', ?)", (kek_id, provider.name, to_us(self.now())))
        provider.create(kek_id, kek)
        vault = Vault(self.tenant, self.store_id, provider, {kek_id: kek}, kek_id, os.urandom(KEY_LEN))
        with self.database.write() as sql:
            sql.execute("UPDATE kek SET state = 'current' WHERE kek_id = ?", (kek_id,))
            sql.execute("UPDATE head SET root = ?", (vault.wrap(vault.root, owner=self.store_id, kind="root"),))
            mark = self._new_head(Transaction(sql, vault, self.now()))
        self._anchor.write(mark.signed(vault.signer))
        return vault

    def _verify(self, vault: Vault) -> None:
        """Head, sum of digests and anchor agree, or RolledBack."""
        with self.database.read() as sql:
            (version, total, mac) = sql.execute("SELECT version, total, mac FROM head").fetchone()
            if mac is None or mac != self.head_mac(sql, vault):
                raise RolledBack("the head of the template store was changed by somebody else")
            digests = b"".join(digest for (digest,) in sql.execute("SELECT digest FROM subject"))
        if _sum(digests) != int.from_bytes(total, "big"):
            raise RolledBack("subjects were removed from or put back into the template store by somebody else")
        if self._adopt:
            return
        said = self._anchor.read()
        if said is None and version <= 1:  # a power cut took the very first anchor
            self._anchor.write(Mark(self.store_id, version, mac).signed(vault.signer))
            return
        if said is None:
            raise RolledBack("the anchor of the template store is missing; `restore` makes a new one")
        mark = Mark.read(said, Ed25519PublicKey.from_public_bytes(vault.public_key))
        if mark.version > version or (mark.version == version and mark.mac != mac):
            raise RolledBack(f"the template store is at version {version}, its anchor at {mark.version}")
        if mark.version < version:
            self._anchor.write(Mark(self.store_id, version, mac).signed(vault.signer))

    def pass_anchor(self) -> int:
        """Make this file the newest there is: its version passes what was anchored. The new version."""
        said = self._anchor.read()
        floor = 0
        if said is not None:
            mark = Mark.read(said)
            floor = mark.version if mark.store_id == self.store_id else 0
        with self.write() as transaction:
            transaction.sql.execute("UPDATE head SET version = max(version, ?)", (floor,))
        with self.database.read() as sql:
            return int(sql.execute("SELECT version FROM head").fetchone()[0])

    def _compare_with_anchor(self) -> None:
        """What can be told without a key: an older file, or somebody else's."""
        with self.database.read() as sql:
            (version,) = sql.execute("SELECT version FROM head").fetchone()
        said = self._anchor.read()
        if said is None:
            if version > 1:
                raise RolledBack("the anchor of the template store is missing; `restore` makes a new one")
            return
        mark = Mark.read(said)
        if mark.store_id != self.store_id:
            raise RolledBack("the anchor belongs to another template store")
        if mark.version > version:
            raise RolledBack(f"the template store is at version {version}, its anchor at {mark.version}")


def _sum(digests: bytes) -> int:
    """Sum modulo 2^256 of 32-byte big-endian numbers."""
    words = np.frombuffer(digests, ">u4").reshape(-1, 8).astype(np.uint64).sum(axis=0)
    return sum(int(word) << (32 * (7 - i)) for i, word in enumerate(words)) % _MODULUS


def _translated(exc: sqlite3.IntegrityError) -> Exception:
    text = str(exc)
    if text.startswith("consent_missing"):
        return ConsentMissing(text.partition(": ")[2])
    if "FOREIGN KEY" in text:
        return ConsentMissing("no consent for this subject, modality and purpose")
    return BadTemplate(text) if "CHECK" in text else exc
