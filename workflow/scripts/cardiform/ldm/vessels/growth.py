"""From places that lie on centrelines to trees that begin at the aorta."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from ...anatomy.tree import resampled, smoothed
from .field import Votes
from .surroundings import HeartWalls
from .tree import VesselTree

# In voxels of the coarse grid.
MERGE_VOX = 0.3  # votes within about this are one place
APART_VOX = 0.2  # places that are kept lie as far from each other at least
MOST_PLACES = 5000  # the heaviest; 2,500 are many for a heart
COVER_VOX = 0.6  # what lies so near to a branch is a part of it
# The price of a step is this power of its length: ways keep to a vessel, and cross gaps where
# nothing else leads on.
POWER = 4
BLOOD = 3.0  # a gap that is crossed within the heart is as so much wider
# A vessel springs from the aorta where it comes as near as this to its wall, or, where the wall is
# not reached, within the widest gap.
OSTIUM_MM = 4.0
APART_MM, AWAY_MM = 10.0, 15.0  # see cardiform.anatomy.tree_graph
# No vessel runs along the wall of the root, so near to it and so far: what does joins two origins.
ALONG_MM, ALONG_APART_MM = 5.0, 14.0
STEP_MM = 1.0


@dataclass(frozen=True)
class Limits:
    """What is joined, and what is a branch.

    gap_mm : widest gap that is bridged.    branch_mm : shortest branch.
    smooth_mm : Gaussian sigma along the branches.
    """

    gap_mm: float
    branch_mm: float
    smooth_mm: float


@dataclass(frozen=True)
class Grown:
    """A tree, and what became of the votes.

    places : of centrelines that were found.    lost : share of them that no tree reaches.
    bridged : mm of gaps that were bridged, beyond the distance between neighbours.
    """

    tree: VesselTree
    places: int
    lost: float
    bridged: float


def grow(votes: Votes, walls: HeartWalls, spacing: float, limits: Limits) -> Grown:
    """Trees from the wall of the aortic root through the votes; what is too far is left out.

    spacing : edge of a voxel of the coarse grid, mm.
    """
    places, radii = _merged(votes, spacing)
    if not len(places) or not walls.has_root:
        return Grown(VesselTree.nothing(), len(places), float(len(places) > 0), 0.0)
    graph = _edges(places, walls, spacing, limits.gap_mm)
    away = walls.to_root(places)
    roots = _roots(graph, places, away, limits.gap_mm)
    if not len(roots):
        return Grown(VesselTree.nothing(), len(places), 1.0, 0.0)
    cost, before, _ = dijkstra(
        graph, directed=False, indices=roots, min_only=True, return_predecessors=True
    )
    reached = np.isfinite(cost)
    before = np.where(before < 0, -1, before)
    branches = _branches(places, before, cost, COVER_VOX * spacing, limits.branch_mm)
    rows = []
    for nodes, parent in branches:
        points = places[nodes]
        if parent < 0:
            points = np.concatenate([walls.nearest_in_root(points[:1]), points])
            nodes = np.concatenate([nodes[:1], nodes])
        rows.append((points, radii[nodes], parent))
    tree = _smooth(rows, branches, limits.smooth_mm)
    there = np.flatnonzero(before >= 0)
    steps = np.linalg.norm(places[there] - places[before[there]], axis=1)
    return Grown(
        tree,
        len(places),
        float(1 - reached.mean()),
        float(np.maximum(steps - spacing, 0).sum()),
    )


def _merged(votes: Votes, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, 3) and radii (N,): means of the votes about them, evenly spread."""
    if not len(votes.points):
        return np.zeros((0, 3)), np.zeros(0)
    near = cKDTree(votes.points)
    pairs = near.sparse_distance_matrix(near, 2 * MERGE_VOX * spacing, output_type="coo_matrix")
    weight = np.exp(-0.5 * (pairs.data / (MERGE_VOX * spacing)) ** 2)
    weight *= votes.weights[pairs.col]
    shape = (len(votes.points),) * 2
    blend = coo_array((weight, (pairs.row, pairs.col)), shape=shape).tocsr()
    total = np.asarray(blend.sum(axis=1)).ravel()
    points = blend @ votes.points / total[:, None]
    radii = np.exp(blend @ np.log(votes.radii) / total)
    left = np.ones(len(points), bool)
    kept: list[int] = []
    tree = cKDTree(points)
    for node in np.argsort(-total, kind="stable"):
        if len(kept) == MOST_PLACES:
            break
        if left[node]:
            kept.append(int(node))
            left[tree.query_ball_point(points[node], APART_VOX * spacing)] = False
    return points[kept], radii[kept]


