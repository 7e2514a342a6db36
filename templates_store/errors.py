"""What the store refuses, named by what the caller does next.

StoreError
├ Sealed             no key yet                  -> an operator unseals; punches go on
├ SealBroken         one error for every failed opening: wrong key, flipped bit, swapped row
├ KeyUnavailable     a key provider cannot give its key; says what to do
├ ConsentMissing     no valid consent, or the modality is switched off -> nothing was written
├ BadTemplate        shape, NaN, size, format    -> nothing was written
├ Duplicate          template id already stored  -> nothing was written
├ RolledBack         the file is older than its anchor
├ ErasuresUnknown    what was erased since an archive was made cannot be read -> a person decides
└ SchemaTooNew       written by a newer version
"""

from __future__ import annotations


class StoreError(Exception):
    """Root of the store's errors. Messages never carry template bytes or key material."""


class Sealed(StoreError):
    """The store holds no key yet."""


class SealBroken(StoreError):
    """A sealed record could not be opened; the cause is deliberately not told apart."""


class KeyUnavailable(StoreError):
    """A key provider could not produce its key; the message says what the operator can do."""


class ConsentMissing(StoreError):
    """No valid consent row, or the enterprise's switch for the modality is off."""


class BadTemplate(StoreError, ValueError):
    """A template whose shape, values, size or format is not acceptable."""


class Duplicate(StoreError):
    """That template id exists."""


class RolledBack(StoreError):
    """The database file is older than the version anchored outside it."""


class ErasuresUnknown(StoreError):
    """The file that a restore would replace cannot be read, so neither can what was erased since the backup."""


class SchemaTooNew(StoreError):
    """The database was written by a newer version of this program."""


class StoreFull(StoreError):
    """The disk has no room; nothing of this transaction was kept."""
