"""What lies around a vessel: distances to the other classes of a label map, and their middles."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from ..geometry.frame import apply_affine
from ..geometry.grids import lattice
from ..geometry.sdf import class_boxes
from ..labels import LabelTable
from ..volumes import LabelMap


class Surroundings:
    """The classes of one label map, by name.

    label_map : of the case.    table : which value is which class.
    """

    def __init__(self, label_map: LabelMap, table: LabelTable):
        self._map = label_map
        self._values = dict(zip(table.names, table.values))
        self._walls: dict[str, cKDTree] = {}

    @cached_property
    def _boxes(self) -> dict:
        return class_boxes(self._map.data)

    def has(self, *names: str) -> bool:
        """Whether the label map has every one of these classes."""
        return all(self._values.get(name, 0) in self._boxes for name in names)

    def present(self, *names: str) -> list[str]:
        """Those of the classes that the label map has."""
        return [name for name in names if self.has(name)]

    def distance(self, points: np.ndarray, *names: str) -> np.ndarray:
        """(N,) float64 mm of (N, 3) RAS mm to the wall of the nearest of some classes.

        Within half of the smallest voxel edge; infinite where the label map has none of them.
        """
        half = float(self._map.spacing.min()) / 2
        result = np.full(len(points), np.inf)
        for name in self.present(*names):
            away = self._wall(name).query(points)[0] - half
            np.minimum(result, np.maximum(away, 0.0), out=result)
        return result

    def middle(self, *names: str) -> np.ndarray | None:
        """(3,) RAS mm, the middle of some classes; None where the label map has none of them."""
        walls = [self._wall(name).data for name in self.present(*names)]
        return np.concatenate(walls).mean(axis=0) if walls else None

    def _wall(self, name: str) -> cKDTree:
        """The voxels of a class that have a neighbour of another one, RAS mm.

        Where slices are thick a voxel counts as several, nearly cubes: the wall of one may be
        millimetres from its middle along one axis, and a fraction of that along another.
        """
        if name not in self._walls:
            box = self._boxes[self._values[name]]
            mask = np.pad(self._map.data[box] == self._values[name], 1)
            inner = mask.copy()
            for axis in range(3):
                for shift in (-1, 1):
                    inner &= np.roll(mask, shift, axis)
            index = np.argwhere(mask & ~inner) - 1 + [s.start for s in box]
            parts = np.maximum(np.rint(self._map.spacing / self._map.spacing.min()), 1)
            within = lattice(*((np.arange(n) + 0.5) / n - 0.5 for n in parts))
            places = (index[:, None] + within).reshape(-1, 3)
            self._walls[name] = cKDTree(apply_affine(self._map.affine, places))
        return self._walls[name]
