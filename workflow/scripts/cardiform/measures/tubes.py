"""Length and width of vessels along their centrelines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import edt
import numpy as np

from ..anatomy.tree import Branch, Forest, trace
from ..geometry.field_of_view import Cut
from ..geometry.isotropic import isotropic_mask
from ..geometry.sdf import class_boxes
from ..geometry.surface import Mesh
from ..volumes import LabelMap
from .sections import Surface
from .table import MM, ONE, Measured

DETAIL = 7  # voxels to the deepest place of a vessel: more say nothing new
FINEST_MM, COARSEST_MM = 0.4, 1.5
MARGIN_MM = 3.0
LEAST_MM = 3.0  # of a branch, beyond the wall of the vessel that it leaves
BULGE = 0.6  # and so many times the depth: sinuses of the aorta are no branches
OSTIUM_MM = 3.0  # a vessel springs from a class if no more lies between them
STEP_MM = 1.0  # between sections
AXIS_SHARE = 0.5  # of the radius, before and behind a place: so long the direction is taken over

Distance = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Vessel:
    """The centrelines of a class, and its sections across them.

    forest : branches, RAS mm.    surface : of the class.
    cut : how the scan cuts the class; None: it does not.
    """

    forest: Forest
    surface: Surface
    cut: Cut | None = None

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The course of every branch up to the surface, and where its sections are."""
        return tuple(self._line(branch) for branch in self.forest.branches)

    def _line(self, branch: Branch) -> Line:
        points = branch.points
        reach = branch.radii[[0, -1]]
        before = [] if branch.parent >= 0 else [self._end(points[::-1], reach[0])]
        behind = [] if branch.forks else [self._end(points, reach[1])]
        course = np.concatenate([*before, points, *behind])
        chosen = self._clear(branch)
        places, ways = points[chosen], directions(points, branch.radii)[chosen]
        areas = np.array([self.surface.area_at(p, way) for p, way in zip(places, ways)])
        known = np.isfinite(areas)
        return Line(course, places[known], np.sqrt(areas[known] / np.pi))

    def _end(self, points: np.ndarray, radius: float) -> np.ndarray:
        """(1, 3) where a course leaves the surface, straight on from its last point; or (0, 3)."""
        way = directions(points, np.full(len(points), radius))[-1]
        ahead = self.surface.ahead(points[-1:], way[None])[0]
        return points[-1:] + ahead * way if ahead <= 3 * radius else np.zeros((0, 3))

    def _clear(self, branch: Branch) -> np.ndarray:
        """The points of a branch at which it is sectioned: none where vessels run into each other.

        A branch that lies within its forks as a whole is sectioned in its middle.
        """
        way = along(branch.points)
        first = 2 * branch.radii[0] if branch.parent >= 0 else 0.0
        last = way[-1] - (branch.radii[-1] if branch.forks else 0.0)
        free = np.flatnonzero((way >= first) & (way <= last))
        if not len(free):
            return np.array([len(way) // 2])
        every = max(1, round(STEP_MM / max(way[-1] / max(len(way) - 1, 1), 1e-6)))
        return free[::every]

    def in_view(self, places: np.ndarray, radii: np.ndarray) -> np.ndarray:
        """(N,) bool: the scan shows the whole section at a place."""
        if self.cut is None:
            return np.ones(len(places), bool)
        return self.cut.depth(places, 0) >= radii


@dataclass(frozen=True, eq=False)
class Line:
    """A branch: its course, and the radius at some places.

    course : (K, 3) RAS mm.    places : (N, 3).
    radii : (N,) mm, of the circle with the area of the section there.
    """

    course: np.ndarray
    places: np.ndarray
    radii: np.ndarray

    @property
    def length(self) -> float:
        return float(along(self.course)[-1])


def trace_vessel(
    label_map: LabelMap,
    value: int,
    mesh: Mesh,
    origins: Mapping[str, Distance],
    cut: Cut | None = None,
) -> Vessel:
    """The centrelines of a class of wide vessels; without a branch where it has none.

    origins : class that they may spring from -> distance to it.
    """
    deepest = _deepest(label_map, value)
    spacing = float(np.clip(deepest / DETAIL, FINEST_MM, COARSEST_MM))
    found = isotropic_mask(label_map, value, spacing, MARGIN_MM) if deepest else None
    if found is None:
        return Vessel(Forest((), ()), Surface(mesh), cut)
    coarse = 3 * float(label_map.spacing.max())
    forest = trace(
        *found,
        dict(origins),
        branch_mm=max(LEAST_MM, BULGE * deepest, coarse),
        smooth_mm=deepest / 3,
        ostium_mm=OSTIUM_MM,
    )
    return Vessel(forest, Surface(mesh), cut)


def vessel_measures(name: str, vessel: Vessel) -> Iterator[Measured]:
    """Length, number of branches and radius of a vessel, and the same of each of its branches.

    What is said of a vessel that the scan cuts is said of the part in view.
    """
    lines = vessel.lines
    if not lines:
        return
    is_cut = vessel.cut is not None
    yield Measured(name, "centreline_length", sum(line.length for line in lines), MM, cut=is_cut)
    yield Measured(name, "branches", len(lines), ONE, cut=is_cut)
    yield from radius_measures(name, np.concatenate([line.radii for line in lines]), cut=is_cut)
    if len(lines) > 1:
        for number, line in enumerate(lines, start=1):
            part = numbered(number)
            yield Measured(name, "length", line.length, MM, part, is_cut)
            yield from radius_measures(name, line.radii, part, is_cut)


def numbered(branch: int) -> str:
    """The part that a branch is; they count from 1."""
    return f"branch_{branch:03d}"


def radius_measures(
    name: str, radii: np.ndarray, part: str = "", cut: bool = False
) -> Iterator[Measured]:
    """Mean, least and greatest radius."""
    if len(radii):
        for word in ("mean", "min", "max"):
            yield Measured(name, f"radius_{word}", getattr(radii, word)(), MM, part, cut)


def along(points: np.ndarray) -> np.ndarray:
    """(K,) mm from the first point of a course to each."""
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def directions(points: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """(K, 3) unit directions of a course, each over a part of the radius there."""
    way = along(points)
    reach = np.maximum(AXIS_SHARE * radii, 1e-3)
    ends = [
        np.stack([np.interp(way + side * reach, way, column) for column in points.T], axis=1)
        for side in (1, -1)
    ]
    ahead = ends[0] - ends[1]
    return ahead / np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-9)


def _deepest(label_map: LabelMap, value: int) -> float:
    """mm from the wall of a class to the place in it that is farthest from it; 0: it is absent."""
    box = class_boxes(label_map.data).get(value)
    if box is None:
        return 0.0
    inside = np.pad(label_map.data[box] == value, 1)
    return float(edt.edt(inside, anisotropy=tuple(map(float, label_map.spacing))).max())
