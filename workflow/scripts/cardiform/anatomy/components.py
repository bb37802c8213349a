"""Connected components of masks; 26 neighbours everywhere, so that counts agree."""

from __future__ import annotations

import cc3d
import numpy as np

# cc3d 4.1.1 keeps too few numbers for the specks that fit into a slice, a line or so few voxels,
# and raises; a rim makes room.
FEW_VOXELS = 27


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Component number of every voxel, 0 outside, and the voxels of each number.

    mask : (X, Y, Z) bool, in either memory order.
    """
    if min(mask.shape) > 1 and mask.size > FEW_VOXELS:
        labelled = cc3d.connected_components(mask, connectivity=26)
    else:
        labelled = cc3d.connected_components(np.pad(mask, 1), connectivity=26)[1:-1, 1:-1, 1:-1]
    return labelled, np.bincount(labelled.ravel("K"))


def count_components(mask: np.ndarray) -> int:
    """Number of connected components."""
    return len(components(mask)[1]) - 1


def kept(labelled: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """(X, Y, Z) bool: the components whose entry in ``keep`` is True; 0 is never kept."""
    keep = np.asarray(keep, bool).copy()
    keep[0] = False
    return keep[labelled]


def without_small(mask: np.ndarray, least: float) -> np.ndarray:
    """``mask`` without components of fewer than ``least`` voxels."""
    labelled, voxels = components(mask)
    return kept(labelled, voxels >= least)


def largest(mask: np.ndarray, number: int) -> np.ndarray:
    """The ``number`` largest components of ``mask``."""
    labelled, voxels = components(mask)
    voxels[0] = 0
    keep = np.zeros(len(voxels), bool)
    keep[np.argsort(voxels, kind="stable")[::-1][:number]] = True
    return kept(labelled, keep)


def small_spares(mask: np.ndarray, usual: int, share: float) -> np.ndarray | None:
    """(X, Y, Z) bool: components beyond the ``usual`` largest ones that hold less than ``share`` of
    the mask; None: there are none."""
    labelled, voxels = components(mask)
    voxels[0] = 0
    spare = np.argsort(voxels, kind="stable")[::-1][usual:]
    small = np.zeros(len(voxels), bool)
    small[spare] = voxels[spare] < share * voxels.sum()
    return kept(labelled, small) if small[1:].any() else None
