"""Face identification on labelled photographs: error rates with confidence intervals, and the impostor curve.

    make accuracy ARGS="face --people 200 --engine sface"       the short form
    make accuracy ARGS="face --write"                           writes the calibration table

Enrolled: people with more photographs than are enrolled of each; their other photographs are the probes.
Unknown: people with a single photograph; for an FPIR of 0.1 % also each probe of an enrolled person, against the
gallery without that person, since a few hundred unknown people cannot show one in a thousand. A probe without a face
found is a miss. Gates are off in the first tables, so that they show the engine; the last table shows what the gates
refuse and what is left.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from edge_agent.matching import calibration as curves
from edge_agent.matching.decision import Targets, Thresholds
from edge_agent.matching.quality import ENROLMENT, PROBE, judge
from templates_store.gallery.vectors_basis import Metric
from tests.accuracy.degradations import DEGRADATIONS
from tests.accuracy.faces import Measured, measure_all, people, ungated

TABLE = Path(curves.__file__).parent / "calibration_face.json"
Matrix = NDArray[np.float64]
GOALS = {1: 0.96, 3: 0.985}
console = Console(width=150)


def scores(metric: Metric, probes: Matrix, references: Matrix) -> Matrix:
    if metric is Metric.COSINE:
        return np.asarray(_unit(probes) @ _unit(references).T)
    squares = (probes**2).sum(1)[:, None] + (references**2).sum(1)[None, :] - 2 * probes @ references.T
    return np.asarray(-np.sqrt(np.maximum(squares, 0.0)), np.float64)


def _unit(rows: Matrix) -> Matrix:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float64)


def enrolled_as(metric: Metric, items: Sequence[Measured]) -> Matrix | None:
    """The mean of the photographs in which a face was found."""
    wide = np.array([item.reference for item in items if item.reference is not None], np.float64)
    if not len(wide):
        return None
    return np.asarray((_unit(wide) if metric is Metric.COSINE else wide).mean(0), np.float64)


class Trial:
    """Scores of one enrolment: probes of enrolled people and of unknown ones against a reference each."""

    def __init__(
        self, metric: Metric, found: dict[str, list[Measured]], photographs: int, *, mirrored: bool = False
    ) -> None:
        """`mirrored`: probes averaged with their mirror images too, as references always are."""
        enrolled = {name: items for name, items in found.items() if len(items) > photographs}
        references: list[Matrix] = []
        probes: list[Matrix] = []
        labels: list[int] = []
        self.missed = 0  # probes in which no face was found: misses, whatever the threshold
        for items in enrolled.values():
            reference = enrolled_as(metric, items[:photographs])
            if reference is None:
                self.missed += len(items) - photographs
                continue
            references.append(reference)
            for item in items[photographs:]:
                probe = item.reference if mirrored else item.probe
                if probe is None:
                    self.missed += 1
                else:
                    probes.append(probe.astype(np.float64))
                    labels.append(len(references) - 1)
        single = [items[0].reference if mirrored else items[0].probe for items in found.values() if len(items) == 1]
        unknown = [probe for probe in single if probe is not None]
        self.labels = np.array(labels)
        self.known = scores(metric, np.array(probes), np.array(references))
        self.unknown = scores(metric, np.array(unknown, np.float64), np.array(references)).max(1)
        self.genuine = self.known[np.arange(len(labels)), self.labels]
        self.right = self.known.argmax(1) == self.labels
        others = self.known.copy()
        others[np.arange(len(labels)), self.labels] = -np.inf
        self.left_out = others.max(1)  # each probe against the gallery without its own person
        self.impostors = np.sort(others[np.isfinite(others)])

    @property
    def attempts(self) -> int:
        return len(self.labels) + self.missed

    def threshold_at_fpir(self, fpir: float) -> float:
        strangers = self.unknown if fpir >= 0.01 else np.concatenate([self.unknown, self.left_out])
        ranked = np.sort(strangers)[::-1]
        return float(np.nextafter(ranked[min(int(fpir * len(ranked)), len(ranked) - 1)], np.inf))

    def tpir(self, fpir: float) -> int:
        """Hits: the right person first, and accepted."""
        return int((self.right & (self.genuine >= self.threshold_at_fpir(fpir))).sum())

    def tar(self, far: float, chosen: NDArray[np.intp] | None = None) -> float:
        limit = self.impostors[len(self.impostors) - 1 - int(far * len(self.impostors))]
        genuine = self.genuine if chosen is None else self.genuine[chosen]
        return float((genuine > limit).mean())

    def eer(self, chosen: NDArray[np.intp] | None = None) -> float:
        genuine = np.sort(self.genuine if chosen is None else self.genuine[chosen])
        limits = np.linspace(self.impostors[0], genuine[-1], 4000)
        misses = np.searchsorted(genuine, limits) / len(genuine)
        accepts = 1.0 - np.searchsorted(self.impostors, limits) / len(self.impostors)
        at = int(np.argmin(np.abs(misses - accepts)))
        return float((misses[at] + accepts[at]) / 2)


def wilson(hits: int, of: int) -> str:
    """Share with its 95 % interval."""
    if not of:
        return "-"
    share, z = hits / of, 1.96
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z * np.sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return f"{share:.4f} ({max(middle - half, 0.0):.3f}-{min(middle + half, 1.0):.3f})"


def _bootstrap(trial: Trial, figure: str) -> str:
    rng = np.random.default_rng(0)
    count = len(trial.labels)
    value = trial.eer() if figure == "eer" else trial.tar(1e-3)
    draws = [rng.integers(0, count, count) for _ in range(100)]
    spread = np.quantile([trial.eer(d) if figure == "eer" else trial.tar(1e-3, d) for d in draws], (0.025, 0.975))
    return f"{value:.4f} ({spread[0]:.3f}-{spread[1]:.3f})"


def identification(name: str, metric: Metric, found: dict[str, list[Measured]]) -> list[str]:
    """The main table; returns what missed its goal."""
    table = Table(title=f"{name}: identification, shares with 95 % intervals")
    for column in (
        "photos",
        "enrolled/probes/unknown",
        "EER",
        "TAR@FAR 1e-3",
        "rank-1",
        "TPIR@FPIR 1 %",
        "TPIR@FPIR .1 %",
    ):
        table.add_column(column)
    missed = []
    for photographs, mirrored in ((1, False), (1, True), (3, False), (3, True)):
        trial = Trial(metric, found, photographs, mirrored=mirrored)
        if len(trial.labels) < 20 or len(trial.unknown) < 20:
            continue
        hits = trial.tpir(0.01)
        table.add_row(
            f"{photographs}{' *' * mirrored}",
            f"{trial.known.shape[1]}/{trial.attempts}/{len(trial.unknown)}",
            _bootstrap(trial, "eer"),
            _bootstrap(trial, "tar"),
            wilson(int(trial.right.sum()), trial.attempts),
            wilson(hits, trial.attempts),
            wilson(trial.tpir(0.001), trial.attempts),
        )
        if name == "sface" and not mirrored and hits / trial.attempts < GOALS[photographs]:
            missed.append(f"TPIR@FPIR 1 % with {photographs} photograph(s): {hits / trial.attempts:.4f}")
    table.caption = "* probes averaged with their mirror images too: twice the embedding's time, so not done at doors"
    console.print(table)
    return missed


def impostor_curve(name: str, pipeline: str, metric: Metric, found: dict[str, list[Measured]]) -> curves.Calibration:
    """Every probe against every other person's reference."""
    listed = [(person, item) for person, items in found.items() for item in items if item.probe is not None]
    names = np.unique([person for person, _ in listed], return_inverse=True)[1]
    all_scores = scores(
        metric,
        np.array([item.probe for _, item in listed], np.float64),
        np.array([item.reference for _, item in listed], np.float64),
    )
    strangers = all_scores[names[:, None] != names[None, :]]
    where = f"LFW, {len(found)} people, {len(listed)} photographs, every probe against every other person's reference; "
    where += f"{datetime.now(UTC):%Y-%m}"
    curve = curves.measured(pipeline, strangers, comparisons=len(strangers), measured_on=where)
    table = Table(title=f"{name}: score that strangers reach ({len(strangers)} comparisons)")
    for rate in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        table.add_column(f"FMR {rate:.0e}")
    table.add_row(*(f"{curve.threshold(rate):.4f}" for rate in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)))
    console.print(table)
    return curve


