"""`make fuzz`: coverage-guided fuzzing of every codec, one process each; ARGS="name ... --seconds 60"."""

from __future__ import annotations

import argparse
import importlib
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.discovery import modules

FOLDER = Path(__file__).parent
MAX_RSS_MB = 300  # the stated ceiling for any codec under any input


def fuzz(module: str, seconds: int) -> None:
    import atheris  # present only for this target

    with atheris.instrument_imports(include=["device_drivers", "edge_agent", "templates_store"]):
        loaded = importlib.import_module(module)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(getattr(loaded, "SEEDS", ())):  # what random bytes would hardly come to be
            (Path(corpus) / str(number)).write_bytes(seed)
        options = [f"-max_total_time={seconds}", f"-rss_limit_mb={MAX_RSS_MB * 2}", "-max_len=65536"]
        atheris.Setup([sys.argv[0], *options, corpus], loaded.one_input)
        atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seconds", type=int, default=60, help="for each codec")
    parser.add_argument("--in-process", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process:
        fuzz(options.in_process, options.seconds)
        return 0
    known = modules(FOLDER, "fuzz_")
    failed = []
    for name in options.names or known:
        print(f"\n== {name}: {options.seconds} s ==", flush=True)
        command = [
            sys.executable, "-m", "tests.fuzz", "--in-process", known[name], "--seconds", str(options.seconds),
        ]  # fmt: skip
        status = subprocess.run(command, check=False).returncode
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
        print(f"{name}: exit {status}, peak RSS of any codec so far {peak} MB")
        if status:
            failed.append(name)
    print(f"\n{len(options.names or known) - len(failed)} clean, {len(failed)} with findings {failed or ''}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
