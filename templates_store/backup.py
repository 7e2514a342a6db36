"""Backup and restore: one encrypted archive of templates.db and whatever database is to go with it.

Each database is copied in one consistent view while the agent runs, sealed frame by frame under a fresh key that
the current KEK wraps, and the finished archive is read back and compared before it counts. The KEK is not in it: once
a rotation after an erasure destroyed that KEK, the archive is noise, which is what keeps the erased erased. So make a
new backup after every rotation; one made before cannot be restored.

Between an erasure and that rotation the archive still opens. So a restore asks the files that it replaces what was
erased since, and refuses if they do not tell.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from templates_store import erasure, receipts
from templates_store.anchor import Anchor
from templates_store.envelope import (
    OVERHEAD,
    WRAPPED_LEN,
    bind,
    kek_id_of,
    open_sealed,
    seal,
    unwrap,
)
from templates_store.errors import ErasuresUnknown, KeyUnavailable, SealBroken, StoreError
from templates_store.keys.files import sync_folder
from templates_store.keys.provider import KeyProvider
from templates_store.ledger import Ledger
from templates_store.records import ConsentState, Receipt
from templates_store.sqlite import Clock, Database, connect

MAGIC = b"EABACKUP\x01"
FRAME = 1024 * 1024
MAX_HEADER = 64 * 1024
MAIN = "templates.db"
_LENGTH = struct.Struct(">I")

Progress = Callable[[str, int, int], None]  # what is done now, bytes done, bytes in all
Carry = Callable[[Mapping[str, Path], Sequence[Receipt]], None]


def silent(what: str, done: int, total: int) -> None:
    """No progress shown."""


@dataclass(frozen=True, slots=True)
class BackupReport:
    path: Path
    size: int
    members: tuple[str, ...]
    kek_id: str
    version: int


@dataclass(frozen=True, slots=True)
class RestoreReport:
    members: tuple[str, ...]
    made_at: datetime
    version: int
    erased_again: int  # erasures on record in the file that was replaced, done again in the restored one
    erasures_known: bool  # False: there was no file, or it could not be read


def write(
    ledger: Ledger, target: Path, *, others: Mapping[str, Path] | None = None, progress: Progress = silent
) -> BackupReport:
    """`others` maps names to further SQLite files, such as agent.db. Raises Sealed, StoreError.

    A backup that cannot be read back is removed and raises.
    """
    vault = ledger.vault()
    copies = {MAIN: target.with_name(target.name + ".copy")}
    copies |= {name: target.with_name(f"{target.name}.{i}.copy") for i, name in enumerate(others or {})}
    if any("/" in name or name.startswith(".") for name in copies) or len(copies) != 1 + len(others or {}):
        raise ValueError("members of a backup have plain, distinct names")
    partial = target.with_name(target.name + ".partial")
    try:
        _copy(ledger.database, copies, others or {}, progress)
        with contextlib.closing(sqlite3.connect(copies[MAIN])) as copied:
            (version,) = copied.execute("SELECT version FROM head").fetchone()
        header = json.dumps(
            {
                "tenant": ledger.tenant,
                "store_id": ledger.store_id,
                "version": version,
                "made_at": ledger.now().isoformat(),
                "members": [_member(name, path) for name, path in copies.items()],
            },
            sort_keys=True,
        ).encode()
        key, owner = vault.new_key(), hashlib.sha256(header).hexdigest()
        wrapped = vault.wrap(key, owner=owner, kind="backup-key")
        with _private(partial) as out:
            out.write(MAGIC + _LENGTH.pack(len(header)) + header + wrapped)
            for name, path in copies.items():
                _seal_member(out, path, name, key=key, owner=owner, progress=progress)
            out.flush()
            os.fsync(out.fileno())
        size = partial.stat().st_size
        with partial.open("rb") as back:
            said, key = _open_header(back, tenant=ledger.tenant, keks=vault.keks, provider=vault.provider.name)
            for member in said["members"]:
                for _ in _frames(back, member, key=key, owner=owner, progress=progress, what="verify"):
                    pass
        partial.replace(target)
        sync_folder(target.parent)
    finally:
        for path in (*copies.values(), partial):
            path.unlink(missing_ok=True)
    return BackupReport(target, size, tuple(copies), kek_id_of(wrapped), version)


def kek_id(archive: Path) -> str:
    """Under which KEK an archive opens. Raises SealBroken for what is none."""
    with archive.open("rb") as back:
        return kek_id_of(_read_header(back)[1])


def restore(
    archive: Path,
    into: Path,
    *,
    tenant: str,
    keys: KeyProvider,
    anchor: Anchor,
    now: Clock,
    carry: Carry | None = None,
    erasures_unknown: bool = False,
    progress: Progress = silent,
) -> RestoreReport:
    """Put the databases of an archive into a folder, while no agent runs there.

    Everything is written beside and verified first. Erasures on record in the file that is replaced are done again.
    `carry` takes over what the other members must not lose, before anything is replaced: it gets the new files by name
    and the receipts of the old one. `erasures_unknown` goes on where the old file is unreadable, rolled back or sealed,
    with whatever it still tells.
    Raises ErasuresUnknown otherwise, KeyUnavailable if the archive's KEK was destroyed, SealBroken, StoreError.
    """
    into.mkdir(parents=True, exist_ok=True)
    fresh: dict[str, Path] = {}
    try:
        with archive.open("rb") as back:
            said, key = _open_header(back, tenant=tenant, keks=keys.keys(), provider=keys.name)
            owner = hashlib.sha256(said["raw"]).hexdigest()
            for member in said["members"]:
                path = fresh[member["name"]] = into / f"{member['name']}.restoring"
                path.unlink(missing_ok=True)
                with _private(path) as out:
                    for frame in _frames(back, member, key=key, owner=owner, progress=progress, what="restore"):
                        out.write(frame)
                    out.flush()
                    os.fsync(out.fileno())
            if back.read(1):
                raise SealBroken
        known, complete = _erasures(
            into / MAIN, tenant=tenant, keys=keys, anchor=anchor, now=now, anyway=erasures_unknown
        )
        if carry is not None:
            carry(fresh, known)
        version, again = _adopt(fresh[MAIN], known, tenant=tenant, keys=keys, anchor=anchor, now=now)
        for name, path in fresh.items():
            for end in ("-wal", "-shm", "-journal"):
                (into / (name + end)).unlink(missing_ok=True)
                path.with_name(path.name + end).unlink(missing_ok=True)
            path.replace(into / name)
        sync_folder(into)
    finally:
        for path in fresh.values():
            for end in ("", "-wal", "-shm", "-journal"):
                path.with_name(path.name + end).unlink(missing_ok=True)
    return RestoreReport(tuple(fresh), datetime.fromisoformat(said["made_at"]), version, again, complete)


def _erasures(
    path: Path, *, tenant: str, keys: KeyProvider, anchor: Anchor, now: Clock, anyway: bool
) -> tuple[list[Receipt], bool]:
    """What was erased according to the file that is about to be replaced, and whether that is all.

    Raises ErasuresUnknown if it is not, unless `anyway`.
    """
    if not path.exists():
        return [], False
    for adopt in (False, True):  # one that was rolled back still tells what it knows
        try:
            with contextlib.closing(Database(path, now=now)) as database:
                ledger = Ledger(database, tenant=tenant, anchor=anchor, now=now, adopt=adopt)
                with database.read() as sql:
                    (root,) = sql.execute("SELECT root FROM head").fetchone()
                if root is None:  # never opened: nothing was in it
                    return [], not adopt
                ledger.unseal(keys)
                with database.read() as sql:
                    found = receipts.select(
                        sql, subject_id=None, only_open=False, store_id=ledger.store_id, tenant=tenant
                    )
                return found, not adopt
        except (StoreError, sqlite3.Error, ValueError) as exc:
            if not anyway:
                raise ErasuresUnknown(
                    f"the {path.name} that is here does not tell what was erased since: {exc or type(exc).__name__}"
                ) from exc
    return [], False


def _adopt(
    path: Path, known: list[Receipt], *, tenant: str, keys: KeyProvider, anchor: Anchor, now: Clock
) -> tuple[int, int]:
    """Verify the restored file, do known erasures again, make it the newest. Its version, how many erasures."""
    with contextlib.closing(Database(path, now=now)) as database:
        with database.read() as sql:
            faults = [text for (text,) in sql.execute("PRAGMA integrity_check") if text != "ok"]
            held = {receipt_id for (receipt_id,) in sql.execute("SELECT receipt_id FROM receipt")}
        if faults:
            raise StoreError(f"the restored {MAIN} is damaged: {faults[0]}")
        ledger = Ledger(database, tenant=tenant, anchor=anchor, now=now, adopt=True)
        ledger.unseal(keys)
        version = ledger.pass_anchor()
        again = [receipt for receipt in known if receipt.receipt_id not in held]
        for receipt in again:
            with ledger.write() as transaction:
                erasure.erase(
                    transaction,
                    receipt.subject_id,
                    modality=receipt.modality,
                    purpose=receipt.purpose,
                    state=ConsentState.ENDED,
                    reason=receipt.reason,
                    actor=receipt.actor,
                    elsewhere=(),
                )
        if database.checkpoint() and again:
            with ledger.write() as transaction:
                receipts.settle(transaction, receipts.WAL)
            database.checkpoint()
        with database.read() as sql:
            (version,) = sql.execute("SELECT version FROM head").fetchone()
    return version, len(again)


def _copy(main: Database, copies: Mapping[str, Path], others: Mapping[str, Path], progress: Progress) -> None:
    for name, path in copies.items():
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        if name == MAIN:
            main.backup(path, progress=lambda done, total: progress("copy templates.db", done, total))
        else:
            with (
                contextlib.closing(sqlite3.connect(f"file:{others[name]}?mode=ro", uri=True)) as source,
                contextlib.closing(connect(path)) as destination,
            ):
                source.backup(destination, pages=2048)
        with contextlib.closing(connect(path)) as copied:
            copied.execute("PRAGMA journal_mode=DELETE")


def _member(name: str, path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"name": name, "size": path.stat().st_size, "sha256": digest}


def _seal_member(out: BinaryIO, path: Path, name: str, *, key: bytes, owner: str, progress: Progress) -> None:
    total, done, index = path.stat().st_size, 0, 0
    with path.open("rb") as stream:
        while True:
            data = stream.read(FRAME)
            done += len(data)
            last = int(done >= total)
            sealed = seal(key, data, bound_to=bind("backup", owner, name, index, last))
            out.write(_LENGTH.pack(len(sealed)) + sealed)
            progress(f"seal {name}", done, total)
            index += 1
            if last:
                return


def _open_header(
    back: BinaryIO, *, tenant: str, keks: Mapping[str, bytes], provider: str
) -> tuple[dict[str, Any], bytes]:
    """The header and the archive's key. Raises SealBroken, KeyUnavailable."""
    raw, wrapped = _read_header(back)
    found = kek_id_of(wrapped)
    kek = keks.get(found)
    if kek is None:
        raise KeyUnavailable(
            f"the key {found} of this backup is not in the {provider} provider. If templates were erased after the "
            "backup was made it was destroyed on purpose: use a newer backup"
        )
    key = unwrap(kek, wrapped, tenant=tenant, owner=hashlib.sha256(raw).hexdigest(), kind="backup-key")
    said: dict[str, Any] = json.loads(raw)  # authentic: the wrapped key is bound to its digest
    said["raw"] = raw
    return said, key


