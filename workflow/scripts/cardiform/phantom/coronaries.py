"""Coronary trees: courses on the surface of the heart, tapering towards their ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .anatomy import APEX, Anatomy, at
from .shapes import Shape, Tube, Union

# Distal radius of a branch, mm.
END_RADIUS_MM = 0.8
# Fat between a vessel's wall and the heart, mm.
CLEARANCE_MM = 0.4
# The surface that the vessels run on fills the grooves over this width, mm.
GROOVE_BLEND_MM = 6.0
PROJECTION_STEPS = 12


@dataclass(frozen=True, eq=False)
class TrueBranch:
    """A coronary branch as it was drawn.

    name : left_main, LAD, LCX or RCA; side branches have the name of their vessel.
    main : whether it is the course of the vessel itself.
    points, radii : (K, 3) and (K,) mm; a side branch begins on its parent's centreline.
    """

    name: str
    main: bool
    points: np.ndarray
    radii: np.ndarray


def branch_names(a: Anatomy) -> tuple[tuple[tuple[str, bool], ...], tuple[tuple[str, bool], ...]]:
    """Name and rank (True: the vessel itself) of each tube of :func:`coronary_trees`."""
    left = [("left_main", True), ("LAD", True), ("LCX", True)]
    left += [("LAD", False)] * a.diagonals + [("LCX", False)] * a.marginals
    return tuple(left), (("RCA", True), *[("RCA", False)] * 3)


def coronary_trees(
    a: Anatomy, solids: Mapping[str, Shape], least_radius: float
) -> tuple[tuple[Tube, ...], tuple[Tube, ...]]:
    """The left and the right tree.

    a : measures and branch counts.
    solids : the other classes (:func:`anatomy.chambers_and_vessels`).
    least_radius : no vessel is thinner than this, mm (a coarse grid would break it).
    """
    heart = Union(tuple(solids[name] for name in _CARRIERS), blend=GROOVE_BLEND_MM)
    course = _Course(a, heart, solids["right_ventricle"], least_radius)
    return course.left(), course.right()


def twigs(
    a: Anatomy,
    solids: Mapping[str, Shape],
    parents: list[Tube],
    rng: np.random.Generator,
    least_radius: float,
) -> tuple[Tube, ...]:
    """Side branches on the heart from places drawn at random of the branches ``parents``, some
    from one another: none to twenty. Other arguments: of :func:`coronary_trees`."""
    heart = Union(tuple(solids[name] for name in _CARRIERS), blend=GROOVE_BLEND_MM)
    course = _Course(a, heart, solids["right_ventricle"], least_radius)
    parents, made = list(parents), []
    for _ in range(rng.integers(0, 21)):
        parent = parents[rng.choice(len(parents), p=_lengths(parents))]
        k = int(rng.uniform(0.15, 1.0) * (len(parent.points) - 1))
        start, ahead = parent.points[k], parent.points[k] - parent.points[max(k - 3, 0)]
        normal = heart.evaluate(start[None])[1][0]
        aside = np.cross(normal, ahead) * rng.choice([-1, 1])
        angle = np.radians(rng.uniform(25, 80))
        way = np.cos(angle) * _unit(ahead) + np.sin(angle) * _unit(aside)
        length, bend = rng.uniform(10, 40), rng.normal(0, 0.3) * _unit(ahead)
        knots = [start, start + 0.5 * length * way, start + length * _unit(way + bend)]
        radius = rng.uniform(0.6, 0.9) * parent.radii[k]
        made.append(course.branch(knots, radius, max(0.6 * radius, END_RADIUS_MM)))
        parents.append(made[-1])
    return tuple(made)


def _lengths(tubes: list[Tube]) -> np.ndarray:
    """Relative lengths of tubes, 1 in all."""
    lengths = np.array([len(tube.points) for tube in tubes], float)
    return lengths / lengths.sum()


_CARRIERS = (
    "myocardium",
    "right_ventricle",
    "left_atrium",
    "right_atrium",
    "left_atrial_appendage",
    "aorta",
    "pulmonary_artery",
)


class _Course:
    """Draws the branches of one heart."""

    def __init__(self, a: Anatomy, heart: Shape, rv: Shape, least_radius: float):
        self.a = a
        self.heart = heart
        self.rv = rv
        self.least = least_radius
        self.outer = a.lv_radius + a.wall

    def branch(self, guess, start: float, end: float, fixed: int = 0) -> Tube:
        """A vessel near (K, 3) ``guess`` on the heart, its first ``fixed`` knots kept."""
        start, end = max(start, self.least), max(end, self.least)
        path = Tube.along(guess, np.linspace(start, end, len(guess)), step=4.0)
        points, radii = path.points.copy(), path.radii
        kept = guess[:fixed]
        free = np.ones(len(points), bool)
        if fixed:
            near = np.linalg.norm(points - np.asarray(kept[-1]), axis=1).argmin()
            free[: near + 1] = False
        points[free] = self.on_surface(points[free], radii[free] + CLEARANCE_MM)
        return Tube.along(points, radii)

    def on_surface(self, points: np.ndarray, height) -> np.ndarray:
        """``points`` moved along the distance gradient to ``height`` mm above the heart."""
        for _ in range(PROJECTION_STEPS):
            distance, gradient = self.heart.evaluate(points)
            points = points - (distance - height)[:, None] * gradient
        return points

    def around(self, angle: float, apex: float, radius: float = 0.0) -> np.ndarray:
        """A point around the long axis: 0 degrees to the right ventricle, 90 up."""
        x = np.radians(angle)
        r = (radius or self.outer + 2) * self.slimming(apex)
        return at(r * np.cos(x), r * np.sin(x), apex)

    def groove(self, depths, side: int) -> np.ndarray:
        """Angles of the interventricular groove at ``depths`` mm, above (+1) or below (-1).

        The left ventricle's surface is followed towards the right ventricle until that is
        near; beyond its apex the groove goes on as it was.
        """
        sweep = side * np.arange(150.0, 20.0, -1.0)
        angles: list[float] = []
        for depth in depths:
            ring = np.stack([self.around(x, depth) for x in sweep])
            near = np.flatnonzero(self.rv.evaluate(ring)[0] < self.a.coronary_radius)
            angles.append(sweep[near[0]] if near.size else angles[-1] if angles else side * 60.0)
        return np.array(angles)

    def slimming(self, apex: float) -> float:
        """Relative radius of the ventricle at ``apex`` mm below the base."""
        semi = 0.64 * self.a.lv_length + 0.85 * self.a.wall
        z = (apex - self.a.lv_center) / (semi + 2)
        return float(np.sqrt(max(1 - z * z, 0.02)))

    def left(self) -> tuple[Tube, ...]:
        a, r, c = self.a, self.a.coronary_radius, self.a.course
        length = a.lv_length
        root = np.array([9.5, 9.5, 16.0])
        ostium = root + (a.aorta_radius * 1.12 - 1.0) * _unit((-0.95, 0.2, 0.1))
        fork = at(-4, self.outer + 3, 5)
        main = self.branch([ostium, (ostium + fork) / 2, fork], 1.1 * r, r, fixed=1)
        fork = main.points[-1]
        depths = np.array([0.14, 0.3, 0.5, 0.7, 0.85, 1.0]) * a.lad_reach * (length + a.wall)
        angles = self.groove(depths, +1)
        anterior = self.branch(
            [fork, *(self.around(x, z) for x, z in zip(angles, depths))], r, END_RADIUS_MM
        )
        sweep = np.linspace(112, 222 + 8 * c[1], 6)
        circumflex = self.branch(
            [fork, *(self.around(x, 3.0) for x in sweep)], 0.95 * r, 1.1 * END_RADIUS_MM
        )
        branches = [main, anterior, circumflex]
        for k in range(a.diagonals):
            branches.append(
                self.side(
                    anterior,
                    0.22 + 0.18 * k,
                    [(100 + 12 * c[2], 0.5 + 0.12 * k), (118 + 12 * c[2], 0.72 + 0.06 * k)],
                )
            )
        for k in range(a.marginals):
            x = 140 + 34 * k + 6 * c[3]
            branches.append(
                self.side(circumflex, 0.3 + 0.25 * k, [(x + 6, 0.32), (x + 10, 0.62 - 0.06 * k)])
            )
        return tuple(branches)

    def right(self) -> tuple[Tube, ...]:
        a, r, c = self.a, self.a.coronary_radius, self.a.course
        root = np.array([9.5, 9.5, 16.0])
        ostium = root + (a.aorta_radius * 1.12 - 1.0) * _unit((0.45, 0.9, 0.0))
        first = ostium + 6 * _unit((0.45, 0.9, -0.1))
        ring = [self.ring(x) for x in (70, 45, 15, -15, -45, -70)]
        crux = self.around(-68, 2.0)
        main = self.branch([ostium, first, *ring, crux], 0.98 * r, 0.75 * r, fixed=1)
        crux = main.points[-1]
        depths = np.array([0.16, 0.35, 0.55, 0.7]) * a.lv_length
        angles = self.groove(depths, -1)
        posterior = self.branch(
            [crux, *(self.around(x, z) for x, z in zip(angles, depths))], 0.75 * r, END_RADIUS_MM
        )
        lateral = self.branch(
            [crux, self.around(-88, 8.0), self.around(-104, 24.0), self.around(-110, 40.0)],
            0.6 * r,
            END_RADIUS_MM,
        )
        start = main.points[int(0.5 * len(main.points))]
        marginal = self.branch(
            [start, start + 16 * APEX + 3 * c[5], start + 38 * APEX + 3 * c[5]],
            0.6 * r,
            END_RADIUS_MM,
        )
        return main, posterior, lateral, marginal

    def ring(self, angle: float) -> np.ndarray:
        """A point of the right atrioventricular groove."""
        x, rv = np.radians(angle), self.a.rv
        return at(31 + 32 * rv * np.cos(x), -5 + 32 * rv * np.sin(x), 0.0)

    def side(self, parent: Tube, where: float, targets) -> Tube:
        """A side branch from the fraction ``where`` of the parent's length."""
        k = int(where * (len(parent.points) - 1))
        knots = [parent.points[k], *(self.around(x, z * self.a.lv_length) for x, z in targets)]
        return self.branch(knots, 0.75 * parent.radii[k], END_RADIUS_MM)


def _unit(vector) -> np.ndarray:
    return np.asarray(vector, np.float64) / np.linalg.norm(vector)
