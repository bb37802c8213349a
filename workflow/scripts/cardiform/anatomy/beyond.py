"""Label maps past the field of view: room for what the scan cuts off, and what is made there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..geometry.field_of_view import Cut
from ..geometry.grids import cropped_affine
from ..volumes import LabelMap
from .components import components, kept


def larger_grid(label_map: LabelMap, cuts: Mapping[int, Cut], beyond_mm: float) -> LabelMap:
    """A copy with empty layers past the faces of the volume at which a class is cut."""
    width = np.zeros((3, 2), int)
    for plane in (plane for cut in cuts.values() for plane in cut.planes):
        edge = -0.5 if plane.side < 0 else label_map.data.shape[plane.axis] - 0.5
        if plane.at == edge:
            layers = int(np.ceil(beyond_mm / label_map.spacing[plane.axis]))
            width[plane.axis, int(plane.side > 0)] = layers
    affine = cropped_affine(label_map.affine, -width[:, 0].astype(float))
    return LabelMap(np.pad(label_map.data, width), affine)


def joined(grid: LabelMap, made: np.ndarray, cuts: Mapping[int, Cut]) -> LabelMap:
    """A label map with its cut classes completed behind their planes.

    made : (X, Y, Z) uint8 on its grid. What the scan shows stays as it is; behind a plane a cut
        class gets its voxels of ``made`` that hang together with what is seen of it.
    """
    data = grid.data.copy()
    for value, cut in cuts.items():
        seen = data == value
        new = (made == value) & (data == 0) & ~cut.in_view(data.shape, grid.affine)
        labelled, voxels = components(new | seen)
        hanging = np.bincount(labelled[seen], minlength=len(voxels)) > 0
        data[new & kept(labelled, hanging)] = value
    return LabelMap(data, grid.affine)
