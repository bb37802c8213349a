"""Length and width of vessels along their centrelines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..anatomy.tree import Branch, Forest, trace
from ..geometry.distances import depth_in
from ..geometry.field_of_view import Cut
from ..geometry.isotropic import isotropic_mask
from ..geometry.sdf import class_boxes
from ..geometry.surface import Mesh
from ..volumes import LabelMap
from .course import REACH, along, centred, directions
from .pruning import without_stubs
from .sections import Surface
from .table import MM, ONE, WHOLE, Measured

DETAIL = 7  # voxels to the deepest place of a vessel: more say nothing new
FINEST_MM, COARSEST_MM = 0.4, 1.5
FINER = 3  # times than the label map: a flat class of large voxels would take a minute
MARGIN_MM = 3.0
LEAST_MM = 5.0  # of a branch, beyond the wall of the vessel that it leaves
BULGE = 0.6  # and so many times the depth: shorter ones need not be traced
OSTIUM_MM = 3.0  # a vessel springs from a class if no more lies between them
STEP_MM = 1.0  # between sections
AXIS_SHARE = 0.5  # of the radius, before and behind a place: its direction is taken over this

Distance = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Vessel:
    """The centrelines of a class, and its sections across them.

    forest : branches as they were traced, RAS mm.    surface : of the class.
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
        radius = float(np.median(branch.radii))
        free = (branch.parent < 0, not branch.forks)
        # so far into a branch reaches the vessel that it leaves, and the fork at its end
        fixed = (0.0 if free[0] else 2 * float(branch.radii[0]), 0.0 if free[1] else radius)
        course = centred(branch.points, radius, self.surface, free=free, fixed=fixed)
        chosen = _clear(course, [radius if f else w for f, w in zip(free, fixed)])
        ahead = directions(course, AXIS_SHARE * radius)
        found = [self.surface.section(course[k], ahead[k], REACH * radius)[0] for k in chosen]
        known = np.isfinite(found)
        return Line(course, chosen[known], np.sqrt(np.array(found)[known] / np.pi))

    @property
    def centred(self) -> Forest:
        """The forest with the courses and radii of :attr:`lines`, up to the surface."""
        branches = []
        for branch, line in zip(self.forest.branches, self.lines):
            radii = np.full(len(line.course), float(np.median(branch.radii)))
            if len(line.places):
                way, at = along(line.course), line.at
                radii = np.interp(way, way[at], line.radii)
            branches.append(replace(branch, points=line.course, radii=radii))
        return replace(self.forest, branches=tuple(branches))

    def in_view(self, places: np.ndarray, radii: np.ndarray) -> np.ndarray:
        """(N,) bool: the scan shows the whole section at a place."""
        if self.cut is None:
            return np.ones(len(places), bool)
        return self.cut.depth(places, 0) >= radii


@dataclass(frozen=True, eq=False)
class Line:
    """A branch: its course, and the radius at some places.

    course : (K, 3) RAS mm.    at : (N,) int, the points of it that have a section.
    radii : (N,) mm, of the circle with the area of the section there.
    """

    course: np.ndarray
    at: np.ndarray
    radii: np.ndarray

    @property
    def places(self) -> np.ndarray:
        """(N, 3) RAS mm."""
        return self.course[self.at]

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
    finest = max(FINEST_MM, float(label_map.spacing.min()) / FINER)
    spacing = float(np.clip(deepest / DETAIL, finest, max(finest, COARSEST_MM)))
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
    return Vessel(without_stubs(forest), Surface(mesh), cut)


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
    name: str, radii: np.ndarray, part: str = WHOLE, cut: bool = False
) -> Iterator[Measured]:
    """Mean, least and greatest radius."""
    if len(radii):
        for word in ("mean", "min", "max"):
            yield Measured(name, f"radius_{word}", getattr(radii, word)(), MM, part, cut)


def _clear(course: np.ndarray, ends: Sequence[float]) -> np.ndarray:
    """The points of a course at which it is sectioned: not nearer to its ends than this, mm.

    One that is shorter is sectioned in its middle.
    """
    way = along(course)
    free = np.flatnonzero((way >= ends[0]) & (way <= way[-1] - ends[1]))
    if not len(free):
        return np.array([int(np.abs(way - way[-1] / 2).argmin())])
    every = max(1, round(STEP_MM / max(way[-1] / max(len(way) - 1, 1), 1e-6)))
    return free[::every]


def _deepest(label_map: LabelMap, value: int) -> float:
    """mm from the wall of a class to the place in it that is farthest from it; 0: it is absent."""
    box = class_boxes(label_map.data).get(value)
    if box is None:
        return 0.0
    inside = np.pad(label_map.data[box] == value, 1)
    return float(depth_in(inside, label_map.spacing).max())
