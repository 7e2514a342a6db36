"""From a closed store to templates in memory, for growing numbers of people.

`python -m tests.benchmarks store [SIZE ...]`; 1000 10000 100000 by default, 1000000 when asked for. Two-core gateways
start in the time of the last columns; "journal" opens every template by itself, which is what chunks save.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from templates_store.keys.keyring import key_file
from templates_store.memory import float_array
from templates_store.store import TemplateStore
from templates_store.template import Consent, Modality, Purpose, SubjectId, Template, TemplateFormat, TemplateId

SIZES = (1_000, 10_000, 100_000)
DIMENSION = 128
FORM = TemplateFormat("yunet+sface/1", DIMENSION)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
JOURNAL_LIMIT = 10_000  # beyond it the journal is not timed: it only ever holds what is not packed yet
REPEATS = 3


def people(first: int, count: int, rng: np.random.Generator) -> Iterator[tuple[Consent, Sequence[Template]]]:
    vectors = rng.normal(size=(count, DIMENSION)).astype("<f4")
    for i in range(count):
        agreed = Consent(
            SubjectId(f"subject-{first + i}"),
            Modality.FACE,
            Purpose.ATTENDANCE,
            "2026-1",
            NOW,
            NOW + timedelta(days=365),
            "ab" * 32,
        )
        name = TemplateId(f"template-{first + i}")
        yield (
            agreed,
            [Template(name, agreed.subject_id, agreed.modality, agreed.purpose, FORM, vectors[i].tobytes())],
        )


def opened(folder: Path) -> TemplateStore:
    return TemplateStore.open(
        folder / "templates.db",
        tenant="bench",
        keys=key_file(folder / "kek"),
        anchor=folder / "anchor",
        now=lambda: NOW,
    )


def start(folder: Path, size: int) -> tuple[float, float]:
    """Seconds to open and verify the store; seconds until every vector lies in one matrix ready to search."""
    began = time.perf_counter()
    with opened(folder) as store:
        ready = time.perf_counter()
        matrix, filled = float_array((size, DIMENSION)), 0
        for chunk in store.load(Modality.FACE, Purpose.ATTENDANCE, FORM.pipeline):
            assert chunk.vectors is not None
            matrix[filled : filled + len(chunk)] = chunk.vectors
            filled += len(chunk)
        done = time.perf_counter()
    if filled != size:
        raise RuntimeError(f"{filled} of {size} templates came back")
    return ready - began, done - began


def timed(call: object) -> float:
    began = time.perf_counter()
    assert callable(call)
    call()
    return time.perf_counter() - began


def main(argv: list[str]) -> None:
    sizes = [int(each) for each in argv] or list(SIZES)
    rng = np.random.default_rng(1)
    columns = ("people", "enrol/s", "journal s", "pack s", "open s", "searchable s", "rotate s")
    print("".join(f"{column:>13}" for column in columns))
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            with opened(folder) as store:
                store.set_modality(Modality.FACE, enabled=True, actor="bench")
                began = time.perf_counter()
                for first in range(0, size, 10_000):
                    store.enrol_many(people(first, min(10_000, size - first), rng))
                enrolled = size / (time.perf_counter() - began)
            journal = start(folder, size)[1] if size <= JOURNAL_LIMIT else float("nan")
            with opened(folder) as store:
                packed = timed(lambda: store.pack(minimum=1))
            starts = [start(folder, size) for _ in range(REPEATS)]
            with opened(folder) as store:
                rotated = timed(store.rotate)
        ready, searchable = (statistics.median(each) for each in zip(*starts, strict=True))
        figures = (f"{size:,}", f"{enrolled:,.0f}", f"{journal:.3f}", f"{packed:.2f}", f"{ready:.3f}")
        print("".join(f"{figure:>13}" for figure in (*figures, f"{searchable:.3f}", f"{rotated:.2f}")), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
