"""Exact Euclidean distances of masks, computed in the box about the mask alone.

By the ``edt`` package (Silversmith; the method of Felzenszwalb and Huttenlocher 2012). It takes
uint8 2.3 times as fast as bool, and a vessel fills a small part of its grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import edt
import numpy as np

Spacing = float | Sequence[float] | np.ndarray  # voxel edges, mm; one: of cubes


def distance_to(mask: np.ndarray, spacing: Spacing, reach: float = math.inf) -> np.ndarray:
    """(X, Y, Z) float32 mm to the nearest voxel of a mask; inf where there is none.

    mask : (X, Y, Z) bool.
    reach : mm; of voxels farther away all that is said is that they are: inf, or the distance.
    """
    box = box_about(mask, _rim(reach, spacing))
    result = np.full(mask.shape, np.inf, np.float32)
    if box is not None:
        result[box] = edt.edt((~mask[box]).view(np.uint8), anisotropy=_edges(spacing))
    return result


def depth_in(mask: np.ndarray, spacing: Spacing) -> np.ndarray:
    """(X, Y, Z) float32 mm of each voxel of a mask to the nearest voxel outside; 0 outside.

    Beyond the array nothing is known: inf where the mask fills it.
    """
    box = box_about(mask, 1)
    result = np.zeros(mask.shape, np.float32)
    if box is not None:
        inner = mask[box].copy(order="K")  # in the order of the axes depends how sums are rounded
        result[box] = edt.edt(inner.view(np.uint8), anisotropy=_edges(spacing))
    return result


def signed_distance(mask: np.ndarray, spacing: Spacing, limit: float) -> np.ndarray:
    """(X, Y, Z) float32 mm to the faces between the voxels of a mask and the others.

    Where edges differ it is too large by half of their difference at most, on both sides alike.

    mask : (X, Y, Z) bool.    limit : distances are clipped at this, mm.
    """
    box = box_about(mask, _rim(limit, spacing) + 1)
    result = np.full(mask.shape, limit, np.float32)
    if box is not None:
        inside = mask[box]
        distance = edt.edt(inside.view(np.uint8) + np.uint8(1), anisotropy=_edges(spacing))
        distance -= np.float32(np.min(spacing) / 2)
        np.negative(distance, out=distance, where=inside)
        np.clip(distance, -limit, limit, out=result[box])
    return result


def box_about(mask: np.ndarray, rim: int) -> tuple[slice, slice, slice] | None:
    """The box of a mask's voxels and ``rim`` more on every side, within the array; None: it is
    empty."""
    spans = []
    for axis, size in enumerate(mask.shape):
        filled = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        if not len(filled):
            return None
        spans.append(slice(max(int(filled[0]) - rim, 0), min(int(filled[-1]) + 1 + rim, size)))
    x, y, z = spans
    return x, y, z


def _edges(spacing: Spacing) -> tuple[float, ...]:
    return tuple(map(float, np.broadcast_to(spacing, 3)))


def _rim(reach: float, spacing: Spacing) -> int:
    """Voxels that ``reach`` mm take at most; more than any grid has where there is no limit."""
    voxels = reach / float(np.min(spacing))
    return math.ceil(voxels) if voxels < 1e6 else 10**6
