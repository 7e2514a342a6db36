"""Finds and runs the long measurements: files PREFIX_name.py with `main(argv)`."""

from __future__ import annotations

import importlib
from pathlib import Path


def modules(folder: Path, prefix: str) -> dict[str, str]:
    """Short name -> importable module name."""
    return {
        path.stem.removeprefix(prefix): f"tests.{folder.name}.{path.stem}"
        for path in sorted(folder.glob(f"{prefix}*.py"))
    }


def run_all(folder: Path, prefix: str, argv: list[str]) -> int:
    """Run those named in `argv` (all if none); words after the first `--option` go to each. Exit status."""
    split = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
    names, options = argv[:split], argv[split:]
    known = modules(folder, prefix)
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are: {', '.join(known)}")
        return 2
    failed = []
    for name in names or known:
        print(f"\n== {name} ==", flush=True)
        try:
            importlib.import_module(known[name]).main(options)
        except SystemExit as exc:
            if exc.code:
                print(f"{name}: {exc.code}")
                failed.append(name)
    if failed:
        print(f"\nmissed: {', '.join(failed)}")
    return int(bool(failed))
