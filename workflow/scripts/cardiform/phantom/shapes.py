"""Smooth solids with signed distances: ellipsoids, tubes along splines, and their unions.

Every shape answers ``evaluate(points) -> (distance, gradient)``: the distance is negative
inside, in millimetres, exact to first order at the surface (tubes: everywhere outside the
joints), and the gradient has unit length. The smooth union is the polynomial one of
I. Quilez, "Smooth minimum" (2013), the ellipsoid distance the first-order one of
G. Taubin, "Distance approximations for rasterizing implicit curves" (1994); both are
divided by the length of their gradient, which keeps them first-order exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree

# Distance between the centres of a sampled tube, mm: with radii of 0.8 mm and more, and
# curvature radii of 5 mm and more, the polyline departs from the spline by less than 0.02 mm.
TUBE_STEP_MM = 0.8
# Below this the gradient of a blend says nothing: two fields pull in opposite directions.
LEAST_GRADIENT = 0.3


class Shape(Protocol):
    """A solid."""

    @property
    def box(self) -> np.ndarray:
        """(2, 3) corners of a box around the solid, mm."""

    def evaluate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) points to (N,) signed distances in mm and (N, 3) unit gradients."""


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """An ellipsoid: center (3,), semi-axes (3,) mm, columns of ``axes`` (3, 3) orthonormal."""

    center: np.ndarray
    radii: np.ndarray
    axes: np.ndarray = field(default_factory=lambda: np.eye(3))

    @property
    def box(self) -> np.ndarray:
        half = np.linalg.norm(self.axes * self.radii, axis=1)
        return np.stack([self.center - half, self.center + half])

    def evaluate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        local = (points - self.center) @ self.axes / self.radii
        k0 = np.linalg.norm(local, axis=1)
        slope = local / self.radii
        k1 = np.maximum(np.linalg.norm(slope, axis=1), 1e-9)
        return k0 * (k0 - 1) / k1, (slope / k1[:, None]) @ self.axes.T


@dataclass(frozen=True, eq=False)
class HalfSpace:
    """The points p with normal . p < level (unit ``normal``, ``level`` in mm)."""

    normal: np.ndarray
    level: float

    @property
    def box(self) -> np.ndarray:
        return np.array([[-np.inf] * 3, [np.inf] * 3])

    def evaluate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return points @ self.normal - self.level, np.broadcast_to(self.normal, points.shape)


