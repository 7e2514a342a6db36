"""A fingerprint prepared for comparison, once for many comparisons."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from templates_store.gallery.cylinders import Cylinders, cylinders
from templates_store.gallery.finger_template import MinutiaeTemplate

Real = NDArray[np.float32]
Complex = NDArray[np.complex64]
MAX_COMPARED = 128  # best minutiae of a finger; bounds a comparison whatever a record claims. Flat prints have 20-80
FAR = 1e5  # px: padding that lies in no finger


@dataclass(frozen=True, slots=True, eq=False)
class FingerCode:
    """Cylinders for finding which minutiae correspond, all minutiae and their hull for judging how well."""

    cylinders: Cylinders = field(repr=False)
    position: Complex = field(repr=False)
    direction: Complex = field(repr=False)
    hull: Complex = field(repr=False)  # vertices of the convex hull, counter-clockwise


def prepare(template: MinutiaeTemplate) -> FingerCode:
    """About 1 ms; a gallery does it at enrolment, a search once for its probe."""
    if len(template) > MAX_COMPARED:
        best = np.argsort(-template.quality, kind="stable")[:MAX_COMPARED]
        template = MinutiaeTemplate(
            template.xy[best], template.angle[best], template.quality[best], template.kind[best]
        )
    position = (template.xy[:, 0] + 1j * template.xy[:, 1]).astype(np.complex64)
    direction = np.exp(1j * template.angle).astype(np.complex64)
    return FingerCode(cylinders(template), position, direction, convex_hull(position))


def convex_hull(points: Complex) -> Complex:
    """Vertices counter-clockwise (monotone chain); fewer than three points are returned as they are."""
    ordered = sorted({(float(p.real), float(p.imag)) for p in points})
    if len(ordered) < 3:
        return np.array([complex(x, y) for x, y in ordered], np.complex64)

    def half(row: list[tuple[float, float]]) -> list[tuple[float, float]]:
        chain: list[tuple[float, float]] = []
        for x, y in row:
            while len(chain) > 1:
                (ox, oy), (px, py) = chain[-2], chain[-1]
                if (px - ox) * (y - oy) - (py - oy) * (x - ox) > 0:
                    break
                chain.pop()
            chain.append((x, y))
        return chain[:-1]

    return np.array([complex(x, y) for x, y in half(ordered) + half(ordered[::-1])], np.complex64)


def stack(rows: list[NDArray[Any]], *, fill: complex) -> NDArray[Any]:
    """Arrays of unequal length as one, shape (rows, longest), the rest filled."""
    out = np.full((len(rows), max((len(row) for row in rows), default=0)), fill, rows[0].dtype if rows else None)
    for line, row in zip(out, rows, strict=True):
        line[: len(row)] = row
    return out
