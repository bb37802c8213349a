"""What is made past the field of view, joined with what the scan shows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..geometry.field_of_view import Cut
from .components import components, kept


def joined(
    seen: np.ndarray, made: np.ndarray, affine: np.ndarray, cuts: Mapping[int, Cut]
) -> np.ndarray:
    """(X, Y, Z) uint8: ``seen`` with its cut classes completed behind their planes.

    seen, made : (X, Y, Z) uint8 on one grid. What is seen stays as it is; behind a plane a cut
        class gets its voxels of ``made`` that hang together with what is seen of it.
    affine : (4, 4) voxel indices to RAS mm.
    """
    data = seen.copy()
    for value, cut in cuts.items():
        shown = data == value
        new = (made == value) & (data == 0) & ~cut.in_view(data.shape, affine)
        labelled, voxels = components(new | shown)
        hanging = np.bincount(labelled[shown], minlength=len(voxels)) > 0
        data[new & kept(labelled, hanging)] = value
    return data
