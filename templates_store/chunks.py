"""Search chunks: up to some thousand templates sealed as one, so that a gallery opens in one go.

They copy what `template` rows hold. A chunk goes as soon as one of its members is erased; the others fall back into
the journal until they are packed again.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from templates_store.envelope import OVERHEAD, Binding, bind, open_into, open_sealed, seal
from templates_store.errors import SealBroken
from templates_store.ledger import Transaction
from templates_store.memory import Buffer
from templates_store.records import Chunk
from templates_store.sqlite import Database
from templates_store.template import Modality, Purpose, SubjectId, TemplateFormat, TemplateId
from templates_store.vault import Vault

MIN_MEMBERS = 1024
MEMBERS = 2048  # 1,024 to 4,096 open equally fast; erasing one member costs as much as a chunk is large
JOURNAL_BATCH = 2048
_HEADER = struct.Struct("<IIII")  # members, bytes of: payloads, subject ids, template ids
_JOURNAL = (
    "SELECT t.rowid, t.template_id, t.subject_id, t.dimension, t.position, t.sealed, d.wrapped"
    " FROM usable u JOIN template t ON t.template_id = u.template_id JOIN dek d ON d.subject_id = t.subject_id"
    " WHERE u.chunk_id IS NULL AND u.modality = ? AND u.purpose = ? AND u.pipeline = ? AND t.rowid > ?"
    " ORDER BY t.rowid LIMIT ?"
)


@dataclass(frozen=True, slots=True)
class Group:
    """One gallery's worth: templates that may be compared with each other."""

    modality: Modality
    purpose: Purpose
    pipeline: str


def bound(tenant: str, chunk_id: int, group: Group, *, dimension: int, members: int) -> bytes:
    return bind(
        "chunk", tenant, chunk_id, group.modality.value, group.purpose.value, group.pipeline, dimension, members
    )


def encode(rows: Sequence[tuple[str, str, int, bytes]]) -> bytes:
    """(subject, template, position, payload) rows -> the plaintext of a chunk."""
    subjects = "\n".join(row[0] for row in rows).encode()
    templates = "\n".join(row[1] for row in rows).encode()
    payloads = b"".join(row[3] for row in rows)
    return b"".join(
        (
            _HEADER.pack(len(rows), len(payloads), len(subjects), len(templates)),
            payloads,
            np.array([row[2] for row in rows], "<u2").tobytes(),
            np.array([len(row[3]) for row in rows], "<u4").tobytes(),
            subjects,
            templates,
        )
    )


def decode(buffer: Buffer, *, dimension: int, members: int) -> Chunk:
    """The plaintext of a chunk, still in its buffer. Raises SealBroken if it is not what `encode` wrote."""
    data = buffer.view()
    if len(data) < _HEADER.size:
        raise SealBroken
    count, payload_len, subject_len, template_len = _HEADER.unpack_from(data)
    start = _HEADER.size + payload_len
    ids = start + 6 * count
    if count != members or len(data) != ids + subject_len + template_len:
        raise SealBroken
    positions = np.frombuffer(bytes(data[start : start + 2 * count]), "<u2")
    lengths = np.frombuffer(bytes(data[start + 2 * count : ids]), "<u4")
    try:
        subjects = bytes(data[ids : ids + subject_len]).decode().split("\n")
        templates = bytes(data[ids + subject_len :]).decode().split("\n")
    except UnicodeDecodeError:
        raise SealBroken from None
    if len(subjects) != count or len(templates) != count or int(lengths.sum()) != payload_len:
        raise SealBroken
    vectors, payloads = None, []
    if dimension:
        if payload_len != 4 * dimension * count:
            raise SealBroken
        vectors = buffer.array((count, dimension), offset=_HEADER.size)
    else:
        ends = _HEADER.size + np.cumsum(lengths, dtype=np.int64)
        payloads = [bytes(data[int(end) - int(length) : int(end)]) for end, length in zip(ends, lengths, strict=True)]
    return Chunk(
        [SubjectId(each) for each in subjects], [TemplateId(each) for each in templates], positions, vectors, payloads
    )