def targets_kept(name: str, metric: Metric, found: dict[str, list[Measured]], pipeline: str) -> None:
    """A threshold set from half of the people must keep its target on the other half."""
    order = np.random.default_rng(0).permutation(sorted(found))
    halves = [{person: found[person] for person in part} for part in (order[::2], order[1::2])]
    table = Table(title=f"{name}: FPIR aimed at (curve of one half) and met (other half)")
    for column in ("aimed", "met", "TPIR then"):
        table.add_column(column)
    for aimed in (0.05, 0.01, 0.003):
        accepted = unknown = hits = attempts = 0
        for own, other in (halves, halves[::-1]):
            listed = [(person, item) for person, items in own.items() for item in items if item.probe is not None]
            names = np.unique([person for person, _ in listed], return_inverse=True)[1]
            probes = np.array([item.probe for _, item in listed], np.float64)
            references = np.array([item.reference for _, item in listed], np.float64)
            strangers = scores(metric, probes, references)[names[:, None] != names[None, :]]
            curve = curves.measured(pipeline, strangers, comparisons=len(strangers), measured_on="half")
            trial = Trial(metric, other, 1)
            limit = Thresholds.of(curve, Targets(fpir=aimed), gallery_size=trial.known.shape[1]).identify
            accepted += int((trial.unknown >= limit).sum())
            unknown += len(trial.unknown)
            hits += int((trial.right & (trial.genuine >= limit)).sum())
            attempts += trial.attempts
        table.add_row(f"{aimed:.3f}", wilson(accepted, unknown), wilson(hits, attempts))
    console.print(table)