@dataclass(frozen=True, eq=False)
class Tube:
    """Cones with round ends along a polyline.

    points : (K, 3) float64, mm, K >= 2, about ``TUBE_STEP_MM`` apart.
    radii : (K,) float64, mm; neighbours differ by less than their distance.
    """

    points: np.ndarray
    radii: np.ndarray

    @classmethod
    def along(cls, knots, radii, step: float = TUBE_STEP_MM) -> Tube:
        """The tube along the cubic spline through (K, 3) ``knots`` with (K,) ``radii``."""
        knots, radii = np.asarray(knots, np.float64), np.asarray(radii, np.float64)
        # Centripetal parameters keep the spline from overshooting between uneven knots.
        steps = np.sqrt(np.linalg.norm(np.diff(knots, axis=0), axis=1))
        t = np.concatenate([[0], np.cumsum(steps)])
        dense = CubicSpline(t, knots, bc_type="natural")(np.linspace(0, t[-1], 40 * len(t)))
        way = arc_length(dense)
        number = max(2, int(np.ceil(way[-1] / step)) + 1)
        even = np.linspace(0, way[-1], number)
        points = np.stack([np.interp(even, way, dense[:, k]) for k in range(3)], axis=1)
        fine_t = np.interp(even, way, np.linspace(0, t[-1], 40 * len(t)))
        return cls(points, np.interp(fine_t, t, radii))

    @cached_property
    def box(self) -> np.ndarray:
        r = self.radii[:, None]
        return np.stack([(self.points - r).min(axis=0), (self.points + r).max(axis=0)])

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.points)

    @cached_property
    def _cones(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Edge vectors (K - 1, 3), their lengths, radius steps, and foot shifts per mm.

        The sphere that is nearest to a point beside a cone does not sit at the foot of the
        perpendicular but ``shift`` times the distance towards the thick end.
        """
        edges = np.diff(self.points, axis=0)
        lengths = np.linalg.norm(edges, axis=1)
        slope = np.diff(self.radii) / lengths
        return edges, lengths, np.diff(self.radii), slope / np.sqrt(1 - slope**2)

    def evaluate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        away, nearest = self._tree.query(points)
        last = len(self.radii) - 2
        _, lengths, _, shift = self._cones
        # From the nearest centre towards the thick end, as far as the cone leans.
        first = np.minimum(nearest, last)
        nearest = nearest + np.rint(shift[first] * away / lengths[first]).astype(np.int64)
        best, gradient = self._cone(points, np.clip(nearest, 0, last))
        other, other_gradient = self._cone(points, np.clip(nearest - 1, 0, last))
        closer = other < best
        return (
            np.where(closer, other, best),
            np.where(closer[:, None], other_gradient, gradient),
        )

    def _cone(self, points: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance to the round cone between centres ``index`` and ``index + 1``, (N,) each."""
        edges, lengths, steps, shift = self._cones
        start, edge, length = self.points[index], edges[index], lengths[index]
        along = np.einsum("ij,ij->i", points - start, edge) / length**2
        beside = np.linalg.norm(points - (start + along[:, None] * edge), axis=1)
        along = np.clip(along + shift[index] * beside / length, 0, 1)
        away = points - (start + along[:, None] * edge)
        distance = np.maximum(np.linalg.norm(away, axis=1), 1e-9)
        return distance - (self.radii[index] + along * steps[index]), away / distance[:, None]


@dataclass(frozen=True, eq=False)
class Union:
    """The union of shapes, blended where their distances differ by less than ``blend`` mm."""

    parts: tuple[Shape, ...]
    blend: float = 0.0

    @cached_property
    def box(self) -> np.ndarray:
        boxes = np.stack([part.box for part in self.parts])
        # A blend adds at most blend / 4 on the surface of two equally near parts.
        swell = self.blend / 4
        return np.stack([boxes[:, 0].min(axis=0) - swell, boxes[:, 1].max(axis=0) + swell])

    def evaluate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distance, gradient = self.parts[0].evaluate(points)
        for part in self.parts[1:]:
            # A part whose box is farther than the distance so far cannot change it.
            near = np.flatnonzero(box_distance(part.box, points) < distance + self.blend)
            if not near.size:
                continue
            gradient = np.array(gradient)
            distance[near], gradient[near] = smooth_minimum(
                (distance[near], gradient[near]), part.evaluate(points[near]), self.blend
            )
        return distance, gradient


@dataclass(frozen=True, eq=False)
class Cut:
    """``base`` where none of ``cutters``, each grown by ``margin`` mm, reaches.

    blend : rounds the edges that the cut makes, mm.
    """

    base: Shape
    cutters: tuple[Shape, ...]
    margin: float = 0.0
    blend: float = 0.0

    @property
    def box(self) -> np.ndarray:
        return self.base.box

    def evaluate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        distance, gradient = self.base.evaluate(points)
        distance, gradient = -distance, -gradient
        for cutter in self.cutters:
            other, other_gradient = cutter.evaluate(points)
            distance, gradient = smooth_minimum(
                (distance, gradient), (other - self.margin, other_gradient), self.blend
            )
        return -distance, -gradient


def smooth_minimum(first, second, blend: float) -> tuple[np.ndarray, np.ndarray]:
    """The smaller of two (distance, gradient) fields, blended over ``blend`` mm."""
    (a, ga), (b, gb) = first, second
    if blend <= 0:
        closer = b < a
        return np.where(closer, b, a), np.where(closer[:, None], gb, ga)
    weight = np.clip(0.5 + 0.5 * (b - a) / blend, 0, 1)
    distance = b + weight * (a - b) - blend * weight * (1 - weight)
    gradient = gb + weight[:, None] * (ga - gb)
    length = np.maximum(np.linalg.norm(gradient, axis=1), LEAST_GRADIENT)
    return distance / length, gradient / length[:, None]


def box_distance(box: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N,) distances in mm from (N, 3) points to a box, 0 inside."""
    beyond = np.maximum(np.maximum(box[0] - points, points - box[1]), 0)
    return np.linalg.norm(beyond, axis=1)


def arc_length(points: np.ndarray) -> np.ndarray:
    """(K,) way along (K, 3) points, mm, from 0."""
    return np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