def _read_header(back: BinaryIO) -> tuple[bytes, bytes]:
    """The header as it is written, and the wrapped key. Raises SealBroken."""
    if back.read(len(MAGIC)) != MAGIC:
        raise SealBroken("this is no backup of this program")
    raw_length = back.read(_LENGTH.size)
    if len(raw_length) != _LENGTH.size or not 2 <= _LENGTH.unpack(raw_length)[0] <= MAX_HEADER:
        raise SealBroken
    return back.read(_LENGTH.unpack(raw_length)[0]), back.read(WRAPPED_LEN)


def _frames(
    back: BinaryIO, member: Mapping[str, Any], *, key: bytes, owner: str, progress: Progress, what: str
) -> Iterator[bytes]:
    """The plaintext frames of one member; ends only after size and digest agree. Raises SealBroken."""
    digest, done, index, last = hashlib.sha256(), 0, 0, 0
    while not last:
        raw_length = back.read(_LENGTH.size)
        if len(raw_length) != _LENGTH.size or not OVERHEAD <= _LENGTH.unpack(raw_length)[0] <= FRAME + OVERHEAD:
            raise SealBroken
        length = _LENGTH.unpack(raw_length)[0]
        sealed = back.read(length)
        if len(sealed) != length:
            raise SealBroken
        last = int(done + length - OVERHEAD >= member["size"])
        data = open_sealed(key, sealed, bound_to=bind("backup", owner, member["name"], index, last))
        digest.update(data)
        done += len(data)
        index += 1
        progress(f"{what} {member['name']}", done, member["size"])
        yield data
    if done != member["size"] or digest.hexdigest() != member["sha256"]:
        raise SealBroken


@contextlib.contextmanager
def _private(path: Path) -> Iterator[BinaryIO]:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        yield stream