def keep(chunk: Chunk, wanted: Sequence[bool]) -> Chunk:
    """The rows that are wanted; the same chunk if that is all of them."""
    if all(wanted):
        return chunk
    rows = [i for i, each in enumerate(wanted) if each]
    vectors = None
    if chunk.vectors is not None:
        vectors = Buffer(4 * len(rows) * chunk.vectors.shape[1]).array((len(rows), chunk.vectors.shape[1]))
        np.take(chunk.vectors, rows, axis=0, out=vectors)
    return Chunk(
        [chunk.subject_ids[i] for i in rows],
        [chunk.template_ids[i] for i in rows],
        chunk.positions[rows],
        vectors,
        [chunk.payloads[i] for i in rows] if chunk.payloads else [],
    )


def open_chunk(sql: sqlite3.Connection, vault: Vault, chunk_id: int, group: Group) -> Chunk | None:
    """A chunk as sealed; None if it is gone. Raises SealBroken."""
    row = sql.execute(
        "SELECT dimension, members, wrapped, sealed FROM chunk WHERE chunk_id = ?", (chunk_id,)
    ).fetchone()
    if row is None:
        return None
    dimension, members, wrapped, sealed = row
    key = vault.unwrap(wrapped, owner=str(chunk_id), kind="chunk-key")
    if len(sealed) < OVERHEAD:
        raise SealBroken
    buffer = Buffer(len(sealed) - OVERHEAD)
    bound_to = bound(vault.tenant, chunk_id, group, dimension=dimension, members=members)
    with buffer.view() as target:
        open_into(key, sealed, bound_to=bound_to, target=target)
    return decode(buffer, dimension=dimension, members=members)


def load(database: Database, vault: Vault, group: Group) -> Iterator[Chunk]:
    """Every usable template of the group once. No transaction stays open while the caller works on a chunk.

    Chunks that appear meanwhile are read too, so that nothing is missed between chunk and journal.
    """
    done: set[int] = set()
    seen: set[str] = set()
    key = (group.modality.value, group.purpose.value, group.pipeline)
    while True:
        with database.read() as sql:
            rows = sql.execute("SELECT chunk_id FROM chunk WHERE modality = ? AND purpose = ? AND pipeline = ?", key)
            fresh = [chunk_id for (chunk_id,) in rows if chunk_id not in done]
        for chunk_id in fresh:
            done.add(chunk_id)
            with database.read() as sql:
                chunk = open_chunk(sql, vault, chunk_id, group)
                rows = sql.execute("SELECT template_id FROM usable WHERE chunk_id = ?", (chunk_id,))
                usable = {template_id for (template_id,) in rows}
            if chunk is None:
                continue
            wanted = [each in usable and each not in seen for each in chunk.template_ids]
            seen.update(each for each, take in zip(chunk.template_ids, wanted, strict=True) if take)
            if any(wanted):
                yield keep(chunk, wanted)
        yield from _journal(database, vault, group, seen)
        with database.read() as sql:
            rows = sql.execute("SELECT chunk_id FROM chunk WHERE modality = ? AND purpose = ? AND pipeline = ?", key)
            if all(chunk_id in done for (chunk_id,) in rows):
                return


def _journal(database: Database, vault: Vault, group: Group, seen: set[str]) -> Iterator[Chunk]:
    last = -1
    while True:
        with database.read() as sql:
            rows = sql.execute(
                _JOURNAL, (group.modality.value, group.purpose.value, group.pipeline, last, JOURNAL_BATCH)
            ).fetchall()
        if not rows:
            return
        last = rows[-1][0]
        fresh = [row for row in rows if row[1] not in seen]
        seen.update(row[1] for row in fresh)
        if fresh:
            yield _opened(vault, group, fresh)


