"""`make accuracy`: every table, or those named in ARGS; a line of `--options` goes to each of them."""

import sys
from pathlib import Path

from tests.discovery import run_all

if __name__ == "__main__":
    sys.exit(run_all(Path(__file__).parent, "acc_", sys.argv[1:]))
