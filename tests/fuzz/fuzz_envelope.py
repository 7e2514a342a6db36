"""Sealed bytes, wrapped keys, anchors and backups' plaintext chunks from anybody: one error or none."""

from __future__ import annotations

import contextlib

from templates_store.anchor import Mark
from templates_store.chunks import decode
from templates_store.envelope import kek_id_of, open_sealed, unwrap
from templates_store.errors import RolledBack, SealBroken
from templates_store.memory import Buffer

KEY = bytes(32)


def one_input(data: bytes) -> None:
    for call in (
        lambda: open_sealed(KEY, data, bound_to=b"here"),
        lambda: unwrap(KEY, data, tenant="t", owner="o"),
        lambda: kek_id_of(data),
    ):
        with contextlib.suppress(SealBroken):
            call()
    with contextlib.suppress(RolledBack):
        Mark.read(data[:4096])
    if data:
        buffer = Buffer(len(data) - 1)
        buffer.view()[:] = data[1:]
        with contextlib.suppress(SealBroken):
            decode(buffer, dimension=data[0] % 4, members=int.from_bytes(data[1:5], "little"))
