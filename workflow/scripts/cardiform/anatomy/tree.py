"""Vessel trees: smooth centrelines with radii, cut into branches at the forks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial import cKDTree

from .tree_graph import Distance, VoxelGraph, Way, ways_of

STEP_VOX = 0.5  # between the points of a course
NEAREST = 16  # points of the courses among which a voxel looks for its own
# A voxel farther from the course than this many radii, and a voxel, is no part of the vessel.
BEYOND = 2.0
SNAP_MM = 1.0  # forks nearer to each other than this, or the radius, are one


@dataclass(frozen=True, eq=False)
class Course:
    """A smooth way from an origin or a fork to an end.

    points : (K, 3) float64 RAS mm, evenly spaced.    radii : (K,) float64 mm.
    parent : index of the course that it leaves, -1 at an origin.    at : the parent's point there.
    root : index of its tree.
    """

    points: np.ndarray
    radii: np.ndarray
    parent: int
    at: int
    root: int


@dataclass(frozen=True, eq=False)
class Branch:
    """The piece of a course between two forks, or a fork and an end.

    points, radii : as of a course; the first point is the last of the branch ``parent`` (-1: none).
    course : index of the course that it is a part of; ``tree`` that of its root.
    forks : whether it ends in a fork.
    """

    points: np.ndarray
    radii: np.ndarray
    parent: int
    course: int
    tree: int
    forks: bool

    @property
    def length(self) -> float:
        """mm along the course."""
        return float(np.linalg.norm(np.diff(self.points, axis=0), axis=1).sum())


@dataclass(frozen=True)
class Forest:
    """All trees of a structure.

    branches : a parent before its children.    origins : per tree, the class that it springs from;
    empty where it is a loose part.    specks : parts that are no branch, and ``speck_mm3`` of them.
    """

    branches: tuple[Branch, ...]
    origins: tuple[str, ...]
    specks: int = 0
    speck_mm3: float = 0.0

    def of_tree(self, tree: int) -> list[int]:
        """Indices of the branches of a tree."""
        return [k for k, branch in enumerate(self.branches) if branch.tree == tree]


def trace(
    mask: np.ndarray,
    affine: np.ndarray,
    origins: Mapping[str, Distance],
    *,
    branch_mm: float,
    smooth_mm: float,
    ostium_mm: float,
) -> Forest:
    """The trees of a vessel mask.

    mask : (X, Y, Z) bool.    affine : (4, 4) to RAS mm; the voxels are cubes.
    origins : class that trees may spring from -> distance to its wall; the first counts most.
    branch_mm : shortest way beyond its parent's wall that is a branch; a part shorter than this
        is a speck.
    smooth_mm : Gaussian sigma along the course, of places and radii.
    ostium_mm : a tree springs from a class if no more than this lies between both walls.

    Notes
    -----
    Thinning loses vessels of an even number of voxels, or their ends; so the centreline is made of
    the ways that keep deepest within the mask, from where a tree begins to its ends. A ring
    is opened where both ways round it cost the same. A radius is that of the circle with the mean
    cross-section about its place: the volume of the voxels that are nearest to a piece of the
    course, over its length. So it does not shrink with the voxels, as depths do.
    """
    graph = VoxelGraph.of(mask, affine)
    found = ways_of(graph, origins, branch_mm=branch_mm, ostium_mm=ostium_mm)
    courses = _courses(found.ways, graph, smooth_mm)
    traced = np.unique(graph.part[[root.node for root in found.roots]])
    loose = np.setdiff1d(np.arange(1, len(graph.volumes)), traced)
    centres = graph.places[np.isin(graph.part, traced)]
    for _ in range(2):  # with ends and radii as they were found, and with better ones
        courses = _fitted(courses, centres, graph.spacing**3, smooth_mm)
        courses = _to_tips(courses, centres, graph.spacing / 2)
    return Forest(
        _cut(courses),
        tuple(root.origin for root in found.roots),
        len(loose),
        float(graph.volumes[loose].sum()),
    )


def _courses(ways: Sequence[Way], graph: VoxelGraph, smooth_mm: float) -> list[Course]:
    """Smooth courses along ways through the mask, their radii the depths there."""
    step = STEP_VOX * graph.spacing
    courses: list[Course] = []
    forks: dict[int, list[int]] = {}
    for way in ways:
        places, at = graph.places[way.nodes], -1
        if way.parent >= 0:
            known = forks.setdefault(way.parent, [])
            at = _fork(courses[way.parent], places[0], known, step)
            places[0] = courses[way.parent].points[at]
        even = resampled(np.column_stack([places, graph.depth[way.nodes]]), step)
        points = smoothed(even[:, :3], smooth_mm / step)
        courses.append(Course(points, even[:, 3], way.parent, at, way.root))
    return courses


def _fork(parent: Course, place: np.ndarray, known: list[int], step: float) -> int:
    """The point of a course that a branch leaves; within a radius of a fork or an end, that one."""
    at = int(np.linalg.norm(parent.points - place, axis=1).argmin())
    last = len(parent.points) - 1
    reach = max(round(max(SNAP_MM, float(parent.radii[at])) / step), 1)
    if parent.parent < 0:
        at = max(at, reach)
    at = last if at > last - reach else max(at, 1)
    near = [other for other in known if abs(other - at) <= reach]
    if near:
        return min(near, key=lambda other: abs(other - at))
    known.append(at)
    return at


def resampled(rows: np.ndarray, step: float) -> np.ndarray:
    """(K, 3 + M) points with other columns, evenly about ``step`` mm apart along their polyline."""
    steps = np.linalg.norm(np.diff(rows[:, :3], axis=0), axis=1)
    rows = rows[np.concatenate([[True], steps > 0])]
    way = np.concatenate([[0.0], np.cumsum(steps[steps > 0])])
    even = np.linspace(0, way[-1], max(2, round(way[-1] / step) + 1))
    return np.stack([np.interp(even, way, column) for column in rows.T], axis=1)


def smoothed(points: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian along the course with its ends kept; what it takes of bends is given back."""
    if sigma <= 0:
        return points

    def blurred(values: np.ndarray) -> np.ndarray:
        rim = int(4 * sigma) + 1
        # about its ends the course is turned: so they stay where they are
        wide = np.pad(values, ((rim, rim), (0, 0)), mode="reflect", reflect_type="odd")
        return gaussian_filter1d(wide, sigma, axis=0)[rim:-rim]

    smooth = blurred(points)
    return smooth + blurred(points - smooth)


