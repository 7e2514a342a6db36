"""Guided enrolment: consent, samples with reasons, finish. Photographs are looked at in memory and never stored."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, File, UploadFile
from pydantic import AwareDatetime, BaseModel, Field

from device_drivers.errors import DeviceError
from edge_agent.api.access import Caller, require
from edge_agent.api.context import Context, Running
from edge_agent.api.problems import Body, Problem, responses
from edge_agent.enrolment import EnrolmentFault, EnrolmentRefused, Step
from edge_agent.matching.advice import advice
from edge_agent.matching.images import BadImage
from edge_agent.matching.outcomes import Check, CheckName
from edge_agent.policy.consent import Act, ConsentRefused, LegalBasis
from edge_agent.policy.roles import Scope
from templates_store.errors import Sealed, StoreError
from templates_store.template import Modality, Purpose, SubjectId

router = APIRouter(prefix="/api/v1/enrolments", tags=["enrolments"])
Enroller = Annotated[Caller, Depends(require(Scope.ENROL))]
MAX_PHOTO = 8 * 1024 * 1024


class Said(Body):
    """A person's yes for one purpose, as it was recorded."""

    purpose: Purpose = Field(examples=["attendance"])
    notice_version: str = Field(max_length=64, examples=["3"])
    given_at: AwareDatetime = Field(examples=["2026-11-23T08:00:00+08:00"])
    evidence_sha256: str = Field(max_length=64, examples=["9f3c" + "0" * 60])
    expires_at: AwareDatetime | None = None


class Consenting(Body):
    """What a person (or their guardian) said yes to."""

    modality: Modality
    consents: list[Said] = Field(min_length=1, max_length=2)
    born: date | None = None
    of_age: bool = Field(False, description="stated instead of a date of birth")
    guardian_evidence_sha256: str = Field("", max_length=64)
    basis: LegalBasis = LegalBasis.CONSENT
    basis_reference: str = Field("", max_length=200)

    def acts(self, subject: SubjectId, *, recorded_by: str) -> list[Act]:
        return [
            Act(
                subject,
                self.modality,
                said.purpose,
                said.notice_version,
                said.given_at,
                said.evidence_sha256,
                expires_at=said.expires_at,
                born=self.born,
                of_age=self.of_age,
                guardian_evidence_sha256=self.guardian_evidence_sha256,
                basis=self.basis,
                basis_reference=self.basis_reference,
                recorded_by=recorded_by,
            )
            for said in self.consents
        ]


class NewEnrolment(Consenting):
    subject: str = Field(max_length=64, examples=["p1001"])
    position: int = Field(0, ge=0, le=10, description="finger 1 to 10; 0 for a face")
    samples: int | None = Field(None, ge=1, le=10)


class CheckView(BaseModel):
    """One figure of the newest sample beside its limits."""

    check: CheckName = Field(examples=["sharpness"])
    value: float
    low: float | None = None
    high: float | None = None
    ok: bool


class StepView(BaseModel):
    enrolment: str
    accepted: bool
    have: int
    need: int
    ready: bool
    lift: bool = Field(False, description="the finger has to leave the sensor before the next sample")
    fault: str = Field("", examples=["too_dark"])
    advice_zh: str = ""
    advice_en: str = ""
    measured: float | None = None
    required: float | None = None
    checks: list[CheckView] = Field([], description="all that was measured on the newest sample; figures alone")


class FromDevice(Body):
    device: str = Field(max_length=64, examples=["desk-camera"])


class Finished(BaseModel):
    subject: str
    modality: Modality
    purposes: list[Purpose]


STATUS = {
    EnrolmentFault.NOT_FOUND: 404,
    EnrolmentFault.UNKNOWN: 404,
    EnrolmentFault.TOO_MANY: 429,
    EnrolmentFault.SEALED: 503,
}


def told(figure: float | None) -> float | None:
    """In hundredths: a finer score would let a maker of pictures climb towards the samples taken before."""
    return None if figure is None else round(figure, 2)


def check_view(check: Check) -> CheckView:
    return CheckView(
        check=check.name, value=round(check.value, 2), low=told(check.low), high=told(check.high), ok=check.ok
    )


