"""Skeletons of thin structures: thinning, and the branches that thinning loses."""

from __future__ import annotations

import numpy as np
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

from ..geometry.distances import box_about
from .components import components
from .tree_graph import NONE, VoxelGraph

# A voxel so far beyond the ball about the nearest node of the skeleton belongs to no branch of it.
BEYOND_VOX = 3.0
LEAST_RATIO = 3.0  # what is lost is a branch, and no lump, if it is longer than this many radii


def skeleton(mask: np.ndarray) -> np.ndarray:
    """(X, Y, Z) bool thinning of a mask; only its own box is walked.

    Lee et al. (1994), as implemented in scikit-image. That eats free branches of an even width
    whole, a part of it or all of a vessel (its issue 3757): what is lost gets the way along its
    middle to the skeleton, and a part without any the voxel that lies deepest.
    """
    result = np.zeros(mask.shape, bool)
    box = box_about(mask, 0)
    if box is not None:
        inner = np.pad(mask[box], 1)
        result[box] = _with_lost(inner, skeletonize(inner) > 0)[1:-1, 1:-1, 1:-1]
    return result


def _with_lost(mask: np.ndarray, thin: np.ndarray) -> np.ndarray:
    """The skeleton with what it lacks of a mask."""
    voxels = np.argwhere(mask)
    seen = thin[mask]
    away = cKDTree(voxels[seen]).query(voxels)[0] if seen.any() else np.full(len(voxels), np.inf)
    # a ball is half a voxel wide at least
    if away.max() <= BEYOND_VOX and _parts_of(mask, seen):
        return thin
    graph = VoxelGraph.of(mask, np.eye(4))
    seen |= _deepest_of_others(graph, seen)
    nodes = np.flatnonzero(seen)
    away, nearest = cKDTree(voxels[nodes]).query(voxels)
    left = np.where(away > graph.depth[nodes[nearest]] + BEYOND_VOX, away, 0.0)
    if left.any():
        _, before, _ = dijkstra(graph.costs, indices=nodes, min_only=True, return_predecessors=True)
    while left.any():
        tip = int(left.argmax())
        way = _way(before, tip)
        beyond = way[away[way] > graph.depth[nodes[nearest[way]]]]
        if len(beyond) > LEAST_RATIO * graph.depth[beyond].max():
            inner = np.linalg.norm(voxels[way] - voxels[tip], axis=1) > graph.depth[way]
            seen[way[inner]] = True
        covered = graph.depth[way] + BEYOND_VOX
        for node, reach in zip(way, covered):
            left[graph.tree.query_ball_point(graph.places[node], reach)] = 0.0
    result = np.zeros_like(thin)
    result[tuple(voxels[seen].T)] = True
    return result


def _parts_of(mask: np.ndarray, seen: np.ndarray) -> bool:
    """Whether every part of a mask has one of the voxels that are seen."""
    labelled, sizes = components(mask)
    return len(np.unique(labelled[mask][seen])) == len(sizes) - 1


def _deepest_of_others(graph: VoxelGraph, seen: np.ndarray) -> np.ndarray:
    """(N,) bool: of every part without a node that is seen the deepest one."""
    result = np.zeros_like(seen)
    for part in np.setdiff1d(graph.part, graph.part[seen]):
        members = np.flatnonzero(graph.part == part)
        result[members[graph.depth[members].argmax()]] = True
    return result


def _way(before: np.ndarray, node: int) -> np.ndarray:
    """The nodes from one back to the skeleton."""
    nodes = [node]
    while before[nodes[-1]] != NONE:
        nodes.append(int(before[nodes[-1]]))
    return np.array(nodes)
