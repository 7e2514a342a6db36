"""Fingerprint search time by gallery size on one core, what the prefilter loses, and extraction time.

Galleries are spliced from real minutiae (halves of mirrored records), so that distances between strangers are
those of fingers; where ../shared/data is absent, from made-up ones. CPU time of this process is counted: a busy
machine does not change it much.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edge_agent.matching.fingerprint import FingerprintEngine
from edge_agent.matching.minutiae_record import decode, template_of
from templates_store.gallery import minutiae as gallery_module
from templates_store.gallery.finger_code import prepare
from templates_store.gallery.finger_segment import Segment, hamming
from templates_store.gallery.finger_template import MAX_MINUTIAE, MinutiaeTemplate
from templates_store.gallery.minutiae import MinutiaeGallery, compare_codes
from templates_store.template import SubjectId, TemplateId
from tests.shared_data import SHARED

Impressions = dict[tuple[str, str], MinutiaeTemplate]
LOSS_IMPRESSIONS = frozenset("234567")
ACCEPTED = 0.33  # above nearly every impostor score measured on FVC2002


def real() -> Impressions:
    """(set and finger, impression) -> minutiae of the records beside the FVC images."""
    found: Impressions = {}
    for path in sorted((SHARED / "fingerprints").glob("fvc*/*_*.iso")):
        finger, impression = path.stem.split("_")
        record = decode(path.read_bytes())
        found[f"{path.parent.name} {finger}", impression] = template_of(record.views[0], record.format)
    return found


def made_up(rng: np.random.Generator) -> MinutiaeTemplate:
    count = int(rng.integers(25, 55))
    return MinutiaeTemplate(
        rng.uniform(-110, 110, (count, 2)).astype(np.float32), rng.uniform(0, 2 * np.pi, count).astype(np.float32),
        np.ones(count, np.float32), np.ones(count, np.uint8),
    )  # fmt: skip


def spliced(pool: list[MinutiaeTemplate], rng: np.random.Generator) -> MinutiaeTemplate:
    """One side of one mirrored finger beside the other side of another, shaken by a pixel or two."""
    if not pool:
        return made_up(rng)
    one, other = (pool[number] for number in rng.integers(0, len(pool), 2))
    cut, axis = rng.normal(0, 15), int(rng.integers(0, 2))
    parts = []
    for template, below in ((one, True), (other, False)):
        xy = (template.xy - template.xy.mean(axis=0)) * np.array([-1, 1], np.float32)
        chosen = (xy[:, axis] < cut) == below
        angle = np.float32(np.pi) - template.angle
        parts.append((xy[chosen], angle[chosen], template.quality[chosen], template.kind[chosen]))
    xy, angle, quality, kind = (np.concatenate(arrays)[:MAX_MINUTIAE] for arrays in zip(*parts, strict=True))
    xy = xy + rng.normal(0, 1.5, xy.shape)
    return MinutiaeTemplate(xy.astype(np.float32), angle, quality, kind)


def cpu_ms(call: Callable[[], object], repeats: int) -> NDArray[np.float64]:
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        taken.append(1000 * (time.process_time() - start))
    return np.array(taken)


def row(label: str, taken: NDArray[np.float64], note: str = "") -> None:
    print(f"{label:<44} median {np.median(taken):8.1f} ms   worst {taken.max():8.1f} ms   {note}", flush=True)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="make bench ARGS=fingerprint")
    parser.add_argument("--size", type=int, action="append", help="gallery sizes; default 1000 and 10000")
    options, _ = parser.parse_known_args(argv)
    if os.environ.get("OMP_NUM_THREADS") != "1":
        print("(set OMP_NUM_THREADS=1 to hold numpy's matrix products to one core; CPU time is counted either way)")
    rng = np.random.default_rng(0)
    impressions = real()
    pool = list(impressions.values())
    fingers = sorted({finger for finger, _ in impressions})
    probes = [(f, i) for f, i in sorted(impressions) if i in ("3", "5", "7")]
    probe = impressions[fingers[0], "3"] if fingers else made_up(rng)

    engine = FingerprintEngine()
    grey = rng.integers(0, 256, (288, 256)).astype(np.uint8)
    engine._minutiae(grey)
    row("LEADER at 256 x 288, one thread", cpu_ms(lambda: engine._minutiae(grey), 5), "target 300")
    row("preparing a template", cpu_ms(lambda: prepare(probe), 20))

    for size in sorted(options.size or [1000, 10000]):
        gallery = MinutiaeGallery()
        enrolled = [(SubjectId(f), TemplateId(f), impressions[f, "1"]) for f in fingers][:size]
        others = [
            (SubjectId(f"stranger {n}"), TemplateId(f"stranger {n}"), spliced(pool, rng))
            for n in range(size - len(enrolled))
        ]
        gallery.add_all([*enrolled, *others])
        searching(gallery, [impressions[key] for key in probes[:: max(1, len(probes) // 10)]] or [probe])
        changing(gallery, probe)
        if size <= gallery_module.EXHAUSTIVE:
            relaxing(gallery, probe)
        else:
            losing(gallery, impressions)


def searching(gallery: MinutiaeGallery, probes: list[MinutiaeTemplate]) -> None:
    size = len(gallery)
    kind = "exhaustive" if size <= gallery_module.EXHAUSTIVE else f"prefilter to {gallery_module.RELAXED}"
    target = {1000: "target 150", 10000: "target 400"}.get(size, "")
    taken = np.concatenate([cpu_ms(partial(gallery.search, probe, k=2), 1) for probe in probes])
    row(f"1:N among {size} fingers ({kind})", taken, target)


def changing(gallery: MinutiaeGallery, template: MinutiaeTemplate) -> None:
    size, numbers = len(gallery), itertools.count()
    newcomer = SubjectId("newcomer")
    enrolling = cpu_ms(lambda: gallery.add(newcomer, TemplateId(f"newcomer {next(numbers)}"), template), 20)
    row(f"  enrol one into {size}", enrolling, "target 10")
    row(f"  remove one from {size}", cpu_ms(lambda: gallery.remove(newcomer), 1), "target 10")


def relaxing(gallery: MinutiaeGallery, probe: MinutiaeTemplate) -> None:
    """What doing many candidates at once, and counting bits in SIMD registers, is worth."""
    code = prepare(probe)
    segments = [block.segment for block in gallery._blocks]
    codes = [segment.codes[number] for segment in segments for number in range(0, len(segment.codes), 20)]
    together = np.median(cpu_ms(lambda: [segment.relaxed(code) for segment in segments], 3)) / len(gallery)
    alone = np.median(cpu_ms(lambda: [Segment.of([c]).relaxed(code) for c in codes], 1)) / len(codes)
    print(f"  relaxation: {1000 * together:.0f} us a candidate; one at a time {alone / together:.1f}x as long")
    bits = np.concatenate([segment.bits for segment in segments])
    words, own = np.ascontiguousarray(bits.view(np.uint64).T), code.cylinders.bits.view(np.uint64)

    def word_by_word() -> None:
        for mine in own:
            total = np.zeros(words.shape[1], np.uint16)
            for column, word in zip(words, mine, strict=True):
                total += np.bitwise_count(column ^ word)

    packed = np.median(cpu_ms(lambda: hamming(bits, code.cylinders.bits), 3))
    plain = np.median(cpu_ms(word_by_word, 3))
    print(f"  all Hamming distances: {packed:.1f} ms; numpy, word by word, {plain / packed:.1f}x as long")


def losing(gallery: MinutiaeGallery, impressions: Impressions) -> None:
    """Genuine probes an exhaustive search would accept, and how many of them the prefilter leaves out."""
    segments = [block.segment for block in gallery._blocks]
    subjects = [subject for block in gallery._blocks for subject in block.subjects]
    lost = accepted = 0
    for (finger, impression), template in impressions.items():
        reference = impressions.get((finger, "1"))
        if impression not in LOSS_IMPRESSIONS or reference is None or SubjectId(finger) not in subjects:
            continue
        probe = prepare(template)
        if compare_codes(probe, prepare(reference)) < ACCEPTED:
            continue
        accepted += 1
        coarse = np.concatenate([segment.coarse(probe) for segment in segments])
        own = max(score for score, subject in zip(coarse, subjects, strict=True) if subject == finger)
        lost += int((coarse > own).sum()) >= gallery_module.RELAXED
    print(f"  prefilter's loss: {lost} of {accepted} genuine probes that an exhaustive search would accept")
