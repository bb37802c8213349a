"""Vessels of varied hearts that branch: veins and arteries of the lungs, caval veins, the
appendage with its lobes."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from .anatomy import Anatomy
from .shapes import Shape, Tube, Union, arc_length

# Left upper, left lower, right upper, right lower, right middle, and one more of the left:
# side, middle and end of the course from where it leaves the atrium, mm.
VEINS = (
    ("left", (-15, -6, 11), (-32, -11, 21)),
    ("left", (-14, -11, -9), (-29, -21, -14)),
    ("right", (14, -4, 12), (28, -8, 20)),
    ("right", (13, -11, -9), (27, -20, -14)),
    ("right", (15, -7, 1), (30, -13, 2)),
    ("left", (-15, -9, 1), (-31, -16, 3)),
)


def pulmonary_veins(a: Anatomy, rng: np.random.Generator) -> Shape:
    """Three to six veins, short stumps or trees."""
    edge = 29.0 * (a.la - 1) + 1
    starts = {"left": np.array([-14.0 - edge, -29, 14]), "right": np.array([29.0 + edge, -30, 13])}
    chosen = rng.permutation(4)[: rng.integers(3, 5)].tolist()
    chosen += [k for k in (4, 5) if rng.random() < 0.35]
    reach, parts = rng.uniform(0.45, 1.4), []
    for k in chosen:
        side, *course = VEINS[k]
        turn = _turn(rng, 14.0)
        start = starts[side] + rng.normal(0, 2.5, 3)
        knots = [start, *(start + reach * turn.apply(c) for c in np.array(course, float))]
        radius = a.pv_radius * np.exp(rng.normal(0, 0.18))
        vein = Tube.along(knots, [radius + rng.uniform(0, 3), radius, rng.uniform(0.7, 1) * radius])
        parts.append(vein)
        if rng.random() < 0.6:
            parts += forked(vein, rng, length=(6.0, 22.0), depth=int(rng.integers(1, 3)))
    return Union(tuple(parts), blend=2.0)


def lung_arteries(whole: Shape, a: Anatomy, rng: np.random.Generator) -> Shape:
    """Trunk and both branches, cut off anywhere or forked."""
    assert isinstance(whole, Union)
    root, *branches = whole.parts
    parts: list[Shape] = [root]
    for branch in branches:
        assert isinstance(branch, Tube)
        length = arc_length(branch.points)[-1]
        kept = shortened(branch, length * min(1.0, rng.uniform(0.4, 1.4)))
        parts.append(kept)
        if rng.random() < 0.6:
            parts += forked(kept, rng, length=(12.0, 40.0), depth=int(rng.integers(1, 3)))
    return Union(tuple(parts), blend=4.0)


def caval_veins(a: Anatomy, rng: np.random.Generator) -> tuple[Shape, ...]:
    """The ends of the upper and the lower caval vein."""
    center, size = np.array([51.0, 2.0, 4.0]), 26.0 * a.ra
    made = []
    for up in (1, -1):
        if rng.random() < 0.8:
            bend = rng.normal(0, 3, 3) + [-8.0, -6.0, 0.0]
            end = center + bend + [0, 0, up * (size + rng.uniform(4, 45))]
            radius = rng.uniform(7.5, 11.5)
            made.append(Tube.along([center, center + [-4, -3, up * size], end], [radius] * 3))
    return tuple(made)


def appendage(rng: np.random.Generator) -> Shape:
    """A bent body, thin or wide, with up to five lobes."""
    start = np.array([-8.0, -10.0, 22.0])
    length, wide = rng.uniform(0.6, 1.15), rng.uniform(0.5, 1.0)
    course = np.array([(0, 0, 0), (-14, 11, 4), (-26, 22, 1), (-29, 30, -8)], float)
    knots = start + length * _turn(rng, 10.0).apply(course) + rng.normal(0, 2.0, (4, 3))
    knots[0] = start
    body = Tube.along(knots, wide * np.array([9.0, 8.5, 9.5, 5.5]))
    lobes = []
    for _ in range(rng.integers(0, 6)):
        root = body.points[int(rng.uniform(0.35, 1.0) * (len(body.points) - 1))]
        tip = root + rng.uniform(6, 17) * length * _direction(rng)
        radius = wide * rng.uniform(3.5, 7.0)
        lobes.append(Tube.along([root, tip], [radius, rng.uniform(0.5, 0.9) * radius]))
    return Union((body, *lobes), blend=rng.uniform(1.0, 4.0))


def forked(
    tube: Tube, rng: np.random.Generator, *, length: tuple[float, float], depth: int
) -> list[Tube]:
    """Two or three branches from the end of a tube, and ``depth`` - 1 times from theirs."""
    ahead = tube.points[-1] - tube.points[-min(4, len(tube.points))]
    ahead = ahead / np.linalg.norm(ahead)
    start, radius = tube.points[-1], tube.radii[-1]
    made = []
    for _ in range(rng.integers(2, 4)):
        way = _turn(rng, 25.0).apply(ahead)
        way = way / np.linalg.norm(way)
        long = rng.uniform(*length)
        own = max(radius * rng.uniform(0.55, 0.85), 1.8)
        bend = _turn(rng, 15.0).apply(way)
        knots = [start, start + 0.5 * long * way, start + 0.5 * long * (way + bend)]
        branch = Tube.along(knots, [own, own, rng.uniform(0.7, 1.0) * own])
        made.append(branch)
        if depth > 1:
            shorter = (0.6 * length[0], 0.6 * length[1])
            made += forked(branch, rng, length=shorter, depth=depth - 1)
    return made


def shortened(tube: Tube, length: float) -> Tube:
    """The first ``length`` mm of a tube."""
    kept = max(2, int(np.searchsorted(arc_length(tube.points), length)))
    return Tube(tube.points[:kept], tube.radii[:kept])


def _turn(rng: np.random.Generator, spread: float) -> Rotation:
    return Rotation.from_rotvec(rng.normal(0, spread, 3), degrees=True)


def _direction(rng: np.random.Generator) -> np.ndarray:
    drawn = rng.normal(size=3)
    return drawn / np.linalg.norm(drawn)
