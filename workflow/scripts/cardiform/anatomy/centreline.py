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
WALK_MM = 5.0  # length over which the direction and the radius of an end are taken


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

        The direction is zero where the part is a single node.
        """
        path = [end]
        ahead, length = end, 0.0
        while length < WALK_MM:
            onward = [n for n in self.neighbours[ahead] if n not in path]
            if (len(onward) != 1 and len(path) > 1) or not onward:
                break
            step = np.linalg.norm(self.index[onward[0]] - self.index[ahead])
            length += float(self.spacing * step)
            ahead = onward[0]
            path.append(ahead)
        way = self.points[end] - self.points[path].mean(axis=0)
        norm = np.linalg.norm(way)
        return way / norm if norm else way, float(np.median(self.radius[path]))
