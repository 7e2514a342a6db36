"""Made-up fingers: minutiae spread like a print's, and the same finger laid down again."""

from __future__ import annotations

import numpy as np

from templates_store.gallery.finger_template import MinutiaeTemplate


def finger(seed: int, count: int = 40) -> MinutiaeTemplate:
    """Minutiae at least 10 px apart in an oval, directions following a smooth random flow."""
    rng = np.random.default_rng(seed)
    points: list[tuple[float, float]] = []
    while len(points) < count:
        x, y = rng.uniform(-100, 100), rng.uniform(-130, 130)
        if (x / 100) ** 2 + (y / 130) ** 2 <= 1 and all((x - a) ** 2 + (y - b) ** 2 > 100 for a, b in points):
            points.append((x, y))
    xy = np.array(points, np.float32)
    slope = rng.normal(0, 0.012, 2)
    flips = rng.integers(0, 2, count) * np.pi
    angle = rng.uniform(0, 2 * np.pi) + xy @ slope + rng.normal(0, 0.3, count) + flips
    return MinutiaeTemplate(
        xy=xy,
        angle=angle.astype(np.float32),
        quality=rng.uniform(0.4, 1.0, count).astype(np.float32),
        kind=rng.integers(1, 3, count).astype(np.uint8),
    )


def again(
    template: MinutiaeTemplate,
    seed: int,
    *,
    turn: float = 0.3,
    shift: tuple[float, float] = (25.0, -40.0),
    lost: int = 6,
) -> MinutiaeTemplate:
    """Another impression: turned, moved, a little noise, some minutiae lost, the order another."""
    rng = np.random.default_rng(seed)
    kept = rng.permutation(len(template))[lost:]
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    xy = template.xy[kept] @ rotation + np.array(shift) + rng.normal(0, 1.0, (len(kept), 2))
    angle = template.angle[kept] + turn + rng.normal(0, 0.05, len(kept))
    return MinutiaeTemplate(
        xy.astype(np.float32), angle.astype(np.float32), template.quality[kept], template.kind[kept]
    )


def nothing() -> MinutiaeTemplate:
    return MinutiaeTemplate(
        np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros(0, np.uint8)
    )
