"""Centrelines of thin structures: nodes, radii, ends and their directions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ..geometry.distances import depth_in
from .skeleton import skeleton

NEIGHBOUR_VOX = 1.8  # more than the diagonal of a voxel, less than two edges
WALK_MM = 9.0  # length over which the direction and the radius of an end are taken
SPUR_VOX = 2.5  # what leaves a way and is no longer than this is no branch


@dataclass(frozen=True)
class Centreline:
    """The skeleton of a mask as a graph of its voxels.

    mask : (X, Y, Z) bool.    index : (N, 3) int voxels.    spacing : voxel edge, mm.
    """

    mask: np.ndarray
    index: np.ndarray
    spacing: float

    @classmethod
    def of(cls, mask: np.ndarray, spacing: float, lost: bool = True) -> Centreline:
        """Of an (X, Y, Z) bool mask on an isotropic grid.    lost : as of :func:`skeleton`."""
        return cls(mask, np.argwhere(skeleton(mask, lost)), spacing)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def points(self) -> np.ndarray:
        """(N, 3) float64 mm from the first voxel's centre."""
        return self.index * float(self.spacing)

    @cached_property
    def radius(self) -> np.ndarray:
        """(N,) float64 mm, distance to the wall."""
        return depth_in(self.mask, self.spacing)[tuple(self.index.T)].astype(np.float64)

    @cached_property
    def pairs(self) -> np.ndarray:
        """(E, 2) int: neighbouring nodes."""
        if not len(self):
            return np.zeros((0, 2), int)
        return cKDTree(self.index).query_pairs(NEIGHBOUR_VOX, output_type="ndarray")

    @cached_property
    def neighbours(self) -> list[np.ndarray]:
        """The neighbours of every node."""
        both = np.concatenate([self.pairs, self.pairs[:, ::-1]])
        both = both[np.argsort(both[:, 0], kind="stable")]
        borders = np.searchsorted(both[:, 0], np.arange(1, len(self)))
        return np.split(both[:, 1], borders)[: len(self)]

    @cached_property
    def parts(self) -> np.ndarray:
        """(N,) int: the connected part of every node."""
        ones = np.ones(len(self.pairs))
        graph = csr_array((ones, tuple(self.pairs.T)), shape=(len(self),) * 2)
        return connected_components(graph, directed=False)[1]

    @property
    def length_mm(self) -> float:
        """Length of all branches together, mm."""
        if not len(self):
            return 0.0
        # a tree of N nodes has N - 1 edges; triangles at forks must not count
        steps = np.linalg.norm(np.diff(self.index[self.pairs], axis=1)[:, 0], axis=1)
        mean = steps.mean() if len(steps) else 0.0
        return float((len(self) - len(np.unique(self.parts))) * mean * self.spacing)

    def ends(self) -> np.ndarray:
        """Nodes with one neighbour, or none."""
        return np.flatnonzero([len(n) <= 1 for n in self.neighbours])

    def outward(self, end: int) -> tuple[np.ndarray, float]:
        """Unit direction (3,) in which the vessel leaves an end, and its radius there, mm.

        The direction is that of the line which fits the way to the end best: its last voxel alone
        may lie anywhere in a ragged tip. The radius is that of a round vessel of the same volume,
        no less than the usual distance to the wall, which rags bring nearer, and twice that at
        most. The direction is zero where the part is a single node.
        """
        path = self._inwards(end)
        places, radius = self.points[path], float(np.median(self.radius[path]))
        along = self._lengths(path)
        way = -(along - along.mean()) @ (places - places.mean(axis=0))
        inner = path[1:-1] if len(path) > 3 else path  # without the cap
        volume = self._voxels[inner].sum() * self.spacing**3
        length = self._lengths(inner)[-1] + self.spacing
        norm = np.linalg.norm(way)
        round_one = float(np.sqrt(volume / (np.pi * length)))
        return way / norm if norm else way, min(max(round_one, radius), 2 * radius)

    @cached_property
    def _voxels(self) -> np.ndarray:
        """(N,) int: voxels of the mask that are nearest to each node."""
        _, nearest = cKDTree(self.index).query(np.argwhere(self.mask))
        return np.bincount(nearest, minlength=len(self))

    def _lengths(self, path: list[int]) -> np.ndarray:
        """(K,) float64 mm from the first node of a way to each of its nodes."""
        steps = np.linalg.norm(np.diff(self.points[path], axis=0), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps)])

    def _inwards(self, end: int) -> list[int]:
        """The nodes from an end to the first fork, WALK_MM at most; spurs are no forks."""
        length, before, order = {end: 0.0}, {}, [end]
        for node in order:  # it grows
            for other in self.neighbours[node].tolist():
                step = float(np.linalg.norm(self.index[other] - self.index[node]))
                if other not in length and length[node] + step * self.spacing <= WALK_MM:
                    length[other], before[other] = length[node] + step * self.spacing, node
                    order.append(other)
        leads = dict(length)  # how far the ways through a node lead
        onward: dict[int, list[int]] = {node: [] for node in order}
        for node in reversed(order[1:]):
            leads[before[node]] = max(leads[before[node]], leads[node])
            onward[before[node]].append(node)
        path = [end]
        while onward[path[-1]]:
            *others, main = sorted(onward[path[-1]], key=leads.__getitem__)
            if others and leads[others[-1]] - length[path[-1]] > SPUR_VOX * self.spacing:
                break
            path.append(main)
        return path
