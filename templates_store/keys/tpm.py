"""KEKs in a TPM 2.0, through tpm2-tools.

Each KEK is an NV index that the owner writes and that only a policy over PCR 7 (secure boot state) reads. An index
rather than a sealed object in a file: undefining it leaves nothing anywhere, so a copy of this disk and this very TPM
together do not bring an old KEK back. Secrets pass through stdin and stdout alone, never through an argument or a file.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from templates_store.envelope import KEK_ID_LEN, KEY_LEN
from templates_store.errors import KeyUnavailable
from templates_store.keys.provider import check_kek

MAGIC = b"EAK1"
SLOT_LEN = len(MAGIC) + KEK_ID_LEN + KEY_LEN
FIRST_INDEX = 0x0184EA00  # in the owner's range 0x01800000 to 0x01BFFFFF (TCG registry of reserved handles)
SLOTS = 16
TIMEOUT_S = 30.0
PCR = "sha256:7"
_TOOLS = ("tpm2_getcap", "tpm2_nvdefine", "tpm2_nvwrite", "tpm2_nvread", "tpm2_nvundefine", "tpm2_createpolicy")


class Tpm:
    """`tcti` as tpm2-tools takes it, e.g. "device:/dev/tpmrm0"."""

    def __init__(self, *, tcti: str = "device:/dev/tpmrm0", pcr: str = PCR, timeout_s: float = TIMEOUT_S) -> None:
        self._environment = {**os.environ, "TPM2TOOLS_TCTI": tcti, "LC_ALL": "C", "TSS2_LOG": "all+none"}
        self._pcr = pcr
        self._timeout_s = timeout_s
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return "tpm2"

    @property
    def warning(self) -> str:
        return ""

    def keys(self) -> Mapping[str, bytes]:
        with self._lock:
            return {kek_id: key for kek_id, key in self._slots().values() if kek_id}

    def create(self, kek_id: str, key: bytes) -> None:
        check_kek(kek_id, key)
        with self._lock:
            taken = self._defined()
            free = [index for index in range(FIRST_INDEX, FIRST_INDEX + SLOTS) if index not in taken]
            if not free:
                raise KeyUnavailable("the TPM has no room for another key: finish the pending rotations first")
            index = f"0x{free[0]:08x}"
            with tempfile.TemporaryDirectory() as folder:  # a policy digest, no secret
                policy = Path(folder) / "policy"
                self._run(["tpm2_createpolicy", "--policy-pcr", "-l", self._pcr, "-L", str(policy)])
                attributes = "ownerwrite|policyread|no_da"
                self._run(["tpm2_nvdefine", index, "-C", "o", "-s", str(SLOT_LEN), "-a", attributes, "-L", str(policy)])
            self._run(["tpm2_nvwrite", index, "-C", "o", "-i", "-"], give=MAGIC + bytes.fromhex(kek_id) + key)

    def destroy(self, kek_id: str) -> None:
        with self._lock:
            for index, (found, _) in self._slots().items():
                if found in {kek_id, ""}:  # "": defined, then interrupted before it was written
                    self._run(["tpm2_nvundefine", f"0x{index:08x}", "-C", "o"])

    def _slots(self) -> dict[int, tuple[str, bytes]]:
        """Index -> (kek id, key); an empty id for an index that was never written."""
        out = {}
        for index in self._defined():
            data = self._run(
                ["tpm2_nvread", f"0x{index:08x}", "-P", f"pcr:{self._pcr}", "-s", str(SLOT_LEN)], unwritten=True
            )
            if not data:
                out[index] = ("", b"")
                continue
            try:
                magic, kek, key = struct.unpack(f"{len(MAGIC)}s{KEK_ID_LEN}s{KEY_LEN}s", data)
            except struct.error as exc:
                raise KeyUnavailable(f"NV index 0x{index:08x} of the TPM holds something else") from exc
            if magic == MAGIC:
                out[index] = (kek.hex(), key)
        return out

    def _defined(self) -> list[int]:
        listed = self._run(["tpm2_getcap", "handles-nv-index"]).decode("ascii", "replace")
        handles = [int(word, 16) for word in listed.split() if word.lower().startswith("0x")]
        return [handle for handle in handles if FIRST_INDEX <= handle < FIRST_INDEX + SLOTS]

    def _run(self, command: Sequence[str], *, give: bytes = b"", unwritten: bool = False) -> bytes:
        done = self._call(command, give)
        if done.returncode and "0x903" in done.stderr.decode("utf-8", "replace"):
            # TPM_RC_SESSION_MEMORY: without a resource manager nobody ends the sessions that the tools leave behind.
            self._call(["tpm2_flushcontext", "--loaded-session"], b"")
            done = self._call(command, give)
        if done.returncode == 0:
            return done.stdout
        said = done.stderr.decode("utf-8", "replace").lower()
        if unwritten and ("0x14a" in said or "not been written" in said):  # TPM_RC_NV_UNINITIALIZED
            return b""
        if "0x99d" in said or "policy check failed" in said:  # TPM_RC_POLICY_FAIL
            raise KeyUnavailable(
                f"the TPM refuses its key: the boot state ({self._pcr}) is not the one the key was made under. "
                "Boot as before, or begin a new store and enrol again"
            )
        raise KeyUnavailable(f"{command[0]} failed: is the TPM enabled and may this user open it?")

    def _call(self, command: Sequence[str], give: bytes) -> subprocess.CompletedProcess[bytes]:
        tool = shutil.which(command[0])
        if tool is None:
            raise KeyUnavailable(f"{command[0]} is not installed: apt install tpm2-tools")
        try:
            return subprocess.run(  # noqa: S603 - fixed tools, arguments of ours
                [tool, *command[1:]],
                input=give,
                capture_output=True,
                env=self._environment,
                timeout=self._timeout_s,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise KeyUnavailable(f"the TPM does not answer ({command[0]})") from exc


def available() -> str:
    """What is missing for this provider; empty if nothing."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"{', '.join(missing)} not installed (apt install tpm2-tools)" if missing else ""
