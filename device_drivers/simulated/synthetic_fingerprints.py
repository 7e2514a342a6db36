"""Fingerprints of nobody: an orientation field with loops and deltas, ridges grown along it, many impressions of each.

Orientation: the zero-pole model of Sherlock and Monro (1993) with a smooth individual distortion. Ridges: noise
filtered again and again by Gabor filters tuned to the local direction and period, after Cappelli's SFinGe (2000);
minutiae come about where growing ridges disagree. Impressions differ by placement, skin distortion, pressure, contact
area and noise. Everything follows from the seed. 500 dpi.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray

DPI = 500
WIDTH, HEIGHT = 256, 288  # what R30x and AS608 modules send
MARGIN = 40  # skin around the sensor's window
PERIOD = 9.0  # ridges are 0.4 to 0.5 mm apart
DIRECTIONS = 20
KERNEL = 11  # OpenCV filters directly up to here, ten times faster than beyond
ROUNDS = 10


class Pattern(StrEnum):
    ARCH = "arch"
    LEFT_LOOP = "left_loop"
    RIGHT_LOOP = "right_loop"
    WHORL = "whorl"


# Shares among people, rounded: loops 65 %, whorls 30 %, arches 5 %.
SHARES = ((Pattern.RIGHT_LOOP, 0.33), (Pattern.LEFT_LOOP, 0.32), (Pattern.WHORL, 0.30), (Pattern.ARCH, 0.05))


@dataclass(frozen=True, slots=True)
class Finger:
    """The whole pad of one finger: `ridges` in [-1, 1], dark ridges negative."""

    seed: int
    pattern: Pattern
    width: int
    height: int
    ridges: NDArray[np.float32]

    @classmethod
    def grow(cls, seed: int, *, width: int = WIDTH, height: int = HEIGHT, pattern: Pattern | None = None) -> Finger:
        """A new finger, the same for the same arguments: about 0.2 s."""
        rng = np.random.default_rng([seed, width, height])
        if pattern is None:
            pattern = rng.choice([name for name, _ in SHARES], p=[share for _, share in SHARES])
        shape = height + 2 * MARGIN, width + 2 * MARGIN
        direction = _orientation(Pattern(pattern), shape, rng)
        return cls(seed, Pattern(pattern), width, height, _ridges(direction, rng))

    def impression(self, number: int) -> NDArray[np.uint8]:
        """The `number`-th time this finger lies on the sensor: shape (height, width), white where nothing touches."""
        rng = np.random.default_rng([self.seed, self.width, self.height, 1 + number])
        pressed = _placed(self.ridges, rng)
        depth = _crop(pressed, self.height, self.width)
        contact = _contact(self.height, self.width, rng)
        return _sensed(depth, contact, rng)


def _smooth_noise(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Gaussian noise of unit spread, smooth over about `sigma` pixels."""
    step = max(int(sigma / 2), 1)
    small = rng.standard_normal((shape[0] // step + 2, shape[1] // step + 2)).astype(np.float32)
    field = cv2.GaussianBlur(small, (0, 0), sigma / step)
    field = cv2.resize(field, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    spread = float(field.std())
    return np.asarray((field - field.mean()) / max(spread, 1e-6), np.float32)


def _singularities(
    pattern: Pattern, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[list[complex], list[complex]]:
    """Loops and deltas of a whorl or a right loop as points x + iy."""
    rows, columns = shape

    def point(x: float, y: float, spread: float = 0.025) -> complex:
        dx, dy = rng.normal(0, spread, 2)
        return complex((x + dx) * columns, (y + dy) * rows)

    if pattern is Pattern.WHORL:
        gap = rng.uniform(0.04, 0.10)
        return [point(0.5, 0.44 - gap), point(0.5, 0.44 + gap)], [point(0.18, 0.80), point(0.82, 0.80)]
    return [point(0.5, 0.42, 0.03)], [point(0.22, 0.80, 0.03)]


def _orientation(pattern: Pattern, shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Ridge direction in radians, modulo pi, image axes (y down)."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    if pattern is Pattern.ARCH:
        rise = rng.uniform(0.5, 0.9)
        hump = np.exp(-(((x / shape[1] - 0.5) / 0.28) ** 2) - ((y / shape[0] - 0.55) / 0.35) ** 2)
        slope = np.arctan(-rise * 2.2 * hump * np.sin((0.5 - x / shape[1]) * 2 * np.pi))
    else:
        loops, deltas = _singularities(pattern, shape, rng)
        angle = np.zeros(shape, np.float32)
        for sign, points in ((1.0, loops), (-1.0, deltas)):
            for at in points:
                angle += np.float32(sign) * np.arctan2(y - np.float32(at.imag), x - np.float32(at.real))
        slope = 0.5 * angle
    if pattern is Pattern.LEFT_LOOP:
        slope = -slope[:, ::-1]
    wobble = 0.10 * _smooth_noise(shape, 70.0, rng) + 0.05 * _smooth_noise(shape, 35.0, rng)
    return np.asarray(np.mod(slope + wobble, np.pi), np.float32)


def _ridges(direction: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    period = PERIOD * float(rng.uniform(0.92, 1.08))
    bank = [_gabor(np.pi * k / DIRECTIONS, period) for k in range(DIRECTIONS)]
    nearest = np.rint(direction * (DIRECTIONS / np.pi)).astype(np.int32) % DIRECTIONS
    boxes = [_box(nearest == k) for k in range(DIRECTIONS)]
    skin = rng.standard_normal(direction.shape).astype(np.float32)
    for _ in range(ROUNDS):
        grown = np.zeros_like(skin)
        for k, box in enumerate(boxes):
            if box is None:
                continue
            rows, columns, mask = box
            response = cv2.filter2D(skin[rows, columns], cv2.CV_32F, bank[k])
            grown[rows, columns][mask] = response[mask]
        skin = np.tanh(grown * np.float32(2.5 / max(float(grown.std()), 1e-6)))
    return skin


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice, NDArray[np.bool_]] | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    reach = KERNEL // 2
    across = slice(max(rows[0] - reach, 0), rows[-1] + reach + 1)
    down = slice(max(columns[0] - reach, 0), columns[-1] + reach + 1)
    return across, down, mask[across, down]


def _gabor(ridge_direction: float, period: float) -> NDArray[np.float32]:
    kernel = cv2.getGaborKernel(
        (KERNEL, KERNEL), sigma=0.42 * period, theta=ridge_direction + np.pi / 2, lambd=period, gamma=0.9, psi=0
    ).astype(np.float32)
    kernel -= kernel.mean()
    return np.asarray(kernel / np.abs(kernel).sum(), np.float32)


def _placed(ridges: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Turned, shifted, and dragged as skin is."""
    rows, columns = ridges.shape
    turn, shift = np.deg2rad(rng.normal(0, 6)), rng.normal(0, 8, 2)
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    cx, cy = columns / 2, rows / 2
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    at_x = cos * (x - cx) - sin * (y - cy) + np.float32(cx + np.clip(shift[0], -20, 20))
    at_y = sin * (x - cx) + cos * (y - cy) + np.float32(cy + np.clip(shift[1], -20, 20))
    at_x += 1.8 * _smooth_noise((rows, columns), 60.0, rng)
    at_y += 1.8 * _smooth_noise((rows, columns), 60.0, rng)
    return np.asarray(cv2.remap(ridges, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.float32)


def _crop(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _contact(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """1 where skin touches, falling to 0 at the rim of an oval."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    cx, cy = width * (0.5 + rng.normal(0, 0.02)), height * (0.5 + rng.normal(0, 0.02))
    rx, ry = width * rng.uniform(0.44, 0.52), height * rng.uniform(0.45, 0.54)
    distance = np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2) + 0.03 * _smooth_noise((height, width), 12.0, rng)
    return np.asarray(np.clip((1.0 - distance) * 14.0, 0.0, 1.0), np.float32)


def _sensed(depth: NDArray[np.float32], contact: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Grey values: pressure widens ridges, dry skin breaks them, the sensor adds noise."""
    shape = (depth.shape[0], depth.shape[1])
    pressure = float(rng.normal(0, 0.12))
    dryness = 0.22 * _smooth_noise(shape, 3.0, rng) + 0.15 * _smooth_noise(shape, 25.0, rng)
    ridge = 1.0 / (1.0 + np.exp(-(-depth - pressure + dryness) * 5.0))
    grey = 235.0 - 175.0 * ridge * contact
    grey += rng.normal(0, 6.0, shape) + 4.0 * _smooth_noise(shape, 40.0, rng)
    blurred = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 0.7)
    return np.asarray(np.clip(blurred, 0, 255), np.uint8)
