"""The heart about its vessels, on a fine grid: where the aorta's wall is, and what is blood."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from ...anatomy.components import components
from ...geometry.frame import apply_affine
from ...labels import LabelTable

ORIGIN, CARRIER = "aorta", "left_ventricle"  # what the vessels spring from, and what that leaves
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
        return self._mask(ORIGIN)

    @cached_property
    def root(self) -> np.ndarray:
        """(X, Y, Z) bool: the aorta about where it leaves the left ventricle.

        Of several parts the one that is nearest to that; without a left ventricle, the largest.
        """
        aorta = self.aorta
        if not aorta.any():
            return aorta
        labelled, voxels = components(aorta)
        if not self._mask(CARRIER).any():
            return labelled == 1 + int(voxels[1:].argmax())
        index = np.argwhere(aorta)
        places = apply_affine(self.affine, index.astype(float))
        away = cKDTree(self._places(CARRIER)).query(places)[0]
        nearest = int(away.argmin())
        chosen = labelled[tuple(index.T)] == labelled[tuple(index[nearest])]
        chosen &= np.linalg.norm(places - places[nearest], axis=1) <= ROOT_MM
        result = np.zeros_like(aorta)
        result[tuple(index[chosen].T)] = True
        return result

    @cached_property
    def has_root(self) -> bool:
        """Whether there is an aorta."""
        return bool(self.root.any())

    @cached_property
    def _root_voxels(self) -> cKDTree:
        rim = self.root & ~binary_erosion(self.root)
        return cKDTree(apply_affine(self.affine, np.argwhere(rim).astype(float)))

    def to_root(self, points: np.ndarray) -> np.ndarray:
        """(N,) mm from (N, 3) places to the nearest voxel of the aortic root's wall."""
        return self._root_voxels.query(points)[0]

    def nearest_in_root(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) mm: the middles of these voxels."""
        return self._root_voxels.data[self._root_voxels.query(points)[1]]

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

    def _mask(self, name: str) -> np.ndarray:
        value = dict(zip(self.table.names, self.table.values)).get(name)
        return np.zeros(self.labels.shape, bool) if value is None else self.labels == value

    def _places(self, name: str) -> np.ndarray:
        mask = self._mask(name)
        return apply_affine(self.affine, np.argwhere(mask & ~binary_erosion(mask)).astype(float))
