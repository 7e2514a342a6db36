"""The second opinion on a candidate: lay one finger over the other and count what lies together.

Relaxation says how well a dozen neighbourhoods agree. It is blind to what should correspond and does not: two
impressions that overlap by a third and two strangers with one similar region look alike to it. So the pairs it
trusts most each propose a rigid movement, refined by the minutiae that then coincide and bent by a small affine
correction for the skin's stretch; a movement is worth the minutiae it matches (m) times their share of those that
lie where both fingers have been seen (r). The score is the relaxed score times m r^1.5, brought to [0, 1).

Measured on FVC2002 DB1_B and DB3_B pooled: FNMR at FMR 0.1 % from 0.71 % (relaxation alone) to 0, and with
synthetic distortion, noise and cropping from 8-13 % to 3-6 %; the tolerances below move that little.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from templates_store.gallery.finger_code import FAR, Complex, FingerCode, Real, stack
from templates_store.gallery.relaxation import Relaxed

SEEDS = 4  # movements tried
SIGMA = 7.0  # px
SIGMA_ANGLE = 0.26  # rad, as a chord
REACH = 3.0  # in sigma: beyond, no match
MAX_CHORD_SQUARED = 0.6  # about 45 degrees
LOOSE = 1.3  # the first match after a seed's rough movement
LEVER = 30.0  # px: a direction weighs in a rotation as much as a point this far away
MARGIN = 6.0  # px around a hull that still count as seen
AFFINE_UNIT = 60.0  # px: stretch terms are scaled to act at this distance
AFFINE_PRIOR = np.diag([0.5, 4.0, 4.0])  # in matched minutiae
LEAST_SEEN = 3.0
SHARE_POWER = 1.5


def aligned_scores(relaxed: Relaxed, probe: FingerCode, candidates: list[FingerCode]) -> Real:
    """Final scores in [0, 1), shape (C,), of the candidates `relaxed` was made from."""
    count = len(candidates)
    position = stack([c.position for c in candidates], fill=FAR)
    direction = stack([c.direction for c in candidates], fill=1.0)
    cylinder_position = stack([c.cylinders.position for c in candidates], fill=FAR)
    cylinder_direction = stack([c.cylinders.direction for c in candidates], fill=1.0)
    hull = _rings([c.hull for c in candidates])
    seeds = np.argsort(-relaxed.value, axis=1, kind="stable")[:, :SEEDS]
    tried = seeds.shape[1]
    which = np.repeat(np.arange(count), tried)  # one row per movement from here on
    flat = seeds.ravel()
    weight = relaxed.agreement[which, flat] * relaxed.value[which]
    weight[np.arange(len(flat)), flat] = relaxed.value[which, flat]
    rows = np.arange(count)[:, None]
    move = _Movement.fit(
        probe.cylinders.position[relaxed.probe][which],
        probe.cylinders.direction[relaxed.probe][which],
        cylinder_position[rows, relaxed.candidate][which],
        cylinder_direction[rows, relaxed.candidate][which],
        weight,
    )
    position, direction = position[which], direction[which]
    at = np.arange(len(which))[:, None]
    own_position = np.broadcast_to(probe.position, (len(which), len(probe.position)))
    own_direction = np.broadcast_to(probe.direction, own_position.shape)
    for sigma in (SIGMA * LOOSE, SIGMA):
        partner, gain = _match(move(own_position), move.turn * own_direction, position, direction, sigma)
        if sigma != SIGMA:
            move = _Movement.fit(own_position, own_direction, position[at, partner], direction[at, partner], gain)
    laid = move(own_position)
    bent = _bend(laid - move.target, position[at, partner] - laid, gain) + laid
    _, gain = _match(bent, move.turn * own_direction, position, direction, SIGMA)
    matched = gain.sum(axis=1)
    seen = _inside(bent, hull[which]).sum(axis=1)
    seen_back = _inside(move.back(position), _rings([probe.hull])).sum(axis=1)
    share = matched / np.sqrt(np.maximum(seen, LEAST_SEEN) * np.maximum(seen_back, LEAST_SEEN))
    worth = (matched * share**SHARE_POWER).reshape(count, tried).max(axis=1)
    root = np.cbrt(relaxed.score * worth)
    return np.asarray(root / (1.0 + root), np.float32)


class _Movement:
    """Rotations and translations, one a row."""

    __slots__ = ("source", "target", "turn")

    def __init__(self, turn: Complex, source: Complex, target: Complex) -> None:
        self.turn, self.source, self.target = turn, source, target

    @classmethod
    def fit(cls, a: Complex, ua: Complex, b: Complex, ub: Complex, weight: Real) -> _Movement:
        """Weighted least squares from `a` to `b`, positions and directions."""
        total = weight.sum(axis=1, keepdims=True) + np.float32(1e-9)
        source = (weight * a).sum(axis=1, keepdims=True) / total
        target = (weight * b).sum(axis=1, keepdims=True) / total
        moment = (weight * ((b - target) * (a - source).conj() + LEVER**2 * ub * ua.conj())).sum(axis=1, keepdims=True)
        return cls((moment / np.maximum(np.abs(moment), np.float32(1e-9))).astype(np.complex64), source, target)

    def __call__(self, points: Complex) -> Complex:
        return np.asarray(self.turn * (points - self.source) + self.target, np.complex64)

    def back(self, points: Complex) -> Complex:
        return np.asarray((points - self.target) * self.turn.conj() + self.source, np.complex64)


def _match(a: Complex, ua: Complex, b: Complex, ub: Complex, sigma: float) -> tuple[NDArray[np.intp], Real]:
    """Partner in `b` of each in `a` and how well they lie together (0: no mutual nearest), both (R, n)."""
    squared = (a.real[:, :, None] - b.real[:, None, :]) ** 2 + (a.imag[:, :, None] - b.imag[:, None, :]) ** 2
    chord = 2.0 - 2.0 * (ua.real[:, :, None] * ub.real[:, None, :] + ua.imag[:, :, None] * ub.imag[:, None, :])
    near = (squared <= (REACH * sigma) ** 2) & (chord <= MAX_CHORD_SQUARED)
    gain = np.zeros(squared.shape, np.float32)
    gain[near] = np.exp(-squared[near] / (2 * sigma**2) - chord[near] / (2 * SIGMA_ANGLE**2))
    partner = gain.argmax(axis=2)
    mutual = np.take_along_axis(gain.argmax(axis=1), partner, axis=1) == np.arange(a.shape[1])
    best = np.take_along_axis(gain, partner[:, :, None], axis=2)[:, :, 0]
    return partner, best * mutual


def _bend(offset: Complex, error: Complex, weight: Real) -> Complex:
    """Affine correction at each point that explains `error`, held back by the prior where few points speak."""
    scaled = offset / AFFINE_UNIT
    basis = np.stack([np.ones_like(scaled), scaled, scaled.conj()], axis=2)
    weighted = basis.conj().transpose(0, 2, 1) * weight[:, None, :]
    solution = np.linalg.solve(weighted @ basis + AFFINE_PRIOR, weighted @ error[:, :, None])
    return np.asarray((basis @ solution)[:, :, 0], np.complex64)


def _rings(hulls: list[Complex]) -> Complex:
    """Hulls closed, and padded with the first vertex: an edge of no length excludes nothing."""
    out = np.full((len(hulls), max(len(hull) for hull in hulls) + 1), FAR, np.complex64)
    for ring, hull in zip(out, hulls, strict=True):
        ring[: len(hull)] = hull
        ring[len(hull) :] = hull[:1] if len(hull) else FAR
    return out


def _inside(points: Complex, ring: Complex) -> NDArray[np.bool_]:
    """Which points lie in a closed counter-clockwise ring, or MARGIN beside it."""
    edge = ring[:, 1:] - ring[:, :-1]
    outward = -1j * edge / np.maximum(np.abs(edge), np.float32(1e-6))
    beyond = (points.real[:, :, None] - ring.real[:, None, :-1]) * outward.real[:, None, :] + (
        points.imag[:, :, None] - ring.imag[:, None, :-1]
    ) * outward.imag[:, None, :]
    return np.asarray(~(beyond > MARGIN).any(axis=2), np.bool_)
