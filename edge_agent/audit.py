"""What was done, by whom: a keyed hash chain that shows every edit, insertion, reordering and cut.

Each row's MAC covers the one before it, so a changed row breaks the chain; the newest (seq, mac) is
anchored outside the database (a file beside it, and upstream as an event), so a shortened or exchanged
file no longer meets its anchor. Personal details are not covered themselves but by a salted commitment:
erasing a person removes details and salt, and the chain still verifies.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

GENESIS = hashlib.sha256(b"edge-agent audit chain").digest()


@dataclass(frozen=True, slots=True)
class Entry:
    """One act. `personal` is what must go when the subject is erased."""

    actor: str
    action: str
    object: str = ""
    outcome: str = "ok"
    details: Mapping[str, Any] | None = None
    personal: Mapping[str, Any] | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Anchor:
    """The chain's end at one moment, kept where the database's writer cannot change it."""

    seq: int
    mac: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """`fault` is empty if the chain holds; else it says where and what."""

    rows: int
    fault: str = ""
    at_seq: int | None = None

    @property
    def intact(self) -> bool:
        return not self.fault


def _canonical(value: Mapping[str, Any] | None) -> str:
    return json.dumps(value or {}, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _mac(key: bytes, previous: bytes, seq: int, fields: Iterable[str], commitment: bytes) -> bytes:
    mac = hmac.new(key, previous, hashlib.sha256)
    mac.update(seq.to_bytes(8, "big"))
    for text in fields:
        raw = text.encode()
        mac.update(len(raw).to_bytes(4, "big") + raw)
    mac.update(commitment)
    return mac.digest()


class AuditLog:
    """Appends inside the caller's transaction, so an act and its row are durable together."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def append(self, connection: sqlite3.Connection, entry: Entry, *, now: datetime) -> Anchor:
        last = connection.execute("SELECT seq, mac FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
        seq, previous = (last[0] + 1, last[1]) if last else (1, GENESIS)
        personal = salt = commitment = None
        if entry.personal:
            personal, salt = _canonical(entry.personal), secrets.token_bytes(32)
            commitment = hmac.new(salt, personal.encode(), hashlib.sha256).digest()
        at, details = now.isoformat(timespec="milliseconds"), _canonical(entry.details)
        mac = _mac(
            self._key,
            previous,
            seq,
            (at, entry.actor, entry.action, entry.object, entry.outcome, details),
            commitment or b"",
        )
        connection.execute(
            "INSERT INTO audit VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                seq,
                at,
                entry.actor,
                entry.action,
                entry.object,
                entry.outcome,
                details,
                personal,
                salt,
                entry.subject if personal else None,
                commitment,
                mac,
            ),
        )
        return Anchor(seq, mac)

    def anchor(self, connection: sqlite3.Connection) -> Anchor | None:
        last = connection.execute("SELECT seq, mac FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
        return Anchor(last[0], last[1]) if last else None

    def erase_subject(self, connection: sqlite3.Connection, subject: str) -> int:
        """Remove a person's details; rows, order and MACs stay. Returns how many rows held some."""
        return connection.execute(
            "UPDATE audit SET personal = NULL, salt = NULL, subject = NULL WHERE subject = ?", (subject,)
        ).rowcount

    def verify(self, connection: sqlite3.Connection, anchors: Iterable[Anchor] = ()) -> Verdict:
        """Walk the whole chain, then hold it against every anchor."""
        expected = {anchor.seq: anchor.mac for anchor in anchors}
        previous, count = GENESIS, 0
        rows = connection.execute(
            "SELECT seq, at, actor, action, object, outcome, details, personal, salt, commitment, mac"
            " FROM audit ORDER BY seq"
        )
        for seq, *fields, personal, salt, commitment, mac in rows:
            count += 1
            if seq != count:
                return Verdict(count, f"row {count} is missing; the next is {seq}", count)
            if not hmac.compare_digest(_mac(self._key, previous, seq, fields, commitment or b""), mac):
                return Verdict(count, f"row {seq} was changed, inserted or moved", seq)
            if personal is not None and (
                salt is None
                or commitment is None
                or not hmac.compare_digest(hmac.new(salt, personal.encode(), hashlib.sha256).digest(), commitment)
            ):
                return Verdict(count, f"row {seq}: its personal details were changed", seq)
            if seq in expected and not hmac.compare_digest(expected.pop(seq), mac):
                return Verdict(count, f"row {seq} differs from its anchor: the file was exchanged", seq)
            previous = mac
        if expected:
            missing = min(expected)
            return Verdict(
                count, f"the log ends at row {count}, but row {missing} was anchored: its end was cut", count
            )
        return Verdict(count)
