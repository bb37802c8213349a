"""The middle line of a wide vessel: through the middles of its sections, up to its ends."""

from __future__ import annotations

import numpy as np

from ..anatomy.tree import resampled, smoothed
from .sections import Surface

STEP = 0.25  # of the radius, between the points of a course
ROUNDS = 3  # of finding the sections' middles, and the sections across the new course
SMOOTH = 0.3  # of the radius, sigma along the course
WIDEST = 1.6  # a section with so many times the radius is one through another vessel too
REACH = 3.0  # of the radius: so far a section is looked for
NEAR_END = 0.5  # of the radius: nearer to an end a section may be cut off by it


def centred(
    points: np.ndarray,
    radius: float,
    surface: Surface,
    *,
    free: tuple[bool, bool],
    fixed: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """(K, 3) RAS mm, the middle line of a vessel from end to end.

    points : (N, 3) a way through it, which may turn into a corner at a free end.
    radius : mm, usual of the vessel.
    free : whether the vessel ends there; its line goes on to the surface then.
    fixed : mm at both ends in which the way stays as it is: vessels run into each other there.
    """
    step = STEP * radius
    line = _trimmed(resampled(points, step), radius, free)
    for _ in range(ROUNDS):
        line = _moved(line, radius, surface, fixed)
        line = smoothed(resampled(line, step), SMOOTH / STEP)
    if free[1]:
        line = _to_end(line, radius, surface)
    if free[0]:
        line = _to_end(line[::-1], radius, surface)[::-1]
    return line


def along(points: np.ndarray) -> np.ndarray:
    """(K,) mm from the first point of a course to each."""
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def directions(points: np.ndarray, reach: float) -> np.ndarray:
    """(K, 3) unit directions of a course, each over ``reach`` mm before and behind."""
    way = along(points)
    ends = [
        np.stack([np.interp(way + side * reach, way, column) for column in points.T], axis=1)
        for side in (1, -1)
    ]
    ahead = ends[0] - ends[1]
    return ahead / np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-9)


def _trimmed(line: np.ndarray, radius: float, free: tuple[bool, bool]) -> np.ndarray:
    """A way without what may lie in corners, but at least its middle third."""
    way = along(line)
    length = way[-1]
    most = length / 3
    start = min(radius, most) if free[0] else 0.0
    stop = length - (min(radius, most) if free[1] else 0.0)
    kept = line[(way >= start) & (way <= stop)]
    if len(kept) >= 2:
        return kept
    return np.stack([np.interp([start, stop], way, column) for column in line.T], axis=1)


def _moved(
    line: np.ndarray, radius: float, surface: Surface, fixed: tuple[float, float]
) -> np.ndarray:
    """The points in the middle of their sections, where these are the vessel's own."""
    way, ahead = along(line), directions(line, radius)
    result = line.copy()
    for k in np.flatnonzero((way >= fixed[0]) & (way <= way[-1] - fixed[1])):
        area, middle = surface.section(line[k], ahead[k], REACH * radius)
        if area <= np.pi * (WIDEST * radius) ** 2:
            result[k] = middle
    return result


def _to_end(line: np.ndarray, radius: float, surface: Surface) -> np.ndarray:
    """A course with its last end at the surface, step by step through the middles of sections."""
    step = STEP * radius
    points = [*line]
    for _ in range(int(4 / STEP)):
        tail = np.array(points[-int(1.5 / STEP) :])
        ahead = directions(tail, radius)[-1]
        left = float(surface.ahead(tail[-1:], ahead[None])[0][0])
        if not left <= 4 * radius:
            break
        if left <= NEAR_END * radius + step:
            points.append(tail[-1] + left * ahead)
            break
        place = tail[-1] + step * ahead
        area, middle = surface.section(place, ahead, REACH * radius)
        points.append(middle if area <= np.pi * (WIDEST * radius) ** 2 else place)
    return np.array(points)
