"""Kill a process at every write point of an operation and look at what it left. Run as a program by `test_kill.py`.

A write point is just before and after each statement that writes, each fsync, each rename and each unlink. For each of
them a child process gets a copy of the same site, does the operation and sends itself SIGKILL there; the parent then
opens the site as after a power cut.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from templates_store import rotation
from templates_store.errors import KeyUnavailable
from templates_store.sqlite import SCHEMA, connect
from templates_store.store import TemplateStore
from templates_store.template import Modality, Purpose, SubjectId
from tests.templates_store.site import Site, enrol, gallery, switch_on

ANNA = SubjectId("anna")
WRITES = ("INSERT", "UPDATE", "DELETE", "COMMIT", "CREATE", "ALTER", "DROP", "PRAGMA wal_checkpoint")


class Countdown:
    """SIGKILL at the n-th write point."""

    def __init__(self, points: int) -> None:
        self.left = points

    def point(self) -> None:
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*values: Any, **named: Any) -> Any:
            self.point()
            result = call(*values, **named)
            self.point()
            return result

        return counted

    def connect(self, path: Path) -> sqlite3.Connection:
        countdown = self

        class Counting(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                counts = sql.lstrip().startswith(WRITES)
                if counts:
                    countdown.point()
                cursor = super().execute(sql, *values)
                if counts:
                    countdown.point()
                return cursor

            def executemany(self, sql: str, *values: Any) -> sqlite3.Cursor:
                countdown.point()
                cursor = super().executemany(sql, *values)
                countdown.point()
                return cursor

        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Counting)

    def arm(self) -> None:
        """File writes of this process count from now on."""
        os.fsync = self.around(os.fsync)
        Path.replace = self.around(Path.replace)  # type: ignore[method-assign]
        Path.unlink = self.around(Path.unlink)  # type: ignore[method-assign]


def people(site: Site) -> None:
    with site.open() as store:
        switch_on(store)
        for name in ("anna", "ben"):
            enrol(store, name, 2)
            enrol(store, name, purpose=Purpose.ACCESS)
        store.pack(minimum=1)
        enrol(store, "carl")
        store.add_placement(ANNA, Modality.FACE, Purpose.ATTENDANCE, device_serial="ZK1")


def old_schema(site: Site) -> None:
    schema = site.folder / "schema"
    schema.mkdir(parents=True)
    first = min(SCHEMA.glob("*.sql"))
    shutil.copy(first, schema)
    with TemplateStore.open(
        site.path, tenant=site.tenant, keys=site.keys(), anchor=site.anchor, now=site.clock, schema=schema
    ) as store:
        switch_on(store)
        for name in ("anna", "ben", "carl"):
            enrol(store, name, 2)


def nothing(site: Site) -> None:
    site.folder.mkdir(exist_ok=True)


def names(store: TemplateStore) -> dict[str, int]:
    out: dict[str, int] = {}
    for purpose in Purpose:
        for template_id in gallery(store, purpose=purpose):
            name = template_id.split("/")[0]
            out[name] = out.get(name, 0) + 1
    return out


FULL = {"anna": 3, "ben": 3, "carl": 1}


def check_enrol(store: TemplateStore) -> None:
    assert names(store) in (FULL, {**FULL, "dora": 2}), names(store)


def check_erase(store: TemplateStore) -> None:
    left = {name: count for name, count in FULL.items() if name != "anna"}
    receipts = store.receipts(ANNA)
    assert names(store) == (left if receipts else FULL)
    assert len(store.pending_erasures()) == len(receipts)
    assert store.finish_erasures()
    for receipt in receipts:
        assert store.receipt(receipt.receipt_id).verify(store.public_key)
        assert {each.outcome for each in store.receipt(receipt.receipt_id).locations if "templates" in each.name} == {
            "gone"
        }


def check_withdraw(store: TemplateStore) -> None:
    assert names(store) == ({**FULL, "anna": 1} if store.receipts(ANNA) else FULL)


def check_same(store: TemplateStore) -> None:
    assert names(store) == FULL


def check_migrated(store: TemplateStore) -> None:
    assert names(store) == {"anna": 2, "ben": 2, "carl": 2}


def check_empty(store: TemplateStore) -> None:
    assert names(store) == {}


OPERATIONS: dict[
    str, tuple[Callable[[Site], None], Callable[[TemplateStore], object], Callable[[TemplateStore], None]]
] = {
    "enrol": (people, lambda store: enrol(store, "dora", 2), check_enrol),
    "erase": (people, lambda store: store.erase(ANNA, reason="left", actor="hr"), check_erase),
    "withdraw": (
        people,
        lambda store: store.withdraw(ANNA, purpose=Purpose.ATTENDANCE, reason="x", actor="y"),
        check_withdraw,
    ),
    "pack": (people, lambda store: store.pack(minimum=1), check_same),
    "rotate": (people, lambda store: store.rotate(), check_same),
    "backup": (people, lambda store: store.backup(store.database.path.with_name("b")), check_same),
    "migrate": (old_schema, lambda store: None, check_migrated),
    "first start": (nothing, lambda store: None, check_empty),
}


def killed(site: Site, operation: Callable[[TemplateStore], object], points: int, *, opening: bool) -> bool:
    """Whether the child was killed, or came to its end before."""
    child = os.fork()
    if child == 0:
        try:
            countdown = Countdown(points)
            if opening:
                countdown.arm()
                operation(site.open(connect=countdown.connect))
            else:
                countdown.left = 1 << 60
                store = site.open(connect=countdown.connect)
                countdown.left = points
                countdown.arm()
                operation(store)
        except BaseException as exc:  # noqa: BLE001 - a child ends here, whatever it was
            print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    if status != 0:
        raise RuntimeError("the operation failed by itself")
    return False


def try_point(base: Site, name: str, point: int, folder: Path) -> bool:
    """Kill there, reopen, check; False once the operation runs to its end."""
    _, operation, check = OPERATIONS[name]
    site = Site(folder)
    shutil.copytree(base.folder, folder)
    opening = name in {"migrate", "first start"}
    more = killed(site, operation, point, opening=opening)
    with site.open(connect=connect) as store:
        if store.sealed:
            raise KeyUnavailable(store.seal_reason)
        report = store.check_integrity()
        assert report.ok, report.faults
        check(store)
        keks = store.database.writer.execute("SELECT kek_id FROM kek").fetchall()
        assert [kek_id for (kek_id,) in keks] == list(site.keys().keys())
        switch_on(store)
        enrol(store, "after")
    shutil.rmtree(folder)
    return more


def kill_all(name: str, *, step: int, offset: int) -> int:
    """Every `step`-th write point from `offset` on; how many kills there were."""
    rotation.BATCH = 2
    with tempfile.TemporaryDirectory() as folder:
        base = Site(Path(folder) / "base")
        OPERATIONS[name][0](base)
        kills = 0
        while try_point(base, name, offset + kills * step, Path(folder) / "copy"):
            kills += 1
    return kills


def main(argv: list[str]) -> None:
    """Operations as name:step:offset; prints the number of kills by operation as JSON."""
    done = {}
    for each in argv or [f"{name}:1:0" for name in OPERATIONS]:
        name, step, offset = each.split(":")
        done[name] = kill_all(name, step=int(step), offset=int(offset))
    print(json.dumps(done))


if __name__ == "__main__":
    main(sys.argv[1:])
