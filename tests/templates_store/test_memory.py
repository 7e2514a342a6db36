"""What the process keeps to itself: no core, no swap, no printing; and a canary that is nowhere on the disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from templates_store.memory import Buffer, float_array
from templates_store.store import TemplateStore
from templates_store.template import Modality, Purpose, SubjectId
from tests.canary import found_in, hits, spellings
from tests.templates_store.site import FACE, Site, consent, enrol, switch_on, template, vector

CANARY = np.arange(0.5, 16.5, dtype="<f4").tobytes()[:32]


def flags_of(address: int) -> set[str]:
    """The kernel's flags of the mapping that holds an address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if "-" in head and not head.endswith(":"):
            low, high = (int(each, 16) for each in head.split("-"))
            inside = low <= address < high
        elif inside and head == "VmFlags:":
            return set(line.split()[1:])
    raise AssertionError("no such mapping")


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_gallery_memory_is_left_out_of_core_dumps_and_locked_where_allowed() -> None:
    buffer = Buffer(8192)
    array = buffer.array((2048,))
    flags = flags_of(array.ctypes.data)
    assert {"dd", "dc"} <= flags
    assert ("lo" in flags) == buffer.locked
    assert bool(buffer.shortfall) != buffer.locked
    array[:] = 7
    buffer.wipe()
    assert not array.any()


def test_an_array_keeps_its_memory_alive() -> None:
    array = float_array((3, 5))
    array[:] = 2
    assert array.shape == (3, 5)
    assert float(array.sum()) == 30


def test_a_limit_on_locked_memory_degrades_with_a_statement() -> None:
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))\n"
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None); [libc.prctl(24, capability, 0, 0, 0) for capability in (14,)]\n"  # CAP_IPC_LOCK
        "os.getuid() == 0 and os.setuid(65534)\n"
        "from templates_store.memory import Buffer\n"
        "buffer = Buffer(4096); buffer.array((4,))[:] = 1\n"
        "print(buffer.locked, buffer.shortfall)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", f"import numpy, templates_store.memory\n{program}"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.stdout.startswith("False gallery memory is not locked")


CORE = """
import os, resource, sys
sys.path.insert(0, {root!r})
from tests.templates_store.site import Site
from templates_store.memory import Buffer, harden
from pathlib import Path
import numpy as np
resource.setrlimit(resource.RLIMIT_CORE, (-1, -1)) if {unlimited} else None
{harden}
os.chdir({folder!r})
buffer = Buffer(4096)
array = buffer.array((8,))
for i in range(8):  # one by one: an array made first would lie in ordinary memory as well
    array[i] = i + 0.5
marker = b"marker-" + b"of-this-core"
os.abort()
"""


def died(tmp_path: Path, *, harden: bool) -> list[Path]:
    """A child puts the canary into a buffer and aborts; the core it left, if any."""
    root = str(Path(__file__).resolve().parents[2])
    call = "result = harden(); assert result.no_core and result.undumpable, result" if harden else ""
    program = CORE.format(root=root, folder=str(tmp_path), harden=call, unlimited=not harden)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == -signal.SIGABRT, done.stderr
    return [path for path in tmp_path.iterdir() if path.name.startswith("core")]


def test_a_hardened_process_leaves_no_core(tmp_path: Path) -> None:
    assert died(tmp_path, harden=True) == []


def test_a_core_dump_does_not_hold_what_was_in_a_buffer(tmp_path: Path) -> None:
    cores = died(tmp_path, harden=False)
    if not cores:
        pytest.skip("this machine writes core dumps elsewhere, or none")
    assert hits(b"marker-of-this-core", tmp_path) == cores
    assert hits(CANARY, tmp_path) == []


def test_the_canary_scanner_finds_every_spelling(tmp_path: Path) -> None:
    for i, spelt in enumerate(spellings(CANARY)):
        (tmp_path / str(i)).write_bytes(b"xy" + spelt + b"z")
    (tmp_path / "empty").touch()
    (tmp_path / "clean").write_bytes(bytes(1000))
    assert len(hits(CANARY, tmp_path)) == len(spellings(CANARY))
    assert not found_in(b"nothing here", CANARY)
    with pytest.raises(ValueError, match="12 bytes"):
        spellings(b"short")


def test_a_template_is_nowhere_on_the_disk_at_any_time(
    site: Site, store: TemplateStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    anna = SubjectId("anna")

    def check() -> None:
        assert hits(CANARY, site.folder) == []
        assert hits(vector(1)[:32], site.folder) == []

    store.enrol(consent("anna"), [template("anna", payload=CANARY)])
    check()
    store.pack(minimum=1)
    check()
    assert store.templates_of(anna, purpose=Purpose.ATTENDANCE)[0].payload == CANARY
    store.rotate()
    store.backup(site.folder / "night.backup")
    check()
    with pytest.raises(Exception, match="exists") as refused:
        store.enrol(consent("anna"), [template("anna", payload=CANARY)])
    assert CANARY.hex() not in repr(refused.value)
    for chunk in store.load(Modality.FACE, Purpose.ATTENDANCE, FACE.pipeline):
        assert chunk.vectors is not None
        assert chunk.vectors.tobytes() == CANARY
    store.erase(anna, reason="x", actor="y")
    check()
    store.close()
    check()
    assert not found_in(caplog.text.encode(), CANARY)


def test_all_that_is_left_of_an_erased_subject_is_that_it_was_erased(site: Site) -> None:
    with site.open() as store:
        switch_on(store)
        enrol(store, "anna")
        assert hits(b"anna/face/attendance/0", site.folder)
        store.erase(SubjectId("anna"), reason="x", actor="y")
        assert hits(b"anna/face/attendance/0", site.folder) == []