def _fitted(
    courses: list[Course], centres: np.ndarray, voxel: float, smooth_mm: float
) -> list[Course]:
    """The courses in the middle of the voxels nearest to each piece, radii from their volume.

    centres : (V, 3) of the voxels, RAS mm.    voxel : volume of one, mm^3.
    """
    if not courses:
        return courses
    free, sure = zip(*(_beyond_parent(course, courses) for course in courses))
    points = np.concatenate([c.points[f:] for c, f in zip(courses, free)])
    radii = np.concatenate([c.radii[f:] for c, f in zip(courses, free)])
    count = min(NEAREST, len(points))
    away, near = cKDTree(points).query(centres, k=count)
    away, near = away.reshape(-1, count), near.reshape(-1, count)
    best = (away - radii[near]).argmin(axis=1)[:, None]
    away, own = (np.take_along_axis(x, best, axis=1)[:, 0] for x in (away, near))
    near_own = np.flatnonzero(away <= BEYOND * radii[own] + np.cbrt(voxel))
    own = own[near_own]
    volumes = np.bincount(own, minlength=len(points)) * voxel
    sums = np.stack(
        [np.bincount(own, centres[near_own, k], len(points)) * voxel for k in range(3)], axis=1
    )
    result: list[Course] = []
    start = 0
    for course, first, certain in zip(courses, free, sure):
        piece = slice(start, start + len(course.points) - first)
        start = piece.stop
        fitted = _middled(course, first, certain, volumes[piece], sums[piece], smooth_mm)
        if course.parent >= 0:  # it stays tied to its parent
            fitted.points[0] = result[course.parent].points[course.at]
        result.append(fitted)
    return result


def _beyond_parent(course: Course, courses: list[Course]) -> tuple[int, int]:
    """The first point of a course outside of its parent, and the first that is clear of it.

    What is nearest to the points before belongs to the parent; about those between, the fork has
    no cross-section of its own.
    """
    if course.parent < 0:
        return 0, 1
    parent = courses[course.parent]
    away, near = cKDTree(parent.points).query(course.points)
    gap = away - parent.radii[near]
    outside, clear = np.flatnonzero(gap > 0), np.flatnonzero(gap > course.radii)
    last = len(course.points) - 1
    first = int(outside[0]) if len(outside) else last
    return first, max(int(clear[0]) if len(clear) else last, first + 1)


def _middled(
    course: Course,
    first: int,
    certain: int,
    volumes: np.ndarray,
    sums: np.ndarray,
    smooth_mm: float,
) -> Course:
    """A course in the middle of its voxels, and its radii.

    volumes, sums : (K - first,) mm^3 that belong to each point from ``first`` on, and (..., 3)
        their places times volume. What lies before ``certain`` is left out, and the last point,
        to which all beyond the end belongs.
    """
    count = len(course.points)
    step = _step(course.points)
    weight = np.zeros(count)
    weight[certain : count - 1] = 1.0
    volume, place = np.zeros(count), np.zeros((count, 3))
    volume[first:], place[first:] = volumes, sums
    sigma = max(smooth_mm / step, 1e-3)

    def mean(values: np.ndarray) -> np.ndarray:
        return gaussian_filter1d((values.T * weight).T, sigma, axis=0, mode="constant")

    total, held = mean(np.ones(count)), mean(volume)
    known = np.flatnonzero((total > 0.05) & (held > 0))
    if not len(known):
        return replace(course, points=course.points.copy())
    every = np.arange(count)
    area = held[known] / (total[known] * step)
    off = mean(place - course.points * volume[:, None])[known] / held[known, None]
    off = np.stack([np.interp(every, known, column) for column in off.T], axis=1)
    ahead = np.gradient(course.points, axis=0)
    ahead /= np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-9)
    off -= (off * ahead).sum(axis=1, keepdims=True) * ahead
    if course.parent >= 0:
        off *= np.clip(every / max(certain, 1), 0, 1)[:, None]
    radii = np.interp(every, known, np.sqrt(area / np.pi))
    return replace(course, points=course.points + off, radii=radii)