def step_view(step: Step) -> StepView:
    words = advice(step.refused.fault) if step.refused else None
    return StepView(
        enrolment=step.enrolment_id,
        accepted=step.accepted,
        have=step.have,
        need=step.need,
        ready=step.ready,
        lift=step.lift,
        fault=step.refused.fault.value if step.refused else "",
        advice_zh=words.zh if words else "",
        advice_en=words.en if words else "",
        measured=told(step.refused.measured) if step.refused else None,
        required=told(step.refused.required) if step.refused else None,
        checks=[check_view(check) for check in step.checks],
    )


def problem_of(exc: Exception) -> Problem:
    if isinstance(exc, ConsentRefused):
        return Problem(409, str(exc), code=exc.fault.value)
    if isinstance(exc, EnrolmentRefused):
        return Problem(STATUS.get(exc.fault, 409), str(exc), code=exc.fault.value)
    if isinstance(exc, BadImage):
        return Problem(422, str(exc), code="bad_image")
    if isinstance(exc, DeviceError):
        return Problem(502, str(exc), code="device")
    if isinstance(exc, Sealed):
        return Problem(503, "the template store is sealed; unseal it first", code="sealed")
    if isinstance(exc, StoreError):
        return Problem(409, str(exc), code="store")
    return Problem(422, str(exc), code="invalid")


@router.post("", status_code=201, responses=responses(404, 409, 422, 503))
async def start_enrolment(body: NewEnrolment, caller: Enroller, context: Context, running: Running) -> StepView:
    """Begin with the person's consent; without a valid one nothing begins."""
    if await context.database.read(lambda c: running.roster.person(c, body.subject)) is None:
        raise Problem(404, f"nobody here is {body.subject!r}", code="unknown")
    acts = body.acts(SubjectId(body.subject), recorded_by=caller.name)
    try:
        step = await running.enrolment.start(acts, actor=caller.name, position=body.position, samples=body.samples)
    except (ConsentRefused, EnrolmentRefused, ValueError) as exc:
        raise problem_of(exc) from None
    return step_view(step)


@router.get("/{enrolment}", responses=responses(404))
async def read_enrolment(enrolment: str, caller: Enroller, running: Running) -> StepView:
    """How far it is and what the newest sample came to, also while a sensor of the gateway works for it."""
    try:
        return step_view(running.enrolment.state(enrolment))
    except EnrolmentRefused as exc:
        raise problem_of(exc) from None


@router.post("/{enrolment}/photo", responses=responses(404, 409, 413, 422))
async def offer_photo(
    enrolment: str, file: Annotated[UploadFile, File()], caller: Enroller, running: Running
) -> StepView:
    """One photograph or camera frame. It is looked at in memory and gone."""
    data = await file.read(MAX_PHOTO + 1)
    if len(data) > MAX_PHOTO:
        raise Problem(413, f"file: over {MAX_PHOTO} bytes", code="too_large")
    try:
        return step_view(await running.enrolment.offer_photo(enrolment, data))
    except (ConsentRefused, EnrolmentRefused, BadImage) as exc:
        raise problem_of(exc) from None


@router.post("/{enrolment}/capture", responses=responses(404, 409, 422, 502))
async def capture(enrolment: str, body: FromDevice, caller: Enroller, running: Running) -> StepView:
    """Let a camera or a fingerprint sensor of the gateway give the samples."""
    try:
        return step_view(await running.enrolment.capture(enrolment, body.device))
    except (ConsentRefused, EnrolmentRefused, DeviceError) as exc:
        raise problem_of(exc) from None


@router.post("/{enrolment}/finish", responses=responses(404, 409, 503))
async def finish_enrolment(enrolment: str, caller: Enroller, running: Running) -> Finished:
    """Compare the samples, store what they made, under the consent."""
    try:
        consents = await running.enrolment.finish(enrolment)
    except (ConsentRefused, EnrolmentRefused, StoreError) as exc:
        raise problem_of(exc) from None
    return Finished(
        subject=consents[0].subject_id,
        modality=consents[0].modality,
        purposes=sorted(consent.purpose for consent in consents),
    )


@router.delete("/{enrolment}", status_code=204)
async def cancel_enrolment(enrolment: str, caller: Enroller, running: Running) -> None:
    """Stop; nothing was stored, and nothing says that somebody changed their mind."""
    await running.enrolment.cancel(enrolment)
