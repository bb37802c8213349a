"""Several label maps and masks to one: by priority, on one grid, whatever grids they came on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..geometry.resample import resample_mask
from ..labels import LabelTable
from ..volumes import LabelMap, beyond


def fused(base: LabelMap, masks: Mapping[int, LabelMap], table: LabelTable) -> np.ndarray:
    """(X, Y, Z) uint8: ``base`` with some of its classes replaced, the prior class on top.

    base : label map; its grid is kept.
    masks : class value -> its new mask on any grid; the class's old voxels are given up where
        that grid reaches. What lies beyond, the mask says nothing about: it stays.
    table : a voxel that several classes claim goes to the smallest ``priority``.
    """
    rank = np.full(256, np.iinfo(np.int64).max)
    for label in table:
        rank[label.value] = label.priority
    result = base.data.copy(order="K")
    result[np.isin(result, list(masks))] = 0
    for value, mask in masks.items():
        result[tuple(beyond(base, value, mask).T)] = value
    for value, mask in sorted(masks.items(), key=lambda item: rank[item[0]]):
        claimed = resample_mask(mask, result.shape, base.affine)
        result[claimed & (rank[value] < rank[result])] = value
    return result