def gates(name: str, metric: Metric, found: dict[str, list[Measured]], limit: int) -> None:
    """What degradation does to probes, what the gates refuse of it, and what is left."""
    three = [person for person, items in found.items() if len(items) > 3]
    chosen = (three + [person for person, items in found.items() if 2 <= len(items) <= 3])[:limit]
    last = {person: -1 if person in three else 1 for person in chosen}  # the photograph that is degraded
    galleries = {1: chosen, 3: [person for person in chosen if person in three]}
    photographs = people(0)
    table = Table(title=f"{name}: degraded probes at FPIR 1 %, {len(chosen)} people, {len(galleries[3])} of them with "
                  "three photographs enrolled; gates of probe and enrolment")  # fmt: skip
    for column in (
        "",
        "found",
        "TPIR, 1 photo",
        "TPIR, 3 photos",
        "refused: probe",
        "TPIR of accepted",
        "refused: enrolment",
        "because",
    ):
        table.add_column(column)
    for label in ("as they are", *DEGRADATIONS):
        if label == "as they are":
            probes = {person: found[person][last[person]] for person in chosen}
        else:
            degraded = {person: [photographs[person][last[person]]] for person in chosen}
            probes = {person: items[0] for person, items in measure_all(name, degraded, label=label).items()}
        seen = [item.quality for item in probes.values() if item.quality is not None]
        hit = {n: _hits(metric, found, {p: probes[p] for p in galleries[n]}, n) for n in galleries}
        refusals = [judge(quality, PROBE) for quality in seen]
        why = Counter(refused.fault.value for refused in refusals if refused is not None)
        accepted = [p for p, item in probes.items() if item.quality is not None and judge(item.quality, PROBE) is None]
        table.add_row(
            label,
            f"{len(seen) / len(probes):.3f}",
            *(wilson(len(hit[n]), len(galleries[n])) for n in galleries),
            f"{sum(why.values()) / max(len(seen), 1):.3f}",
            wilson(len(hit[1].intersection(accepted)), len(accepted)),
            f"{sum(judge(quality, ENROLMENT) is not None for quality in seen) / max(len(seen), 1):.3f}",
            ", ".join(f"{fault} {count}" for fault, count in why.most_common(2)),
        )
    console.print(table)


def _hits(metric: Metric, found: dict[str, list[Measured]], probes: dict[str, Measured], photographs: int) -> set[str]:
    """People found right among all who are enrolled so, at the threshold of photographs as they are."""
    threshold = Trial(metric, found, photographs).threshold_at_fpir(0.01) if probes else 0.0
    several = [person for person, items in found.items() if len(items) > photographs]
    enrolled = {person: enrolled_as(metric, found[person][:photographs]) for person in several}
    references = {person: reference for person, reference in enrolled.items() if reference is not None}
    names, gallery = list(references), np.array(list(references.values()))
    hits = set()
    for person, item in probes.items():
        if item.probe is None:
            continue
        row = scores(metric, item.probe[None, :].astype(np.float64), gallery)[0]
        if names[int(row.argmax())] == person and row.max() >= threshold:
            hits.add(person)
    return hits


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="face")
    parser.add_argument("--people", type=int, default=0, help="people to measure; 0 for all there are")
    parser.add_argument("--degraded", type=int, default=200, help="people whose degraded photographs are measured")
    parser.add_argument("--engine", choices=["sface", "dlib", "both"], default="both")
    parser.add_argument("--write", action="store_true", help="write the impostor curves to the calibration table")
    options, _ = parser.parse_known_args(argv)
    photographs = people(options.people)
    missed: list[str] = []
    written = {} if not TABLE.exists() else curves.read_table(TABLE)
    for name in ["sface", "dlib"] if options.engine == "both" else [options.engine]:
        engine = ungated(name)
        found = measure_all(name, photographs)
        total = sum(map(len, found.values()))
        seen = sum(item.probe is not None for items in found.values() for item in items)
        console.print(f"{name}: {engine.format.pipeline}, face found in {wilson(seen, total)} of {total} photographs")
        missed += identification(name, engine.metric, found)
        written[engine.format.pipeline] = impostor_curve(name, engine.format.pipeline, engine.metric, found)
        targets_kept(name, engine.metric, found, engine.format.pipeline)
        if options.degraded:
            gates(name, engine.metric, found, options.degraded)
    if options.write:
        curves.write_table(TABLE, written.values())
        console.print(f"written: {TABLE.name}")
    if missed:
        raise SystemExit("; ".join(missed))
