"""The keys that seal templates, the archive that holds both databases, the thresholds measured on this site."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field, SecretStr

from edge_agent.api.access import Caller, require
from edge_agent.api.context import Context, Gateway, Running
from edge_agent.api.idempotency import Once
from edge_agent.api.problems import Body, Problem, responses
from edge_agent.api.two_people import HELD, Act, Nothing
from edge_agent.audit import Entry
from edge_agent.matching.calibration import Calibration
from edge_agent.policy.roles import Scope
from edge_agent.policy.two_people import ActKind
from templates_store.errors import KeyUnavailable, RolledBack, Sealed, StoreError

router = APIRouter(prefix="/api/v1", tags=["keys"])
Reader = Annotated[Caller, Depends(require(Scope.STATUS_READ))]
Keeper = Annotated[Caller, Depends(require(Scope.KEYS_WRITE))]
Archivist = Annotated[Caller, Depends(require(Scope.BACKUP))]
RATES_SHOWN = (1e-3, 1e-4, 1e-5, 1e-6)


class Unsealing(Body):
    passphrase: SecretStr = Field(max_length=1024, examples=["the keeper's long passphrase"])


class KeyView(BaseModel):
    sealed: bool
    kek: str = Field("", description="the key-encryption key in force; its name, never the key")


class KeysView(KeyView):
    provider: str = Field(examples=["systemd"])
    reason: str = Field(description="why the templates are sealed")
    warning: str


class BackupView(BaseModel):
    path: str
    size_bytes: int
    made_at: datetime


class CurveView(BaseModel):
    """Which score strangers reach how rarely, as it is in force."""

    pipeline: str
    comparisons: int
    measured_on: str
    thresholds: dict[str, float] = Field(description="false match rate of one comparison -> score")


@router.get("/keys")
async def read_keys(caller: Reader, running: Running) -> KeysView:
    """Where the keys come from and whether they open the templates."""
    biometrics = running.biometrics
    return KeysView(
        sealed=biometrics.sealed,
        kek="" if biometrics.sealed else await asyncio.to_thread(biometrics.kek),
        provider=biometrics.provider,
        reason=biometrics.store.seal_reason if biometrics.sealed else "",
        warning=biometrics.warning,
    )


@router.post("/keys/unseal", responses=responses(403, 409, 422))
async def unseal(body: Unsealing, caller: Keeper, context: Context, running: Running) -> KeyView:
    """Give the keeper's passphrase to a sealed store. It is not kept and leaves this machine never."""
    try:
        await running.biometrics.unseal(body.passphrase.get_secret_value())
    except (KeyUnavailable, RolledBack) as exc:
        await context.note(Entry(actor=caller.name, action="keys.unseal", outcome="refused"))
        raise Problem(409, str(exc), code="key") from None
    await context.note(Entry(actor=caller.name, action="keys.unseal"))
    return KeyView(sealed=running.biometrics.sealed)


async def _rotate(running: Gateway, asked: Nothing, actor: str) -> KeyView:
    try:
        kek = await asyncio.to_thread(running.biometrics.store.rotate)
    except Sealed:
        raise _sealed() from None
    await running.governance.note(Entry(actor=actor, action="keys.rotate", object=kek))
    return KeyView(sealed=False, kek=kek)


ROTATE = Act("keys.rotate", Scope.KEYS_WRITE, Nothing, KeyView, _rotate)


@router.post("/keys/rotate", responses=HELD | responses(409, 422, 503))
async def rotate(caller: Keeper, running: Running, once: Once) -> KeyView:
    """A new key-encryption key; the old one is destroyed. Matching goes on meanwhile."""
    return await ROTATE.ask(running, Nothing(), caller, ActKind.KEY_ROTATION, once)


@router.get("/backup", responses=responses(404))
async def read_backup(caller: Archivist, running: Running) -> BackupView:
    """The standing archive."""
    path = running.data_dir / "backup" / "gateway.backup"
    try:
        found = path.stat()
    except FileNotFoundError:
        raise Problem(404, "no backup was made yet", code="unknown") from None
    return BackupView(path=str(path), size_bytes=found.st_size, made_at=datetime.fromtimestamp(found.st_mtime, UTC))


@router.post("/backup", status_code=201, responses=responses(409, 422, 503))
async def make_backup(caller: Archivist, context: Context, running: Running, once: Once) -> BackupView:
    """An encrypted, verified archive of both databases, made while everything runs."""

    async def work() -> BackupView:
        try:
            path = await running.make_backup()
        except Sealed:
            raise _sealed() from None
        except StoreError as exc:
            raise Problem(503, str(exc), code="backup") from None
        await context.note(Entry(actor=caller.name, action="backup.make", object=path.name))
        return await read_backup(caller, running)

    return await once.answer(BackupView, work)


@router.get("/calibration")
async def read_calibration(caller: Reader, running: Running) -> list[CurveView]:
    """The curves in force, shipped or sharpened by this site."""
    return [_curve(found) for found in await asyncio.to_thread(running.biometrics.curves)]


@router.post("/calibration", responses=responses(503))
async def calibrate(caller: Keeper, context: Context, running: Running) -> list[CurveView]:
    """Measure how alike this site's own people are: thresholds rise where they are more alike, and never fall."""
    try:
        measured = await asyncio.to_thread(running.biometrics.calibrate)
    except Sealed:
        raise _sealed() from None
    pipelines = sorted(found.pipeline for found in measured)
    await context.note(Entry(actor=caller.name, action="calibration.measure", details={"pipelines": pipelines}))
    return await read_calibration(caller, running)


def _curve(found: Calibration) -> CurveView:
    return CurveView(
        pipeline=found.pipeline,
        comparisons=found.comparisons,
        measured_on=found.measured_on,
        thresholds={f"{rate:g}": round(found.threshold(rate), 4) for rate in RATES_SHOWN},
    )


def _sealed() -> Problem:
    return Problem(503, "the template store is sealed; unseal it first", code="sealed")
