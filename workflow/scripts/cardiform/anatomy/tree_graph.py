"""Ways through a vessel mask, from where its trees begin to all their ends."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from ..geometry.distances import depth_in
from ..geometry.frame import apply_affine
from .components import components

# (N, 3) RAS mm -> (N,) mm to the nearest wall of a class
Distance = Callable[[np.ndarray], np.ndarray]

# A millimetre costs this power of one over the depth: ways keep to the middle of a vessel.
CENTRING = 3
# What lies so near to a way, in its depths and voxels, is a part of that vessel.
SCALE, RIM_VOX = 1.5, 1.5
# Two places near a class are two origins where they lie apart by this, and the way from one to
# the other leads away from the class by that; otherwise the vessel passes it twice.
APART_MM, AWAY_MM = 10.0, 15.0
THIN_SHARE = 0.6  # a second origin is not much thinner than the first
NONE = -9999  # of scipy: no node before


@dataclass(frozen=True)
class Root:
    """Where a tree begins.

    node : a voxel's number.    origin : the class that it springs from; empty: a loose part.
    """

    node: int
    origin: str


@dataclass(frozen=True, eq=False)
class Way:
    """A way from a root or a fork to the middle of the last ball that fits into an end.

    nodes : (K,) int; the first is a node of the way number ``parent``, or root number ``root``
        where parent is -1.
    """

    nodes: np.ndarray
    parent: int
    root: int


@dataclass(frozen=True, eq=False)
class VoxelGraph:
    """The voxels of a mask, each tied to its neighbours at faces, edges and corners.

    places : (N, 3) float64 RAS mm.    depth : (N,) float64 mm to the wall.
    part : (N,) int, number of the component, from 1.    volumes : mm^3 of each, 0 first.
    lengths, costs : (N, N) CSR, mm and cost of each step.
    """

    places: np.ndarray
    depth: np.ndarray
    part: np.ndarray
    volumes: np.ndarray
    spacing: float
    lengths: csr_array
    costs: csr_array
    tree: cKDTree = field(repr=False)

    @classmethod
    def of(cls, mask: np.ndarray, affine: np.ndarray) -> VoxelGraph:
        """Of an (X, Y, Z) bool mask of cubes; affine : (4, 4) to RAS mm."""
        spacing = float(np.linalg.norm(affine[:3, 0]))
        labelled, voxels = components(mask)
        index = np.argwhere(mask)
        inside = tuple(index.T)
        # the wall runs half a voxel before the nearest centre outside
        depth = depth_in(np.pad(mask, 1), spacing)[1:-1, 1:-1, 1:-1][inside]
        depth = np.maximum(depth.astype(np.float64) - spacing / 2, spacing / 4)
        number = np.full(np.array(mask.shape) + 2, -1)
        number[tuple((index + 1).T)] = np.arange(len(index))
        pairs, steps = [np.zeros((0, 2), int)], [np.zeros(0)]
        for offset in itertools.product((-1, 0, 1), repeat=3):
            if offset > (0, 0, 0):
                other = number[tuple((index + 1 + offset).T)]
                there = np.flatnonzero(other >= 0)
                pairs.append(np.stack([there, other[there]], axis=1))
                steps.append(np.full(len(there), spacing * np.linalg.norm(offset)))
        both, length = np.concatenate(pairs), np.concatenate(steps)
        cost = length * (2 / (depth[both[:, 0]] + depth[both[:, 1]])) ** CENTRING
        places = apply_affine(affine, index.astype(np.float64))

        def links(values: np.ndarray) -> csr_array:
            ends = (both[:, 0], both[:, 1])
            half = csr_array((values, ends), shape=(len(index),) * 2)
            return csr_array(half + half.T)

        part, volumes = labelled[inside], voxels * spacing**3
        return cls(
            places, depth, part, volumes, spacing, links(length), links(cost), cKDTree(places)
        )

    def thickness(self, node: int) -> float:
        """The greatest depth of the component within 5 mm of a node, mm."""
        near = np.array(self.tree.query_ball_point(self.places[node], 5.0))
        return float(self.depth[near[self.part[near] == self.part[node]]].max())


@dataclass(frozen=True)
class Ways:
    """All ways, a parent before its children, and the roots of their trees."""

    ways: list[Way]
    roots: list[Root]


def ways_of(
    graph: VoxelGraph, origins: Mapping[str, Distance], *, branch_mm: float, ostium_mm: float
) -> Ways:
    """Ways to all ends of all parts.

    origins : class that trees may spring from -> distance to it; the first that is near wins.
    branch_mm : shortest way beyond its parent's wall that is a branch; a part whose ways are all
        shorter is a speck and has none.
    ostium_mm : a part springs from a class if it has a voxel so near to it.
    """
    parts = [part for part in _by_part(graph) if _diagonal(graph, part) >= branch_mm]
    roots: list[Root] = []
    for part in parts:
        roots += _origins(graph, part, origins, ostium_mm)
    ways = _walked(graph, roots, branch_mm)
    used = sorted({way.root for way in ways})
    rooted = {int(graph.part[root.node]) for root in roots}
    loose = [part for part in parts if int(graph.part[part[0]]) not in rooted]
    kept = [roots[k] for k in used]
    more = _loose_roots(graph, loose, kept, origins, branch_mm)
    return _renumbered(ways, roots, used, _walked(graph, more, branch_mm), more)


def _renumbered(
    ways: list[Way], roots: list[Root], used: list[int], loose: list[Way], more: list[Root]
) -> Ways:
    """Ways from origins, then those of loose parts; roots without a way are left out."""
    place = {root: k for k, root in enumerate(used)}
    also = sorted({way.root for way in loose})
    shift = {root: len(used) + k for k, root in enumerate(also)}
    result = [Way(w.nodes, w.parent, place[w.root]) for w in ways]
    for way in loose:
        parent = way.parent + len(ways) if way.parent >= 0 else -1
        result.append(Way(way.nodes, parent, shift[way.root]))
    return Ways(result, [*(roots[k] for k in used), *(more[k] for k in also)])


def _by_part(graph: VoxelGraph) -> list[np.ndarray]:
    """The nodes of each component."""
    order = np.argsort(graph.part, kind="stable")
    borders = np.flatnonzero(np.diff(graph.part[order])) + 1
    return [part for part in np.split(order, borders) if len(part)]


def _diagonal(graph: VoxelGraph, part: np.ndarray) -> float:
    """mm across the box of a component: no way through it that is straight is longer."""
    places = graph.places[part]
    return float(np.linalg.norm(np.ptp(places, axis=0))) + graph.spacing


def _origins(
    graph: VoxelGraph, part: np.ndarray, origins: Mapping[str, Distance], ostium_mm: float
) -> list[Root]:
    """The roots of a part that springs from a class: one for each place where it does."""
    for name, distance in origins.items():
        away = np.full(len(graph.places), np.inf)
        away[part] = np.maximum(distance(graph.places[part]) - graph.spacing / 2, 0)
        near = part[away[part] <= ostium_mm]
        if not len(near):
            continue
        labels = connected_components(graph.lengths[near][:, near], directed=False)[1]
        seeds = []
        for k in range(labels.max() + 1):
            seeds.append(_end_in(graph, near[labels == k]))
        seeds.sort(key=lambda seed: (away[seed] - graph.depth[seed], seed))
        found = [seeds[0]]
        thick = graph.thickness(seeds[0])
        for seed in seeds[1:]:
            apart = all(_is_apart(graph, away, seed, other) for other in found)
            if apart and graph.thickness(seed) >= THIN_SHARE * thick:
                found.append(seed)
        return [Root(seed, name) for seed in found]
    return []


def _is_apart(graph: VoxelGraph, away: np.ndarray, seed: int, other: int) -> bool:
    """Whether two places of a part are the origins of two trees."""
    if np.linalg.norm(graph.places[seed] - graph.places[other]) < APART_MM:
        return False
    before = dijkstra(graph.costs, indices=other, return_predecessors=True)[1]
    return float(away[_back(before, seed)].max()) >= AWAY_MM


def _loose_roots(
    graph: VoxelGraph,
    parts: Iterable[np.ndarray],
    rooted: list[Root],
    origins: Mapping[str, Distance],
    branch_mm: float,
) -> list[Root]:
    """A root for every loose part: its end that is nearest to a part with a root.

    The part with the smallest gap comes first, and counts for those after it: so the pieces of a
    broken vessel follow each other. Where nothing has an origin, the first is the part with the
    end nearest to the first class, or the thickest end.
    """
    ends = {}
    for part in parts:
        start = _farthest(graph, int(part[0]))
        ways = _walked(graph, [Root(start, "")], branch_mm)
        if ways:
            ends[int(graph.part[part[0]])] = [start, *(int(way.nodes[-1]) for way in ways)]
    known = [int(graph.part[root.node]) for root in rooted]
    found = []
    while ends:
        others = cKDTree(graph.places[np.isin(graph.part, known)]) if known else None
        gaps = {}
        for number, nodes in ends.items():
            if others is not None:
                gap = others.query(graph.places[nodes])[0]
            elif origins:
                gap = next(iter(origins.values()))(graph.places[nodes])
            else:
                gap = -np.array([graph.thickness(node) for node in nodes])
            gaps[float(gap.min()), number] = nodes[int(gap.argmin())]
        (_, number), node = min(gaps.items())
        found.append(Root(node, ""))
        known.append(number)
        del ends[number]
    return found


def _farthest(graph: VoxelGraph, node: int) -> int:
    """The middle of the end of a component that is farthest from a node."""
    return _end_in(graph, np.flatnonzero(graph.part == graph.part[node]), node)


def _end_in(graph: VoxelGraph, patch: np.ndarray, start: int = -1) -> int:
    """The middle of the end, among some nodes of a component, that is farthest from a node.

    A vessel may lie along what it springs from: it begins where it ends, not where it is nearest.

    start : -1: the node that is farthest from the patch itself.
    """
    if start < 0:
        way = dijkstra(graph.lengths, indices=int(patch[0]))
        start = int(np.where(np.isfinite(way), way, -1).argmax())
    way = dijkstra(graph.lengths, indices=start)
    end = int(patch[way[patch].argmax()])
    before = dijkstra(graph.costs, indices=start, return_predecessors=True)[1]
    return int(_without_tip(graph, _back(before, end)[::-1])[-1])


def _walked(graph: VoxelGraph, roots: list[Root], branch_mm: float) -> list[Way]:
    """The ways from some roots, the longest first; each covers what lies around it.

    Sato et al., "TEASAR" (2000), with the cost of a step by depth.
    """
    if not roots:
        return []
    seeds = [root.node for root in roots]
    cost, before, source = dijkstra(
        graph.costs, indices=seeds, min_only=True, return_predecessors=True
    )
    left = _lengths(graph, cost, before)
    owner = np.full(len(cost), -1)  # of the nodes of ways, the number of the way
    numbers = {seed: k for k, seed in enumerate(seeds)}
    ways: list[Way] = []
    while True:
        tip = int(left.argmax())
        if left[tip] < 0:
            return ways
        nodes = _back(before, tip, owner)[::-1]
        fork = int(nodes[0])
        length = np.linalg.norm(np.diff(graph.places[nodes], axis=0), axis=1).sum()
        parent = int(owner[fork])
        trimmed = _without_tip(graph, nodes)
        if parent >= 0:
            enough = length - graph.depth[fork] >= branch_mm and len(trimmed) > 1
        else:
            own = np.linalg.norm(np.diff(graph.places[trimmed], axis=0), axis=1).sum()
            enough = own >= branch_mm
        if enough:
            owner[trimmed[1:] if parent >= 0 else trimmed] = len(ways)
            ways.append(Way(trimmed, parent, numbers[int(source[tip])]))
        elif parent < 0:  # its longest way: the whole part is a speck
            left[graph.part == graph.part[tip]] = -1.0
        for node in (tip, *nodes):
            reach = SCALE * graph.depth[node] + RIM_VOX * graph.spacing
            around = np.array(graph.tree.query_ball_point(graph.places[node], reach))
            left[around[graph.part[around] == graph.part[node]]] = -1.0


def _lengths(graph: VoxelGraph, cost: np.ndarray, before: np.ndarray) -> np.ndarray:
    """(N,) mm of the cheapest way to each node; -1 where none leads."""
    reached = np.flatnonzero(np.isfinite(cost))
    order = reached[np.argsort(cost[reached], kind="stable")]
    order = order[before[order] != NONE]
    steps = np.linalg.norm(graph.places[order] - graph.places[before[order]], axis=1)
    way = np.where(np.isfinite(cost), 0.0, -1.0)
    for node, earlier, step in zip(order.tolist(), before[order].tolist(), steps.tolist()):
        way[node] = way[earlier] + step
    return way


def _back(before: np.ndarray, node: int, owner: np.ndarray | None = None) -> np.ndarray:
    """The nodes from one back to a seed, or to the first that has an owner."""
    nodes = [node]
    while before[nodes[-1]] != NONE and (owner is None or owner[nodes[-1]] < 0):
        nodes.append(int(before[nodes[-1]]))
    return np.array(nodes)


def _without_tip(graph: VoxelGraph, nodes: np.ndarray) -> np.ndarray:
    """A way to the first node whose ball reaches its end; there it would turn to a corner."""
    gap = np.linalg.norm(graph.places[nodes] - graph.places[nodes[-1]], axis=1)
    reached = np.flatnonzero(gap <= graph.depth[nodes] + graph.spacing / 2)
    return nodes[: int(reached[0]) + 1] if len(reached) else nodes