def _edges(places: np.ndarray, walls: HeartWalls, spacing: float, gap_mm: float):
    """(N, N) CSR, prices of the steps between places no farther apart than the widest gap."""
    pairs = cKDTree(places).query_pairs(gap_mm, output_type="ndarray")
    ends = places[pairs]
    length = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
    width = np.maximum(length, 1e-3)
    gap = np.flatnonzero(length > spacing)
    if len(gap):
        share = walls.share_inside(ends[gap, 0], ends[gap, 1])
        width[gap] *= 1 + (BLOOD - 1) * share
    return coo_array((width**POWER, tuple(pairs.T)), shape=(len(places),) * 2).tocsr()


def _roots(graph, places: np.ndarray, away: np.ndarray, gap_mm: float) -> np.ndarray:
    """Numbers of the places where vessels spring from the aorta.

    Those nearest to its wall; another one of the same part where a way from one to the other leads
    away from the aorta, or far along its wall. A part that does not reach the wall has one where
    it comes nearest, if that is within the widest gap.
    """
    parts = connected_components(graph, directed=False)[1]
    found: list[int] = []
    candidates = np.flatnonzero(away <= OSTIUM_MM)
    for node in candidates[np.argsort(away[candidates], kind="stable")]:
        if all(_are_apart(graph, places, away, int(node), other, parts) for other in found):
            found.append(int(node))
    for part in set(parts.tolist()) - set(parts[found].tolist()):
        nodes = np.flatnonzero(parts == part)
        nearest = int(nodes[away[nodes].argmin()])
        if away[nearest] <= gap_mm:
            found.append(nearest)
    return np.array(found, int)


def _are_apart(graph, places, away, node: int, other: int, parts: np.ndarray) -> bool:
    """Whether two places are the origins of two trees."""
    between = float(np.linalg.norm(places[node] - places[other]))
    if between < APART_MM:
        return False
    if parts[node] != parts[other]:
        return True
    before = dijkstra(graph, directed=False, indices=other, return_predecessors=True)[1]
    way = [node]
    while before[way[-1]] >= 0:
        way.append(int(before[way[-1]]))
    farthest = float(away[way].max())
    return farthest >= AWAY_MM or (farthest <= ALONG_MM and between >= ALONG_APART_MM)


def _branches(
    places: np.ndarray, before: np.ndarray, cost: np.ndarray, cover: float, branch_mm: float
) -> list[tuple[np.ndarray, int]]:
    """Nodes of each branch, the longest first, with the branch at whose node it begins (-1: a
    root).

    Sato et al., "TEASAR" (2000), as in :mod:`cardiform.anatomy.tree_graph`.
    """
    order = np.flatnonzero(np.isfinite(cost))
    order = order[np.argsort(cost[order], kind="stable")]
    left = np.full(len(places), -1.0)
    for node in order.tolist():
        step = 0.0 if before[node] < 0 else np.linalg.norm(places[node] - places[before[node]])
        left[node] = step + (left[before[node]] if before[node] >= 0 else 0.0)
    tree = cKDTree(places)
    owner = np.full(len(places), -1)
    found: list[tuple[np.ndarray, int]] = []
    while left.max() >= 0:
        way = [int(left.argmax())]
        while before[way[-1]] >= 0 and owner[way[-1]] < 0:
            way.append(int(before[way[-1]]))
        nodes = np.array(way[::-1])
        parent = int(owner[nodes[0]])
        length = np.linalg.norm(np.diff(places[nodes], axis=0), axis=1).sum()
        if length >= branch_mm:
            owner[nodes[1:] if parent >= 0 else nodes] = len(found)
            found.append((nodes, parent))
        for around in tree.query_ball_point(places[nodes], cover):
            left[around] = -1.0
        left[nodes] = -1.0
    return found


def _smooth(
    rows: list[tuple[np.ndarray, np.ndarray, int]],
    branches: list[tuple[np.ndarray, int]],
    smooth_mm: float,
) -> VesselTree:
    """Smooth courses; each begins at a point of its parent, which it leaves there."""
    points: list[np.ndarray] = []
    radii: list[np.ndarray] = []
    before: list[np.ndarray] = []
    spans: list[tuple[int, int]] = []
    number = 0
    for row, radius, parent in rows:
        even = resampled(np.column_stack([row, np.log(radius)]), STEP_MM)
        even = np.column_stack(
            [smoothed(even[:, :3], smooth_mm / STEP_MM), _blurred(even[:, 3], smooth_mm / STEP_MM)]
        )
        first = -1
        if parent >= 0:
            start, stop = spans[parent]
            course = np.concatenate(points)[start:stop]
            first = start + int(np.linalg.norm(course - even[0, :3], axis=1).argmin())
            even = even[1:]
        points.append(even[:, :3])
        radii.append(np.exp(even[:, 3]))
        before.append(np.concatenate([[first], number + np.arange(len(even) - 1)]).astype(int))
        spans.append((number, number + len(even)))
        number += len(even)
    if not points:
        return VesselTree.nothing()
    return VesselTree(np.concatenate(points), np.concatenate(radii), np.concatenate(before))


def _blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian along a course."""
    return gaussian_filter1d(values, sigma, mode="nearest") if sigma > 0 else values
