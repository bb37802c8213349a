"""Parts of a mask on one grid that are one part of a finer mask: they are joined, or go."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from ..anatomy.components import components, kept
from ..geometry.frame import apply_affine

HALF = [o for o in itertools.product((-1, 0, 1), repeat=3) if o > (0, 0, 0)]  # of 26 neighbours


def without_lost(
    mask: np.ndarray, affine: np.ndarray, fine: np.ndarray, fine_affine: np.ndarray, least: float
) -> np.ndarray:
    """``mask`` without the parts below ``least`` mm^3 in which the finer mask has no voxel."""
    labelled, voxels = components(mask)
    place = _places(np.argwhere(fine), fine_affine, affine, mask.shape)
    met = np.bincount(labelled[tuple(place[place[:, 0] >= 0].T)], minlength=len(voxels)) > 0
    large = voxels * abs(np.linalg.det(affine[:3, :3])) >= least
    return kept(labelled, met | large)


def joined_as(
    mask: np.ndarray,
    affine: np.ndarray,
    fine: np.ndarray,
    fine_affine: np.ndarray,
    unchanged: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """``mask`` with its parts joined that belong to one part of a finer mask.

    The shortest ways within the finer mask join them. A thin vessel that crosses thick slices
    aslant has parts that no voxel centre lies between.

    mask, fine : (X, Y, Z) bool, each on its own grid.    affine, fine_affine : (4, 4), of each.
    unchanged : both masks before they were changed. Parts that were apart on the one grid and one
        part on the finer one stay as they are: no change joined them.
    """
    nodes, owner = _split_parts(mask, affine, fine, fine_affine)
    if not len(nodes):
        return mask
    pairs, steps = _neighbours(nodes, fine.shape)
    graph = csr_array((steps, tuple(pairs.T)), shape=(len(nodes),) * 2)
    away, before, source = dijkstra(
        graph,
        directed=False,
        indices=np.flatnonzero(owner),
        return_predecessors=True,
        min_only=True,
    )
    ends = np.where(source >= 0, owner[np.maximum(source, 0)], 0)[pairs]
    border = (ends[:, 0] != ends[:, 1]) & (ends > 0).all(axis=1)
    cost = away[pairs].sum(axis=1) + steps
    result = mask.copy()
    group = _groups(mask, affine, fine_affine, unchanged)
    for edge in np.flatnonzero(border)[np.argsort(cost[border], kind="stable")]:
        a, b = group[ends[edge]]
        if a == b:
            continue
        group[group == b] = a
        way = [_back(before, pairs[edge, 0])[::-1], _back(before, pairs[edge, 1])]
        _draw(result, nodes[np.concatenate(way)], np.linalg.inv(affine) @ fine_affine)
    return result


def _groups(mask, affine, fine_affine, unchanged) -> np.ndarray:
    """Part of the mask -> the least of those that are not to be joined with it, itself included."""
    labelled, voxels = components(mask)
    group = np.arange(len(voxels))
    if unchanged is None:
        return group
    given, given_fine = unchanged
    origin = _together(labelled[mask & given], components(given)[0][mask & given])
    nodes = np.argwhere(given_fine)
    place = _places(nodes, fine_affine, affine, mask.shape)
    part = np.where(place[:, 0] >= 0, labelled[tuple(place.T)], 0)
    on_fine = _together(components(given_fine)[0][tuple(nodes.T)], part)
    for parts in on_fine.values():
        for a, b in itertools.combinations(sorted(parts - {0}), 2):
            if not origin.get(a, set()) & origin.get(b, set()):
                group[group == group[b]] = group[a]
    return group


def _together(first: np.ndarray, second: np.ndarray) -> dict[int, set[int]]:
    """Number of the first array -> those of the second that meet it."""
    found: dict[int, set[int]] = {}
    for a, b in np.unique(np.column_stack([first, second]).astype(np.int64), axis=0).tolist():
        found.setdefault(a, set()).add(b)
    return found


def _split_parts(mask, affine, fine, fine_affine) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) voxels of the finer parts that are several parts of the mask, and of which (N,)."""
    labelled, _ = components(mask)
    parts, _ = components(fine)
    nodes = np.argwhere(fine)
    place = _places(nodes, fine_affine, affine, mask.shape)
    owner = np.where(place[:, 0] >= 0, labelled[tuple(place.T)], 0).astype(np.int64)
    part = parts[tuple(nodes.T)].astype(np.int64)
    pairs = np.unique(np.column_stack([part, owner])[owner > 0], axis=0)
    number = np.bincount(pairs[:, 0], minlength=part.max(initial=0) + 1)
    chosen = number[part] > 1
    return nodes[chosen], owner[chosen]


def _places(voxels, own, other, shape) -> np.ndarray:
    """(N, 3) int: the voxel of another grid in which each voxel's middle lies; -1 outside."""
    place = np.rint(apply_affine(np.linalg.inv(other) @ own, voxels.astype(np.float64)))
    place[((place < 0) | (place >= shape)).any(axis=1)] = -1
    return place.astype(int)


def _neighbours(nodes: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(E, 2) int pairs of touching voxels, and their distance (E,) in voxels."""
    number = np.full(np.array(shape) + 2, -1, np.int32)
    number[tuple((nodes + 1).T)] = np.arange(len(nodes))
    pairs, steps = [], []
    for offset in HALF:
        other = number[tuple((nodes + 1 + offset).T)]
        near = np.flatnonzero(other >= 0)
        pairs.append(np.column_stack([near, other[near]]))
        steps.append(np.full(len(near), np.linalg.norm(offset)))
    return np.concatenate(pairs), np.concatenate(steps)


def _back(before: np.ndarray, node: int) -> list[int]:
    """From a node to the part that it is nearest to."""
    way = [int(node)]
    while before[way[-1]] >= 0:
        way.append(int(before[way[-1]]))
    return way


def _draw(mask: np.ndarray, way: np.ndarray, into: np.ndarray) -> None:
    """Set the voxels that a way of touching voxels of another grid passes through."""
    course = apply_affine(into, way.astype(np.float64))
    samples = 2 * int(np.ceil(np.abs(into[:3, :3]).sum(axis=1).max())) + 1
    share = np.linspace(0, 1, samples)[:, None, None]
    points = (1 - share) * course[:-1] + share * course[1:]
    voxels = np.rint(points.reshape(-1, 3)).astype(int)
    voxels = voxels[((voxels >= 0) & (voxels < mask.shape)).all(axis=1)]
    mask[tuple(voxels.T)] = True