def _step(points: np.ndarray) -> float:
    """Mean distance between the points of a course, mm."""
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).mean())


def _to_tips(courses: list[Course], centres: np.ndarray, rim: float) -> list[Course]:
    """The courses with ends in the middle of the last ball that fits into the vessel.

    centres : (V, 3) of the voxels, RAS mm.    rim : so far past a centre is the wall, mm.
    """
    if not courses:
        return courses
    voxels = _Voxels(centres, courses, rim)
    last_forks = [0] * len(courses)
    for course in courses:
        if course.parent >= 0:
            last_forks[course.parent] = max(last_forks[course.parent], course.at)
    added, result = [0] * len(courses), []
    for number, course in enumerate(courses):
        points, radii = _moved_end(course.points, course.radii, last_forks[number], number, voxels)
        at = course.at
        if course.parent < 0:
            forks = [c.at for c in courses if c.parent == number]
            keep = len(points) - min(forks, default=len(points) // 2)  # and one before it
            back, radii = _moved_end(points[::-1], radii[::-1], keep, number, voxels)
            added[number] = len(back) - len(points)
            points, radii = back[::-1], radii[::-1]
        else:
            at += added[course.parent]
        result.append(Course(points, radii, course.parent, at, course.root))
    return result


class _Voxels:
    """Voxels, and to which of some courses each is nearest.

    rim : so far past a centre is the wall, mm.
    """

    def __init__(self, centres: np.ndarray, courses: Sequence[Course], rim: float):
        self.rim = rim
        self._tree = cKDTree(centres)
        self._points = cKDTree(np.concatenate([c.points for c in courses]))
        self._course = np.repeat(np.arange(len(courses)), [len(c.points) for c in courses])

    def around(self, place: np.ndarray, reach: float, course: int) -> np.ndarray:
        """(V, 3) of the voxels of a course within ``reach`` mm."""
        found = self._tree.data[self._tree.query_ball_point(place, reach)]
        if not len(found):
            return found
        return found[self._course[self._points.query(found)[1]] == course]


def _moved_end(
    points: np.ndarray, radii: np.ndarray, keep: int, course: int, voxels: _Voxels
) -> tuple[np.ndarray, np.ndarray]:
    """A course made longer or shorter at its last end; nothing up to the point ``keep`` goes."""
    radius = float(radii[-1])
    step = _step(points)
    back = max(len(points) - 1 - round(2 * radius / step), 0)
    ahead = points[-1] - points[back]
    ahead /= max(float(np.linalg.norm(ahead)), 1e-9)
    around = voxels.around(points[-1], 4 * radius + voxels.rim, course) - points[-1]
    along = around @ ahead
    wide = max(0.5 * radius, 2 * voxels.rim)
    core = np.linalg.norm(around - along[:, None] * ahead, axis=1) <= wide
    along = np.sort(along[core & (along >= -2 * radius)])
    if not len(along):
        return points, radii
    # what is beyond a gap is another vessel
    gaps = np.flatnonzero(np.diff(along) > max(radius, 4 * voxels.rim))
    tip = (along[gaps[0]] if len(gaps) else along[-1]) + voxels.rim
    number = round((tip - radius) / step)
    if number > 0:
        more = points[-1] + step * np.arange(1, number + 1)[:, None] * ahead
        return np.concatenate([points, more]), np.concatenate([radii, np.full(number, radius)])
    stop = max(len(points) + number, keep + 1, 2)
    return points[:stop], radii[:stop]


def _cut(courses: Sequence[Course]) -> tuple[Branch, ...]:
    """The courses cut at the forks."""
    forks: list[list[int]] = [[] for _ in courses]
    for course in courses:
        if course.parent >= 0:
            forks[course.parent].append(course.at)
    branches: list[Branch] = []
    ending: dict[tuple[int, int], int] = {}  # (course, point) -> the branch that ends there
    for number, course in enumerate(courses):
        last = len(course.points) - 1
        stops = sorted({*forks[number], last})
        start = 0
        before = ending[course.parent, course.at] if course.parent >= 0 else -1
        for stop in stops:
            piece = slice(start, stop + 1)
            ends_in_fork = stop in forks[number]
            branches.append(
                Branch(
                    course.points[piece], course.radii[piece], before, number, course.root,
                    ends_in_fork,
                )
            )  # fmt: skip
            start, before = stop, len(branches) - 1
            ending[number, stop] = before
    return tuple(branches)
