"""A new KEK, everything rewrapped, the old KEK destroyed. Templates are not touched, nobody waits.

Each step is durable before the next, and an interrupted rotation is finished at the next unsealing:

    coming   written down before the provider makes the key
    current  wraps everything new; the root secret is under it
    retired  rows are rewrapped in batches; when none is left the provider destroys it and the row goes

The caller sees to it that there is one at a time: a rotation takes the key that another one announced for one left
behind, and destroys it.
"""

from __future__ import annotations

from templates_store import receipts
from templates_store.keys.provider import KeyProvider
from templates_store.ledger import Ledger, Transaction
from templates_store.vault import new_kek

BATCH = 4096
_WRAPPED = (
    (
        "SELECT subject_id, wrapped FROM dek WHERE kek_id <> ? LIMIT ?",
        "UPDATE dek SET kek_id = ?, wrapped = ? WHERE subject_id = ?",
        "dek",
    ),
    (
        "SELECT chunk_id, wrapped FROM chunk WHERE kek_id <> ? LIMIT ?",
        "UPDATE chunk SET kek_id = ?, wrapped = ? WHERE chunk_id = ?",
        "chunk-key",
    ),
)


def owed(ledger: Ledger) -> bool:
    """Whether copies made before an erasure still open under a KEK that a rotation here would destroy. Raises Sealed.

    A KEK left in a provider that is not attached is not one of them.
    """
    vault = ledger.vault()
    with ledger.database.read() as sql:
        return receipts.waiting_for_rotation(sql, provider=vault.provider.name)


def rotate(ledger: Ledger) -> str:
    """The new KEK's id. Afterwards no earlier copy of the file opens, and receipts no longer wait for backups.

    What an earlier rotation left is finished first: while a provider refuses, no keys pile up in it.
    """
    vault = ledger.vault()
    settle(ledger)
    kek_id, kek = _announce(ledger, vault.provider)
    vault.provider.create(kek_id, kek)
    with ledger.write() as transaction:
        vault.keks[kek_id] = kek
        _make_current(transaction, kek_id)
    settle(ledger)
    return kek_id


def move(ledger: Ledger, to: KeyProvider) -> str:
    """Like `rotate`, into another provider: one transaction, so that one provider always opens everything."""
    vault = ledger.vault()
    old = vault.provider
    kek_id, kek = _announce(ledger, to)
    to.create(kek_id, kek)
    with ledger.write() as transaction:
        vault.keks[kek_id] = kek
        _make_current(transaction, kek_id)
        while _rewrap_some(transaction):
            pass
        gone = [each for (each,) in transaction.sql.execute("SELECT kek_id FROM kek WHERE state = 'retired'")]
    vault.provider = to
    ledger.database.checkpoint()
    for each in gone:
        old.destroy(each)
        vault.keks.pop(each, None)
    _forget(ledger, gone)
    return kek_id


def settle(ledger: Ledger) -> None:
    """Finish what a rotation left: rewrap, cut the WAL, destroy old KEKs, close receipts."""
    vault = ledger.vault()
    with ledger.database.read() as sql:
        old = sql.execute("SELECT kek_id FROM kek WHERE state <> 'current' AND provider = ?", (vault.provider.name,))
        gone = [kek_id for (kek_id,) in old]
    if not gone:
        return
    more = True
    while more:
        with ledger.write() as transaction:
            more = _rewrap_some(transaction) == BATCH
    ledger.database.checkpoint()
    for kek_id in gone:
        vault.provider.destroy(kek_id)
        vault.keks.pop(kek_id, None)
    _forget(ledger, gone)


def forget_elsewhere(ledger: Ledger, kek_id: str) -> None:
    """The operator destroyed a retired KEK in a provider that is not attached."""
    _forget(ledger, [kek_id])


def _announce(ledger: Ledger, provider: KeyProvider) -> tuple[str, bytes]:
    kek_id, kek = new_kek()
    with ledger.write() as transaction:
        transaction.sql.execute(
            "INSERT INTO kek VALUES (?, ?, 'coming', ?)", (kek_id, provider.name, transaction.now_us)
        )
    return kek_id, kek


def _make_current(transaction: Transaction, kek_id: str) -> None:
    sql, vault = transaction.sql, transaction.vault
    sql.execute("UPDATE kek SET state = 'retired' WHERE state = 'current'")
    sql.execute("UPDATE kek SET state = 'current' WHERE kek_id = ?", (kek_id,))
    vault.current = kek_id
    sql.execute("UPDATE head SET root = ?", (vault.wrap(vault.root, owner=vault.store_id, kind="root"),))


def _rewrap_some(transaction: Transaction) -> int:
    """Rewrap up to a batch of keys that are not under the current KEK; how many."""
    done = 0
    sql, vault = transaction.sql, transaction.vault
    for select, update, kind in _WRAPPED:
        rows = sql.execute(select, (vault.current, BATCH - done)).fetchall()
        sql.executemany(
            update,
            [
                (
                    vault.current,
                    vault.wrap(vault.unwrap(wrapped, owner=str(owner), kind=kind), owner=str(owner), kind=kind),
                    owner,
                )
                for owner, wrapped in rows
            ],
        )
        done += len(rows)
    return done


def _forget(ledger: Ledger, kek_ids: list[str]) -> None:
    with ledger.write() as transaction:
        transaction.sql.executemany(
            "DELETE FROM kek WHERE kek_id = ? AND state <> 'current'", ((each,) for each in kek_ids)
        )
        receipts.settle_backups(transaction)
    ledger.database.checkpoint()
