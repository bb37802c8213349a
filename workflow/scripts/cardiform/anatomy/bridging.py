"""Gaps in vessels: ends that face each other are joined along the course that they point to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from .centreline import Centreline

LEAST_MM = 2.0  # a part that is shorter has no direction
SIDE_COST = 1.5  # an end that meets another vessel's side, against one that meets an end


@dataclass(frozen=True)
class Limits:
    """What may be joined.

    gap_mm : widest gap between the walls, of ends that face each other; times the cosine of the
        sharper turn for others, of which less is certain.
    angle_deg : sharpest turn at either end; at 90 no gap is left, however narrow.
    radius_ratio : most that the radii of both sides differ.
    """

    gap_mm: float
    angle_deg: float
    radius_ratio: float

    @property
    def least_cosine(self) -> float:
        """Of the sharpest turn, 90 degrees at most: earlier files may say more."""
        return float(np.cos(np.radians(min(self.angle_deg, 90.0))))


@dataclass(frozen=True)
class Bridge:
    """A joint between two parts: its course (K, 3) in mm and its radii (K,), mm."""

    course: np.ndarray
    radii: np.ndarray


def bridges(
    line: Centreline,
    limits: Limits,
    *,
    large: np.ndarray | None = None,
    rooted: np.ndarray | None = None,
) -> list[Bridge]:
    """Joints between parts of a centreline, the most plausible first; none closes a loop.

    large : (N,) bool nodes of parts of some volume. Others that are too short for a direction
        are specks, and join nothing.
    rooted : (N,) bool nodes of parts that reach the vessel they spring from: two such parts are
        two trees, and nothing joins them.
    """
    fit = _long(line) if large is None else _long(line) | large
    ends = [_End(line, node) for node in line.ends() if fit[node]]
    candidates = sorted(
        (found for end in ends for found in _candidates(end, line, limits, ends, fit)),
        key=lambda c: (c[0], c[1].node, c[2]),
    )
    belongs = np.arange(line.parts.max() + 1 if len(line) else 0)
    tree = np.zeros(len(belongs), bool)
    if rooted is not None:
        tree[line.parts[rooted]] = True
    used: set[int] = set()
    result = []
    for _, end, node in candidates:
        a, b = belongs[line.parts[end.node]], belongs[line.parts[node]]
        if a == b or end.node in used or (tree[a] and tree[b]):
            continue
        tree[a] |= tree[b]
        belongs[belongs == b] = a
        other = next((e for e in ends if e.node == node), None)
        used |= {end.node} | ({node} if other else set())
        result.append(_bridge(end, line, node, other))
    return result


def draw(mask: np.ndarray, spacing: float, made: list[Bridge]) -> np.ndarray:
    """(X, Y, Z) bool: ``mask`` with tubes along the bridges."""
    result = mask.copy()
    for bridge in made:
        low = (bridge.course - bridge.radii[:, None]).min(axis=0) / spacing
        high = (bridge.course + bridge.radii[:, None]).max(axis=0) / spacing
        low = np.maximum(np.floor(low).astype(int), 0)
        high = np.minimum(np.ceil(high).astype(int) + 1, mask.shape)
        grid = (np.indices(high - low).reshape(3, -1).T + low) * spacing
        reach, nearest = cKDTree(bridge.course).query(grid)
        inside = (reach <= bridge.radii[nearest]).reshape(high - low)
        result[tuple(map(slice, low, high))] |= inside
    return result


def _long(line: Centreline) -> np.ndarray:
    """(N,) bool: nodes of parts that are long enough for a direction."""
    if not len(line):
        return np.zeros(0, bool)
    parts, points = line.parts, line.points
    low, high = (np.full((parts.max() + 1, 3), s * np.inf) for s in (1, -1))
    np.minimum.at(low, parts, points)
    np.maximum.at(high, parts, points)
    return (np.linalg.norm(high - low, axis=1) >= LEAST_MM - 1e-9)[parts]


class _End:
    """An end of a centreline with its direction and radius."""

    def __init__(self, line: Centreline, node: int):
        self.node, self.point = node, line.points[node]
        self.direction, self.radius = line.outward(node)

    def surely(self, turn: float, least: float) -> float:
        """The cosine of a turn; the least that is allowed where there is no direction."""
        return turn if self.direction.any() else least


def _candidates(
    end: _End, line: Centreline, limits: Limits, ends: list[_End], fit: np.ndarray
) -> Iterator[tuple[float, _End, int]]:
    """(cost, end, node) of every node of another part that the end may be joined to."""
    reach = limits.gap_mm + end.radius + line.radius.max()
    way = line.points - end.point
    distance = np.linalg.norm(way, axis=1)
    near = (distance <= reach) & (line.parts != line.parts[end.node]) & fit
    gap = distance - end.radius - line.radius
    near &= gap <= limits.gap_mm
    by_node = {e.node: e for e in ends}
    least = limits.least_cosine
    for node in np.flatnonzero(near):
        ahead = way[node] / max(distance[node], 1e-9)
        turn = _cosine(end.direction, ahead)
        sure = end.surely(turn, least)
        other = by_node.get(int(node))
        radius = line.radius[node] if other is None else other.radius
        ratio = radius / max(end.radius, 1e-9)
        if turn < least or ratio < 1 / limits.radius_ratio:
            continue
        if other is None:
            cost = SIDE_COST
        else:
            back = _cosine(other.direction, -ahead)
            if back < least or ratio > limits.radius_ratio:
                continue
            cost, sure = 2 - back, min(sure, other.surely(back, least))
        if gap[node] > limits.gap_mm * sure:
            continue
        yield cost * (2 - turn) * distance[node], end, int(node)


def _cosine(direction: np.ndarray, way: np.ndarray) -> float:
    """1 where there is no direction: a lone node may be joined either way."""
    return float(direction @ way) if direction.any() else 1.0


def _bridge(end: _End, line: Centreline, node: int, other: _End | None) -> Bridge:
    """A cubic Hermite curve that leaves both sides in their directions."""
    start, stop = end.point, line.points[node]
    chord = stop - start
    length = float(np.linalg.norm(chord))
    leave = end.direction * length if end.direction.any() else chord
    arrive = -other.direction * length if other and other.direction.any() else chord
    t = np.linspace(0, 1, max(int(4 * length / line.spacing), 2))[:, None]
    course = (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * leave
        + (3 * t**2 - 2 * t**3) * stop
        + (t**3 - t**2) * arrive
    )
    radius = other.radius if other else min(end.radius, line.radius[node])
    return Bridge(course, (1 - t[:, 0]) * end.radius + t[:, 0] * radius)
