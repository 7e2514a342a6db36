"""Trying the face engine on a table: enrol a folder of photographs, identify an image.

What becomes of those enrolled is the caller's: `keep` stores them, under consent, or leaves them in
memory. Nothing here writes a photograph or a vector anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from edge_agent.matching.advice import Advice, advice
from edge_agent.matching.agreement import agreed, somebody_else
from edge_agent.matching.calibration import Calibration
from edge_agent.matching.decision import Targets, Thresholds, identify
from edge_agent.matching.face import FaceEngine, FaceSample
from edge_agent.matching.images import BadImage, read_image
from edge_agent.matching.outcomes import Match, NoMatch, NoMatchReason, Outcome, Refused
from templates_store.gallery.vectors import VectorGallery
from templates_store.template import SubjectId, TemplateId

PHOTOGRAPHS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
PHOTOGRAPHS_EACH = 20  # more than this of one person teaches nothing and takes long

Keep = Callable[[SubjectId, str, NDArray[np.float32]], None]  # subject, name as the folder is called, reference


@dataclass(frozen=True, slots=True)
class Refusal:
    where: str  # Name or Name/photo.jpg
    why: Advice
    code: str


@dataclass(slots=True)
class EnrolReport:
    enrolled: list[SubjectId] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


def enrol_folder(
    folder: Path,
    *,
    engine: FaceEngine,
    gallery: VectorGallery,
    calibration: Calibration,
    console: Console,
    subject_of: Callable[[str], SubjectId] = lambda name: SubjectId(name),
    keep: Keep | None = None,
    targets: Targets | None = None,
) -> EnrolReport:
    """Enrol `folder`/Name/photo.jpg: one subject a folder, as many photographs as there are.

    Raises NotADirectoryError if `folder` is none.
    """
    if not folder.is_dir():
        raise NotADirectoryError(folder)
    _require_same_metric(engine, gallery)
    targets = targets or Targets()
    report = EnrolReport()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    people = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("Enrolling 登记中", total=len(people))
        for person in people:
            progress.update(task, description=escape(person.name[:24]))
            _enrol(person, report, engine, gallery, calibration, targets, subject_of(person.name), keep)
            progress.advance(task)
    _print(report, console)
    return report


def _enrol(
    person: Path,
    report: EnrolReport,
    engine: FaceEngine,
    gallery: VectorGallery,
    calibration: Calibration,
    targets: Targets,
    subject_id: SubjectId,
    keep: Keep | None,
) -> None:
    thresholds = Thresholds.of(calibration, targets, gallery_size=len(gallery) + 1)
    samples: list[NDArray[np.float32]] = []
    photographs = sorted(path for path in person.iterdir() if path.suffix.lower() in PHOTOGRAPHS)
    for path in photographs[:PHOTOGRAPHS_EACH]:
        sample = _reference(path, engine)
        if isinstance(sample, FaceSample):
            samples.append(sample.vector)
        else:
            report.refused.append(Refusal(f"{person.name}/{path.name}", sample[0], sample[1]))
    if not samples:
        report.refused.append(Refusal(person.name, Advice("No usable photograph", "没有可用的照片"), "no_photograph"))
        return
    reference = agreed(samples, metric=engine.metric, threshold=thresholds.verify)
    if isinstance(reference, Refused):
        report.refused.append(Refusal(person.name, advice(reference.fault), reference.fault.value))
        return
    other = somebody_else(gallery, reference, subject_id=subject_id, threshold=thresholds.identify)
    if other is not None:
        why = Advice(f"Already enrolled as {other.subject_id}", f"已登记为 {other.subject_id}")
        report.refused.append(Refusal(person.name, why, "already_enrolled"))
        return
    gallery.remove(subject_id)  # a folder enrolled again replaces what it said before
    gallery.add(subject_id, TemplateId(f"{subject_id}/face"), reference)
    if keep is not None:
        keep(subject_id, person.name, reference)
    report.enrolled.append(subject_id)


def _reference(path: Path, engine: FaceEngine) -> FaceSample | tuple[Advice, str]:
    try:
        sample = engine.reference(read_image(path))
    except BadImage as exc:
        return advice(exc.fault), exc.fault.value
    except OSError:
        return Advice("The file cannot be read", "无法读取文件"), "unreadable"
    return sample if isinstance(sample, FaceSample) else (advice(sample.fault), sample.fault.value)


def identify_image(
    path: Path,
    *,
    engine: FaceEngine,
    gallery: VectorGallery,
    calibration: Calibration,
    console: Console,
    names: Mapping[SubjectId, str] | None = None,
    targets: Targets | None = None,
) -> Outcome:
    """Who is on the photograph? Says so on the console and returns the decision.

    Raises BadImage, or OSError if the file cannot be read.
    """
    _require_same_metric(engine, gallery)
    sample = engine.sample(read_image(path))
    if isinstance(sample, Refused):
        outcome: Outcome = NoMatch(NoMatchReason.SAMPLE, fault=sample.fault)
        _print_refused(sample, console)
        return outcome
    size = len(gallery)
    thresholds = Thresholds.of(calibration, targets or Targets(), gallery_size=size)
    candidates = gallery.search(sample.vector, k=2)
    outcome = identify(candidates, gallery_size=size, thresholds=thresholds, pad=sample.pad.state)
    if isinstance(outcome, Match):
        name = (names or {}).get(outcome.subject_id, outcome.subject_id)
        console.print(f"[bold green]{escape(name)}[/]  score 得分 {outcome.score:.3f}")
    else:
        words = advice(outcome.reason)
        console.print(f"[yellow]{words.en}[/]  {words.zh}")
        if outcome.best_score is not None:
            console.print(f"best score 最高得分 {outcome.best_score:.3f}")
    console.print(f"threshold 阈值 {thresholds.identify:.3f}, {size} templates 个模板")
    return outcome


def _require_same_metric(engine: FaceEngine, gallery: VectorGallery) -> None:
    """A threshold of one metric on scores of another would accept anybody."""
    if gallery.metric is not engine.metric or gallery.dimension != engine.format.dimension:
        raise ValueError(
            f"{engine.format.pipeline} wants a gallery of {engine.format.dimension}, {engine.metric.value}"
        )


def _print_refused(refused: Refused, console: Console) -> None:
    words = advice(refused.fault)
    measured = "" if refused.measured is None else f"  ({refused.measured:.2f}, limit 限值 {refused.required:.2f})"
    console.print(f"[yellow]{words.en}[/]  {words.zh}{measured}")


def _print(report: EnrolReport, console: Console) -> None:
    console.print(f"[green]{len(report.enrolled)} enrolled 已登记[/], {len(report.refused)} refused 被拒绝")
    if not report.refused:
        return
    table = Table("Who 对象", "Why 原因", "", box=None)
    for refusal in report.refused:
        table.add_row(escape(refusal.where), escape(refusal.why.en), escape(refusal.why.zh))
    console.print(table)
