"""The heart about its vessels, on a fine grid: where the aorta's wall is, and what is blood."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from ...anatomy.components import components
from ...geometry.frame import apply_affine
from ...geometry.sdf import class_boxes
from ...labels import LabelTable
from ...options.vessels import ORIGIN

CARRIER = "left_ventricle"  # what the vessels' origin leaves
ROOT_MM = 40.0  # so far from there vessels spring from the aorta
SAMPLES = 9  # places along a gap that are looked at


@dataclass(frozen=True, eq=False)
class HeartWalls:
    """A heart on a fine grid.

    labels : (X, Y, Z) uint8 class values.    affine : (4, 4) to mm from the middle of the cube.
    """

    labels: np.ndarray
    affine: np.ndarray
    table: LabelTable

    @cached_property
    def aorta(self) -> np.ndarray:
        """(X, Y, Z) bool, all of it."""
        return self.labels == self._value(ORIGIN)

    @cached_property
    def _root(self) -> cKDTree | None:
        """Places of the wall of the aorta about where it leaves the left ventricle.

        Of several parts the one that is nearest to that; without a left ventricle, the largest.
        """
        places, part, largest = self._wall(ORIGIN)
        if not len(places):
            return None
        ventricle = self._wall(CARRIER)[0]
        if not len(ventricle):
            return cKDTree(places[part == largest])
        nearest = int(cKDTree(ventricle).query(places)[0].argmin())
        chosen = part == part[nearest]
        chosen &= np.linalg.norm(places - places[nearest], axis=1) <= ROOT_MM
        return cKDTree(places[chosen])

    @property
    def has_root(self) -> bool:
        """Whether there is an aorta."""
        return self._root is not None

    def to_root(self, points: np.ndarray) -> np.ndarray:
        """(N,) mm from (N, 3) places to the nearest voxel of the aortic root's wall."""
        assert self._root is not None, "see has_root"
        return self._root.query(points)[0]

    def nearest_in_root(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) mm: the middles of these voxels."""
        assert self._root is not None, "see has_root"
        return self._root.data[self._root.query(points)[1]]

    def inside(self, points: np.ndarray) -> np.ndarray:
        """(N,) bool: places within any class."""
        index = np.round(apply_affine(np.linalg.inv(self.affine), points)).astype(int)
        fits = ((index >= 0) & (index < self.labels.shape)).all(axis=1)
        result = np.zeros(len(points), bool)
        result[fits] = self.labels[tuple(index[fits].T)] > 0
        return result

    def share_inside(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """(N,) share of straight ways from (N, 3) to (N, 3) within any class."""
        t = np.linspace(0, 1, SAMPLES)[:, None, None]
        places = starts + t * (ends - starts)
        return self.inside(places.reshape(-1, 3)).reshape(SAMPLES, -1).mean(axis=0)

    def _value(self, name: str) -> int:
        """256, which no voxel has, where the table lacks the class."""
        return dict(zip(self.table.names, self.table.values)).get(name, 256)

    def _wall(self, name: str) -> tuple[np.ndarray, np.ndarray, int]:
        """Places (N, 3) mm of the voxels of a class that have a neighbour of another one, the
        number of each one's part (N,), and that of the largest part."""
        box = class_boxes(self.labels).get(self._value(name))
        if box is None:
            return np.zeros((0, 3)), np.zeros(0, int), 0
        mask = self.labels[box] == self._value(name)
        labelled, voxels = components(mask)
        index = np.argwhere(mask & ~binary_erosion(mask))
        places = apply_affine(self.affine, index + np.array([s.start for s in box], float))
        return places, labelled[tuple(index.T)], 1 + int(voxels[1:].argmax())