def _opened(vault: Vault, group: Group, rows: Sequence[tuple[int, str, str, int, int, bytes, bytes]]) -> Chunk:
    dimension = rows[0][3]
    vectors = Buffer(4 * dimension * len(rows)).array((len(rows), dimension)) if dimension else None
    target = vectors.data.cast("B") if vectors is not None else memoryview(b"")
    payloads = []
    for i, (_, template_id, subject_id, _, position, sealed, wrapped) in enumerate(rows):
        dek = vault.unwrap(wrapped, owner=subject_id)
        bound_to = _binding(vault, group, template_id, subject_id, dimension, position).associated_data()
        if dimension:
            open_into(dek, sealed, bound_to=bound_to, target=target[4 * dimension * i : 4 * dimension * (i + 1)])
        else:
            payloads.append(open_sealed(dek, sealed, bound_to=bound_to))
    return Chunk(
        [SubjectId(row[2]) for row in rows],
        [TemplateId(row[1]) for row in rows],
        np.array([row[4] for row in rows], np.uint16),
        vectors,
        payloads,
    )


def _binding(vault: Vault, group: Group, template_id: str, subject_id: str, dimension: int, position: int) -> Binding:
    return Binding(
        vault.tenant,
        SubjectId(subject_id),
        TemplateId(template_id),
        group.modality,
        group.purpose,
        TemplateFormat(group.pipeline, dimension),
        position,
    )


def groups_to_pack(sql: sqlite3.Connection, minimum: int) -> list[Group]:
    rows = sql.execute(
        "SELECT modality, purpose, pipeline FROM usable WHERE chunk_id IS NULL"
        " GROUP BY modality, purpose, pipeline HAVING count(*) >= ?",
        (minimum,),
    )
    return [Group(Modality(modality), Purpose(purpose), pipeline) for modality, purpose, pipeline in rows]


def pack_one(transaction: Transaction, group: Group, *, minimum: int, members: int) -> int:
    """Move up to `members` templates of the journal into a new chunk; how many, 0 if fewer than `minimum` wait."""
    sql, vault = transaction.sql, transaction.vault
    rows = sql.execute(
        "SELECT t.template_id, t.subject_id, t.dimension, t.position, t.sealed, d.wrapped FROM usable t"
        " JOIN dek d ON d.subject_id = t.subject_id"
        " WHERE t.chunk_id IS NULL AND t.modality = ? AND t.purpose = ? AND t.pipeline = ? LIMIT ?",
        (group.modality.value, group.purpose.value, group.pipeline, members),
    ).fetchall()
    if len(rows) < minimum:
        return 0
    opened = []
    for template_id, subject_id, dimension, position, sealed, wrapped in rows:
        bound_to = _binding(vault, group, template_id, subject_id, dimension, position).associated_data()
        payload = open_sealed(vault.unwrap(wrapped, owner=subject_id), sealed, bound_to=bound_to)
        opened.append((subject_id, template_id, position, payload))
    chunk_id = int.from_bytes(os.urandom(8), "big") >> 2 or 1
    dimension = rows[0][2]
    key = vault.new_key()
    bound_to = bound(vault.tenant, chunk_id, group, dimension=dimension, members=len(rows))
    sql.executemany("UPDATE template SET chunk_id = ? WHERE template_id = ?", ((chunk_id, row[0]) for row in rows))
    sql.execute(
        "INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            chunk_id,
            group.modality.value,
            group.purpose.value,
            group.pipeline,
            dimension,
            len(rows),
            vault.current,
            vault.wrap(key, owner=str(chunk_id), kind="chunk-key"),
            seal(key, encode(opened), bound_to=bound_to),
        ),
    )
    return len(rows)


def drop_with(transaction: Transaction, template_ids: Sequence[str]) -> int:
    """Delete every chunk that holds one of these; their other members are journal again. How many chunks."""
    sql = transaction.sql
    chunk_ids = set()
    for template_id in template_ids:
        row = sql.execute("SELECT chunk_id FROM template WHERE template_id = ?", (template_id,)).fetchone()
        if row is not None and row[0] is not None:
            chunk_ids.add(row[0])
    for chunk_id in chunk_ids:
        sql.execute("UPDATE template SET chunk_id = NULL WHERE chunk_id = ?", (chunk_id,))
        sql.execute("DELETE FROM chunk WHERE chunk_id = ?", (chunk_id,))
    return len(chunk_ids)
