"""Skeletons of thin structures: thinning, and the branches that thinning loses."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

from ..geometry.distances import box_about, depth_in
from .components import components
from .tree_graph import NONE, VoxelGraph

# A voxel so far beyond the ball about the nearest node of the skeleton belongs to no branch of it.
BEYOND_VOX = 3.0
LEAST_VOX = 5.0  # as far as that a branch reaches; thinning takes as much of the ends of others
LEAST_RATIO = 3.0  # what is lost is a branch, and no lump, if it is longer than this many radii
# The rim of a flat vessel is none either: it begins all along the vessel, in a place wider than so
# many times its thickness, and wider than it reaches.
FLAT_RATIO = 2.5
AROUND = np.ones((3, 3, 3), bool)


def skeleton(mask: np.ndarray, lost: bool = True) -> np.ndarray:
    """(X, Y, Z) bool thinning of a mask; only its own box is walked.

    Lee et al. (1994), as implemented in scikit-image. That eats free branches of an even width
    whole, a part of it or all of a vessel (its issue 3757): what is lost gets the way along its
    middle to the skeleton, and a part without any the voxel that lies deepest.

    lost : whether what is lost is looked for; it takes longer than the thinning.
    """
    result = np.zeros(mask.shape, bool)
    box = box_about(mask, 0)
    if box is not None:
        inner = np.ascontiguousarray(np.pad(mask[box], 1))  # parts are numbered in its order
        thin = skeletonize(inner) > 0
        result[box] = (_with_lost(inner, thin) if lost else thin)[1:-1, 1:-1, 1:-1]
    return result


def _with_lost(mask: np.ndarray, thin: np.ndarray) -> np.ndarray:
    """The skeleton with what it lacks of a mask."""
    labelled, sizes = components(mask)
    part, seen = labelled[mask].astype(np.int64), thin[mask]
    lone = np.ones(len(sizes), bool)  # parts without a node
    lone[part[seen]] = False
    # parts are put so far apart that none is near another one's nodes
    places = np.column_stack([np.argwhere(mask), part * sum(mask.shape)])
    away, nearest = _to_nodes(places, seen)
    if away.max() <= LEAST_VOX and not lone[1:].any():  # a ball is half a voxel wide at least
        return thin
    depth = depth_in(mask, 1.0)[mask].astype(np.float64) - 0.5  # the wall is half a voxel nearer
    if lone[1:].any():
        seen |= _deepest(depth, np.where(lone[part], part, 0))
        away, nearest = _to_nodes(places, seen)
    _add_branches(mask, places, depth, seen, away - depth[nearest])
    result = np.zeros_like(thin)
    result[mask] = seen
    return result


def _to_nodes(places: np.ndarray, seen: np.ndarray, of: np.ndarray | slice = slice(None)):
    """Distances to the nearest voxel that is seen, and its number, of some voxels."""
    nodes = np.flatnonzero(seen)
    if not len(nodes):
        return np.full(len(places), np.inf), np.zeros(len(places), int)
    away, nearest = cKDTree(places[nodes]).query(places[of])
    return away, nodes[nearest]


def _deepest(depth: np.ndarray, part: np.ndarray) -> np.ndarray:
    """(N,) bool: the first of the deepest voxels of every part but 0."""
    order = np.lexsort((-depth, part))
    result = np.zeros(len(depth), bool)
    result[order[np.diff(part[order], prepend=0) > 0]] = True
    return result


def _add_branches(
    mask: np.ndarray, places: np.ndarray, depth: np.ndarray, seen: np.ndarray, reach: np.ndarray
) -> None:
    """Add to the voxels that are seen the ways to all branches that are lost.

    reach : (N,) how far each voxel lies beyond the ball about the nearest that is seen.
    """
    before, number = None, -1
    while seen.sum() > number and len(tips := _tips(mask, depth, reach)):
        number = seen.sum()
        if before is None:
            before = _steps_back(mask, places, seen, tips)
        for tip in tips:
            way = _way(before, tip)
            outer = way[reach[way] > 0]
            if len(outer) > LEAST_RATIO * depth[outer].max():
                inner = np.linalg.norm(places[way] - places[tip], axis=1) > depth[way]
                seen[way[inner]] = True
        outer = np.flatnonzero(reach > 0)
        away, nearest = _to_nodes(places, seen, outer)
        reach[outer] = away - depth[nearest]


def _tips(mask: np.ndarray, depth: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """The number of the outermost voxel of everything lost that may be a branch."""
    fields = np.zeros((2, *mask.shape), np.float32)
    fields[:, mask] = reach, depth
    box = box_about(fields[0] > BEYOND_VOX, 1)
    if box is None:
        return np.zeros(0, int)
    inner, (far, deep) = mask[box], fields[:, *box]
    labelled = components(far > BEYOND_VOX)[0].astype(np.int32)
    found = []
    for number, window in enumerate(ndimage.find_objects(labelled), 1):
        window = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in window)
        own = labelled[window] == number
        values = np.where(own, far[window], 0)
        wider = ndimage.binary_dilation(own, AROUND) & inner[window]
        radius, reaches = deep[window][wider].max(), values.max()
        widest = max(FLAT_RATIO * (2 * radius + 1), reaches)
        if reaches > max(radius, LEAST_VOX) and _width(wider & ~own) <= widest:
            tip = np.unravel_index(values.argmax(), values.shape)
            found.append([b.start + w.start + t for b, w, t in zip(box, window, tip)])
    flat = np.ravel_multi_index(np.reshape(found, (-1, 3)).astype(int).T, mask.shape)
    return np.searchsorted(np.flatnonzero(mask), flat)


def _width(mask: np.ndarray) -> float:
    """The diagonal of the box of a mask's largest part."""
    boxes = ndimage.find_objects(ndimage.label(mask, AROUND)[0])
    return max(float(np.linalg.norm([s.stop - s.start for s in box])) for box in boxes)


def _steps_back(
    mask: np.ndarray, places: np.ndarray, seen: np.ndarray, tips: np.ndarray
) -> np.ndarray:
    """(N,) int: the voxel before each on its cheapest way from the skeleton, in parts with tips."""
    some = np.flatnonzero(np.isin(places[:, 3], places[tips, 3]))
    own = np.zeros_like(mask)  # of a graph a voxel takes a thousand times the memory
    own[tuple(places[some, :3].T)] = True
    costs = VoxelGraph.of(own, np.eye(4)).costs
    nodes = np.flatnonzero(seen[some])
    _, found, _ = dijkstra(costs, indices=nodes, min_only=True, return_predecessors=True)
    before, led = np.full(len(places), NONE), found != NONE
    before[some[led]] = some[found[led]]
    return before


def _way(before: np.ndarray, node: int) -> np.ndarray:
    """The nodes from one back to the skeleton."""
    nodes = [node]
    while before[nodes[-1]] != NONE:
        nodes.append(int(before[nodes[-1]]))
    return np.array(nodes)
